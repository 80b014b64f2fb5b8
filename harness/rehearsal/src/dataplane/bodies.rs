//! Bodies: passed on without being held, held up to a bound, and charged at their end.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::usage::{Usage, UsageReader};

/// What agentgateway reads of a body for expressions and AI backends, in bytes (docs/facts/agentgateway.md A5).
pub const READ_BUFFER: usize = 2 * 1024 * 1024;

pub type BodyError = Box<dyn Error + Send + Sync>;

pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of these bytes, with its length known.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

pub enum Held {
    Whole(Bytes),
    /// It is larger: what was read, and the rest.
    TooLarge(Bytes, Body),
}

/// Reads a body up to `bound` bytes. A body that announces more is not read at all.
pub async fn hold(mut body: Body, bound: usize) -> Result<Held, BodyError> {
    if body.size_hint().lower() > bound as u64 {
        return Ok(Held::TooLarge(Bytes::new(), body));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
            if read.len() > bound {
                return Ok(Held::TooLarge(read.freeze(), body));
            }
        }
    }
    Ok(Held::Whole(read.freeze()))
}

pub fn resumed(read: Bytes, rest: Body) -> Body {
    boxed(Resumed { read: Some(read).filter(|r| !r.is_empty()), rest })
}

struct Resumed {
    read: Option<Bytes>,
    rest: Body,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (read, mut hint) = (self.read.as_ref().map_or(0, |r| r.len() as u64), self.rest.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

/// The same bytes without a known length, so that they are framed as a stream.
pub fn unsized_body(bytes: Bytes) -> Body {
    let frame = (!bytes.is_empty()).then(|| Ok::<_, BodyError>(Frame::data(bytes)));
    boxed(StreamBody::new(futures::stream::iter(frame)))
}

#[derive(Debug)]
pub struct AbortOnDrop(pub JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What happens at the end of a reply, with the usage that was found in it.
pub type AtEnd = Box<dyn FnOnce(Option<Usage>) + Send>;

/// A delay of the world's clock.
pub type Deadline = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A reply on its way to the client. When it is dropped before its end, the upstream connection goes with it and
/// nothing is charged.
pub struct MeteredBody {
    pub body: Body,
    pub usage: UsageReader,
    /// Called once, before the client can have seen the end.
    pub at_end: Option<AtEnd>,
    pub deadline: Option<Deadline>,
    pub connection: Option<AbortOnDrop>,
}

impl MeteredBody {
    fn ended(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(self.usage.usage());
        }
    }
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.deadline.as_mut().is_some_and(|d| d.as_mut().poll(cx).is_ready()) {
            self.at_end = None;
            self.deadline = None;
            self.connection = None;
            return Poll::Ready(Some(Err("the route's time is over".into())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.usage.read(data);
                }
                // A body of known length is not polled past its last byte, so the end is noticed here.
                if self.body.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Err(_))) => self.at_end = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.at_end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::{Arc, Mutex};

    #[rstest]
    #[case::fits(4, true)]
    #[case::exactly(3, true)]
    #[case::larger(2, false)]
    #[tokio::test]
    async fn bodies_are_held_up_to_a_bound(#[case] bound: usize, #[case] fits: bool) {
        for body in [whole("abc"), unsized_body(Bytes::from_static(b"abc"))] {
            match hold(body, bound).await.expect("readable") {
                Held::Whole(bytes) => assert!(fits && bytes == "abc"),
                Held::TooLarge(read, rest) => {
                    assert!(!fits);
                    let again = resumed(read, rest).collect().await.expect("the rest").to_bytes();
                    assert_eq!(again, "abc", "nothing is lost");
                }
            }
        }
    }

    fn passing(body: Body, ends: &Arc<Mutex<Vec<Option<u64>>>>) -> MeteredBody {
        let ends = Arc::clone(ends);
        MeteredBody {
            body,
            usage: UsageReader::of(Some("application/json")),
            at_end: Some(Box::new(move |usage| ends.lock().expect("lock").push(usage.map(|u| u.total)))),
            deadline: None,
            connection: None,
        }
    }

    #[tokio::test]
    async fn the_end_is_noticed_once_and_only_when_it_is_reached() {
        let reply = Bytes::from_static(b"{\"usage\":{\"total_tokens\":7}}");
        let ends = Arc::new(Mutex::new(Vec::new()));
        let mut known = passing(whole(reply.clone()), &ends);
        assert!(known.frame().await.is_some());
        assert_eq!(*ends.lock().expect("lock"), [Some(7)], "at the last byte of a known length");
        assert!(known.frame().await.is_none());
        let mut stream = passing(unsized_body(reply.clone()), &ends);
        assert!(stream.frame().await.is_some());
        assert_eq!(ends.lock().expect("lock").len(), 1, "a stream may go on");
        assert!(stream.frame().await.is_none());
        assert_eq!(*ends.lock().expect("lock"), [Some(7), Some(7)]);
        drop(passing(whole(reply), &ends));
        assert_eq!(ends.lock().expect("lock").len(), 2, "who leaves early pays nothing");
    }

    #[rstest]
    #[case::broken_off(false)]
    #[case::out_of_time(true)]
    #[tokio::test]
    async fn a_reply_that_does_not_end_is_free(#[case] late: bool) {
        let event = Bytes::from_static(b"data: {\"usage\":{\"total_tokens\":7}}\n\n");
        let frames: [Result<Frame<Bytes>, BodyError>; 2] = [Ok(Frame::data(event)), Err("cut".into())];
        let body = boxed(StreamBody::new(futures::stream::iter(frames)));
        let ends = Arc::new(Mutex::new(Vec::new()));
        let mut reply = MeteredBody { usage: UsageReader::of(Some("text/event-stream")), ..passing(body, &ends) };
        assert!(reply.frame().await.is_some_and(|f| f.is_ok()));
        if late {
            reply.deadline = Some(Box::pin(std::future::ready(())));
        }
        assert!(reply.frame().await.is_some_and(|f| f.is_err()));
        assert!(ends.lock().expect("lock").is_empty());
        assert_eq!(reply.usage.usage().map(|u| u.total), Some(7), "it was there");
    }
}
