//! Kinds: how objects are called by controllers, whatever version they were written in.

use std::{borrow::Cow, fmt};

/// A kind of object: its API group (empty for the core group) and its kind, without a version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Kind {
    pub group: Cow<'static, str>,
    /// The kind in CamelCase, `HTTPRoute`.
    pub kind: Cow<'static, str>,
}

impl Kind {
    /// A kind known when the program is written.
    pub const fn of(group: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), kind: Cow::Borrowed(kind) }
    }

    /// A kind that is read from an object or a reference.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: Cow::Owned(group.into()), kind: Cow::Owned(kind.into()) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

/// Kinds that Kubernetes itself has.
pub mod kinds {
    use super::Kind;

    pub const NAMESPACE: Kind = Kind::of("", "Namespace");
    pub const POD: Kind = Kind::of("", "Pod");
    pub const SERVICE: Kind = Kind::of("", "Service");
    pub const CONFIG_MAP: Kind = Kind::of("", "ConfigMap");
    pub const SECRET: Kind = Kind::of("", "Secret");
    pub const SERVICE_ACCOUNT: Kind = Kind::of("", "ServiceAccount");
    pub const NODE: Kind = Kind::of("", "Node");
    pub const EVENT: Kind = Kind::of("", "Event");
    pub const ENDPOINT_SLICE: Kind = Kind::of("discovery.k8s.io", "EndpointSlice");
    pub const DEPLOYMENT: Kind = Kind::of("apps", "Deployment");
    pub const REPLICA_SET: Kind = Kind::of("apps", "ReplicaSet");
    pub const CUSTOM_RESOURCE_DEFINITION: Kind = Kind::of("apiextensions.k8s.io", "CustomResourceDefinition");
}
