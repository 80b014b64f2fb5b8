//! Servers that write exactly the bytes of a test.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wire::{Client, Tcp};

/// Serves the first connection with `serve`; its result is the handle's.
pub async fn once<T, F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> (Client, JoinHandle<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::new(Arc::new(Tcp::to(listener.local_addr().expect("an address"))), "test");
    let serving = tokio::spawn(async move {
        let (stream, _peer) = listener.accept().await.expect("a connection");
        serve(stream).await
    });
    (client, serving)
}

/// Serves one request with these bytes, then closes; gives the request.
pub async fn bytes(reply: impl Into<Vec<u8>>) -> (Client, JoinHandle<String>) {
    let reply = reply.into();
    once(async move |mut stream| {
        let request = request(&mut stream).await;
        stream.write_all(&reply).await.expect("the client reads");
        request
    })
    .await
}

/// Serves one request with these bytes, and waits until the client leaves.
pub async fn held(reply: &'static str) -> (Client, JoinHandle<()>) {
    once(async move |mut stream| {
        request(&mut stream).await;
        stream.write_all(reply.as_bytes()).await.expect("the client reads");
        let _reset_or_end = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// Reads a whole request.
pub async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |l| l.parse().expect("a number"));
            if body.len() >= length {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.expect("a request"), 0, "the client left: {text}");
    }
}
