//! Wait conditions: what must be true of objects, evaluated on them as they were last seen. Pure.

use std::{fmt, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::object::{items, text};

/// A condition of the caller's own: a name and a question to the object.
#[derive(Clone)]
pub struct Predicate {
    name: String,
    holds: Arc<dyn Fn(&Value) -> bool + Send + Sync>,
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Predicate").field(&self.name).finish()
    }
}

/// What must be true of the object that is waited for, or of all objects of a set and of at least one.
///
/// Where a condition or the object has an `observedGeneration`, an older one counts as not yet.
/// As data it is written `exists` or `{condition-true: Established}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitCondition {
    Exists,
    Gone,
    /// `status.conditions` has this type with status `True`.
    ConditionTrue(String),
    GatewayProgrammed,
    /// A rollout is complete: a Deployment's, StatefulSet's or DaemonSet's new pods are available and no old one is left.
    DeploymentAvailable,
    /// A Service has an endpoint that is ready. Its EndpointSlices are watched.
    EndpointsReady,
    #[serde(skip)]
    Fn(Predicate),
}

impl WaitCondition {
    /// A question of the caller's own; the name says what is asked.
    pub fn holds(name: &str, holds: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        Self::Fn(Predicate { name: name.to_owned(), holds: Arc::new(holds) })
    }

    /// Whether it holds; the error says what is missing.
    pub(crate) fn evaluate(&self, objects: &[&Value]) -> Result<(), String> {
        match self {
            Self::Gone if objects.is_empty() => Ok(()),
            Self::Gone => Err(format!("{} of it still there", objects.len())),
            Self::EndpointsReady => endpoints(objects),
            _ if objects.is_empty() => Err("it does not exist".to_owned()),
            _ => objects.iter().try_for_each(|object| self.evaluate_one(object)),
        }
    }

    fn evaluate_one(&self, object: &Value) -> Result<(), String> {
        match self {
            Self::ConditionTrue(wanted) => is_true(object, wanted),
            Self::GatewayProgrammed => is_true(object, "Accepted").and_then(|()| is_true(object, "Programmed")),
            Self::DeploymentAvailable => rollout(object),
            Self::Fn(predicate) if (predicate.holds)(object) => Ok(()),
            Self::Fn(predicate) => Err(format!("not {}", predicate.name)),
            Self::Exists | Self::Gone | Self::EndpointsReady => Ok(()), // evaluated on the whole set
        }
    }
}

impl fmt::Display for WaitCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => write!(f, "it exists"),
            Self::Gone => write!(f, "it is gone"),
            Self::ConditionTrue(name) => write!(f, "{name}=True"),
            Self::GatewayProgrammed => write!(f, "Accepted=True and Programmed=True"),
            Self::DeploymentAvailable => write!(f, "its rollout is complete and available"),
            Self::EndpointsReady => write!(f, "it has a ready endpoint"),
            Self::Fn(predicate) => f.write_str(&predicate.name),
        }
    }
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// Whether a condition in the object's status is True, and of the object's generation.
fn is_true(object: &Value, wanted: &str) -> Result<(), String> {
    let mut conditions = items(object, "/status/conditions");
    let Some(found) = conditions.find(|condition| text(condition, "/type") == wanted) else {
        return Err(format!("no condition {wanted}"));
    };
    let generation = generation(object);
    // Knative and KServe keep one observedGeneration for all conditions.
    let observed = found["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
    if let Some(observed) = observed.filter(|observed| *observed < generation) {
        return Err(format!("{wanted} is of generation {observed}, the object is at {generation}"));
    }
    match text(found, "/status") {
        "True" => Ok(()),
        status => Err(format!("{wanted}={status} ({})", text(found, "/reason"))),
    }
}

fn rollout(object: &Value) -> Result<(), String> {
    let status = |key: &str| object["status"][key].as_i64().unwrap_or(0);
    let (generation, observed) = (generation(object), status("observedGeneration"));
    if observed < generation {
        return Err(format!("its controller has seen generation {observed} of {generation}"));
    }
    let (wanted, updated, available, all) = if text(object, "/kind") == "DaemonSet" {
        let wanted = status("desiredNumberScheduled");
        (wanted, status("updatedNumberScheduled"), status("numberAvailable"), wanted)
    } else {
        let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
        (wanted, status("updatedReplicas"), status("availableReplicas"), status("replicas"))
    };
    if updated < wanted || available < wanted {
        return Err(format!("{updated} of {wanted} updated, {available} available"));
    }
    if all > updated {
        return Err(format!("{} old pods are left", all - updated));
    }
    Ok(())
}

fn endpoints(slices: &[&Value]) -> Result<(), String> {
    let all: Vec<&Value> = slices.iter().flat_map(|slice| items(slice, "/endpoints")).collect();
    // An unset `ready` means ready (EndpointConditions of discovery.k8s.io/v1).
    if all.iter().any(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true)) {
        return Ok(());
    }
    Err(format!("{} endpoints, none ready", all.len()))
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
