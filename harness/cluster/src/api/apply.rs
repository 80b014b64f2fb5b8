//! Server-side apply as `igc`, never forced, and what admission says to a manifest.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use verdict::history::Admission;

use super::{
    Cluster, WaitError,
    clock::{Absence, Backoff, Deadline},
    condition::WaitCondition,
    discovery::Kind,
    failure::{ApiFailure, FailureKind, is_denial},
    object::{ObjectRef, items, text},
    request::{ApiResponse, encode, request},
};

const MANAGER: &str = "igc";
/// The label on everything that igc makes; its value is [`MANAGER`].
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that names the run which made an object, a helm release or a node of a kind cluster.
pub const RUN_LABEL: &str = "igc.dev/run";

const ABREAST: usize = 4;
const ESTABLISHED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    run: &'a str,
    namespace: Option<&'a str>,
    patience: Duration,
}

impl<'a> Apply<'a> {
    pub fn of_run(run: &'a str) -> Self {
        Self { run, namespace: None, patience: Duration::ZERO }
    }

    /// Objects that name no namespace, and need one, go into this one.
    pub fn in_namespace(self, namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// Tries again for so long while the API server, a webhook or a kind is not up yet.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl Cluster {
    /// Applies one manifest (server-side apply, strict about unknown fields, never forced).
    pub async fn apply(&self, manifest: &Value, how: Apply<'_>) -> Result<ObjectRef, ApiFailure> {
        let manifest = labelled(manifest, how.run)?;
        let named = object_ref(&manifest)?;
        let deadline = Deadline::within(how.patience);
        let (mut backoff, mut absence) = (Backoff::default(), Absence::default());
        loop {
            match self.apply_once(&named, &manifest, how).await {
                Err(failure) if absence.lasts(&failure, self.bounds.absence) => return Err(failure),
                Err(failure) if failure.is_transient() && backoff.pause(deadline).await => {
                    tracing::debug!(%failure, "applying again");
                }
                other => return other,
            }
        }
    }

    async fn apply_once(&self, named: &ObjectRef, manifest: &Value, how: Apply<'_>) -> Result<ObjectRef, ApiFailure> {
        let (kind, placed) = self.placed(&format!("apply {named}"), named, manifest, how.namespace).await?;
        let named = object_ref(&placed)?;
        let doing = &format!("apply {named}");
        self.ask(doing, apply_request(&kind, &named, &placed)).await?.json(doing)?;
        if named.kind == "CustomResourceDefinition" {
            self.kinds.forget(text(&placed, "/spec/group"));
        }
        Ok(named)
    }

    /// Applies manifests: namespaces first, then definitions (and waits until their kinds are served), then the rest in
    /// the order given. `kind: List` is taken apart.
    /// After a failure what was applied before it stays.
    pub async fn apply_all(&self, manifests: &[Value], how: Apply<'_>) -> Result<Vec<ObjectRef>, ApiFailure> {
        let manifests: Vec<&Value> = manifests.iter().flat_map(flattened).collect();
        let of_kind =
            |kind: &'static str| manifests.iter().copied().filter(move |manifest| text(manifest, "/kind") == kind);
        let mut applied = Vec::with_capacity(manifests.len());
        for namespace in of_kind("Namespace") {
            applied.push(self.apply(namespace, how).await?);
        }
        // Definitions do not need each other, and large ones keep the API server busy for half a second each.
        // Boxed in a loop: a closure that borrows its argument is not `Send` enough for a spawned task.
        let mut applying: Vec<BoxFuture<'_, Result<ObjectRef, ApiFailure>>> = Vec::new();
        for definition in of_kind("CustomResourceDefinition") {
            applying.push(self.apply(definition, how).boxed());
        }
        let definitions: Vec<ObjectRef> = stream::iter(applying).buffered(ABREAST).try_collect().await?;
        let mut serving: Vec<BoxFuture<'_, Result<(), ApiFailure>>> = Vec::new();
        for definition in &definitions {
            serving.push(self.established(definition).boxed());
        }
        stream::iter(serving).buffered(ABREAST).try_collect::<Vec<()>>().await?;
        applied.extend(definitions);
        for manifest in manifests {
            if !matches!(text(manifest, "/kind"), "Namespace" | "CustomResourceDefinition") {
                applied.push(self.apply(manifest, how).await?);
            }
        }
        Ok(applied)
    }

    /// Waits until a definition is served, in the definition's own words and in discovery.
    async fn established(&self, definition: &ObjectRef) -> Result<(), ApiFailure> {
        let doing = format!("wait until {definition} is served");
        let waited = self
            .wait(definition, WaitCondition::ConditionTrue("Established".to_owned()), ESTABLISHED)
            .await
            .map_err(|error| served(&doing, error))?;
        let spec = &waited.object()["spec"];
        for version in items(spec, "/versions").filter(|version| version["served"] == true) {
            let api_version = format!("{}/{}", text(spec, "/group"), text(version, "/name"));
            self.kind_served(&api_version, text(spec, "/names/kind")).await?;
        }
        Ok(())
    }

    /// Discovery lags behind a definition that is established.
    async fn kind_served(&self, api_version: &str, kind: &str) -> Result<Kind, ApiFailure> {
        let deadline = Deadline::within(ESTABLISHED);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            match self.kind(api_version, kind).await {
                Err(failure) if failure.is_transient() && backoff.pause(deadline).await => {}
                other => return other,
            }
        }
    }

    /// Asks, without storing anything, what the API server says to a manifest when a user applies it with kubectl
    /// (strict field validation, admission, webhooks). The manifest is sent as it is, without igc's labels; one that names
    /// no namespace is offered to `default`.
    /// Fails only when the API server does not judge the manifest: no answer, unknown kind, a namespace that is not there.
    pub async fn dry_run(&self, manifest: &Value) -> Result<Admission, ApiFailure> {
        let named = object_ref(manifest)?;
        let doing = format!("offer {named} (dry run)");
        let (kind, placed) = self.placed(&doing, &named, manifest, Some("default")).await?;
        self.dry_run_placed(&doing, &kind, &placed).await
    }

    async fn dry_run_placed(&self, doing: &str, kind: &Kind, placed: &Value) -> Result<Admission, ApiFailure> {
        let named = object_ref(placed)?;
        let query = format!("?dryRun=All&fieldManager={MANAGER}&fieldValidation=Strict");
        let path = kind.collection(named.namespace.as_deref());
        let answer =
            self.ask(doing, request("POST", &format!("{path}{query}"), Some(("application/json", placed)))).await?;
        // It is there already: kubectl sends what differs as a patch.
        let answer = if answer.status == StatusCode::CONFLICT && is_already_there(&answer) {
            let path = kind.item(named.namespace.as_deref(), &named.name);
            let body = Some(("application/merge-patch+json", placed));
            self.ask(doing, request("PATCH", &format!("{path}{query}"), body)).await?
        } else {
            answer
        };
        admission(doing, &answer)
    }

    /// Offers a manifest for real: refused in the words that a user of kubectl would read, or stored as by [`Self::apply`].
    /// Fails like [`Self::dry_run`], and for a conflict with another manager.
    pub async fn offer(&self, manifest: &Value, how: Apply<'_>) -> Result<Admission, ApiFailure> {
        let manifest = labelled(manifest, how.run)?;
        let named = object_ref(&manifest)?;
        let doing = format!("offer {named}");
        let (kind, placed) = self.placed(&doing, &named, &manifest, how.namespace).await?;
        let dry = self.dry_run_placed(&doing, &kind, &placed).await?;
        // Server-side apply says the same things in other words (".spec.x: field not declared in schema"), so that the
        // dry run speaks for it, unless a webhook knows no dry runs.
        if matches!(&dry, Admission::Refused { message, .. } if !message.contains("does not support dry run")) {
            return Ok(dry);
        }
        let named = object_ref(&placed)?;
        let answer = self.ask(&doing, apply_request(&kind, &named, &placed)).await?;
        admission(&doing, &answer)
    }

    /// The kind of a manifest, and the manifest with the namespace that it goes into.
    async fn placed(
        &self,
        doing: &str,
        named: &ObjectRef,
        manifest: &Value,
        namespace: Option<&str>,
    ) -> Result<(Kind, Value), ApiFailure> {
        let kind = self
            .kind(&named.api_version, &named.kind)
            .await
            .map_err(|failure| ApiFailure { doing: doing.to_owned(), ..failure })?;
        let mut placed = manifest.clone();
        match (kind.namespaced, &named.namespace, namespace) {
            (true, None, Some(namespace)) => placed["metadata"]["namespace"] = json!(namespace),
            (true, None, None) => {
                let said = format!("{named} lacks metadata.namespace");
                return Err(ApiFailure::new(doing, FailureKind::Manifest(said)));
            }
            (false, Some(namespace), _) => {
                let said = format!("{} has no namespaces, and metadata.namespace is {namespace:?}", named.kind);
                return Err(ApiFailure::new(doing, FailureKind::Manifest(said)));
            }
            _ => {}
        }
        Ok((kind, placed))
    }
}

pub(crate) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY] == MANAGER
}

fn apply_request(kind: &Kind, named: &ObjectRef, manifest: &Value) -> Request<Vec<u8>> {
    let path = kind.item(named.namespace.as_deref(), &named.name);
    let query = format!("?fieldManager={}&force=false&fieldValidation=Strict", encode(MANAGER));
    request("PATCH", &format!("{path}{query}"), Some(("application/apply-patch+yaml", manifest)))
}

fn object_ref(manifest: &Value) -> Result<ObjectRef, ApiFailure> {
    ObjectRef::of(manifest).map_err(|missing| {
        let kind = manifest["kind"].as_str().unwrap_or("a manifest");
        ApiFailure::new(format!("apply {kind}"), FailureKind::Manifest(format!("it lacks {missing}")))
    })
}

/// The manifest with igc's labels on the object itself, not on templates in it.
fn labelled(manifest: &Value, run: &str) -> Result<Value, ApiFailure> {
    let mut manifest = manifest.clone();
    let not_a_map =
        |what: &str| ApiFailure::new("apply a manifest", FailureKind::Manifest(format!("{what} is no mapping")));
    let object = manifest.as_object_mut().ok_or_else(|| not_a_map("it"))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let metadata = metadata.as_object_mut().ok_or_else(|| not_a_map("metadata"))?;
    let labels = metadata.entry("labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = json!({});
    }
    let labels = labels.as_object_mut().ok_or_else(|| not_a_map("metadata.labels"))?;
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    labels.insert(RUN_LABEL.to_owned(), json!(run));
    Ok(manifest)
}

/// The items of a list, or the manifest itself.
fn flattened(manifest: &Value) -> Vec<&Value> {
    if text(manifest, "/kind") == "List" && manifest["items"].is_array() {
        items(manifest, "/items").collect()
    } else {
        vec![manifest]
    }
}

fn is_already_there(answer: &ApiResponse) -> bool {
    serde_json::from_slice::<Value>(&answer.body).is_ok_and(|status| text(&status, "/reason") == "AlreadyExists")
}

/// Reads an answer as what admission said; what is no judgement on the manifest stays a failure.
fn admission(doing: &str, answer: &ApiResponse) -> Result<Admission, ApiFailure> {
    if answer.status.is_success() {
        return Ok(Admission::Accepted { warnings: answer.warnings() });
    }
    match FailureKind::of_answer(answer.status, &answer.body) {
        FailureKind::Refused { code, reason, message, .. }
            if matches!(code, 400 | 409 | 413 | 422) || is_denial(&message) =>
        {
            Ok(Admission::Refused { code, reason, message })
        }
        other => Err(ApiFailure::new(doing, other)),
    }
}

fn served(doing: &str, error: WaitError) -> ApiFailure {
    let said = error.to_string();
    error.into_failure().unwrap_or_else(|| ApiFailure::new(doing, FailureKind::Unanswered(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_on_the_object_and_not_into_its_templates() {
        let manifest = json!({"kind": "Deployment", "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"template": {"metadata": {"labels": {"app": "a"}}}}});
        let done = labelled(&manifest, "run-1").expect("labelled");
        assert_eq!(done["metadata"]["labels"], json!({"app": "a", MANAGED_BY: "igc", RUN_LABEL: "run-1"}));
        assert_eq!(done["spec"], manifest["spec"]);
    }

    #[test]
    fn a_manifest_that_is_no_mapping_is_said() {
        let failure = labelled(&json!({"metadata": {"labels": [1]}}), "r").expect_err("refused");
        assert_eq!(failure.to_string(), "apply a manifest: it cannot be asked for: metadata.labels is no mapping");
    }
}
