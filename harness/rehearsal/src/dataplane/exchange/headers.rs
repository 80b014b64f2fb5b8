//! Changes of headers, and what some of them say.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::dataplane::routing::HeaderEdit;

pub(super) fn edit(headers: &mut HeaderMap, changes: &HeaderEdit) {
    for name in &changes.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &changes.set {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            headers.insert(name, value);
        }
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
