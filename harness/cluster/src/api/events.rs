//! Events of an object, in short.

use std::fmt;

use serde_json::Value;

use super::{Cluster, failure::ApiFailure, object::text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub kind: String,
    pub reason: String,
    /// `Kind name` of the object that it is about.
    pub about: String,
    pub message: String,
    pub count: u64,
    /// The last time, RFC 3339.
    pub last: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.count > 1 { format!(" ({} times)", self.count) } else { String::new() };
        write!(f, "{} {} {}{times}: {}", self.about, self.kind, self.reason, self.message)
    }
}

impl Event {
    fn of(object: &Value) -> Self {
        let text = |pointer: &str| text(object, pointer).to_owned();
        let last = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
            .iter()
            .map(|pointer| text(pointer))
            .find(|time| !time.is_empty())
            .unwrap_or_default();
        let count = object.pointer("/series/count").or(object.get("count")).and_then(Value::as_u64).unwrap_or(1);
        Self {
            kind: text("/type"),
            reason: text("/reason"),
            about: format!("{} {}", text("/involvedObject/kind"), text("/involvedObject/name")),
            message: text("/message").trim().to_owned(),
            count,
            last,
        }
    }
}

impl Cluster {
    pub async fn events(&self, namespace: &str) -> Result<Vec<Event>, ApiFailure> {
        let mut events: Vec<Event> =
            self.list("v1", "Event", Some(namespace), "").await?.iter().map(Event::of).collect();
        events.sort_by(|a, b| a.last.cmp(&b.last));
        Ok(events)
    }

    /// The last events about an object and about what is named after it (the ReplicaSets and Pods of a Deployment),
    /// oldest first. Events of objects without a namespace are in `default`.
    pub async fn events_about(
        &self,
        namespace: Option<&str>,
        name: &str,
        at_most: usize,
    ) -> Result<Vec<Event>, ApiFailure> {
        let mut events = self.events(namespace.unwrap_or("default")).await?;
        events.retain(|event| {
            let about = event.about.split_once(' ').map_or("", |(_, name)| name).strip_prefix(name);
            about.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        // Warnings matter more than the newest "Pulled".
        events.sort_by(|a, b| (a.kind == "Warning", &a.last).cmp(&(b.kind == "Warning", &b.last)));
        events.drain(..events.len().saturating_sub(at_most));
        events.sort_by(|a, b| a.last.cmp(&b.last));
        Ok(events)
    }
}
