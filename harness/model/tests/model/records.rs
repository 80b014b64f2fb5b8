//! Records: what is written down, in which order, what is dropped, and what a reader is told of it.

use std::future::ready;
use std::sync::{Arc, Mutex};

use model::Config;
use rstest::rstest;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use verdict::history::{Body, ModelRecord, Usage};
use wire::{Abandon, Arrived, Call, Next};

use crate::served::{chat, chat_body, config, response, serve};

#[tokio::test]
async fn a_record_holds_the_request_as_it_was_on_the_wire() {
    let served = serve(config()).await;
    let mut stream = TcpStream::connect(served.address).await.expect("a connection");
    let body = chat_body("Hello").to_string();
    let head = format!(
        "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: llm.example.com\r\nX-IGC-Exchange: e-1\r\nX-Two: 1\r\nKServe-Isvc-Name: mock\r\n\
         x-two:  2 \r\nAuthorization: Bearer secret\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("the model reads");
    let records = served.model.wait(|r| !r.is_empty()).await;
    let secret = wire::redacted("authorization", b"Bearer secret");
    let length = body.len().to_string();
    let headers = [
        ("Host", "llm.example.com"),
        ("X-IGC-Exchange", "e-1"),
        ("X-Two", "1"),
        ("KServe-Isvc-Name", "mock"),
        ("x-two", "2"),
        ("Authorization", &secret),
        ("Content-Length", &length),
    ];
    let record = &records[0];
    assert_eq!(record.headers, headers.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert!(!serde_json::to_string(record).expect("JSON").contains("secret"));
    assert_eq!((record.method.as_str(), record.target.as_str()), ("POST", "/v1/chat/completions?a=b"));
    assert_eq!((record.exchange.as_deref(), record.model.as_deref()), (Some("e-1"), Some("mock-llm")));
    assert_eq!((record.pod.as_str(), record.status, record.finished), ("mock-llm-0", 200, true));
    assert_eq!(record.body, Body::of(body.as_bytes()));
    assert_eq!(record.usage, Some(Usage { prompt_tokens: 6, completion_tokens: 1, total_tokens: 7 }));
}

#[tokio::test]
async fn requests_on_a_kept_connection_have_a_record_each() {
    let served = serve(config()).await;
    let client = wire::Client::keeping_connections(Arc::new(wire::Tcp::to(served.address)), "kept");
    for n in 0..3 {
        client.send("x", chat("Hello").header("X-N", n.to_string())).await;
    }
    let records = served.model.records();
    let seen: Vec<_> = records.iter().map(|r| (r.sequence, r.header("x-n").unwrap_or(""), r.headers.len())).collect();
    assert_eq!(seen, [(0, "0", 5), (1, "1", 5), (2, "2", 5)]);
}

#[tokio::test]
async fn the_spelling_of_later_requests_on_a_connection_is_kept_as_well() {
    let served = serve(config()).await;
    let mut stream = TcpStream::connect(served.address).await.expect("a connection");
    for (n, name) in ["X-One", "x-ONE"].into_iter().enumerate() {
        let request = format!("POST /nope HTTP/1.1\r\nHost: h\r\n{name}: 1\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(request.as_bytes()).await.expect("the model reads");
        let records = served.model.wait(|r| r.len() > n).await;
        assert_eq!(records[n].headers[1], (name.to_owned(), "1".to_owned()));
    }
}

#[rstest]
#[case::unknown_path(Call::get("/nope?x"), 404)]
#[case::wrong_method(Call::new("DELETE", "/v1/models"), 405)]
#[case::malformed(Call::post("/v1/completions").body("{", "application/json"), 400)]
#[case::health(Call::get("/health"), 200)]
#[case::head(Call::new("HEAD", "/health"), 405)]
#[tokio::test]
async fn requests_on_any_path_are_recorded(#[case] call: Call, #[case] status: u16) {
    let served = serve(config()).await;
    let exchange = served.send(call).await;
    let record = served.record(&exchange);
    assert_eq!((record.status, record.finished, record.usage), (status, true, None));
    assert_eq!(exchange.status(), Some(status));
    assert_eq!(record.target, exchange.request.target);
}

#[tokio::test]
async fn a_peer_that_leaves_early_did_not_take_the_reply() {
    let served = serve(config()).await;
    let call = chat("Hello").header("x-igc-gate", "g").stream().abandon_after(Abandon::Chunks(1));
    let exchange = served.send(call).await; // the gate stays closed: the reply cannot have ended before
    let records = served.model.wait(|r| !r.is_empty()).await;
    assert_eq!((records[0].exchange.as_deref(), records[0].finished), (Some(exchange.id.as_str()), false));
    assert_eq!(records[0].status, 200);
}

#[tokio::test]
async fn a_reply_that_was_handed_over_and_not_taken_is_not_finished() {
    let served = serve(config()).await;
    let (mut near, far) = tokio::io::duplex(64); // holds less than the reply
    let model = served.model.clone();
    let serving = tokio::spawn(async move { model.serve_connection(far).await });
    near.write_all(b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("the model reads");
    let records = served.model.wait(|r| !r.is_empty()).await;
    assert!(records[0].finished, "handed over, and nothing speaks against it yet");
    drop(near);
    serving.await.expect("no panic");
    assert!(!served.model.records()[0].finished);
}

#[tokio::test]
async fn a_peer_that_leaves_in_its_request_is_recorded_without_an_answer() {
    let served = serve(config()).await;
    let mut stream = TcpStream::connect(served.address).await.expect("a connection");
    stream
        .write_all(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{\"mo")
        .await
        .expect("the model reads");
    drop(stream);
    let records = served.model.wait(|r| !r.is_empty()).await;
    assert!(!records[0].finished);
    assert_eq!((records[0].target.as_str(), records[0].body.bytes), ("/v1/completions", 4));
}

fn numbers(records: &Value) -> Vec<u64> {
    records.as_array().expect("an array").iter().map(|r| r["sequence"].as_u64().expect("a number")).collect()
}

#[rstest]
#[case::all("/igc/records", &[0, 1, 2])]
#[case::since("/igc/records?since=1", &[1, 2])]
#[case::nothing_new("/igc/records?since=3", &[])]
#[tokio::test]
async fn records_are_read_out_of_band(#[case] path: &str, #[case] wanted: &[u64]) {
    let served = serve(config()).await;
    for _ in 0..3 {
        served.send(chat("Hello")).await;
    }
    let exchange = served.send(Call::get(path)).await;
    let records = response(&exchange).json().expect("JSON");
    assert_eq!(numbers(&records), wanted);
    let typed: Vec<ModelRecord> = serde_json::from_value(records).expect("records");
    assert_eq!(typed, served.model.page(wanted.first().copied().unwrap_or(3)).records);
    let headers = ["x-igc-next", "x-igc-open", "x-igc-dropped", "x-igc-more"].map(|h| response(&exchange).header(h));
    assert_eq!(headers, [Some("3"), Some("0"), None, None]);
    assert_eq!(served.model.records().len(), 3, "reading records is in no record");
}

#[tokio::test]
async fn the_oldest_records_are_dropped_and_a_reader_is_told() {
    let served = serve(Config { keep_records: 2, ..config() }).await;
    for _ in 0..5 {
        served.send(chat("Hello")).await;
    }
    let exchange = served.send(Call::get("/igc/records")).await;
    assert_eq!(response(&exchange).header("x-igc-dropped"), Some("3"));
    assert_eq!(numbers(&response(&exchange).json().expect("JSON")), [3, 4]);
}

#[tokio::test]
async fn records_that_do_not_fit_into_one_reply_come_in_the_next() {
    let served = serve(config()).await;
    let large = Call::post("/nope").body(vec![b'x'; 64 * 1024], "text/plain");
    for _ in 0..70 {
        served.send(large.clone()).await;
    }
    let (mut since, mut read) = (0_u64, Vec::new());
    for replies in 1..=3 {
        assert_ne!(replies, 3, "{read:?}");
        let exchange = served.send(Call::get(&format!("/igc/records?since={since}"))).await;
        let response = response(&exchange);
        // bodies are kept as text for 64 KiB only, so a reply's own text is cut here; count by its numbers
        since = response.header("x-igc-next").expect("what to ask next").parse().expect("a number");
        read.push(since);
        if response.header("x-igc-more").is_none() {
            assert_eq!((replies, since), (2, 70), "{read:?}");
            break;
        }
    }
}

#[tokio::test]
async fn a_reader_is_told_what_is_still_open() {
    let served = serve(config()).await;
    let reader = served.client.clone();
    let (model, mut told) = (served.model.clone(), Vec::new());
    let mut later = Vec::new();
    let gated = served.client.send_with_gate("x", chat("Hello").header("x-igc-gate", "g").stream(), |arrived| {
        let (model, reader, head) = (model.clone(), reader.clone(), matches!(arrived, Arrived::Head { .. }));
        async move {
            if head {
                reader.send("later", chat("Hello")).await; // ends while the first is open
                let read = reader.send("read", Call::get("/igc/records")).await;
                assert_eq!(response(&read).header("x-igc-open"), Some("1"));
                assert_eq!(response(&read).header("x-igc-next"), Some("0"), "the first can still appear");
                assert_eq!(numbers(&response(&read).json().expect("JSON")), [1]);
                model.open_gate("g", u64::MAX);
            }
            Next::Read
        }
    });
    told.push(gated.await.status());
    let read = served.send(Call::get("/igc/records?since=0")).await;
    later.extend(numbers(&response(&read).json().expect("JSON")));
    assert_eq!((told, later), (vec![Some(200)], vec![0, 1]));
    assert_eq!(response(&read).header("x-igc-open"), Some("0"));
}

#[tokio::test]
async fn a_record_is_there_when_the_client_has_its_answer() {
    let served = serve(config()).await;
    for _ in 0..200 {
        let exchange = served.client.send_with_gate("x", chat("Hello"), |_arrived| ready(Next::Read)).await;
        assert!(served.record(&exchange).finished);
    }
}

#[tokio::test]
async fn each_record_is_told_where_that_is_asked_for() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let on_record = move |record: &ModelRecord| tell.lock().expect("a lock").push(record.target.clone());
    let served = serve(Config { on_record: Some(Arc::new(on_record)), ..config() }).await;
    served.send(chat("Hello")).await;
    served.send(Call::get("/nope")).await;
    assert_eq!(*told.lock().expect("a lock"), ["/v1/chat/completions", "/nope"]);
}
