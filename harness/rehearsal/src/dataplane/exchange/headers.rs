//! Changes of headers, and what some of them say.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::dataplane::{matching::joined, routing::HeaderEdit};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What Envoy says of a client that nothing stands before: only the addresses that it says itself stay
/// (recordings 05-headers and 27-ai-wire of v1.0.0).
pub(super) fn tell_of_client(headers: &mut HeaderMap, client: IpAddr) {
    append_element(headers, HeaderName::from_static("x-forwarded-for"), &client.to_string());
    set(headers, "x-forwarded-proto", "http".to_owned());
    set(headers, "x-envoy-external-address", client.to_string());
    set(headers, REQUEST_ID.as_str(), random_id());
}

/// Puts an element behind those that a header has.
pub(super) fn append_element(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let value = joined(headers, name.as_str()).map_or(element.to_owned(), |values| format!("{values},{element}"));
    set(headers, name.as_str(), value);
}

pub(super) fn set(headers: &mut HeaderMap, name: &str, value: String) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A UUID of version 4.
pub(super) fn random_id() -> String {
    let [a, b] = [(); 2].map(|()| RandomState::new().hash_one(()));
    let (time, node) = (format!("{:08x}-{:04x}-4{:03x}", a >> 32, (a >> 16) & 0xffff, a & 0xfff), b & 0xffff_ffff_ffff);
    format!("{time}-{:04x}-{node:012x}", 0x8000 | (b >> 48) & 0x3fff)
}

pub(super) fn edit(headers: &mut HeaderMap, changes: &HeaderEdit) {
    for name in &changes.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &changes.set {
        set(headers, name, value.clone());
    }
    append_all(headers, changes.add.iter().map(|(name, value)| (name.as_str(), value.clone())));
}

pub(super) fn append_all<'a>(headers: &mut HeaderMap, all: impl IntoIterator<Item = (&'a str, String)>) {
    for (name, value) in all {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok())
}
