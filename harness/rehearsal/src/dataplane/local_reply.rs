//! Replies that a proxy writes itself, and the failures that they tell of. Each dialect has its own words for them.

use bytes::Bytes;

use super::limits::{BucketDenial, WindowState};

/// A reply without a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// Status code.
    pub status: u16,
    /// Headers in order; `content-length` is added by the proxy.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl LocalReply {
    /// No body, no headers.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A `text/plain` body.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::typed(status, "text/plain", body)
    }

    /// A body of this content type.
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

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No listener covers the host.
    NoListener,
    /// No route names the host.
    NoHost,
    /// No route covers the request.
    NoRoute,
    /// The rule has no backend that could serve.
    NoBackends,
    /// The chosen backendRef does not resolve.
    BrokenBackend,
    /// The chosen backendRef names a Service that is not there.
    NoService,
    /// The backend has no endpoint.
    NoEndpoint,
    /// The backend's name does not resolve.
    UnknownHost(String),
    /// The connection could not be made, or broke before a reply began.
    Upstream {
        /// Whether connecting failed (else the exchange did).
        connecting: bool,
        /// The operating system's or protocol's words.
        words: String,
    },
    /// The route's time is over.
    Timeout,
    /// The request body is larger than what may be buffered.
    BodyTooLarge,
    /// The request body could not be read from the client.
    BodyUnreadable,
    /// An AI route does not serve this path.
    UnsupportedPath(String),
    /// The body of an AI request is not JSON.
    MalformedJson {
        /// Path of the request.
        path: String,
        /// The body as it came.
        body: Bytes,
        /// The parser's words.
        words: String,
    },
    /// The body of an AI request is JSON, but not a request that can be served.
    UnreadableRequest(String),
    /// An AI reply could not be read.
    UnreadableReply(String),
    /// The client sent a header that belongs to the gateway.
    ForeignDestination,
    /// The endpoint picker cannot be reached.
    PickerUnreachable,
    /// The endpoint picker broke off without an answer.
    PickerSilent,
    /// The endpoint picker's choice is no address: the parser's words.
    UnreadableChoice(String),
    /// A window is overspent.
    OverWindow(WindowState),
    /// A local bucket is empty.
    OverBucket(BucketDenial),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_carry_their_type_and_limits_go_in_front() {
        let reply = LocalReply::text(429, "rate limit exceeded").with_headers([("x-ratelimit-limit", "70".to_owned())]);
        assert_eq!(reply.headers[0], ("x-ratelimit-limit".to_owned(), "70".to_owned()));
        assert_eq!(reply.headers[1], ("content-type".to_owned(), "text/plain".to_owned()));
        assert_eq!(reply.body.len(), 19);
        assert_ne!(LocalReply::empty(404), LocalReply::text(404, ""));
    }
}
