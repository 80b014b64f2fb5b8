//! The JSON of AI requests and replies, read and changed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    json_text::{
        self,
        Kind::{Any, Of, OfOrNull},
        Type,
    },
    local_reply::Failure,
    routing::{IncludeUsage, Provider},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AiRequest {
    pub model: Option<String>,
    pub stream: bool,
}

/// Reads JSON with raw control characters inside strings, as both gateways' parsers do.
pub(crate) fn parse(body: &[u8]) -> Result<Value, serde_json::Error> {
    let tolerant: Vec<u8> = body.iter().map(|b| if *b < 0x20 { b' ' } else { *b }).collect();
    serde_json::from_slice(&tolerant)
}

pub(super) fn request(body: &Value) -> AiRequest {
    AiRequest {
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
    }
}

/// A chat as agentgateway insists on it; other fields are kept as they are.
#[derive(Deserialize)]
struct Chat {
    #[expect(dead_code, reason = "only its presence and type are asked")]
    messages: Vec<serde::de::IgnoredAny>,
}

/// What is no chat is refused in the parser's words, for example ``missing field `messages` at line 1 column 20``.
pub(super) fn parse_chat(body: &[u8]) -> Result<Value, Failure> {
    let refused = |e: serde_json::Error| Failure::UnreadableRequest(format!("failed to parse request: {e}"));
    // From a reader, as agentgateway does: a line end then counts for the position that the words name.
    serde_json::from_reader::<_, Chat>(body).map_err(refused)?;
    serde_json::from_slice(body).map_err(refused)
}

/// The request as the backend gets it: agentgateway writes it anew, Envoy AI Gateway changes its text in place.
pub(super) fn request_body(original: &Bytes, request: &Value, provider: &Provider) -> Bytes {
    let Ok(text) = std::str::from_utf8(original) else { return original.clone() };
    let mut sent = if provider.parses_chat { json_text::compact(text) } else { text.to_owned() };
    if let Some(model) = &provider.model
        && request.get("model").and_then(Value::as_str) != Some(model)
    {
        sent = json_text::with_member(&sent, "model", &json!(model).to_string());
    }
    if self::request(request).stream && asks_for_usage(request, provider.include_usage) {
        let options = json_text::member(&sent, "stream_options").filter(|options| options.starts_with('{'));
        let options = json_text::with_member(options.unwrap_or("{}"), "include_usage", "true");
        sent = json_text::with_member(&sent, "stream_options", &options);
    }
    Bytes::from(if provider.parses_chat { REQUEST.write(&sent) } else { sent })
}

// The order in which agentgateway writes what it has read (`crates/agentgateway/src/llm/types/completions.rs`).
const REQUEST: Type = Type(&[
    (
        "messages",
        Of(&Type(&[("role", Any), ("name", Any), ("content", Any), ("tool_call_id", Any), ("tool_calls", Any)])),
    ),
    ("model", Any),
    ("top_p", Any),
    ("temperature", Any),
    ("stream", Any),
    ("frequency_penalty", Any),
    ("presence_penalty", Any),
    ("seed", Any),
    ("stream_options", Of(&Type(&[("include_usage", Any)]))),
    ("max_tokens", Any),
    ("max_completion_tokens", Any),
    ("stop", Any),
    ("tools", Any),
    ("tool_choice", Any),
    ("user", Any),
]);
const REPLY: Type = Type(&[
    ("model", Any),
    ("service_tier", Any),
    (
        "usage",
        OfOrNull(&Type(&[
            ("prompt_tokens", Any),
            ("completion_tokens", Any),
            ("total_tokens", Any),
            ("completion_tokens_details", Any),
            ("prompt_tokens_details", Any),
        ])),
    ),
    ("choices", Of(&Type(&[("message", Of(&Type(&[("content", Any), ("role", Any)])))]))),
]);

fn asks_for_usage(request: &Value, when: IncludeUsage) -> bool {
    match when {
        IncludeUsage::Never => false,
        IncludeUsage::WhereAbsent => request.get("stream_options").is_none_or(Value::is_null),
        IncludeUsage::Always => request.pointer("/stream_options/include_usage") != Some(&Value::Bool(true)),
    }
}

/// A reply that agentgateway has read and writes anew: it needs `model` and `choices`.
pub(super) fn reply_body(body: &[u8]) -> Result<(Bytes, Value), Failure> {
    #[derive(Deserialize)]
    struct Reply {
        #[expect(dead_code, reason = "only its presence is asked")]
        model: String,
        #[expect(dead_code, reason = "only its presence is asked")]
        choices: Vec<serde::de::IgnoredAny>,
    }
    let refused = |e: serde_json::Error| Failure::UnreadableReply(format!("failed to parse response: {e}"));
    serde_json::from_slice::<Reply>(body).map_err(refused)?;
    let reply: Value = serde_json::from_slice(body).map_err(refused)?;
    Ok((Bytes::from(REPLY.write(&json_text::compact(&String::from_utf8_lossy(body)))), reply))
}

/// How Envoy AI Gateway wraps an upstream's error that is not JSON (docs/facts/envoy-ai-gateway.md E7).
pub(super) fn wrapped_error(status: u16, body: &[u8]) -> Bytes {
    let message = String::from_utf8_lossy(body);
    let error = json!({"type": "OpenAIBackendError", "message": message, "code": status.to_string()});
    Bytes::from(json!({"type": "error", "error": error}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn provider(include_usage: IncludeUsage, model: Option<&str>) -> Provider {
        Provider { model: model.map(str::to_owned), include_usage, ..Provider::default() }
    }

    #[rstest]
    #[case::never(IncludeUsage::Never, r#"{"stream":true}"#, None)]
    #[case::not_a_stream(IncludeUsage::Always, r#"{"stream":false}"#, None)]
    #[case::absent(IncludeUsage::WhereAbsent, r#"{"stream":true}"#, Some(true))]
    #[case::said_no(
        IncludeUsage::WhereAbsent,
        r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
        Some(false)
    )]
    #[case::overruled(IncludeUsage::Always, r#"{"stream":true,"stream_options":{"include_usage":false}}"#, Some(true))]
    #[case::null(IncludeUsage::Always, r#"{"stream":true,"stream_options":null}"#, Some(true))]
    fn streams_are_made_to_ask_for_usage(
        #[case] when: IncludeUsage,
        #[case] body: &'static str,
        #[case] asks: Option<bool>,
    ) {
        let original = Bytes::from_static(body.as_bytes());
        let request = parse(&original).expect("JSON");
        let sent = request_body(&original, &request, &provider(when, None));
        let sent: Value = serde_json::from_slice(&sent).expect("JSON");
        assert_eq!(sent.pointer("/stream_options/include_usage").and_then(Value::as_bool), asks);
    }

    #[test]
    fn a_body_that_needs_no_change_keeps_its_bytes() {
        let original = Bytes::from_static(b"{ \"model\" : \"m\" }");
        let request = parse(&original).expect("JSON");
        assert_eq!(request_body(&original, &request, &provider(IncludeUsage::Always, Some("m"))), original);
        let sent = request_body(&original, &request, &provider(IncludeUsage::Always, Some("other")));
        assert_eq!(sent, r#"{ "model" : "other" }"#);
    }

    /// As they stand in recordings: 29-ai-stream-options of Envoy AI Gateway v1.0.0, 20-ai-chat and 33-stream-ai-transform of
    /// agentgateway v1.3.1.
    #[rstest]
    #[case::in_place(
        Provider { include_usage: IncludeUsage::Always, ..Provider::default() },
        r#"{ "stream": true, "model": "m1", "messages": [ {"role": "user", "content": "Hello"} ] }"#,
        r#"{ "stream": true, "model": "m1", "messages": [ {"role": "user", "content": "Hello"} ] ,"stream_options":{"include_usage":true}}"#
    )]
    #[case::in_place_of_a_false(
        Provider { include_usage: IncludeUsage::Always, ..Provider::default() },
        r#"{"stream_options":{"include_usage":false,"x":1},"stream":true}"#,
        r#"{"stream_options":{"include_usage":true,"x":1},"stream":true}"#
    )]
    #[case::anew(
        Provider { parses_chat: true, ..Provider::default() },
        r#"{"model": "mock-llm", "messages": [{"role": "user", "content": "Hello"}]}"#,
        r#"{"messages":[{"role":"user","content":"Hello"}],"model":"mock-llm"}"#
    )]
    #[case::anew_stream(
        Provider { parses_chat: true, include_usage: IncludeUsage::WhereAbsent, ..Provider::default() },
        r#"{"model": "mock-llm", "metadata": {}, "messages": [{"content": "one two", "role": "user"}], "stream": true}"#,
        r#"{"messages":[{"role":"user","content":"one two"}],"model":"mock-llm","stream":true,"stream_options":{"include_usage":true},"metadata":{}}"#
    )]
    fn requests_as_recorded(#[case] provider: Provider, #[case] from: &'static str, #[case] to: &str) {
        let original = Bytes::from_static(from.as_bytes());
        assert_eq!(request_body(&original, &parse(&original).expect("JSON"), &provider), to);
    }

    #[rstest]
    #[case::recorded_20_ai_chat(
        r#"{"id":"c","model":"mock-llm","object":"chat.completion","created":1,"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Hello"}}]}"#,
        r#"{"model":"mock-llm","usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"message":{"content":"Hello","role":"assistant"},"index":0,"finish_reason":"stop"}],"id":"c","object":"chat.completion","created":1}"#
    )]
    #[case::without_usage(
        r#"{"id":"c","model":"m","choices":[]}"#,
        r#"{"model":"m","usage":null,"choices":[],"id":"c"}"#
    )]
    fn replies_are_written_anew(#[case] from: &str, #[case] to: &str) {
        assert_eq!(reply_body(from.as_bytes()).expect("a reply").0, to);
    }

    #[rstest]
    #[case("", "EOF while parsing a value at line 1 column 0")]
    #[case(r#"{"model": "mock-llm", "messages": ["#, "EOF while parsing a list at line 1 column 35")]
    #[case(r#"{"model":"mock-llm"}"#, "missing field `messages` at line 1 column 20")]
    fn a_chat_must_parse(#[case] body: &str, #[case] words: &str) {
        assert_eq!(
            parse_chat(body.as_bytes()),
            Err(Failure::UnreadableRequest(format!("failed to parse request: {words}")))
        );
        assert!(parse_chat(br#"{"messages":[]}"#).is_ok());
    }

    #[test]
    fn replies_need_a_model_and_errors_are_wrapped() {
        assert!(reply_body(br#"{"choices":[]}"#).is_err());
        assert!(reply_body(br#"{"model":"m","choices":[]}"#).is_ok());
        assert_eq!(
            wrapped_error(503, b"no \"luck\""),
            r#"{"error":{"code":"503","message":"no \"luck\"","type":"OpenAIBackendError"},"type":"error"}"#
        );
    }
}
