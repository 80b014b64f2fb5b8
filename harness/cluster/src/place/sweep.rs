//! Cleaning up: everything that any run made on this machine, or in a cluster that was there, also after a killed run.

use std::{fmt, fs, path::Path, time::Duration};

use futures::{FutureExt, future::join_all};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{ApiFailure, Backoff, Cluster, Deadline, FailureKind, ObjectRef, Propagation, RUN_LABEL, name_of},
    programs::{
        child::Programs,
        engine::{Engine, EngineError},
        helm::{Helm, HelmError},
        kind::Kind,
        processes::{self, Living},
    },
};

/// How long processes of living runs have to clean up after themselves before they are killed.
const END: Duration = Duration::from_secs(15);

const NAMESPACE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub processes: Vec<u32>,
    pub clusters: Vec<String>,
    pub images: Vec<String>,
    /// Objects of a cluster that were deleted: namespaces, and releases of helm.
    pub objects: Vec<String>,
    pub problems: Vec<String>,
    /// What was not looked for, and why that is no problem.
    pub notes: Vec<String>,
}

impl Swept {
    pub fn and(mut self, more: Self) -> Self {
        self.processes.extend(more.processes);
        self.clusters.extend(more.clusters);
        self.images.extend(more.images);
        self.objects.extend(more.objects);
        self.problems.extend(more.problems);
        self.notes.extend(more.notes);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.clusters.is_empty() && self.images.is_empty() && self.objects.is_empty()
    }
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pid in &self.processes {
            writeln!(f, "ended process {pid}")?;
        }
        for (what, names) in
            [("deleted kind cluster", &self.clusters), ("deleted", &self.objects), ("removed image", &self.images)]
        {
            for name in names {
                writeln!(f, "{what} {name}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        if self.is_empty() && self.problems.is_empty() { writeln!(f, "nothing of any run is left") } else { Ok(()) }
    }
}

/// Ends the processes that the run folders in `runs` record: first asks them, then kills those that stay.
pub async fn processes(runs: &Path) -> Swept {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    // `latest` is a link to a folder that is listed anyway.
    let folders = folders.filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir()));
    let mut living: Vec<Living> = folders.flat_map(|folder| processes::living(&folder)).collect();
    living.iter().for_each(|process| process.signal(Signal::TERM));
    let (deadline, mut backoff) =
        (Deadline::within(END), Backoff::new(Duration::from_millis(20), Duration::from_millis(500)));
    let all: Vec<u32> = living.iter().map(|process| process.pid).collect();
    loop {
        living.retain(|process| !process.ended());
        if living.is_empty() || !backoff.pause(deadline).await {
            break;
        }
    }
    living.iter().for_each(|process| process.signal(Signal::KILL));
    Swept { processes: all, ..Swept::default() }
}

/// Sweeps kind clusters by name, and images by label: those that no run made are never touched, whatever they are called.
pub(super) async fn clusters_and_images(programs: &Programs, cancel: &CancellationToken) -> Swept {
    let mut swept = Swept::default();
    let engine = match Engine::find(programs, cancel).await {
        Ok(engine) => engine,
        Err(EngineError::Missing(_)) => {
            let note = "no container engine here, so no clusters and no images".to_owned();
            return Swept { notes: vec![note], ..swept };
        }
        Err(error) => return Swept { problems: vec![error.to_string()], ..swept },
    };
    match Kind::new(programs, &engine) {
        Ok(kind) => delete_clusters(&kind, cancel, &mut swept).await,
        Err(error) => swept.notes.push(format!("no clusters were looked for: {error}")),
    }
    let removed = async {
        let images = engine.made(cancel).await?;
        engine.remove(&images, cancel).await?;
        Ok::<_, EngineError>(images)
    };
    match removed.await {
        Ok(images) => swept.images = images,
        Err(error) => swept.problems.push(error.to_string()),
    }
    swept
}

/// Sweeps a cluster that was there before: releases, namespaces and GatewayClasses that runs made, all or those of one run.
///
/// Definitions stay: deleting one deletes every object of its kind, also those of others.
pub async fn objects(cluster: &Cluster, helm: &Helm, run: Option<&str>, cancel: &CancellationToken) -> Swept {
    let mut swept = Swept::default();
    let selector = run.map_or_else(|| RUN_LABEL.to_owned(), |run| format!("{RUN_LABEL}={run}"));
    delete_listed(cluster, "gateway.networking.k8s.io/v1", "Gateway", &selector, &mut swept).await;
    delete_listed(cluster, "gateway.networking.k8s.io/v1", "GatewayClass", &selector, &mut swept).await;
    let releases = match helm.of_runs(run, cancel).await {
        Ok(releases) => releases,
        // Nothing was installed by helm where there is none.
        Err(HelmError::Call(error)) if error.is_missing() => vec![],
        Err(error) => {
            swept.problems.push(error.to_string());
            vec![]
        }
    };
    let namespaces: Vec<String> = match cluster.list("v1", "Namespace", None, &selector).await {
        Ok(namespaces) => namespaces.iter().map(|namespace| name_of(namespace).to_owned()).collect(),
        Err(failure) => {
            swept.problems.push(failure.to_string());
            vec![]
        }
    };
    // What checks made goes while the controllers still run: only they take their finalizers off.
    let (of_releases, others): (Vec<_>, Vec<_>) =
        namespaces.into_iter().partition(|namespace| releases.iter().any(|(_, of_release)| of_release == namespace));
    delete_namespaces(cluster, others, &mut swept).await;
    for (name, namespace) in releases {
        match helm.uninstall(&name, &namespace, cancel).await {
            Ok(()) => swept.objects.push(format!("release {namespace}/{name}")),
            Err(error) => swept.problems.push(error.to_string()),
        }
    }
    delete_namespaces(cluster, of_releases, &mut swept).await;
    swept
}

async fn delete_namespaces(cluster: &Cluster, names: Vec<String>, swept: &mut Swept) {
    let gone = join_all(names.iter().map(|name| cluster.delete_namespace(name, NAMESPACE).boxed())).await;
    for (name, gone) in names.into_iter().zip(gone) {
        match gone {
            Ok(_) => swept.objects.push(format!("namespace {name}")),
            Err(error) => swept.problems.push(error.to_string()),
        }
    }
}

async fn delete_listed(cluster: &Cluster, api_version: &str, kind: &str, selector: &str, swept: &mut Swept) {
    let objects = match cluster.list(api_version, kind, None, selector).await {
        Ok(objects) => objects,
        // A kind that the cluster does not have has no objects.
        Err(ApiFailure { kind: FailureKind::UnknownKind { .. }, .. }) => return,
        Err(failure) => return swept.problems.push(failure.to_string()),
    };
    for object in &objects {
        let Ok(named) = ObjectRef::of(object) else { continue };
        match cluster.delete(&named, Propagation::Foreground).await {
            Ok(_) => swept.objects.push(named.to_string()),
            Err(failure) => swept.problems.push(failure.to_string()),
        }
    }
}

async fn delete_clusters(kind: &Kind, cancel: &CancellationToken, swept: &mut Swept) {
    let clusters = match kind.clusters(cancel).await {
        Ok(clusters) => clusters,
        Err(error) => return swept.problems.push(error.to_string()),
    };
    for name in clusters {
        match kind.delete(&name, None).await {
            Ok(()) => swept.clusters.push(name.to_string()),
            Err(error) => swept.problems.push(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::programs::{fakes::Fakes, processes::Recorded};

    #[tokio::test]
    async fn only_what_runs_made_is_swept() {
        let docker = "case $1 in info) echo '{\"ServerVersion\":\"27\"}';; images) echo 'igc/igc:ab12 1f';; esac";
        let fakes = Fakes::new();
        let gone = fakes.path().join("gone");
        let kind = format!(
            "case $1 in get) printf 'igc\\nigc-foo\\n'; [ -e {0} ] || echo igc-20261121-120305-k3f9;; delete) touch {0};; esac",
            gone.display()
        );
        let fakes = fakes.program("docker", docker).program("kind", &kind);
        let swept = clusters_and_images(&fakes.programs(), &CancellationToken::new()).await;
        insta::assert_snapshot!(swept, @r"
        deleted kind cluster igc-20261121-120305-k3f9
        removed image igc/igc:ab12
        ");
        let changes: Vec<String> =
            fakes.calls().into_iter().filter(|call| call.contains("delete") || call.contains("rmi")).collect();
        assert_eq!(
            changes,
            ["kind delete cluster --name igc-20261121-120305-k3f9 --kubeconfig /dev/null", "docker rmi igc/igc:ab12"]
        );
    }

    #[tokio::test]
    async fn a_machine_without_an_engine_has_nothing_to_sweep() {
        let swept = clusters_and_images(&Fakes::new().alone(), &CancellationToken::new()).await;
        insta::assert_snapshot!(swept, @r"
        no container engine here, so no clusters and no images
        nothing of any run is left
        ");
    }

    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_a_problem() {
        let fakes = Fakes::new().program("docker", "echo Cannot connect >&2; exit 1");
        let swept = clusters_and_images(&fakes.alone(), &CancellationToken::new()).await;
        assert_eq!(swept.problems.len(), 1);
        assert!(!swept.to_string().contains("nothing of any run is left"));
    }

    #[tokio::test]
    async fn a_living_run_is_ended_with_all_that_it_started() {
        use std::os::unix::process::CommandExt;
        let runs = tempfile::tempdir().unwrap();
        let run = runs.path().join("20261121-120305-k3f9");
        let mut child = Command::new("tail").args(["-f", "/dev/null"]).process_group(0).spawn().unwrap();
        let _recorded = Recorded::new(&run, child.id()).unwrap();
        let swept = processes(runs.path()).await;
        assert_eq!(swept.processes, [child.id()]);
        assert!(child.wait().unwrap().code().is_none(), "ended by a signal");
    }
}
