//! A failed install: which component, which object, its last conditions and events, and the files that were kept.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{bundle::BundleError, component::DataError};
use crate::{
    api::{ApiFailure, Cluster, ConnectError, ObjectRef, WaitError},
    evidence::{self, Depth},
    programs::{
        child::ChildError,
        engine::{EngineError, MissingImage},
        helm::{Helm, HelmError},
        kind::KindError,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Kind(#[from] KindError),
    #[error(transparent)]
    Helm(#[from] HelmError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Api(#[from] ApiFailure),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error("{object} was refused: {message}")]
    Refused { object: ObjectRef, message: String },
    /// Images that neither the engine nor the bundle has, where there is no registry to fetch them from.
    #[error("neither the container engine nor the bundle has these images: {}", list(.0))]
    NoImages(Vec<MissingImage>),
    #[error("the cluster lacks {}", .0.join(", "))]
    NotThere(Vec<String>),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Other(String),
    /// The run was interrupted, or another node failed.
    #[error("stopped")]
    Stopped,
}

fn list(missing: &[MissingImage]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Cause {
    /// Whether it may be the consequence of a cancellation.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::Child(error) | Self::Engine(EngineError::Call(error)) => error.is_cancelled(),
            Self::Kind(error) => error.is_cancelled(),
            Self::Helm(error) => error.is_cancelled(),
            _ => false,
        }
    }

    /// Whether the words of the command or the project's data are wrong, and not the environment: exit 2 instead of 3.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Data(_) => true,
            Self::Connect(error) => error.is_usage(),
            _ => false,
        }
    }
}

#[derive(Debug)]
pub struct Failure {
    /// The node, for example `kserve:ready`; empty where nothing had begun.
    pub node: String,
    /// Why; `None` for an interrupted run.
    pub cause: Option<Cause>,
    pub evidence: Vec<PathBuf>,
}

impl Failure {
    pub(crate) fn interrupted() -> Self {
        Self { node: String::new(), cause: None, evidence: vec![] }
    }

    pub(crate) fn early(cause: impl Into<Cause>) -> Self {
        Self { node: String::new(), cause: Some(cause.into()), evidence: vec![] }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.node.split_once(':')) {
            (None, _) => write!(f, "the install was interrupted")?,
            (Some(cause), Some((component, state))) => {
                write!(f, "component {component} did not become {state}: {cause}")?
            }
            (Some(cause), None) if self.node.is_empty() => write!(f, "{cause}")?,
            (Some(cause), None) => write!(f, "{} failed: {cause}", self.node)?,
        }
        self.evidence.iter().try_for_each(|file| write!(f, "\n  evidence: {}", file.display()))
    }
}

/// Keeps what tells why a component failed: its namespace's objects, events and logs, what helm knows, and the words of the failure.
pub(crate) async fn keep(
    cluster: &Cluster,
    helm: &Helm,
    folder: &Path,
    namespaces: BTreeSet<String>,
    releases: &[(String, String)],
    text: &str,
) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    let mut write = |name: &str, text: &str| {
        let file = folder.join(name);
        if fs::create_dir_all(folder).and_then(|()| fs::write(&file, text)).is_ok() {
            kept.push(file);
        }
    };
    write("failure.txt", text);
    for (release, namespace) in releases {
        if let Ok(said) = helm.status(release, namespace).await {
            write(&format!("helm-{release}.yaml"), &without_notes(&said.stdout));
        }
    }
    for namespace in namespaces {
        let into = folder.join(&namespace);
        evidence::collect(cluster, &namespace, &into, Depth::ObjectsAndLogs).await;
        if into.exists() {
            kept.push(into);
        }
    }
    kept
}

/// What helm says of a release holds its manifest, and Secrets in it: only what comes before is kept.
fn without_notes(status: &str) -> String {
    let mut keep = true;
    let kept = status.lines().filter(|line| {
        if !line.starts_with([' ', '-']) {
            keep = !["manifest:", "config:", "hooks:", "chart:"].iter().any(|key| line.starts_with(key));
        }
        keep
    });
    kept.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_component_cause_and_evidence() {
        let cause = Cause::Refused { object: ObjectRef::new("v1", "Pod", "n", "p"), message: "denied".into() };
        let failure =
            Failure { node: "kserve:ready".into(), cause: Some(cause), evidence: vec!["/run/evidence".into()] };
        insta::assert_snapshot!(failure, @r"
        component kserve did not become ready: Pod n/p was refused: denied
          evidence: /run/evidence
        ");
        insta::assert_snapshot!(Failure::interrupted(), @"the install was interrupted");
        let missing = MissingImage {
            image: "docker.io/envoyproxy/ratelimit:1e50889b".into(),
            other_tags: vec!["3fb70258".into()],
        };
        insta::assert_snapshot!(Failure::early(Cause::NoImages(vec![missing])), @"neither the container engine nor the bundle has these images: docker.io/envoyproxy/ratelimit:1e50889b (of it the engine has 3fb70258)");
    }

    #[test]
    fn no_manifest_of_a_release_is_kept() {
        let status =
            "config:\n  password: x\ninfo:\n  status: failed\nmanifest: |\n  kind: Secret\n  data: x\nname: a\n";
        assert_eq!(without_notes(status), "info:\n  status: failed\nname: a\n");
    }
}
