//! The stage of one attempt at a check: a namespace and a hostname of its own, models, a client, a clock, and the history
//! that all of it is written into.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use cluster::{
    api::{Apply, Cluster, ObjectRef, Propagation, Target, Until},
    gateway,
    install::model::{ModelFile, Served},
    intents::{self, Intents},
};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use verdict::{
    capability::{self, Kserve},
    guides,
    history::{Exchange, History, Key, ModelLog, ModelRecord},
    names,
    plan::Place,
    record::Trial,
};
use wire::{Call, Client};

use crate::{
    clock::Clock,
    judge::GATEWAY,
    open::{Opened, root},
};

mod pools;
mod rehearsed;

pub(crate) use self::pools::endpoints_of;
pub use self::pools::{LlmService, Pool, PoolOf};
use self::rehearsed::Rehearsed;
pub use gateway::Marker;

/// How many good answers in a row mean that a configuration is live.
const IN_A_ROW: usize = 5;
/// Seconds that a configuration may take to be live.
const SETTLE: f64 = 120.0;
/// Seconds before the next look at one that is not.
const LOOK: f64 = 0.2;
/// Seconds that an InferenceService may take to be Ready.
const READY: u64 = 240;
/// How long a trial waits for what a rehearsed world may never do: what it does it does in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// The port that our own model listens on in its pod, where nobody wants another one.
const MODEL_PORT: u16 = 8080;

#[derive(Clone, Debug)]
pub struct Model {
    /// Of the InferenceService, and the name that requests use.
    pub name: String,
    /// Its Service, which has port 80.
    pub service: String,
    /// The hostname that KServe routes to it.
    pub host: String,
    /// Whether it is our own, which records every request.
    records: bool,
    /// The labels of its pods.
    selector: String,
    /// The port that it listens on there.
    port: u16,
}

pub struct Stage {
    opened: Arc<Opened>,
    world: Option<Rehearsed>,
    cluster: Cluster,
    client: Client,
    clock: Clock,
    history: History,
    models: Vec<Model>,
    pools: Vec<Pool>,
    elsewhere: Vec<ObjectRef>,
    applied_at: Option<f64>,
    window_end: f64,
    serial: u64,
    patience: Duration,
    markers: Markers,
}

enum Markers {
    Unsent,
    Begun,
    /// The first ones could not be sent, which is an error of the check.
    Failed(anyhow::Error),
    Ended,
}

/// A name that DNS and KServe's hostnames bear: run, check and attempt in at most 36 characters.
fn namespace(run: &str, key: &Key) -> String {
    let run = run.rsplit('-').next().unwrap_or(run);
    let full = format!("{}-{}-{}", key.check.replace('/', "-"), key.case, key.attempt);
    let hash = &verdict::history::Body::of(format!("{run}/{}/{full}", key.gateway).as_bytes()).sha256[..6];
    let kept: String = key.check.replace('/', "-").chars().take(20).collect();
    format!("igc-{run}-{}-{hash}", kept.trim_end_matches('-'))
}

impl Stage {
    pub(crate) async fn open(opened: Arc<Opened>, key: Key, trial: Option<Trial>) -> Result<Self> {
        let world = match opened.plan.run.place {
            Place::Rehearsal => Some(Rehearsed::start(&opened, &trial.clone().unwrap_or_default()).await?),
            _ => None,
        };
        let cluster = match &world {
            Some(world) => {
                world.world.mutants().wake();
                world.world.network().hops().wake();
                world.cluster.clone()
            }
            None => opened.cluster().await?,
        };
        let clock = Clock::start(world.as_ref().map(|w| w.world.clock().clone()));
        let namespace = namespace(&opened.plan.run.id, &key);
        let hostname = format!("{namespace}.igc.test");
        let mut history = History::new(key, &namespace, &hostname);
        history.controller.clone_from(&opened.gateway.gateway.controller);
        let capabilities = opened.plan.gateways.iter().find(|g| g.name == opened.gateway.name).map(|g| &g.capabilities);
        if let (Some(capability), Some(declared)) = (&opened.planned.capability, capabilities) {
            history.declared = declared.get(capability).cloned().unwrap_or_default();
        }
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.apply(&manifest, Apply::of_run(&opened.plan.run.id)).await?;
        let ask = opened.gateway.gateway.address_ask(&opened.stood.addresses);
        let reached = cluster.reach(&ask).await.context("failed to find an address of the gateway that answers")?;
        history.address = Some(reached.address.clone());
        history.notes.extend(reached.before.iter().map(|tried| format!("address {tried}")));
        let prefix = format!("{}-{}", namespace.trim_start_matches("igc-"), history.key.attempt);
        let client = Client::opened_at(reached.dial, prefix, clock.opened());
        Ok(Self {
            opened,
            world,
            cluster,
            client,
            clock,
            history,
            models: vec![],
            pools: vec![],
            elsewhere: vec![],
            applied_at: None,
            window_end: 0.0,
            serial: 0,
            patience: trial.map_or(Duration::MAX, |_| PATIENCE),
            markers: Markers::Unsent,
        })
    }

    pub fn hostname(&self) -> &str {
        &self.history.hostname
    }

    pub fn namespace(&self) -> &str {
        &self.history.namespace
    }

    /// The case, `-` where there is none.
    pub fn case(&self) -> &str {
        &self.history.key.case
    }

    /// `host:port` that the client connects to.
    pub fn address(&self) -> &str {
        self.history.address.as_deref().unwrap_or_default()
    }

    /// Name of the route that [`Stage::route_models`] makes.
    pub fn route(&self) -> &'static str {
        "route"
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn declared<C: DeserializeOwned>(&self) -> Result<C> {
        capability::typed(&self.history.declared)
            .map_err(|problem| anyhow!("the check's capability has other parameters: {problem}"))
    }

    /// A word that no other request of the run has used.
    pub fn unique(&mut self) -> String {
        self.serial += 1;
        format!("{}-{}", self.history.namespace.trim_start_matches("igc-"), self.serial)
    }

    /// The Gateway that the checks of a run share.
    pub fn shared_gateway(&self) -> ObjectRef {
        self.opened.gateway.gateway.object()
    }

    /// Keeps which Gateway it is that all checks share, as the fact that judges of pools tell entries apart by.
    pub fn note_gateway(&mut self) -> Value {
        let shared = self.shared_gateway();
        let gateway = json!({"name": shared.name, "namespace": shared.namespace});
        self.fact(GATEWAY, gateway.clone());
        gateway
    }

    pub fn marker(&self) -> Marker {
        self.opened.gateway.gateway.marker.clone()
    }

    fn apply(&self) -> Apply<'_> {
        Apply::of_run(&self.opened.plan.run.id).in_namespace(&self.history.namespace).patient(Duration::from_secs(60))
    }

    pub async fn apply_model(&mut self, name: &str) -> Result<Model> {
        self.apply_model_with(name, &[]).await
    }

    async fn apply_model_with(&mut self, name: &str, args: &[&str]) -> Result<Model> {
        let kind = &self.opened.planned.model;
        let image = self.opened.stood.images.get(kind.word());
        let Some(image) = image else { bail!("the run has no image for model {}; see environment.json", kind.word()) };
        let file = ModelFile::read(&root().join("manifests"), kind.word())?;
        let served = Served { name, namespace: &self.history.namespace, model: name, replicas: 1, args };
        for manifest in file.manifests(&served, image)? {
            self.cluster.apply(&manifest, self.apply()).await?;
        }
        let domain = self.kserve_domain()?;
        Ok(Model {
            name: name.to_owned(),
            service: format!("{name}-predictor"),
            host: format!("{name}-{}.{domain}", self.history.namespace),
            records: file.records,
            selector: format!("serving.kserve.io/inferenceservice={name}"),
            port: MODEL_PORT,
        })
    }

    fn kserve_domain(&self) -> Result<String> {
        let plan = &self.opened.plan;
        let gateway = plan.gateways.iter().find(|g| g.name == self.opened.gateway.name);
        let declared = gateway.and_then(|g| g.capabilities.get(capability::KSERVE.name));
        let declared =
            declared.context("the gateway's folder declares no capability kserve, whose domain is needed")?;
        Ok(capability::typed::<Kserve>(declared).map_err(|problem| anyhow!("kserve: {problem}"))?.domain)
    }

    /// A model behind an InferenceService that is Ready. If it does not become so, the check is an error, not a failure.
    pub async fn model(&mut self, name: &str) -> Result<Model> {
        self.model_with(name, &[]).await
    }

    pub async fn model_with(&mut self, name: &str, args: &[&str]) -> Result<Model> {
        let model = self.apply_model_with(name, args).await?;
        self.ready(&model).await?;
        Ok(model)
    }

    pub async fn models(&mut self, names: &[&str]) -> Result<Vec<Model>> {
        let mut models = Vec::new();
        for name in names {
            models.push(self.apply_model(name).await?);
        }
        for model in &models {
            self.ready(model).await?;
        }
        Ok(models)
    }

    async fn ready(&mut self, model: &Model) -> Result<()> {
        let service =
            ObjectRef::new("serving.kserve.io/v1beta1", "InferenceService", &self.history.namespace, &model.name);
        let within = Duration::from_secs(READY).min(self.patience);
        self.cluster.wait(&service, Until::ConditionTrue("Ready".into()), within).await?;
        self.models.push(model.clone());
        Ok(())
    }

    /// Applies one of the gateway's intents (or one that all gateways share), with `name`, `namespace` and `hostname` of
    /// this stage unless `context` has its own.
    pub async fn intent(&mut self, intent: &str, context: Value) -> Result<()> {
        let manifests = self.manifests(intent, context)?;
        self.applied_at.get_or_insert(self.clock.seconds());
        for manifest in manifests {
            self.cluster.apply(&manifest, self.apply()).await?;
        }
        Ok(())
    }

    pub fn manifests(&self, intent: &str, context: Value) -> Result<Vec<Value>> {
        let mut all = json!({
            "gateway": self.opened.gateway.gateway, "namespace": self.history.namespace,
            "hostname": self.history.hostname, "name": self.route(), "images": self.opened.stood.images,
            "versions": self.opened.plan.gateways.iter().find(|g| g.name == self.opened.gateway.name).map(|g| &g.versions),
        });
        if let (Some(all), Value::Object(own)) = (all.as_object_mut(), context) {
            all.extend(own);
        }
        Ok(Intents::of(&root().join("manifests"), &self.opened.gateway.name).render(intent, &all)?)
    }

    /// The manifests that a guide prints, by `<guide>/<name>`, each in this stage's namespace.
    pub fn printed<const N: usize>(&self, name: &str) -> Result<[Value; N]> {
        printed_in(&self.history.namespace, name)
    }

    /// Routes each of these models by the name that the body gives, on this stage's hostname.
    pub async fn route_models(&mut self, models: &[&Model]) -> Result<()> {
        let (name, hostname) = (self.route(), self.hostname().to_owned());
        self.route_models_as(name, &hostname, models).await
    }

    /// The same by another route, on a hostname of its own.
    pub async fn route_models_as(&mut self, name: &str, hostname: &str, models: &[&Model]) -> Result<()> {
        let models: Vec<Value> =
            models.iter().map(|m| json!({"model": m.name, "service": m.service, "port": 80})).collect();
        self.intent("route-model", json!({"name": name, "hostname": hostname, "models": models})).await
    }

    /// Retries until the model answers several times in a row, and writes down how long that took. A configuration that
    /// does not become live is for the judge: the drive goes on.
    pub async fn settle(&mut self, call: impl FnMut() -> Call, model: &str) -> Result<()> {
        let prefix = format!("{model}-");
        self.settle_until(call, |e| answered(e).is_some_and(|pod| pod.starts_with(&prefix))).await
    }

    pub async fn settle_any(&mut self, call: impl FnMut() -> Call) -> Result<()> {
        self.settle_until(call, |e| answered(e).is_some()).await
    }

    pub async fn settle_status(&mut self, call: impl FnMut() -> Call, wanted: impl Fn(u16) -> bool) -> Result<()> {
        self.settle_until(call, |e| e.status().is_some_and(&wanted)).await
    }

    pub async fn settle_header(&mut self, call: impl FnMut() -> Call, name: &str) -> Result<()> {
        self.settle_until(call, |e| e.response().is_some_and(|r| r.header(name).is_some())).await
    }

    pub async fn settle_when(&mut self, call: impl FnMut() -> Call, good: impl Fn(&Exchange) -> bool) -> Result<()> {
        self.settle_until(call, good).await
    }

    async fn settle_until(&mut self, mut call: impl FnMut() -> Call, good: impl Fn(&Exchange) -> bool) -> Result<()> {
        let began = *self.applied_at.get_or_insert(self.clock.seconds());
        let until = self.clock.seconds() + SETTLE;
        let first = self.history.settle.exchanges.is_empty();
        let (mut row, mut looks) = (0, 0.0);
        while row < IN_A_ROW {
            let exchange = self.exchange("settle", call()).await;
            row = if good(&exchange) { row + 1 } else { 0 };
            self.history.settle.exchanges.push(exchange);
            if self.clock.seconds() > until || looks * LOOK > SETTLE.min(self.patience.as_secs_f64() * 4.0) {
                break;
            }
            if row == 0 {
                looks += 1.0;
                self.pause(LOOK).await;
            }
        }
        let settled = row >= IN_A_ROW;
        self.history.settle.settled = settled && (first || self.history.settle.settled);
        self.history.settle.seconds = self.clock.seconds() - began;
        Ok(())
    }

    /// Sends a request, to this stage's hostname where it names none; when it was sent is said in the stage's own time, also
    /// where that was moved.
    async fn exchange(&self, label: &str, call: Call) -> Exchange {
        let moved = self.clock.moved_ms();
        let mut exchange = self.client.send(label, self.addressed(call)).await;
        exchange.sent_ms += moved;
        exchange
    }

    pub(crate) fn addressed(&self, call: Call) -> Call {
        call.host_or(&self.history.hostname)
    }

    /// A request that prepares the drive and is no part of it; kept with the settling.
    pub async fn prepare(&mut self, call: Call) -> Exchange {
        let exchange = self.exchange("prepare", call).await;
        self.history.settle.exchanges.push(exchange.clone());
        exchange
    }

    /// Sends a request as part of the drive, the first markers before the first. It never fails: what went wrong is in the
    /// exchange.
    pub async fn send(&mut self, label: &str, call: Call) -> Exchange {
        self.begin_if_unsent().await;
        let exchange = self.exchange(label, call).await;
        self.history.exchanges.push(exchange.clone());
        exchange
    }

    /// Keeps an exchange of the drive that was sent in step.
    pub(crate) fn keep(&mut self, exchange: Exchange) {
        self.history.exchanges.push(exchange);
    }

    /// Sends requests all at once, and does something `meanwhile`. They stand in the history in the order given.
    pub async fn send_together(
        &mut self,
        label: &str,
        calls: Vec<Call>,
        meanwhile: impl AsyncFnOnce(&Stage) -> Result<()>,
    ) -> Result<()> {
        self.begin_if_unsent().await;
        let sending = join_all(calls.into_iter().map(|call| self.exchange(label, call)));
        let (exchanges, done) = tokio::join!(sending, meanwhile(self));
        self.history.exchanges.extend(exchanges);
        done
    }

    /// Lets so many tokens pass a gate (`x-igc-gate`) of one of our own models: replies that wait there go on. A gate may
    /// be opened before a request names it.
    pub async fn open_gate(&self, model: &Model, gate: &str, tokens: u64) -> Result<()> {
        let path = format!("/igc/gates/{gate}/open?n={tokens}");
        for pod in self.pods(model).await? {
            let answer = self.cluster.pod_post(&self.history.namespace, &pod, model.port, &path).await?;
            if !answer.status.is_success() {
                bail!("model {} answered {path} with {}", model.name, answer.status);
            }
        }
        Ok(())
    }

    /// Waits until one of our own models is answering as many requests as wanted, for at most so many seconds. Gives how
    /// many it was answering when last asked.
    pub async fn until_answering(&self, model: &Model, wanted: impl Fn(u64) -> bool, seconds: f64) -> Result<u64> {
        let pods = self.pods(model).await?;
        self.until_open(&format!("model {}", model.name), &pods, model.port, wanted, seconds).await
    }

    /// The same of whatever keeps a logbook in these pods.
    async fn until_open(
        &self,
        what: &str,
        pods: &[String],
        port: u16,
        wanted: impl Fn(u64) -> bool,
        seconds: f64,
    ) -> Result<u64> {
        let until = self.clock.seconds() + seconds;
        loop {
            let mut open = 0;
            for pod in pods {
                let path = format!("/igc/records?since={}", u64::MAX); // only what the head says is wanted
                let answer = self.cluster.pod_get(&self.history.namespace, pod, port, &path).await?;
                let said = answer.headers.get("x-igc-open").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
                open += said.with_context(|| format!("{what} does not say what it is answering"))?;
            }
            if wanted(open) || self.clock.seconds() > until {
                return Ok(open);
            }
            self.pause(0.1).await;
        }
    }

    /// Sends the first marker to each of our own models and pickers, directly: from here on an absent record means
    /// something. The first request of a drive does it; a drive that changes something before does it by itself.
    pub async fn begin(&mut self) -> Result<()> {
        self.markers = Markers::Begun;
        for pool in self.living_pools() {
            self.open_picker(&pool).await?;
        }
        for model in self.recording() {
            let marker = self.mark(&model).await?;
            self.history.models.entry(model.name.clone()).or_default().marker_before = Some(marker);
        }
        Ok(())
    }

    /// The same, if it was not done; what goes wrong is said when the drive ends.
    pub(crate) async fn begin_if_unsent(&mut self) {
        if matches!(self.markers, Markers::Unsent)
            && let Err(error) = self.begin().await
        {
            self.markers = Markers::Failed(error);
        }
    }

    /// No markers are sent and no records are read in this drive: its models go before it ends.
    pub fn without_records(&mut self) {
        self.markers = Markers::Ended;
    }

    /// Sends the last marker to each of our own models and pickers, and reads their records. The end of every drive does it;
    /// a drive that takes models or pickers away does it before.
    pub async fn end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.markers, Markers::Ended) {
            Markers::Begun => {}
            Markers::Failed(error) => return Err(error),
            Markers::Unsent | Markers::Ended => return Ok(()), // nothing was driven, or nothing since
        }
        for pool in self.living_pools() {
            self.close_picker(&pool).await?;
        }
        for model in self.recording() {
            let marker = self.mark(&model).await?;
            self.keep_records(&model).await?;
            let log = self.history.models.entry(model.name.clone()).or_default();
            log.marker_after = Some(marker);
        }
        Ok(())
    }

    /// Reads the records of a model, and keeps those that were read before from pods that are gone.
    async fn keep_records(&mut self, model: &Model) -> Result<()> {
        let records = self.records(model).await?;
        let log = self.history.models.entry(model.name.clone()).or_default();
        log.records.retain(|old| records.iter().all(|new| new.pod != old.pod));
        log.records.extend(records);
        log.records.sort_by_key(|r| (r.at_ms, r.sequence));
        Ok(())
    }

    fn recording(&self) -> Vec<Model> {
        self.models.iter().filter(|m| m.records).cloned().collect()
    }

    async fn pods(&self, model: &Model) -> Result<Vec<String>> {
        let pods = self.cluster.ready_pods(&self.history.namespace, &model.selector).await?;
        if pods.is_empty() {
            bail!("model {} has no pod that is ready", model.name);
        }
        Ok(pods)
    }

    /// A request to every pod of the model that does not go through the gateway.
    async fn mark(&mut self, model: &Model) -> Result<String> {
        let marker = format!("marker-{}", self.unique());
        for pod in self.pods(model).await? {
            let path = format!("/v1/models?{}={marker}", verdict::history::EXCHANGE_HEADER);
            let answer = self.cluster.pod_get(&self.history.namespace, &pod, model.port, &path).await?;
            if !answer.status.is_success() {
                bail!("model {} answered its marker with {}", model.name, answer.status);
            }
        }
        Ok(marker)
    }

    async fn records(&self, model: &Model) -> Result<Vec<ModelRecord>> {
        let pods = self.pods(model).await?;
        let mut all: Vec<ModelRecord> = self.logbook(&format!("model {}", model.name), &pods, model.port).await?;
        all.sort_by_key(|r| (r.at_ms, r.sequence));
        Ok(all)
    }

    /// All records of some pods.
    async fn logbook<R: DeserializeOwned>(&self, what: &str, pods: &[String], port: u16) -> Result<Vec<R>> {
        let mut all = Vec::new();
        for pod in pods {
            let mut since = 0;
            loop {
                let path = format!("/igc/records?since={since}");
                let answer = self.cluster.pod_get(&self.history.namespace, pod, port, &path).await?;
                if !answer.status.is_success() {
                    bail!("{what} answered the request for its records with {}", answer.status);
                }
                let number = |header: &str| answer.headers.get(header)?.to_str().ok()?.parse::<u64>().ok();
                if let Some(dropped) = number("x-igc-dropped") {
                    bail!("{what} has dropped {dropped} records: an absent one means nothing");
                }
                let records: Vec<R> = serde_json::from_slice(&answer.body)
                    .with_context(|| format!("failed to understand the records of {what}"))?;
                all.extend(records);
                match number("x-igc-next").filter(|_| answer.headers.contains_key("x-igc-more")) {
                    Some(next) if next > since => since = next,
                    _ => break,
                }
            }
        }
        Ok(all)
    }

    /// Waits for an object to be as wanted, and keeps it as `name`, as it was last seen. That it never was as wanted is for
    /// the judge; that the cluster does not answer is an error.
    pub async fn see(&mut self, name: &str, object: &ObjectRef, until: Until, seconds: u64) -> Result<Value> {
        self.see_target(name, Target::from(object), until, seconds).await
    }

    /// The same for the first object with these labels.
    pub async fn see_labelled(
        &mut self,
        name: &str,
        version: &str,
        kind: &str,
        namespace: &str,
        labels: &str,
        seconds: u64,
    ) -> Result<()> {
        let target = Target::labelled(version, kind, Some(namespace), labels);
        self.see_target(name, target, Until::Exists, seconds).await.map(drop)
    }

    async fn see_target(&mut self, name: &str, target: Target, until: Until, seconds: u64) -> Result<Value> {
        let seen = match self.cluster.wait(target, until, Duration::from_secs(seconds).min(self.patience)).await {
            Ok(waited) => Some(waited.object().clone()),
            Err(error) if error.is_environment() => return Err(error.into()),
            Err(error) => {
                self.history.notes.push(format!("{name}: {error}"));
                error.last().cloned()
            }
        };
        if let Some(seen) = &seen {
            self.history.objects.insert(name.to_owned(), seen.clone());
        }
        Ok(seen.unwrap_or_default())
    }

    pub async fn look(&mut self, name: &str, object: &ObjectRef) -> Result<()> {
        let found = self.cluster.get(object).await?.unwrap_or_default();
        self.history.objects.insert(name.to_owned(), found);
        Ok(())
    }

    pub async fn offer(&mut self, name: &str, manifest: &Value) -> Result<()> {
        let admission = self.cluster.offer(manifest, self.apply()).await?;
        self.history.admissions.insert(name.to_owned(), admission);
        Ok(())
    }

    /// The same for an object outside this stage's namespace, which is deleted with it.
    pub async fn offer_for_this_stage(&mut self, name: &str, manifest: &Value) -> Result<()> {
        if let Ok(object) = ObjectRef::of(manifest) {
            self.elsewhere.push(object);
        }
        self.offer(name, manifest).await
    }

    pub async fn offer_dry(&mut self, name: &str, manifest: &Value) -> Result<()> {
        let admission = self.cluster.dry_run(manifest).await?;
        self.history.admissions.insert(name.to_owned(), admission);
        Ok(())
    }

    pub fn fact(&mut self, name: &str, value: Value) {
        self.history.facts.insert(name.to_owned(), value);
    }

    /// Sets aside the exchanges from this one on, with a note that says why: they stay in the history, under another label.
    pub fn discard_from(&mut self, from: usize, why: &str) {
        for exchange in self.history.exchanges.iter_mut().skip(from) {
            exchange.label = format!("discarded-{}", exchange.label);
        }
        self.history.notes.push(why.to_owned());
    }

    pub async fn pause(&self, seconds: f64) {
        self.clock.pause(seconds).await;
    }

    /// Writes down that the limiter's window ends in so many seconds.
    pub fn set_window_end(&mut self, in_seconds: f64) {
        self.window_end = self.clock.seconds() + in_seconds;
    }

    /// Writes down that the limiter's window ended, and that the next one is of this length.
    pub fn next_window(&mut self, seconds: f64) {
        self.window_end += seconds;
    }

    pub fn window_end(&self) -> f64 {
        self.window_end
    }

    /// Waits until `offset` seconds after (or before) the end of a window. Limiters say whole seconds: one is added.
    pub async fn until_window(&self, end: f64, offset: f64) {
        self.clock.until(end + 1.0 + offset).await;
    }

    /// Why nothing of what was seen counts, where a program that was to stand on a hop did not.
    pub(crate) fn void(&self) -> Option<String> {
        self.world.as_ref()?.world.network().hops().void()
    }

    /// Whether what is wrong in the stage's world came to act.
    pub(crate) fn reached_mutant(&self) -> bool {
        self.world.as_ref().is_some_and(|w| w.world.mutants().reached())
    }

    /// Ends the world under the stage, as a cluster dies in the middle of a check.
    #[cfg(test)]
    pub(crate) fn lose_the_cluster(&mut self) {
        self.world = None;
        self.cluster = self.cluster.clone().with_absence(Duration::from_millis(50));
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Reads the records of our own models, if a drive that failed has not.
    pub(crate) async fn salvage(&mut self) {
        for model in self.recording() {
            let read = self.history.models.get(&model.name).is_some_and(|l: &ModelLog| l.marker_after.is_some());
            if !read {
                _ = self.keep_records(&model).await;
            }
        }
    }

    /// Removes what the stage made. What cannot be removed goes with the cluster, or with `cargo xtask down`.
    pub(crate) async fn close(&self) {
        let namespace = ObjectRef::global("v1", "Namespace", &self.history.namespace);
        for object in self.elsewhere.iter().chain([&namespace]) {
            _ = self.cluster.delete(object, Propagation::Background).await;
        }
    }
}

fn printed_in<const N: usize>(namespace: &str, name: &str) -> Result<[Value; N]> {
    let unknown = |near: Vec<String>| anyhow!("no guide prints {name}{}", names::suggestion(&near));
    let mut manifests = intents::documents(guides::printed(name).map_err(unknown)?)?;
    for manifest in &mut manifests {
        manifest["metadata"]["namespace"] = json!(namespace);
    }
    let count = manifests.len();
    manifests.try_into().map_err(|_| anyhow!("the guide prints {count} manifests as {name}, and {N} are wanted"))
}

/// The pod that gave a whole 200, by the header that our simulators send.
fn answered(exchange: &Exchange) -> Option<&str> {
    exchange.response().filter(|r| r.status == 200)?.header("x-inference-pod")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guide_prints_is_put_into_the_stages_namespace() {
        let [gateway] = printed_in("ns", "guide-000/gateway").unwrap();
        assert_eq!((&gateway["kind"], &gateway["metadata"]["namespace"]), (&json!("Gateway"), &json!("ns")));
        let two = printed_in::<1>("ns", "guide-004/gateway-and-route").unwrap_err().to_string();
        assert_eq!(two, "the guide prints 2 manifests as guide-004/gateway-and-route, and 1 are wanted");
        let unknown = printed_in::<1>("ns", "guide-000/gatway").unwrap_err().to_string();
        assert!(unknown.contains("guide-000/gatway") && unknown.contains("guide-000/gateway"), "{unknown}");
    }

    #[test]
    fn names_fit_into_kserves_hostnames() {
        let key = Key {
            gateway: "g".into(),
            check: "guide-002/service-backend-as-printed".into(),
            case: "-".into(),
            attempt: 1,
        };
        let name = namespace("20261121-120305-k3f9", &key);
        assert!(format!("llama3-1b-predictor-{name}").len() <= 63, "{name}");
        assert_ne!(name, namespace("20261121-120305-k3f9", &Key { attempt: 2, ..key }));
    }
}
