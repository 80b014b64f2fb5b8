//! The JSON schema of `report.json`, made of the report's own types and published beside them.

use serde_json::Value;

use super::Report;

/// The schema. It is published as `harness/verdict/schema/report-v1.json`.
pub fn schema() -> Value {
    schemars::schema_for!(Report).to_value()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::render::tests_support::{everything, hostile};

    /// What of the value is not as the schema has it. It knows the keywords that the published schema uses, and no others.
    fn wrong(value: &Value, schema: &Value, root: &Value, at: &str, found: &mut Vec<String>) {
        let told = |what: String| format!("{at}: {what}");
        for (keyword, wanted) in schema.as_object().into_iter().flatten() {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "format" | "default" => {}
                "$ref" => {
                    let target = wanted.as_str().and_then(|r| root.pointer(r.trim_start_matches('#')));
                    wrong(value, target.unwrap_or_else(|| panic!("{wanted} leads nowhere")), root, at, found);
                    return wrong_beside(value, schema, root, at, found);
                }
                "type" => {
                    let types = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                    if !types.iter().any(|t| is_of(value, t.as_str().unwrap_or_default())) {
                        found.push(told(format!("{value} is not of type {wanted}")));
                    }
                }
                "const" if value != wanted => found.push(told(format!("{value} is not {wanted}"))),
                "const" => {}
                "enum" if !wanted.as_array().is_some_and(|all| all.contains(value)) => {
                    found.push(told(format!("{value} is none of {wanted}")));
                }
                "enum" => {}
                "minimum" if is_less(value, wanted) => found.push(told(format!("{value} is below {wanted}"))),
                "maximum" if is_less(wanted, value) => found.push(told(format!("{value} is above {wanted}"))),
                "minimum" | "maximum" => {}
                "anyOf" | "oneOf" => {
                    let fits = |one: &&Value| {
                        let mut found = Vec::new();
                        wrong(value, one, root, at, &mut found);
                        found.is_empty()
                    };
                    if wanted.as_array().into_iter().flatten().filter(fits).count() == 0 {
                        found.push(told(format!("{value} fits none of {keyword}")));
                    }
                }
                "required" => {
                    let missing = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                    missing
                        .filter(|name| value.get(name).is_none())
                        .for_each(|name| found.push(told(format!("{name} is missing"))));
                }
                "properties" => {
                    for (name, schema) in wanted.as_object().into_iter().flatten() {
                        if let Some(value) = value.get(name) {
                            wrong(value, schema, root, &format!("{at}/{name}"), found);
                        }
                    }
                }
                "additionalProperties" => {
                    let named = |name: &str| schema["properties"].get(name).is_some();
                    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !named(name)) {
                        wrong(value, wanted, root, &format!("{at}/{name}"), found);
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        wrong(value, wanted, root, &format!("{at}/{index}"), found);
                    }
                }
                unknown => panic!("this test does not know the keyword {unknown}"),
            }
        }
    }

    fn wrong_beside(value: &Value, schema: &Value, root: &Value, at: &str, found: &mut Vec<String>) {
        let mut beside = schema.clone();
        beside.as_object_mut().map(|fields| fields.remove("$ref"));
        wrong(value, &beside, root, at, found);
    }

    fn is_of(value: &Value, kind: &str) -> bool {
        match kind {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => false,
        }
    }

    fn is_less(a: &Value, b: &Value) -> bool {
        a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a < b)
    }

    fn faults(report: &Value) -> Vec<String> {
        let (schema, mut found) = (schema(), Vec::new());
        wrong(report, &schema, &schema, "", &mut found);
        found
    }

    #[test]
    fn what_is_published_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/report-v1.json");
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        let fresh = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        assert!(
            published == fresh,
            "{} is old; write it with: cargo xtask report --schema > {}",
            path.display(),
            path.display()
        );
    }

    #[test]
    fn reports_are_what_the_schema_says() {
        for world in [everything(), hostile()] {
            assert_eq!(faults(&serde_json::to_value(world.report()).unwrap()), Vec::<String>::new());
        }
    }

    #[rstest]
    #[case::missing(|r: &mut Value| _ = r["run"].as_object_mut().unwrap().remove("exit"), "/run: exit is missing")]
    #[case::wrong_type(|r: &mut Value| r["run"]["exit"] = json!("0"), "/run/exit: \"0\" is not of type")]
    #[case::out_of_range(|r: &mut Value| r["run"]["exit"] = json!(256), "/run/exit: 256 is above 255")]
    #[case::unknown_verdict(|r: &mut Value| r["checks"][0]["verdict"] = json!("good"), "/checks/0/verdict: \"good\" fits none")]
    #[case::in_a_list(|r: &mut Value| r["checks"][0]["clauses"][0]["got"] = json!(1), "/checks/0/clauses/0/got: 1 is not of type")]
    fn a_report_that_is_not_is_told(#[case] spoil: fn(&mut Value), #[case] said: &str) {
        let mut report = serde_json::to_value(everything().report()).unwrap();
        spoil(&mut report);
        let found = faults(&report);
        assert!(found.len() == 1 && found[0].starts_with(said), "{found:?}");
    }
}
