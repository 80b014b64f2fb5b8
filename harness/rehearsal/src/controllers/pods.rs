//! Pods that run: a pod is an address of its own, a loopback socket for each port, and what answers there.
//!
//! A pod runs the stand-in model where its image or arguments say so, a replica of the gateway's proxy where its labels say
//! so, and nothing otherwise: then its ports are closed, and it is ready all the same.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use model::Model;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Surroundings, settle};
use crate::{
    api::kinds,
    clock::Clock,
    dataplane::{
        network::{Network, PodPort, pod_address},
        proxy::Proxy,
        routing::Table,
    },
    dialects::{
        Name, Snapshot,
        object::{self, list, name, namespace, text},
    },
};

/// The name of the one node.
pub const NODE: &str = "rehearsal-control-plane";

/// The pods that run, by uid.
#[derive(Debug, Default)]
pub struct Pods {
    running: HashMap<String, Running>,
    addresses: u32,
}

#[derive(Debug)]
struct Running {
    name: Name,
    address: IpAddr,
    stop: CancellationToken,
    proxy: Option<(Name, Proxy)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a pod runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Program {
    /// The stand-in model: names, where chats are if not in the usual place, and whether it knows its own pod.
    Model { names: Vec<String>, port: u16, chat_path: Option<String>, knows_pod: bool },
    /// A replica of the proxy of a Gateway.
    Proxy(Name),
    /// Nothing that listens.
    Nothing,
}

impl Pods {
    /// Starts pods that are new, ends those that are gone, and says how they are.
    pub(super) fn reconcile(&mut self, around: &Surroundings, snapshot: &Snapshot) {
        let present: HashMap<&str, &Arc<Value>> =
            snapshot.all(&kinds::POD).filter(|p| !object::is_going(p)).map(|p| (text(p, "/metadata/uid"), p)).collect();
        self.running.retain(|uid, pod| {
            let stays = present.contains_key(uid.as_str());
            if !stays {
                around.network.remove_pod(pod.address);
                models(around).remove(&pod.name);
            }
            stays
        });
        let mut new: Vec<_> = present.into_iter().filter(|(uid, _)| !self.running.contains_key(*uid)).collect();
        new.sort_by_key(|(_, pod)| object::key(pod));
        for (uid, pod) in new {
            self.addresses += 1;
            let address = pod_address(self.addresses + 4);
            match start(around, pod, address) {
                Ok(running) => {
                    self.running.insert(uid.to_owned(), running);
                    say_running(around, pod, address);
                }
                Err(error) => tracing::warn!(pod = name(pod), %error, "a pod could not start"),
            }
        }
    }

    /// Gives every proxy the table of its Gateway.
    pub(super) fn load(&self, tables: &BTreeMap<Name, Arc<Table>>) {
        for (gateway, proxy) in self.running.values().filter_map(|p| p.proxy.as_ref()) {
            if let Some(table) = tables.get(gateway) {
                proxy.load(Arc::clone(table));
            }
        }
    }
}

fn start(around: &Surroundings, pod: &Value, address: IpAddr) -> std::io::Result<Running> {
    let stop = around.stop.child_token();
    let mut proxy = None;
    around.network.add_pod(address);
    match program(around, pod) {
        Program::Nothing => {}
        Program::Model { names, port, chat_path, knows_pod } => {
            let mut config = model::Config { models: names, port, chat_path, ..model::Config::default() };
            config.clock = Arc::new(ModelClock(around.clock.clone()));
            config.drain = Duration::ZERO;
            if knows_pod {
                config.pod = name(pod).to_owned();
                config.namespace = namespace(pod).to_owned();
            }
            let model = Model::new(config);
            let (listener, socket) = listen()?;
            models(around).insert(object::key(pod), model.clone());
            let (serving, stopped) = (model.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = serving.serve(listener) => {}
                    () = stopped.cancelled() => {}
                }
            });
            let stopped = stop.clone();
            let door = Arc::new(move |stream| {
                let (model, stopped) = (model.clone(), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = model.serve_connection(stream) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            });
            around.network.add_pod_port(address, port, PodPort { socket, door: Some(door) });
        }
        Program::Proxy(gateway) => {
            let replica =
                Proxy::new(around.network.clone(), around.clock.clone(), around.windows.clone(), stop.clone());
            for port in list(pod, "/spec/containers").flat_map(|c| list(c, "/ports")) {
                let Some(port) = object::port(port, "/containerPort") else { continue };
                serve_proxy(&around.network, &replica, address, port, around.dialect.listener_port(port), &stop)?;
            }
            proxy = Some((gateway, replica));
        }
    }
    Ok(Running { name: object::key(pod), address, stop, proxy })
}

fn models(around: &Surroundings) -> MutexGuard<'_, HashMap<Name, Model>> {
    around.models.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener on loopback, and where it is.
pub(super) fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
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
    let (listener, socket) = listen()?;
    let (accepting, stopped) = (proxy.clone(), stop.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => accepting.serve(stream, listener_port),
                    Err(error) => tracing::debug!(%error, "a connection was not accepted"),
                },
                () = stopped.cancelled() => break,
            }
        }
    });
    let proxy = proxy.clone();
    let door = Arc::new(move |stream| proxy.serve(stream, listener_port));
    network.add_pod_port(address, container_port, PodPort { socket, door: Some(door) });
    Ok(())
}

fn program(around: &Surroundings, pod: &Value) -> Program {
    if let Some(gateway) = around.dialect.gateway_of_pod(pod) {
        return Program::Proxy(gateway);
    }
    list(pod, "/spec/containers").find_map(model_of).unwrap_or(Program::Nothing)
}

/// The model that a container runs, by the arguments of llm-d-inference-sim and of `igc model`.
fn model_of(container: &Value) -> Option<Program> {
    let arguments: Vec<&str> =
        list(container, "/command").chain(list(container, "/args")).filter_map(Value::as_str).collect();
    let image = text(container, "/image");
    let is_simulator = image.contains("llm-d-inference-sim") || image.contains("huggingfaceserver");
    let is_own = arguments.first() == Some(&"model") || arguments.get(..2).is_some_and(|a| a[1] == "model");
    if !is_simulator && !is_own {
        return None;
    }
    let values = |flag: &str| -> Vec<String> {
        let mut values = Vec::new();
        for (at, argument) in arguments.iter().enumerate() {
            if *argument == flag {
                values.extend(arguments[at + 1..].iter().take_while(|a| !a.starts_with('-')).map(|a| (*a).to_owned()));
            } else if let Some(value) = argument.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
                values.push(value.to_owned());
            }
        }
        values
    };
    let served = values("--served-model-name");
    let mut names = if served.is_empty() { values("--model") } else { served };
    if names.is_empty() {
        names = values("--model_name");
    }
    if names.is_empty() {
        names = model::Config::default().models;
    }
    let written = values("--port").first().and_then(|p| p.parse().ok());
    let port = written.or_else(|| object::port(container, "/ports/0/containerPort")).unwrap_or(8000);
    let chat_path = values("--chat-path").pop();
    // The simulator knows its pod only where the template tells it (facts: "KServe does not set those env vars").
    let knows_pod = is_own || list(container, "/env").any(|e| text(e, "/name") == "POD_NAME");
    Some(Program::Model { names, port, chat_path, knows_pod })
}

fn say_running(around: &Surroundings, pod: &Value, address: IpAddr) {
    let (home, pod_name) = (namespace(pod), name(pod));
    if text(pod, "/spec/nodeName").is_empty() {
        let bound = around.store.change(&kinds::POD, home, pod_name, |pod| pod["spec"]["nodeName"] = json!(NODE));
        settle("a Pod's node", bound);
    }
    let now = object::timestamp(around.clock.now_ms());
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
    let written = around.store.update_status(&kinds::POD, home, pod_name, |status| {
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

/// The world's clock as models want it.
#[derive(Debug)]
struct ModelClock(Clock);

impl model::Clock for ModelClock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn delay(&self, by: Duration) -> BoxFuture<'static, ()> {
        self.0.delay(by).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!({"image": "ghcr.io/llm-d/llm-d-inference-sim:v0.10.2", "args": ["--model", "mock-llm", "--port", "8080"]}),
        Some((vec!["mock-llm"], 8080, false)))]
    #[case(json!({"image": "ghcr.io/llm-d/llm-d-inference-sim:v0.10.2", "args": ["--model=a", "--served-model-name", "b", "c"],
        "env": [{"name": "POD_NAME"}]}), Some((vec!["b", "c"], 8000, true)))]
    #[case(json!({"image": "igc:dev", "args": ["model", "--model", "m"], "ports": [{"containerPort": 8080}]}),
        Some((vec!["m"], 8080, true)))]
    #[case(json!({"image": "igc:dev", "command": ["/igc", "model", "--model", "m"]}), Some((vec!["m"], 8000, true)))]
    #[case(json!({"image": "redis:8", "args": ["--port", "6379"]}), None)]
    fn what_a_container_runs(#[case] container: Value, #[case] expected: Option<(Vec<&str>, u16, bool)>) {
        let expected = expected.map(|(names, port, knows_pod)| Program::Model {
            names: names.into_iter().map(str::to_owned).collect(),
            port,
            chat_path: None,
            knows_pod,
        });
        assert_eq!(model_of(&container), expected);
    }

    #[test]
    fn chats_may_be_elsewhere() {
        let container =
            json!({"image": "igc:dev", "args": ["model", "--model", "m", "--chat-path", "/llm/chat/completions"]});
        let Some(Program::Model { chat_path, .. }) = model_of(&container) else { panic!("a model") };
        assert_eq!(chat_path.as_deref(), Some("/llm/chat/completions"));
    }
}
