//! The run of an install: from a request to a cluster in which everything is ready, or to a failure that says why it is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    component::{Catalogue, Component},
    failure::{self, Cause, Failure},
    nodes::{self, Shape, Work},
    presence::{self, Presence},
    progress::{InstallEvent, Progress},
    request::{ExtraNeed, ExtraWork, InstallMissing, Request, Site},
    schedule,
    timing::Timing,
    work::{Worker, unless_stopped},
};
use crate::{
    api::Cluster,
    programs::{
        engine::{Engine, full_name},
        helm,
        kind::KindCluster,
    },
};

#[derive(Clone, Debug)]
pub struct Installed {
    pub cluster: Cluster,
    pub kind: Option<KindCluster>,
    /// Components that run there: version, and what stands in for them.
    pub found: BTreeMap<String, Presence>,
    pub timing: Timing,
}

/// What an install leaves behind, whatever came of it.
#[derive(Debug)]
pub struct Ended {
    /// The kind cluster that has to be deleted at the end.
    pub kind: Option<KindCluster>,
    pub result: Result<Installed, Failure>,
}

/// Makes the cluster where one is to be made, and brings every component of the selection to readiness in it.
///
/// Ends within seconds after `cancel` fires. Nothing is taken down: a kind cluster that came up is in [`Ended::kind`], whatever else
/// came of the install; one that did not come up is deleted already.
pub async fn run(
    request: Request,
    extra: Vec<ExtraWork>,
    progress: Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Ended {
    let (worker, graph, work) = match prepare(request, &extra, &progress, cancel).await {
        Ok(prepared) => prepared,
        Err(_) if cancel.is_cancelled() => {
            return Ended { kind: None, result: Err(Failure::interrupted()) };
        }
        Err(cause) => return Ended { kind: None, result: Err(Failure::early(cause)) },
    };
    let worker = Arc::new(worker);
    let extra: BTreeMap<String, ExtraWork> = extra.into_iter().map(|extra| (extra.name.clone(), extra)).collect();
    let extra = Arc::new(Mutex::new(extra));
    let ran = schedule::run(&graph, &*progress, cancel, |name, stop| {
        let (worker, extra, work) = (worker.clone(), extra.clone(), work.get(&name).cloned().unwrap_or(Work::Extra));
        async move {
            if work != Work::Extra {
                return worker.work(&name, &work, &stop).await;
            }
            let extra = extra.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            match (extra, worker.cluster.get()) {
                (Some(extra), Some(cluster)) => {
                    unless_stopped(&stop, async { (extra.work)(cluster.clone()).await.map_err(Cause::Other) }).await
                }
                _ => Err(Cause::Other(format!("{name} has no work"))),
            }
        }
    })
    .await;
    if let Err(error) = ran.timing.write(&worker.request.run_folder) {
        progress.say(InstallEvent::Note { node: None, text: &format!("timing.json: {error}") });
    }
    let kind = worker.kind.get().cloned();
    let result = match ran.failure {
        Some((node, cause)) => Err(failed(&worker, node, cause).await),
        None if cancel.is_cancelled() => Err(Failure::interrupted()),
        None => done(&worker, ran.timing).await,
    };
    Ended { kind, result }
}

type Prepared = (Worker, super::graph::Graph, BTreeMap<String, Work>);

/// All that can be known to go wrong before anything is made.
async fn prepare(
    request: Request,
    extra: &[ExtraWork],
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Prepared, Cause> {
    let catalogue = Catalogue::read(&request.manifests)?;
    for untried in request.selection.untried() {
        progress.say(InstallEvent::Note { node: None, text: &untried });
    }
    let run =
        json!({"versions": request.selection.versions, "gateway": request.gateway, "run": request.run.to_string()});
    let (mut archives, mut stand_ins) = (Vec::new(), BTreeMap::new());
    let installs = !matches!(request.site, Site::Context { install_missing: InstallMissing::No, .. });
    if !installs {
        // Only looked at: neither charts nor helm are needed.
    } else if let Some(bundle) = &request.bundle {
        archives = bundle.archives()?;
        request.selection.in_bundle(bundle)?;
        for (name, selected) in &request.selection.components {
            let mut charts = selected.component.charts.iter();
            let Some(chart) = charts.find(|chart| bundle.stand_in(&chart.name, &selected.version).is_some()) else {
                continue;
            };
            let chart = bundle.chart(&chart.name, &selected.version)?;
            let images =
                helm::images_of(&request.programs, &request.run_folder.join("install"), &chart, cancel).await?;
            stand_ins.insert(name.clone(), images);
        }
    } else {
        request.programs.find("helm")?;
    }
    if let (Site::Kind { .. }, Some(_)) = (&request.site, &request.bundle) {
        // Without a registry, an image that is missing would only be found missing by a pull that fails slowly.
        let mut images = request.more_images.clone();
        for selected in request.selection.components.values() {
            let (first, later) = nodes::images(selected, &run, &stand_ins)?;
            images.extend(first.into_iter().chain(later));
        }
        images.retain(|image| !archives.iter().any(|archive| archive.images.contains(&full_name(image))));
        let missing = Engine::find(&request.programs, cancel).await?.look_up(&images, cancel).await?.missing;
        if !missing.is_empty() {
            return Err(Cause::NoImages(missing));
        }
    }
    let extra: Vec<(String, Vec<String>, f64)> = extra
        .iter()
        .map(|extra| (extra.name.clone(), extra.needs.iter().map(ExtraNeed::node).collect(), extra.seconds))
        .collect();
    let shape = Shape {
        loads: matches!(request.site, Site::Kind { .. }),
        fetches: installs && request.bundle.is_none(),
        stand_ins: &stand_ins,
        more_images: &request.more_images,
        extra: &extra,
    };
    let (graph, work) = nodes::graph(&request.selection, &run, &shape)?;
    Ok((Worker::new(request, catalogue, run, archives, progress.clone()), graph, work))
}

async fn done(worker: &Worker, timing: Timing) -> Result<Installed, Failure> {
    let Some(cluster) = worker.cluster.get().cloned() else {
        return Err(Failure::early(Cause::Other("no cluster was made".to_owned())));
    };
    let mut found = worker.found();
    let detected = presence::detect(&cluster, &worker.request.selection).await.map_err(Failure::early)?;
    found.extend(detected.into_iter().filter_map(|(name, presence)| Some((name, presence?))));
    Ok(Installed { cluster, kind: worker.kind.get().cloned(), found, timing })
}

/// Keeps the evidence of a failure: of the component that failed, and of the place where it failed.
async fn failed(worker: &Worker, node: String, cause: Cause) -> Failure {
    let mut evidence = Vec::new();
    let all = &worker.request.selection.components;
    let component = node.split(':').next().and_then(|name| all.get(name)).map(|selected| &selected.component);
    if let (Some(cluster), Some(helm)) = (worker.cluster.get(), worker.helm())
        && !matches!(cause, Cause::NotThere(_))
    {
        // What is no component's may be any component's fault.
        let concerned: Vec<&Component> = match component {
            Some(component) => vec![component],
            None => all.values().map(|selected| &selected.component).collect(),
        };
        let own = worker.request.gateway.get("namespace").and_then(Value::as_str).filter(|_| component.is_none());
        let namespaces = concerned.iter().filter_map(|component| component.namespace.clone());
        let namespaces: BTreeSet<String> = namespaces.chain(own.map(str::to_owned)).collect();
        let release = |component: &&Component| {
            let namespace = component.namespace.clone();
            component
                .charts
                .iter()
                .filter_map(move |chart| Some((chart.release.clone(), namespace.clone()?)))
                .collect::<Vec<_>>()
        };
        let releases: Vec<(String, String)> = concerned.iter().flat_map(release).collect();
        let folder = worker.request.run_folder.join("evidence").join("install").join(node.replace(':', "-"));
        let text = format!("{node}: {cause}\n");
        evidence = failure::keep(cluster, &helm, &folder, namespaces, &releases, &text).await;
    }
    if let (Site::Kind { kind, .. }, Some(made)) = (&worker.request.site, worker.kind.get()) {
        let said = kind.keep_logs(&made.name, &worker.request.run_folder).await;
        worker.progress.say(InstallEvent::Note { node: None, text: &said });
    }
    Failure { node, cause: Some(cause), evidence }
}
