//! The JSON of AI requests and replies, read and changed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
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

pub(super) fn request_body(original: &Bytes, request: &Value, provider: &Provider) -> Bytes {
    let mut changed = None;
    if let Some(model) = &provider.model
        && request.get("model").and_then(Value::as_str) != Some(model)
    {
        changed.get_or_insert_with(|| request.clone())["model"] = json!(model);
    }
    if self::request(request).stream && asks_for_usage(request, provider.include_usage) {
        let request = changed.get_or_insert_with(|| request.clone());
        if !request["stream_options"].is_object() {
            request["stream_options"] = json!({});
        }
        request["stream_options"]["include_usage"] = json!(true);
    }
    match changed {
        Some(changed) => Bytes::from(changed.to_string()),
        None => original.clone(),
    }
}

fn asks_for_usage(request: &Value, when: IncludeUsage) -> bool {
    match when {
        IncludeUsage::Never => false,
        IncludeUsage::WhereAbsent => request.get("stream_options").is_none(),
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
    Ok((Bytes::from(reply.to_string()), reply))
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
        assert_eq!(sent, r#"{"model":"other"}"#);
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
