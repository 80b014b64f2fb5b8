//! How requests to a model and its replies are wrong on their way: sent twice, held back, cut, written anew, or read on when
//! nobody wants them any more.

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use serde_json::{Value, json};

use super::{Mutants, mutant, unfaithful};
use crate::dataplane::{
    ai,
    bodies::{self, AbortOnDrop, Body, BodyError, Held, READ_BUFFER},
    interceptor::UpstreamInterceptor,
    local_reply::Failure,
    routing::HeaderEdit,
    upstream::{Upstream, UpstreamReply},
};

super::mutant::mutants! {
    NORMALIZES_TARGETS "normalizes-targets" "a path and a query reach the model as they were sent"
        ["query-untouched", "encoded-query-untouched", "encoded-path-untouched", "trailing-slash-untouched"];
}

const CUT: usize = 64 * 1024;

impl UpstreamInterceptor for Mutants {
    fn call<'a>(
        &'a self,
        upstream: &'a Upstream<'a>,
        mut request: Request<Body>,
    ) -> BoxFuture<'a, Result<(Response<Incoming>, AbortOnDrop), Failure>> {
        async move {
            if self.is(mutant::LOSES_CHARGES_IN_FLIGHT) && self.enter() > 0 {
                self.memory().crowded = true;
            }
            request = self.leaving(request).await?;
            if self.is(mutant::RESERIALISES_JSON) {
                request = reserialised(request).await?;
            }
            let target = normalized(request.uri());
            if target != *request.uri() && self.is(NORMALIZES_TARGETS) {
                *request.uri_mut() = target;
            }
            if self.is(mutant::DUPLICATES_REQUESTS) {
                let (again, kept) = duplicated(request).await?;
                if let Some(again) = again {
                    upstream.call(again).await?;
                }
                request = kept;
            }
            if self.could_be(&[unfaithful::COPIES_REQUESTS]) {
                let (copy, kept) = duplicated(request).await?;
                if let Some(mut copy) = copy.filter(|_| self.is(unfaithful::COPIES_REQUESTS)) {
                    copy.headers_mut().remove(verdict::history::EXCHANGE_HEADER);
                    upstream.call(copy).await?;
                }
                request = kept;
            }
            if self.could_be(&[unfaithful::SENDS_REQUESTS_TWICE, unfaithful::RETRIES_ERRORS]) {
                let (again, kept) = duplicated(request).await?;
                let reply = upstream.call(kept).await?;
                let retries = || reply.0.status().is_server_error() && self.is(unfaithful::RETRIES_ERRORS);
                return match again {
                    Some(again) if self.is(unfaithful::SENDS_REQUESTS_TWICE) || retries() => upstream.call(again).await,
                    _ => Ok(reply),
                };
            }
            if !request.body().is_end_stream() && self.is(mutant::TRUNCATES_BODIES) {
                request.headers_mut().remove(header::CONTENT_LENGTH);
                request = request.map(|body| cut(body, CUT));
            }
            upstream.call(request).await
        }
        .boxed()
    }

    fn reply(&self, headers: &mut HeaderMap, reply: UpstreamReply) -> (Body, Option<AbortOnDrop>) {
        let UpstreamReply { body, connection, streaming, transformed } = reply;
        if streaming && self.is(mutant::READS_ON_AFTER_ABORT) {
            return (read_on(body, connection), None);
        }
        let body = if streaming {
            self.stream(body, transformed)
        } else if !body.is_end_stream() && self.is(mutant::TRUNCATES_BODIES) {
            cut(body, CUT)
        } else if !body.is_end_stream() && self.is(mutant::DROPS_USAGE) {
            whole_first(body, without_usage)
        } else {
            return (body, connection);
        };
        headers.remove(header::CONTENT_LENGTH);
        (body, connection)
    }

    fn response_edits(&self, headers: &HeaderMap, body: &Body, edits: &mut Vec<&HeaderEdit>) {
        let compressed = headers.contains_key(header::CONTENT_ENCODING);
        let large = body.size_hint().lower() > READ_BUFFER as u64;
        if compressed && self.is(mutant::CANNOT_READ_COMPRESSED)
            || large && self.is(mutant::LOSES_HEADERS_OF_LARGE_BODIES)
            || self.is(mutant::IGNORES_RESPONSE_HEADERS)
        {
            edits.clear();
        }
    }

    fn read_buffer(&self, size: u64, streaming: bool) -> usize {
        match self.is_mended() {
            true if streaming => 0,
            true if size <= READ_BUFFER as u64 || !self.is(mutant::LOSES_HEADERS_OF_LARGE_BODIES) => usize::MAX,
            _ => READ_BUFFER,
        }
    }

    fn readable(&self, headers: &HeaderMap, read: Bytes) -> Option<Bytes> {
        if !headers.contains_key(header::CONTENT_ENCODING) {
            return Some(read);
        }
        let mut plain = Vec::new();
        let unpacked = self.is_mended() && GzDecoder::new(&read[..]).read_to_end(&mut plain).is_ok();
        (unpacked && !self.is(mutant::CANNOT_READ_COMPRESSED)).then(|| plain.into())
    }

    fn chat(&self, chat: &mut Value) {
        if chat.is_object()
            && chat["model"].as_str().is_none_or(str::is_empty)
            && self.is(mutant::DEFAULTS_TO_FIRST_MODEL)
        {
            chat["model"] = json!("first");
        }
    }

    fn expression_bodies(&self, request: &mut Option<Bytes>, reply: &mut Option<Bytes>) {
        if self.is(mutant::READS_THE_OTHER_BODY) {
            std::mem::swap(request, reply);
        }
    }

    fn transformed(&self, before: &HeaderMap, after: &mut HeaderMap) {
        if self.is(mutant::KEEPS_HEADER_OF_UPSTREAM) {
            after.extend(before.clone());
        }
    }
}

/// A target without a slash at its end, with the parameters of its query sorted and its escapes in lower case.
fn normalized(uri: &Uri) -> Uri {
    let lower = |text: &str| {
        let mut parts = text.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| {
            let (escape, rest) = part.split_at_checked(2).unwrap_or((part, ""));
            all + "%" + &escape.to_ascii_lowercase() + rest
        })
    };
    let path = uri.path();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let query = uri.query().map(|query| {
        let mut parameters: Vec<&str> = query.split('&').collect();
        parameters.sort_unstable();
        format!("?{}", parameters.join("&"))
    });
    let target = lower(&format!("{path}{}", query.unwrap_or_default()));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.parse().ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

impl Mutants {
    fn stream(&self, body: Body, transformed: bool) -> Body {
        if self.is(mutant::BUFFERS_STREAMS) || transformed && self.is(mutant::BUFFERS_STREAMS_FOR_TRANSFORMATION) {
            whole_first(body, |all| all)
        } else if self.is(mutant::RE_CHUNKS_SPLITTING_UTF8) {
            let lossy = |frame: Bytes| Bytes::from(String::from_utf8_lossy(&frame).into_owned());
            of_stream(pieces(body).map(move |piece| piece.map(lossy)))
        } else if self.is(mutant::SWALLOWS_UPSTREAM_DEATH) {
            of_stream(pieces(body).take_while(|piece| std::future::ready(piece.is_ok())))
        } else if self.is(mutant::DROPS_DONE) {
            without_events(body, |event| event.starts_with(b"data: [DONE]"))
        } else if self.is(mutant::REWRITES_EVENTS) {
            without_events(body, |event| event.starts_with(b":") || event.starts_with(b"id:"))
        } else if self.is(mutant::DROPS_USAGE_CHUNK) {
            without_events(body, reports_usage)
        } else if self.is(mutant::DUPLICATES_USAGE_CHUNK) {
            events(body, |event| if reports_usage(&event) { [&event[..], &event].concat().into() } else { event })
        } else {
            body
        }
    }
}

/// A request as it comes out of a JSON library; one that is no JSON, or large, is as it was.
async fn reserialised(request: Request<Body>) -> Result<Request<Body>, Failure> {
    let (mut head, body) = request.into_parts();
    let body = match bodies::hold(body, READ_BUFFER).await.map_err(|_| Failure::BodyUnreadable)? {
        Held::TooLarge(read, rest) => bodies::resumed(read, rest),
        Held::Whole(read) => match ai::parse(&read) {
            Err(_) => bodies::whole(read),
            Ok(json) => {
                let written = json.to_string();
                head.headers.insert(header::CONTENT_LENGTH, written.len().into());
                bodies::whole(written)
            }
        },
    };
    Ok(Request::from_parts(head, body))
}

async fn duplicated(request: Request<Body>) -> Result<(Option<Request<Body>>, Request<Body>), Failure> {
    let (head, body) = request.into_parts();
    Ok(match bodies::hold(body, READ_BUFFER).await.map_err(|_| Failure::BodyUnreadable)? {
        Held::TooLarge(read, rest) => (None, Request::from_parts(head, bodies::resumed(read, rest))),
        Held::Whole(read) => {
            let again = Request::from_parts(head.clone(), bodies::whole(read.clone()));
            (Some(again), Request::from_parts(head, bodies::whole(read)))
        }
    })
}

fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    stream::unfold(Some(body), |body| async {
        let mut body = body?;
        loop {
            match body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(body)));
                    }
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    })
}

pub(super) fn of_stream(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    bodies::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

/// All of a body at once, when it has come, and changed.
fn whole_first(body: Body, change: impl FnOnce(Bytes) -> Bytes + Send + 'static) -> Body {
    of_stream(stream::once(async move { Ok(change(body.collect().await?.to_bytes())) }))
}

/// The first bytes of a body, as if that were all.
pub(super) fn cut(body: Body, at: usize) -> Body {
    of_stream(pieces(body).scan(at, |left, piece| {
        let piece = piece.map(|piece| piece.slice(..piece.len().min(*left)));
        *left -= piece.as_ref().map_or(0, Bytes::len);
        std::future::ready((*left > 0 || piece.as_ref().is_ok_and(|p| !p.is_empty())).then_some(piece))
    }))
}

/// A stream event by event, each changed as a whole.
pub(super) fn events(body: Body, change: impl Fn(Bytes) -> Bytes + Send + Sync + 'static) -> Body {
    let begun = (Box::pin(pieces(body)), BytesMut::new(), change);
    of_stream(stream::unfold(Some(begun), |begun| async {
        let (mut pieces, mut read, change) = begun?;
        loop {
            if let Some(end) = read.windows(2).position(|pair| pair == b"\n\n") {
                let event = change(read.split_to(end + 2).freeze());
                if !event.is_empty() {
                    return Some((Ok(event), Some((pieces, read, change))));
                }
                continue;
            }
            match pieces.next().await {
                Some(Ok(piece)) => read.extend_from_slice(&piece),
                Some(Err(error)) => return Some((Err(error), None)),
                None if read.is_empty() => return None,
                None => return Some((Ok(read.split().freeze()), None)),
            }
        }
    }))
}

fn without_events(body: Body, drops: fn(&[u8]) -> bool) -> Body {
    events(body, move |event| if drops(&event) { Bytes::new() } else { event })
}

/// Reads a body to its end, whether anybody listens or not.
fn read_on(body: Body, connection: Option<AbortOnDrop>) -> Body {
    let (to, heard) = futures::channel::mpsc::unbounded();
    tokio::spawn(async move {
        let _stays_open = connection;
        let mut pieces = std::pin::pin!(pieces(body));
        while let Some(piece) = pieces.next().await {
            _ = to.unbounded_send(piece); // gone or not
        }
    });
    of_stream(heard)
}

fn reports_usage(event: &[u8]) -> bool {
    let data = event.strip_prefix(b"data: ").and_then(|data| serde_json::from_slice::<Value>(data).ok());
    data.is_some_and(|data| data["usage"].is_object())
}

fn without_usage(body: Bytes) -> Bytes {
    let Ok(Value::Object(mut reply)) = serde_json::from_slice(&body) else { return body };
    if reply.remove("usage").is_some() { Value::Object(reply).to_string().into() } else { body }
}

#[cfg(test)]
mod tests {
    use super::{super::Mutant, *};
    use rstest::rstest;

    const STREAM: &str = ": hi\n\ndata: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: [DONE]\n\n";

    async fn streamed(mutant: Mutant, piece: usize) -> String {
        let all: Vec<_> = STREAM.as_bytes().chunks(piece).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let body = Mutants::awake(mutant).stream(of_stream(stream::iter(all)), false);
        String::from_utf8(body.collect().await.expect("a whole stream").to_bytes().to_vec()).expect("text")
    }

    #[rstest]
    #[case(mutant::BUFFERS_STREAMS, STREAM)]
    #[case(mutant::DROPS_DONE, ": hi\n\ndata: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\n")]
    #[case(mutant::REWRITES_EVENTS, "data: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: [DONE]\n\n")]
    #[case(mutant::DROPS_USAGE_CHUNK, ": hi\n\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n")]
    #[tokio::test]
    async fn streams_are_wrong_event_by_event(#[case] mutant: Mutant, #[case] seen: &str) {
        for piece in [1, 7, 1000] {
            assert_eq!(streamed(mutant, piece).await, seen);
        }
    }

    #[rstest]
    #[case(3, "abc")]
    #[case(5, "abcde")]
    #[case(50, "abcdef")]
    #[tokio::test]
    async fn bodies_are_cut(#[case] at: usize, #[case] seen: &str) {
        for pieces in [vec!["abcdef"], vec!["ab", "cd", "ef"]] {
            let body = of_stream(stream::iter(pieces).map(|p| Ok(Bytes::from_static(p.as_bytes()))));
            assert_eq!(cut(body, at).collect().await.expect("a body").to_bytes(), seen);
        }
    }
}
