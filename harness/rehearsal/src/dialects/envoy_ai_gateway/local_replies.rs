//! What Envoy and Envoy AI Gateway answer themselves, status and body (recording `ai-route-exchanges.txt`).

use crate::dataplane::local_reply::{Failure, LocalReply};

pub(super) fn local_reply(failure: &Failure) -> LocalReply {
    match failure {
        Failure::NoListener | Failure::NoHost | Failure::NoRoute => LocalReply::empty(404),
        Failure::NoBackends
        | Failure::BrokenBackend
        | Failure::NoService
        | Failure::ForeignDestination
        | Failure::PickerUnreachable
        | Failure::PickerSilent => LocalReply::empty(500),
        Failure::NoEndpoint | Failure::UnknownHost(_) | Failure::UnreadableChoice(_) => {
            LocalReply::text(503, "no healthy upstream")
        }
        Failure::Upstream { connecting: true, words } => LocalReply::text(
            503,
            format!(
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
                 transport failure reason: delayed connect error: {words}"
            ),
        ),
        Failure::Upstream { connecting: false, .. } => LocalReply::text(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        ),
        Failure::Timeout => LocalReply::text(504, "upstream request timeout"),
        Failure::BodyTooLarge => LocalReply::text(413, "Payload Too Large"),
        Failure::BodyUnreadable => LocalReply::text(400, "Bad Request"),
        Failure::UnsupportedPath(path) => LocalReply::text(404, format!("unsupported path: {path}")),
        Failure::MalformedJson { path, body, .. } => {
            LocalReply::typed(400, "application/json", malformed_json_body(path, body))
        }
        Failure::UnreadableRequest(words) | Failure::UnreadableReply(words) => LocalReply::text(500, words.clone()),
        Failure::OverWindow(state) => LocalReply::empty(429).with_headers(state.headers()),
        Failure::OverBucket(denial) => LocalReply::text(429, "local_rate_limited").with_headers(denial.headers()),
    }
}

/// The body of the 400: it claims to be JSON and is not, because the parser's words go in with their quotes
/// (docs/facts/envoy-ai-gateway.md E7).
fn malformed_json_body(path: &str, body: &[u8]) -> String {
    let words = quoted(&syntax_error(body));
    format!(
        r#"{{"type":"error","error":{{"type":"BadRequest","code":"400","message":"malformed request: failed to parse JSON for {path}: {words}"}}}}"#
    )
}

/// The parser's description: where, what, and 32 bytes around the place with a pointer below it.
fn syntax_error(body: &[u8]) -> String {
    let tolerant: Vec<u8> = body.iter().map(|b| if *b < 0x20 { b' ' } else { *b }).collect();
    let (at, what) = match serde_json::from_slice::<serde::de::IgnoredAny>(&tolerant) {
        Err(error) if !error.is_eof() => (error.column().saturating_sub(1), "invalid char"),
        _ => (body.len(), "eof"),
    };
    let (from, to) = window(at, body.len());
    let (before, after) = if at >= body.len() { (0, 0) } else { (at - from, to - at - 1) };
    let around = String::from_utf8_lossy(&body[from..to]);
    format!("Syntax error at index {at}: {what}\n\n\t{around}\n\t{}^{}\n", ".".repeat(before), ".".repeat(after))
}

/// The bytes that are shown around a place: sixteen before and after. At the end of the body the window moves left as far
/// as it would reach over it, but not where that is further than its own beginning.
fn window(at: usize, length: usize) -> (usize, usize) {
    if at >= length {
        return (0, length);
    }
    let (from, to) = if at < 16 { (0, 32) } else { (at - 16, at + 16) };
    let over = to.saturating_sub(length);
    (if from > over { from - over } else { from }, to.min(length))
}

/// A text in quotes with the escapes of a Go string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Lengths and pointers as recorded for broken bodies; the third is of a run on Envoy AI Gateway in kind.
    #[rstest]
    #[case(&b"{\"model\": \"mock-llm\", "[..], 208, "index 22: eof", r"\n\t^\n")]
    #[case(&b"{\"model\": \"mock-llm\", \"x\": \"a\n\"b\"}"[..], 263, "index 31: invalid char", r"\n\t.............................^..\n")]
    #[case(&b"{\"model\": \"alpha\", \"x\": \"a\n\"b\"}"[..], 235, "index 28: invalid char", r"\n\t................^..\n")]
    fn malformed_json(#[case] body: &[u8], #[case] length: usize, #[case] place: &str, #[case] pointer: &str) {
        let said = malformed_json_body("/v1/chat/completions", body);
        assert_eq!(said.len(), length, "{said}");
        assert!(said.contains(place) && said.contains(pointer), "{said}");
        assert!(serde_json::from_str::<serde_json::Value>(&said).is_err(), "not valid JSON, as recorded");
    }

    #[rstest]
    #[case(Failure::PickerSilent, LocalReply::empty(500))]
    #[case(Failure::NoEndpoint, LocalReply::text(503, "no healthy upstream"))]
    #[case(Failure::Timeout, LocalReply::text(504, "upstream request timeout"))]
    fn failures_that_no_recording_has(#[case] failure: Failure, #[case] reply: LocalReply) {
        assert_eq!(local_reply(&failure), reply);
    }
}
