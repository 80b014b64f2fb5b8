//! Matching: hostnames, paths, headers and queries, and whether a request is covered by them. Pure.

use std::fmt;

use http::{HeaderMap, Method};
use regex::Regex;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Any,
    /// `*.example.com`, kept as `.example.com`; it covers every subdomain, not the domain itself.
    Suffix(String),
    /// One host, in lower case.
    Exact(String),
}

impl HostPattern {
    /// Reads a hostname of the Gateway API; an absent or empty one covers everything.
    pub fn parse(name: Option<&str>) -> Self {
        match name.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "*") => Self::Any,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => Self::Suffix(suffix.to_owned()),
                None => Self::Exact(name.to_owned()),
            },
        }
    }

    /// Whether a host (lower case, without port) is covered.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Exact(name) => name == host,
        }
    }

    /// How specific it is: exact names before wildcards, longer wildcards before shorter, nothing last.
    pub(super) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Suffix(suffix) => (1, suffix.len()),
            Self::Exact(name) => (2, name.len()),
        }
    }

    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, x) | (x, Self::Any) => Some(x.clone()),
            (Self::Exact(a), x) | (x, Self::Exact(a)) => x.covers(a).then(|| Self::Exact(a.clone())),
            (Self::Suffix(a), Self::Suffix(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                (long.ends_with(short.as_str())).then(|| Self::Suffix(long.clone()))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments from the start: `/v1` covers `/v1` and `/v1/models`, not `/v1x`.
    Prefix(String),
    /// A regular expression over the whole path. One that does not compile covers nothing.
    Regex(String, Option<Regex>),
}

impl PathMatch {
    /// A regular expression, anchored at both ends as both gateways do it.
    pub fn regex(pattern: &str) -> Self {
        Self::Regex(pattern.to_owned(), Regex::new(&format!("^(?:{pattern})$")).ok())
    }

    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Exact(value) => path == value,
            Self::Prefix(value) => {
                let value = value.strip_suffix('/').unwrap_or(value);
                path.strip_prefix(value).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(_, regex) => regex.as_ref().is_some_and(|r| r.is_match(path)),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Exact(value) | Self::Prefix(value) | Self::Regex(value, _) => value,
        }
    }
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(String),
    Regex(Option<Regex>),
    Present,
}

impl ValueMatch {
    pub fn regex(pattern: &str) -> Self {
        Self::Regex(Regex::new(&format!("^(?:{pattern})$")).ok())
    }

    /// Whether a value is covered; `None` is an absent one.
    pub fn covers(&self, value: Option<&str>) -> bool {
        value.is_some_and(|value| match self {
            Self::Exact(wanted) => value == wanted,
            Self::Regex(regex) => regex.as_ref().is_some_and(|r| r.is_match(value)),
            Self::Present => true,
        })
    }
}

/// One `matches` entry of a rule: all parts must hold.
#[derive(Clone, Debug)]
pub struct Match {
    pub path: PathMatch,
    /// Header names in lower case.
    pub headers: Vec<(String, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
    pub method: Option<Method>,
}

impl Default for Match {
    fn default() -> Self {
        Self { path: PathMatch::Prefix("/".to_owned()), headers: Vec::new(), query: Vec::new(), method: None }
    }
}

impl Match {
    pub fn covers(&self, request: &RequestHead<'_>) -> bool {
        self.path.covers(request.path)
            && self.method.as_ref().is_none_or(|m| m == request.method)
            && self.headers.iter().all(|(name, m)| m.covers(joined(request.headers, name).as_deref()))
            && self.query.iter().all(|(name, m)| m.covers(query_value(request.query, name)))
    }
}

/// All values of a header, joined by commas as proxies see them.
pub fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    /// Host or `:authority`, in lower case, without port.
    pub host: &'a str,
    pub path: &'a str,
    /// The query, without `?`; empty where there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}
