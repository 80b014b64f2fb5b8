//! What places that are Kubernetes clusters have in common: the install with the shared Gateway in it, and its evidence.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use verdict::plan::{GatewayPlan, ModelName};

use super::{PlaceError, Up};
use crate::{
    api::{self, Cluster},
    environment::GatewayEnvironment,
    evidence::{self, Depth},
    gateway::GatewayFolder,
    install::{
        bundle::Bundle,
        component::Need,
        failure::Failure,
        model::ModelFile,
        profile::Selection,
        progress::{InstallEvent, Progress},
        request::{ExtraNeed, ExtraWork, Request, Site},
        run::{self as install_run, Ended, Installed},
    },
    programs::{child::Programs, engine::Engine, image},
    run::PlannedRun,
    shared::{self, Existing},
};

/// What the place gives an install.
pub(super) struct Provision<'p> {
    pub(super) environment: GatewayEnvironment,
    pub(super) site: Site,
    /// What becomes of a shared Gateway that is there already.
    pub(super) existing: Existing,
    pub(super) programs: Programs,
    /// What makes the image of our own program.
    pub(super) engine: Option<&'p Engine>,
}

pub(super) async fn install(
    up: Up<'_>,
    folder: GatewayFolder,
    selection: Selection,
    provision: Provision<'_>,
    cancel: &CancellationToken,
) -> Result<Ended, PlaceError> {
    let Up { run, gateway, progress, .. } = up.clone();
    let images = images(&up, provision.engine, &provision.programs, cancel).await?;
    run.note(&gateway.name, |environment| {
        *environment = GatewayEnvironment { images: images.clone(), keep: run.options.keep, ..provision.environment };
    })?;
    let more_images: BTreeSet<String> = images.values().cloned().collect();
    let request = Request {
        run: run.name()?,
        run_folder: run.folder.path().to_owned(),
        manifests: run.manifests.clone(),
        selection,
        gateway: serde_json::to_value(&folder.gateway)?,
        bundle: run.options.bundle.as_deref().map(Bundle::open).transpose()?,
        site: provision.site,
        more_images: more_images.into_iter().collect(),
        programs: provision.programs,
    };
    let shared = shared_gateway(run, folder, images, provision.existing)?;
    Ok(install_run::run(request, vec![shared], progress, cancel).await)
}

/// Says how long an install took, and writes down what was found in the cluster.
pub(super) fn installed(
    run: &PlannedRun,
    gateway: &GatewayPlan,
    progress: &dyn Progress,
    result: Result<Installed, Failure>,
) -> Result<Installed, PlaceError> {
    let installed = result?;
    let timing = &installed.timing;
    let took = format!(
        "up in {:.1} s; critical path {:.1} s: {}",
        timing.seconds,
        timing.critical_seconds,
        timing.critical_path.join(" -> ")
    );
    progress.say(InstallEvent::Note { node: None, text: &took });
    let stand_ins = installed.found.iter();
    let stand_ins = stand_ins.filter_map(|(name, found)| Some(format!("{name} ({})", found.stand_in.as_ref()?)));
    run.note(&gateway.name, |environment| {
        environment.kubernetes = installed.cluster.version().to_owned();
        environment.stand_ins = stand_ins.collect();
    })?;
    Ok(installed)
}

/// Says how things stand with the way out, and writes it down.
pub(super) fn say_egress(
    run: &PlannedRun,
    gateway: &GatewayPlan,
    progress: &dyn Progress,
    egress: String,
) -> Result<(), PlaceError> {
    progress.say(InstallEvent::Note { node: None, text: &egress });
    Ok(run.note(&gateway.name, |environment| environment.egress = egress)?)
}

/// The images of models, by the names that templates use; our own is made of the program that runs.
async fn images(
    up: &Up<'_>,
    engine: Option<&Engine>,
    programs: &Programs,
    cancel: &CancellationToken,
) -> Result<BTreeMap<String, String>, PlaceError> {
    let (run, gateway) = (up.run, up.gateway);
    let mut images = BTreeMap::new();
    if let Some(image) = &run.options.igc_image {
        images.insert("igc".to_owned(), image.clone());
    } else if let Some(engine) = engine {
        let program = std::env::current_exe()?;
        images.insert("igc".to_owned(), image::of_program(engine, programs, &program, cancel).await?);
    }
    for model in models(run, gateway) {
        let image = ModelFile::read(&run.manifests, model)?.image(&gateway.versions, &images)?;
        images.insert(model.to_owned(), image);
    }
    Ok(images)
}

/// The models that serve tokens in this run: its own, and those that its checks want.
fn models<'r>(run: &'r PlannedRun, gateway: &GatewayPlan) -> BTreeSet<&'r str> {
    let planned = run.plan.checks.iter().filter(|check| check.gateway == gateway.name && check.runs());
    planned.map(|check| &check.model).chain([&run.plan.run.model]).map(ModelName::word).collect()
}

/// The shared Gateway as a part of the install: it starts the moment what it needs is there.
fn shared_gateway(
    run: &PlannedRun,
    folder: GatewayFolder,
    images: BTreeMap<String, String>,
    existing: Existing,
) -> Result<ExtraWork, PlaceError> {
    let mut needs = vec![ExtraNeed::MoreImages];
    for need in &folder.gateway.needs {
        let need: Need = need.parse().map_err(PlaceError::Usage)?;
        needs.push(ExtraNeed::LaterImages(need.component.clone()));
        needs.push(ExtraNeed::Component(need));
    }
    let (manifests, run) = (run.manifests.clone(), run.folder.id().to_owned());
    let work = move |cluster: Cluster| -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let reached = shared::stand_up(&cluster, &manifests, &folder, &images, &[], &run, existing).await;
            reached.map(drop).map_err(|error| error.to_string())
        })
    };
    Ok(ExtraWork { name: "gateway".into(), needs, seconds: 15.0, work: Box::new(work) })
}

pub(super) async fn connect(environment: &GatewayEnvironment) -> Result<Cluster, PlaceError> {
    api::init();
    Ok(Cluster::connect(&environment.kubeconfig, environment.context.as_deref()).await?)
}

pub(super) async fn evidence(run: &PlannedRun, gateway: &GatewayPlan) -> Result<(), PlaceError> {
    // Where no cluster answers, it is gone, or it never was.
    let Ok(cluster) = connect(&run.environment(&gateway.name)).await else { return Ok(()) };
    let kept = run.folder.path().join("evidence").join(&gateway.name).join("_cluster");
    let (folder, selection) = run.selection(gateway)?;
    let mut namespaces = selection.namespaces();
    namespaces.insert(&folder.gateway.namespace);
    for namespace in namespaces {
        evidence::collect(&cluster, namespace, &kept.join(namespace), Depth::ObjectsAndLogs).await;
    }
    Ok(())
}
