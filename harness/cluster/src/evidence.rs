//! Evidence: what a namespace held, what happened in it and what its pods wrote, as files that people read.
//!
//! Collecting never fails a check. What could not be had is said in `problems.txt` beside the rest:
//!
//! ```text
//! events.txt                                  one line an event, oldest first
//! objects/<Kind>[.<group>]/<name>.yaml        without managed fields
//! logs/<pod>/<container>[.previous].log       the last 400 lines
//! problems.txt                                what is missing, and why
//! ```
//!
//! All of it passes redaction first ([`verdict::redact`]): credentials become marks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use verdict::redact;

use crate::api::{Cluster, Deadline, Kind, Logs, ObjectRef, items, name_of, text};

const LINES: usize = 400;
const LOG: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Objects,
    ObjectsAndLogs,
}

#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: usize,
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 * 1024 * 1024, time: Duration::from_secs(60) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub files: usize,
    pub bytes: usize,
    pub problems: Vec<String>,
}

/// Collects a namespace into a folder, which is made, within the default bounds.
pub async fn collect(cluster: &Cluster, namespace: &str, folder: &Path, depth: Depth) {
    collect_within(cluster, namespace, folder, depth, Limits::default()).await;
}

pub async fn collect_within(
    cluster: &Cluster,
    namespace: &str,
    folder: &Path,
    depth: Depth,
    limits: Limits,
) -> Collected {
    let mut files = Files { folder: folder.to_owned(), left: limits.bytes, done: Collected::default() };
    let deadline = Deadline::within(limits.time);
    if deadline.bound(gather(cluster, namespace, depth, &mut files)).await.is_none() {
        let said = format!("stopped after {} s; what comes later is missing", limits.time.as_secs());
        files.done.problems.push(said);
    }
    files.finish()
}

async fn gather(cluster: &Cluster, namespace: &str, depth: Depth, files: &mut Files) {
    events(cluster, namespace, files).await;
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
                            files.object(object);
                        }
                    }
                }
            }
        }
    }
    if depth == Depth::ObjectsAndLogs {
        for pod in &pods {
            logs(cluster, namespace, pod, files).await;
        }
    }
}

fn is_kept(kind: &Kind) -> bool {
    kind.kind != "Event" && !kind.api_version.starts_with("metrics.k8s.io/")
}

async fn events(cluster: &Cluster, namespace: &str, files: &mut Files) {
    match cluster.events(namespace).await {
        Err(failure) => files.problem(failure),
        Ok(events) if events.is_empty() => {}
        Ok(events) => {
            let lines: Vec<String> = events.iter().map(|event| format!("{} {event}\n", event.last)).collect();
            files.write(Path::new("events.txt"), redact::text(&lines.concat()).as_bytes());
        }
    }
}

async fn logs(cluster: &Cluster, namespace: &str, pod: &Value, files: &mut Files) {
    let name = name_of(pod);
    for statuses in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        for status in items(pod, &format!("/status/{statuses}")) {
            let container = text(status, "/name");
            let restarts = status["restartCount"].as_i64().unwrap_or(0);
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
                        files.write(&path, redact::text(&text).as_bytes());
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

    fn object(&mut self, mut object: Value) {
        let Ok(named) = ObjectRef::of(&object) else {
            return self.problem(format!("an object without a name: {object}"));
        };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let group = named.group();
        let kind = if group.is_empty() { named.kind.clone() } else { format!("{}.{group}", named.kind) };
        let path = Path::new("objects").join(plain(&kind)).join(format!("{}.yaml", plain(&named.name)));
        match serde_saphyr::to_string(&redact::object(&object)) {
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("system:node-1", "system_node-1")]
    #[case("../../etc", ".._.._etc")]
    #[case("..", "_")]
    fn names_become_plain_file_names(#[case] name: &str, #[case] file: &str) {
        assert_eq!(plain(name), file);
    }
}
