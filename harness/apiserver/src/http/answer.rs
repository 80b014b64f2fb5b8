//! Answers: bodies, headers and warnings.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;

use crate::failure::Failure;

/// The body of an answer; an error in it breaks the connection off.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Answer = Response<Body>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn bytes(code: u16, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

pub(super) fn json(code: u16, value: &Value) -> Answer {
    bytes(code, "application/json", value.to_string())
}

pub(super) fn text(body: impl Into<Bytes>) -> Answer {
    bytes(200, "text/plain; charset=utf-8", body)
}

pub(super) fn failure(failure: &Failure) -> Answer {
    json(failure.code, &failure.status())
}

/// Adds warnings in the form that kubectl shows.
pub(super) fn warn(answer: &mut Answer, warnings: &[String]) {
    for text in warnings {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}
