//! Paths of fields as causes and warnings name them, `spec.rules[0].matches`.

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
