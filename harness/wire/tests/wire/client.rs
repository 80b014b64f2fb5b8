//! The client against servers that write exactly the bytes of a test.

use std::{future::ready, sync::Arc, time::Duration};

use crate::served::{bytes, held, once, request};
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use verdict::canary;
use verdict::history::{Ended, Exchange, Outcome, Response};
use wire::{Abandon, Arrived, Call, Client, Next, Tcp};

fn response(exchange: &Exchange) -> &Response {
    exchange.response().unwrap_or_else(|| panic!("{}", exchange.outcome_words()))
}

fn failed(exchange: &Exchange) -> (&str, &str) {
    match &exchange.outcome {
        Outcome::Failed { stage, error } => (stage, error),
        Outcome::Response(response) => panic!("a response: {response:?}"),
    }
}

#[track_caller]
fn assert_failed(exchange: &Exchange, at: &str, words: &str) {
    let (stage, error) = failed(exchange);
    assert!(stage == at && error.contains(words), "{stage}: {error}");
}

/// How the body ended, and the body.
fn body(exchange: &Exchange) -> (Ended, Option<&str>) {
    let response = response(exchange);
    (response.ended, response.body.text.as_deref())
}

#[tokio::test]
async fn what_is_sent_is_what_the_transcript_says() {
    let (client, serving) = bytes("HTTP/1.1 204 No Content\r\n\r\n").await;
    let call = Call::post("/v1/chat/completions?x=1")
        .host("llm.example.com")
        .header("X-User-Id", "anna")
        .header("x-user-id", "b b")
        .header("Authorization", "Bearer secret")
        .json(&json!({"model": "m"}))
        .stream();
    let exchange = client.send("first", call).await;
    let sent = serving.await.expect("a request");
    let (head, body) = sent.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /v1/chat/completions?x=1 HTTP/1.1"));
    assert_eq!(lines.next(), Some("host: llm.example.com"));
    let secret = wire::redacted("authorization", b"Bearer secret");
    let told: Vec<String> =
        exchange.request.headers.iter().map(|(n, v)| format!("{n}: {v}").replace(&secret, "Bearer secret")).collect();
    assert_eq!(lines.collect::<Vec<_>>(), told);
    assert!(told.contains(&"x-igc-exchange: test-0".to_owned()), "{told:?}");
    assert_eq!(body, r#"{"model":"m","stream":true}"#);
    assert_eq!(exchange.request.body.text.as_deref(), Some(body));
    assert!(!format!("{exchange:?}").contains("secret"), "credentials are in the transcript");
    assert_eq!((exchange.id.as_str(), exchange.label.as_str(), exchange.status()), ("test-0", "first", Some(204)));
}

#[tokio::test]
async fn header_values_may_be_any_bytes_that_http_allows() {
    let (client, serving) = once(async move |mut stream| {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut read).await.expect("a request");
        }
        read
    })
    .await;
    let exchange = client.send("raw", Call::get("/").header("x-raw", b"\xFF\xFE\x80")).await;
    let sent = serving.await.expect("a request");
    assert!(sent.windows(12).any(|w| w == b"x-raw: \xFF\xFE\x80\r\n"), "{}", String::from_utf8_lossy(&sent));
    assert_eq!(failed(&exchange).0, "read the response head");
}

#[tokio::test]
async fn response_headers_keep_their_order_and_spelling() {
    let reply = "HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-B: 1\r\nx-a:  2 \r\nX-b: 3\r\nSet-Cookie: id=7\r\nContent-Length: 2\r\n\r\nok";
    let (client, _serving) = bytes(reply).await;
    let exchange = client.send("x", Call::get("/")).await;
    let headers = &response(&exchange).headers;
    let short: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let cookie = wire::redacted("set-cookie", b"id=7");
    assert_eq!(short, [("X-B", "1"), ("x-a", "2"), ("X-b", "3"), ("Set-Cookie", &cookie), ("Content-Length", "2")]);
}

#[rstest]
#[case::content_length("Content-Length: 5\r\n\r\nhello", Ended::Complete, "hello")]
#[case::content_length_short("Content-Length: 9\r\n\r\nhello", Ended::Truncated, "hello")]
#[case::chunked("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Ended::Complete, "hello")]
#[case::chunked_without_last_chunk("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Ended::Truncated, "hello")]
#[case::last_chunk_cut("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Ended::Truncated, "hello")]
#[case::chunk_cut("Transfer-Encoding: chunked\r\n\r\n9\r\nhello", Ended::Truncated, "hello")]
#[case::chunk_size_is_no_number("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", Ended::Truncated, "hello")]
#[case::until_close("\r\nhello", Ended::Complete, "hello")]
#[case::nothing("Content-Length: 0\r\n\r\n", Ended::Complete, "")]
#[tokio::test]
async fn complete_and_truncated_bodies_are_told_apart(#[case] rest: &str, #[case] ended: Ended, #[case] wanted: &str) {
    let (client, _serving) = bytes(format!("HTTP/1.1 200 OK\r\n{rest}")).await;
    let exchange = client.send("x", Call::get("/")).await;
    assert_eq!(body(&exchange), (ended, Some(wanted)));
    assert_eq!(response(&exchange).chunks.iter().map(|(_, n)| n).sum::<u64>(), wanted.len() as u64);
}

#[tokio::test]
async fn a_reset_in_the_body_is_truncated() {
    let (seen, was_seen) = oneshot::channel::<()>();
    let (client, _serving) = once(async move |mut stream| {
        request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await
            .expect("the client reads");
        was_seen.await.expect("the first chunk");
        stream.set_zero_linger().expect("a socket");
    })
    .await;
    let mut seen = Some(seen);
    let on_chunk = |arrived| {
        if matches!(arrived, Arrived::Chunk { .. }) {
            seen.take().into_iter().for_each(|s| s.send(()).expect("the server waits"));
        }
        ready(Next::Read)
    };
    let exchange = client.send_with_gate("x", Call::get("/"), on_chunk).await;
    assert_eq!(body(&exchange), (Ended::Truncated, Some("hello")));
}

#[rstest]
#[case::closed(b"", "connection closed before message completed")]
#[case::half_a_head(b"HTTP/1.1 200 OK\r\nContent-", "connection closed before message completed")]
#[case::not_http(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "invalid HTTP version parsed")]
#[case::folded(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n  folded\r\nContent-Length: 0\r\n\r\n", "invalid HTTP header parsed")]
#[case::nul_in_header(b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n", "invalid HTTP header parsed")]
#[case::two_lengths(
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
    "invalid content-length parsed"
)]
#[tokio::test]
async fn a_broken_head_is_a_failure(#[case] reply: &'static [u8], #[case] words: &str) {
    let (client, _serving) = bytes(reply).await;
    let exchange = client.send("x", Call::get("/")).await;
    assert_failed(&exchange, "read the response head", words);
}

#[rstest]
#[case::one_long_header(format!("X-A: {}\r\n", "a".repeat(200_000)), "message head is too large")]
#[case::many_headers("X-A: 1\r\n".repeat(300), "message head is too large")]
#[tokio::test]
async fn a_huge_head_is_refused(#[case] headers: String, #[case] words: &str) {
    let (client, _serving) = once(async move |mut stream| {
        request(&mut stream).await;
        // the client may leave in the middle
        let _left = stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n").as_bytes()).await;
    })
    .await;
    let exchange = client.send("x", Call::get("/")).await;
    assert_failed(&exchange, "read the response head", words);
}

#[rstest]
#[case::target(Call::get("no slash"), "target")]
#[case::method(Call::new("G T", "/"), "method")]
#[case::host(Call::get("/").host("a\nb"), "host")]
#[case::header_name(Call::get("/").header("a b", "x"), "header name \"a b\"")]
#[case::header_value(Call::get("/").header("x", "a\r\nb: c"), "value of header x")]
#[tokio::test]
async fn what_cannot_be_written_is_a_failure(#[case] call: Call, #[case] words: &str) {
    let client = Client::new(Arc::new(Tcp::to("127.0.0.1:9")), "test");
    let exchange = client.send("x", call).await;
    assert_failed(&exchange, "build the request", words);
}

#[tokio::test]
async fn a_closed_port_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let exchange = Client::new(Arc::new(Tcp::to(address)), "test").send("x", Call::get("/")).await;
    assert_failed(&exchange, "connect", "refused");
}

#[tokio::test]
async fn a_head_that_never_comes_is_a_failure() {
    let (client, serving) = held("").await;
    let exchange = client.send("x", Call::get("/").timeout(Duration::from_millis(700))).await;
    assert_eq!(failed(&exchange), ("read the response head", "nothing within 700ms"));
    serving.await.expect("the client leaves");
}

#[tokio::test]
async fn a_body_that_never_ends_is_bounded_by_time() {
    let (client, serving) = held("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").await;
    let exchange = client.send("x", Call::get("/").timeout(Duration::from_millis(700))).await;
    assert_eq!(body(&exchange), (Ended::Bounded, Some("hello")));
    serving.await.expect("the client leaves");
}

#[rstest]
#[case::too_many(4, Ended::Bounded, "hell")]
#[case::exactly(5, Ended::Complete, "hello")]
#[tokio::test]
async fn a_body_is_bounded_by_bytes(#[case] most: u64, #[case] ended: Ended, #[case] wanted: &str) {
    let (client, _serving) = bytes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let exchange = client.send("x", Call::get("/").max_bytes(most)).await;
    assert_eq!(body(&exchange), (ended, Some(wanted)));
}

#[tokio::test]
async fn a_check_can_act_between_chunks() {
    let pass = Arc::new(Notify::new());
    let passed = Arc::clone(&pass);
    let (client, _serving) = once(async move |mut stream| {
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("the client reads");
        for chunk in ["1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"] {
            passed.notified().await; // nothing goes on before the client has seen what came before
            stream.write_all(chunk.as_bytes()).await.expect("the client reads");
        }
    })
    .await;
    let mut arrived = Vec::new();
    let exchange = client
        .send_with_gate("x", Call::get("/"), |what| {
            arrived.push(match what {
                Arrived::Head { status, .. } => status.to_string(),
                Arrived::Chunk { index, bytes, .. } => format!("{index}{}", String::from_utf8_lossy(&bytes)),
            });
            pass.notify_one();
            ready(Next::Read)
        })
        .await;
    assert_eq!(arrived, ["200", "0a", "1b"]);
    let response = response(&exchange);
    assert_eq!(response.ended, Ended::Complete);
    let times: Vec<f64> = response.chunks.iter().map(|(at, _)| *at).collect();
    assert!(response.head_ms <= times[0] && times[0] <= times[1] && times[1] <= response.end_ms, "{response:?}");
}

#[rstest]
#[case::head(Abandon::Head, "")]
#[case::chunks(Abandon::Chunks(1), "hello")]
#[case::bytes(Abandon::Bytes(5), "hello")]
#[tokio::test]
async fn a_client_can_leave_and_the_server_sees_it(#[case] abandon: Abandon, #[case] wanted: &str) {
    let (client, serving) = held("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let exchange = client.send("x", Call::get("/").abandon_after(abandon)).await;
    assert_eq!(body(&exchange), (Ended::Abandoned, Some(wanted)));
    serving.await.expect("the server sees it");
}

#[rstest]
#[case::chat(Call::post("/v1/chat/completions?a=b").json(&json!({"model": "m"})), true)]
#[case::elsewhere(Call::post("/v1/embeddings").json(&json!({"model": "m"})), false)]
#[case::has_one_of_the_fields(Call::post("/v1/responses").json(&json!({"seed": 1})), false)]
#[case::nothing_in_it(Call::post("/v1/responses").json(&json!({})), false)]
#[case::bytes(Call::post("/v1/completions").body(r#"{"model":"m"}"#, "application/json"), false)]
#[tokio::test]
async fn calls_have_canaries_where_asked_for(#[case] call: Call, #[case] in_the_body: bool) {
    let (plain, serving) = bytes("HTTP/1.1 204 No Content\r\n\r\n").await;
    plain.send("x", call.clone()).await;
    let plain = serving.await.expect("a request");
    let (client, serving) = bytes("HTTP/1.1 204 No Content\r\n\r\n").await;
    let exchange = client.with_canaries().send("x", call).await;
    let sent = serving.await.expect("a request");
    let headers = canary::headers(canary::Side::Request, "test-0");
    let told = exchange.request.headers.iter().filter(|(name, _)| canary::is_header(name)).cloned();
    assert_eq!(told.collect::<Vec<_>>(), headers);
    for (name, value) in headers {
        assert!(sent.contains(&format!("\r\n{name}: {value}\r\n")), "{name} in {sent}");
    }
    let body = |request: &str| request.split_once("\r\n\r\n").expect("a head").1.to_owned();
    let (plain, sent) = (body(&plain), body(&sent));
    let members = canary::members("test-0");
    let wanted = if in_the_body { plain.replace('}', &format!(",{members}}}")) } else { plain };
    assert_eq!((&sent, exchange.request.body.text.as_ref()), (&wanted, Some(&wanted)));
}

#[tokio::test]
async fn a_hook_can_leave_as_well() {
    let (client, _serving) = bytes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let exchange = client.send_with_gate("x", Call::get("/"), |_arrived| ready(Next::Leave)).await;
    assert_eq!(response(&exchange).ended, Ended::Abandoned);
}

#[tokio::test]
async fn a_connection_is_kept_where_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let mut per_connection = Vec::new();
        for requests in [2, 1, 1] {
            let (mut stream, _peer) = listener.accept().await.expect("a connection");
            for n in 0..requests {
                let target = request(&mut stream).await.lines().next().map(str::to_owned).expect("a request line");
                let head = format!("HTTP/1.1 200 OK\r\nX-N: {n}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await.expect("the client reads");
                per_connection.push(target);
            }
        }
        per_connection
    });
    let client = Client::keeping_connections(Arc::new(Tcp::to(address)), "kept");
    let first = client.send("x", Call::get("/1")).await;
    let second = client.send("x", Call::get("/2")).await;
    assert_eq!((response(&first).header("x-n"), response(&second).header("x-n")), (Some("0"), Some("1")));
    let other = Client::new(Arc::new(Tcp::to(address)), "new");
    other.send("x", Call::get("/3")).await;
    other.send("x", Call::get("/4")).await;
    let targets = serving.await.expect("three connections");
    assert_eq!(targets, ["/1", "/2", "/3", "/4"].map(|t| format!("GET {t} HTTP/1.1")));
}

#[tokio::test]
async fn a_connection_that_the_server_gives_up_is_not_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::keeping_connections(Arc::new(Tcp::to(listener.local_addr().expect("an address"))), "kept");
    tokio::spawn(async move {
        loop {
            let (mut stream, _peer) = listener.accept().await.expect("a connection");
            request(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("the client reads");
        }
    });
    for _ in 0..3 {
        assert_eq!(client.send("x", Call::get("/")).await.status(), Some(200));
    }
}

#[tokio::test]
async fn times_count_from_the_opening_of_the_stage() {
    let (client, _serving) = bytes("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let before = client.now_ms();
    let exchange = client.send("x", Call::get("/")).await;
    let after = client.now_ms();
    let response = response(&exchange);
    assert!(before <= exchange.sent_ms && exchange.sent_ms + response.end_ms <= after, "{before} {exchange:?} {after}");
    assert!(0.0 < response.head_ms && response.head_ms <= response.end_ms);
}
