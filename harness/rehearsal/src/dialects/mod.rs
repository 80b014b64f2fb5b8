//! The dialects: each gateway's resources, translated to the one routing model, with its own statuses, words and order.
//!
//! A dialect is a folder here and a row of [`ALL`]. Its controller is pure: it reads a [`Snapshot`] of objects and says what
//! should be ([`Translation`]); the world's controllers carry it out.

pub mod agentgateway;
pub mod attachments;
pub mod envoy_ai_gateway;
pub mod gateway_api;
pub mod object;
pub mod pools;
pub mod snapshot;
pub mod translation;

use std::{fmt, str::FromStr, sync::Arc};

use apiserver::Kind;
use serde_json::Value;

pub use object::Name;
pub use snapshot::Snapshot;
pub use translation::{StatusOf, Translation};

use crate::mutants::{Mutant, Mutants};

#[derive(Debug)]
pub struct Dialect {
    /// Name of the gateway's folder under `manifests/gateways`.
    pub name: &'static str,
    controller: fn(Version) -> Arc<dyn GatewayController>,
    schemas: &'static [&'static str],
    mutants: &'static [Mutant],
}

/// The dialects; a gateway that is not here cannot be rehearsed.
const ALL: &[Dialect] = &[agentgateway::DIALECT, envoy_ai_gateway::DIALECT];

pub fn of(gateway: &str) -> Option<&'static Dialect> {
    ALL.iter().find(|dialect| dialect.name == gateway)
}

pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    ALL.iter().map(|dialect| dialect.name)
}

/// The definitions of the custom resources of all gateways: every world serves all of them.
pub(crate) fn schemas() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|dialect| dialect.schemas).copied()
}

pub(crate) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    ALL.iter().flat_map(|dialect| dialect.mutants)
}

impl Dialect {
    pub fn at(&self, version: Version) -> Arc<dyn GatewayController> {
        (self.controller)(version)
    }
}

pub trait GatewayController: Send + Sync + fmt::Debug {
    /// The parts of its installation that may be missing, by name.
    fn parts(&self) -> &'static [&'static str] {
        &[]
    }

    /// The same gateway, installed without one of its [`GatewayController::parts`].
    fn without(&self, _part: &str) -> Option<Arc<dyn GatewayController>> {
        None
    }

    /// The kinds of its own that it reads.
    fn reads(&self) -> Vec<Kind>;

    fn finalizers(&self) -> Vec<(Kind, &'static str)> {
        Vec::new()
    }

    fn installation(&self) -> Vec<Value>;

    fn translate(&self, snapshot: &Snapshot) -> Translation;

    /// Makes a translation wrong where the world's mutant is one that takes a form of its own in this gateway.
    fn mutate(&self, mutants: &Mutants, snapshot: &Snapshot, translation: &mut Translation);

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

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("read {0:?} as a version like v1.1.0")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+']).next().unwrap_or(plain);
        let mut parts = plain.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Ok(Self(a, b, c)),
            _ => Err(NotAVersion(text.to_owned())),
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
