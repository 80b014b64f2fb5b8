//! Change: what may happen to a request on its way to the model, or to a reply on its way to the client.
//!
//! What RFC 9110 lets every intermediary change is one list here ([`of_any_intermediary`]). A gateway's folder declares the
//! rest, an installation what stands around it (`--declare`), and a check what its own sentence is about. Whatever is
//! different and in none of them is a false invariant.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::{canary, file::FileError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client to the model.
    Request,
    /// From the model to the client.
    Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It was absent, and is there.
    Add,
    /// Whatever was there is replaced.
    Set,
    /// It has one more value, or one more element, behind those that were there.
    Append,
    /// It was there, and is absent.
    Remove,
    /// The same content in other bytes; of a target another target.
    Rewrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One JSON document.
    Json,
    /// Server-sent events.
    Events,
}

/// One declared change: of a header, of a field of a JSON body, of a body's bytes, or of a request's target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Change {
    pub direction: Direction,
    /// A header's name; it may end in `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Cow<'static, str>>,
    /// A field of a JSON body, also of each event of a stream, as a JSON pointer (RFC 6901); `*` stands for any index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Form>,
    /// A regular expression that matches the whole target of a request; `value` is what takes its place, with `$1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Cow<'static, str>>,
    pub rule: Rule,
    /// A regular expression that matches the whole of each new value; absent allows any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Cow<'static, str>>,
    /// Where this is said or was seen.
    pub source: Cow<'static, str>,
}

/// An answer that a gateway writes itself, compared whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    /// All headers but those that any intermediary writes, each with a regular expression that matches its whole value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A regular expression that matches the whole body; absent means an empty body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    pub source: String,
}

/// The source of a change that a check makes itself.
const OF_THE_CHECK: &str = "the check's own route";

/// The least number of characters before the `*` of a pattern, so that none matches every name.
const BEFORE_STAR: usize = 3;

impl Change {
    /// A header that a check's own route changes, to a value that matches.
    pub fn header(direction: Direction, name: &'static str, rule: Rule, value: &'static str) -> Self {
        Self {
            direction,
            header: Some(Cow::Borrowed(name)),
            field: None,
            body: None,
            target: None,
            rule,
            value: Some(Cow::Borrowed(value)),
            source: Cow::Borrowed(OF_THE_CHECK),
        }
    }

    /// A body that is written anew on a check's own route.
    pub fn body(direction: Direction, form: Form) -> Self {
        Self { header: None, body: Some(form), value: None, ..Self::header(direction, "", Rule::Rewrite, "") }
    }

    /// A field that is replaced on a check's own route, by a value that matches.
    pub fn field(direction: Direction, pointer: &'static str, value: &'static str) -> Self {
        let field = Some(Cow::Borrowed(pointer));
        Self { header: None, field, ..Self::header(direction, "", Rule::Set, value) }
    }

    /// A target that a check's own route rewrites.
    pub fn target(from: &'static str, to: &'static str) -> Self {
        Self {
            direction: Direction::Request,
            header: None,
            field: None,
            body: None,
            target: Some(Cow::Borrowed(from)),
            rule: Rule::Rewrite,
            value: Some(Cow::Borrowed(to)),
            source: Cow::Borrowed(OF_THE_CHECK),
        }
    }

    /// What it is about, as reports and problems name it: `request header x-forwarded-for append`.
    pub fn words(&self) -> String {
        let direction = if self.direction == Direction::Request { "request" } else { "reply" };
        let rule = match self.rule {
            Rule::Add => "add",
            Rule::Set => "set",
            Rule::Append => "append",
            Rule::Remove => "remove",
            Rule::Rewrite => "rewrite",
        };
        let what = match (&self.header, &self.field, self.body, &self.target) {
            (Some(name), ..) => format!("header {name}"),
            (_, Some(pointer), ..) => format!("field {pointer}"),
            (_, _, Some(Form::Json), _) => "body json".to_owned(),
            (_, _, Some(Form::Events), _) => "body events".to_owned(),
            (.., Some(target)) => format!("target {target}"),
            _ => "nothing".to_owned(),
        };
        format!("{direction} {what} {rule}")
    }

    /// Why it cannot be declared, if it cannot.
    pub fn problem(&self) -> Option<String> {
        let words = self.words();
        let subjects = [self.header.is_some(), self.field.is_some(), self.body.is_some(), self.target.is_some()];
        if subjects.iter().filter(|there| **there).count() != 1 {
            return Some(format!("{words}: a change names one of header, field, body and target"));
        }
        if self.source.trim().is_empty() {
            return Some(format!("{words}: a change names its source"));
        }
        if let Some(problem) = self.header.as_deref().and_then(header_problem) {
            return Some(format!("{words}: {problem}"));
        }
        if let Some(pointer) = self.field.as_deref() {
            let named = pointer.strip_prefix('/').and_then(|p| p.split('/').next()).unwrap_or_default();
            if named.is_empty() || named == "*" {
                return Some(format!("{words}: a field is a JSON pointer whose first name is written out"));
            }
        }
        if self.rule == Rule::Rewrite && (self.header.is_some() || self.field.is_some()) {
            return Some(format!("{words}: what is rewritten is a body or a target"));
        }
        if self.rule != Rule::Rewrite && (self.body.is_some() || self.target.is_some()) {
            return Some(format!("{words}: a body or a target is rewritten, and nothing else"));
        }
        if self.target.is_some() && self.value.is_none() {
            return Some(format!("{words}: a rewritten target says its value"));
        }
        let pattern = if self.target.is_some() { &self.target } else { &self.value };
        pattern.as_deref().and_then(|pattern| whole(pattern).err()).map(|error| format!("{words}: {error}"))
    }

    pub(crate) fn is_about_header(&self, direction: Direction, name: &str) -> bool {
        self.direction == direction && self.header.as_deref().is_some_and(|pattern| covers(pattern, name))
    }

    /// Whether it gives a reply this header.
    pub(crate) fn gives(&self, name: &str, value: &str) -> bool {
        self.is_about_header(Direction::Reply, name)
            && matches!(self.rule, Rule::Add | Rule::Set | Rule::Append)
            && self.allows(value)
    }

    /// Whether a field, or one of the fields above it, is what the change is about.
    pub(crate) fn is_about_field(&self, direction: Direction, pointer: &str) -> bool {
        self.direction == direction
            && self.field.as_deref().is_some_and(|declared| {
                let mut parts = pointer.split('/');
                declared.split('/').all(|wanted| {
                    parts
                        .next()
                        .is_some_and(|part| wanted == part || wanted == "*" && part.bytes().all(|b| b.is_ascii_digit()))
                })
            })
    }

    /// Whether a new value is one that it allows.
    pub(crate) fn allows(&self, value: &str) -> bool {
        self.value.as_deref().is_none_or(|pattern| whole(pattern).is_ok_and(|regex| regex.is_match(value)))
    }

    /// The target that takes the place of one that was sent, where it is about that.
    pub(crate) fn rewritten(&self, target: &str) -> Option<String> {
        let regex = whole(self.target.as_deref()?).ok()?;
        regex.is_match(target).then(|| regex.replace(target, self.value.as_deref().unwrap_or_default()).into_owned())
    }
}

impl Answer {
    /// Why it cannot be declared, if it cannot.
    pub fn problem(&self) -> Option<String> {
        let status = self.status;
        if self.source.trim().is_empty() {
            return Some(format!("answer {status}: an answer names its source"));
        }
        let unwritten = self.headers.keys().find(|name| name.contains('*') || **name != name.to_ascii_lowercase());
        if let Some(name) = unwritten {
            return Some(format!("answer {status}: header {name:?} is not a name in lower case"));
        }
        let everything = |pattern: &str| whole(pattern).is_ok_and(|regex| regex.is_match("x-igc-any thing\n{}"));
        let patterns = || self.headers.values().chain(&self.body);
        if let Some(error) = patterns().find_map(|pattern| whole(pattern).err()) {
            return Some(format!("answer {status}: {error}"));
        }
        let any = patterns().find(|pattern| everything(pattern));
        any.map(|pattern| format!("answer {status}: {pattern:?} matches everything"))
    }
}

/// Reads a file with a list `changes`, as a gateway's folder has one.
pub fn read(path: &Path) -> Result<Vec<Change>, FileError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        changes: Vec<Spanned<Change>>,
    }
    let text = std::fs::read_to_string(path).map_err(|source| FileError::read(path, source))?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| FileError::shape(path, error))?;
    let accept = |change: Spanned<Change>| match change.value.problem() {
        Some(problem) => Err(FileError::entry(path, change.referenced.line(), problem)),
        None => Ok(change.value),
    };
    file.changes.into_iter().map(accept).collect()
}

/// Headers of one connection, and those that say how a message is framed on it.
pub(crate) const OF_A_CONNECTION: [&str; 8] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"];

/// Headers that any intermediary may write, change or leave out: those of a connection and of framing (RFC 9110, section
/// 7.6.1; RFC 9112, sections 6 and 9), `Via` (7.6.3), and `Date` of a reply without one (6.6.1).
pub fn of_any_intermediary(direction: Direction, name: &str) -> bool {
    OF_A_CONNECTION.contains(&name) || name == "via" || direction == Direction::Reply && name == "date"
}

/// A regular expression that matches the whole of a text. Compiled once: each is asked of thousands of exchanges.
pub(crate) fn whole(pattern: &str) -> Result<Regex, String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = compiled.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(&format!(r"\A(?s:{pattern})\z")).map_err(|error| {
        let words = error.to_string();
        format!("{pattern:?} is no regular expression: {}", words.lines().last().unwrap_or_default())
    })?;
    compiled.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

fn header_problem(name: &str) -> Option<String> {
    let before = name.strip_suffix('*').unwrap_or(name);
    if before.contains('*') || before != before.to_ascii_lowercase() || before.is_empty() && name.is_empty() {
        return Some("a header is a name in lower case, which may end in *".to_owned());
    }
    if name.ends_with('*') && before.len() < BEFORE_STAR {
        return Some(format!("a pattern has at least {BEFORE_STAR} characters before its *; this matches every name"));
    }
    let canaries = canary::HEADERS;
    covers(name, canaries).then(|| format!("it covers {canaries}*, which shows what is changed unseen"))
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(before) => name.starts_with(before),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn change(text: &str) -> Change {
        serde_saphyr::from_str(text).unwrap()
    }

    #[rstest]
    #[case::header("{direction: request, header: x-ai-eg-*, rule: set, source: s}", "")]
    #[case::field("{direction: request, field: /a/*/b, rule: add, source: s}", "")]
    #[case::body("{direction: reply, body: json, rule: rewrite, source: s}", "")]
    #[case::target("{direction: request, target: '/a(/.*)', value: $1, rule: rewrite, source: s}", "")]
    #[case::every_header("{direction: reply, header: '*', rule: add, source: s}", "matches every name")]
    #[case::nearly_every_header("{direction: reply, header: 'x-*', rule: add, source: s}", "matches every name")]
    #[case::canaries("{direction: reply, header: 'x-igc-*', rule: add, source: s}", "covers x-igc-c-")]
    #[case::star_inside("{direction: reply, header: 'x-*-a', rule: add, source: s}", "lower case")]
    #[case::capitals("{direction: reply, header: Server, rule: set, source: s}", "lower case")]
    #[case::every_field("{direction: request, field: /, rule: set, source: s}", "written out")]
    #[case::any_field("{direction: request, field: '/*', rule: set, source: s}", "written out")]
    #[case::nothing("{direction: request, rule: set, source: s}", "names one of")]
    #[case::two("{direction: request, header: abc, field: /a, rule: set, source: s}", "names one of")]
    #[case::no_source("{direction: request, header: abc, rule: set, source: ' '}", "source")]
    #[case::rewritten_header("{direction: request, header: abc, rule: rewrite, source: s}", "body or a target")]
    #[case::set_body("{direction: request, body: json, rule: set, source: s}", "is rewritten")]
    #[case::no_regex("{direction: request, header: abc, rule: set, value: '(', source: s}", "no regular expression")]
    #[case::target_alone("{direction: request, target: '/a', rule: rewrite, source: s}", "says its value")]
    fn what_can_be_declared(#[case] text: &str, #[case] problem: &str) {
        let found = change(text).problem().unwrap_or_default();
        assert!(found.contains(problem) && found.is_empty() == problem.is_empty(), "{found}");
    }

    #[rstest]
    #[case("/stream_options", "/stream_options/include_usage", true)]
    #[case("/stream_options/include_usage", "/stream_options", false)]
    #[case("/choices/*/logprobs", "/choices/0/logprobs", true)]
    #[case("/choices/*/logprobs", "/choices/0/text", false)]
    #[case("/choices/*/logprobs", "/choices/a/logprobs", false)]
    #[case("/user", "/users", false)]
    fn fields(#[case] declared: &str, #[case] pointer: &str, #[case] about: bool) {
        let change = change(&format!("{{direction: request, field: {declared}, rule: set, source: s}}"));
        assert_eq!(change.is_about_field(Direction::Request, pointer), about);
        assert!(!change.is_about_field(Direction::Reply, pointer));
    }

    #[test]
    fn targets_are_rewritten_whole() {
        let change = Change::target("/[^/]+(/v1/.*)", "$1");
        assert_eq!(change.rewritten("/ns/v1/models").as_deref(), Some("/v1/models"));
        assert_eq!(change.rewritten("/a/ns/v1/models"), None);
    }

    #[rstest]
    #[case::good("changes:\n- {direction: reply, header: x-trace, rule: add, source: ours}\n", "")]
    #[case::everything(
        "changes:\n- {direction: reply, header: x-trace, rule: add, source: ours}\n- {direction: reply, header: '*', rule: add, source: ours}\n",
        "line 3"
    )]
    #[case::misspelt("changes:\n- {direction: reply, haeder: x-trace, rule: add, source: ours}\n", "haeder")]
    #[case::no_list("change: []\n", "change")]
    fn files_of_changes(#[case] text: &str, #[case] problem: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("declare.yaml");
        std::fs::write(&path, text).unwrap();
        let said = read(&path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{said}");
    }

    #[rstest]
    #[case("body: '.*'", "matches everything")]
    #[case("headers: {server: '.+'}", "matches everything")]
    #[case("headers: {Server: envoy}", "lower case")]
    #[case("body: '('", "no regular expression")]
    fn answers_that_say_nothing_are_refused(#[case] text: &str, #[case] problem: &str) {
        let answer: Answer = serde_saphyr::from_str(&format!("status: 404\nsource: s\n{text}\n")).unwrap();
        assert!(answer.problem().unwrap_or_default().contains(problem));
    }
}
