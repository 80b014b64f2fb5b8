//! What a reply used, read from a JSON body or from the events of a stream.

use serde_json::Value;

/// Most bytes of one reply, or of one event, that are looked at for usage.
const LOOKED_AT: usize = 8 * 1024 * 1024;

/// A number that a reply's usage gives, under the name that policies use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    Input,
    Output,
    Total,
    CachedInput,
    Reasoning,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    /// Total, as the reply says it.
    pub total: u64,
    pub cached: u64,
    pub reasoning: u64,
}

impl Usage {
    /// Reads `usage` of a reply: chat and completions, embeddings, responses and messages.
    pub fn of(reply: &Value) -> Option<Self> {
        let usage = reply.get("usage").filter(|u| u.is_object())?;
        let number = |names: &[&str]| names.iter().find_map(|n| usage.pointer(n).and_then(Value::as_u64));
        let input = number(&["/prompt_tokens", "/input_tokens"]).unwrap_or(0);
        let output = number(&["/completion_tokens", "/output_tokens"]).unwrap_or(0);
        Some(Self {
            input,
            output,
            total: number(&["/total_tokens"]).unwrap_or(input + output),
            cached: number(&["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"])
                .unwrap_or(0),
            reasoning: number(&["/completion_tokens_details/reasoning_tokens"]).unwrap_or(0),
        })
    }

    /// What local limits count: input and output.
    pub fn tokens(&self) -> u64 {
        self.input + self.output
    }

    pub fn cost(&self, cost: Cost) -> u64 {
        match cost {
            Cost::Input => self.input,
            Cost::Output => self.output,
            Cost::Total => self.total,
            Cost::CachedInput => self.cached,
            Cost::Reasoning => self.reasoning,
        }
    }
}

#[derive(Debug)]
pub enum UsageReader {
    /// A JSON body, kept until its end.
    Json(Vec<u8>),
    /// Server-sent events: the unfinished line, and the last usage that was seen.
    Events(Vec<u8>, Option<Usage>),
    Nothing,
}

impl UsageReader {
    pub fn of(content_type: Option<&str>) -> Self {
        match content_type.map(|t| t.split(';').next().unwrap_or(t).trim().to_ascii_lowercase()).as_deref() {
            Some("text/event-stream") => Self::Events(Vec::new(), None),
            Some(t) if t == "application/json" || t.ends_with("+json") => Self::Json(Vec::new()),
            _ => Self::Nothing,
        }
    }

    pub fn read(&mut self, piece: &[u8]) {
        match self {
            Self::Json(body) if body.len() + piece.len() <= LOOKED_AT => body.extend_from_slice(piece),
            Self::Json(_) => *self = Self::Nothing,
            Self::Nothing => {}
            Self::Events(line, usage) => {
                for byte in piece {
                    if *byte != b'\n' {
                        if line.len() < LOOKED_AT {
                            line.push(*byte);
                        }
                        continue;
                    }
                    if let Some(found) = usage_of_line(line) {
                        *usage = Some(found);
                    }
                    line.clear();
                }
            }
        }
    }

    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Json(body) => serde_json::from_slice(body).ok().as_ref().and_then(Usage::of),
            Self::Events(line, usage) => usage_of_line(line).or(*usage),
            Self::Nothing => None,
        }
    }
}

fn usage_of_line(line: &[u8]) -> Option<Usage> {
    let data = line.strip_prefix(b"data:")?;
    Usage::of(&serde_json::from_slice(data).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7}}), Some((6, 1, 7)))]
    #[case(json!({"usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 70}}), Some((6, 1, 70)))]
    #[case(json!({"usage": {"prompt_tokens": 1, "total_tokens": 1}}), Some((1, 0, 1)))]
    #[case(json!({"usage": {"input_tokens": 6, "output_tokens": 1}}), Some((6, 1, 7)))]
    #[case(json!({"usage": null}), None)]
    #[case(json!({"error": {}}), None)]
    fn usage_of_replies(#[case] reply: Value, #[case] expected: Option<(u64, u64, u64)>) {
        assert_eq!(Usage::of(&reply).map(|u| (u.input, u.output, u.total)), expected);
    }

    /// Pieces may be cut anywhere, and a chunk with `"usage":null` is no usage.
    #[rstest]
    #[case(1)]
    #[case(7)]
    #[case(10_000)]
    fn usage_of_a_stream(#[case] piece: usize) {
        let stream = "data: {\"usage\":null,\"choices\":[]}\r\n\r\ndata: {\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":3,\"total_tokens\":11},\"choices\":[]}\n\ndata: [DONE]\n\n";
        let mut listening = UsageReader::of(Some("text/event-stream; charset=utf-8"));
        for piece in stream.as_bytes().chunks(piece) {
            listening.read(piece);
        }
        assert_eq!(listening.usage().map(|u| u.total), Some(11));
    }

    #[test]
    fn nothing_is_found_where_nothing_is_said() {
        let mut silent = UsageReader::of(Some("text/event-stream"));
        silent.read(b"data: {\"usage\":null}\n\ndata: [DONE]\n\n");
        assert_eq!(silent.usage(), None);
        let mut page = UsageReader::of(Some("text/plain"));
        page.read(b"{\"usage\":{\"total_tokens\":7}}");
        assert_eq!(page.usage(), None);
        let mut whole = UsageReader::of(Some("application/json"));
        whole.read(b"{\"usage\":");
        assert_eq!(whole.usage(), None, "cut short");
        whole.read(b"{\"total_tokens\":7}}");
        assert_eq!(whole.usage().map(|u| u.total), Some(7));
    }
}
