//! What the rules of a schema say about a value.

use std::collections::HashMap;

use cel::{Context, Value as Cel, objects::Key};
use serde_json::Value;

use super::compiled::{Schema, Type};
use super::{field_path::join, functions, rule::Expression};
use crate::failure::Cause;

/// Whether a rule holds for a value that no schema describes; never panics, whatever the rule.
pub fn holds(rule: &str, value: &Value) -> Result<bool, String> {
    let expression = Expression::new(rule);
    let mut context = Context::with_env(functions::ENV.clone());
    context.add_variable_from_value("self", cel_of(None, value));
    match expression.run(&context)? {
        Cel::Bool(held) => Ok(held),
        _ => Err("the rule is not a condition".into()),
    }
}

/// What the rules say about a value; `old` is what it was before an update.
pub(crate) fn judge(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, value, old, "", &mut causes);
    causes
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if !schema.has_rules || old == Some(value) || (value.is_null() && schema.nullable) {
        return;
    }
    if !schema.rules.is_empty() {
        let mut context = Context::with_env(functions::ENV.clone());
        context.add_variable_from_value("self", cel_of(Some(schema), value));
        if let Some(old) = old {
            context.add_variable_from_value("oldSelf", cel_of(Some(schema), old));
        }
        for rule in &schema.rules {
            if rule.compares && old.is_none() {
                continue;
            }
            causes.extend(rule.judge(&context, schema.type_name(), path));
        }
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(below) = schema.field(key) {
                    node(below, value, old.and_then(|o| o.get(key)), &join(path, key), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    let before = schema.list.earlier(old, item);
                    node(below, item, before, &format!("{path}[{at}]"), causes);
                }
            }
        }
        _ => {}
    }
}

pub(crate) fn cel_of(schema: Option<&Schema>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            let fractional = schema.and_then(|s| s.kind) == Some(Type::Number);
            match number.as_i64() {
                Some(whole) if !fractional => Cel::Int(whole),
                _ => {
                    let float = number.as_f64().unwrap_or(0.0);
                    if schema.and_then(|s| s.kind) == Some(Type::Integer) {
                        Cel::Int(float as i64)
                    } else {
                        Cel::Float(float)
                    }
                }
            }
        }
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => {
            let below = schema.and_then(|s| s.items.as_deref());
            Cel::from(items.iter().map(|item| cel_of(below, item)).collect::<Vec<Cel>>())
        }
        Value::Object(map) => {
            let mut fields: HashMap<Key, Cel> = HashMap::with_capacity(map.len());
            for (key, value) in map {
                let below = schema.and_then(|s| s.field(key));
                let named = schema.is_some_and(|s| s.properties.contains_key(key));
                let key = if named { escape(key) } else { key.clone() };
                fields.insert(Key::from(key), cel_of(below, value));
            }
            Cel::from(fields)
        }
    }
}

/// The name of a field as expressions write it.
fn escape(name: &str) -> String {
    const RESERVED: &str = "true false null in as break const continue else for function if import let loop package \
                            namespace return var void while";
    if RESERVED.split(' ').any(|word| word == name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn said(rules: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = Schema::compile(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "properties": {
                "namespace": {"type": "string"}, "a": {"type": "string"}, "n": {"type": "integer"},
                "f": {"type": "number"}, "list": {"type": "array", "items": {"type": "object"}},
                "x-y": {"type": "string"},
            },
            "x-kubernetes-validations": rules}}}));
        let old = old.map(|old| json!({"spec": old}));
        judge(&schema, &json!({"spec": value}), old.as_ref())
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[rstest]
    #[case::message(json!([{"rule": "has(self.a)", "message": "a is needed"}]), json!({}),
        &["spec: Invalid value: \"object\": a is needed"])]
    #[case::no_message(json!([{"rule": "has(self.a)"}]), json!({}),
        &["spec: Invalid value: \"object\": failed rule: has(self.a)"])]
    #[case::missing_key(json!([{"rule": "self.a == 'x'", "message": "m"}]), json!({}),
        &["spec: Invalid value: \"object\": no such key: a evaluating rule: m"])]
    #[case::expression(json!([{"rule": "self.n > 3", "messageExpression": "'n is ' + string(self.n)"}]), json!({"n": 2}),
        &["spec: Invalid value: \"object\": n is 2"])]
    #[case::field_path(json!([{"rule": "self.n > 3", "message": "m", "fieldPath": ".n"}]), json!({"n": 2}),
        &["spec.n: Invalid value: \"object\": m"])]
    #[case::forbidden(json!([{"rule": "!has(self.a)", "message": "m", "reason": "FieldValueForbidden"}]), json!({"a": ""}),
        &["spec: Forbidden: m"])]
    #[case::reserved(json!([{"rule": "self.__namespace__ == 'x' && self.x__dash__y == 'z'"}]), json!({"namespace": "x", "x-y": "z"}), &[])]
    #[case::float(json!([{"rule": "self.f >= 1.0"}]), json!({"f": 1}), &[])]
    #[case::one_of(json!([{"rule": "[has(self.a),has(self.n)].filter(x,x==true).size() == 1"}]), json!({"n": 1}), &[])]
    #[case::unique(json!([{"rule": "self.list.all(p1, self.list.exists_one(p2, p1.name == p2.name))", "message": "m"}]),
        json!({"list": [{"name": "a"}, {"name": "a"}]}), &["spec: Invalid value: \"object\": m"])]
    #[case::duration(json!([{"rule": "duration(self.a) >= duration('100ms')"}]), json!({"a": "1s"}), &[])]
    #[case::short(json!([{"rule": "duration(self.a) >= duration('100ms')", "message": "m"}]), json!({"a": "1ms"}),
        &["spec: Invalid value: \"object\": m"])]
    #[case::lists(json!([{"rule": "self.a in ['x', 'y'] && self.a.startsWith('x') && self.a.matches('^x$')"}]), json!({"a": "x"}), &[])]
    #[case::url(json!([{"rule": "isURL(self.a) && url(self.a).getScheme() == 'https' && url(self.a).getHostname() == 'e.com'"}]),
        json!({"a": "https://e.com:80/x"}), &[])]
    #[case::quantity(json!([{"rule": "!quantity(self.a).isLessThan(quantity('16384'))"}]), json!({"a": "16Ki"}), &[])]
    #[case::address(json!([{"rule": "!isIP(self.a)"}]), json!({"a": "example.com"}), &[])]
    fn rules_speak_as_the_api_does(#[case] rules: Value, #[case] value: Value, #[case] sentences: &[&str]) {
        assert_eq!(said(rules, value, None), sentences);
    }

    #[test]
    fn rules_about_the_old_value_wait_for_an_update() {
        let rules = json!([{"rule": "self.n == oldSelf.n", "message": "n is immutable"}]);
        assert!(said(rules.clone(), json!({"n": 2}), None).is_empty());
        assert_eq!(
            said(rules.clone(), json!({"n": 2}), Some(json!({"n": 1}))),
            ["spec: Invalid value: \"object\": n is immutable"]
        );
        assert!(said(rules, json!({"n": 1, "a": ""}), Some(json!({"n": 1}))).is_empty());
    }

    const WORDS: &str = "self self.a has(self.b) all(x,x) [1] 't' 1 0 && || == < + / % ! ? : ( ) . size() matches('(') \
                         duration('1s') in -9223372036854775808 1.5 null [ ] { }";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn odd_rules_are_answered(text in "[ a-z0-9.()\\[\\]{}!?:=&|'\"+*<>-]{0,60}") {
            let _ = holds(&text, &json!({"a": [1, "b"]}));
        }

        #[test]
        fn likely_rules_are_answered(words in proptest::collection::vec(proptest::sample::select(WORDS.split(' ').collect::<Vec<_>>()), 0..12)) {
            let _ = holds(&words.join(" "), &json!({"a": [1, "b"]}));
        }
    }
}
