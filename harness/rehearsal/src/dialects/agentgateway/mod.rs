//! The dialect of agentgateway: AgentgatewayPolicy, AgentgatewayBackend, and its own order of routes.
//!
//! Sources: docs/facts/agentgateway.md, recordings `evidence/agentgateway-kind/*` and
//! `evidence/agentgateway-standalone/*` (v1.3.1).

mod backends;
mod infrastructure;
pub mod kinds;
mod local_replies;
mod mutants;
mod policies;
mod pools;
mod routes;

use std::sync::Arc;

use apiserver::Kind;
use serde_json::Value;

use super::{
    Dialect, GatewayController, Name, Snapshot, Translation, Version, attachments::Attachments, gateway_api, object,
};
use crate::{
    dataplane::routing::{HeaderCase, HostRule, Precedence, Table, TieBreak, regex_beside_prefix},
    mutants::Mutants,
};

pub(super) const DIALECT: Dialect = Dialect {
    name: "agentgateway",
    schemas: &[include_str!("schemas/agentgateway.yaml")],
    controller: |version| Arc::new(Agentgateway::new(version)),
    mutants: mutants::ALL,
};

pub const CONTROLLER: &str = "agentgateway.dev/agentgateway";
pub const CLASS: &str = "agentgateway";
pub const NAMESPACE: &str = "agentgateway-system";

const PRECEDENCE: Precedence =
    Precedence { paths: regex_beside_prefix, ties: TieBreak::Name, hosts: HostRule::FallThrough };

#[derive(Clone, Debug)]
pub struct Agentgateway {
    version: Version,
}

impl Agentgateway {
    pub fn new(version: Version) -> Self {
        Self { version }
    }

    /// How many entries of `rateLimit.local` are enforced: the first alone up to 1.4.1 (docs/facts/agentgateway.md A4).
    fn enforced_local_limits(&self) -> usize {
        if self.version >= Version(1, 5, 0) { usize::MAX } else { 1 }
    }
}

impl GatewayController for Agentgateway {
    fn reads(&self) -> Vec<Kind> {
        vec![kinds::SECRET, kinds::AGENTGATEWAY_POLICY, kinds::AGENTGATEWAY_BACKEND, kinds::AGENTGATEWAY_PARAMETERS]
    }

    fn installation(&self) -> Vec<Value> {
        infrastructure::installation(self.version)
    }

    fn translate(&self, snapshot: &Snapshot) -> Translation {
        let mut translation = Translation::default();
        let gateways: Vec<_> = gateway_api::gateways(snapshot, CONTROLLER).map(Arc::clone).collect();
        let policies = policies::Policies::read(self, snapshot);
        let pools = pools::Pools::read(self.version, snapshot);
        let mut attachments = Attachments::default();
        for route in snapshot.all(&kinds::HTTP_ROUTE).filter(|r| !object::is_going(r)) {
            routes::translate(snapshot, route, &policies, &pools, &mut attachments);
        }
        policies.statuses(snapshot, &attachments, &mut translation);
        backends::statuses(snapshot, &mut translation);
        pools.statuses(&attachments, &mut translation);
        infrastructure::classes(snapshot, &mut translation);
        for gateway in &gateways {
            infrastructure::gateway(self.version, snapshot, gateway, &attachments, &mut translation);
            let listeners = attachments.take_listeners(gateway);
            let mut table = Table::new(listeners, PRECEDENCE, local_replies::local_reply, HeaderCase::Kept);
            table.passes_keep_alive = true;
            translation.tables.insert(object::key(gateway), Arc::new(table));
        }
        translation.statuses.append(&mut attachments.statuses);
        translation
    }

    fn mutate(&self, wrong: &Mutants, snapshot: &Snapshot, translation: &mut Translation) {
        mutants::mutate(wrong, snapshot, translation);
    }

    fn gateway_of_pod(&self, pod: &Value) -> Option<Name> {
        let labels = pod.pointer("/metadata/labels")?;
        let class = labels.get("gateway.networking.k8s.io/gateway-class-name")?.as_str()?;
        let name = labels.get("gateway.networking.k8s.io/gateway-name")?.as_str()?;
        (class == CLASS).then(|| (object::namespace(pod).to_owned(), name.to_owned()))
    }

    /// The container binds the listeners' own ports.
    fn listener_port(&self, container_port: u16) -> u16 {
        container_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Version(1, 3, 1), 1)]
    #[case(Version(1, 4, 1), 1)]
    #[case(Version(1, 5, 0), usize::MAX)]
    fn local_limits_by_version(#[case] version: Version, #[case] enforced: usize) {
        assert_eq!(Agentgateway::new(version).enforced_local_limits(), enforced);
    }
}
