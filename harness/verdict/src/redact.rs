//! Redaction: credentials never reach the disk. What is left of one is a mark that tells whether two were equal.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::{Captures, Regex};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::history::{Admission, Body, Exchange, History, ModelLog, Outcome, hex};
use crate::record::Record;

mod objects;

pub use objects::object;

/// Headers whose value is a credential, in lower case.
const SECRET_HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-csrf-token",
    "cookie",
    "set-cookie",
    "x-vault-token",
];

/// Schemes of the Authorization header that are kept before the mark.
const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "negotiate", "token", "apikey"];

/// Words that follow "bearer" in prose.
const PROSE: [&str; 8] =
    ["token", "tokens", "auth", "authentication", "authorization", "scheme", "credential", "credentials"];

/// What is left of a secret: `<redacted:` and the first 8 hexadecimal digits of its SHA-256. A mark stays as it is.
pub fn mark(secret: &str) -> String {
    if is_mark(secret) {
        return secret.to_owned();
    }
    format!("<redacted:{}>", &hex(&Sha256::digest(secret.as_bytes()))[..8])
}

pub fn is_mark(text: &str) -> bool {
    text.strip_prefix("<redacted:")
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|hash| hash.len() == 8 && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')))
}

/// Ends of names of headers that providers and tenants make up.
const SECRET_HEADER_ENDS: [&str; 4] = ["-api-key", "-apikey", "-security-token", "-access-token"];

pub fn is_secret_header(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    SECRET_HEADERS.contains(&name.as_str()) || SECRET_HEADER_ENDS.iter().any(|end| name.ends_with(end))
}

/// The value of a header as it may be kept. The scheme of an Authorization header stays readable.
pub fn header(name: &str, value: &str) -> String {
    if !is_secret_header(name) {
        return text(value);
    }
    if name.trim().to_ascii_lowercase().ends_with("authorization") { credentials(value) } else { mark(value.trim()) }
}

/// `Bearer <mark>`; the mark covers all where the scheme is not a known one.
fn credentials(value: &str) -> String {
    let value = value.trim();
    match value.split_once([' ', '\t']) {
        Some((scheme, rest)) if SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) => {
            format!("{scheme} {}", mark(rest.trim()))
        }
        _ => mark(value),
    }
}

/// Text as it may be kept: bodies, messages, logs, YAML and JSON.
pub fn text(text: &str) -> String {
    if text.contains("Secret") { patterns(&objects::manifests(text)) } else { patterns(text) }
}

/// A value after a name: separator, then quoted, or quoted inside a quoted text, or bare.
const QUOTED: &str =
    r#"(\\*["']?[ \t]*[:=][ \t]*\[?[ \t]*)(?:(\\+["'])([^"'\\\r\n]*)|"((?:[^"\\]|\\.)*)|'([^'\r\n]*)|"#;

fn named(names: &str, bare: &str) -> Regex {
    compiled(&format!(r"(?i)({names}){QUOTED}({bare}))"))
}

fn compiled(pattern: &str) -> Regex {
    #[expect(clippy::expect_used, reason = "the patterns are constants of this file, and tests use every one")]
    Regex::new(pattern).expect("a pattern of this file")
}

static AUTHORIZATION: LazyLock<Regex> =
    LazyLock::new(|| named("(?:proxy-)?authorization", r#"[^"'\\\r\n\[{][^"'\\\r\n]*"#));
static COOKIE: LazyLock<Regex> = LazyLock::new(|| named("(?:set-)?cookie", r#"[^"'\\\r\n\[{][^"'\\\r\n]*"#));
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    named(
        "(?:x-)?api[-_]?key|access[-_]?token|refresh[-_]?token|id[-_]?token|auth[-_]?token|security[-_]token|hf[-_]token|client[-_]?secret|secret[-_]?access[-_]?key|passw(?:or)?d",
        r#"[^\s"'\\,;&{}\[\]]+"#,
    )
});
static BEARER: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?i)\b(bearer)([ \t]+|%20)([A-Za-z0-9._~+/=-]+)"));
static BASIC: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?i)\b(basic)([ \t]+)([A-Za-z0-9+/]{4,}={0,2})"));
static KNOWN: LazyLock<Regex> = LazyLock::new(|| {
    compiled(
        r"\b(?:(?:sk|pk|rk)-[A-Za-z0-9_-]{4,}|hf_[A-Za-z0-9]{4,}|gh[pousr]_[A-Za-z0-9]{16,}|glpat-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*)",
    )
});
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    compiled(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)")
});

/// Without one of these, in lower case, no pattern matches; most bodies have none, and are left alone quickly.
const TRIGGERS: [&str; 30] = [
    "--begin", "auth", "cookie", "api-key", "api_key", "apikey", "access", "refresh", "id_token", "id-token",
    "idtoken", "security", "hf_", "hf-", "hftoken", "client", "secret", "passw", "bearer", "basic", "sk-", "pk-",
    "rk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "eyj",
];

fn may_hold_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("akia") || TRIGGERS.iter().any(|trigger| lower.contains(trigger))
}

fn patterns(text: &str) -> String {
    if !may_hold_secret(text) {
        return text.to_owned();
    }
    let text = PRIVATE_KEY.replace_all(text, |c: &Captures<'_>| mark(&c[0]));
    let text = AUTHORIZATION.replace_all(&text, |c: &Captures<'_>| named_value(c, credentials));
    let text = COOKIE.replace_all(&text, |c: &Captures<'_>| named_value(c, |v| mark(v.trim())));
    let text = NAMED.replace_all(&text, |c: &Captures<'_>| named_value(c, mark));
    let text = BEARER.replace_all(&text, |c: &Captures<'_>| {
        let word = c[3].trim_end_matches(['.', ',']).to_ascii_lowercase();
        if PROSE.contains(&word.as_str()) || word.starts_with("realm=") {
            c[0].to_owned()
        } else {
            format!("{}{}{}", &c[1], &c[2], mark(&c[3]))
        }
    });
    let text = BASIC.replace_all(&text, |c: &Captures<'_>| {
        let pair = STANDARD.decode(&c[3]).ok().filter(|decoded| decoded.contains(&b':'));
        if pair.is_some() { format!("{}{}{}", &c[1], &c[2], mark(&c[3])) } else { c[0].to_owned() }
    });
    KNOWN.replace_all(&text, |c: &Captures<'_>| mark(&c[0])).into_owned()
}

/// Puts a mark in the place of the value that [`named`] found.
fn named_value(c: &Captures<'_>, marked: impl Fn(&str) -> String) -> String {
    let (open, value) = if let (Some(open), Some(value)) = (c.get(3), c.get(4)) {
        (open.as_str(), value)
    } else if let Some(value) = c.get(5) {
        ("\"", value)
    } else if let Some(value) = c.get(6) {
        ("'", value)
    } else if let Some(value) = c.get(7) {
        ("", value)
    } else {
        return c[0].to_owned();
    };
    let value = value.as_str();
    let nothing = value.trim().is_empty() || (open.is_empty() && matches!(value, "null" | "true" | "false" | "None"));
    let value = if nothing { value.to_owned() } else { marked(value) };
    format!("{}{}{open}{value}", &c[1], &c[2])
}

pub fn headers(headers: &mut [(String, String)]) {
    for (name, value) in headers {
        *value = header(name, value);
    }
}

/// A body as it may be kept. Length and hash stay those of what was on the wire.
pub fn body(body: &mut Body) {
    if let Some(kept) = &mut body.text {
        *kept = text(kept);
    }
}

/// A history as it may be kept. Judges are given this one, so that a replay sees what they saw.
pub fn history(history: &mut History) {
    history.exchanges.iter_mut().chain(&mut history.settle.exchanges).for_each(exchange);
    for value in history.objects.values_mut().chain(history.facts.values_mut()) {
        *value = object(value);
    }
    for record in history.pickers.values_mut().flat_map(|log| &mut log.records) {
        record.target = text(&record.target);
        headers(&mut record.headers);
    }
    for admission in history.admissions.values_mut() {
        match admission {
            Admission::Accepted { warnings } => warnings.iter_mut().for_each(|w| *w = text(w)),
            Admission::Refused { message, .. } => *message = text(message),
        }
    }
    history.models.values_mut().for_each(model_log);
    history.notes.iter_mut().for_each(|n| *n = text(n));
}

fn exchange(exchange: &mut Exchange) {
    exchange.request.target = text(&exchange.request.target);
    headers(&mut exchange.request.headers);
    body(&mut exchange.request.body);
    match &mut exchange.outcome {
        Outcome::Response(response) => {
            headers(&mut response.headers);
            body(&mut response.body);
        }
        Outcome::Failed { error, .. } => *error = text(error),
    }
    if let Some(connection) = &mut exchange.connection {
        let said = [&mut connection.broke, &mut connection.surplus].into_iter().flatten();
        said.for_each(|said| *said = text(said));
    }
}

fn model_log(log: &mut ModelLog) {
    for record in &mut log.records {
        record.target = text(&record.target);
        headers(&mut record.headers);
        body(&mut record.body);
        record.reply.iter_mut().for_each(|reply| headers(reply));
        let sent = record.sent.iter_mut().filter_map(|sent| sent.text.as_mut());
        sent.for_each(|kept| *kept = text(kept));
    }
}

pub fn record(record: &mut Record) {
    record.reason = text(&record.reason);
    if let Some(note) = &mut record.golden_note {
        *note = text(note);
    }
    for clause in &mut record.clauses {
        clause.expected = text(&clause.expected);
        clause.got = text(&clause.got);
    }
}

#[cfg(test)]
mod tests;
