//! Selectors: which objects a list or watch is about.

use serde_json::Value;

use super::resource::{Resource, Version};
use super::{failure::Failure, failure::Result, meta, names};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<(String, Requirement)>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSelector(String);

impl From<BadSelector> for Failure {
    fn from(bad: BadSelector) -> Self {
        Self::bad_request(bad.0)
    }
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h,!i,j>1`.
    pub fn read(text: &str) -> Result<Self, BadSelector> {
        let mut requirements = Vec::new();
        for part in split(text) {
            if !part.trim().is_empty() {
                requirements.push(requirement(part.trim())?);
            } else if !text.trim().is_empty() {
                return Err(unreadable(text, "found ',', expected: identifier"));
            }
        }
        Ok(Self(requirements))
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(key, requirement)| {
            let value = labels[key.as_str()].as_str();
            match requirement {
                Requirement::In(values) => values.iter().any(|v| Some(v.as_str()) == value),
                Requirement::NotIn(values) => !values.iter().any(|v| Some(v.as_str()) == value),
                Requirement::Exists => value.is_some(),
                Requirement::Absent => value.is_none(),
                Requirement::Greater(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
                Requirement::Less(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
            }
        })
    }
}

/// Parts between commas that are not in brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut open, mut start) = (Vec::new(), false, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => open = true,
            ')' => open = false,
            ',' if !open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unreadable(text: &str, why: &str) -> BadSelector {
    BadSelector(format!("unable to parse requirement: {why} (in {text:?})"))
}

fn requirement(part: &str) -> Result<(String, Requirement), BadSelector> {
    let checked = |text: &str, fits: bool, place: &str| match fits {
        true => Ok(text.to_owned()),
        false => Err(unreadable(part, &format!("{place}: Invalid value: {text:?}"))),
    };
    let key = |text: &str| checked(text.trim(), names::is_qualified(text.trim()), "<nil>");
    let value = |text: &str| {
        let text = text.trim();
        checked(text, text.len() <= 63 && names::is_label_value(text), "values[0]")
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Ok((key(rest)?, Requirement::Absent));
    }
    if let Some((name, values)) = part.strip_suffix(')').and_then(|p| p.split_once('(')) {
        let values = values.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let (name, word) =
            name.trim().split_once(char::is_whitespace).ok_or_else(|| unreadable(part, "expected: in, notin"))?;
        return match word.trim() {
            "in" => Ok((key(name)?, Requirement::In(values))),
            "notin" => Ok((key(name)?, Requirement::NotIn(values))),
            other => Err(unreadable(part, &format!("found '{other}', expected: in, notin"))),
        };
    }
    let number = |text: &str| {
        let bad = |_| unreadable(part, "for 'Gt', 'Lt' operators, the value must be an integer");
        text.trim().parse().map_err(bad)
    };
    for sign in ["!=", "==", "=", ">", "<"] {
        if let Some((name, wanted)) = part.split_once(sign) {
            let requirement = match sign {
                "!=" => Requirement::NotIn(vec![value(wanted)?]),
                ">" => Requirement::Greater(number(wanted)?),
                "<" => Requirement::Less(number(wanted)?),
                _ => Requirement::In(vec![value(wanted)?]),
            };
            return Ok((key(name)?, requirement));
        }
    }
    Ok((key(part)?, Requirement::Exists))
}

impl FieldSelector {
    /// Reads `metadata.name=a,status.phase!=Running`.
    pub fn read(text: &str) -> Result<Self, BadSelector> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let bad = || BadSelector(format!("invalid field selector: {part:?}; can't understand '{part}'"));
            let found = [("!=", false), ("==", true), ("=", true)]
                .into_iter()
                .find_map(|(sign, equal)| part.split_once(sign).map(|(k, v)| (k, equal, v)))
                .ok_or_else(bad)?;
            let (key, equal, value) = found;
            if key.trim().is_empty() {
                return Err(bad());
            }
            requirements.push((key.trim().to_owned(), equal, value.to_owned()));
        }
        Ok(Self(requirements))
    }

    /// Checks that the kind can be selected by these fields.
    pub(crate) fn check(&self, resource: &Resource, version: &Version) -> Result<()> {
        for (key, _, _) in &self.0 {
            let known = matches!(key.as_str(), "metadata.name" | "metadata.namespace")
                || version.selectable.iter().any(|f| f == key)
                || by_kind(resource).contains(&key.as_str());
            if !known {
                return Err(Failure::bad_request(format!("field label not supported: {key}")));
            }
        }
        Ok(())
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(key, equal, wanted)| {
            let mut found = object;
            for step in key.split('.') {
                found = &found[step];
            }
            let found = match found {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }
}

fn by_kind(resource: &Resource) -> &'static [&'static str] {
    if !resource.kind.group.is_empty() {
        return &[];
    }
    match resource.kind.kind.as_ref() {
        "Pod" => &["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
            "reportingComponent",
        ],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "Node" => &["spec.unschedulable"],
        "Service" => &["spec.clusterIP", "spec.type"],
        _ => &[],
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Scope {
    pub(crate) fn holds(&self, object: &Value) -> bool {
        self.namespace.as_ref().is_none_or(|ns| meta::namespace(object) == ns)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("", true)]
    #[case("app=a", true)]
    #[case("app==a,tier!=back", true)]
    #[case("app=b", false)]
    #[case("app in (b, a),tier", true)]
    #[case("app notin (a)", false)]
    #[case("none notin (a)", true)]
    #[case("!app", false)]
    #[case("!none", true)]
    #[case("n>4,n<6", true)]
    #[case("n>5", false)]
    #[case("x.io/y=", true)]
    fn labels_are_selected(#[case] selector: &str, #[case] fits: bool) {
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "front", "n": "5", "x.io/y": ""}}});
        assert_eq!(LabelSelector::read(selector).unwrap().matches(&object), fits);
    }

    #[rstest]
    #[case("a=b=c")]
    #[case("a in b")]
    #[case("a in (b")]
    #[case(",")]
    #[case("a,,b")]
    #[case("=x")]
    #[case("a>x")]
    #[case("a within (b)")]
    fn other_text_is_refused(#[case] selector: &str) {
        assert!(LabelSelector::read(selector).is_err(), "{selector}");
    }

    #[rstest]
    #[case("metadata.name=a", true)]
    #[case("metadata.name!=a", false)]
    #[case("involvedObject.name==b,metadata.name=a", true)]
    #[case("involvedObject.uid=", true)]
    #[case("involvedObject.uid=x", false)]
    fn fields_are_selected(#[case] selector: &str, #[case] fits: bool) {
        let object = json!({"metadata": {"name": "a"}, "involvedObject": {"name": "b"}});
        assert_eq!(FieldSelector::read(selector).unwrap().matches(&object), fits);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_server_panic(text in "\\PC{0,40}|[a-z!=<>(), in./]{0,30}") {
            let object = json!({"metadata": {"labels": {"a": "b"}}});
            if let Ok(selector) = LabelSelector::read(&text) { selector.matches(&object); }
            if let Ok(selector) = FieldSelector::read(&text) { selector.matches(&object); }
        }
    }
}
