//! What a gateway's controller makes of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use apiserver::Kind;
use serde_json::Value;

use super::object::{self, Name};
use crate::dataplane::routing::Table;

#[derive(Clone, Debug, PartialEq)]
pub struct StatusOf {
    pub kind: Kind,
    pub name: Name,
    /// The whole status. Conditions carry no times; the controller keeps or sets them.
    pub status: Value,
}

impl StatusOf {
    pub fn new(kind: Kind, object: &Value, status: Value) -> Self {
        Self { kind, name: object::key(object), status }
    }
}

#[derive(Debug, Default)]
pub struct Translation {
    /// By Gateway.
    pub tables: BTreeMap<Name, Arc<Table>>,
    /// Objects that should exist. Those without an owner reference are deleted when they are no longer wanted.
    pub children: Vec<Value>,
    pub statuses: Vec<StatusOf>,
    pub finalizers: Vec<(Kind, Name, &'static str)>,
}
