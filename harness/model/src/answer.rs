//! An answer: what the model is about to say, before a byte of it is sent.

use bytes::Bytes;
use serde::Serialize;
use verdict::history::Usage;

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Content type, where there is a body or the simulator names one.
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub payload: Payload,
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Sent at once, with its length.
    Whole(Bytes),
    /// Sent piece by piece, each piece a chunk.
    Stream(Pieces),
}

impl Payload {
    /// The bytes that are sent at once; none of a stream.
    pub fn whole(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Stream(_) => Bytes::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pieces {
    /// Sent with the head.
    pub before: Vec<Bytes>,
    pub tokens: Vec<Bytes>,
    /// Sent after the last token.
    pub after: Vec<Bytes>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: u16,
}

impl Pieces {
    /// A body of server-sent events that was written elsewhere: each event, to the end of its empty line, is a token.
    pub fn of_events(body: &[u8]) -> Self {
        let mut tokens = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let end = |mark: &[u8]| rest.windows(mark.len()).position(|w| w == mark).map(|at| at + mark.len());
            let end = [end(b"\n\n"), end(b"\r\n\r\n")].into_iter().flatten().min().unwrap_or(rest.len());
            let (event, after) = rest.split_at(end);
            tokens.push(Bytes::copy_from_slice(event));
            rest = after;
        }
        Self { tokens, ..Self::default() }
    }
}

impl Answer {
    pub fn text(status: u16, text: &str) -> Self {
        Self::whole(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
    }

    pub fn json(status: u16, body: &impl Serialize) -> Self {
        Self::whole(status, "application/json", json_bytes(body))
    }

    pub fn error(status: u16, message: &str) -> Self {
        let fields = ErrorFields { message, r#type: error_type(status), param: None, code: status };
        Self::json(status, &ErrorBody { error: fields })
    }

    pub fn whole(status: u16, content_type: &str, body: Bytes) -> Self {
        Self {
            status,
            content_type: Some(content_type.to_owned()),
            headers: Vec::new(),
            payload: Payload::Whole(body),
            usage: None,
        }
    }

    pub fn bare(status: u16) -> Self {
        Self { content_type: None, ..Self::whole(status, "", Bytes::new()) }
    }

    pub fn stream(pieces: Pieces) -> Self {
        let content_type = Some("text/event-stream".to_owned());
        Self { status: 200, content_type, headers: Vec::new(), payload: Payload::Stream(pieces), usage: None }
    }

    /// The same with a field `padding` of so many bytes, where the body is one JSON object.
    pub fn padded(mut self, bytes: usize) -> Self {
        if let Payload::Whole(body) = &self.payload
            && let Some(fields) = body.strip_suffix(b"}").filter(|fields| fields.len() > 1 && fields.starts_with(b"{"))
        {
            let padding = vec![b'x'; bytes];
            self.payload = Payload::Whole([fields, b",\"padding\":\"", &padding, b"\"}"].concat().into());
        }
        self
    }

    pub fn reporting(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage;
        self
    }

    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A value in JSON. The values that the model says have no maps with keys that are not strings, so this cannot fail.
pub fn json_bytes(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

fn error_type(status: u16) -> &'static str {
    match status {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        500.. => "InternalServerError",
        _ => "APIConnectionError",
    }
}
