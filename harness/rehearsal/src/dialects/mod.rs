//! The dialects: each gateway's resources, translated to the one routing model, with its own statuses, words and order.
//!
//! A dialect is a folder here and a row of [`ALL`]. Its controller is pure: it reads a [`Snapshot`] of objects and says what
//! should be ([`Translation`]); the world's controllers carry it out.

mod agentgateway;
pub mod attachments;
mod envoy_ai_gateway;
pub mod gateway_api;
pub mod object;
pub mod pools;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use apiserver::Kind;
use serde_json::Value;

use crate::dataplane::routing::Table;

/// Namespace (empty for cluster-wide kinds) and name.
pub type Name = (String, String);

/// All objects of a world at one moment. It knows which kinds were asked for, so that who asked need not ask again
/// before one of them has changed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: BTreeMap<Kind, OfKind>,
    asked: RefCell<BTreeSet<Kind>>,
}

/// The objects of a kind, and which change was the last of them.
#[derive(Clone, Debug, Default)]
struct OfKind {
    version: u64,
    objects: BTreeMap<Name, Arc<Value>>,
}

impl OfKind {
    fn extend(&mut self, objects: impl IntoIterator<Item = Arc<Value>>) {
        self.objects.extend(objects.into_iter().map(|o| (object::key(&o), o)));
    }
}

impl Snapshot {
    /// Takes in objects of a kind.
    pub fn extend(&mut self, kind: &Kind, objects: impl IntoIterator<Item = Arc<Value>>) {
        self.objects.entry(kind.clone()).or_default().extend(objects);
    }

    /// Takes in all objects of a kind, in place of those that were known, where this change of them was not known yet.
    pub fn renew<O: IntoIterator<Item = Arc<Value>>>(
        &mut self,
        kind: &Kind,
        version: u64,
        objects: impl FnOnce() -> O,
    ) {
        if self.version(kind) != version {
            let mut fresh = OfKind { version, ..OfKind::default() };
            fresh.extend(objects());
            self.objects.insert(kind.clone(), fresh);
        }
    }

    /// The last change of a kind's objects that is known.
    pub fn version(&self, kind: &Kind) -> u64 {
        self.objects.get(kind).map_or(0, |k| k.version)
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.ask(kind);
        self.objects.get(kind)?.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All objects of a kind, by namespace and name.
    pub fn all<'a>(&'a self, kind: &Kind) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.ask(kind);
        self.objects.get(kind).into_iter().flat_map(|k| k.objects.values())
    }

    /// Remembers that a kind was asked for.
    pub fn ask(&self, kind: &Kind) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(kind) {
            asked.insert(kind.clone());
        }
    }

    /// The kinds that were asked for since this was last called.
    pub fn take_asked(&self) -> BTreeSet<Kind> {
        self.asked.take()
    }
}

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

/// What the rehearsal knows of one gateway.
#[derive(Debug)]
pub struct Dialect {
    /// Name of the gateway's folder under `manifests/gateways`.
    pub name: &'static str,
    controller: fn(Version) -> Arc<dyn GatewayController>,
}

/// The dialects; a gateway that is not here cannot be rehearsed.
const ALL: &[Dialect] = &[agentgateway::DIALECT, envoy_ai_gateway::DIALECT];

/// The dialect of a gateway, by the name of its folder under `manifests/gateways`.
pub fn of(gateway: &str) -> Option<&'static Dialect> {
    ALL.iter().find(|dialect| dialect.name == gateway)
}

/// The names of the gateways that have a dialect.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    ALL.iter().map(|dialect| dialect.name)
}

impl Dialect {
    /// The gateway's controller at this version, fully installed.
    pub fn at(&self, version: Version) -> Arc<dyn GatewayController> {
        (self.controller)(version)
    }
}

/// The controller of one gateway at one version.
pub trait GatewayController: Send + Sync + fmt::Debug {
    /// The parts of its installation that may be missing, by name.
    fn parts(&self) -> &'static [&'static str] {
        &[]
    }

    /// The same gateway, installed without one of its [`GatewayController::parts`].
    fn without(&self, _part: &str) -> Option<Arc<dyn GatewayController>> {
        None
    }

    /// The kinds that it reads.
    fn reads(&self) -> Vec<Kind>;

    /// The finalizers that it puts on objects.
    fn finalizers(&self) -> Vec<(Kind, &'static str)>;

    /// What its installation brings: namespaces, Deployments, a GatewayClass.
    fn installation(&self) -> Vec<Value>;

    /// What should be.
    fn translate(&self, snapshot: &Snapshot) -> Translation;

    /// The Gateway whose traffic a pod serves, where it is a proxy.
    fn gateway_of_pod(&self, pod: &Value) -> Option<Name>;

    /// The port of the Gateway's listener that a container port serves.
    fn listener_port(&self, container_port: u16) -> u16;
}

/// A version as tags write it: `v1.1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A text is not a version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("read {0:?} as a version like v1.1.0")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let refused = || NotAVersion(text.to_owned());
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+']).next().unwrap_or(plain);
        let mut parts = plain.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Ok(Self(a, b, c)),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("v1.1.0", Some(Version(1, 1, 0)))]
    #[case("1.3.1", Some(Version(1, 3, 1)))]
    #[case("v0.9.0-rc3", Some(Version(0, 9, 0)))]
    #[case("v1.1", None)]
    #[case("latest", None)]
    fn versions(#[case] text: &str, #[case] version: Option<Version>) {
        assert_eq!(text.parse().ok(), version);
    }
}
