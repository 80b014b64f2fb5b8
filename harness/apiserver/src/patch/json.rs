//! JSON patch (RFC 6902).

use serde_json::Value;

/// Why a patch did not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPatch {
    /// The patch itself cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It does not fit the object.
    #[error("{0}")]
    Unfit(String),
}

/// More operations are refused, as the API does.
pub(crate) const MOST_OPERATIONS: usize = 10_000;

fn unfit(operation: &str, path: &str, why: &str) -> BadPatch {
    BadPatch::Unfit(format!("{operation} operation does not apply: doc is missing path: {path:?}: {why}"))
}

/// Applies all operations, or none.
pub fn apply(target: &Value, patch: &Value) -> Result<Value, BadPatch> {
    let operations =
        patch.as_array().ok_or_else(|| BadPatch::Unreadable("a JSON patch is a list of operations".into()))?;
    let mut document = target.clone();
    for operation in operations {
        step(&mut document, operation)?;
    }
    Ok(document)
}

fn step(document: &mut Value, operation: &Value) -> Result<(), BadPatch> {
    let word = text(operation, "op")?;
    let path = text(operation, "path")?;
    let value = || {
        operation.get("value").cloned().ok_or_else(|| BadPatch::Unreadable(format!("{word} operation without value")))
    };
    match word {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path, word).map(drop),
        "replace" => {
            let new = value()?;
            let place = document.pointer_mut(&pointer(path)?).ok_or_else(|| unfit(word, path, "missing value"))?;
            *place = new;
            Ok(())
        }
        "move" => {
            let from = text(operation, "from")?;
            if path.starts_with(&format!("{from}/")) {
                return Err(BadPatch::Unfit("a value cannot be moved into itself".into()));
            }
            let value = remove(document, from, word)?;
            add(document, path, value)
        }
        "copy" => {
            let from = text(operation, "from")?;
            let value = document.pointer(&pointer(from)?).cloned().ok_or_else(|| unfit(word, from, "missing value"))?;
            add(document, path, value)
        }
        "test" => {
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            let found = document.pointer(&pointer(path)?).unwrap_or(&Value::Null);
            if found == wanted { Ok(()) } else { Err(BadPatch::Unfit(format!("testing path {path} failed"))) }
        }
        other => Err(BadPatch::Unreadable(format!("unexpected kind of operation: {other}"))),
    }
}

fn text<'a>(operation: &'a Value, key: &str) -> Result<&'a str, BadPatch> {
    operation[key].as_str().ok_or_else(|| BadPatch::Unreadable(format!("operation without {key}")))
}

fn pointer(path: &str) -> Result<String, BadPatch> {
    if path.is_empty() || path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(BadPatch::Unreadable(format!("path {path:?} does not start with a slash")))
    }
}

/// The place that holds the last step of a path, and that step.
fn holder<'a>(document: &'a mut Value, path: &str, word: &str) -> Result<(&'a mut Value, String), BadPatch> {
    let path = pointer(path)?;
    let (above, last) = path.rsplit_once('/').ok_or_else(|| unfit(word, &path, "the document itself"))?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let place = document.pointer_mut(above).ok_or_else(|| unfit(word, &path, "missing value"))?;
    Ok((place, last))
}

fn index(step: &str, length: usize) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|at| canonical && *at <= length)
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), BadPatch> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (place, last) = holder(document, path, "add")?;
    match place {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&last, items.len()).ok_or_else(|| unfit("add", path, "index out of bounds"))?;
            items.insert(at, value);
        }
        _ => return Err(unfit("add", path, "neither object nor list")),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, word: &str) -> Result<Value, BadPatch> {
    let (place, last) = holder(document, path, word)?;
    let removed = match place {
        Value::Object(map) => map.remove(&last),
        Value::Array(items) => index(&last, items.len()).filter(|at| *at < items.len()).map(|at| items.remove(at)),
        _ => None,
    };
    removed.ok_or_else(|| unfit(word, path, "missing value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!([{"op": "add", "path": "/a/x", "value": 1}]), Some(json!({"a": {"x": 1}, "l": [1, 2]})))]
    #[case(json!([{"op": "add", "path": "/l/1", "value": 9}]), Some(json!({"a": {}, "l": [1, 9, 2]})))]
    #[case(json!([{"op": "add", "path": "/l/-", "value": 9}]), Some(json!({"a": {}, "l": [1, 2, 9]})))]
    #[case(json!([{"op": "remove", "path": "/l/0"}]), Some(json!({"a": {}, "l": [2]})))]
    #[case(json!([{"op": "replace", "path": "/l", "value": null}]), Some(json!({"a": {}, "l": null})))]
    #[case(json!([{"op": "move", "from": "/l/0", "path": "/a/y~1z"}]), Some(json!({"a": {"y/z": 1}, "l": [2]})))]
    #[case(json!([{"op": "copy", "from": "/l", "path": "/a/c"}]), Some(json!({"a": {"c": [1, 2]}, "l": [1, 2]})))]
    #[case(json!([{"op": "test", "path": "/l/0", "value": 1}]), Some(json!({"a": {}, "l": [1, 2]})))]
    #[case(json!([{"op": "test", "path": "/l/0", "value": 2}]), None)]
    #[case(json!([{"op": "remove", "path": "/nope"}]), None)]
    #[case(json!([{"op": "remove", "path": "/l/2"}]), None)]
    #[case(json!([{"op": "add", "path": "/l/3", "value": 1}]), None)]
    #[case(json!([{"op": "add", "path": "/l/01", "value": 1}]), None)]
    #[case(json!([{"op": "add", "path": "/a/b/c", "value": 1}]), None)]
    #[case(json!([{"op": "replace", "path": "/nope", "value": 1}]), None)]
    #[case(json!([{"op": "remove", "path": ""}]), None)]
    #[case(json!([{"op": "move", "from": "/a", "path": "/a/b"}]), None)]
    #[case(json!([{"op": "shout", "path": "/a"}]), None)]
    #[case(json!({"op": "add"}), None)]
    #[case(json!([{"op": "add", "path": "/x", "value": 1}, {"op": "remove", "path": "/nope"}]), None)]
    fn operations_apply_or_nothing_does(#[case] patch: Value, #[case] outcome: Option<Value>) {
        let document = json!({"a": {}, "l": [1, 2]});
        assert_eq!(apply(&document, &patch).ok(), outcome);
    }
}
