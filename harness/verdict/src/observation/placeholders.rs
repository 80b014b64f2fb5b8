//! Placeholders: what differs from run to run, and what stands for it.

use std::{borrow::Cow, collections::BTreeSet, sync::LazyLock};

use regex::{Captures, Regex};

use crate::history::History;

#[derive(Clone, Debug, Default)]
pub(super) struct Placeholders {
    /// (text, placeholder), the longest text first.
    names: Vec<(String, String)>,
    /// Ids of exchanges, of which a burst has many.
    ids: BTreeSet<String>,
    /// What all ids begin with: a text without it has none of them.
    ids_begin: String,
}

/// A form of what differs, its placeholder, and a quick look whether a text can hold it.
struct Form {
    pattern: Regex,
    placeholder: &'static str,
    possible: fn(&str) -> bool,
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
}

fn has(text: &str, byte: u8, times: usize) -> bool {
    text.bytes().filter(|b| *b == byte).nth(times - 1).is_some()
}

/// The order matters.
static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let form = |pattern: &str, placeholder: &'static str, possible: fn(&str) -> bool| {
        #[expect(clippy::expect_used, reason = "the patterns are constants of this file, and tests use every one")]
        let pattern = Regex::new(pattern).expect("a pattern of this file");
        Form { pattern, placeholder, possible }
    };
    vec![
        // RFC 3339 and RFC 9110 times.
        form(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?", "<time>", |t| {
            has(t, b':', 2) && has_digit(t)
        }),
        form(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", "<time>", |t| {
            t.contains("GMT")
        }),
        form(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "<uuid>", |t| {
            has(t, b'-', 4)
        }),
        // Ids of runs.
        form(r"\b\d{8}-\d{6}-[a-z0-9]{4}\b", "<run>", |t| has(t, b'-', 2) && has_digit(t)),
        // Ids that servers of the OpenAI API make.
        form(r"\b(?:chatcmpl|cmpl|call|resp|msg|req|embd)[-_][A-Za-z0-9-]{8,}", "<id>", |t| {
            ["cmpl", "call", "resp", "msg", "req", "embd"].iter().any(|word| t.contains(word))
        }),
        // When a completion was made, in a body that is too long to be read as JSON.
        form(r#"("created": ?)\d{10}\b"#, "$1<time>", |t| t.contains("\"created\"")),
        // IPv4 and IPv6 addresses, with a port.
        form(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?::\d{1,5})?\b", "<address>", |t| has(t, b'.', 3) && has_digit(t)),
        form(r"\[[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}\](?::\d{1,5})?", "<address>", |t| t.contains('[')),
        // Suffixes of pods of a Deployment, in Kubernetes' own alphabet.
        form(r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-<pod>", |t| has(t, b'-', 2)),
        // The hash of a pod template, which changes with the image.
        form(r#"(ReplicaSet "[a-z0-9.-]+)-[a-z0-9]{6,10}""#, "$1-<hash>\"", |t| t.contains("ReplicaSet \"")),
        form(r"\b(resourceVersion|uid)([=: ]+)[0-9a-f-]+", "$1$2<id>", |t| {
            t.contains("uid") || t.contains("resourceVersion")
        }),
        form(r"\b(port|localhost):? ?:?\d{4,5}\b", "$1 <port>", |t| t.contains("port") || t.contains("localhost")),
    ]
});

impl Placeholders {
    pub(super) fn of(history: &History) -> Self {
        let mut known = Self::default();
        known.name(&history.hostname, "hostname");
        known.name(&history.namespace, "namespace");
        if let Some(address) = &history.address {
            known.name(address, "address");
        }
        let ids = history.exchanges.iter().chain(&history.settle.exchanges).map(|e| e.id.clone());
        known.ids = ids.filter(|id| !id.is_empty()).collect();
        if let (Some(first), Some(last)) = (known.ids.first(), known.ids.last()) {
            // They are sorted, so what the first and the last share is shared by all.
            known.ids_begin = first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
        }
        for log in history.models.values() {
            for marker in [&log.marker_before, &log.marker_after].into_iter().flatten() {
                known.name(marker, "exchange");
            }
            for record in &log.records {
                known.name(&record.pod, "pod");
            }
        }
        known
    }

    /// Replaces this text by `<placeholder>`, where it is not part of a longer word.
    pub(super) fn name(&mut self, text: &str, placeholder: &str) {
        if text.is_empty() || self.names.iter().any(|(known, _)| known == text) {
            return;
        }
        let at = self.names.partition_point(|(known, _)| known.len() >= text.len());
        self.names.insert(at, (text.to_owned(), format!("<{placeholder}>")));
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, placeholder) in &self.names {
            if text.contains(name.as_str()) {
                text = replace_word(&text, name, placeholder);
            }
        }
        if text.contains(&self.ids_begin) {
            for id in self.ids.iter().rev() {
                if text.contains(id.as_str()) {
                    text = replace_word(&text, id, "<exchange>");
                }
            }
        }
        for form in FORMS.iter().filter(|form| (form.possible)(&text)).collect::<Vec<_>>() {
            let replaced = form.pattern.replace_all(&text, |c: &Captures<'_>| {
                let mut replaced = String::new();
                c.expand(form.placeholder, &mut replaced);
                replaced
            });
            if let Cow::Owned(replaced) = replaced {
                text = replaced;
            }
        }
        text
    }
}

/// Replaces whole words: `igc-1` in `igc-1-gateway`, but not in `igc-12`.
fn replace_word(text: &str, word: &str, replacement: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let previous = before.chars().next_back().or_else(|| out.chars().next_back());
        out.push_str(before);
        if joined(previous) || joined(after.chars().next()) {
            out.push_str(word);
        } else {
            out.push_str(replacement);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
