//! Streams: their events, in their chunks, as recorded.

use rstest::rstest;
use serde_json::{Value, json};
use verdict::history::{Ended, Usage};
use wire::Call;

use crate::served::{answer_to, body, chat, config, response, serve};

const HEAD: &str = r#"data: {"id":"chatcmpl-ID","model":"mock-llm","object":"chat.completion.chunk","created":0,"#;

fn said(delta: &str) -> String {
    format!("{HEAD}\"usage\":null,\"choices\":[{{\"index\":0,\"finish_reason\":null,\"delta\":{delta}}}]}}\n\n")
}

#[rstest]
#[case::without_usage(json!({}), None)]
#[case::usage_not_wanted(json!({"stream_options": {"include_usage": false}}), None)]
#[case::with_usage(
    json!({"stream_options": {"include_usage": true}}),
    Some(Usage { prompt_tokens: 8, completion_tokens: 3, total_tokens: 11 })
)]
#[tokio::test]
async fn a_chat_streams_as_recorded(#[case] mut request: Value, #[case] usage: Option<Usage>) {
    request["model"] = json!("mock-llm");
    request["messages"] = json!([{"role": "user", "content": "Hello there friend"}]);
    let served = serve(config()).await;
    let exchange = served.send(Call::post("/v1/chat/completions").json(&request).stream()).await;
    let mut events = vec![
        said(r#"{"role":"assistant"}"#),
        said(r#"{"content":"Hello "}"#),
        said(r#"{"content":"there "}"#),
        said(r#"{"content":"friend"}"#),
        format!("{HEAD}\"usage\":null,\"choices\":[{{\"index\":0,\"finish_reason\":\"stop\",\"delta\":{{}}}}]}}\n\n"),
    ];
    if usage.is_some() {
        events.push(format!("{HEAD}\"usage\":{{\"prompt_tokens\":8,\"completion_tokens\":3,\"total_tokens\":11,\"prompt_tokens_details\":{{\"cached_tokens\":0}}}},\"choices\":[]}}\n\n"));
    }
    events.push("data: [DONE]\n\n".to_owned());
    assert_eq!(body(&exchange), events.concat());

    let response = response(&exchange);
    assert_eq!(response.ended, Ended::Complete);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("x-inference-pod"), Some("mock-llm-0"));
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    assert_eq!(response.chunks.len(), events.len(), "a chunk for each event");
    let longest = response.chunks.iter().map(|(_, bytes)| *bytes).max();
    assert_eq!(longest, Some(if usage.is_some() { 0x104 } else { 0xde }), "the recorded sizes");
    let parsed = wire::sse::parse(response.body.text.as_deref().expect("text").as_bytes());
    assert_eq!((parsed.events.len(), parsed.faults), (events.len(), vec![]));
    let record = served.record(&exchange);
    assert_eq!((record.usage, record.finished), (usage, true));
}

#[tokio::test]
async fn a_streamed_completion_has_text() {
    let served = serve(config()).await;
    let call = Call::post("/v1/completions").json(&json!({"model": "mock-llm", "prompt": "Hello there"})).stream();
    let text = body(&served.send(call).await);
    let events: Vec<Value> =
        wire::sse::parse(text.as_bytes()).events.iter().filter_map(|e| serde_json::from_str(&e.data).ok()).collect();
    let texts: Vec<_> = events.iter().map(|e| e["choices"][0]["text"].as_str().expect("text")).collect();
    assert_eq!(texts, ["Hello ", "there", ""]);
    assert!(text.starts_with("data: {\"id\":\"cmpl-ID-0\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn a_streamed_response_has_named_events() {
    let served = serve(config()).await;
    let call = Call::post("/v1/responses").json(&json!({"model": "mock-llm", "input": "Hello there"})).stream();
    let exchange = served.send(call).await;
    let events = wire::sse::parse(body(&exchange).as_bytes()).events;
    let kinds: Vec<_> = events.iter().map(|e| e.kind.as_str()).collect();
    let delta = "response.output_text.delta";
    assert_eq!(kinds, ["response.created", delta, delta, "response.completed"]);
    let last: Value = serde_json::from_str(&events[3].data).expect("JSON");
    assert_eq!(last["response"]["usage"], json!({"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "Hello there");
}

#[tokio::test]
async fn an_unknown_model_is_no_stream() {
    let exchange = answer_to(chat("Hello").json(&json!({"model": "nope"})).stream()).await;
    assert_eq!((exchange.status(), response(&exchange).header("content-type")), (Some(404), Some("application/json")));
}
