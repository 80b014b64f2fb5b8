//! Hostile input: refused cleanly, recorded where a request can be told, and never a panic.

use model::openai::{self, Asked, Endpoint};
use model::{Config, answer::Payload, script::Script};
use proptest::prelude::*;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::Call;

use crate::served::{answer_to, chat, config, response, serve};

#[rstest]
#[case::empty("", "unexpected end of JSON input")]
#[case::cut("{\"model\": \"mock-llm\", ", "unexpected end of JSON input")]
#[case::not_json("hello", "invalid character 'h' looking for beginning of value")]
#[case::an_array("[1]", "cannot unmarshal array")]
#[case::null("null", "cannot unmarshal null")]
#[case::model_is_a_number("{\"model\": 7}", "cannot unmarshal number into Go struct field model of type string")]
#[case::messages(r#"{"model":"mock-llm","messages":"x"}"#, "cannot unmarshal string into Go struct field messages")]
#[case::content(r#"{"model":"mock-llm","messages":[{"content":7}]}"#, "content format not supported")]
#[case::stream(r#"{"model":"mock-llm","stream":"yes"}"#, "cannot unmarshal string into Go struct field stream")]
#[case::fraction(r#"{"model":"mock-llm","max_tokens":1.5}"#, "cannot unmarshal number into Go struct field max_tokens")]
#[tokio::test]
async fn malformed_bodies_are_refused(#[case] body: &str, #[case] words: &str) {
    let exchange = answer_to(Call::post("/v1/chat/completions").body(body.to_owned(), "application/json")).await;
    assert_eq!(exchange.status(), Some(400));
    let message = response(&exchange).json().expect("JSON")["error"]["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("Failed to read and parse request body, ") && message.contains(words), "{message}");
}

#[tokio::test]
async fn nested_json_is_refused() {
    let exchange = answer_to(Call::post("/v1/chat/completions").body("[".repeat(100_000), "application/json")).await;
    assert_eq!(exchange.status(), Some(400));
}

#[tokio::test]
async fn a_body_of_five_megabytes_is_refused_and_recorded() {
    let served = serve(config()).await;
    let exchange =
        served.send(Call::post("/v1/chat/completions").body(vec![b' '; 5_000_000], "application/json")).await;
    assert_eq!(exchange.status(), Some(413));
    let record = served.record(&exchange);
    assert_eq!((record.status, record.body.bytes, record.body.truncated), (413, 5_000_000, true));
    assert_eq!(record.body.sha256, exchange.request.body.sha256, "the hash covers all of it");
    assert_eq!(served.send(chat("Hello")).await.status(), Some(200), "and the next is answered");
}

#[tokio::test]
async fn a_header_of_one_megabyte_is_refused() {
    let served = serve(config()).await;
    let exchange = served.send(chat("Hello").header("x-large", "a".repeat(60_000))).await;
    assert_eq!(exchange.status(), Some(200));
    let mut stream = TcpStream::connect(served.address).await.expect("a connection");
    let (mut read, mut write) = stream.split();
    let mut reply = String::new();
    let sending = async {
        let head = format!("GET /health HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "a".repeat(1_000_000));
        let _model_may_leave = write.write_all(head.as_bytes()).await;
    };
    let (_sent, _read) = tokio::join!(sending, read.read_to_string(&mut reply));
    assert!(reply.starts_with("HTTP/1.1 431 ") || reply.is_empty(), "{reply}");
    assert_eq!(served.model.records().len(), 1, "a head that cannot be read is no request");
    assert_eq!(served.send(chat("Hello")).await.status(), Some(200));
}

#[rstest]
#[case::not_http(b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03".as_slice())]
#[case::http2(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice())]
#[case::folded(b"GET /health HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n  2\r\n\r\n".as_slice())]
#[case::two_lengths(b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".as_slice())]
#[tokio::test]
async fn what_is_not_http_is_refused_or_cut(#[case] bytes: &[u8]) {
    let served = serve(config()).await;
    let mut stream = TcpStream::connect(served.address).await.expect("a connection");
    stream.write_all(bytes).await.expect("the model reads");
    stream.shutdown().await.expect("a socket");
    let mut reply = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut reply).await;
    assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&reply));
    assert!(served.model.records().is_empty());
    assert_eq!(served.send(chat("Hello")).await.status(), Some(200));
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(vec![Endpoint::Chat, Endpoint::Completions, Endpoint::Responses, Endpoint::Embeddings])
}

/// JSON that looks like a request, with values of all kinds in its fields.
fn requests() -> impl Strategy<Value = String> {
    const NAMES: &str = "model messages prompt input stream stream_options include_usage max_tokens content role \
                         max_completion_tokens dimensions text type";
    let name = prop::sample::select(NAMES.split(' ').collect::<Vec<_>>());
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        Just("\"mock-llm\"".to_owned()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).expect("text")),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| format!(
                "{{{}}}",
                fields.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect::<Vec<_>>().join(",")
            )),
        ]
    })
}

fn answered(endpoint: Endpoint, body: &[u8], script: &Script) -> Result<(), TestCaseError> {
    let asked = Asked { return_error: None, script, uuid: "0", now: 1 };
    let answer = openai::answer(&Config::default(), endpoint, body, &asked);
    prop_assert!(matches!(answer.status, 200 | 400 | 404));
    if let Payload::Whole(bytes) = &answer.payload {
        let said: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(said.get("error").is_some(), answer.status != 200);
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_body_panics_it(endpoint in endpoints(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        answered(endpoint, &body, &Script::default())?;
    }

    #[test]
    fn no_request_panics_it(endpoint in endpoints(), fields in requests(), split_utf8 in any::<bool>(), tokens in prop::option::of(0_u64..20)) {
        let script = Script { split_utf8, tokens, ..Script::default() };
        answered(endpoint, fields.as_bytes(), &script)?;
        let with_model = format!("{{\"model\":\"mock-llm\",\"messages\":{fields},\"prompt\":{fields},\"input\":{fields}}}");
        answered(endpoint, with_model.as_bytes(), &script)?;
    }

    #[test]
    fn an_echo_says_the_tokens_of_its_prompt(text in "[ -~\n\t]{1,80}") {
        let tokens = model::tokens::split(&text);
        prop_assert!(tokens.iter().all(|t| !t.is_empty()));
        let word = |c: char| !c.is_whitespace() && c != '`' && c != '|';
        prop_assert_eq!(tokens.concat().chars().filter(|c| word(*c)).collect::<String>(), text.chars().filter(|c| word(*c)).collect::<String>());
    }
}
