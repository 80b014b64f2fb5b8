//! Pools of a stage: our own models behind an endpoint picker of ours, which is asked, told what to choose, and killed.

use std::time::Duration;

use anyhow::{Result, bail};
use cluster::{
    api::{ObjectRef, Propagation, Target, WaitCondition},
    install::model::ModelFile,
};
use serde::Serialize;
use serde_json::{Value, json};
use verdict::history::PickerRecord;

use super::{MODEL_PORT, Model, Stage};
use crate::open::root;

/// The port that a picker's records are read from.
const PICKER_PORT: u16 = 8080;
/// The port of the models of an LLMInferenceService.
const LLM_PORT: u16 = 8000;
/// Seconds that the pods of a pool may take to come and to go.
const PODS: u64 = 120;
/// Seconds that requests which a client has its answer to may still be under way for the picker.
const UNDER_WAY: f64 = 5.0;

#[derive(Clone, Debug, Serialize)]
pub struct PoolOf {
    pub name: String,
    /// The name that its models answer to.
    pub model: String,
    pub picker: String,
    /// The Service that it refers to as its picker's.
    pub picker_service: String,
    pub replicas: u32,
    pub pickers: u32,
    /// Target ports. The models listen on 8080 alone: on any other port nothing answers.
    pub ports: Vec<u16>,
    pub failure_mode: &'static str,
    /// The Inference Extension's own picker, told by request header like in its own tests. It keeps no records.
    pub upstream: bool,
}

impl PoolOf {
    /// Two models and one picker; without it requests are refused.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            model: name.to_owned(),
            picker: format!("{name}-epp"),
            picker_service: format!("{name}-epp"),
            replicas: 2,
            pickers: 1,
            ports: vec![8080],
            failure_mode: "FailClose",
            upstream: false,
        }
    }

    pub fn failing_open(self) -> Self {
        Self { failure_mode: "FailOpen", ..self }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct LlmService {
    pub name: String,
    /// The name that its models answer to.
    pub model: String,
    /// The version of its API in which it is written.
    pub version: &'static str,
    pub replicas: u32,
    pub routed: bool,
    /// Whether models and picker are ours: the stage decides it by the check's model.
    pub records: bool,
}

impl LlmService {
    /// Two models and a picker, routed on the Gateway that KServe is configured with.
    pub fn new(name: &str) -> Self {
        let model = name.to_owned();
        Self { name: name.to_owned(), model, version: "v1alpha2", replicas: 2, routed: true, records: true }
    }
}

#[derive(Clone, Debug)]
pub struct Pool {
    /// Of its models, and in a history.
    pub name: String,
    /// `address:port` of each endpoint, by the name of its pod.
    pub endpoints: Vec<(String, String)>,
    /// Labels of the pods of its models, and of its picker.
    selectors: (String, String),
    ports: Vec<u16>,
    /// What it was made from, where it was made by itself.
    wanted: Option<PoolOf>,
    /// Whether its picker is ours, and lives.
    records: bool,
}

impl Pool {
    /// The endpoint of this number, counted round.
    pub fn endpoint(&self, number: usize) -> &str {
        self.endpoints.get(number % self.endpoints.len().max(1)).map_or("", |(_, endpoint)| endpoint)
    }

    /// The Service that leads to all of its models, past the picker.
    pub fn service(&self) -> &str {
        &self.name
    }
}

impl Stage {
    pub async fn pool(&mut self, wanted: PoolOf) -> Result<Pool> {
        let mut pool = Pool {
            name: wanted.name.clone(),
            endpoints: vec![],
            selectors: (format!("app={}", wanted.name), format!("app={}", wanted.picker)),
            ports: wanted.ports.clone(),
            records: !wanted.upstream,
            wanted: Some(wanted),
        };
        self.apply_pool(&mut pool).await?;
        self.keep_pool(&pool, true, MODEL_PORT);
        Ok(pool)
    }

    fn keep_pool(&mut self, pool: &Pool, records: bool, port: u16) {
        self.models.push(Model {
            name: pool.name.clone(),
            service: pool.service().to_owned(),
            host: String::new(),
            records,
            selector: pool.selectors.0.clone(),
            port,
        });
        self.pools.push(pool.clone());
    }

    /// Does not wait for it. Models and picker are ours where the check wants our own model, else the simulator and GIE's.
    pub async fn apply_llm_service(&mut self, wanted: LlmService) -> Result<LlmService> {
        let records = ModelFile::read(&root().join("manifests"), self.check_run.planned.model.word())?.records;
        let wanted = LlmService { records, ..wanted };
        self.intent("llm-service", json!({"service": wanted})).await?;
        Ok(wanted)
    }

    /// An LLMInferenceService that is Ready, as the pool that it makes. If its pods do not become so, the check is an error.
    pub async fn llm_service(&mut self, wanted: LlmService) -> Result<Pool> {
        let wanted = self.apply_llm_service(wanted).await?;
        let service = self.object("serving.kserve.io/v1alpha2", "LLMInferenceService", &wanted.name);
        self.serves(&service, &["WorkloadsReady"]).await?;
        let of = |component: &str| {
            format!(
                "app.kubernetes.io/component=llminferenceservice-{component},app.kubernetes.io/name={}",
                wanted.name
            )
        };
        let mut pool = Pool {
            name: wanted.name.clone(),
            endpoints: vec![],
            selectors: (of("workload"), of("router-scheduler")),
            ports: vec![LLM_PORT],
            records: wanted.records,
            wanted: None,
        };
        self.until_pods(&pool.selectors.0, wanted.replicas).await?;
        // KServe changes the picker's Deployment once more, and says Ready meanwhile (seen of v0.17.0).
        self.until_pods(&pool.selectors.1, 1).await?;
        self.note_endpoints(&mut pool).await?;
        self.keep_pool(&pool, wanted.records, LLM_PORT);
        Ok(pool)
    }

    /// Changes how many models a pool has; what those that leave have recorded is kept.
    pub async fn scale(&mut self, pool: &mut Pool, replicas: u32) -> Result<()> {
        if let Some(model) = self.models.iter().find(|m| m.name == pool.name).cloned() {
            self.keep_records(&model).await?;
        }
        if let Some(wanted) = &mut pool.wanted {
            wanted.replicas = replicas;
        }
        self.apply_pool(pool).await
    }

    pub async fn kill_picker(&mut self, pool: &mut Pool) -> Result<()> {
        self.close_picker(pool).await?;
        pool.records = false;
        if let Some(known) = self.pools.iter_mut().find(|p| p.name == pool.name) {
            known.records = false;
        }
        if let Some(wanted) = &mut pool.wanted {
            wanted.pickers = 0;
        }
        self.apply_pool(pool).await
    }

    async fn apply_pool(&mut self, pool: &mut Pool) -> Result<()> {
        let Some(wanted) = pool.wanted.clone() else { bail!("pool {} belongs to an LLMInferenceService", pool.name) };
        self.intent("pool", json!({"pool": wanted})).await?;
        for name in [&pool.name, &wanted.picker] {
            let deployment = self.object("apps/v1", "Deployment", name);
            let within = Duration::from_secs(PODS).min(self.patience);
            self.cluster.wait(&deployment, WaitCondition::DeploymentAvailable, within).await?;
        }
        self.until_pods(&pool.selectors.0, wanted.replicas).await?;
        self.until_pods(&pool.selectors.1, wanted.pickers).await?;
        self.note_endpoints(pool).await
    }

    /// Writes down which pod is behind each endpoint, also of pods that have gone since.
    async fn note_endpoints(&mut self, pool: &mut Pool) -> Result<()> {
        let pods = self.cluster.list("v1", "Pod", Some(self.namespace()), &pool.selectors.0).await?;
        pool.endpoints = endpoints(&pods, &pool.ports);
        if pool.endpoints.is_empty() {
            bail!("pool {} has no pod with an address", pool.name);
        }
        let fact = self.history.facts.entry(endpoints_of(&pool.name)).or_insert_with(|| json!({}));
        for (pod, endpoint) in &pool.endpoints {
            fact[endpoint] = json!(pod);
        }
        Ok(())
    }

    /// Waits until there are so many pods with a label, those on their way out counted.
    async fn until_pods(&self, selector: &str, wanted: u32) -> Result<()> {
        let until = self.clock.seconds() + PODS as f64;
        loop {
            let pods = self.cluster.list("v1", "Pod", Some(self.namespace()), selector).await?;
            if pods.len() == wanted as usize {
                return Ok(());
            }
            if self.clock.seconds() > until {
                bail!("{} pods with {selector} after {PODS} s, not {wanted}", pods.len());
            }
            self.pause(0.2).await;
        }
    }

    /// Those whose pickers are ours, and live.
    pub(super) fn living_pools(&self) -> Vec<Pool> {
        self.pools.iter().filter(|p| p.records).cloned().collect()
    }

    pub(super) async fn open_picker(&mut self, pool: &Pool) -> Result<()> {
        let marker = self.mark_picker(pool).await?;
        self.history.pickers.entry(pool.name.clone()).or_default().marker_before = Some(marker);
        Ok(())
    }

    /// Has a picker write down the last marker, and reads all that it has written once no request is under way.
    pub(super) async fn close_picker(&mut self, pool: &Pool) -> Result<()> {
        let pods = self.picker_pods(pool).await?;
        let what = format!("picker of pool {}", pool.name);
        self.until_open(&what, &pods, PICKER_PORT, |open| open == 0, UNDER_WAY).await?;
        let marker = self.mark_picker(pool).await?;
        let records: Vec<PickerRecord> = self.logbook(&what, &pods, PICKER_PORT).await?;
        let log = self.history.pickers.entry(pool.name.clone()).or_default();
        log.marker_after = Some(marker);
        log.records = records;
        Ok(())
    }

    async fn mark_picker(&mut self, pool: &Pool) -> Result<String> {
        let pods = self.picker_pods(pool).await?;
        self.mark(&format!("the picker of pool {}", pool.name), &pods, PICKER_PORT, "/igc/marker").await
    }

    async fn picker_pods(&self, pool: &Pool) -> Result<Vec<String>> {
        self.ready_pods(&format!("the picker of pool {}", pool.name), &pool.selectors.1).await
    }

    pub async fn delete(&mut self, object: &ObjectRef) -> Result<()> {
        self.cluster.delete(object, Propagation::Background).await?;
        self.cluster.wait(Target::from(object), WaitCondition::Gone, Duration::from_secs(PODS)).await?;
        Ok(())
    }
}

/// The name of the fact that says which pod is behind each endpoint of a pool.
pub(crate) fn endpoints_of(pool: &str) -> String {
    format!("endpoints-of-{pool}")
}

/// (pod, `address:port`) of the pods that are not on their way out, by the pods' names.
fn endpoints(pods: &[Value], ports: &[u16]) -> Vec<(String, String)> {
    let mut endpoints = Vec::new();
    for pod in pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()) {
        let (Some(name), Some(address)) = (pod["metadata"]["name"].as_str(), pod["status"]["podIP"].as_str()) else {
            continue;
        };
        endpoints.extend(ports.iter().map(|port| (name.to_owned(), format!("{address}:{port}"))));
    }
    endpoints.sort();
    endpoints
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use verdict::{history::History, judge::Holds};

    use super::*;
    use crate::{Judge, chat, open, picked, requirements, run};

    /// What a gateway leaves that serves a pool and never asks its picker: one that balances over its pods.
    async fn bypassed() -> History {
        let check_run = open::open(&run::tests::ASKS.id(), "-", requirements).unwrap().remove(0).unwrap();
        let key = check_run.planned.key(9);
        let mut stage = Stage::open(Arc::new(check_run), key, None).await.unwrap();
        let pool = stage.pool(PoolOf::new("alpha")).await.unwrap();
        stage.plain_route(stage.route(), None, pool.service()).await.unwrap();
        stage.settle(|| chat("alpha"), "alpha").await.unwrap();
        stage.send_in_turn(5, &[("post", chat("alpha"))]).await.unwrap();
        stage.end().await.unwrap();
        stage.history().clone()
    }

    #[tokio::test]
    async fn a_200_that_never_asked_the_picker_fails_and_without_records_proves_nothing() {
        let mut history = bypassed().await;
        let judged = |history: &History| {
            let mut judge = Judge::of(history);
            picked::as_picked(&mut judge, "post-as-picked", "post", "alpha");
            judge.judgement()
        };
        let with_records = judged(&history);
        assert_eq!(with_records.holds(), Holds::No);
        assert_eq!(with_records.clauses[0].got, "5 of 5: 200 that never asked the picker");
        history.pickers.clear();
        assert_eq!(judged(&history).holds(), Holds::Unproven);
    }
}
