//! What a gateway's controller makes of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use apiserver::Kind;
use serde_json::Value;

use super::object::Name;
use crate::dataplane::routing::Table;

/// A status that should be.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusOf {
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: Name,
    /// The whole status. Conditions carry no times; the controller keeps or sets them.
    pub status: Value,
}

/// What a dialect makes of a snapshot.
#[derive(Debug, Default)]
pub struct Translation {
    /// By Gateway.
    pub tables: BTreeMap<Name, Arc<Table>>,
    /// Objects that should exist. Those without an owner reference are deleted when they are no longer wanted.
    pub children: Vec<Value>,
    /// Statuses that should be.
    pub statuses: Vec<StatusOf>,
    /// Finalizers that objects should carry.
    pub finalizers: Vec<(Kind, Name, &'static str)>,
}
