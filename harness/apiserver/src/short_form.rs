//! Definitions in a short form (`schemas/README.md`): the built-in kinds, and custom ones that the server is given.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::state::{State, stamp};
use super::{definition, kind::kinds, meta, resource::Resource};

/// Definitions of custom resources that a store serves from its beginning. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Definitions(Arc<[Definition]>);

/// One kind: what is served, and the CustomResourceDefinition that it was read from.
#[derive(Debug)]
struct Definition {
    resource: Arc<Resource>,
    object: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum BadShortForm {
    #[error("definitions in the short form: not YAML")]
    Yaml(#[from] serde_saphyr::Error),
    #[error("definition of {kind}: {why}")]
    Definition { kind: String, why: String },
}

const PIECES: &str = include_str!("schemas/pieces.yaml");

static BUILT_IN: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    read("", &[include_str!("schemas/built-in.yaml")], Origin::BuiltIn).expect("the built-in kinds can be read")
});

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    BuiltIn,
    Custom,
}

impl Definitions {
    /// Reads `documents` of the short form. `pieces` are nodes by name that they share, beside those of the built-in kinds.
    pub fn read(pieces: &str, documents: &[&str]) -> Result<Self, BadShortForm> {
        Ok(Self(read(pieces, documents, Origin::Custom)?.into()))
    }
}

fn read(pieces: &str, documents: &[&str], origin: Origin) -> Result<Vec<Definition>, BadShortForm> {
    let mut known: Map<String, Value> = serde_saphyr::from_str(PIECES)?;
    if !pieces.is_empty() {
        known.extend(serde_saphyr::from_str::<Map<String, Value>>(pieces)?);
    }
    let mut definitions = Vec::new();
    for text in documents {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        for short in documents.iter().filter(|document| !document.is_null()) {
            let bad = |why: String| BadShortForm::Definition { kind: short["kind"].to_string(), why };
            let object = expand(short, &known).map_err(bad)?;
            let resource = Resource::read(&object, origin == Origin::Custom).map_err(|error| bad(error.to_string()))?;
            definitions.push(Definition { resource: Arc::new(resource), object });
        }
    }
    Ok(definitions)
}

/// Serves the built-in kinds and these; custom ones are objects of the world too.
pub(crate) fn install(state: &mut State, now: jiff::Timestamp, custom: &Definitions) {
    for built_in in BUILT_IN.iter() {
        state.serve(built_in.resource.clone());
    }
    for definition in custom.0.iter() {
        state.serve(definition.resource.clone());
        let mut object = definition.object.clone();
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

/// A definition in the short form as a CustomResourceDefinition.
fn expand(short: &Value, pieces: &Map<String, Value>) -> Result<Value, String> {
    let mut pieces = pieces.clone();
    for (name, piece) in short["pieces"].as_object().into_iter().flatten() {
        pieces.insert(name.clone(), piece.clone());
    }
    let mut schema = Pieces(&pieces).node(&short["schema"])?;
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
    Ok(definition)
}

/// Nodes by name.
struct Pieces<'a>(&'a Map<String, Value>);

impl Pieces<'_> {
    /// A node of the short form as a node of a schema.
    fn node(&self, short: &Value) -> Result<Value, String> {
        match short {
            Value::String(word) => self.word(word),
            Value::Object(map) => self.map(map),
            other => Err(format!("{other} is no node: write a word or a map")),
        }
    }

    fn word(&self, word: &str) -> Result<Value, String> {
        match word {
            "string" | "integer" | "number" | "boolean" => Ok(json!({"type": word})),
            "any" => Ok(json!({"x-kubernetes-preserve-unknown-fields": true})),
            piece => match self.0.get(piece) {
                Some(short) => self.node(short),
                None => Err(format!("there is no piece {piece:?}")),
            },
        }
    }

    fn map(&self, map: &Map<String, Value>) -> Result<Value, String> {
        let mut node = match map.get("use").and_then(Value::as_str) {
            Some(piece) => self.word(piece)?,
            None => json!({}),
        };
        for (key, value) in map {
            match key.as_str() {
                "use" | "keys" => {}
                "fields" | "more" => self.fields(&mut node, value)?,
                "others" => {
                    node["type"] = json!("object");
                    for name in strings(value) {
                        if node["properties"][name].is_null() {
                            node["properties"][name] = self.word("any")?;
                        }
                    }
                }
                "values" => {
                    node["type"] = json!("object");
                    node["additionalProperties"] = self.node(value)?;
                }
                "items" => {
                    node["type"] = json!("array");
                    node["items"] = self.node(value)?;
                }
                "list" => {
                    node["x-kubernetes-list-type"] = value.clone();
                    if let Some(keys) = map.get("keys") {
                        node["x-kubernetes-list-map-keys"] = keys.clone();
                    }
                }
                "atomic" => node["x-kubernetes-map-type"] = json!("atomic"),
                "rules" => self.rules(&mut node, value)?,
                "exactly-one" => count(&mut node, value, "exactly one", "== 1", "must"),
                "at-least-one" => count(&mut node, value, "at least one", ">= 1", "must"),
                "at-most-one" => count(&mut node, value, "at most one", "<= 1", "may"),
                "matching-field" => matching(&mut node, value),
                _ => node[key] = value.clone(),
            }
        }
        Ok(node)
    }

    fn fields(&self, node: &mut Value, fields: &Value) -> Result<(), String> {
        node["type"] = json!("object");
        for (name, field) in fields.as_object().into_iter().flatten() {
            let plain = name.trim_end_matches('!');
            node["properties"][plain] = self.node(field)?;
            if plain != name {
                push(node, "required", json!(plain));
            }
        }
        Ok(())
    }

    fn rules(&self, node: &mut Value, rules: &Value) -> Result<(), String> {
        let rules = match rules.as_str() {
            Some(piece) => self.0.get(piece).ok_or_else(|| format!("there is no piece {piece:?}"))?,
            None => rules,
        };
        for pair in rules.as_array().into_iter().flatten() {
            rule(node, &pair[0], pair[1].clone());
        }
        Ok(())
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
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
    let names: Vec<&str> = strings(names).collect();
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
    use rstest::rstest;

    #[test]
    fn the_short_form_becomes_a_schema() {
        let common = json!({"name": {"type": "string", "minLength": 1}});
        let short = json!({"kind": "K", "group": "g.io", "plural": "ks", "versions": [{"name": "v1"}],
            "schema": {"fields": {"spec!": {"fields": {"a!": "name", "b": {"use": "name", "default": "x"}},
                "others": ["c"], "exactly-one": ["a", "c"]}}}});
        let definition = expand(&short, common.as_object().unwrap()).unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["required"], json!(["a"]));
        assert_eq!(spec["properties"]["b"], json!({"type": "string", "minLength": 1, "default": "x"}));
        assert_eq!(spec["x-kubernetes-validations"][0]["message"], "exactly one of the fields in [a c] must be set");
    }
    #[rstest]
    #[case::no_yaml("kind: [", "not YAML")]
    #[case::no_piece(
        "{kind: K, group: g.io, plural: ks, schema: {fields: {spec: nmae}}}",
        "definition of \"K\": there is no piece \"nmae\""
    )]
    #[case::no_node("{kind: K, group: g.io, plural: ks, schema: 3}", "definition of \"K\": 3 is no node")]
    #[case::no_version(
        "{kind: K, group: g.io, plural: ks, schema: any}",
        "definition of \"K\": definition has no usable storage version"
    )]
    fn what_cannot_be_read_is_named(#[case] text: &str, #[case] said: &str) {
        let error = Definitions::read("", &[text]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
