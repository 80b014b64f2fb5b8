//! A call: what a drive wants to send, before it is sent.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use verdict::canary;

/// Bound on a whole exchange unless a call says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Bound on the bytes of a response body unless a call says otherwise.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// When a client leaves on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandon {
    Head,
    /// After so many pieces of the body.
    Chunks(usize),
    /// After at least so many bytes of the body.
    Bytes(u64),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Payload,
    pub(crate) streams: bool,
    pub(crate) timeout: Duration,
    pub(crate) max_bytes: u64,
    pub(crate) abandon: Option<Abandon>,
    pub(crate) http2: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Nothing,
    Json(Value),
    Bytes(Bytes),
}

impl Call {
    /// Any method on a path with query, for example `/v1/models?x=1`.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: None,
            headers: Vec::new(),
            content_type: None,
            body: Payload::Nothing,
            streams: false,
            timeout: TIMEOUT,
            max_bytes: MAX_BYTES,
            abandon: None,
            http2: false,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// This host, if it has none.
    pub fn host_or(mut self, host: &str) -> Self {
        self.host.get_or_insert_with(|| host.to_owned());
        self
    }

    /// The Host header (HTTP/1.1) or `:authority` (HTTP/2). Without it, the address that is dialled.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// One more header. A name given twice is sent twice. The value may be any bytes that HTTP allows.
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = Payload::Json(body.clone());
        self.content_type = Some("application/json".to_owned());
        self
    }

    pub fn body(mut self, bytes: impl Into<Bytes>, content_type: &str) -> Self {
        self.body = Payload::Bytes(bytes.into());
        self.content_type = Some(content_type.to_owned());
        self
    }

    /// Asks for a streamed reply: sets `stream` in a JSON body.
    pub fn stream(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Bound on the whole exchange, connecting included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Leaves on purpose, closing the connection.
    pub fn abandon_after(mut self, abandon: Abandon) -> Self {
        self.abandon = Some(abandon);
        self
    }

    /// HTTP/2 with prior knowledge instead of HTTP/1.1.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Whether the body is JSON of the caller's that an OpenAI endpoint generates by, and says nothing where canaries do.
    pub(crate) fn bears_canaries(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        let generates = ["/completions", "/responses"].iter().any(|end| path.ends_with(end));
        let Payload::Json(Value::Object(body)) = &self.body else { return false };
        generates && !body.is_empty() && canary::FIELDS.iter().all(|field| !body.contains_key(*field))
    }

    /// The body, JSON with these members behind its own.
    pub(crate) fn payload(&self, members: Option<&str>) -> Bytes {
        match &self.body {
            Payload::Nothing => Bytes::new(),
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Json(value) => {
                let mut value = value.clone();
                if let (true, Some(object)) = (self.streams, value.as_object_mut()) {
                    object.insert("stream".to_owned(), json!(true));
                }
                let mut text = value.to_string();
                if let Some(members) = members
                    && text.pop() == Some('}')
                {
                    text.push_str(&format!(",{members}}}"));
                }
                Bytes::from(text)
            }
        }
    }
}
