//! JSON paths as printer columns use them: `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// The values that a path finds; a path that cannot be read finds nothing.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        let Some((step, after)) = step(rest) else {
            return Vec::new();
        };
        found = found.into_iter().flat_map(|v| step.follow(v)).collect();
        rest = after;
    }
    found
}

enum Step<'p> {
    Field(String),
    Index(i64),
    All,
    Where(&'p str, &'p str),
}

impl Step<'_> {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(at) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let at = if *at < 0 { items.len() as i64 + at } else { *at };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(path, wanted) => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| find(item, path).first().is_some_and(|found| shown(found) == *wanted))
                .collect(),
        }
    }
}

fn step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(rest) = path.strip_prefix('[') {
        if let Some(rest) = rest.strip_prefix("?(@") {
            let (inside, after) = rest.split_once(")]")?;
            let (path, wanted) = inside.split_once("==")?;
            return Some((Step::Where(path.trim(), wanted.trim().trim_matches(['"', '\''])), after));
        }
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let (name, after) = rest[1..].split_once(&format!("{quote}]"))?;
            return Some((Step::Field(name.to_owned()), after));
        }
        let (inside, after) = rest.split_once(']')?;
        return match inside.trim() {
            "*" => Some((Step::All, after)),
            number => Some((Step::Index(number.parse().ok()?), after)),
        };
    }
    let path = path.strip_prefix('.')?;
    let mut name = String::new();
    let mut letters = path.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            '.' | '[' => {
                let found = if name == "*" { Step::All } else { Step::Field(name) };
                return Some((found, &path[at..]));
            }
            letter => name.push(letter),
        }
    }
    let found = if name == "*" { Step::All } else { Step::Field(name) };
    Some((found, ""))
}

/// A value as a cell shows it.
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
    use serde_json::json;

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
    fn paths_find_values(#[case] path: &str, #[case] cell: &str) {
        let object = json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
            "status": {"addresses": [{"value": "1"}, {"value": "2"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Programmed", "status": "False"}]}});
        let found: Vec<String> = find(&object, path).into_iter().map(shown).collect();
        assert_eq!(found.join(" "), cell);
    }

    proptest! {
        #[test]
        fn odd_paths_find_nothing_and_do_not_panic(path in "[.a\\[\\]?@=*'\"\\\\{}()0-9é-]{0,20}") {
            let _ = find(&json!({"a": [{"a": 1}]}), &path);
        }
    }
}
