//! Channels in a WebSocket, as the kube client forwards (`v4.channel.k8s.io`): two a port, one for bytes and one for
//! errors, each opened by a frame that names the port.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::{net::TcpStream, net::tcp::OwnedWriteHalf, sync::mpsc};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::{Pod, Socket};
use crate::failure::{Failure, Result};

const MOST_PORTS: usize = 64;

/// The ports of a request: `8080,8081`.
pub(super) fn ports(asked: &str) -> Result<Vec<u16>> {
    let refused = |port| Failure::bad_request(format!("port {port:?} is not a port"));
    asked.split(',').take(MOST_PORTS).map(|port| port.parse().map_err(|_| refused(port))).collect()
}

/// Forwards until the client leaves or every port has ended.
pub(super) async fn forward(socket: Socket, pod: &Pod, ports: &[u16]) {
    let (mut sink, mut frames) = socket.split();
    let (tell, mut told) = mpsc::channel::<Option<Message>>(16); // frames, or the end of a port
    let mut writers: Vec<Option<OwnedWriteHalf>> = Vec::new();
    let mut open = 0;
    for (at, number) in ports.iter().enumerate() {
        let channel = u8::try_from(2 * at).unwrap_or(u8::MAX - 1);
        for channel in [channel, channel + 1] {
            if sink.send(frame(channel, &number.to_le_bytes())).await.is_err() {
                return;
            }
        }
        match pod.dial(&number.to_string()).await {
            Ok(stream) => {
                open += 1;
                writers.push(Some(read_on(stream, channel, tell.clone())));
            }
            Err(why) => {
                writers.push(None);
                if sink.send(frame(channel + 1, why.as_bytes())).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(tell);
    while open > 0 {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Message::Binary(bytes))) => take(&mut writers, &bytes).await,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            word = told.recv() => match word {
                Some(Some(frame)) => {
                    if sink.send(frame).await.is_err() {
                        break;
                    }
                }
                Some(None) => open -= 1,
                None => break,
            },
        }
    }
    let _ = sink.close().await; // the client may have left first
}

/// Reads from a pod until it ends, and hands back the other direction.
fn read_on(stream: TcpStream, channel: u8, tell: mpsc::Sender<Option<Message>>) -> OwnedWriteHalf {
    let (mut reader, writer) = stream.into_split();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if tell.send(Some(frame(channel, &buffer[..length]))).await.is_err() {
                return;
            }
        }
        let _ = tell.send(None).await; // fails where the client has closed the socket
    });
    writer
}

async fn take(writers: &mut [Option<OwnedWriteHalf>], frame: &[u8]) {
    let Some((channel, bytes)) = frame.split_first() else { return };
    let Some(writer) = writers.get_mut(usize::from(channel / 2)) else {
        return;
    };
    if channel % 2 == 0
        && let Some(open) = writer
        && open.write_all(bytes).await.is_err()
    {
        *writer = None;
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}
