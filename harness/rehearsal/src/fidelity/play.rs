//! Playing: a case in a world of its own, step by step.

use std::{io, sync::Arc, time::Duration};

use apiserver::{Kind, Store};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use serde_json::json;
use verdict::history::{Exchange, ModelRecord, PickerRecord};
use wire::{Abandon, Call, Client, Dial, Stream};

use super::{
    Difference,
    admission::{self, Api},
    case::{Action, Apply, Case, MODEL, Reference, Validation, gateway_of},
    compare::{self, Differences, Served},
    exchange::{Leave, Reply, Request, Statuses, To},
    fill::Fill,
    rules::shown,
};
use crate::{
    dataplane::network::Network,
    dialects::object::{self, list, name, namespace, text},
    kinds,
    world::{World, WorldConfig, WorldError},
};

const BOUND: Duration = Duration::from_secs(20);

/// The definition that the recordings' clusters had not: KServe's chart for LLMInferenceServices brings it, and none of them
/// had that installed.
const NOT_THERE: &str = "inferencepools.inference.networking.x-k8s.io";

/// Why a case could not be played. It neither agrees nor differs then.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("make a world: {0}")]
    World(#[from] WorldError),
    #[error("do the step of line {line}: {problem}")]
    Step { line: u64, problem: String },
}

/// Where the rehearsal differs from what was recorded.
pub async fn play(case: &Case) -> Result<Vec<Difference>, PlayError> {
    let mut config = WorldConfig::new(gateway_of(&case.gateway), &case.version)?;
    for part in &case.without {
        config = config.without(part);
    }
    let began = u64::try_from(case.recording.at.as_millisecond()).unwrap_or_default();
    config.clock = crate::clock::Clock::movable(began);
    if let Some((home, gateway)) = case.kserve.gateway.split_once('/') {
        config.kserve_gateway = (home.to_owned(), gateway.to_owned());
    }
    config.kserve_domain.clone_from(&case.kserve.domain);
    let world = World::start(config).await?;
    world
        .store()
        .delete(&kinds::CUSTOM_RESOURCE_DEFINITION, "", NOT_THERE)
        .map_err(|failure| WorldError::Install { what: NOT_THERE.to_owned(), failure: Box::new(failure) })?;
    let address = world.url();
    let api = Api::new(address.trim_start_matches("http://"), world.store());
    let mut player = Player { case, world: &world, api, found: Differences::default(), sent: 0 };
    match player.run().await {
        // What differs may be why the rest cannot be played.
        Err(error) if !player.found.all.is_empty() => {
            player.found.about("the rest".to_owned());
            player.found.differ("", "played".to_owned(), format!("failed to {error}"));
        }
        ended => ended?,
    }
    Ok(player.found.all)
}

/// What another API server says to the manifests that a case applies, where that is not as recorded: the server's address
/// is `host:port`.
pub async fn admit(case: &Case, address: &str, store: &Store) -> Result<Vec<Difference>, PlayError> {
    let mut api = Api::new(address, store);
    let mut found = Differences::default();
    for step in &case.steps {
        let Action::Apply(apply, said) = &step.action else { continue };
        found.step(step.line);
        let problem = |problem| PlayError::Step { line: step.line, problem };
        api.make_namespaces(&apply.manifests, &case.namespace).await.map_err(problem)?;
        for manifest in &apply.manifests {
            let answer = api.apply(manifest, &case.namespace, apply).await;
            admission::compare(said.as_ref(), &answer, &mut found);
        }
    }
    Ok(found.all)
}

struct Player<'a> {
    case: &'a Case,
    world: &'a World,
    api: Api<'a>,
    found: Differences,
    /// Requests are known to models by names that no other step has.
    sent: usize,
}

impl Player<'_> {
    async fn run(&mut self) -> Result<(), PlayError> {
        let line = self.case.line;
        let step = |problem: String| PlayError::Step { line, problem };
        self.found.step(line);
        self.rest(line).await?;
        self.api.make_namespaces(&self.case.manifests, &self.case.namespace).await.map_err(step)?;
        let how = Apply { manifests: vec![], dry_run: false, validation: Validation::Strict };
        for manifest in &self.case.manifests {
            let answer = self.api.apply(manifest, &self.case.namespace, &how).await;
            if !answer.is_accepted() {
                self.found.about(format!("manifests {} {}", text(manifest, "/kind"), name(manifest)));
                self.found.differ("admission", "accepted".to_owned(), answer.text());
            }
        }
        for step in &self.case.steps {
            self.rest(step.line).await?;
            self.found.step(step.line);
            let done = self.step(&step.action).await;
            done.map_err(|problem| PlayError::Step { line: step.line, problem })?;
        }
        Ok(())
    }

    async fn rest(&self, line: u64) -> Result<(), PlayError> {
        tokio::time::timeout(BOUND, self.world.settled()).await.map_err(|_| PlayError::Step {
            line,
            problem: format!("the controllers did not come to rest within {BOUND:?}"),
        })
    }

    async fn step(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Apply(apply, said) => {
                self.api.make_namespaces(&apply.manifests, &self.case.namespace).await?;
                for manifest in &apply.manifests {
                    self.found.about(format!("{} {}", text(manifest, "/kind"), name(manifest)));
                    let answer = self.api.apply(manifest, &self.case.namespace, apply).await;
                    admission::compare(said.as_ref(), &answer, &mut self.found);
                }
                Ok(())
            }
            Action::Delete(reference) => {
                let (kind, home) = self.resolve(reference)?;
                let deleted = self.world.store().delete(&kind, &home, &reference.name);
                deleted.map_err(|failure| format!("delete {kind} {home}/{}: {failure}", reference.name))
            }
            Action::Patch(patch, said) => {
                let reference = patch.reference();
                let (kind, home) = self.resolve(&reference)?;
                self.found.about(format!("{} {}", reference.kind, reference.name));
                let answer = self.api.patch(&kind, &home, &reference.name, &patch.merge).await;
                admission::compare(said.as_ref(), &answer, &mut self.found);
                Ok(())
            }
            Action::Advance(by) => {
                self.world.clock().advance_by(*by);
                Ok(())
            }
            Action::Object(reference, recorded) => {
                let (kind, home) = self.resolve(reference)?;
                self.found.about(format!("{} {}", reference.kind, reference.name));
                let Some(beginning) = reference.name.strip_suffix('*') else {
                    let here = self.world.store().get(&kind, &home, &reference.name);
                    compare::looks(recorded, here.as_deref(), &mut self.found);
                    return Ok(());
                };
                let all = self.world.store().list(&kind, (!home.is_empty()).then_some(home.as_str()));
                let fitting: Vec<_> = all.iter().filter(|o| name(o).starts_with(beginning)).collect();
                match fitting.as_slice() {
                    [] => compare::looks(recorded, None, &mut self.found),
                    [one] => compare::looks(recorded, Some(one), &mut self.found),
                    many => self.found.differ("", "one".to_owned(), many.len().to_string()),
                }
                Ok(())
            }
            Action::Request(request, replies) => self.request(request, replies).await,
        }
    }

    /// The kind that is meant, and the namespace (empty where the kind has none).
    fn resolve(&self, reference: &Reference) -> Result<(Kind, String), String> {
        let group = reference.api_version.as_ref().map(|v| v.split_once('/').map_or("", |(group, _)| group).to_owned());
        let mut kinds = self.world.store().kinds_named(&reference.kind);
        kinds.retain(|(kind, _)| group.as_ref().is_none_or(|g| kind.group == *g));
        match kinds.as_slice() {
            [(kind, namespaced)] => {
                let home = reference.namespace.as_ref().unwrap_or(&self.case.namespace);
                Ok((kind.clone(), if *namespaced { home.clone() } else { String::new() }))
            }
            [] => Err(format!("the rehearsal's API server serves no kind {}", reference.kind)),
            many => {
                let groups: Vec<&str> = many.iter().map(|(kind, _)| kind.group.as_ref()).collect();
                Err(format!("{} is a kind of {}: write apiVersion", reference.kind, groups.join(" and ")))
            }
        }
    }

    async fn request(&mut self, request: &Request, replies: &[Reply]) -> Result<(), String> {
        let count = request.count(replies);
        let fill = Fill::new(self.world.store(), &self.case.namespace);
        let (mut request, mut replies) = (request.clone(), replies.to_vec());
        fill.request(&mut request)?;
        replies.iter_mut().try_for_each(|reply| fill.reply(reply))?;
        let (request, replies) = (&request, replies.as_slice());
        let dial = self.dial(&request.to)?;
        self.sent += 1;
        let client = Client::new(Arc::new(dial), format!("fidelity-{}", self.sent));
        let call = call(request);
        let exchanges = if request.at_once {
            futures::future::join_all((0..count).map(|_| client.send("fidelity", call.clone()))).await
        } else {
            let mut all = Vec::new();
            for _ in 0..count {
                all.push(self.send(&client, call.clone(), request).await);
            }
            all
        };
        let watched = replies.iter().any(|r| r.upstream.is_some());
        let arrived = if watched { self.records().await? } else { vec![] };
        let asked = if replies.iter().any(|r| r.picker.is_some()) { self.asked().await? } else { vec![] };
        if let [Reply { statuses: Some(Statuses(wanted)), .. }] = replies {
            let mut wanted: Vec<String> = wanted.iter().map(u16::to_string).collect();
            let mut here: Vec<String> =
                exchanges.iter().map(|e| e.status().map_or("none".to_owned(), |s| s.to_string())).collect();
            if request.at_once {
                wanted.sort();
                here.sort();
            }
            if wanted != here {
                self.found.about(String::new());
                self.found.differ("statuses", Statuses::counted(&wanted), Statuses::counted(&here));
            }
        }
        let wanted = replies.iter().flat_map(|reply| {
            let times = if replies.len() == 1 { count } else { reply.times.unwrap_or(1) };
            std::iter::repeat_n(reply, times)
        });
        let each = wanted.zip(&exchanges).map(|(reply, exchange)| {
            let mut found = Differences::default();
            let of_it = |id: &Option<String>| id.as_deref() == Some(exchange.id.as_str());
            let seen = Served {
                arrived: arrived.iter().filter(|r| of_it(&r.exchange)).cloned().collect(),
                picker: asked.iter().any(|r| of_it(&r.exchange)),
            };
            compare::reply(reply, exchange, &seen, &mut found);
            found.all
        });
        self.found.replies(each.collect());
        Ok(())
    }

    async fn send(&self, client: &Client, call: Call, request: &Request) -> Exchange {
        let sending = client.send("fidelity", call);
        let Some(by) = request.meanwhile else { return sending.await };
        let clock = self.world.clock();
        let parked = clock.parked();
        let advancing = async {
            _ = tokio::time::timeout(BOUND / 2, clock.until_parked(parked + 1)).await;
            clock.advance_by(by.0);
        };
        tokio::join!(sending, advancing).0
    }

    fn dial(&self, to: &To) -> Result<ToService, String> {
        let network = self.world.network().clone();
        let split = |name: &str| name.split_once('/').map(|(home, name)| (home.to_owned(), name.to_owned()));
        let store = self.world.store();
        if let Some((home, service)) = to.service.as_deref().and_then(split) {
            let found = store.get(&kinds::SERVICE, &home, &service);
            let first = || found.as_deref().and_then(|s| object::port(s, "/spec/ports/0/port"));
            let port = to.port.or_else(first).ok_or_else(|| format!("there is no Service {home}/{service}"))?;
            let address = found.as_deref().map(|s| text(s, "/spec/clusterIP").to_owned()).unwrap_or_default();
            return Ok(ToService { network, home, service, port, address });
        }
        let (home, gateway) = match to.gateway.as_deref().and_then(split) {
            Some(named) => named,
            None => match store.list(&kinds::GATEWAY, None).as_slice() {
                [one] => object::key(one),
                [] if self.case.gateway == MODEL => return Err("say `to: {service: namespace/name}`".to_owned()),
                [] => return Err("there is no Gateway to send to".to_owned()),
                _ => return Err("there are several Gateways: say `to: {gateway: namespace/name}`".to_owned()),
            },
        };
        let found = store.get(&kinds::GATEWAY, &home, &gateway);
        let Some(found) = found else { return Err(format!("there is no Gateway {home}/{gateway}")) };
        let port = to.port.or_else(|| object::port(&found, "/spec/listeners/0/port")).unwrap_or(80);
        let service = self.service_of(&(home.clone(), gateway.clone()), port);
        let (home, service, address) =
            service.unwrap_or((home, format!("of Gateway {gateway}"), "127.0.0.1".to_owned()));
        Ok(ToService { network, home, service, port, address })
    }

    /// The Service that leads to the proxies of a Gateway: namespace, name and address.
    fn service_of(&self, gateway: &(String, String), port: u16) -> Option<(String, String, String)> {
        let store = self.world.store();
        let pods = store.list(&kinds::POD, None);
        let proxy = pods.iter().find(|pod| self.world.gateway().gateway_of_pod(pod).as_ref() == Some(gateway))?;
        let services = store.list(&kinds::SERVICE, Some(namespace(proxy)));
        let service = services.iter().find(|service| {
            object::selected(proxy.pointer("/metadata/labels"), service.pointer("/spec/selector"))
                && list(service, "/spec/ports").any(|p| object::port(p, "/port") == Some(port))
        })?;
        Some((namespace(service).to_owned(), name(service).to_owned(), text(service, "/spec/clusterIP").to_owned()))
    }

    /// What all endpoint pickers of the world have recorded, once their streams have ended.
    async fn asked(&self) -> Result<Vec<PickerRecord>, String> {
        let mut all = Vec::new();
        for picker in self.world.pickers() {
            let records = tokio::time::timeout(BOUND, picker.at_rest()).await;
            all.extend(records.map_err(|_| format!("{picker:?} has streams that do not end within {BOUND:?}"))?);
        }
        Ok(all)
    }

    /// What all models of the world have recorded, once they have ended all replies.
    async fn records(&self) -> Result<Vec<ModelRecord>, String> {
        let mut all = Vec::new();
        for ((_, pod), model) in self.world.models() {
            let records = tokio::time::timeout(BOUND, model.at_rest()).await;
            let records = records.map_err(|_| format!("the model {pod} has not ended its replies within {BOUND:?}"))?;
            all.extend(records.into_iter().map(|record| ModelRecord { pod: pod.clone(), ..record }));
        }
        Ok(all)
    }
}

fn call(request: &Request) -> Call {
    let has_body = request.json.is_some() || request.body.is_some();
    let method = request.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
    let mut call = Call::new(method, &request.path).timeout(BOUND);
    if let Some(host) = &request.host {
        call = call.host(host);
    }
    for (name, values) in &request.headers {
        for value in &values.0 {
            call = call.header(name, value);
        }
    }
    for (name, values) in &request.script {
        for value in &values.0 {
            let value = if name == "reply" { STANDARD.encode(value) } else { value.clone() };
            call = call.header(format!("x-igc-{name}"), value);
        }
    }
    if let Some(json) = &request.json {
        let mut json = json.clone();
        if let Some(pad) = &request.pad
            && let Some((parent, key)) = pad.at.rsplit_once('/')
            && let Some(parent) = json.pointer_mut(parent)
        {
            let text: Vec<u8> = pad.of.as_deref().unwrap_or("x").bytes().cycle().take(pad.bytes).collect();
            parent[key] = json!(String::from_utf8_lossy(&text));
        }
        call = call.json(&json);
    } else if let Some(body) = &request.body {
        call = call.body(shown(body), "application/json");
    }
    if let Some(leave) = request.leave_after {
        call = call.abandon_after(match leave {
            Leave::Head => Abandon::Head,
            Leave::Chunks(n) => Abandon::Chunks(n),
            Leave::Bytes(n) => Abandon::Bytes(n),
        });
    }
    if request.http2 { call.http2() } else { call }
}

/// Into the world's network, to a Service, as a client outside of the cluster comes in.
struct ToService {
    network: Network,
    home: String,
    service: String,
    port: u16,
    address: String,
}

impl Dial for ToService {
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let network = self.network.clone();
        let (home, service, port) = (self.home.clone(), self.service.clone(), self.port);
        async move {
            let stream = network.connect_service(&home, &service, port).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn describe(&self) -> String {
        self.address.clone()
    }
}
