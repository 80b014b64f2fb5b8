//! Intents as manifests: a gateway's own templates, filled with what a check wants, read as Kubernetes objects.
//!
//! Values go in through the `json` filter and no other way, so that no value can change what the YAML around it means.
//! Every variable must be there: an optional value is given as null, and tested with `{% if value %}`.

use std::{
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use granit_parser::{Event, Parser, ScalarStyle};
use minijinja::{
    AutoEscape, Environment, ErrorKind, UndefinedBehavior,
    value::{Serde, Value as Inserted},
};
use serde::Serialize;
use serde_json::Value;
use verdict::names::{near, suggestion};

#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    #[error("gateway {gateway:?} has no intent {intent:?}{near}; it has {}", there.join(", "))]
    Unknown { gateway: String, intent: String, near: String, there: Vec<String> },
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: the variable {variable:?} has no value; the intent needs one, or the name is misspelt", path.display())]
    Missing { path: PathBuf, line: usize, variable: String },
    #[error("{}:{line}: {problem}", path.display())]
    Template { path: PathBuf, line: usize, problem: String },
    #[error("{}, after its values were filled in: {problem}", path.display())]
    Documents {
        path: PathBuf,
        #[source]
        problem: DocumentError,
    },
}

/// Why a text is not a list of Kubernetes objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} ({text:?}): {problem}")]
pub struct DocumentError {
    /// The line, from 1; 0 where it is not known.
    pub line: usize,
    pub text: String,
    pub problem: String,
}

#[derive(Clone, Debug)]
pub struct Intents {
    gateway: String,
    folders: [PathBuf; 2],
}

impl Intents {
    /// Those under `<manifests>/gateways/<gateway>/intents`, else those under `<manifests>/intents`.
    pub fn of(manifests: &Path, gateway: &str) -> Self {
        let folders = [manifests.join("gateways").join(gateway).join("intents"), manifests.join("intents")];
        Self { gateway: gateway.to_owned(), folders }
    }

    /// Fills an intent with values and reads what comes out as objects, in order.
    pub fn render(&self, intent: &str, values: &impl Serialize) -> Result<Vec<Value>, IntentError> {
        let path = self.path(intent)?;
        let template =
            fs::read_to_string(&path).map_err(|source| IntentError::Unreadable { path: path.clone(), source })?;
        let text = fill(&path, &template, values)?;
        documents(&text).map_err(|problem| IntentError::Documents { path, problem })
    }

    fn path(&self, intent: &str) -> Result<PathBuf, IntentError> {
        let plain = verdict::names::is_kebab(intent); // a name, never a path
        let found = self.folders.iter().map(|folder| folder.join(format!("{intent}.yaml"))).find(|path| path.is_file());
        if let Some(path) = found.filter(|_| plain) {
            return Ok(path);
        }
        let there = self.names();
        Err(IntentError::Unknown {
            gateway: self.gateway.clone(),
            intent: intent.to_owned(),
            near: suggestion(&near(intent, there.iter().map(String::as_str))),
            there,
        })
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".yaml").map(str::to_owned))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Fills a template: strict about what is missing, without escaping, values only as JSON.
pub fn fill(path: &Path, template: &str, values: &impl Serialize) -> Result<String, IntentError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_debug(true); // errors know their place
    environment.add_filter("json", as_json);
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::from(ErrorKind::UndefinedError));
        }
        if !value.is_safe() {
            let said = "a value is inserted without `| json`; written plainly it could change the YAML around it";
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, said));
        }
        out.write_str(value.as_str().unwrap_or_default()).map_err(minijinja::Error::from)
    });
    let rendered =
        environment.template_from_named_str("intent", template).and_then(|template| template.render(Serde(values)));
    rendered.map_err(|error| {
        let path = path.to_owned();
        let line = error.line().unwrap_or(0);
        if error.kind() == ErrorKind::UndefinedError {
            let variable = error.range().and_then(|range| missing(template, range)).unwrap_or("a variable").to_owned();
            return IntentError::Missing { path, line, variable };
        }
        IntentError::Template { path, line, problem: error.to_string() }
    })
}

/// The expression at this place of a template; for a filter, what it was given.
fn missing(template: &str, place: Range<usize>) -> Option<&str> {
    let at = template.get(place.clone())?.trim();
    if at != "json" {
        return Some(at).filter(|at| !at.is_empty());
    }
    let before = template.get(..place.start)?;
    let from = before.rfind("{{").map_or(0, |brace| brace + 2);
    Some(before.get(from..)?.trim_start_matches('-').trim().trim_end_matches('|').trim())
}

/// The `json` filter: any value as JSON that is YAML as well.
fn as_json(value: Inserted) -> Result<Inserted, minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::Error::from(ErrorKind::UndefinedError));
    }
    let value = serde_json::to_value(&value)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut text = String::new();
    write_flow(&mut text, &value);
    Ok(Inserted::from_safe_string(text))
}

/// YAML reads keys of flow mappings without a question mark only up to 1024 characters.
const PLAIN_KEY: usize = 200;

fn write_flow(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => write_quoted(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_flow(text, item);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            text.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                text.push_str(if key.len() > PLAIN_KEY { "? " } else { "" });
                write_quoted(text, key);
                text.push_str(if key.len() > PLAIN_KEY { " : " } else { ": " });
                write_flow(text, item);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
    }
}

/// A double-quoted scalar; what YAML 1.1 and 1.2 do not both read as itself is escaped.
fn write_quoted(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fdcf}' => {
                text.push(character);
            }
            other if (other as u32) > 0xffff => write!(text, "\\U{:08X}", other as u32).expect("a string takes it"),
            other => write!(text, "\\u{:04X}", other as u32).expect("a string takes it"),
        }
    }
    text.push('"');
}

/// Reads manifests: documents apart by `---`, empty ones skipped.
///
/// Refused are words that kubectl reads otherwise than YAML 1.2 does: `on`, `off`, `yes`, `no`, `y`, `n`, `0644`, `1_000`.
pub fn documents(text: &str) -> Result<Vec<Value>, DocumentError> {
    let wrong = |line: usize, problem: String| DocumentError {
        line,
        text: line.checked_sub(1).and_then(|line| text.lines().nth(line)).unwrap_or_default().trim().to_owned(),
        problem,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| wrong(error.marker().line(), error.info().to_owned()))?;
        if let Event::Scalar(word, ScalarStyle::Plain, _, None) = event
            && let Some(problem) = ambiguous(&word)
        {
            return Err(wrong(span.start.line(), problem));
        }
    }
    // Definitions of KServe are larger than the default budget of the reader, and all of this is our own or pinned.
    let options = serde_saphyr::options! { budget: None };
    let read: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line() as usize);
        wrong(line, error.to_string().lines().next().unwrap_or_default().to_owned())
    })?;
    let read: Vec<Value> = read.into_iter().filter(|document| !document.is_null()).collect();
    if let Some(other) = read.iter().find(|document| !document.is_object()) {
        let said: String = other.to_string().chars().take(80).collect();
        return Err(wrong(0, format!("a document is no mapping: {said}")));
    }
    Ok(read)
}

/// Whether kubectl (YAML 1.1 in part) and YAML 1.2 read a plain word differently, and what to write instead.
fn ambiguous(word: &str) -> Option<String> {
    if matches!(word.to_ascii_lowercase().as_str(), "on" | "off" | "yes" | "no" | "y" | "n") {
        return Some(format!("kubectl reads a bare {word} as a boolean; write \"{word}\", or true or false"));
    }
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = digits.chars().all(|c| c.is_ascii_digit() || c == '_');
    let octal = number && digits.len() > 1 && digits.starts_with('0') || digits.starts_with("0o");
    (octal || number && digits.contains('_'))
        .then(|| format!("kubectl and YAML 1.2 read {word} differently; write a decimal number, or \"{word}\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn filled(template: &str, values: Value) -> Result<Vec<Value>, String> {
        let text = fill(Path::new("intents/test.yaml"), template, &values).map_err(|error| error.to_string())?;
        documents(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn documents_come_out_in_order_and_empty_ones_are_skipped() {
        let template = "# a comment\n---\nkind: A\n---\n# nothing\n---\n{%- for n in names %}\n---\nname: {{ n | json }}\n{%- endfor %}\n";
        let read = filled(template, json!({"names": ["x", "y"]})).expect("read");
        assert_eq!(read, [json!({"kind": "A"}), json!({"name": "x"}), json!({"name": "y"})]);
    }

    #[rstest]
    #[case("a: 1\nb: {{ gateway.nmae | json }}\n", 2, "gateway.nmae")]
    #[case("a: {{ hostnme | json }}\n", 1, "hostnme")]
    #[case("{% if hostnme %}a: 1{% endif %}", 1, "hostnme")]
    #[case("\n\n{% for x in nmaes %}{% endfor %}", 3, "nmaes")]
    fn a_missing_variable_is_named_with_its_line(#[case] template: &str, #[case] line: usize, #[case] name: &str) {
        let said = format!(
            "intents/test.yaml:{line}: the variable {name:?} has no value; the intent needs one, or the name is misspelt"
        );
        assert_eq!(filled(template, json!({"gateway": {"name": "g"}})).expect_err("refused"), said);
    }

    #[rstest]
    #[case("a: {{ gateway }}", "without `| json`")]
    #[case("a: {{ gateway | json ~ 1 }}", "without `| json`")]
    #[case("a: {{ gateway | jsn }}", "unknown filter")]
    #[case("a: {{ gateway", "intents/test.yaml:1")]
    fn a_wrong_template_is_refused(#[case] template: &str, #[case] said: &str) {
        let error = filled(template, json!({"gateway": "g"})).expect_err("refused");
        assert!(error.contains(said), "{error}");
    }

    #[rstest]
    #[case("a: on")]
    #[case("a: [1, Yes]")]
    #[case("y: 1")]
    #[case("a: {n: 1}")]
    #[case("mode: 0644")]
    #[case("mode: 0o644")]
    #[case("mode: -012")]
    #[case("limit: 1_000")]
    #[case("- OFF")]
    fn words_that_kubectl_reads_otherwise_are_refused(#[case] text: &str) {
        let error = documents(&format!("ok: 1\n---\n{text}\n")).expect_err("refused");
        assert_eq!(error.line, 3);
        assert!(error.problem.contains("kubectl"), "{error}");
    }

    #[rstest]
    #[case("a: \"on\"", json!("on"))]
    #[case("a: 'no'", json!("no"))]
    #[case("a: online", json!("online"))]
    #[case("a: \"0644\"", json!("0644"))]
    #[case("a: 0", json!(0))]
    #[case("a: 0.5", json!(0.5))]
    #[case("a: 10.0.0.1", json!("10.0.0.1"))]
    #[case("a: true", json!(true))]
    #[case("a: 2026-11-21", json!("2026-11-21"))]
    #[case("a: |\n  on\n", json!("on\n"))]
    #[case("a: !!str on", json!("on"))]
    fn words_that_both_read_alike_pass(#[case] text: &str, #[case] value: Value) {
        assert_eq!(documents(text).expect("read"), [json!({"a": value})]);
    }

    #[rstest]
    #[case("a: 1\n b: 2\n", 2)]
    #[case("a: 1\na: 2\n", 2)]
    #[case("a: [1\nb: 2\n", 2)]
    #[case("just words\n", 0)]
    fn broken_yaml_is_said_with_its_line(#[case] text: &str, #[case] line: usize) {
        assert_eq!(documents(text).expect_err("refused").line, line);
    }

    #[test]
    fn an_intent_that_is_not_there_names_those_that_are() {
        let manifests = tempfile::tempdir().expect("a folder");
        let own = manifests.path().join("gateways/g/intents");
        fs::create_dir_all(&own).expect("made");
        fs::create_dir_all(manifests.path().join("intents")).expect("made");
        fs::write(own.join("route-model.yaml"), "own: 1").expect("written");
        fs::write(manifests.path().join("intents/route-model.yaml"), "common: 1").expect("written");
        fs::write(manifests.path().join("intents/http-route.yaml"), "common: 1").expect("written");
        let intents = Intents::of(manifests.path(), "g");
        assert_eq!(
            intents.render("route-modl", &()).expect_err("refused").to_string(),
            "gateway \"g\" has no intent \"route-modl\"; did you mean route-model?; it has http-route, route-model"
        );
        assert_eq!(intents.render("route-model", &()).expect("read"), [json!({"own": 1})], "the gateway's own first");
        assert_eq!(intents.render("http-route", &()).expect("read"), [json!({"common": 1})]);
        assert!(intents.render("../intents/route-model", &()).is_err(), "a name is no path");
    }

    /// Without values an intent lacks variables; that is all that may be wrong with one.
    #[test]
    fn every_intent_of_the_project_is_a_template() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
        let gateways = fs::read_dir(manifests.join("gateways")).expect("the gateways");
        let mut seen = 0;
        for gateway in gateways.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")) {
            let intents = Intents::of(&manifests, &gateway);
            for intent in intents.names() {
                seen += 1;
                if let Err(error) = intents.render(&intent, &()) {
                    assert!(matches!(error, IntentError::Missing { .. }), "{error}");
                }
            }
        }
        assert!(seen > 0, "there are intents");
    }

    proptest! {
        #[test]
        fn any_string_comes_out_as_it_went_in(value in any::<String>(), key in any::<String>()) {
            let template = "block:\n  name: {{ value | json }}\n  list:\n  - {{ value | json }}\nflow: {a: {{ value | json }}, b: [{{ map | json }}]}\n";
            let map = BTreeMap::from([(key, value.clone())]);
            let read = filled(template, json!({"value": value, "map": map})).map_err(TestCaseError::fail)?;
            let expected = json!({"block": {"name": value, "list": [value]}, "flow": {"a": value, "b": [map]}});
            prop_assert_eq!(read, vec![expected]);
        }

        #[test]
        fn hard_words_come_out_as_they_went_in(value in "[-:{}\\[\\]#&*!|>'\"%@`,? \t\n\r~\u{0}\u{85}\u{2028}\u{feff}\u{7f}\u{1f600}a0]{0,40}") {
            let read = filled("v: {{ v | json }}", json!({"v": value})).map_err(TestCaseError::fail)?;
            prop_assert_eq!(read, vec![json!({"v": value})]);
        }
    }

    #[test]
    fn long_keys_and_numbers_come_out_as_they_went_in() {
        let long = "k".repeat(3000);
        let value = json!({long: [1.5, -7, u64::MAX, 1e300, null, true, {}], "": []});
        assert_eq!(filled("v: {{ v | json }}", json!({"v": value})).expect("read"), [json!({"v": value})]);
    }
}
