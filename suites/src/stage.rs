//! The stage of one attempt at a check: a namespace and a hostname of its own, models, a client, a clock, and the history
//! that all of it is written into.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use cluster::{
    api::{Apply, Cluster, ObjectRef, Propagation, Target, WaitCondition},
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
    history::{Exchange, History, Key},
    names,
    plan::PlaceName,
    record::{Drive, Trial},
};
use wire::{Call, Client};

use crate::{
    chat,
    clock::Clock,
    every_path,
    judge::{GATEWAY, condition},
    open::{CheckRun, root},
};

mod pools;
mod records;
mod rehearsed;

pub(crate) use self::pools::endpoints_of;
pub use self::pools::{LlmService, Pool, PoolOf};
use self::{records::Markers, rehearsed::Rehearsed};
pub use gateway::Marker;

/// How many good answers in a row mean that a configuration is live.
const IN_A_ROW: usize = 5;
/// Seconds that a configuration may take to be live.
const SETTLE: f64 = 120.0;
/// Seconds before the next look at one that is not.
const LOOK: f64 = 0.2;
/// Seconds that an InferenceService may take to be Ready.
const READY: u64 = 240;
/// Seconds of the longest window, twice over: what ends later is no window.
const LONGEST_WINDOW: f64 = 7_200.0;
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

/// What a drive may send and take before [`Stage::give_up`] ends it. The largest sends 240 requests and the longest takes 370 s
/// (`tokens/no-leak` and `guide-001/refill-after-a-minute` on Envoy AI Gateway).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) requests: u64,
    /// Minutes of it are waits for windows and pods.
    pub(crate) seconds: f64,
}

impl Bounds {
    pub(crate) const DRIVE: Self = Self { requests: 3_000, seconds: 900.0 };
}

/// A drive has ended by [`Stage::give_up`].
#[derive(Debug)]
pub(crate) struct GaveUp;

impl std::fmt::Display for GaveUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the gateway did not do what the rest of the drive needs")
    }
}

impl std::error::Error for GaveUp {}

pub struct Stage {
    check_run: Arc<CheckRun>,
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
    bounds: Bounds,
    /// When the drive began, in seconds that had passed since the stage was opened.
    driven_from: f64,
    markers: Markers,
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
    pub(crate) async fn open(check_run: Arc<CheckRun>, key: Key, trial: Option<Trial>) -> Result<Self> {
        let world = match check_run.plan.run.place {
            PlaceName::Rehearsal => Some(Rehearsed::start(&check_run, &trial.clone().unwrap_or_default()).await?),
            _ => None,
        };
        let cluster = match &world {
            Some(world) => {
                world.world.mutants().wake();
                world.world.network().hops().wake();
                world.cluster.clone()
            }
            None => check_run.cluster().await?,
        };
        let clock = Clock::start(world.as_ref().map(|w| w.world.clock().clone()));
        let namespace = namespace(&check_run.plan.run.id, &key);
        let hostname = format!("{namespace}.igc.test");
        let mut history = History::new(key, &namespace, &hostname);
        history.controller.clone_from(&check_run.gateway.gateway.controller);
        if let Some(capability) = &check_run.planned.capability {
            history.declared = check_run.gateway_plan()?.capabilities.get(capability).cloned().unwrap_or_default();
        }
        history.changes.clone_from(&check_run.gateway_plan()?.changes);
        history.answers.clone_from(&check_run.gateway_plan()?.answers);
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.apply(&manifest, Apply::of_run(&check_run.plan.run.id)).await?;
        let ask = check_run.gateway.gateway.address_ask(&check_run.environment.addresses);
        // The gateway answered when the run was prepared: that it does not now is for the judge, by the requests that fail.
        let reached = match cluster.reach(&ask).await {
            Ok(reached) => reached,
            Err(error) => {
                let silent = error.silent();
                silent.ok_or(error).context("failed to find an address of the gateway that answers")?
            }
        };
        history.address = Some(reached.address.clone());
        history.notes.extend(reached.before.iter().map(|tried| format!("address {tried}")));
        let prefix = format!("{}-{}", namespace.trim_start_matches("igc-"), history.key.attempt);
        let client = Client::opened_at(reached.dial, prefix, clock.opened());
        let bears_canaries = bears_canaries(&check_run.planned.check, check_run.planned.capability.as_deref());
        let client = if bears_canaries { client.with_canaries() } else { client };
        let driven_from = clock.elapsed();
        Ok(Self {
            check_run,
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
            bounds: Bounds::DRIVE,
            driven_from,
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
        self.check_run.gateway.gateway.object()
    }

    /// Keeps which Gateway it is that all checks share, as the fact that judges of pools tell entries apart by.
    pub fn note_gateway(&mut self) -> Value {
        let shared = self.shared_gateway();
        let gateway = json!({"name": shared.name, "namespace": shared.namespace});
        self.fact(GATEWAY, gateway.clone());
        gateway
    }

    /// A reference to an object in this stage's namespace.
    pub fn object(&self, api_version: &str, kind: &str, name: &str) -> ObjectRef {
        ObjectRef::new(api_version, kind, self.namespace(), name)
    }

    pub fn http_route(&self, name: &str) -> ObjectRef {
        self.object("gateway.networking.k8s.io/v1", "HTTPRoute", name)
    }

    pub fn inference_service(&self, name: &str) -> ObjectRef {
        self.object("serving.kserve.io/v1beta1", "InferenceService", name)
    }

    pub fn inference_pool(&self, name: &str) -> ObjectRef {
        self.object("inference.networking.k8s.io/v1", "InferencePool", name)
    }

    pub fn marker(&self) -> Marker {
        self.check_run.gateway.gateway.marker.clone()
    }

    fn apply(&self) -> Apply<'_> {
        Apply::of_run(&self.check_run.plan.run.id)
            .in_namespace(&self.history.namespace)
            .patient(Duration::from_secs(60))
    }

    pub async fn apply_model(&mut self, name: &str) -> Result<Model> {
        self.apply_model_with(name, &[]).await
    }

    /// Applies an InferenceService and waits for it to be Ready, which is for the judge: it is kept as `inference-service`.
    pub async fn see_model(&mut self, name: &str) -> Result<()> {
        self.apply_model(name).await?;
        let service = self.inference_service(name);
        self.see("inference-service", &service, WaitCondition::ConditionTrue("Ready".into()), 180).await
    }

    async fn apply_model_with(&mut self, name: &str, args: &[&str]) -> Result<Model> {
        let kind = &self.check_run.planned.model;
        let image = self.check_run.environment.images.get(kind.word());
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
        let declared = self.check_run.gateway_plan()?.capabilities.get(capability::KSERVE.name);
        let declared =
            declared.context("the gateway's folder declares no capability kserve, whose domain is needed")?;
        Ok(capability::typed::<Kserve>(declared).map_err(|problem| anyhow!("kserve: {problem}"))?.domain)
    }

    /// A model behind an InferenceService that is Ready. If its pods do not become so, the check is an error, not a failure.
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
        let service = self.inference_service(&model.name);
        self.serves(&service, &["PredictorReady"]).await?;
        if !model.records {
            self.history.unrecorded.push(model.name.clone());
        }
        self.models.push(model.clone());
        Ok(())
    }

    /// Waits until KServe says Ready of a service. Where all that does not depend on a gateway is (`own` conditions), it is the
    /// gateway that does not do what KServe asks of it.
    async fn serves(&mut self, service: &ObjectRef, own: &[&str]) -> Result<()> {
        let within = Duration::from_secs(READY).min(self.patience);
        let Err(error) = self.cluster.wait(service, WaitCondition::ConditionTrue("Ready".into()), within).await else {
            return Ok(());
        };
        let conditions = error.last().map_or(&Value::Null, |last| &last["status"]["conditions"]);
        match of_the_gateway(conditions, own).filter(|_| !error.is_environment()) {
            Some(said) => Err(self.give_up(format!("{service} is not Ready: {said}"))),
            None => Err(error.into()),
        }
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
            "gateway": self.check_run.gateway.gateway, "namespace": self.history.namespace,
            "hostname": self.history.hostname, "name": self.route(), "images": self.check_run.environment.images,
            "versions": self.check_run.gateway_plan()?.versions,
        });
        if let (Some(all), Value::Object(own)) = (all.as_object_mut(), context) {
            all.extend(own);
        }
        Ok(Intents::of(&root().join("manifests"), &self.check_run.gateway.name).render(intent, &all)?)
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

    /// A model that is routed to by the name that the body gives, live.
    pub async fn routed_model(&mut self, name: &str) -> Result<Model> {
        let model = self.model(name).await?;
        self.route_models(&[&model]).await?;
        self.settle(|| chat(name), name).await?;
        Ok(model)
    }

    /// A route that leads every path of a hostname, or else of this stage's, to a Service on port 80.
    pub async fn plain_route(&mut self, name: &str, hostname: Option<&str>, service: &str) -> Result<()> {
        let hostname = hostname.unwrap_or(self.hostname());
        let rules = json!([{"match": every_path(), "service": service, "port": 80}]);
        self.intent("http-route", json!({"name": name, "hostname": hostname, "rules": rules})).await
    }

    /// Retries until the model answers several times in a row, and writes down how long that took. A configuration that
    /// does not become live is for the judge: the drive goes on.
    pub async fn settle(&mut self, call: impl FnMut() -> Call, model: &str) -> Result<()> {
        let prefix = format!("{model}-");
        self.settle_when(call, |e| answered(e).is_some_and(|pod| pod.starts_with(&prefix))).await
    }

    pub async fn settle_any(&mut self, call: impl FnMut() -> Call) -> Result<()> {
        self.settle_when(call, |e| answered(e).is_some()).await
    }

    pub async fn settle_status(&mut self, call: impl FnMut() -> Call, wanted: impl Fn(u16) -> bool) -> Result<()> {
        self.settle_when(call, |e| e.status().is_some_and(&wanted)).await
    }

    pub async fn settle_header(&mut self, call: impl FnMut() -> Call, name: &str) -> Result<()> {
        self.settle_when(call, |e| e.response().is_some_and(|r| r.header(name).is_some())).await
    }

    /// The same until the answer is as wanted.
    pub async fn settle_when(
        &mut self,
        mut call: impl FnMut() -> Call,
        good: impl Fn(&Exchange) -> bool,
    ) -> Result<()> {
        let began = *self.applied_at.get_or_insert(self.clock.seconds());
        let until = self.clock.seconds() + SETTLE;
        let first = self.history.settle.exchanges.is_empty();
        let (mut row, mut looks) = (0, 0.0);
        while row < IN_A_ROW {
            self.within_bounds("settle")?;
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

    /// Ends the drive here: without what the gateway did not do, the rest of it would prove nothing. That is for the judge, as
    /// a configuration that does not become live is, and no error of the harness.
    pub fn give_up(&mut self, missing: String) -> anyhow::Error {
        self.history.settle.settled = false;
        self.history.settle.missing = Some(missing);
        GaveUp.into()
    }

    /// Ends the drive here, if it has come to its bounds before a request of this label.
    pub(crate) fn within_bounds(&mut self, label: &str) -> Result<()> {
        let Drive { requests, most_requests, seconds, most_seconds } = self.drive();
        if requests < most_requests && seconds < most_seconds {
            return Ok(());
        }
        Err(self.give_up(format!(
            "{requests} requests (at most {most_requests}) in {seconds:.0} s (at most {most_seconds} s), and the drive is not at \
             its end: {label} would be next"
        )))
    }

    pub(crate) fn drive(&self) -> Drive {
        Drive {
            requests: self.client.sent(),
            most_requests: self.bounds.requests,
            seconds: self.clock.elapsed() - self.driven_from,
            most_seconds: self.bounds.seconds,
        }
    }

    /// When it was sent is said in the stage's own time, also where that was moved.
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
    pub async fn prepare(&mut self, call: Call) -> Result<Exchange> {
        self.within_bounds("prepare")?;
        let exchange = self.exchange("prepare", call).await;
        self.history.settle.exchanges.push(exchange.clone());
        Ok(exchange)
    }

    /// Sends a request as part of the drive, the first markers before the first. What goes wrong with it is in the exchange.
    pub async fn send(&mut self, label: &str, call: Call) -> Result<()> {
        self.within_bounds(label)?;
        self.begin_if_unsent().await?;
        let exchange = self.exchange(label, call).await;
        self.history.exchanges.push(exchange);
        Ok(())
    }

    /// Sends the labelled requests in turn, `times` times over.
    pub async fn send_in_turn(&mut self, times: usize, calls: &[(&str, Call)]) -> Result<()> {
        for _ in 0..times {
            for (label, call) in calls {
                self.send(label, call.clone()).await?;
            }
        }
        Ok(())
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
        self.within_bounds(label)?;
        self.begin_if_unsent().await?;
        let sending = join_all(calls.into_iter().map(|call| self.exchange(label, call)));
        let (exchanges, done) = tokio::join!(sending, meanwhile(self));
        self.history.exchanges.extend(exchanges);
        done
    }

    /// Waits for an object to be as wanted, and keeps it as `name`, as it was last seen. That it never was as wanted is for
    /// the judge; that the cluster does not answer is an error.
    pub async fn see(
        &mut self,
        name: &str,
        target: impl Into<Target>,
        wanted: WaitCondition,
        seconds: u64,
    ) -> Result<()> {
        let seen = match self.cluster.wait(target, wanted, Duration::from_secs(seconds).min(self.patience)).await {
            Ok(waited) => Some(waited.object().clone()),
            Err(error) if error.is_environment() => return Err(error.into()),
            Err(error) => {
                self.history.notes.push(format!("{name}: {error}"));
                error.last().cloned()
            }
        };
        self.history.objects.extend(seen.map(|seen| (name.to_owned(), seen)));
        Ok(())
    }

    /// An object as it was read, `null` where it was not.
    pub fn seen(&self, name: &str) -> &Value {
        self.history.objects.get(name).unwrap_or(&Value::Null)
    }

    /// Keeps an object as it is now, `null` where there is none.
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

    /// Waits until `offset` seconds after (or before) the end of the limiter's window. It says whole seconds: one is added.
    /// A window that ends after the drive has to, or later than any, is not waited for.
    pub async fn until_window_end(&mut self, offset: f64) -> Result<()> {
        let until = self.window_end + 1.0 + offset;
        let (left, most) = (self.window_end - self.clock.seconds(), self.bounds.seconds);
        if left > LONGEST_WINDOW || self.drive().seconds + self.clock.would_take(until) > most {
            return Err(self.give_up(format!("a window that ends in {left:.0} s, and a drive ends after {most} s")));
        }
        self.clock.until(until).await;
        Ok(())
    }

    /// Why nothing of what was seen counts, where a program that was to stand on a hop did not.
    pub(crate) fn void(&self) -> Option<String> {
        self.world.as_ref()?.world.network().hops().void()
    }

    /// Whether what is wrong in the stage's world came to act.
    pub(crate) fn reached_mutant(&self) -> bool {
        self.world.as_ref().is_some_and(|w| w.world.mutants().reached())
    }

    #[cfg(test)]
    pub(crate) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Ends the world under the stage, as a cluster dies in the middle of a check.
    #[cfg(test)]
    pub(crate) fn lose_the_cluster(&mut self) {
        self.world = None;
        let bounds = cluster::api::Bounds { absence: Duration::from_millis(50), ..Default::default() };
        self.cluster = self.cluster.clone().with_bounds(bounds);
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
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

/// The first condition that is not true, of a service whose own conditions are: what a gateway has to do is left.
fn of_the_gateway(conditions: &Value, own: &[&str]) -> Option<String> {
    let is_true = |kind: &&str| condition(conditions, kind).is_some_and(|said| said["status"] == "True");
    let not_true = |said: &&Value| said["status"] == "False" && said["type"] != "Ready" && said["type"] != "Stopped";
    let left = conditions.as_array()?.iter().find(not_true).filter(|_| own.iter().all(is_true))?;
    let text = |name: &str| left[name].as_str().unwrap_or_default();
    Some(format!("{} is {}, {} {}", text("type"), text("status"), text("reason"), text("message")))
}

/// Whether requests of a check have canaries: what a guide prints is sent as it is printed, and where tokens are counted
/// nothing is added to what is counted.
fn bears_canaries(check: &str, capability: Option<&str>) -> bool {
    let counts_tokens = check.starts_with("tokens/") || capability.is_some_and(|c| c.starts_with("token-limit"));
    !check.starts_with("guide-") && !counts_tokens
}

/// The pod that gave a whole 200, by the header that our simulators send.
fn answered(exchange: &Exchange) -> Option<&str> {
    exchange.response().filter(|r| r.status == 200)?.header("x-inference-pod")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

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

    #[rstest]
    #[case::route_is_not_accepted(
        json!([{"type": "IngressReady", "status": "False", "reason": "NotAllowed", "message": "no"}, {"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "False"}]),
        Some("IngressReady is False, NotAllowed no")
    )]
    #[case::pods_are_not_ready(
        json!([{"type": "IngressReady", "status": "False"}, {"type": "PredictorReady", "status": "False"}, {"type": "Ready", "status": "False"}]),
        None
    )]
    #[case::nobody_says_anything(json!(null), None)]
    #[case::ready_alone_is_missing(json!([{"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "False"}]), None)]
    fn what_a_service_waits_for_is_the_gateways_where_its_pods_are_ready(
        #[case] conditions: Value,
        #[case] said: Option<&str>,
    ) {
        assert_eq!(of_the_gateway(&conditions, &["PredictorReady"]).as_deref(), said);
    }

    #[rstest]
    #[case::no_capability("routing/host", None, true)]
    #[case::another("pool/choice", Some("pool"), true)]
    #[case::guide("guide-001/as-printed", None, false)]
    #[case::tokens("tokens/errors-are-free", Some("pool"), false)]
    #[case::counts_tokens("errors/limit", Some("token-limit-per-user"), false)]
    fn canaries_are_in_no_guide_and_in_nothing_that_is_counted(
        #[case] check: &str,
        #[case] capability: Option<&str>,
        #[case] bears: bool,
    ) {
        assert_eq!(bears_canaries(check, capability), bears);
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
