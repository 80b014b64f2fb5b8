//! Requests: what a path, a query and the headers ask for.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};
use percent_encoding::percent_decode_str;

use crate::failure::{Cause, Failure, Result, reason};
use crate::resource::{Resource, Version};
use crate::selector::{FieldSelector, LabelSelector, Scope};
use crate::{admission::UnknownFields, store::Store};

/// What a path under `/api` or `/apis` names.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub resource: Arc<Resource>,
    pub version: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Subresource and what follows it.
    pub below: Vec<String>,
}

impl Target {
    /// Finds the resource that a path names; `path` has no leading slash.
    pub(super) fn find(store: &Store, path: &[&str]) -> Result<Self> {
        let (group, version, rest) = match path {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::no_such_resource()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status" | "finalize", ..]) => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, rest) = rest.split_first().ok_or_else(Failure::no_such_resource)?;
        let resource = store.lock().resource_at(group, plural).ok_or_else(Failure::no_such_resource)?;
        if resource.version(version).is_none() || (namespace.is_some() && !resource.namespaced) {
            return Err(Failure::no_such_resource());
        }
        let mut rest = rest.iter().map(|word| (*word).to_owned());
        let (name, below) = (rest.next(), rest.collect());
        if name.is_some() && resource.namespaced && namespace.is_none() {
            return Err(Failure::no_such_resource());
        }
        Ok(Self { resource, version: version.to_owned(), namespace, name, below })
    }

    pub(super) fn version(&self) -> Result<&Version> {
        self.resource.version(&self.version).ok_or_else(Failure::no_such_resource)
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    pub(super) fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }
}

pub(super) fn segments(path: &str) -> Vec<String> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect()
}

#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(text: Option<&str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or("").as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self.get(key), Some("" | "true" | "1" | "True"))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Failure::bad_request(format!("invalid {key}: {text:?}"))),
        }
    }

    pub(super) fn scope(&self, target: &Target) -> Result<Scope> {
        let fields = FieldSelector::read(self.get("fieldSelector").unwrap_or(""))?;
        fields.check(&target.resource, target.version()?)?;
        Ok(Scope {
            namespace: target.namespace.clone(),
            labels: LabelSelector::read(self.get("labelSelector").unwrap_or(""))?,
            fields,
        })
    }

    pub(super) fn dry_run(&self) -> Result<bool> {
        match self.get("dryRun") {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(unsupported("Options", "dryRun", other, "\"All\"")),
        }
    }

    pub(super) fn unknown_fields(&self) -> Result<UnknownFields> {
        match self.get("fieldValidation") {
            Some("Strict") => Ok(UnknownFields::Strict),
            Some("Ignore") => Ok(UnknownFields::Ignore),
            None | Some("" | "Warn") => Ok(UnknownFields::Warn),
            Some(other) => Err(unsupported("Options", "fieldValidation", other, "\"Ignore\", \"Strict\", \"Warn\"")),
        }
    }

    /// The field manager, from the query or from the program's name.
    pub(super) fn manager(&self, headers: &HeaderMap) -> String {
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()?.split('/').next());
        let names = [self.get("fieldManager"), agent].into_iter().flatten();
        names.into_iter().find(|name| !name.is_empty()).unwrap_or("unknown").to_owned()
    }
}

pub(super) fn unsupported(options: &'static str, field: &str, value: &str, supported: &str) -> Failure {
    let message = format!("Unsupported value: {value:?}: supported values: {supported}");
    Failure::invalid_option(options, Cause::new(reason::UNSUPPORTED, field, message))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    Table,
    Metadata,
}

impl Shape {
    /// Reads `Accept`; JSON is all that is spoken here.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self> {
        let Some(accept) = headers.get(ACCEPT).and_then(|a| a.to_str().ok()) else { return Ok(Self::Whole) };
        for media in accept.split(',') {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            if !matches!(kind, "application/json" | "*/*" | "application/*") {
                continue;
            }
            return Ok(match parts.find_map(|p| p.strip_prefix("as=")) {
                None => Self::Whole,
                Some("Table") => Self::Table,
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Self::Metadata,
                Some(_) => continue,
            });
        }
        Err(Failure::new(406, "NotAcceptable", "only the following media types are accepted: application/json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a%3Db%2Cc", "a=b,c")]
    #[case("a+b", "a b")]
    #[case("100%", "100%")]
    #[case("%zz", "%zz")]
    #[case("%ff", "\u{fffd}")]
    fn queries_are_decoded(#[case] text: &str, #[case] decoded: &str) {
        assert_eq!(Query::read(Some(&format!("q={text}"))).get("q"), Some(decoded));
    }

    #[rstest]
    #[case("application/json", Ok(Shape::Whole))]
    #[case("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Ok(Shape::Table))]
    #[case("application/vnd.kubernetes.protobuf,application/json", Ok(Shape::Whole))]
    #[case("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok(Shape::Metadata))]
    #[case("application/vnd.kubernetes.protobuf", Err(406))]
    fn shapes_come_from_accept(#[case] accept: &str, #[case] shape: Result<Shape, u16>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(Shape::read(&headers).map_err(|f| f.code), shape);
    }
}
