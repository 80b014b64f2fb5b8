//! The dialect of Envoy AI Gateway on Envoy Gateway: AIGatewayRoute, AIServiceBackend, Backend, traffic policies.
//!
//! Sources: docs/facts/envoy-ai-gateway.md, recordings `evidence/envoy-ai-gateway/*`
//! (Envoy AI Gateway v1.1.0 on Envoy Gateway v1.8.3).

mod ai_routes;
mod infrastructure;
pub mod kinds;
mod local_replies;
mod mutants;
mod policies;
mod pools;
mod routes;

use std::sync::Arc;

use apiserver::Kind;
use serde_json::{Value, json};

use super::{
    Dialect, GatewayController, Name, Snapshot, Translation, Version, attachments::Attachments, gateway_api, object,
};
use crate::{
    dataplane::routing::{ExistingHeader, HeaderCase, Precedence, Table},
    mutants::Mutants,
};

pub(super) const DIALECT: Dialect = Dialect {
    name: "envoy-ai-gateway",
    schemas: &[include_str!("schemas/ai-gateway.yaml"), include_str!("schemas/envoy-gateway.yaml")],
    controller: |version| Arc::new(EnvoyAiGateway::new(version)),
    mutants: mutants::ALL,
};

pub const CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";
pub const NAMESPACE: &str = "envoy-gateway-system";

/// Envoy AI Gateway at one version, with the Envoy Gateway that it pairs with.
#[derive(Clone, Debug)]
pub struct EnvoyAiGateway {
    version: Version,
    extension: ExtensionHook,
}

/// Whether Envoy Gateway calls Envoy AI Gateway's extension server (recording `hook-not-wired.txt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionHook {
    Wired,
    /// Envoy Gateway without `extensionManager`: AI routes are plain routes.
    NotWired,
}

impl EnvoyAiGateway {
    pub fn new(version: Version) -> Self {
        Self { version, extension: ExtensionHook::Wired }
    }

    /// What happens to an `x-ai-eg-model` that the client sent (v1.0.0 overwrites it in a
    /// real cluster, run 20261121-140328-hqmt, although envoyproxy/ai-gateway#2410 names v1.1.0).
    fn existing_model_header(&self) -> ExistingHeader {
        if self.version >= Version(1, 0, 0) { ExistingHeader::Overwritten } else { ExistingHeader::Appended }
    }

    /// Whether Envoy Gateway's call to the extension goes through: it does not while the AI Gateway's controller is scaled
    /// down, and then nothing is programmed.
    fn hook_answers(&self, snapshot: &Snapshot) -> bool {
        let (home, name) = infrastructure::AI_CONTROLLER;
        let controller = snapshot.get(&kinds::DEPLOYMENT, home, name);
        let down = controller.is_some_and(|c| object::number(c, "/spec/replicas") == Some(0));
        self.extension == ExtensionHook::NotWired || !down
    }
}

impl GatewayController for EnvoyAiGateway {
    fn parts(&self) -> &'static [&'static str] {
        &["extension-hook"]
    }

    fn without(&self, part: &str) -> Option<Arc<dyn GatewayController>> {
        (part == "extension-hook").then(|| Arc::new(Self { extension: ExtensionHook::NotWired, ..*self }) as _)
    }

    fn reads(&self) -> Vec<Kind> {
        vec![
            kinds::AI_GATEWAY_ROUTE,
            kinds::AI_SERVICE_BACKEND,
            kinds::BACKEND,
            kinds::BACKEND_TRAFFIC_POLICY,
            kinds::CLIENT_TRAFFIC_POLICY,
            kinds::ENVOY_PROXY,
            kinds::HTTP_ROUTE_FILTER,
        ]
    }

    fn finalizers(&self) -> Vec<(Kind, &'static str)> {
        vec![
            (kinds::AI_GATEWAY_ROUTE, ai_routes::FINALIZER),
            (kinds::AI_SERVICE_BACKEND, ai_routes::FINALIZER),
            (kinds::GATEWAY_CLASS, infrastructure::FINALIZER),
        ]
    }

    fn installation(&self) -> Vec<Value> {
        infrastructure::installation(self.version)
    }

    fn translate(&self, snapshot: &Snapshot) -> Translation {
        let mut translation = Translation::default();
        ai_routes::translate(snapshot, &mut translation);
        let gateways: Vec<_> = gateway_api::gateways(snapshot, CONTROLLER).map(Arc::clone).collect();
        let rules = policies::Policies::read(snapshot);
        let ai = ai_routes::AiRoutes::read(self, snapshot);
        if self.extension == ExtensionHook::Wired {
            pools::statuses(snapshot, &mut translation);
        }
        let mut attachments = Attachments::default();
        for route in snapshot.all(&kinds::HTTP_ROUTE).filter(|r| !object::is_going(r)) {
            routes::translate(snapshot, route, &ai, &rules, &mut attachments);
        }
        rules.statuses(snapshot, &attachments, &mut translation);
        infrastructure::classes(snapshot, &gateways, &mut translation);
        for gateway in &gateways {
            infrastructure::gateway(snapshot, gateway, &attachments, &mut translation);
            if !self.hook_answers(snapshot) {
                continue; // what was programmed last stays (recording aigw-controller-down-2)
            }
            let listeners = attachments.take_listeners(gateway);
            let table = Table::new(listeners, Precedence::default(), local_replies::local_reply, HeaderCase::Lower);
            translation.tables.insert(object::key(gateway), Arc::new(table));
        }
        translation.statuses.append(&mut attachments.statuses);
        let routes = snapshot.all(&kinds::HTTP_ROUTE).filter(|r| !object::is_going(r));
        if self.extension == ExtensionHook::Wired && routes.into_iter().any(|r| pools::freezes(snapshot, r)) {
            translation.tables.clear(); // proxies keep what they have
        }
        translation
    }

    fn mutate(&self, wrong: &Mutants, snapshot: &Snapshot, translation: &mut Translation) {
        mutants::mutate(wrong, snapshot, translation);
    }

    fn gateway_of_pod(&self, pod: &Value) -> Option<Name> {
        let label = |name: &str| pod.pointer("/metadata/labels")?.get(name)?.as_str().map(str::to_owned);
        let namespace = label("gateway.envoyproxy.io/owning-gateway-namespace")?;
        Some((namespace, label("gateway.envoyproxy.io/owning-gateway-name")?))
    }

    /// Ports below 1024 are served on a port that is 10000 higher (docs/facts/envoy-ai-gateway.md E1).
    fn listener_port(&self, container_port: u16) -> u16 {
        match container_port {
            10_001..=11_023 => container_port - 10_000,
            other => other,
        }
    }
}

fn container_port(port: u16) -> u16 {
    if port < 1024 { port + 10_000 } else { port }
}

fn gateway_ref(name: &Name) -> Value {
    json!({"group": gateway_api::GROUP, "kind": "Gateway", "name": name.1, "namespace": name.0})
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Version(0, 7, 0), ExistingHeader::Appended)]
    #[case(Version(1, 0, 0), ExistingHeader::Overwritten)]
    #[case(Version(1, 1, 0), ExistingHeader::Overwritten)]
    #[case(Version(1, 2, 0), ExistingHeader::Overwritten)]
    fn the_model_header_by_version(#[case] version: Version, #[case] expected: ExistingHeader) {
        assert_eq!(EnvoyAiGateway::new(version).existing_model_header(), expected);
    }

    #[rstest]
    #[case(80, 10_080)]
    #[case(8080, 8080)]
    #[case(1023, 11_023)]
    fn container_ports_lead_back_to_listeners(#[case] port: u16, #[case] container: u16) {
        assert_eq!(container_port(port), container);
        assert_eq!(EnvoyAiGateway::new(Version(1, 1, 0)).listener_port(container), port);
    }
}
