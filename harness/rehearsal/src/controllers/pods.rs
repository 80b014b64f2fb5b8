//! Pods that run: a pod is an address of its own, a loopback socket for each port, and what answers there.
//!
//! A pod runs the stand-in model or the stand-in endpoint picker where its image or arguments say so, a replica of the
//! gateway's proxy where its labels say so, and nothing otherwise: then its ports are closed, and it is ready all the same.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use model::Model;
use picker::Endpoint;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Context, settle};
use crate::{
    dataplane::{
        network::{Network, PodPort, PortOf, pod_address},
        proxy::Proxy,
        routing::Table,
    },
    dialects::{
        Name, Snapshot,
        object::{self, list, name, namespace, text},
        pools,
    },
    hops::Between,
    kinds, lock,
};

pub const NODE: &str = "rehearsal-control-plane";

/// The pods that run, by uid.
#[derive(Default)]
pub struct Pods {
    running: HashMap<String, Running>,
    addresses: u32,
    /// What proxies were told last, by Gateway.
    tables: BTreeMap<Name, Arc<Table>>,
}

struct Running {
    name: Name,
    address: IpAddr,
    _stop: DropGuard,
    proxy: Option<(Name, Proxy)>,
    picker: Option<Picker>,
}

struct Picker {
    pool: Name,
    endpoints: watch::Sender<Option<Vec<Endpoint>>>,
    /// Its death is the picker's.
    serving: picker::Handle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Program {
    /// The stand-in model: names, where chats are if not in the usual place, and whether it knows its own pod.
    Model {
        names: Vec<String>,
        port: u16,
        chat_path: Option<String>,
        knows_pod: bool,
    },
    Picker(PickerArguments),
    Proxy(Name),
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PickerArguments {
    pool: Name,
    grpc: u16,
    health: u16,
    records: u16,
    secure: bool,
    /// An EndpointPickerConfig; empty for the usual one.
    scheduling: String,
}

impl Pods {
    pub(super) fn reconcile(&mut self, context: &Context, snapshot: &Snapshot) {
        let present: HashMap<&str, &Arc<Value>> =
            snapshot.all(&kinds::POD).filter(|p| !object::is_going(p)).map(|p| (text(p, "/metadata/uid"), p)).collect();
        self.running.retain(|uid, pod| {
            let stays = present.contains_key(uid.as_str());
            if !stays {
                context.network.remove_pod(pod.address);
                lock(&context.models).remove(&pod.name);
                lock(&context.pickers).remove(&pod.name);
            }
            stays
        });
        let mut new: Vec<_> = present.into_iter().filter(|(uid, _)| !self.running.contains_key(*uid)).collect();
        new.sort_by_key(|(_, pod)| object::key(pod));
        for (uid, pod) in new {
            // One that has an address already ran in the world that this one was made from.
            let known: Option<IpAddr> = text(pod, "/status/podIP").parse().ok();
            let address = known.unwrap_or_else(|| self.new_address(snapshot));
            match start(context, pod, address, &self.tables) {
                Ok(running) => {
                    self.running.insert(uid.to_owned(), running);
                    if known.is_none() {
                        say_running(context, pod, address);
                    }
                }
                Err(error) => tracing::warn!(pod = name(pod), %error, "a pod could not start"),
            }
        }
        for Picker { pool, endpoints, .. } in self.running.values().filter_map(|p| p.picker.as_ref()) {
            let found = endpoints_of(snapshot, pool);
            endpoints.send_if_modified(|known| {
                let is_new = *known != found;
                *known = found;
                is_new
            });
        }
    }

    /// An address that no pod has, nor had.
    fn new_address(&mut self, snapshot: &Snapshot) -> IpAddr {
        loop {
            self.addresses += 1;
            let address = pod_address(self.addresses + 4);
            let written = address.to_string();
            if !snapshot.all(&kinds::POD).any(|pod| text(pod, "/status/podIP") == written) {
                return address;
            }
        }
    }

    /// Gives every proxy the table of its Gateway; one that starts later begins with it.
    pub(super) fn load(&mut self, tables: BTreeMap<Name, Arc<Table>>) {
        self.tables = tables;
        for (gateway, proxy) in self.running.values().filter_map(|p| p.proxy.as_ref()) {
            if let Some(table) = self.tables.get(gateway) {
                proxy.load(Arc::clone(table));
            }
        }
    }
}

fn start(
    context: &Context,
    pod: &Value,
    address: IpAddr,
    tables: &BTreeMap<Name, Arc<Table>>,
) -> std::io::Result<Running> {
    let stop = context.stop.child_token();
    let (mut proxy, mut picker) = (None, None);
    context.network.add_pod(address);
    match program(context, pod) {
        Program::Nothing => {}
        Program::Model { names, port, chat_path, knows_pod } => {
            let mut config = model::Config { models: names, port, chat_path, ..model::Config::default() };
            config.clock = Arc::new(context.clock.clone());
            config.drain = Duration::ZERO;
            if knows_pod {
                config.pod = name(pod).to_owned();
                config.namespace = namespace(pod).to_owned();
            }
            let model = Model::new(config);
            let (listener, socket) = listen(0)?;
            lock(&context.models).insert(object::key(pod), model.clone());
            let (serving, stopped) = (model.clone(), stop.clone());
            tokio::spawn(async move { stopped.run_until_cancelled(serving.serve(listener)).await });
            let stopped = stop.clone();
            let door = Arc::new(move |stream| {
                let (model, stopped) = (model.clone(), stopped.clone());
                tokio::spawn(async move { stopped.run_until_cancelled(model.serve_connection(stream)).await });
            });
            context.network.add_pod_port(address, port, PodPort { socket, door: Some(door), of: PortOf::Others });
        }
        Program::Picker(arguments) => {
            let started = start_picker(context, name(pod), address, arguments)?;
            lock(&context.pickers).insert(object::key(pod), started.serving.journal());
            picker = Some(started);
        }
        Program::Proxy(gateway) => {
            let (network, clock) = (context.network.clone(), context.clock.clone());
            let interceptor = Arc::new(context.mutants.clone());
            let replica = Proxy::new(network, clock, context.windows.clone(), interceptor, stop.clone());
            // Before it is reached: no client sees it without its routes.
            if let Some(table) = tables.get(&gateway) {
                replica.load(Arc::clone(table));
            }
            for port in list(pod, "/spec/containers").flat_map(|c| list(c, "/ports")) {
                let Some(port) = object::port(port, "/containerPort") else { continue };
                serve_proxy(&context.network, &replica, address, port, context.gateway.listener_port(port), &stop)?;
            }
            proxy = Some((gateway, replica));
        }
    }
    Ok(Running { name: object::key(pod), address, _stop: stop.drop_guard(), proxy, picker })
}

/// A picker that serves, over TLS with a certificate of its own unless it is told not to. It learns of endpoints when
/// the pods have been looked at.
fn start_picker(context: &Context, pod: &str, address: IpAddr, arguments: PickerArguments) -> std::io::Result<Picker> {
    let PickerArguments { pool, grpc, health, records, secure, scheduling } = arguments;
    let (endpoints, known) = watch::channel(None);
    let clock = context.clock.clone();
    let plain = !secure || context.network.hops().is_plain(Between::GatewayPicker);
    let tls = (!plain).then(|| picker::Tls::self_signed(&[pod]));
    let options = picker::Options {
        pod: pod.to_owned(),
        tls: tls.transpose().map_err(std::io::Error::other)?,
        scheduling: match scheduling.as_str() {
            "" => picker::Scheduling::default(),
            written => picker::Scheduling::read(written).map_err(std::io::Error::other)?,
        },
        now_ms: Arc::new(move || clock.now_ms()),
        ..picker::Options::default()
    };
    let bound = |port| {
        let (listener, socket) = listen(0)?;
        context.network.add_pod_port(address, port, PodPort { socket, door: None, of: PortOf::Others });
        std::io::Result::Ok(listener)
    };
    let listeners =
        picker::Listeners { grpc: bound(grpc)?, health: Some(bound(health)?), admin: Some(bound(records)?) };
    let serving = picker::serve(listeners, options, known);
    Ok(Picker { pool, endpoints, serving })
}

/// The ready endpoints of a pool, as its picker finds them; `None` while there is no such pool.
fn endpoints_of(snapshot: &Snapshot, (namespace, name): &Name) -> Option<Vec<Endpoint>> {
    let pool = snapshot.get(&kinds::INFERENCE_POOL, namespace, name)?;
    let ready = pools::endpoints(snapshot, pool);
    Some(ready.iter().map(|endpoint| Endpoint::from(endpoint.to_string().as_str())).collect())
}

/// A listener on loopback at this port, 0 for any that is free, and where it is.
pub(super) fn listen(port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let socket = listener.local_addr()?;
    Ok((listener, socket))
}

fn serve_proxy(
    network: &Network,
    proxy: &Proxy,
    address: IpAddr,
    container_port: u16,
    listener_port: u16,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let (listener, socket) = listen(0)?;
    let (accepting, stopped) = (proxy.clone(), stop.clone());
    tokio::spawn(async move {
        while let Some(accepted) = stopped.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => accepting.serve(stream, listener_port),
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            }
        }
    });
    let proxy = proxy.clone();
    let door = Arc::new(move |stream| proxy.serve(stream, listener_port));
    network.add_pod_port(address, container_port, PodPort { socket, door: Some(door), of: PortOf::Gateway });
    Ok(())
}

fn program(context: &Context, pod: &Value) -> Program {
    if let Some(gateway) = context.gateway.gateway_of_pod(pod) {
        return Program::Proxy(gateway);
    }
    let picker = list(pod, "/spec/containers").find_map(|container| picker_of(container, namespace(pod)));
    picker.or_else(|| list(pod, "/spec/containers").find_map(model_of)).unwrap_or(Program::Nothing)
}

struct Arguments<'c>(Vec<&'c str>);

impl<'c> Arguments<'c> {
    fn of(container: &'c Value) -> Self {
        Self(list(container, "/command").chain(list(container, "/args")).filter_map(Value::as_str).collect())
    }

    /// Whether our own program is run with this word first.
    fn run_own(&self, word: &str) -> bool {
        self.0.first() == Some(&word) || self.0.get(1) == Some(&word)
    }

    /// The values of a flag: those that follow it, or stand behind its `=`.
    fn values(&self, flag: &str) -> Vec<String> {
        let mut values = Vec::new();
        for (at, argument) in self.0.iter().enumerate() {
            if *argument == flag {
                values.extend(self.0[at + 1..].iter().take_while(|a| !a.starts_with('-')).map(|a| (*a).to_owned()));
            } else if let Some(value) = argument.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
                values.push(value.to_owned());
            }
        }
        values
    }

    fn value(&self, flag: &str) -> Option<String> {
        self.values(flag).into_iter().next()
    }
}

fn picker_of(container: &Value, home: &str) -> Option<Program> {
    let arguments = Arguments::of(container);
    let image = text(container, "/image");
    let is_upstreams =
        ["llm-d-inference-scheduler", "endpoint-picker", "/epp:"].iter().any(|name| image.contains(name));
    if !arguments.run_own("picker") && !is_upstreams {
        return None;
    }
    let namespace = arguments.value("--pool-namespace").unwrap_or_else(|| home.to_owned());
    let port = |flag: &str, default| arguments.value(flag).and_then(|p| p.parse().ok()).unwrap_or(default);
    Some(Program::Picker(PickerArguments {
        pool: (namespace, arguments.value("--pool-name")?),
        grpc: port("--grpc-port", 9002),
        health: port("--grpc-health-port", 9003),
        records: port("--records-port", 8080),
        secure: arguments.value("--secure-serving").is_none_or(|said| said != "false"),
        scheduling: arguments.value("--config-text").unwrap_or_default(),
    }))
}

fn model_of(container: &Value) -> Option<Program> {
    let arguments = Arguments::of(container);
    let image = text(container, "/image");
    let is_simulator = image.contains("llm-d-inference-sim") || image.contains("huggingfaceserver");
    let is_own = arguments.run_own("model");
    if !is_simulator && !is_own {
        return None;
    }
    let flags = ["--served-model-name", "--model", "--model_name"];
    let names = flags.map(|flag| arguments.values(flag)).into_iter().find(|names| !names.is_empty());
    let names = names.unwrap_or_else(|| model::Config::default().models);
    let written = arguments.value("--port").and_then(|p| p.parse().ok());
    let port = written.or_else(|| object::port(container, "/ports/0/containerPort")).unwrap_or(8000);
    let chat_path = arguments.value("--chat-path");
    // The simulator knows its pod only where the template tells it (docs/facts/kserve.md K3).
    let knows_pod = is_own || list(container, "/env").any(|e| text(e, "/name") == "POD_NAME");
    Some(Program::Model { names, port, chat_path, knows_pod })
}

fn say_running(context: &Context, pod: &Value, address: IpAddr) {
    let (home, pod_name) = (namespace(pod), name(pod));
    if text(pod, "/spec/nodeName").is_empty() {
        let bound = context.store.change(&kinds::POD, home, pod_name, |pod| pod["spec"]["nodeName"] = json!(NODE));
        settle("a Pod's node", bound);
    }
    let now = object::timestamp(context.clock.now_ms());
    let conditions: Vec<_> = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}))
        .collect();
    let containers: Vec<_> = list(pod, "/spec/containers")
        .map(|c| {
            json!({"name": c["name"], "image": c["image"], "imageID": c["image"], "ready": true, "started": true,
                   "restartCount": 0, "state": {"running": {"startedAt": now}}})
        })
        .collect();
    let address = address.to_string();
    let written = context.store.update_status(&kinds::POD, home, pod_name, |status| {
        *status = json!({
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": containers,
            "hostIP": "127.0.0.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
        });
    });
    settle("a Pod's status", written);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!({"image": "ghcr.io/llm-d/llm-d-inference-sim:v0.10.2", "args": ["--model", "mock-llm", "--port", "8080"]}),
        Some((vec!["mock-llm"], 8080, None, false)))]
    #[case(json!({"image": "ghcr.io/llm-d/llm-d-inference-sim:v0.10.2", "args": ["--model=a", "--served-model-name", "b", "c"],
        "env": [{"name": "POD_NAME"}]}), Some((vec!["b", "c"], 8000, None, true)))]
    #[case(json!({"image": "igc:dev", "args": ["model", "--model", "m"], "ports": [{"containerPort": 8080}]}),
        Some((vec!["m"], 8080, None, true)))]
    #[case(json!({"image": "igc:dev", "command": ["/igc", "model", "--model", "m", "--chat-path", "/llm/chat/completions"]}),
        Some((vec!["m"], 8000, Some("/llm/chat/completions"), true)))]
    #[case(json!({"image": "redis:8", "args": ["--port", "6379"]}), None)]
    fn what_a_container_runs(#[case] container: Value, #[case] expected: Option<(Vec<&str>, u16, Option<&str>, bool)>) {
        let expected = expected.map(|(names, port, chat_path, knows_pod)| {
            let names = names.into_iter().map(str::to_owned).collect();
            Program::Model { names, port, chat_path: chat_path.map(str::to_owned), knows_pod }
        });
        assert_eq!(model_of(&container), expected);
    }

    #[rstest]
    #[case(json!({"image": "igc:dev", "args": ["picker", "--pool-name", "p", "--pool-namespace", "other"]}),
        Some(("other", 9002, 8080, true)))]
    #[case(json!({"image": "igc:dev", "command": ["/igc", "picker", "--pool-name=p", "--grpc-port=9102", "--records-port", "81"]}),
        Some(("ns", 9102, 81, true)))]
    #[case(json!({"image": "ghcr.io/llm-d/llm-d-inference-scheduler:v0.4.0", "args": ["--pool-name", "p", "--secure-serving=false"]}),
        Some(("ns", 9002, 8080, false)))]
    #[case(json!({"image": "igc:dev", "args": ["picker"]}), None)]
    #[case(json!({"image": "igc:dev", "args": ["model", "--model", "picker"]}), None)]
    fn the_picker_that_a_container_runs(#[case] container: Value, #[case] expected: Option<(&str, u16, u16, bool)>) {
        let expected = expected.map(|(home, grpc, records, secure)| {
            let pool = (home.to_owned(), "p".to_owned());
            let scheduling = String::new();
            Program::Picker(PickerArguments { pool, grpc, health: 9003, records, secure, scheduling })
        });
        assert_eq!(picker_of(&container, "ns"), expected);
    }
}
