//! Replies that a proxy writes itself, and the failures that they tell of. Each dialect has its own words for them.

use bytes::Bytes;

use super::limits::{BucketDenial, WindowState};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub status: u16,
    /// Headers in order; `content-length` is added by the proxy.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl LocalReply {
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::typed(status, "text/plain", body)
    }

    pub fn typed(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: Bytes::from(body.into()),
        }
    }

    /// The same with these headers in front.
    pub fn with_headers<'a>(mut self, headers: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut all: Vec<_> = headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        all.append(&mut self.headers);
        self.headers = all;
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    NoListener,
    NoHost,
    NoRoute,
    NoBackends,
    BrokenBackend,
    NoService,
    NoEndpoint,
    UnknownHost(String),
    /// The connection could not be made, or broke before a reply began.
    Upstream {
        /// Whether connecting failed (else the exchange did).
        connecting: bool,
        words: String,
    },
    Timeout,
    BodyTooLarge,
    BodyUnreadable,
    UnsupportedPath(String),
    MalformedJson {
        path: String,
        body: Bytes,
        words: String,
    },
    /// The body of an AI request is JSON, but not a request that can be served.
    UnreadableRequest(String),
    UnreadableReply(String),
    /// The client sent a header that belongs to the gateway.
    ForeignDestination,
    PickerUnreachable,
    PickerSilent,
    /// The endpoint picker's choice is no address: the parser's words.
    UnreadableChoice(String),
    OverWindow(WindowState),
    OverBucket(BucketDenial),
}
