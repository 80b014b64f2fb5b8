//! Our own definitions: built-in kinds and the custom resources of the guides, read once in a process.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::definition;
use super::kind::{Kind, kinds};
use super::meta;
use super::resource::Resource;
use super::state::{State, stamp};

/// A definition that is part of this program.
pub(crate) struct Own {
    pub resource: Arc<Resource>,
    definition: Value,
}

const COMMON: &str = include_str!("../schemas/common.yaml");
const BUILT_IN: &[&str] = &[include_str!("../schemas/built-in.yaml")];
const CUSTOM: &[&str] = &[
    include_str!("../schemas/gateway-api.yaml"),
    include_str!("../schemas/inference.yaml"),
    include_str!("../schemas/kserve.yaml"),
    include_str!("../schemas/ai-gateway.yaml"),
    include_str!("../schemas/envoy-gateway.yaml"),
    include_str!("../schemas/agentgateway.yaml"),
];

/// All definitions of our own.
pub(crate) static DEFINITIONS: LazyLock<Vec<Own>> = LazyLock::new(|| {
    let common: Value = serde_saphyr::from_str(COMMON).expect("our own pieces are YAML");
    let read = |text: &str, custom: bool| -> Vec<Own> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("our own definitions are YAML");
        documents
            .iter()
            .filter(|document| !document.is_null())
            .map(|document| {
                let definition = spell_out(document, &common);
                Own {
                    resource: Arc::new(Resource::read(&definition, custom).expect("our own definitions are complete")),
                    definition,
                }
            })
            .collect()
    };
    let built_in = BUILT_IN.iter().flat_map(|text| read(text, false));
    let custom = CUSTOM.iter().flat_map(|text| read(text, true));
    built_in.chain(custom).collect()
});

/// Serves our own definitions; custom ones are objects of the world too.
pub(crate) fn install(state: &mut State, now: jiff::Timestamp, wanted: impl Fn(&Kind) -> bool) {
    for own in DEFINITIONS.iter() {
        if own.resource.custom && !wanted(&own.resource.kind) {
            continue;
        }
        state.serve(own.resource.clone());
        if own.resource.custom {
            let mut object = own.definition.clone();
            definition::complete(&mut object);
            let uid = state.new_uid();
            let meta = meta::meta_mut(&mut object);
            meta.insert("uid".into(), json!(uid));
            meta.insert("creationTimestamp".into(), json!(stamp(now)));
            meta.insert("generation".into(), json!(1));
            definition::establish(&mut object, &stamp(now));
            let name = meta::name(&object).to_owned();
            state.commit(&kinds::CUSTOM_RESOURCE_DEFINITION, (String::new(), name), Some(object));
        }
    }
}

/// A definition in the short form of `src/schemas/README.md`, as a CustomResourceDefinition.
fn spell_out(short: &Value, common: &Value) -> Value {
    let mut pieces = common.as_object().cloned().unwrap_or_default();
    for (name, piece) in short["pieces"].as_object().into_iter().flatten() {
        pieces.insert(name.clone(), piece.clone());
    }
    let mut schema = Speller { pieces: &pieces }.node(&short["schema"]);
    if schema["properties"].is_null() {
        schema["properties"] = json!({});
    }
    for (field, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][field] = json!({"type": kind});
    }
    let columns: Vec<Value> = short["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!({"name": c[0], "type": c[1], "jsonPath": c[2], "priority": c[3].as_i64().unwrap_or(0)}))
        .collect();
    let list = short["versions"].as_array().cloned().unwrap_or_default();
    let marked = list.iter().any(|v| v["storage"] == Value::Bool(true));
    let versions: Vec<Value> = list
        .iter()
        .enumerate()
        .map(|(at, version)| {
            let storage = if marked { version["storage"] == Value::Bool(true) } else { at == 0 };
            let mut entry = json!({"name": version["name"], "served": true, "storage": storage,
                "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns});
            if let Some(text) = version["deprecated"].as_str() {
                entry["deprecated"] = json!(true);
                entry["deprecationWarning"] = json!(text);
            }
            if short["status"] != "absent" {
                entry["subresources"] = json!({"status": {}});
            }
            entry
        })
        .collect();
    let group = short["group"].as_str().unwrap_or("");
    let plural = short["plural"].as_str().unwrap_or("");
    let mut names = json!({"kind": short["kind"], "plural": plural});
    for (field, name) in [("short", "shortNames"), ("categories", "categories")] {
        if short[field].is_array() {
            names[name] = short[field].clone();
        }
    }
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": names,
            "scope": short["scope"].as_str().unwrap_or("Namespaced"),
            "versions": versions,
        },
    });
    if short["generation"] == Value::Bool(true) {
        definition["spec"]["x-generation"] = json!(true);
    }
    definition
}

struct Speller<'a> {
    pieces: &'a Map<String, Value>,
}

impl Speller<'_> {
    /// A node of the short form as a node of a schema.
    fn node(&self, short: &Value) -> Value {
        match short {
            Value::String(word) => self.word(word),
            Value::Object(map) => self.map(map),
            other => panic!("our own definitions have no node like {other}"),
        }
    }

    fn word(&self, word: &str) -> Value {
        match word {
            "string" | "integer" | "number" | "boolean" => json!({"type": word}),
            "any" => json!({"x-kubernetes-preserve-unknown-fields": true}),
            piece => match self.pieces.get(piece) {
                Some(short) => self.node(short),
                None => panic!("our own definitions use {piece:?}, which is not there"),
            },
        }
    }

    fn map(&self, map: &Map<String, Value>) -> Value {
        let mut node = match map.get("use").and_then(Value::as_str) {
            Some(piece) => self.word(piece),
            None => json!({}),
        };
        for (key, value) in map {
            match key.as_str() {
                "use" | "keys" => {}
                "fields" | "more" => self.fields(&mut node, value),
                "others" => {
                    node["type"] = json!("object");
                    for name in words(value) {
                        if node["properties"][name].is_null() {
                            node["properties"][name] = self.word("any");
                        }
                    }
                }
                "values" => {
                    node["type"] = json!("object");
                    node["additionalProperties"] = self.node(value);
                }
                "items" => {
                    node["type"] = json!("array");
                    node["items"] = self.node(value);
                }
                "list" => {
                    node["x-kubernetes-list-type"] = value.clone();
                    if let Some(keys) = map.get("keys") {
                        node["x-kubernetes-list-map-keys"] = keys.clone();
                    }
                }
                "atomic" => node["x-kubernetes-map-type"] = json!("atomic"),
                "rules" => self.rules(&mut node, value),
                "exactly-one" => count(&mut node, value, "exactly one", "== 1", "must"),
                "at-least-one" => count(&mut node, value, "at least one", ">= 1", "must"),
                "at-most-one" => count(&mut node, value, "at most one", "<= 1", "may"),
                "matching-field" => matching(&mut node, value),
                _ => node[key] = value.clone(),
            }
        }
        node
    }

    fn fields(&self, node: &mut Value, fields: &Value) {
        node["type"] = json!("object");
        for (name, field) in fields.as_object().into_iter().flatten() {
            let plain = name.trim_end_matches('!');
            node["properties"][plain] = self.node(field);
            if plain != name {
                push(node, "required", json!(plain));
            }
        }
    }

    fn rules(&self, node: &mut Value, rules: &Value) {
        let rules = match rules.as_str() {
            Some(piece) => self.pieces.get(piece).unwrap_or(&Value::Null),
            None => rules,
        };
        for pair in rules.as_array().into_iter().flatten() {
            rule(node, &pair[0], pair[1].clone());
        }
    }
}

fn words(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn push(node: &mut Value, key: &str, value: Value) {
    match node[key].as_array_mut() {
        Some(list) => list.push(value),
        None => node[key] = json!([value]),
    }
}

fn rule(node: &mut Value, rule: &Value, message: Value) {
    push(node, "x-kubernetes-validations", json!({"rule": rule, "message": message}));
}

fn count(node: &mut Value, names: &Value, word: &str, comparison: &str, must: &str) {
    let names: Vec<&str> = words(names).collect();
    let terms: Vec<String> = names.iter().map(|n| format!("has(self.{n})")).collect();
    rule(
        node,
        &json!(format!("[{}].filter(x, x).size() {comparison}", terms.join(", "))),
        json!(format!("{word} of the fields in [{}] {must} be set", names.join(" "))),
    );
}

/// A field by name for each value of another field, there exactly when that has the value.
fn matching(node: &mut Value, pairs: &Value) {
    let by = pairs[0].as_str().unwrap_or("type");
    for (value, field) in pairs[1].as_object().into_iter().flatten() {
        let field = field.as_str().unwrap_or("");
        rule(
            node,
            &json!(format!("!has(self.{field}) || self.{by} == '{value}'")),
            json!(format!("filter.{field} must be nil if the filter.{by} is not {value}")),
        );
        rule(
            node,
            &json!(format!("has(self.{field}) || self.{by} != '{value}'")),
            json!(format!("filter.{field} must be specified for {value} filter.{by}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_becomes_a_schema() {
        let common = json!({"name": {"type": "string", "minLength": 1}});
        let short = json!({"kind": "K", "group": "g.io", "plural": "ks", "versions": [{"name": "v1"}],
            "schema": {"fields": {"spec!": {"fields": {"a!": "name", "b": {"use": "name", "default": "x"}},
                "others": ["c"], "exactly-one": ["a", "c"]}}}});
        let definition = spell_out(&short, &common);
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["required"], json!(["a"]));
        assert_eq!(spec["properties"]["b"], json!({"type": "string", "minLength": 1, "default": "x"}));
        assert_eq!(spec["x-kubernetes-validations"][0]["message"], "exactly one of the fields in [a c] must be set");
    }
}
