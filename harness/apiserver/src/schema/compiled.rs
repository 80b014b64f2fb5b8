//! The compiled form of a structural schema.

use std::{collections::BTreeMap, sync::OnceLock};

use regex::Regex;
use serde_json::Value;

use super::rule::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

const TYPES: [(&str, Type); 6] = [
    ("object", Type::Object),
    ("array", Type::Array),
    ("string", Type::String),
    ("integer", Type::Integer),
    ("number", Type::Number),
    ("boolean", Type::Boolean),
];

/// How the items of a list belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    /// Each scalar has its own owner.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<String>),
}

impl ListType {
    /// The item of the old list that this item was.
    pub(super) fn earlier<'a>(&self, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
        let Self::Map(keys) = self else { return None };
        old?.as_array()?.iter().find(|o| keys.iter().all(|k| o.get(k) == item.get(k)))
    }
}

#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), regex: OnceLock::new() }
    }

    /// Whether a text matches; a pattern that does not compile matches all.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.get_or_init(|| Regex::new(&self.text).ok()).as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

#[derive(Clone, Debug)]
pub struct Bound {
    pub value: serde_json::Number,
    pub exclusive: bool,
}

#[derive(Debug, Default)]
pub struct Schema {
    pub kind: Option<Type>,
    pub nullable: bool,
    /// Whether both integers and strings are allowed.
    pub int_or_string: bool,
    /// Whether fields that are not named here are kept.
    pub open: bool,
    /// Whether the value is an object with its own kind.
    pub embedded: bool,
    pub properties: BTreeMap<String, Schema>,
    /// The schema of fields that are not named.
    pub additional: Option<Box<Schema>>,
    pub items: Option<Box<Schema>>,
    pub required: Vec<String>,
    pub default: Option<Value>,
    pub values: Option<Vec<Value>>,
    pub pattern: Option<Pattern>,
    pub format: Option<String>,
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    pub list: ListType,
    /// Whether an object has one owner as a whole.
    pub atomic: bool,
    /// The field by which strategic merges tell items apart.
    pub merge_key: Option<String>,
    pub rules: Vec<Rule>,
    /// Whether this node or one below has rules.
    pub has_rules: bool,
}

/// Deeper schemas are cut off: no real one comes near.
const DEPTH: usize = 64;

impl Schema {
    /// Compiles a schema; what it does not know it leaves out.
    pub fn compile(source: &Value) -> Self {
        Self::at(source, DEPTH)
    }

    fn at(source: &Value, depth: usize) -> Self {
        let Some(map) = source.as_object().filter(|_| depth > 0) else {
            return Self { open: true, ..Self::default() };
        };
        let below = |value: &Value| Self::at(value, depth - 1);
        let list = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
        let strings = |key: &str| list(key).filter_map(|v| v.as_str().map(str::to_owned)).collect();
        let yes = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let count = |key: &str| map.get(key).and_then(Value::as_u64);
        let text = |key: &str| map.get(key).and_then(Value::as_str);
        let bound = |key: &str, exclusive: &str| match map.get(key) {
            Some(Value::Number(value)) => Some(Bound { value: value.clone(), exclusive: yes(exclusive) }),
            _ => None,
        };
        let mut schema = Self {
            kind: TYPES.iter().find(|(name, _)| Some(*name) == text("type")).map(|(_, kind)| *kind),
            nullable: yes("nullable"),
            int_or_string: yes("x-kubernetes-int-or-string"),
            open: yes("x-kubernetes-preserve-unknown-fields"),
            embedded: yes("x-kubernetes-embedded-resource"),
            required: strings("required"),
            default: map.get("default").cloned(),
            values: map.get("enum").and_then(Value::as_array).cloned(),
            pattern: text("pattern").map(Pattern::new),
            format: text("format").map(str::to_owned),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: yes("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: list("allOf").map(below).collect(),
            any_of: list("anyOf").map(below).collect(),
            one_of: list("oneOf").map(below).collect(),
            not: map.get("not").map(|value| Box::new(below(value))),
            items: map.get("items").map(|value| Box::new(below(value))),
            list: match text("x-kubernetes-list-type") {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(strings("x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            atomic: text("x-kubernetes-map-type") == Some("atomic"),
            merge_key: text("x-kubernetes-patch-merge-key").map(str::to_owned),
            rules: list("x-kubernetes-validations").filter_map(Rule::read).collect(),
            ..Self::default()
        };
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                schema.properties.insert(name.clone(), below(property));
            }
        }
        match map.get("additionalProperties") {
            Some(Value::Bool(true)) => schema.open = true,
            Some(value @ Value::Object(_)) => schema.additional = Some(Box::new(below(value))),
            _ => {}
        }
        schema.has_rules = !schema.rules.is_empty()
            || schema.properties.values().any(|s| s.has_rules)
            || schema.additional.as_ref().is_some_and(|s| s.has_rules)
            || schema.items.as_ref().is_some_and(|s| s.has_rules);
        schema
    }

    /// The schema of a field, named or not.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// The type as messages name it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Some(kind) => TYPES.iter().find(|(_, of)| *of == kind).map_or("object", |(name, _)| name),
            None if self.int_or_string => "integer-or-string",
            None => "object",
        }
    }
}
