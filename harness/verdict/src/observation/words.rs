//! Words of one run: what differs from run to run, and the placeholder that stands for it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::history::{Exchange, History};

/// Replaces what differs from run to run.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// (text, placeholder), the longest text first.
    names: Vec<(String, String)>,
}

/// Form of what differs, and its placeholder; the order matters.
static FORMS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // RFC 3339 and RFC 9110 times.
        (r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?", "<time>"),
        (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", "<time>"),
        (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "<uuid>"),
        // Ids of runs.
        (r"\b\d{8}-\d{6}-[a-z0-9]{4}\b", "<run>"),
        // Ids that servers of the OpenAI API make.
        (r"\b(?:chatcmpl|cmpl|call|resp|msg|req|embd)[-_][A-Za-z0-9-]{8,}", "<id>"),
        // IPv4 and IPv6 addresses, with a port.
        (r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?::\d{1,5})?\b", "<address>"),
        (r"\[[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}\](?::\d{1,5})?", "<address>"),
        // Suffixes of pods of a Deployment, in Kubernetes' own alphabet.
        (r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-<pod>"),
        (r"\b(resourceVersion|uid)([=: ]+)[0-9a-f-]+", "$1$2<id>"),
        (r"\b(port|localhost):? ?:?\d{4,5}\b", "$1 <port>"),
    ]
    .into_iter()
    .map(|(pattern, placeholder)| {
        #[expect(clippy::expect_used, reason = "the patterns are constants of this file, and tests use every one")]
        let form = Regex::new(pattern).expect("a pattern of this file");
        (form, placeholder)
    })
    .collect()
});

impl Words {
    /// The names that belong to one history.
    pub fn of(history: &History) -> Self {
        let mut words = Self::default();
        words.name(&history.hostname, "hostname");
        words.name(&history.namespace, "namespace");
        if let Some(address) = &history.address {
            words.name(address, "address");
        }
        let ids = |exchanges: &[Exchange]| exchanges.iter().map(|e| e.id.clone()).collect::<Vec<_>>();
        for id in ids(&history.exchanges).iter().chain(&ids(&history.settle.exchanges)) {
            words.name(id, "exchange");
        }
        for log in history.models.values() {
            for marker in [&log.marker_before, &log.marker_after].into_iter().flatten() {
                words.name(marker, "exchange");
            }
            for record in &log.records {
                words.name(&record.pod, "pod");
            }
        }
        words
    }

    /// Replaces this text by `<placeholder>`, where it is not part of a longer word.
    pub fn name(&mut self, text: &str, placeholder: &str) {
        if text.is_empty() || self.names.iter().any(|(known, _)| known == text) {
            return;
        }
        let at = self.names.partition_point(|(known, _)| known.len() >= text.len());
        self.names.insert(at, (text.to_owned(), format!("<{placeholder}>")));
    }

    /// The text with placeholders.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, placeholder) in &self.names {
            text = replace_word(&text, name, placeholder);
        }
        for (form, placeholder) in FORMS.iter() {
            if form.is_match(&text) {
                text = form
                    .replace_all(&text, |c: &Captures<'_>| {
                        let mut replaced = String::new();
                        c.expand(placeholder, &mut replaced);
                        replaced
                    })
                    .into_owned();
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
