//! Events of an object, in short.

use std::fmt;

use serde_json::Value;

use super::Cluster;
use super::failure::ApiFailure;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// For example `FailedScheduling`.
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
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
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
    /// All events of a namespace, oldest first.
    pub async fn events(&self, namespace: &str) -> Result<Vec<Event>, ApiFailure> {
        let mut events: Vec<Event> =
            self.list_where("v1", "Event", Some(namespace), &[]).await?.0.iter().map(Event::of).collect();
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
        let namespace = namespace.unwrap_or("default");
        let (objects, _) = self.list_where("v1", "Event", Some(namespace), &[]).await?;
        let children = format!("{name}-");
        let mut events: Vec<Event> = objects
            .iter()
            .filter(|object| {
                let about = object.pointer("/involvedObject/name").and_then(Value::as_str).unwrap_or_default();
                about == name || about.starts_with(&children)
            })
            .map(Event::of)
            .collect();
        // Warnings matter more than the newest "Pulled".
        events.sort_by(|a, b| (a.kind == "Warning", &a.last).cmp(&(b.kind == "Warning", &b.last)));
        events.drain(..events.len().saturating_sub(at_most));
        events.sort_by(|a, b| a.last.cmp(&b.last));
        Ok(events)
    }
}
