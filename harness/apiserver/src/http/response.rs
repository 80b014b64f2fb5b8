//! Responses: bodies, headers and warnings.

use std::io;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, WARNING};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;

use crate::failure::Failure;

/// The body of a response; an error in it breaks the connection off.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Response = http::Response<Body>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn bytes(code: u16, media: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

pub(super) fn json(code: u16, value: &Value) -> Response {
    bytes(code, "application/json", value.to_string())
}

pub(super) fn text(body: impl Into<Bytes>) -> Response {
    bytes(200, "text/plain; charset=utf-8", body)
}

pub(super) fn failure(failure: &Failure) -> Response {
    json(failure.code, &failure.status())
}

/// Adds warnings in the form that kubectl shows.
pub(super) fn warn(response: &mut Response, warnings: &[String]) {
    for text in warnings {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
