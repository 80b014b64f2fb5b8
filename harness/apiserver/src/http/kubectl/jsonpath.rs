//! JSON paths as printer columns use them: `.status.conditions[?(@.type=="Ready")].status`.

use jsonpath_rust::JsonPath;
use serde_json::{Value, json};

/// Longer paths find nothing: the parser works on the stack.
const LONGEST: usize = 512;

/// The values that a path finds; a path that cannot be read finds nothing.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    if path.len() > LONGEST {
        return Vec::new();
    }
    object.query(&standard(path)).unwrap_or_default()
}

/// A path of Kubernetes as one of RFC 9535: it begins at the root, and its names are quoted, since Kubernetes allows in them
/// what the RFC does not (`foo-bar`, `app\.kubernetes\.io/name`).
fn standard(path: &str) -> String {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut standard = String::from("$");
    let mut quote = None;
    let mut letters = path.chars().peekable();
    while let Some(letter) = letters.next() {
        let in_number = standard.ends_with(|c: char| c.is_ascii_digit());
        match (letter, quote) {
            ('.', None) if !in_number => {
                let mut name = String::new();
                while let Some(letter) = letters.next_if(|l| !l.is_whitespace() && !".[](){}=!<>&|,".contains(*l)) {
                    name.extend(if letter == '\\' { letters.next() } else { Some(letter) });
                }
                match name.as_str() {
                    "*" => standard.push_str("[*]"),
                    name => standard.push_str(&format!("[{}]", json!(name))),
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            _ => {}
        }
        standard.push(letter);
    }
    standard
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(".metadata.name", "a")]
    #[case("{.metadata.name}", "a")]
    #[case(".status.conditions[?(@.type==\"Ready\")].status", "True")]
    #[case(".status.conditions[?(@.type=='Programmed')].status", "False")]
    #[case(".status.addresses[*].value", "1 2")]
    #[case(".status.addresses[-1].value", "2")]
    #[case(".metadata.labels.app\\.kubernetes\\.io/name", "x")]
    #[case(".metadata.labels['app.kubernetes.io/name']", "x")]
    #[case(".nope[0].x", "")]
    #[case("[", "")]
    #[case(".spec.foo-bar", "f")]
    #[case(".status.conditions[?(@.type-of==\"x\")].status", "False")]
    #[case(".status.conditions[?(@.weight==1.5)].status", "False")]
    fn paths_find_values(#[case] path: &str, #[case] cell: &str) {
        let object = json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
            "spec": {"foo-bar": "f"}, "status": {"addresses": [{"value": "1"}, {"value": "2"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Programmed", "status": "False", "type-of": "x", "weight": 1.5}]}});
        let found: Vec<String> = find(&object, path).into_iter().map(shown).collect();
        assert_eq!(found.join(" "), cell);
    }

    proptest! {
        #[test]
        fn odd_paths_find_nothing_and_do_not_panic(path in "[.a\\[\\]?@=*'\"\\\\{}()0-9é-]{0,20}") {
            let _ = find(&json!({"a": [{"a": 1}]}), &path);
        }
    }

    #[test]
    fn a_path_nested_without_end_finds_nothing() {
        let deep = format!(".a[?{}@.a{}]", "(".repeat(100_000), ")".repeat(100_000));
        assert!(find(&json!({"a": [{"a": 1}]}), &deep).is_empty());
        let deep = format!(".a[?{}@.a{}]", "(".repeat(240), ")".repeat(240));
        let _ = find(&json!({"a": [{"a": 1}]}), &deep);
    }
}
