//! Deployments to ReplicaSets to Pods, and what each says of itself.

use std::{collections::HashMap, iter, sync::Arc};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Context, settle, write_status};
use crate::{
    dialects::{
        Snapshot,
        object::{self, name, namespace, number, text},
    },
    kinds,
    mutants::mutant,
};

const HASH: &str = "pod-template-hash";

/// What was done for each Deployment and ReplicaSet, by uid: the resource versions of it and of its children.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    seen: HashMap<String, Vec<String>>,
}

/// Children by the uid of their controller.
type Owned<'s> = HashMap<&'s str, Vec<&'s Arc<Value>>>;

impl Workloads {
    pub(super) fn reconcile(&mut self, context: &Context, snapshot: &Snapshot) {
        let (sets, pods) = (owned(snapshot.all(&kinds::REPLICA_SET)), owned(snapshot.all(&kinds::POD)));
        let mut seen = HashMap::new();
        for deployment in snapshot.all(&kinds::DEPLOYMENT).filter(|d| !object::is_going(d)) {
            let sets = children(&sets, deployment);
            if self.is_news(&mut seen, deployment, sets) && !self::deployment(context, deployment, sets) {
                seen.remove(text(deployment, "/metadata/uid"));
            }
        }
        for set in snapshot.all(&kinds::REPLICA_SET).filter(|s| !object::is_going(s)) {
            let pods = children(&pods, set);
            if self.is_news(&mut seen, set, pods) && !replica_set(context, set, pods) {
                seen.remove(text(set, "/metadata/uid"));
            }
        }
        self.seen = seen;
    }

    /// Whether this is anything else than was seen last; from now on it is what was seen.
    fn is_news(&self, seen: &mut HashMap<String, Vec<String>>, owner: &Value, children: &[&Arc<Value>]) -> bool {
        let version = |object: &Value| text(object, "/metadata/resourceVersion").to_owned();
        let versions: Vec<String> = iter::once(version(owner)).chain(children.iter().map(|c| version(c))).collect();
        let uid = text(owner, "/metadata/uid");
        let is_news = self.seen.get(uid) != Some(&versions);
        seen.insert(uid.to_owned(), versions);
        is_news
    }
}

fn owned<'s>(objects: impl Iterator<Item = &'s Arc<Value>>) -> Owned<'s> {
    let mut owned = Owned::new();
    for object in objects {
        if let Some(uid) = object::controller(object) {
            owned.entry(uid).or_default().push(object);
        }
    }
    owned
}

fn children<'o, 's>(owned: &'o Owned<'s>, owner: &Value) -> &'o [&'s Arc<Value>] {
    owned.get(text(owner, "/metadata/uid")).map(Vec::as_slice).unwrap_or_default()
}

/// A template's hash in the letters that Kubernetes uses for it.
fn template_hash(template: &Value) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(template.to_string().as_bytes());
    digest.iter().take(10).map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

fn replicas(object: &Value) -> u64 {
    number(object, "/spec/replicas").unwrap_or(1)
}

fn ready_replicas(object: &Value) -> u64 {
    number(object, "/status/readyReplicas").unwrap_or(0)
}

/// Whether it was as it should be: what is made may be gone again before anybody has seen it, and is then made once more.
fn deployment(context: &Context, deployment: &Value, sets: &[&Arc<Value>]) -> bool {
    let template = &deployment["spec"]["template"];
    let hash = template_hash(template);
    let current = format!("{}-{hash}", name(deployment));
    let wanted = replicas(deployment);
    let newest = sets.iter().find(|s| name(s) == current);
    match newest {
        None => {
            settle("a ReplicaSet", context.store.create(new_set(deployment, &current, &hash)));
        }
        Some(set) if replicas(set) != wanted => scale(context, set, wanted),
        Some(_) => {}
    }
    let ready = newest.map_or(0, |s| ready_replicas(s));
    // Old pods leave when the new ones are ready, as with the default rolling update of few replicas.
    if ready >= wanted {
        for old in sets.iter().filter(|s| name(s) != current && replicas(s) > 0) {
            scale(context, old, 0);
        }
    }
    let all = sets.iter().map(|s| number(s, "/status/replicas").unwrap_or(0)).sum::<u64>();
    let all_ready = sets.iter().map(|s| ready_replicas(s)).sum::<u64>();
    let lags = namespace(deployment) == "cert-manager" && context.mutants.is(mutant::NEVER_AVAILABLE);
    let available = all_ready >= wanted && !lags;
    let progressed = newest.is_some() && ready >= wanted;
    let (reason, message) = match available {
        true => ("MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    let is_available = object::condition("Available", available, reason, message);
    let (reason, message) = match (newest, progressed) {
        (_, true) => ("NewReplicaSetAvailable", format!("ReplicaSet \"{current}\" has successfully progressed.")),
        (None, _) => ("NewReplicaSetCreated", format!("Created new replica set \"{current}\"")),
        (Some(_), false) => ("ReplicaSetUpdated", format!("ReplicaSet \"{current}\" is progressing.")),
    };
    let progressing = object::condition("Progressing", true, reason, &message);
    let mut status = json!({
        "conditions": [is_available, progressing],
        "observedGeneration": object::generation(deployment),
        "replicas": all,
        "updatedReplicas": newest.map_or(0, |s| number(s, "/status/replicas").unwrap_or(0)),
    });
    if all_ready > 0 {
        status["readyReplicas"] = json!(all_ready);
        status["availableReplicas"] = json!(all_ready);
    }
    let missing = wanted.saturating_sub(all_ready);
    if missing > 0 {
        status["unavailableReplicas"] = json!(missing);
    }
    write_status(context, &kinds::DEPLOYMENT, deployment, status);
    newest.is_some()
}

fn scale(context: &Context, set: &Value, to: u64) {
    let written = context.store.change(&kinds::REPLICA_SET, namespace(set), name(set), |set| {
        set["spec"]["replicas"] = json!(to);
    });
    settle("a ReplicaSet's size", written);
}

fn new_set(deployment: &Value, set_name: &str, hash: &str) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    let mut labels = object::texts(template.pointer("/metadata/labels"));
    labels.insert(HASH.to_owned(), json!(hash));
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    template["metadata"]["labels"] = json!(labels);
    let mut selector = object::texts(deployment.pointer("/spec/selector/matchLabels"));
    selector.insert(HASH.to_owned(), json!(hash));
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": set_name, "namespace": namespace(deployment), "labels": labels,
            "ownerReferences": [object::owned_by(deployment, true)]},
        "spec": {"replicas": replicas(deployment), "selector": {"matchLabels": selector}, "template": template},
    })
}

fn replica_set(context: &Context, set: &Value, pods: &[&Arc<Value>]) -> bool {
    let mut pods: Vec<_> = pods.iter().filter(|p| !object::is_going(p)).collect();
    let wanted = usize::try_from(replicas(set)).unwrap_or(usize::MAX);
    let complete = pods.len() == wanted;
    for _ in pods.len()..wanted.min(pods.len() + MOST_AT_ONCE) {
        settle("a Pod", context.store.create(new_pod(set)));
    }
    while pods.len() > wanted {
        // Pods that are not ready leave first.
        let at = pods.iter().position(|p| !is_ready(p)).unwrap_or(pods.len() - 1);
        let pod = pods.remove(at);
        settle("a Pod's end", context.store.delete(&kinds::POD, namespace(pod), name(pod)));
    }
    let ready = pods.iter().filter(|p| is_ready(p)).count();
    let mut status = json!({"observedGeneration": object::generation(set), "replicas": pods.len()});
    if !pods.is_empty() {
        status["fullyLabeledReplicas"] = json!(pods.len());
    }
    if ready > 0 {
        status["readyReplicas"] = json!(ready);
        status["availableReplicas"] = json!(ready);
    }
    write_status(context, &kinds::REPLICA_SET, set, status);
    complete
}

/// A world has no room for more pods of one set in a pass; the next pass makes the next ones.
const MOST_AT_ONCE: usize = 100;

fn new_pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", name(set)),
        "namespace": namespace(set),
        "labels": template["metadata"]["labels"],
        "ownerReferences": [object::owned_by(set, true)],
    });
    if let Some(annotations) = template.pointer("/metadata/annotations") {
        metadata["annotations"] = annotations.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

pub(super) fn is_ready(pod: &Value) -> bool {
    object::condition_status(pod, "Ready") == Some("True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_one_hash_and_a_changed_one_another() {
        let template = json!({"spec": {"containers": [{"image": "a"}]}});
        let hash = template_hash(&template);
        assert_eq!(hash.len(), 10);
        assert_eq!(template_hash(&template.clone()), hash);
        assert_ne!(template_hash(&json!({"spec": {"containers": [{"image": "b"}]}})), hash);
    }

    #[test]
    fn a_set_selects_the_pods_of_its_template() {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "ns", "uid": "u"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}},
                     "template": {"metadata": {"labels": {"app": "a", "x": "y"}}, "spec": {}}}});
        let set = new_set(&deployment, "d-h", "h");
        let pod = new_pod(&set);
        assert!(object::selected(pod.pointer("/metadata/labels"), set.pointer("/spec/selector/matchLabels")));
        assert_eq!(object::controller(&set), Some("u"));
        assert_eq!(pod["metadata"]["labels"]["x"], "y");
    }
}
