//! Pools of a stage: our own models behind an endpoint picker of ours, which is asked, told what to choose, and killed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use cluster::api::{ObjectRef, Propagation, Target, Until};
use serde::Serialize;
use serde_json::{Value, json};
use verdict::history::{EXCHANGE_HEADER, PickerRecord};

use super::{Model, Stage};

/// The port that a picker's records are read from.
const PICKER_PORT: u16 = 8080;
/// Seconds that the pods of a pool may take to come and to go.
const PODS: u64 = 120;
/// Seconds that requests which a client has its answer to may still be under way for the picker.
const UNDER_WAY: f64 = 5.0;

/// What a pool is to be like.
#[derive(Clone, Debug, Serialize)]
pub struct PoolOf {
    name: String,
    picker: String,
    picker_service: String,
    replicas: u32,
    pickers: u32,
    ports: Vec<u16>,
    failure_mode: &'static str,
}

impl PoolOf {
    /// Two models and one picker; without it requests are refused.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            picker: format!("{name}-epp"),
            picker_service: format!("{name}-epp"),
            replicas: 2,
            pickers: 1,
            ports: vec![8080],
            failure_mode: "FailClose",
        }
    }

    /// With so many models.
    pub fn replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// Without its picker requests are served all the same.
    pub fn failing_open(self) -> Self {
        Self { failure_mode: "FailOpen", ..self }
    }

    /// With these target ports. The models listen on 8080 alone: on any other port nothing answers.
    pub fn ports(self, ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), ..self }
    }

    /// Referring to this Service as its picker's.
    pub fn asking(self, service: &str) -> Self {
        Self { picker_service: service.to_owned(), ..self }
    }
}

/// An InferencePool of our own models, and its picker.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Of the InferencePool and of its models, and the name that requests use.
    pub name: String,
    /// `address:port` of each endpoint, by the name of its pod.
    pub endpoints: Vec<(String, String)>,
    wanted: PoolOf,
    killed: bool,
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

    /// Labels of its picker's pods.
    fn picker(&self) -> String {
        format!("app={}", self.wanted.picker)
    }
}

impl Stage {
    /// A pool whose models and whose picker are ready.
    pub async fn pool(&mut self, wanted: PoolOf) -> Result<Pool> {
        let mut pool = Pool { name: wanted.name.clone(), endpoints: vec![], wanted, killed: false };
        self.apply_pool(&mut pool).await?;
        let model = Model {
            name: pool.name.clone(),
            service: pool.service().to_owned(),
            host: String::new(),
            records: true,
            selector: format!("app={}", pool.name),
        };
        self.models.push(model);
        self.pools.push(pool.clone());
        Ok(pool)
    }

    /// Changes how many models a pool has; what those that leave have recorded is kept.
    pub async fn scale(&mut self, pool: &mut Pool, replicas: u32) -> Result<()> {
        if let Some(model) = self.models.iter().find(|m| m.name == pool.name).cloned() {
            self.keep_records(&model).await?;
        }
        pool.wanted.replicas = replicas;
        self.apply_pool(pool).await
    }

    /// Ends the picker of a pool, and waits until its pod is gone.
    pub async fn kill_picker(&mut self, pool: &mut Pool) -> Result<()> {
        self.close_picker(pool).await?;
        pool.killed = true;
        if let Some(known) = self.pools.iter_mut().find(|p| p.name == pool.name) {
            known.killed = true;
        }
        pool.wanted.pickers = 0;
        self.apply_pool(pool).await
    }

    async fn apply_pool(&mut self, pool: &mut Pool) -> Result<()> {
        self.intent("pool", json!({"pool": pool.wanted})).await?;
        let home = self.namespace().to_owned();
        for name in [&pool.name, &pool.wanted.picker] {
            let deployment = ObjectRef::new("apps/v1", "Deployment", &home, name);
            self.cluster.wait(&deployment, Until::DeploymentAvailable, Duration::from_secs(PODS)).await?;
        }
        let wanted = [(format!("app={}", pool.name), pool.wanted.replicas), (pool.picker(), pool.wanted.pickers)];
        for (selector, wanted) in wanted {
            self.until_pods(&selector, wanted).await?;
        }
        let pods = self.cluster.list("v1", "Pod", Some(&home), &format!("app={}", pool.name)).await?;
        pool.endpoints = endpoints(&pods, &pool.wanted.ports);
        if pool.endpoints.is_empty() {
            bail!("pool {} has no pod with an address", pool.name);
        }
        let mut of_pool: BTreeMap<String, String> = self
            .history
            .facts
            .get(&endpoints_of(&pool.name))
            .and_then(|f| serde_json::from_value(f.clone()).ok())
            .unwrap_or_default();
        of_pool.extend(pool.endpoints.iter().map(|(pod, endpoint)| (endpoint.clone(), pod.clone())));
        self.fact(&endpoints_of(&pool.name), json!(of_pool));
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

    /// Those whose pickers live.
    pub(super) fn living_pools(&self) -> Vec<Pool> {
        self.pools.iter().filter(|p| !p.killed).cloned().collect()
    }

    /// Has a picker write down the marker that goes before the drive.
    pub(super) async fn open_picker(&mut self, pool: &Pool) -> Result<()> {
        let marker = self.mark_picker(pool).await?;
        self.history.pickers.entry(pool.name.clone()).or_default().marker_before = Some(marker);
        Ok(())
    }

    /// Has a picker write down the marker that goes behind the drive, and reads all that it has written once no request
    /// is under way.
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
        let marker = format!("marker-{}", self.unique());
        let path = format!("/igc/marker?{EXCHANGE_HEADER}={marker}");
        for pod in self.picker_pods(pool).await? {
            let answer = self.cluster.pod_get(self.namespace(), &pod, PICKER_PORT, &path).await?;
            if !answer.status.is_success() {
                bail!("the picker of pool {} answered its marker with {}", pool.name, answer.status);
            }
        }
        Ok(marker)
    }

    async fn picker_pods(&self, pool: &Pool) -> Result<Vec<String>> {
        let pods = self.cluster.ready_pods(self.namespace(), &pool.picker()).await?;
        if pods.is_empty() {
            bail!("the picker of pool {} has no pod that is ready", pool.name);
        }
        Ok(pods)
    }

    /// Deletes an object, and waits until it is gone.
    pub async fn delete(&mut self, object: &ObjectRef) -> Result<()> {
        self.cluster.delete(object, Propagation::Background).await?;
        self.cluster.wait(Target::from(object), Until::Gone, Duration::from_secs(PODS)).await?;
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
