//! What is waited for, judged on objects as they were last seen. Pure.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

/// A condition of the caller's own: a name and a question to the object.
#[derive(Clone)]
pub struct Predicate {
    name: String,
    #[expect(clippy::type_complexity, reason = "an alias would hide the one place where it is written")]
    holds: Arc<dyn Fn(&Value) -> Result<bool, String> + Send + Sync>,
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Predicate").field(&self.name).finish()
    }
}

/// What must be true of the object that is waited for, or of all objects of a set and of at least one.
///
/// Where a condition or the object has an `observedGeneration`, an older one counts as not yet.
/// As data it is written `exists`, `{condition-true: Established}`, `{field: {path: .status.phase, equals: Ready}}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Until {
    Exists,
    Gone,
    /// `status.conditions` has this type with status `True`.
    ConditionTrue(String),
    /// `status.conditions` has this type with this status, and this reason where one is named.
    Condition {
        r#type: String,
        status: String,
        #[serde(default)]
        reason: Option<String>,
    },
    /// A Gateway is Accepted and Programmed.
    GatewayProgrammed,
    /// Every parent that a route names has accepted it, by this controller.
    RouteAccepted {
        controller: String,
    },
    /// A rollout is complete: a Deployment's, StatefulSet's or DaemonSet's new pods are available and no old one is left.
    DeploymentAvailable,
    /// A Service has an endpoint that is ready. Its EndpointSlices are watched.
    EndpointsReady,
    /// A field equals a value. The path is like kubectl's: `.status.loadBalancer.ingress[0].ip`, `.metadata.labels['a.b/c']`.
    Field {
        path: String,
        equals: Value,
    },
    #[serde(skip)]
    Fn(Predicate),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Met,
    /// Not yet, and what is missing.
    NotYet(String),
    /// It cannot be judged, and looking again will not help.
    Senseless(String),
}

impl Until {
    /// A question of the caller's own; an `Err` ends the wait at once.
    pub fn holds(name: &str, holds: impl Fn(&Value) -> Result<bool, String> + Send + Sync + 'static) -> Self {
        Self::Fn(Predicate { name: name.to_owned(), holds: Arc::new(holds) })
    }

    pub(crate) fn look(&self, objects: &[&Value]) -> Look {
        match self {
            Self::Exists if objects.is_empty() => {
                return Look::NotYet("it does not exist".to_owned());
            }
            Self::Exists => return Look::Met,
            Self::Gone if objects.is_empty() => return Look::Met,
            Self::Gone => return Look::NotYet(format!("{} of it still there", objects.len())),
            Self::EndpointsReady => return endpoints(objects),
            _ if objects.is_empty() => return Look::NotYet("it does not exist".to_owned()),
            _ => {}
        }
        for object in objects {
            let look = self.look_at(object);
            if look != Look::Met {
                return look;
            }
        }
        Look::Met
    }

    fn look_at(&self, object: &Value) -> Look {
        match self {
            Self::ConditionTrue(wanted) => condition(object, object.get("status"), wanted, "True", None),
            Self::Condition { r#type, status, reason } => {
                condition(object, object.get("status"), r#type, status, reason.as_deref())
            }
            Self::GatewayProgrammed => match condition(object, object.get("status"), "Accepted", "True", None) {
                Look::Met => condition(object, object.get("status"), "Programmed", "True", None),
                other => other,
            },
            Self::RouteAccepted { controller } => route(object, controller),
            Self::DeploymentAvailable => rollout(object),
            Self::Field { path, equals } => match field(object, path) {
                Err(problem) => Look::Senseless(problem),
                Ok(Some(value)) if value == equals => Look::Met,
                Ok(Some(value)) => Look::NotYet(format!("{path} is {value}, not {equals}")),
                Ok(None) => Look::NotYet(format!("{path} is not set")),
            },
            Self::Fn(predicate) => match (predicate.holds)(object) {
                Ok(true) => Look::Met,
                Ok(false) => Look::NotYet(format!("not {}", predicate.name)),
                Err(problem) => Look::Senseless(problem),
            },
            Self::Exists | Self::Gone | Self::EndpointsReady => Look::Met, // judged on the whole set
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => write!(f, "it exists"),
            Self::Gone => write!(f, "it is gone"),
            Self::ConditionTrue(name) => write!(f, "{name}=True"),
            Self::Condition { r#type, status, reason: None } => write!(f, "{type}={status}", r#type = r#type),
            Self::Condition { r#type, status, reason: Some(reason) } => write!(f, "{}={status} ({reason})", r#type),
            Self::GatewayProgrammed => write!(f, "Accepted=True and Programmed=True"),
            Self::RouteAccepted { controller } => {
                write!(f, "{controller} has accepted it for all its parents")
            }
            Self::DeploymentAvailable => write!(f, "its rollout is complete and available"),
            Self::EndpointsReady => write!(f, "it has a ready endpoint"),
            Self::Field { path, equals } => write!(f, "{path} is {equals}"),
            Self::Fn(predicate) => f.write_str(&predicate.name),
        }
    }
}

fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}

fn observed(value: &Value) -> Option<i64> {
    value.get("observedGeneration").and_then(Value::as_i64)
}

/// Looks for a condition below `holder.conditions`; the generation is the object's.
fn condition(object: &Value, holder: Option<&Value>, wanted: &str, status: &str, reason: Option<&str>) -> Look {
    let conditions = holder.and_then(|holder| holder.get("conditions")).and_then(Value::as_array);
    let text = |condition: &Value, key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(found) = conditions.into_iter().flatten().find(|condition| text(condition, "type") == wanted) else {
        return Look::NotYet(format!("no condition {wanted}"));
    };
    let generation = generation(object);
    // Knative and KServe keep one observedGeneration for all conditions.
    let seen = observed(found).or_else(|| object.get("status").and_then(observed));
    if let Some(seen) = seen.filter(|seen| *seen < generation) {
        return Look::NotYet(format!("{wanted} is of generation {seen}, the object is at {generation}"));
    }
    let (has_status, has_reason) = (text(found, "status"), text(found, "reason"));
    if has_status == status && reason.is_none_or(|reason| has_reason == reason) {
        Look::Met
    } else {
        Look::NotYet(format!("{wanted}={has_status} ({has_reason})"))
    }
}

fn route(object: &Value, controller: &str) -> Look {
    let named: Vec<&Value> =
        object.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten().collect();
    if named.is_empty() {
        return Look::Senseless("the route names no parents".to_owned());
    }
    let parents: Vec<&Value> =
        object.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten().collect();
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    for parent in named {
        let name = parent.get("name").and_then(Value::as_str).unwrap_or("-");
        let status = parents.iter().find(|status| {
            status.get("controllerName").and_then(Value::as_str) == Some(controller)
                && status.get("parentRef").is_some_and(|seen| parent_key(seen, own) == parent_key(parent, own))
        });
        let Some(status) = status else {
            return Look::NotYet(format!("no status of {controller} for parent {name}"));
        };
        match condition(object, Some(status), "Accepted", "True", None) {
            Look::Met => {}
            Look::NotYet(why) => return Look::NotYet(format!("parent {name}: {why}")),
            other => return other,
        }
    }
    Look::Met
}

/// What makes a parentRef itself, with the defaults of the Gateway API.
fn parent_key(parent: &Value, own_namespace: &str) -> (String, String, String, String, String, Option<i64>) {
    let text = |key: &str, default: &str| parent.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
    (
        text("group", "gateway.networking.k8s.io"),
        text("kind", "Gateway"),
        text("namespace", own_namespace),
        text("name", ""),
        text("sectionName", ""),
        parent.get("port").and_then(Value::as_i64),
    )
}

fn rollout(object: &Value) -> Look {
    let status = |key: &str| object.pointer(&format!("/status/{key}")).and_then(Value::as_i64).unwrap_or(0);
    let generation = generation(object);
    if status("observedGeneration") < generation {
        return Look::NotYet(format!(
            "its controller has seen generation {} of {generation}",
            status("observedGeneration")
        ));
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (wanted, updated, available, all) = match object.get("kind").and_then(Value::as_str) {
        Some("DaemonSet") => {
            let wanted = status("desiredNumberScheduled");
            (wanted, status("updatedNumberScheduled"), status("numberAvailable"), wanted)
        }
        _ => (wanted, status("updatedReplicas"), status("availableReplicas"), status("replicas")),
    };
    if updated < wanted || available < wanted {
        return Look::NotYet(format!("{updated} of {wanted} updated, {available} available"));
    }
    if all > updated {
        return Look::NotYet(format!("{} old pods are left", all - updated));
    }
    Look::Met
}

fn endpoints(slices: &[&Value]) -> Look {
    let all: Vec<&Value> = slices
        .iter()
        .flat_map(|slice| slice.get("endpoints").and_then(Value::as_array).into_iter().flatten())
        .collect();
    // An unset `ready` means ready (EndpointConditions of discovery.k8s.io/v1).
    if all.iter().any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)) {
        return Look::Met;
    }
    Look::NotYet(format!("{} endpoints, none ready", all.len()))
}

/// Follows a path like `.a.b[0]['c.d/e']`; an error when it is no path.
fn field<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let wrong = |what: &str| Err(format!("the path {path:?} {what}; write it like .status.addresses[0].value"));
    let mut here = Some(object);
    let mut rest = path;
    if rest.is_empty() {
        return wrong("is empty");
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some((inside, after)) = split_bracket(after) else {
                return wrong("has a bracket that never ends");
            };
            here = match inside {
                Bracket::Key(key) => here.and_then(|value| value.get(key)),
                Bracket::Index(Ok(index)) => here.and_then(|value| value.get(index)),
                Bracket::Index(Err(_)) => {
                    return wrong("has a bracket with neither a number nor a quoted key");
                }
            };
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, after) = after.split_at(end);
            if key.is_empty() {
                return wrong("has an empty step");
            }
            here = here.and_then(|value| value.get(key));
            rest = after;
        } else {
            return wrong("begins with neither a dot nor a bracket");
        }
    }
    Ok(here.filter(|value| !value.is_null()))
}

enum Bracket<'a> {
    Key(&'a str),
    Index(Result<usize, std::num::ParseIntError>),
}

fn split_bracket(text: &str) -> Option<(Bracket<'_>, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (key, after) = quoted.split_once("']")?;
        return Some((Bracket::Key(key), after));
    }
    let (index, after) = text.split_once(']')?;
    Some((Bracket::Index(index.parse()), after))
}

#[cfg(test)]
#[path = "until_tests.rs"]
mod tests;
