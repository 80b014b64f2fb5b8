//! The world: one API server with its controllers, one gateway, its data planes and models, all in this process.
//!
//! Worlds are independent of one another and cheap; a test has one of its own.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use apiserver::{Denial, Failure, Fault, Kind, PodDialer, Server, ServerOptions, Store};
use futures::{FutureExt, future::BoxFuture};
use model::Model;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    controllers::{self, Context, NodePorts},
    dataplane::{
        network::{Network, Unreachable},
        proxy::SharedWindows,
    },
    definitions::DEFINITIONS,
    dialects::{
        self, GatewayController, Name, NotAVersion,
        object::{self, list, text},
    },
    hops::Hops,
    kinds, lock,
    mutants::{Mutants, mutant},
    webhooks,
};

#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// What is rehearsed. Of a gateway's folder that is a copy of another under a name without a dialect it is the other's:
    /// a dialect goes by what it does and not by the folder's name.
    pub gateway: Arc<dyn GatewayController>,
    pub clock: Clock,
    /// The Gateway that KServe's routes attach to: namespace and name.
    pub kserve_gateway: (String, String),
    pub kserve_domain: String,
    pub node_ports: NodePorts,
    pub mutants: Mutants,
    pub hops: Hops,
}

#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error(
        "no rehearsal of {0}: it has no dialect under harness/rehearsal/src/dialects; use another place (--on kind, --on \
         context)"
    )]
    NoDialect(String),
    #[error(transparent)]
    Version(#[from] NotAVersion),
    #[error("listen on loopback")]
    Listen(#[from] io::Error),
    #[error("install {what}: {failure:?}")]
    Install { what: String, failure: Box<Failure> },
}

impl WorldConfig {
    /// A gateway by the name of its folder and a version, on a clock that stands until it is moved.
    pub fn new(gateway: &str, version: &str) -> Result<Self, WorldError> {
        let dialect = dialects::of(gateway).ok_or_else(|| WorldError::NoDialect(gateway.to_owned()))?;
        Ok(Self {
            gateway: dialect.at(version.parse()?),
            clock: Clock::movable_from_now(),
            kserve_gateway: ("kserve".to_owned(), "kserve-ingress-gateway".to_owned()),
            kserve_domain: "example.com".to_owned(),
            node_ports: NodePorts::default(),
            mutants: Mutants::default(),
            hops: Hops::default(),
        })
    }

    /// The same without a part of the gateway's installation, one of [`GatewayController::parts`].
    pub fn without(mut self, part: &str) -> Self {
        self.gateway = self.gateway.without(part).unwrap_or(self.gateway);
        self
    }
}

/// A world. It ends when it is dropped.
#[derive(Debug)]
pub struct World {
    context: Context,
    server: Server,
}

impl World {
    /// Returns when the API server takes requests; controllers run from then on.
    pub async fn start(config: WorldConfig) -> Result<Self, WorldError> {
        let store = Store::new(Hooks::of(&config), &DEFINITIONS);
        for object in installation(&config) {
            let what = format!("{} {}", text(&object, "/kind"), object::name(&object));
            store.apply(object).map_err(|failure| WorldError::Install { what, failure: Box::new(failure) })?;
        }
        say_node_ready(&store);
        Self::run(store, controllers::Applied::default(), config).await
    }

    /// Starts a world from what another one was, which stood up with the same configuration but for its clock, its hops and
    /// what is wrong with it. Its pods and node ports are its own. It is ready when it has [settled](Self::settled).
    pub async fn restore(backup: &Backup, config: WorldConfig) -> Result<Self, WorldError> {
        let store = backup.store.copy(Hooks::of(&config));
        Self::run(store, Arc::new(Mutex::new(backup.applied.clone())), config).await
    }

    async fn run(store: Store, applied: controllers::Applied, config: WorldConfig) -> Result<Self, WorldError> {
        let context = Context {
            store,
            network: Network::with_hops(config.hops),
            clock: config.clock,
            windows: SharedWindows::default(),
            gateway: config.gateway,
            node_ports: config.node_ports,
            mutants: config.mutants,
            stop: CancellationToken::new(),
            applied,
            models: controllers::Models::default(),
            pickers: controllers::Journals::default(),
            done: Arc::default(),
        };
        let pods = Pods { network: context.network.clone(), store: context.store.clone() };
        let options = ServerOptions { pods: Arc::new(pods), ..ServerOptions::default() };
        let server = Server::start(context.store.clone(), options).await?;
        tokio::spawn(controllers::run(context.clone()));
        Ok(Self { context, server })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn write_kubeconfig(&self, file: &Path) -> io::Result<()> {
        self.server.write_kubeconfig(file)
    }

    pub fn store(&self) -> &Store {
        &self.context.store
    }

    pub fn clock(&self) -> &Clock {
        &self.context.clock
    }

    pub fn mutants(&self) -> &Mutants {
        &self.context.mutants
    }

    pub fn network(&self) -> &Network {
        &self.context.network
    }

    /// Waits until the controllers have nothing left to do about what is there now.
    pub async fn settled(&self) {
        let mut done = self.context.done.subscribe();
        loop {
            let version = self.context.store.version();
            if done.wait_for(|done| *done >= version).await.is_err() || self.context.store.version() == version {
                return;
            }
        }
    }

    pub async fn backup(&self) -> Backup {
        self.settled().await;
        let applied = lock(&self.context.applied).clone();
        let hooks = Hooks { clock: self.context.clock.clone(), mutants: Mutants::default() };
        Backup { store: self.context.store.copy(hooks), applied }
    }

    /// The models that run, by the namespace and name of their pods.
    pub fn models(&self) -> Vec<(Name, Model)> {
        let models = lock(&self.context.models);
        models.iter().map(|(name, model)| (name.clone(), model.clone())).collect()
    }

    pub fn pickers(&self) -> Vec<picker::Journal> {
        lock(&self.context.pickers).values().cloned().collect()
    }

    pub fn gateway(&self) -> &dyn GatewayController {
        &*self.context.gateway
    }

    /// The loopback socket of a Service's port, where the Service has a node port.
    pub fn node_port(&self, namespace: &str, service: &str, port: u16) -> Option<SocketAddr> {
        let service = self.context.store.get(&kinds::SERVICE, namespace, service)?;
        let number = list(&service, "/spec/ports")
            .find(|p| object::port(p, "/port") == Some(port))
            .and_then(|p| object::port(p, "/nodePort"))?;
        Some(SocketAddr::from(([127, 0, 0, 1], number)))
    }
}

/// What a world was at a moment: its objects, and what its controllers know to have applied.
#[derive(Debug)]
pub struct Backup {
    store: Store,
    applied: HashMap<(Kind, Name), Value>,
}

struct Hooks {
    clock: Clock,
    mutants: Mutants,
}

impl Hooks {
    fn of(config: &WorldConfig) -> Self {
        Self { clock: config.clock.clone(), mutants: config.mutants.clone() }
    }
}

impl apiserver::Hooks for Hooks {
    fn name(&self) -> &'static str {
        "rehearsal"
    }

    fn now(&self) -> jiff::Timestamp {
        let now = i64::try_from(self.clock.now_ms()).ok();
        now.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::MAX)
    }

    fn validate(&self, kind: &Kind, object: &Value) -> Result<(), Denial> {
        webhooks::validate(kind, object)
    }

    fn has(&self, fault: Fault) -> bool {
        self.mutants.is(match fault {
            Fault::RefusesOlderVersions => mutant::REFUSES_OLDER_VERSIONS,
            Fault::TakesUnknownFields => mutant::TAKES_UNKNOWN_FIELDS,
            Fault::SkipsRules => mutant::SKIPS_RULES,
            Fault::SkipsWebhooks => mutant::SKIPS_WEBHOOKS,
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.context.stop.cancel();
        self.context.network.hops().end();
    }
}

struct Pods {
    network: Network,
    store: Store,
}

impl PodDialer for Pods {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let network = self.network.clone();
        async move {
            network.connect_address(address.ip(), address.port()).await.map_err(|error| match error {
                Unreachable::Connect(error) => error,
                other => io::Error::new(io::ErrorKind::HostUnreachable, other),
            })
        }
        .boxed()
    }

    /// Pods of a world write nothing.
    fn log(&self, namespace: &str, pod: &str, container: Option<&str>) -> Option<String> {
        let pod = self.store.get(&kinds::POD, namespace, pod)?;
        list(&pod, "/spec/containers").any(|c| container.is_none_or(|name| text(c, "/name") == name)).then(String::new)
    }
}

fn installation(config: &WorldConfig) -> Vec<Value> {
    let (gateway_namespace, gateway) = &config.kserve_gateway;
    let ingress = json!({
        "enableGatewayApi": true,
        "kserveIngressGateway": format!("{gateway_namespace}/{gateway}"),
        "ingressDomain": config.kserve_domain,
        "domainTemplate": "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
        "urlScheme": "http",
        "disableIstioVirtualHost": true,
    });
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": controllers::NODE, "labels": {
                "kubernetes.io/hostname": controllers::NODE, "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"podCIDR": "10.244.0.0/24"},
        }),
        object::namespace_named("kserve"),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
            "data": {"ingress": ingress.to_string(), "deploy": "{\"defaultDeploymentMode\": \"Standard\"}"},
        }),
        object::installed(
            "kserve",
            "kserve-controller-manager",
            json!({"control-plane": "kserve-controller-manager"}),
            json!({"name": "manager", "image": "docker.io/kserve/kserve-controller:v0.17.0"}),
        ),
        object::namespace_named("cert-manager"),
    ];
    for (name, image) in [("", "controller"), ("-cainjector", "cainjector"), ("-webhook", "webhook")] {
        let labels = json!({"app.kubernetes.io/instance": "cert-manager", "app.kubernetes.io/component": image});
        let container = json!({"name": image, "image": format!("quay.io/jetstack/cert-manager-{image}:v1.20.2")});
        objects.push(object::installed("cert-manager", &format!("cert-manager{name}"), labels, container));
    }
    objects.extend(controllers::llmisvc::installation());
    objects.extend(config.gateway.installation());
    objects
}

fn say_node_ready(store: &Store) {
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": controllers::NODE}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status"}],
        "nodeInfo": {"kubeletVersion": "v1.34.0", "architecture": std::env::consts::ARCH, "operatingSystem": "linux"},
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
        "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
    });
    let written = store.update_status(&kinds::NODE, "", controllers::NODE, |current| *current = status);
    if let Err(failure) = written {
        tracing::warn!(?failure, "the node's status was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_without_a_dialect_is_refused_with_what_to_do() {
        let refused = WorldConfig::new("toy", "v1.0.0").expect_err("no dialect");
        assert_eq!(
            refused.to_string(),
            "no rehearsal of toy: it has no dialect under harness/rehearsal/src/dialects; use another place (--on kind, \
             --on context)"
        );
        assert!(dialects::names().all(|name| WorldConfig::new(name, "v1.0.0").is_ok()));
    }
}
