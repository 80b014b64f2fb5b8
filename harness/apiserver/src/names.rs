//! Names and labels: what the API allows and how it says no.

use serde_json::Value;

use super::failure::{Cause, reason};
use super::{kind::Kind, meta};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub(crate) fn check(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta::name(object);
    let mut wrong = |reason, field: &str, message: String| causes.push(Cause::new(reason, field, message));
    if name.is_empty() {
        wrong(reason::REQUIRED, "metadata.name", "Required value: name or generateName is required".into());
    } else if let Some(why) = name_refusal(kind, name) {
        wrong(reason::INVALID, "metadata.name", format!("Invalid value: {name:?}: {why}"));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            wrong(reason::INVALID, "metadata.labels", format!("Invalid value: {key:?}: {QUALIFIED}"));
        }
        let value = value.as_str().unwrap_or("");
        if value.len() > 63 {
            let message = format!("Invalid value: {value:?}: must be no more than 63 bytes");
            wrong(reason::INVALID, "metadata.labels", message);
        } else if !is_label_value(value) {
            wrong(reason::INVALID, "metadata.labels", format!("Invalid value: {value:?}: {LABEL_VALUE}"));
        }
    }
    causes
}

fn name_refusal(kind: &Kind, name: &str) -> Option<String> {
    let group = kind.group.as_ref();
    match (group, kind.kind.as_ref()) {
        ("rbac.authorization.k8s.io", _) => {
            let bad = name == "." || name == ".." || name.contains(['/', '%']);
            bad.then(|| "may not contain '/'".to_owned())
        }
        ("", "Namespace") => label(name, 63, LABEL, is_label),
        ("", "Service") => label(name, 63, SERVICE, |n| is_label(n) && n.starts_with(|c: char| c.is_ascii_lowercase())),
        _ => label(name, 253, SUBDOMAIN, |n| n.split('.').all(is_label)),
    }
}

fn label(name: &str, longest: usize, rule: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
    if name.len() > longest {
        return Some(format!("must be no more than {longest} bytes"));
    }
    (!fits(name)).then(|| rule.to_owned())
}

fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(crate) fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.is_empty()
        || (edge(text.chars().next())
            && edge(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
}

pub(crate) fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    !name.is_empty()
        && name.len() <= 63
        && is_label_value(name)
        && prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("", "ConfigMap", "kube-root-ca.crt", true)]
    #[case("", "ConfigMap", "Upper", false)]
    #[case("", "ConfigMap", "-a", false)]
    #[case("", "Namespace", "a.b", false)]
    #[case("", "Service", "1a", false)]
    #[case("rbac.authorization.k8s.io", "ClusterRole", "system:node", true)]
    fn names_are_judged_by_kind(#[case] group: &str, #[case] kind: &str, #[case] name: &str, #[case] good: bool) {
        let causes = check(&Kind::new(group, kind), &json!({"metadata": {"name": name}}));
        assert_eq!(causes.is_empty(), good, "{causes:?}");
    }

    #[rstest]
    #[case("app.kubernetes.io/name", "a_b.c", true)]
    #[case("a/b/c", "x", false)]
    #[case("app", "-x", false)]
    #[case("", "x", false)]
    fn labels_are_judged(#[case] key: &str, #[case] value: &str, #[case] good: bool) {
        let object = json!({"metadata": {"name": "n", "labels": {key: value}}});
        assert_eq!(check(&Kind::new("", "Pod"), &object).is_empty(), good);
    }
}
