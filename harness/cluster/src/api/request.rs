//! One request to the API server: bounded in time and bytes, with the warnings of its answer.

use std::{fmt::Write as _, io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::{
    Cluster,
    clock::{Backoff, Deadline},
    failure::{ApiFailure, FailureKind},
};

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From sending to the last byte of the answer.
    pub time: Duration,
    pub bytes: usize,
    /// How long nobody may listen before who asks again gives up: longer than an API server takes to start again.
    pub absence: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), bytes: 64 * 1024 * 1024, absence: Duration::from_secs(15) }
    }
}

/// How often a request is repeated that the API server puts off (429 with `Retry-After`).
const PUT_OFF: u32 = 5;

/// A whole response, of the API server or of a pod behind its proxy.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ApiResponse {
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers
            .get_all(header::WARNING)
            .iter()
            .flat_map(|value| warning_texts(&String::from_utf8_lossy(value.as_bytes())))
            .collect()
    }

    /// The body as JSON; a refusal as a failure.
    pub(crate) fn json(&self, doing: &str) -> Result<Value, ApiFailure> {
        if !self.status.is_success() {
            return Err(ApiFailure::new(doing, FailureKind::of_answer(self.status, &self.body)));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiFailure::new(doing, FailureKind::Malformed(format!("JSON of {} bytes: {error}", self.body.len())))
        })
    }
}

impl Cluster {
    /// Sends a request and reads all of the answer, whatever its status.
    pub(crate) async fn ask(&self, doing: &str, request: Request<Vec<u8>>) -> Result<ApiResponse, ApiFailure> {
        let bounds = self.bounds;
        let deadline = Deadline::within(bounds.time);
        let mut put_off = 0;
        loop {
            let whole = async {
                let response = self.send(request.clone()).await?;
                read_response(response, bounds.bytes).await
            };
            let late = || FailureKind::Unanswered(format!("not within {:.1} s", bounds.time.as_secs_f64()));
            let answer = deadline.bound(whole).await.unwrap_or_else(|| Err(late()));
            let answer = answer.map_err(|kind| ApiFailure::new(doing, kind))?;
            let wait = (answer.status == StatusCode::TOO_MANY_REQUESTS).then(|| retry_after(&answer.headers)).flatten();
            let Some(wait) = wait.filter(|_| put_off < PUT_OFF) else { return Ok(answer) };
            put_off += 1;
            if !Backoff::new(wait, wait).pause(deadline).await {
                return Ok(answer);
            }
        }
    }

    /// Sends a request and returns as soon as the head of the answer is there.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, FailureKind> {
        self.client.send(request.map(Body::from)).await.map_err(|error| match unanswered(&error) {
            FailureKind::NobodyListens(said) => FailureKind::NobodyListens(format!("{} ({said})", self.server())),
            other => other,
        })
    }

    pub(crate) async fn refusal(&self, response: Response<Body>) -> FailureKind {
        let status = response.status();
        let bounded = Bounds { bytes: 1024 * 1024, ..self.bounds };
        match Deadline::within(bounded.time).bound(read_response(response, bounded.bytes)).await {
            None => FailureKind::Unanswered(format!("{status}, and no body")),
            Some(Err(kind)) => kind,
            Some(Ok(answer)) => FailureKind::of_answer(status, &answer.body),
        }
    }

    pub(crate) async fn get_json(&self, doing: &str, path: &str) -> Result<Value, ApiFailure> {
        self.ask(doing, request("GET", path, None)).await?.json(doing)
    }
}

pub(crate) fn request(method: &str, path_and_query: &str, body: Option<(&str, &Value)>) -> Request<Vec<u8>> {
    let mut builder = Request::builder().method(method).uri(path_and_query).header(header::ACCEPT, "application/json");
    let bytes = match body {
        Some((content_type, value)) => {
            builder = builder.header(header::CONTENT_TYPE, content_type);
            value.to_string().into_bytes()
        }
        None => Vec::new(),
    };
    // Paths are built from encoded segments and methods are ours, so that nothing outside can spoil them.
    builder.body(bytes).expect("method, path and headers are well formed")
}

/// Percent-encodes everything but unreserved characters: safe as a path segment and as a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte as char),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string"),
        }
    }
    encoded
}

/// A failure of the client in words, its causes included.
pub(crate) fn unanswered(error: &kube::Error) -> FailureKind {
    let mut message = String::new();
    let mut refused = false;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        refused |= error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused);
        let said = error.to_string();
        let said = said.strip_prefix("ServiceError: ").or(said.strip_prefix("HyperError: ")).unwrap_or(&said);
        if !message.contains(said) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(said);
        }
        next = error.source();
    }
    if refused { FailureKind::NobodyListens(message) } else { FailureKind::Unanswered(message) }
}

async fn read_response(response: Response<Body>, bytes: usize) -> Result<ApiResponse, FailureKind> {
    let (head, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FailureKind::Unanswered(format!("the answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > bytes {
                return Err(FailureKind::Malformed(format!("a body of more than {bytes} bytes")));
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(ApiResponse { status: head.status, headers: head.headers, body: read.freeze() })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The texts of one Warning header (`299 - "text"`, several apart by commas), RFC 7234 section 5.5.
fn warning_texts(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut characters = header.chars();
    while characters.by_ref().any(|c| c == '"') {
        let mut text = String::new();
        loop {
            match characters.next() {
                None | Some('"') => break,
                Some('\\') => text.extend(characters.next()),
                Some(other) => text.push(other),
            }
        }
        texts.push(text);
        // A date may follow, in quotes of its own; the next warning begins after a comma.
        if !characters.by_ref().any(|c| c == ',') {
            break;
        }
    }
    if texts.is_empty() && !header.trim().is_empty() {
        texts.push(header.trim().to_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"299 - "v1alpha1 is deprecated; use v1beta1""#, &["v1alpha1 is deprecated; use v1beta1"])]
    #[case(r#"299 - "unknown field \"spec.x\"""#, &[r#"unknown field "spec.x""#])]
    #[case(r#"299 - "one", 299 - "two, with comma""#, &["one", "two, with comma"])]
    #[case("299 - bare", &["299 - bare"])]
    #[case(r#"299 - "never ends"#, &["never ends"])]
    #[case("", &[])]
    fn reads_warnings(#[case] header: &str, #[case] texts: &[&str]) {
        assert_eq!(warning_texts(header), texts);
    }

    #[rstest]
    #[case("plain-name.1", "plain-name.1")]
    #[case("a/b?c=d&e f", "a%2Fb%3Fc%3Dd%26e%20f")]
    #[case("é", "%C3%A9")]
    fn encodes_what_a_path_must_not_hold(#[case] text: &str, #[case] encoded: &str) {
        assert_eq!(encode(text), encoded);
    }
}
