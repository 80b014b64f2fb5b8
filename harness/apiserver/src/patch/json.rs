//! JSON patch (RFC 6902), by the crate `json-patch` with the answers of the API server, which has evanphx/json-patch v4.12.

use json_patch::{PatchErrorKind, PatchOperation, patch_unsafe};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPatch {
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    Unfit(String),
}

/// More operations are refused, as the API does.
pub(crate) const MOST_OPERATIONS: usize = 10_000;

/// Applies all operations, or none.
pub fn apply(target: &Value, patch: &Value) -> Result<Value, BadPatch> {
    let operations =
        patch.as_array().ok_or_else(|| BadPatch::Unreadable("a JSON patch is a list of operations".into()))?;
    let mut document = target.clone();
    for operation in operations {
        apply_one(&mut document, operation)?;
    }
    Ok(document)
}

fn apply_one(document: &mut Value, written: &Value) -> Result<(), BadPatch> {
    let mut written = written.clone();
    if written["op"] == "test" && written.get("value").is_none() {
        written["value"] = json!(null); // the API takes a test without a value for one of null
    }
    let unreadable = |error| BadPatch::Unreadable(format!("operation {written}: {error}"));
    let operation: PatchOperation = serde_json::from_value(written.clone()).map_err(unreadable)?;
    if let PatchOperation::Test(test) = &operation
        && test.value.is_null()
        && document.pointer(test.path.as_str()).is_none()
    {
        return Ok(()); // what is not there is null
    }
    patch_unsafe(document, &[operation]).map_err(|error| {
        let (op, path) = (written["op"].as_str().unwrap_or_default(), error.path.as_str());
        let missing =
            |path: &str| format!("{op} operation does not apply: doc is missing path: {path:?}: missing value");
        BadPatch::Unfit(match error.kind {
            PatchErrorKind::TestFailed => format!("testing path {path} failed"),
            PatchErrorKind::InvalidFromPointer => missing(written["from"].as_str().unwrap_or_default()),
            PatchErrorKind::CannotMoveInsideItself => "a value cannot be moved into itself".to_owned(),
            _ if op == "test" => format!("testing path {path} failed"),
            _ => missing(path),
        })
    })
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
    #[case(json!([{"op": "test", "path": "/nope", "value": null}]), Some(json!({"a": {}, "l": [1, 2]})))]
    #[case(json!([{"op": "test", "path": "/nope"}]), Some(json!({"a": {}, "l": [1, 2]})))]
    #[case(json!([{"op": "test", "path": "/a"}]), None)]
    #[case(json!([{"op": "test", "path": "/nope", "value": 1}]), None)]
    #[case(json!([{"op": "remove", "path": "/l/2"}]), None)]
    #[case(json!([{"op": "add", "path": "/l/3", "value": 1}]), None)]
    #[case(json!([{"op": "add", "path": "/l/01", "value": 1}]), None)]
    #[case(json!([{"op": "add", "path": "/a/b/c", "value": 1}]), None)]
    #[case(json!([{"op": "replace", "path": "/nope", "value": 1}]), None)]
    #[case(json!([{"op": "remove", "path": ""}]), None)]
    #[case(json!([{"op": "add", "path": "/x", "value": 1}, {"op": "remove", "path": "/nope"}]), None)]
    fn operations_apply_or_nothing_does(#[case] patch: Value, #[case] outcome: Option<Value>) {
        let document = json!({"a": {}, "l": [1, 2]});
        assert_eq!(apply(&document, &patch).ok(), outcome);
    }

    #[rstest]
    #[case(json!([{"op": "remove", "path": "/nope"}]),
        BadPatch::Unfit(r#"remove operation does not apply: doc is missing path: "/nope": missing value"#.into()))]
    #[case(json!([{"op": "copy", "from": "/nope", "path": "/a"}]),
        BadPatch::Unfit(r#"copy operation does not apply: doc is missing path: "/nope": missing value"#.into()))]
    #[case(json!([{"op": "test", "path": "/l/0", "value": 2}]), BadPatch::Unfit("testing path /l/0 failed".into()))]
    #[case(json!([{"op": "test", "path": "/nope", "value": 2}]), BadPatch::Unfit("testing path /nope failed".into()))]
    #[case(json!([{"op": "move", "from": "/a", "path": "/a/b"}]), BadPatch::Unfit("a value cannot be moved into itself".into()))]
    fn what_does_not_fit_is_said_as_the_api_says_it(#[case] patch: Value, #[case] refusal: BadPatch) {
        assert_eq!(apply(&json!({"a": {}, "l": [1, 2]}), &patch), Err(refusal));
    }

    #[rstest]
    #[case(json!({"op": "add"}))]
    #[case(json!(["add"]))]
    #[case(json!([{"op": "shout", "path": "/a"}]))]
    #[case(json!([{"op": "add", "path": "/a"}]))]
    #[case(json!([{"op": "add", "path": "a", "value": 1}]))]
    #[case(json!([{"op": "remove"}]))]
    #[case(json!([{"op": "move", "path": "/a"}]))]
    fn what_is_no_patch_is_told_from_what_does_not_fit(#[case] patch: Value) {
        let refusal = apply(&json!({"a": {}}), &patch).unwrap_err();
        assert!(matches!(refusal, BadPatch::Unreadable(_)), "{refusal}");
    }
}
