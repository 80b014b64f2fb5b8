//! Evidence: what a namespace held, what happened in it and what its pods wrote, as files that people read.
//!
//! Collecting never fails a check. What could not be had is said in `problems.txt` beside the rest:
//!
//! ```text
//! events.txt                                  one line an event, oldest first
//! objects/<Kind>[.<group>]/<name>.yaml        without managed fields; Secrets without their data
//! logs/<pod>/<container>[.previous].log       the last 400 lines
//! problems.txt                                what is missing, and why
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::api::{Cluster, Deadline, Kind, Logs, ObjectRef, name_of};

/// How many lines of each log are kept.
const LINES: usize = 400;
/// How many bytes of each log are kept.
const LOG: usize = 1024 * 1024;

/// How deep to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Objects and events.
    Objects,
    /// Logs as well.
    #[default]
    ObjectsAndLogs,
}

/// What to collect, and within which bounds.
#[derive(Clone, Copy)]
pub struct Collection<'a> {
    /// How deep.
    pub depth: Depth,
    /// Objects besides those of the namespace: a GatewayClass, the Gateway in another namespace.
    pub extra: &'a [ObjectRef],
    /// Redaction on top of what is always done; logs come as one string.
    pub redact: &'a (dyn Fn(&mut Value) + Send + Sync),
    /// Bytes of all files together.
    pub bytes: usize,
    /// From beginning to end.
    pub time: Duration,
}

impl Default for Collection<'_> {
    /// All of it, 32 MiB, 60 s.
    fn default() -> Self {
        let (bytes, time) = (32 * 1024 * 1024, Duration::from_secs(60));
        Self { depth: Depth::default(), extra: &[], redact: &|_| (), bytes, time }
    }
}

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many files were written.
    pub files: usize,
    /// Their bytes.
    pub bytes: usize,
    /// What could not be had, and why.
    pub problems: Vec<String>,
}

/// Collects a namespace into a folder (which is made), within the bounds of [`Collection::default`].
pub async fn collect(cluster: &Cluster, namespace: &str, folder: &Path, depth: &Depth) {
    collect_with(cluster, namespace, folder, &Collection { depth: *depth, ..Collection::default() }).await;
}

/// The same with objects, redaction and bounds of the caller's.
pub async fn collect_with(cluster: &Cluster, namespace: &str, folder: &Path, collection: &Collection<'_>) -> Collected {
    let mut files = Files { folder: folder.to_owned(), left: collection.bytes, done: Collected::default() };
    let deadline = Deadline::within(collection.time);
    if deadline.bound(gather(cluster, namespace, collection, &mut files)).await.is_none() {
        let said = format!("stopped after {} s; what comes later is missing", collection.time.as_secs());
        files.done.problems.push(said);
    }
    files.finish()
}

async fn gather(cluster: &Cluster, namespace: &str, collection: &Collection<'_>, files: &mut Files) {
    events(cluster, namespace, collection, files).await;
    let mut pods = Vec::new();
    match cluster.listable_kinds().await {
        Err(failure) => files.problem(failure),
        Ok((kinds, away)) => {
            away.into_iter().for_each(|failure| files.problem(failure));
            for kind in kinds.iter().filter(|kind| is_kept(kind)) {
                match cluster.list(&kind.api_version, &kind.kind, Some(namespace), "").await {
                    Err(failure) => files.problem(failure),
                    Ok(objects) => {
                        for object in objects {
                            if kind.kind == "Pod" {
                                pods.push(object.clone());
                            }
                            files.object(object, None, collection);
                        }
                    }
                }
            }
        }
    }
    for named in collection.extra {
        match cluster.get(named).await {
            Err(failure) => files.problem(failure),
            Ok(None) => files.problem(format!("{named} does not exist")),
            Ok(Some(object)) => {
                let elsewhere = named.namespace.as_deref().filter(|other| *other != namespace);
                files.object(object, elsewhere, collection);
            }
        }
    }
    if collection.depth == Depth::ObjectsAndLogs {
        for pod in &pods {
            logs(cluster, namespace, pod, collection, files).await;
        }
    }
}

/// Events are read apart; reviews and metrics are questions, not objects.
fn is_kept(kind: &Kind) -> bool {
    kind.kind != "Event" && !kind.api_version.starts_with("metrics.k8s.io/")
}

async fn events(cluster: &Cluster, namespace: &str, collection: &Collection<'_>, files: &mut Files) {
    match cluster.events(namespace).await {
        Err(failure) => files.problem(failure),
        Ok(events) if events.is_empty() => {}
        Ok(events) => {
            let lines: Vec<String> = events.iter().map(|event| format!("{} {event}\n", event.last)).collect();
            let text = redacted_text(lines.concat(), collection);
            files.write(Path::new("events.txt"), text.as_bytes());
        }
    }
}

async fn logs(cluster: &Cluster, namespace: &str, pod: &Value, collection: &Collection<'_>, files: &mut Files) {
    let name = name_of(pod);
    for statuses in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        let statuses = pod.pointer(&format!("/status/{statuses}")).and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let container = status.get("name").and_then(Value::as_str).unwrap_or_default();
            let restarts = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
            if status.pointer("/state/waiting").is_some() && restarts == 0 {
                continue; // it never ran, and has no log
            }
            let mut wanted = vec![(Logs::Current, "log")];
            if restarts > 0 {
                wanted.push((Logs::Previous, "previous.log"));
            }
            for (which, ending) in wanted {
                match cluster.logs(namespace, name, container, which, LINES, LOG).await {
                    Err(failure) => files.problem(failure),
                    Ok(text) => {
                        let file = format!("{}.{ending}", plain(container));
                        let path = Path::new("logs").join(plain(name)).join(file);
                        files.write(&path, redacted_text(text, collection).as_bytes());
                    }
                }
            }
        }
    }
}

struct Files {
    folder: PathBuf,
    left: usize,
    done: Collected,
}

impl Files {
    fn problem(&mut self, problem: impl ToString) {
        self.done.problems.push(problem.to_string());
    }

    fn object(&mut self, mut object: Value, elsewhere: Option<&str>, collection: &Collection<'_>) {
        let Ok(named) = ObjectRef::of(&object) else {
            return self.problem(format!("an object without a name: {object}"));
        };
        redact_object(&mut object);
        (collection.redact)(&mut object);
        let group = named.group();
        let kind = if group.is_empty() { named.kind.clone() } else { format!("{}.{group}", named.kind) };
        let prefix = elsewhere.map(|namespace| format!("{namespace}_")).unwrap_or_default();
        let path =
            Path::new("objects").join(plain(&kind)).join(format!("{}.yaml", plain(&format!("{prefix}{}", named.name))));
        match serde_saphyr::to_string(&object) {
            Ok(text) => self.write(&path, text.as_bytes()),
            Err(error) => self.problem(format!("{named} cannot be written as YAML: {error}")),
        }
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if bytes.len() > self.left {
            self.problem(format!("{} is left out: its {} bytes are over the bound", path.display(), bytes.len()));
            return;
        }
        match self.put(path, bytes) {
            Err(error) => self.problem(format!("{} cannot be written: {error}", path.display())),
            Ok(()) => {
                self.left -= bytes.len();
                self.done.bytes += bytes.len();
                self.done.files += 1;
            }
        }
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, bytes)
    }

    fn finish(mut self) -> Collected {
        if !self.done.problems.is_empty() {
            let said: String = self.done.problems.iter().map(|problem| format!("{problem}\n")).collect();
            if let Err(error) = self.put(Path::new("problems.txt"), said.as_bytes()) {
                self.done.problems.push(format!("problems.txt cannot be written: {error}"));
            }
        }
        self.done
    }
}

/// A name as part of a file name: names of RBAC objects hold colons.
fn plain(name: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().map(|c| if kept(c) { c } else { '_' }).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

/// What is always taken out: managed fields, data of Secrets, and values of variables that are named like credentials.
fn redact_object(object: &mut Value) {
    let is_secret = object.get("kind").and_then(Value::as_str) == Some("Secret");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut).filter(|_| is_secret)
        {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    if is_secret {
        for field in ["data", "stringData"] {
            for value in
                object.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|data| data.values_mut())
            {
                *value = json!("redacted");
            }
        }
    }
    redact_variables(object);
}

/// `{name: OPENAI_API_KEY, value: ...}` anywhere, and `Bearer ...` in any string.
fn redact_variables(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_variables),
        Value::Object(entries) => {
            let named = entries.get("name").and_then(Value::as_str).is_some_and(is_credential);
            if let Some(value) = entries.get_mut("value").filter(|value| named && value.is_string()) {
                *value = json!("redacted");
            }
            entries.values_mut().for_each(redact_variables);
        }
        Value::String(text) => {
            if let Some(redacted) = without_bearers(text) {
                *text = redacted;
            }
        }
        _ => {}
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    matches!(name.as_str(), "authorization" | "cookie" | "password" | "token")
        || ["-key", "-token", "-secret", "-password", "apikey"].iter().any(|end| name.ends_with(end))
}

fn redacted_text(text: String, collection: &Collection<'_>) -> String {
    let mut value = Value::String(without_bearers(&text).unwrap_or(text));
    (collection.redact)(&mut value);
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The text with the credentials after `Bearer` or `Basic` taken out; `None` when there are none.
fn without_bearers(text: &str) -> Option<String> {
    let mut redacted = String::new();
    let mut rest = text;
    while let Some((start, length)) = ["Bearer ", "bearer ", "Basic ", "basic "]
        .iter()
        .filter_map(|word| rest.find(word).map(|at| (at, word.len())))
        .min()
    {
        let (before, after) = rest.split_at(start + length);
        let credential = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let end = after.find(|c| !credential(c)).unwrap_or(after.len());
        redacted.push_str(before);
        // "Basic usage" is no credential, and a short word is none worth hiding.
        redacted.push_str(if end >= 8 { "redacted" } else { &after[..end] });
        rest = &after[end..];
    }
    (!redacted.is_empty()).then(|| redacted + rest)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn data_of_secrets_is_never_kept() {
        let mut secret = json!({"kind": "Secret", "metadata": {"name": "s", "managedFields": [1], "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"key\":\"aGVsbG8=\"}}", "kept": "yes"}},
            "data": {"key": "aGVsbG8="}, "stringData": {"other": "hello"}});
        redact_object(&mut secret);
        assert_eq!(
            secret,
            json!({"kind": "Secret", "metadata": {"name": "s", "annotations": {"kept": "yes"}},
                "data": {"key": "redacted"}, "stringData": {"other": "redacted"}})
        );
    }

    #[test]
    fn variables_named_like_credentials_lose_their_values() {
        let mut pod = json!({"kind": "Pod", "spec": {"containers": [{"env": [
            {"name": "OPENAI_API_KEY", "value": "sk-1"}, {"name": "HF_TOKEN", "value": "hf"},
            {"name": "LOG_LEVEL", "value": "debug"}, {"name": "OTHER_KEY", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}});
        redact_object(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["env"],
            json!([{"name": "OPENAI_API_KEY", "value": "redacted"}, {"name": "HF_TOKEN", "value": "redacted"},
                {"name": "LOG_LEVEL", "value": "debug"}, {"name": "OTHER_KEY", "valueFrom": {"secretKeyRef": {"name": "s"}}}])
        );
    }

    #[rstest]
    #[case("authorization: Bearer abcdefgh.ijk-lmn end", Some("authorization: Bearer redacted end"))]
    #[case("a Basic dXNlcjpwYXNz, b bearer abcdefgh", Some("a Basic redacted, b bearer redacted"))]
    #[case("Basic usage of it", Some("Basic usage of it"))]
    #[case("nothing here", None)]
    fn credentials_in_text_are_taken_out(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(without_bearers(text).as_deref(), expected);
    }

    #[rstest]
    #[case("system:node-1", "system_node-1")]
    #[case("../../etc", ".._.._etc")]
    #[case("..", "_")]
    fn names_become_plain_file_names(#[case] name: &str, #[case] file: &str) {
        assert_eq!(plain(name), file);
    }
}
