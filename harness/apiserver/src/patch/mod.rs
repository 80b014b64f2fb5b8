//! Patches: how an object becomes another one.

pub mod json;
pub mod strategic;

/// JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces.
pub use json_patch::merge;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn null_removes_and_lists_are_replaced() {
        let mut target = json!({"a": {"b": 1, "c": [1]}, "d": 1});
        merge(&mut target, &json!({"a": {"b": null, "c": [2], "e": {"f": null}}, "d": {"x": 1}}));
        assert_eq!(target, json!({"a": {"c": [2], "e": {}}, "d": {"x": 1}}));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-z$/~0-9]{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::btree_map("[a-c$]{0,2}|op|path|value|from|\\$patch", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn odd_patches_are_answered(target in any_json(), patch in any_json()) {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            let _ = json::apply(&target, &patch);
            let _ = strategic::apply(None, &target, &patch);
        }

        /// Merging a value over anything gives the value, but for its nulls.
        #[test]
        fn merging_an_object_without_nulls_keeps_its_fields(key in "[a-z]{1,3}", number in any::<i64>(), target in any_json()) {
            let mut merged = target;
            merge(&mut merged, &json!({key.as_str(): number}));
            prop_assert_eq!(&merged[key.as_str()], &json!(number));
        }
    }
}
