//! Redaction of Kubernetes objects and other JSON, also where they are embedded in text.

use super::{Engine, Map, STANDARD, Value, credentials, is_mark, is_secret_header, mark, text};

/// Ends of names (lower case, without `-` and `_`) whose string value is a credential.
const SECRET_ENDS: [&str; 11] = [
    "apikey",
    "password",
    "passwd",
    "accesstoken",
    "refreshtoken",
    "bearertoken",
    "clientsecret",
    "secretkey",
    "secretaccesskey",
    "privatekey",
    "clientkeydata",
];

/// A JSON value as it may be kept: data of Secrets, named credentials, and credentials inside strings are marked.
pub fn object(value: &Value) -> Value {
    walk(value, Kind::Unknown)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Secret,
}

fn walk(value: &Value, kind: Kind) -> Value {
    match value {
        Value::String(s) => Value::String(text(s)),
        Value::Array(items) => {
            if let [Value::String(name), Value::String(secret)] = items.as_slice()
                && is_secret_header(name)
            {
                return Value::Array(vec![Value::String(name.clone()), Value::String(named(name, secret))]);
            }
            Value::Array(items.iter().map(|v| walk(v, kind)).collect())
        }
        Value::Object(map) => Value::Object(walk_map(map, kind)),
        other => other.clone(),
    }
}

fn walk_map(map: &Map<String, Value>, kind: Kind) -> Map<String, Value> {
    let is_secret = kind == Kind::Secret || is_secret_object(map);
    let pair = ["name", "key"].iter().find_map(|k| map.get(*k)).and_then(Value::as_str).filter(|n| names_secret(n));
    map.iter()
        .map(|(name, value)| {
            let kept = match (name.as_str(), value) {
                ("data", Value::Object(data)) if is_secret => secret_data(data, Encoding::Base64),
                ("stringData", Value::Object(data)) if is_secret => secret_data(data, Encoding::Plain),
                ("items", Value::Array(items)) if map.get("kind").and_then(Value::as_str) == Some("SecretList") => {
                    Value::Array(items.iter().map(|v| walk(v, Kind::Secret)).collect())
                }
                ("value", Value::String(secret)) if pair.is_some() => {
                    Value::String(named(pair.unwrap_or_default(), secret))
                }
                (_, value) if names_secret(name) => marked(name, value),
                (_, value) => walk(value, Kind::Unknown),
            };
            (name.clone(), kept)
        })
        .collect()
}

/// Typed clients leave `kind` out, so its type tells as well.
fn is_secret_object(map: &Map<String, Value>) -> bool {
    let text_of = |name: &str| map.get(name).and_then(Value::as_str);
    text_of("kind") == Some("Secret")
        || (text_of("kind").is_none()
            && map.contains_key("data")
            && text_of("type").is_some_and(|t| t == "Opaque" || t.contains(".io/") || t.contains("tls")))
}

fn names_secret(name: &str) -> bool {
    let plain: String = name.to_ascii_lowercase().chars().filter(|c| !matches!(c, '-' | '_')).collect();
    is_secret_header(name)
        || matches!(plain.as_str(), "token" | "hftoken" | "idtoken" | "authtoken" | "cookie" | "authorization")
        || SECRET_ENDS.iter().any(|end| plain.ends_with(end))
}

fn named(name: &str, secret: &str) -> String {
    if secret.is_empty() {
        return String::new();
    }
    if name.to_ascii_lowercase().ends_with("authorization") { credentials(secret) } else { mark(secret) }
}

fn marked(name: &str, value: &Value) -> Value {
    match value {
        Value::String(secret) => Value::String(named(name, secret)),
        Value::Array(items) => Value::Array(items.iter().map(|v| marked(name, v)).collect()),
        other => walk(other, Kind::Unknown),
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Base64,
    Plain,
}

/// The mark is that of the decoded value, so that it equals the mark of the same key in a header.
fn secret_value(value: &str, encoding: Encoding) -> String {
    if is_mark(value) {
        return value.to_owned();
    }
    let decoded = match encoding {
        Encoding::Base64 => STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        Encoding::Plain => None,
    };
    mark(decoded.as_deref().unwrap_or(value))
}

fn secret_data(data: &Map<String, Value>, encoding: Encoding) -> Value {
    let kept = data.iter().map(|(name, value)| {
        let value = match value {
            Value::String(s) => secret_value(s, encoding),
            Value::Null => return (name.clone(), Value::Null),
            other => mark(&other.to_string()),
        };
        (name.clone(), Value::String(value))
    });
    Value::Object(kept.collect())
}

/// Text that may hold manifests of Secrets, as JSON or as YAML.
pub(super) fn manifests(whole: &str) -> String {
    if let Ok(value) = serde_json::from_str::<Value>(whole)
        && (value.is_object() || value.is_array())
    {
        let kept = object(&value);
        return if kept == value { whole.to_owned() } else { kept.to_string() };
    }
    let mut out = String::with_capacity(whole.len());
    let mut document: Vec<&str> = Vec::new();
    for line in whole.split_inclusive('\n') {
        if line.starts_with("---") {
            secret_lines(&document, &mut out);
            document.clear();
        }
        document.push(line);
    }
    secret_lines(&document, &mut out);
    out
}

/// One YAML document; the values below `data` and `stringData` are marked line by line where it has a Secret.
fn secret_lines(document: &[&str], out: &mut String) {
    let has_secret = document.iter().any(|line| {
        let line = line.trim().trim_start_matches("- ").trim();
        line.strip_prefix("kind:").is_some_and(|k| k.trim().trim_matches(['"', '\'']) == "Secret")
    });
    let mut below: Option<Below> = None;
    for line in document {
        let content = line.trim_start_matches([' ', '-']);
        let indent = line.len() - content.len();
        let (content, end) = content.split_at(content.trim_end().len());
        if !content.is_empty() && below.as_ref().is_some_and(|b| indent <= b.top) {
            below = None;
        }
        match &mut below {
            Some(below) if !content.is_empty() => {
                out.push_str(&line[..indent]);
                // Only what stands directly below is a name; what is deeper is part of a value.
                if indent <= *below.names.get_or_insert(indent) {
                    out.push_str(&secret_line(content, below.encoding));
                } else {
                    out.push_str(&secret_value(content, below.encoding));
                }
                out.push_str(end);
            }
            _ => out.push_str(line),
        }
        if has_secret && below.is_none() {
            let encoding = match content {
                "data:" => Encoding::Base64,
                "stringData:" => Encoding::Plain,
                _ => continue,
            };
            below = Some(Below { top: indent, names: None, encoding });
        }
    }
}

struct Below {
    top: usize,
    /// Indent of the names below it, once one was seen.
    names: Option<usize>,
    encoding: Encoding,
}

fn secret_line(content: &str, encoding: Encoding) -> String {
    let is_block = |value: &str| value.is_empty() || matches!(value.chars().next(), Some('|' | '>'));
    match content.split_once(": ").or_else(|| content.strip_suffix(':').map(|name| (name, ""))) {
        Some((name, value)) if is_block(value.trim()) => {
            if value.is_empty() {
                format!("{name}:")
            } else {
                format!("{name}: {value}")
            }
        }
        Some((name, value)) => format!("{name}: {}", secret_value(value.trim().trim_matches(['"', '\'']), encoding)),
        None => secret_value(content, encoding),
    }
}
