//! Records of a stage: what our own models and pickers have written down, between the markers around a drive.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use verdict::history::{EXCHANGE_HEADER, ModelLog, ModelRecord};

use super::{Model, Stage};

pub(super) enum Markers {
    Unsent,
    Begun,
    /// Both, and the records are read.
    Ended,
}

impl Stage {
    /// Lets so many tokens pass a gate (`x-igc-gate`) of our own model, also before a request names it.
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

    /// Waits, at most so many seconds, until our own model is answering as many requests as wanted; how many it was last.
    pub async fn until_answering(&self, model: &Model, wanted: impl Fn(u64) -> bool, seconds: f64) -> Result<u64> {
        let pods = self.pods(model).await?;
        self.until_open(&format!("model {}", model.name), &pods, model.port, wanted, seconds).await
    }

    /// The same of whatever keeps a logbook in these pods.
    pub(super) async fn until_open(
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
            let marker = self.mark_model(&model).await?;
            self.history.models.entry(model.name).or_default().marker_before = Some(marker);
        }
        Ok(())
    }

    pub(crate) async fn begin_if_unsent(&mut self) -> Result<()> {
        if matches!(self.markers, Markers::Unsent) { self.begin().await } else { Ok(()) }
    }

    /// No markers are sent and no records are read in this drive: its models go before it ends.
    pub fn without_records(&mut self) {
        self.markers = Markers::Ended;
    }

    /// Sends the last marker to each of our own models and pickers, and reads their records. The end of every drive does it;
    /// a drive that takes models or pickers away does it before.
    pub async fn end(&mut self) -> Result<()> {
        let Markers::Begun = std::mem::replace(&mut self.markers, Markers::Ended) else {
            return Ok(()); // nothing was driven, or nothing since
        };
        for pool in self.living_pools() {
            self.close_picker(&pool).await?;
        }
        for model in self.recording() {
            let marker = self.mark_model(&model).await?;
            self.keep_records(&model).await?;
            self.history.models.entry(model.name).or_default().marker_after = Some(marker);
        }
        Ok(())
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

    /// Reads the records of a model, and keeps those that were read before from pods that are gone.
    pub(super) async fn keep_records(&mut self, model: &Model) -> Result<()> {
        let pods = self.pods(model).await?;
        let records: Vec<ModelRecord> = self.logbook(&format!("model {}", model.name), &pods, model.port).await?;
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
        self.ready_pods(&format!("model {}", model.name), &model.selector).await
    }

    pub(super) async fn ready_pods(&self, what: &str, selector: &str) -> Result<Vec<String>> {
        let pods = self.cluster.ready_pods(&self.history.namespace, selector).await?;
        if pods.is_empty() {
            bail!("{what} has no pod that is ready");
        }
        Ok(pods)
    }

    async fn mark_model(&mut self, model: &Model) -> Result<String> {
        let pods = self.pods(model).await?;
        self.mark(&format!("model {}", model.name), &pods, model.port, "/v1/models").await
    }

    /// A request with a marker to each of these pods, which does not go through the gateway.
    pub(super) async fn mark(&mut self, what: &str, pods: &[String], port: u16, path: &str) -> Result<String> {
        let marker = format!("marker-{}", self.unique());
        let path = format!("{path}?{EXCHANGE_HEADER}={marker}");
        for pod in pods {
            let answer = self.cluster.pod_get(&self.history.namespace, pod, port, &path).await?;
            if !answer.status.is_success() {
                bail!("{what} answered its marker with {}", answer.status);
            }
        }
        Ok(marker)
    }

    pub(super) async fn logbook<R: DeserializeOwned>(&self, what: &str, pods: &[String], port: u16) -> Result<Vec<R>> {
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
}
