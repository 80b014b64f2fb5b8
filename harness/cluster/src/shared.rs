//! The shared Gateway of a run: made from the gateway's own intents, and proven live by an answer of the marker model.
//!
//! Conditions are not enough: with the extension hook not wired everything says True, and no request that names its model
//! in the body is routed (envoyproxy/ai-gateway#2560).

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Value, json};
use wire::{Call, Client};

use crate::{
    api::{
        AddressAsk, AddressError, ApiFailure, Apply, Backoff, Cluster, Deadline, ObjectRef, Reached, WaitCondition,
        WaitError,
    },
    gateway::{GatewayFolder, SharedGateway},
    intents::{IntentError, Intents},
};

/// How long the Gateway may take to be Programmed, and the marker to answer.
const UP: Duration = Duration::from_secs(300);
const IN_A_ROW: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error("write the intents of the shared Gateway: {0}")]
    Intent(#[from] IntentError),
    #[error(transparent)]
    Api(#[from] ApiFailure),
    #[error(transparent)]
    Wait(#[from] Box<WaitError>),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(
        "get an answer of the marker model through {address} with Host {hostname}, although every condition says ready: \
         the last of {tries} answers was {last}. Is the gateway's extension hook wired, and its processor in the proxy's pod?"
    )]
    Marker { address: String, hostname: String, tries: usize, last: String },
}

impl SharedGateway {
    pub fn object(&self) -> ObjectRef {
        ObjectRef::new("gateway.networking.k8s.io/v1", "Gateway", &self.namespace, &self.name)
    }

    /// How to look for an address of it; `extra` are tried first.
    pub fn address_ask(&self, extra: &[String]) -> AddressAsk {
        let labels: Vec<String> = self.service_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        AddressAsk { gateway: self.object(), port: self.port, service_labels: labels.join(","), extra: extra.to_vec() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Use it as it is: it was made by another run, which will remove it.
    Used,
    Applied,
}

/// Makes the shared Gateway with its marker, and waits until the marker answers through it.
///
/// `manifests` is the project's folder of manifests, `images` are those that templates name, `run` labels what is made.
pub async fn stand_up(
    cluster: &Cluster,
    manifests: &Path,
    folder: &GatewayFolder,
    images: &BTreeMap<String, String>,
    extra: &[String],
    run: &str,
    existing: Existing,
) -> Result<Reached, SharedError> {
    let shared = &folder.gateway;
    if existing == Existing::Used && cluster.get(&shared.object()).await?.is_some() {
        let reached = cluster.reach(&shared.address_ask(extra)).await?;
        answers(&reached, shared).await?;
        return Ok(reached);
    }
    let models = [json!({"model": shared.marker.model, "service": "marker", "port": 80})];
    let context = json!({
        "gateway": shared, "images": images, "name": "marker", "namespace": shared.namespace,
        "hostname": shared.marker.hostname, "models": models,
    });
    let (intents, mut all) = (Intents::of(manifests, &folder.name), Vec::<Value>::new());
    for intent in &shared.intents {
        all.extend(intents.render(intent, &context)?);
    }
    // In one go, so that the proxy starts once with all that it needs.
    cluster.apply_all(&all, Apply::of_run(run).patient(Duration::from_secs(120))).await?;
    let marker = ObjectRef::new("apps/v1", "Deployment", &shared.namespace, "marker");
    cluster.wait(&marker, WaitCondition::DeploymentAvailable, UP).await.map_err(Box::new)?;
    cluster.wait(&shared.object(), WaitCondition::GatewayProgrammed, UP).await.map_err(Box::new)?;
    let reached = reach(cluster, &shared.address_ask(extra)).await?;
    answers(&reached, shared).await?;
    Ok(reached)
}

/// Looks for an address until one answers. Programmed promises none: agentgateway says so before its proxy's pod is up.
async fn reach(cluster: &Cluster, ask: &AddressAsk) -> Result<Reached, AddressError> {
    let (deadline, mut backoff) =
        (Deadline::within(UP), Backoff::new(Duration::from_millis(100), Duration::from_secs(1)));
    loop {
        match cluster.reach(ask).await {
            Err(error @ AddressError::NoneAnswers { .. }) if !backoff.pause(deadline).await => return Err(error),
            Err(AddressError::NoneAnswers { .. }) => {}
            answer => return answer,
        }
    }
}

async fn answers(reached: &Reached, shared: &SharedGateway) -> Result<(), SharedError> {
    let client = Client::new(reached.dial.clone(), "marker");
    let (deadline, mut backoff) =
        (Deadline::within(UP), Backoff::new(Duration::from_millis(100), Duration::from_secs(1)));
    let (mut tries, mut row) = (0, 0);
    loop {
        let message = json!({"model": shared.marker.model, "messages": [{"role": "user", "content": "Hello"}]});
        let call = Call::post("/v1/chat/completions")
            .host(&shared.marker.hostname)
            .json(&message)
            .timeout(Duration::from_secs(5));
        let exchange = client.send("marker", call).await;
        tries += 1;
        let from_marker = exchange.response().filter(|r| r.status == 200).and_then(|r| r.header("x-inference-pod"));
        row = if from_marker.is_some_and(|pod| pod.starts_with("marker-")) { row + 1 } else { 0 };
        if row == IN_A_ROW {
            return Ok(());
        }
        if row == 0 && !backoff.pause(deadline).await {
            let body = exchange.response().and_then(|r| r.body.text.clone()).unwrap_or_default();
            let last = format!("{} {}", exchange.outcome_words(), body.chars().take(200).collect::<String>());
            return Err(SharedError::Marker {
                address: reached.address.clone(),
                hostname: shared.marker.hostname.clone(),
                tries,
                last,
            });
        }
    }
}
