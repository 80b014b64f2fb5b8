//! How bodies are wrong on their way: held back, cut, written anew, or read on when nobody wants them any more.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use serde_json::Value;

use super::{Mutant, Mutants};
use crate::dataplane::bodies::{self, Body, BodyError, Tied};

/// Where bodies are cut.
const CUT: usize = 64 * 1024;
/// Where a picker's sight ends.
const SIGHT: usize = 20;

/// A reply that has begun to come.
pub(crate) struct Coming {
    /// What is to come.
    pub body: Body,
    /// The connection that it comes over.
    pub connection: Option<Tied>,
    /// Whether it is a stream of events.
    pub streaming: bool,
    /// Whether its route changes anything of replies.
    pub transformed: bool,
}

impl Mutants {
    /// A reply as it comes from the model.
    pub(crate) fn reply(&self, headers: &mut HeaderMap, coming: Coming) -> (Body, Option<Tied>) {
        let Coming { body, connection, streaming, transformed } = coming;
        if streaming && self.is(Mutant::ReadsOnAfterAbort) {
            return (read_on(body, connection), None);
        }
        let body = if streaming {
            self.stream(body, transformed)
        } else if !body.is_end_stream() && self.is(Mutant::TruncatesBodies) {
            cut(body, CUT)
        } else if !body.is_end_stream() && self.is(Mutant::DropsUsage) {
            whole_first(body, without_usage)
        } else {
            return (body, connection);
        };
        headers.remove(header::CONTENT_LENGTH);
        (body, connection)
    }

    fn stream(&self, body: Body, transformed: bool) -> Body {
        if self.is(Mutant::BuffersStreams) || transformed && self.is(Mutant::BuffersStreamsForTransformation) {
            whole_first(body, |all| all)
        } else if self.is(Mutant::ReChunksSplittingUtf8) {
            let lossy = |frame: Bytes| Bytes::from(String::from_utf8_lossy(&frame).into_owned());
            of_stream(pieces(body).map(move |piece| piece.map(lossy)))
        } else if self.is(Mutant::SwallowsUpstreamDeath) {
            of_stream(pieces(body).take_while(|piece| std::future::ready(piece.is_ok())))
        } else if self.is(Mutant::DropsDone) {
            events(body, |event| if event.starts_with(b"data: [DONE]") { Bytes::new() } else { event })
        } else if self.is(Mutant::RewritesEvents) {
            events(
                body,
                |event| if event.starts_with(b":") || event.starts_with(b"id:") { Bytes::new() } else { event },
            )
        } else if self.is(Mutant::DropsUsageChunk) {
            events(body, |event| if reports_usage(&event) { Bytes::new() } else { event })
        } else if self.is(Mutant::DuplicatesUsageChunk) {
            events(body, |event| if reports_usage(&event) { [&event[..], &event].concat().into() } else { event })
        } else {
            body
        }
    }

    /// The body of a request as it goes to the model.
    pub(crate) fn request_body(&self, headers: &mut HeaderMap, body: Body) -> Body {
        if body.is_end_stream() || !self.is(Mutant::TruncatesBodies) {
            return body;
        }
        headers.remove(header::CONTENT_LENGTH);
        cut(body, CUT)
    }

    /// The body of a request as the picker sees it.
    pub(crate) fn picked_by(&self, body: Body) -> Body {
        if body.is_end_stream() || !self.is(Mutant::CutsTheBodyThatThePickerSees) { body } else { cut(body, SIGHT) }
    }
}

/// The pieces of a body.
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

fn of_stream(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    bodies::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

/// All of a body at once, when it has come, and changed.
fn whole_first(body: Body, change: impl FnOnce(Bytes) -> Bytes + Send + 'static) -> Body {
    of_stream(stream::once(async move { Ok(change(body.collect().await?.to_bytes())) }))
}

/// The first bytes of a body, as if that were all.
fn cut(body: Body, at: usize) -> Body {
    of_stream(pieces(body).scan(at, |left, piece| {
        let piece = piece.map(|piece| piece.slice(..piece.len().min(*left)));
        *left -= piece.as_ref().map_or(0, Bytes::len);
        std::future::ready((*left > 0 || piece.as_ref().is_ok_and(|p| !p.is_empty())).then_some(piece))
    }))
}

/// A stream event by event, each changed as a whole.
fn events(body: Body, change: impl Fn(Bytes) -> Bytes + Send + Sync + 'static) -> Body {
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

/// Reads a body to its end, whether anybody listens or not.
fn read_on(body: Body, connection: Option<Tied>) -> Body {
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
    use super::*;
    use rstest::rstest;

    const STREAM: &str = ": hi\n\ndata: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: [DONE]\n\n";

    async fn streamed(mutant: Mutant, piece: usize) -> String {
        let all: Vec<_> = STREAM.as_bytes().chunks(piece).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let body = Mutants::awake(mutant).stream(of_stream(stream::iter(all)), false);
        String::from_utf8(body.collect().await.expect("a whole stream").to_bytes().to_vec()).expect("text")
    }

    #[rstest]
    #[case(Mutant::BuffersStreams, STREAM)]
    #[case(Mutant::DropsDone, ": hi\n\ndata: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\n")]
    #[case(Mutant::RewritesEvents, "data: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: [DONE]\n\n")]
    #[case(Mutant::DropsUsageChunk, ": hi\n\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n")]
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
