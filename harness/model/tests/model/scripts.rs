//! Scripted replies: each header, and their faults.

use std::{future::ready, io::Read, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use futures::{FutureExt, future::BoxFuture};
use model::{Clock, Config};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use verdict::canary;
use verdict::history::{BODY_KEPT, Ended, Usage};
use wire::{Arrived, Call, Next};

use crate::served::{Served, answer_to, chat, chat_body, config, response, serve};

#[rstest]
#[case::chat(chat("Hello"))]
#[case::unknown_path(Call::get("/nope"))]
#[tokio::test]
async fn a_status_on_any_path(#[case] call: Call) {
    let served = serve(config()).await;
    let exchange = served.send(call.header("x-igc-status", "418")).await;
    assert_eq!((exchange.status(), served.record(&exchange).status), (Some(418), 418));
    assert_eq!(response(&exchange).json().expect("JSON")["error"]["code"], 418);
}

#[rstest]
#[case::json(Call::get("/any"), None, 200, "application/json")]
#[case::status_and_type(Call::get("/any").header("x-igc-status", "502").header("x-igc-content-type", "text/html"), None, 502, "text/html")]
#[case::not_even_utf8(Call::get("/any"), Some(b"\xFF\x00\r\n".as_slice()), 200, "application/json")]
#[tokio::test]
async fn a_body_of_any_bytes(
    #[case] call: Call,
    #[case] bytes: Option<&[u8]>,
    #[case] status: u16,
    #[case] content_type: &str,
) {
    let bytes = bytes.unwrap_or(b"{\"usage\": 7}");
    let exchange = answer_to(call.header("x-igc-reply", STANDARD.encode(bytes))).await;
    let response = response(&exchange);
    assert_eq!((response.status, response.header("content-type")), (status, Some(content_type)));
    assert_eq!(response.body, verdict::history::Body::of(bytes));
}

#[tokio::test]
async fn events_that_were_written_elsewhere_are_a_stream() {
    let events = "id: 1\ndata: a\n\n: hi\r\ndata: \u{2603}\r\n\r\ndata: [DONE]\n\n";
    let call = |call: Call| {
        let call = call.header("x-igc-reply", STANDARD.encode(events));
        call.header("x-igc-content-type", "text/event-stream; charset=utf-8")
    };
    let served = serve(config()).await;
    let exchange = served.send(call(Call::get("/any")).header("x-igc-split-utf8", "1")).await;
    let reply = response(&exchange);
    assert_eq!(reply.header("content-length"), None, "a stream has no length");
    assert_eq!(reply.body, verdict::history::Body::of(events.as_bytes()));
    assert!(reply.chunks.len() >= 4, "an event a chunk, the second in two: {:?}", reply.chunks);
    let cut = served.send(call(Call::get("/any")).header("x-igc-die-after", "1")).await;
    let cut = response(&cut);
    assert_eq!((cut.ended, cut.body.text.as_deref()), (Ended::Truncated, Some("id: 1\ndata: a\n\n")));
}

#[tokio::test]
async fn more_headers() {
    let served = serve(config()).await;
    let call = chat("Hello").header("x-igc-header", "X-One: a: b").header("x-igc-header", "keep-alive:timeout=5");
    let exchange = served.send(call).await;
    let reply = response(&exchange);
    assert_eq!((reply.header("x-one"), reply.header("keep-alive")), (Some("a: b"), Some("timeout=5")));
}

#[rstest]
#[case::an_object(chat("Hello"), 100_000)]
#[case::something_else(Call::get("/nope"), 0)]
#[tokio::test]
async fn padding_makes_an_object_long(#[case] call: Call, #[case] bytes: usize) {
    let served = serve(config()).await;
    let plain = served.send(call.clone()).await;
    let padded = served.send(call.header("x-igc-padding", "100000")).await;
    let field = if bytes == 0 { 0 } else { bytes + r#","padding":"""#.len() };
    assert_eq!(response(&padded).body.bytes, response(&plain).body.bytes + field as u64);
    assert_eq!(response(&padded).ended, Ended::Complete);
}

#[rstest]
#[case::whole(chat("Hello"))]
#[case::streamed(chat("Hello").stream())]
#[case::compressed(chat("Hello").header("x-igc-gzip", "1"))]
#[case::cut(chat("Hello").stream().header("x-igc-die-after", "1"))]
#[tokio::test]
async fn what_was_sent_is_recorded(#[case] call: Call) {
    let served = serve(config()).await;
    let exchange = served.send(call).await;
    served.model.wait(|records| !records.is_empty()).await;
    let (got, sent) = (&response(&exchange).body, served.record(&exchange).sent.expect("recorded"));
    assert_eq!((got.bytes, &got.sha256, &got.text), (sent.bytes, &sent.sha256, &sent.text));
}

#[rstest]
#[case::all_that_is_kept(r#"{"a":1}"#, BODY_KEPT - PADDED, true)]
#[case::too_long(r#"{"a":1}"#, BODY_KEPT - PADDED + 1, false)]
#[case::not_text("\u{ff}", 0, false)]
#[tokio::test]
async fn what_was_sent_is_kept_where_it_is_text_and_not_too_long(
    #[case] body: &str,
    #[case] padding: usize,
    #[case] kept: bool,
) {
    let body: Vec<u8> = body.chars().filter_map(|c| u8::try_from(c).ok()).collect(); // as Latin-1
    let served = serve(config()).await;
    let call = Call::get("/any").header("x-igc-reply", STANDARD.encode(body));
    let exchange = served.send(call.header("x-igc-padding", padding.to_string())).await;
    let sent = served.record(&exchange).sent.expect("recorded");
    assert_eq!((sent.bytes, sent.text.is_some()), (response(&exchange).body.bytes, kept));
}

/// Bytes of `{"a":1}` with an empty padding.
const PADDED: usize = r#"{"a":1,"padding":""}"#.len();

/// What its own peer sees is what the model writes down of its reply, in the same order and spelling.
#[rstest]
#[case::whole(chat("Hello"))]
#[case::streamed(chat("Hello").stream())]
#[case::compressed(chat("Hello").header("x-igc-gzip", "1"))]
#[case::lines_of_one_name(chat("Hello").header("x-igc-header", "x-a: 1").header("x-igc-header", "y-b: 2").header("x-igc-header", "X-A: 3"))]
#[case::says_its_length(Call::get("/any").header("x-igc-reply", "YWJj").header("x-igc-header", "content-length: 3"))]
#[case::error(chat("Hello").header("x-igc-status", "503"))]
#[case::no_content(Call::get("/any").header("x-igc-status", "204").header("x-igc-reply", ""))]
#[case::not_modified(Call::get("/any").header("x-igc-status", "304").header("x-igc-reply", ""))]
#[case::not_modified_with_a_length(Call::get("/any").header("x-igc-status", "304").header("x-igc-reply", "YWJj"))]
#[case::no_body(Call::get("/health"))]
#[case::head(Call::new("HEAD", "/v1/models").header("x-igc-reply", "YWJj"))]
#[case::head_of_a_stream(Call::new("HEAD", "/any").header("x-igc-reply", "YWJj").header("x-igc-content-type", "text/event-stream"))]
#[case::allowed(Call::new("OPTIONS", "/v1/models"))]
#[case::nowhere(Call::get("/nope"))]
#[case::unreadable_script(Call::get("/nope").header("x-igc-status", "x"))]
#[tokio::test]
async fn the_head_of_a_reply_is_recorded_as_it_was_written(#[case] call: Call) {
    let served = serve(config()).await;
    let exchange = served.send(call).await;
    served.model.wait(|records| !records.is_empty()).await;
    assert_eq!(served.record(&exchange).reply.as_ref(), Some(&response(&exchange).headers));
}

#[rstest]
#[case::answered(chat("Hello"))]
#[case::streamed(chat("Hello").stream())]
#[case::scripted(chat("Hello").header("x-igc-status", "503"))]
#[case::nowhere(Call::get("/nope"))]
#[tokio::test]
async fn canaries_are_answered_with_canaries(#[case] call: Call) {
    let Served { client, model, .. } = serve(config()).await;
    let of = |headers: &[(String, String)]| -> Vec<(String, String)> {
        let canaries = headers.iter().filter(|(name, _)| canary::is_header(name));
        canaries.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    };
    let without = client.send("x", call.clone()).await;
    assert_eq!(of(&response(&without).headers), []);
    let exchange = client.send("x", call.header("x-igc-c-plain", "1")).await;
    let records = model.wait(|records| records.len() > 1).await;
    let wanted = canary::headers(canary::Side::Reply, &exchange.id);
    assert_eq!(of(&response(&exchange).headers), wanted);
    assert_eq!(of(records[1].reply.as_ref().expect("recorded")), wanted);
}

const WRONG: Usage = Usage { prompt_tokens: 3, completion_tokens: 4, total_tokens: 9 };

#[rstest]
#[case::wrong_sum("prompt=3,completion=4,total=9", Some(WRONG))]
#[case::in_another_order("total=9, prompt=3, completion=4", Some(WRONG))]
#[case::none("none", None)]
#[tokio::test]
async fn usage_right_or_wrong(#[case] script: &str, #[case] usage: Option<Usage>) {
    let served = serve(config()).await;
    let whole = served.send(chat("Hello").header("x-igc-usage", script)).await;
    let told = response(&whole).json().expect("JSON");
    let fields = usage.map(|u| json!({"prompt_tokens": u.prompt_tokens, "completion_tokens": u.completion_tokens, "total_tokens": u.total_tokens, "prompt_tokens_details": {"cached_tokens": 0}}));
    assert_eq!(told.get("usage"), fields.as_ref());
    assert_eq!(served.record(&whole).usage, usage);

    let mut request = chat_body("Hello");
    request["stream_options"] = json!({"include_usage": true});
    let streamed =
        served.send(Call::post("/v1/chat/completions").json(&request).stream().header("x-igc-usage", script)).await;
    let said = events(&streamed).iter().filter_map(|e| e.get("usage").filter(|u| !u.is_null()).cloned()).next();
    assert_eq!((said, served.record(&streamed).usage), (fields, usage));
}

/// The events of a stream that are JSON.
fn events(exchange: &verdict::history::Exchange) -> Vec<Value> {
    let text = response(exchange).body.text.clone().expect("text");
    wire::sse::parse(text.as_bytes()).events.iter().filter_map(|e| serde_json::from_str(&e.data).ok()).collect()
}

fn content(exchange: &verdict::history::Exchange) -> String {
    events(exchange).iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn as_many_tokens_as_wanted() {
    let served = serve(config()).await;
    let streamed = served.send(chat("Hello").stream().header("x-igc-stream-tokens", "4")).await;
    assert_eq!(content(&streamed), "t1 t2 t3 t4 ");
    let whole = served.send(chat("Hello").header("x-igc-stream-tokens", "4")).await;
    assert_eq!(response(&whole).json().expect("JSON")["choices"][0]["message"]["content"], "t1 t2 t3 t4 ");
    let usage = served.record(&whole).usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (6, 4, 10));
}

#[tokio::test]
async fn a_gate_is_opened_out_of_band_token_by_token() {
    let served = serve(config()).await;
    let call = chat("Hello").stream().header("x-igc-stream-tokens", "3").header("x-igc-gate", "g-1");
    let (door, mut tokens, mut order) = (served.client.clone(), 0_u64, Vec::new());
    let exchange = served
        .client
        .send_with_gate("x", call, |arrived| {
            let text = match arrived {
                Arrived::Head { .. } => "head".to_owned(),
                Arrived::Chunk { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
            };
            let waits = text == "head" || text.contains("\"content\"");
            order.push(waits);
            tokens += u64::from(waits && tokens < 3);
            let (door, open) = (door.clone(), format!("/igc/gates/g-1/open?n={tokens}"));
            async move {
                if waits {
                    let opened = door.send("open", Call::post(&open)).await;
                    assert_eq!(opened.status(), Some(200));
                }
                Next::Read
            }
        })
        .await;
    assert_eq!(content(&exchange), "t1 t2 t3 ");
    assert_eq!(order, [true, false, true, true, true, false, false]);
}

#[tokio::test]
async fn nothing_passes_a_closed_gate() {
    let served = serve(config()).await;
    let call = chat("Hello").stream().header("x-igc-stream-tokens", "2").header("x-igc-gate", "g");
    served.model.open_gate("g", 1);
    let call = call.timeout(Duration::from_millis(900));
    let exchange = served.send(call).await;
    assert_eq!((content(&exchange).as_str(), response(&exchange).ended), ("t1 ", Ended::Bounded));
    let whole = served.send(chat("Hello").header("x-igc-gate", "other").timeout(Duration::from_millis(900))).await;
    assert_eq!(response(&whole).body.bytes, 0, "a reply that is not streamed waits as well");
}

#[rstest]
#[case::after_the_head(0, "")]
#[case::after_two_tokens(2, "t1 t2 ")]
#[tokio::test]
async fn the_connection_is_cut_after_so_many_tokens(#[case] after: u64, #[case] told: &str) {
    let served = serve(config()).await;
    let call = chat("Hello").stream().header("x-igc-stream-tokens", "5").header("x-igc-die-after", after.to_string());
    let exchange = served.send(call).await;
    assert_eq!((response(&exchange).ended, content(&exchange).as_str()), (Ended::Truncated, told));
    assert!(!response(&exchange).body.text.as_deref().expect("text").contains("[DONE]"));
    let records = served.model.wait(|r| !r.is_empty()).await;
    assert!(!records[0].finished);
}

#[tokio::test]
async fn a_reply_that_is_not_streamed_is_cut_after_so_many_bytes() {
    let exchange = answer_to(chat("Hello").header("x-igc-die-after", "10")).await;
    assert_eq!((response(&exchange).ended, response(&exchange).body.bytes), (Ended::Truncated, 10));
}

#[tokio::test]
async fn chunks_end_inside_of_characters() {
    let served = serve(config()).await;
    let call = chat("Hello").header("x-igc-split-utf8", "1").header("x-igc-stream-tokens", "2").stream();
    let mut cut = 0;
    let exchange = served
        .client
        .send_with_gate("x", call, |arrived| {
            if let Arrived::Chunk { bytes, .. } = &arrived {
                cut += usize::from(bytes.ends_with(b"\xE2")); // the first byte of a snowman
            }
            ready(Next::Read)
        })
        .await;
    assert_eq!(cut, 2);
    let text = response(&exchange).body.text.as_deref().expect("whole, it is UTF-8");
    assert!(text.contains("\u{2603}1 ") && text.contains("\u{2603}2 "), "{text}");
}

#[rstest]
#[case::whole(chat("Hello"), "\"Hello\"")]
#[case::streamed(chat("Hello").stream(), "data: [DONE]\n\n")]
#[tokio::test]
async fn a_body_can_be_compressed(#[case] call: Call, #[case] holds: &str) {
    let served = serve(config()).await;
    let mut packed = Vec::new();
    let exchange = served
        .client
        .send_with_gate("x", call.header("x-igc-gzip", "1"), |arrived| {
            if let Arrived::Chunk { bytes, .. } = arrived {
                packed.extend_from_slice(&bytes);
            }
            ready(Next::Read)
        })
        .await;
    assert_eq!(response(&exchange).header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("gzip");
    assert!(text.contains(holds), "{text}");
}

/// A clock that tells of each delay, and ends them all when it is let go.
struct Held {
    asked: mpsc::UnboundedSender<Duration>,
    go: watch::Receiver<bool>,
}

impl Clock for Held {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn delay(&self, by: Duration) -> BoxFuture<'static, ()> {
        self.asked.send(by).expect("the test listens");
        let mut go = self.go.clone();
        async move {
            go.wait_for(|go| *go).await.expect("the test lives");
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_delay_waits_on_the_models_clock() {
    let (asked, mut delays) = mpsc::unbounded_channel();
    let (go, held) = watch::channel(false);
    let served = serve(Config { clock: Arc::new(Held { asked, go: held }), ..config() }).await;
    let client = served.client.clone();
    let mut sending =
        tokio::spawn(async move { client.send("x", chat("Hello").header("x-igc-delay-ms", "3600000")).await });
    tokio::select! {
        asked = delays.recv() => assert_eq!(asked, Some(Duration::from_secs(3_600))),
        answered = &mut sending => panic!("answered without a delay: {answered:?}"),
    }
    assert!(served.model.records().is_empty(), "answered before the delay was over");
    go.send(true).expect("the clock lives");
    let exchange = sending.await.expect("an answer");
    let reply = response(&exchange).json().expect("JSON");
    assert_eq!((exchange.status(), &reply["created"]), (Some(200), &json!(1_700_000_000)));
    assert_eq!(served.record(&exchange).at_ms, 1_700_000_000_000);
}

#[rstest]
#[case("x-igc-status", "99")]
#[case("x-igc-status", "ok")]
#[case("x-igc-reply", "%%%")]
#[case("x-igc-usage", "prompt=1")]
#[case("x-igc-usage", "prompt=1,completion=2,total=-3")]
#[case("x-igc-delay-ms", "soon")]
#[case("x-igc-stream-tokens", "100001")]
#[case("x-igc-die-after", "")]
#[case("x-igc-padding", "16777217")]
#[case("x-igc-header", "no colon")]
#[case("x-igc-gate", "a b")]
#[case("x-igc-gate", "")]
#[tokio::test]
async fn a_script_that_cannot_be_read_is_named(#[case] header: &str, #[case] value: &str) {
    let exchange = answer_to(chat("Hello").header(header, value)).await;
    assert_eq!(exchange.status(), Some(400));
    let message = response(&exchange).json().expect("JSON")["error"]["message"].to_string();
    assert!(message.contains(header), "{message}");
}

#[rstest]
#[case::all("/igc/gates/g/open", 200, r#"{"gate":"g","open":18446744073709551615}"#)]
#[case::some("/igc/gates/g/open?n=2", 200, r#"{"gate":"g","open":2}"#)]
#[case::no_number("/igc/gates/g/open?n=two", 400, "")]
#[case::no_name("/igc/gates//open", 404, "Not Found")]
#[tokio::test]
async fn gates_answer(#[case] path: &str, #[case] status: u16, #[case] said: &str) {
    let served = serve(config()).await;
    let exchange = served.send(Call::post(path)).await;
    assert_eq!(exchange.status(), Some(status));
    assert!(response(&exchange).body.text.as_deref().expect("text").contains(said));
    assert!(served.model.records().is_empty());
}

#[tokio::test]
async fn a_gate_never_closes_again() {
    let served = serve(config()).await;
    served.send(Call::post("/igc/gates/g/open?n=5")).await;
    let again = served.send(Call::post("/igc/gates/g/open?n=1")).await;
    assert_eq!(response(&again).json().expect("JSON")["open"], 5);
}

#[tokio::test]
async fn stopping_lets_replies_in_flight_end() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // the port of a listener that is gone is free for this moment; another test taking it would make run() fail loudly
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).expect("a port").port();
    let running =
        tokio::spawn(model::run(Config { port, ..config() }, async { stopped.await.expect("the test stops it") }));
    let client = wire::Client::new(Arc::new(wire::Tcp::to(("127.0.0.1:").to_owned() + &port.to_string())), "run");
    while client.send("up", Call::get("/health")).await.status() != Some(200) {
        tokio::task::yield_now().await;
    }
    let mut stop = Some(stop);
    let door = client.clone();
    let exchange = client
        .send_with_gate("x", chat("Hello").stream().header("x-igc-gate", "g"), |arrived| {
            let (stop, door) = (stop.take(), door.clone());
            async move {
                if matches!(arrived, Arrived::Head { .. }) {
                    // opened first: afterwards nobody is let in
                    door.send("open", Call::post("/igc/gates/g/open")).await;
                    stop.into_iter().for_each(|s| s.send(()).expect("it runs"));
                }
                Next::Read
            }
        })
        .await;
    assert_eq!(response(&exchange).ended, Ended::Complete);
    running.await.expect("no panic").expect("a clean end");
    assert_eq!(client.send("down", Call::get("/health")).await.status(), None);
}

#[tokio::test]
async fn a_model_serves_a_connection_that_is_no_socket() {
    let Served { model, .. } = serve(config()).await;
    let (mut near, far) = tokio::io::duplex(1_024);
    let serving = tokio::spawn(async move { model.serve_connection(far).await });
    near.write_all(b"GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.expect("the model reads");
    let mut reply = String::new();
    near.read_to_string(&mut reply).await.expect("text");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\nServer: fasthttp\r\n"), "{reply}");
    serving.await.expect("no panic");
}
