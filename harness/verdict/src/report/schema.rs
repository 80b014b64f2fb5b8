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
    fn wrong(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
        let each = |wanted: &Value| wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
        let unless = |holds: bool, what: String| if holds { vec![] } else { vec![format!("{at}: {what}")] };
        let below = |name: &str, value: &Value, schema: &Value| wrong(value, schema, root, &format!("{at}/{name}"));
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let of_keyword = |(keyword, wanted): (&String, &Value)| match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => vec![],
            "$ref" => {
                let target = wanted.as_str().and_then(|r| root.pointer(r.trim_start_matches('#')));
                wrong(value, target.unwrap_or_else(|| panic!("{wanted} leads nowhere")), root, at)
            }
            "type" => {
                let is_one = each(wanted).iter().any(|kind| is_of(value, kind.as_str().unwrap_or_default()));
                unless(is_one, format!("{value} is not of type {wanted}"))
            }
            "const" => unless(value == wanted, format!("{value} is not {wanted}")),
            "enum" => unless(each(wanted).contains(value), format!("{value} is none of {wanted}")),
            "minimum" => unless(!is_less(value, wanted), format!("{value} is below {wanted}")),
            "maximum" => unless(!is_less(wanted, value), format!("{value} is above {wanted}")),
            "anyOf" | "oneOf" => {
                let fits = each(wanted).iter().any(|one| wrong(value, one, root, at).is_empty());
                unless(fits, format!("{value} fits none of {keyword}"))
            }
            "required" => {
                let names = each(wanted);
                let names = names.iter().filter_map(Value::as_str);
                names.flat_map(|name| unless(value.get(name).is_some(), format!("{name} is missing"))).collect()
            }
            "properties" => {
                let of_field = |(name, schema): (String, Value)| Some(below(&name, value.get(&name)?, &schema));
                fields(wanted).into_iter().filter_map(of_field).flatten().collect()
            }
            "additionalProperties" => {
                let others = fields(value).into_iter().filter(|(name, _)| schema["properties"].get(name).is_none());
                others.flat_map(|(name, value)| below(&name, &value, wanted)).collect()
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items.flat_map(|(index, item)| below(&index.to_string(), item, wanted)).collect()
            }
            unknown => panic!("this test does not know the keyword {unknown}"),
        };
        schema.as_object().into_iter().flatten().flat_map(of_keyword).collect()
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
        let schema = schema();
        wrong(report, &schema, &schema, "")
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
