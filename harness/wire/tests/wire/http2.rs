//! The client over HTTP/2 with prior knowledge.

use std::{convert::Infallible, future::ready, io, sync::Arc};

use crate::served::once;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::sync::Notify;
use verdict::history::{Ended, Outcome};
use wire::{Arrived, Call, Next};

/// Serves HTTP/2: `/cut` resets the stream in the body when it is told to, everything else says what it was asked.
async fn server(reset: Arc<Notify>) -> wire::Client {
    let (client, _serving) = once(async move |stream| {
        let service = service_fn(move |request: Request<Incoming>| {
            let reset = Arc::clone(&reset);
            async move {
                let cut = request.uri().path() == "/cut";
                assert_eq!(request.version(), Version::HTTP_2);
                let said = format!("{} {}", request.uri(), request.headers()["x-igc-exchange"].to_str().expect("text"));
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let frames = stream::iter([Ok(Frame::data(Bytes::from(said))), Ok(Frame::data(body))]);
                let end = stream::once(async move {
                    reset.notified().await;
                    Err(io::Error::other("cut"))
                });
                let end = if cut { end.left_stream() } else { stream::empty().right_stream() };
                Ok::<_, Infallible>(Response::new(StreamBody::new(frames.chain(end))))
            }
        });
        // fails where the client leaves first
        let _ended = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    client
}

#[tokio::test]
async fn a_call_over_http2_is_an_exchange_like_any_other() {
    let client = server(Arc::default()).await;
    let call = Call::post("/v1/x?y=1").host("llm.example.com").json(&json!({"a": 1})).http2();
    let exchange = client.send("x", call).await;
    let response = exchange.response().unwrap_or_else(|| panic!("{}", exchange.outcome_words()));
    assert_eq!((response.status, response.ended), (200, Ended::Complete));
    assert_eq!(response.body.text.as_deref(), Some(r#"http://llm.example.com/v1/x?y=1 test-0{"a":1}"#));
    assert_eq!(exchange.request.target, "/v1/x?y=1");
}

#[tokio::test]
async fn a_reset_stream_is_truncated() {
    let reset = Arc::new(Notify::new());
    let client = server(Arc::clone(&reset)).await;
    let on_chunk = |arrived| {
        if matches!(arrived, Arrived::Chunk { .. }) {
            reset.notify_one(); // a reset overtakes what was sent before it
        }
        ready(Next::Read)
    };
    let exchange = client.send_with_gate("x", Call::get("/cut").host("h").http2(), on_chunk).await;
    assert_eq!(exchange.response().map(|r| r.ended), Some(Ended::Truncated));
}

#[tokio::test]
async fn a_server_of_http1_is_a_failure() {
    let (client, _serving) = crate::served::once(async move |mut stream| {
        use tokio::io::AsyncWriteExt;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("the client reads");
    })
    .await;
    let exchange = client.send("x", Call::get("/").host("h").http2()).await;
    assert!(matches!(&exchange.outcome, Outcome::Failed { stage, .. } if stage != "build the request"), "{exchange:?}");
}
