//! The lines of one watch.

use bytes::{Buf as _, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::{failure::FailureKind, object::text};

/// An object larger than this is no Kubernetes object.
const LINE: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WatchEvent {
    There(Value),
    /// It is gone; as it was last.
    Gone(Value),
    /// Nothing happened up to this `resourceVersion`.
    Bookmark(String),
    /// The `resourceVersion` is too old: list again.
    TooOld,
    Failed(FailureKind),
}

pub(crate) struct Watch {
    body: Body,
    read: BytesMut,
}

impl Watch {
    pub(crate) fn of(response: Response<Body>) -> Self {
        Self { body: response.into_body(), read: BytesMut::new() }
    }

    /// The next event; `None` when the API server ended the watch, an error when it broke off.
    pub(crate) async fn next(&mut self) -> Result<Option<WatchEvent>, FailureKind> {
        loop {
            while let Some(line) = self.line() {
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return event(&line).map(Some);
                }
            }
            if self.read.len() > LINE {
                return Err(FailureKind::Malformed(format!("a watch event of more than {LINE} bytes")));
            }
            match self.body.frame().await {
                None if self.read.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(FailureKind::Unanswered("the watch broke off within an event".to_owned())),
                Some(Err(error)) => return Err(FailureKind::Unanswered(format!("the watch broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn line(&mut self) -> Option<Bytes> {
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let line = self.read.split_to(end).freeze();
        self.read.advance(1);
        Some(line)
    }
}

fn event(line: &[u8]) -> Result<WatchEvent, FailureKind> {
    let malformed = |why: String| {
        let said: String = String::from_utf8_lossy(line).chars().take(200).collect();
        FailureKind::Malformed(format!("a watch event ({why}): {said}"))
    };
    let mut event: Value = serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
    let Some(object) = event.get_mut("object").map(Value::take) else {
        return Err(malformed("no object".to_owned()));
    };
    match text(&event, "/type") {
        "ADDED" | "MODIFIED" => Ok(WatchEvent::There(object)),
        "DELETED" => Ok(WatchEvent::Gone(object)),
        "BOOKMARK" => Ok(WatchEvent::Bookmark(version_of(&object))),
        "ERROR" => match FailureKind::of_status(500, &object) {
            FailureKind::Refused { code: 410, .. } => Ok(WatchEvent::TooOld),
            other => Ok(WatchEvent::Failed(other)),
        },
        _ => Err(malformed("of no known type".to_owned())),
    }
}

pub(crate) fn version_of(object: &Value) -> String {
    text(object, "/metadata/resourceVersion").to_owned()
}
