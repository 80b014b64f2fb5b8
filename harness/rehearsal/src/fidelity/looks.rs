//! Looks: what a recording says of an object.

use serde::Deserialize;
use serde_json::Value;

use super::rules::{Rule, TextRule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Looks {
    pub absent: Option<bool>,
    /// Conditions: of its status, or of the one parent or ancestor there.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Every entry of `status.parents`.
    pub parents: Option<Vec<StatusEntry>>,
    /// Every entry of `status.ancestors`.
    pub ancestors: Option<Vec<StatusEntry>>,
    /// Every entry of `status.listeners`.
    pub listeners: Option<Vec<StatusEntry>>,
    /// What its status has; lists are whole.
    pub status: Option<Value>,
    /// What it has; lists are whole.
    #[serde(rename = "match")]
    pub has: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: Option<Rule<TextRule>>,
    pub reason: Option<Rule<TextRule>>,
    pub message: Option<Rule<TextRule>>,
    /// Whether it is of the object's newest generation.
    pub current: Option<bool>,
    #[serde(default)]
    pub absent: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StatusEntry {
    /// What `parentRef` or `ancestorRef` has.
    #[serde(rename = "ref")]
    pub reference: Option<Value>,
    pub name: Option<String>,
    pub controller_name: Option<Rule<TextRule>>,
    pub attached_routes: Option<u64>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
