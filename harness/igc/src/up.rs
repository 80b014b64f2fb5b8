//! From a plan to a place where one gateway stands, with everything that its checks need.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    api::{Cluster, ObjectRef},
    environment::Stood,
    gateway::GatewayFolder,
    install::{
        bundle::Bundle,
        component::Need,
        failure::Cause,
        model::ModelFile,
        run::{self as install, InstallMissing, Own, OwnNeed, Request as InstallRequest, Site},
    },
    place::{
        child::Programs,
        doctor,
        egress::{self, Ranges},
        engine::Engine,
        image,
        kind::{Kind, KindCluster, KindRequest},
        name::RunName,
    },
    shared::{self, Existing},
};
use futures::future::BoxFuture;
use rehearsal::hops::Hops;
use tokio_util::sync::CancellationToken;
use verdict::{
    folder::Event,
    plan::{GatewayPlan, ModelKind, Place},
};

use crate::{failure::Failure, log::Log, options, plan::user_kubeconfig, run::Run, standing};

/// For whom gateways stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For the checks of the run, which is taken down afterwards.
    Checks,
    /// For people: it is said how they are reached, and a rehearsal stands in this process until it is cancelled.
    People,
}

/// Stands gateways of a planned run up; what fails is written down for the report.
pub async fn up(
    run: &Run,
    gateways: &[&GatewayPlan],
    purpose: Purpose,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let mut worlds = Vec::new();
    for &gateway in gateways {
        let event = |text: String| Event { gateway: Some(gateway.name.clone()), ..Event::now("up", text) };
        run.folder.append_event(&event("standing up".into()))?;
        let standing = match (run.plan.run.place, purpose) {
            (Place::Rehearsal, Purpose::People) => standing::stand(run, gateway).await.map(|world| worlds.push(world)),
            (Place::Rehearsal, Purpose::Checks) => rehearse(run, gateway),
            _ => stand(run, gateway, log, cancel).await,
        };
        if let Err(failure) = &standing {
            run.note(&gateway.name, |stood| stood.error = Some(failure.to_string()))?;
        }
        run.folder.append_event(&event(standing.as_ref().err().map_or("up".into(), ToString::to_string)))?;
        standing?;
        if purpose == Purpose::People {
            say_how(run, gateway);
        }
    }
    if !worlds.is_empty() {
        println!(
            "# no gateway is tested: all of this is the stand-in; it ends with Ctrl-C, or with `cargo xtask down`"
        );
        cancel.cancelled().await;
    }
    Ok(())
}

/// Nothing has to be stood up: every check of a rehearsal starts a world of its own.
fn rehearse(run: &Run, gateway: &GatewayPlan) -> Result<(), Failure> {
    let mut stood = Stood::rehearsed(&run.root.manifests(), &gateway.versions).map_err(Failure::usage)?;
    stood.notes.extend(Hops::of_the_environment().map_err(Failure::usage)?.note());
    run.note(&gateway.name, |current| *current = stood)
}

/// A cluster, ours or another's.
struct Standing {
    cluster: Cluster,
    ours: Option<(Engine, Kind, KindCluster)>,
}

async fn stand(run: &Run, gateway: &GatewayPlan, log: &Log, cancel: &CancellationToken) -> Result<(), Failure> {
    let (folder, selection) = run.selection(gateway)?;
    let programs = Programs::from_env().recorded_in(run.folder.path());
    let engine = Engine::find(&programs, cancel).await;
    let images = images(run, gateway, engine.as_ref().ok(), log, cancel).await?;
    run.note(&gateway.name, |stood| {
        *stood = Stood { images: images.clone(), keep: run.request.keep, ..Stood::default() }
    })?;

    let (site, made_with) = match run.plan.run.place {
        Place::Kind => {
            let engine = engine?;
            let kind = Kind::new(&programs, &engine)?;
            let request = KindRequest {
                run: name(run)?,
                node_image: run.request.node_image.clone(),
                node_ports: vec![folder.gateway.node_port],
                run_folder: run.folder.path().to_owned(),
            };
            (Site::Kind { kind: kind.clone(), request }, Some((engine, kind)))
        }
        _ => {
            let context = run.plan.run.context.clone().unwrap_or_default();
            let install_missing = if run.request.install_missing { InstallMissing::Yes } else { InstallMissing::No };
            (Site::Context { kubeconfig: user_kubeconfig()?, context, install_missing }, None)
        }
    };
    let request = InstallRequest {
        run: name(run)?,
        run_folder: run.folder.path().to_owned(),
        manifests: run.root.manifests(),
        selection,
        gateway: serde_json::to_value(&folder.gateway)?,
        bundle: run.request.bundle.as_deref().map(Bundle::open).transpose()?,
        site,
        more_images: ["igc", run.plan.run.model.word()]
            .iter()
            .filter_map(|name| images.get(*name).cloned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        programs,
    };
    let existing = if run.plan.run.place == Place::Kind { Existing::Applied } else { Existing::Used };
    let shared = shared_gateway(run, &folder, &images, existing)?;
    let ended = install::run(request, vec![shared], log.progress(), cancel).await;
    if let Some(made) = &ended.kind {
        run.note(&gateway.name, |stood| stood.cluster = Some(made.name.to_string()))?;
    }
    let installed = ended.result.map_err(|failure| match failure.cause.as_ref().is_some_and(Cause::is_usage) {
        true => Failure::usage(&failure),
        false => Failure::Environment(failure.to_string()),
    })?;
    let timing = &installed.timing;
    log.say(format_args!(
        "up in {:.1} s; critical path {:.1} s: {}",
        timing.seconds,
        timing.critical_seconds,
        timing.critical_path.join(" -> ")
    ));

    let standing = Standing {
        ours: installed.kind.clone().zip(made_with).map(|(made, (engine, kind))| (engine, kind, made)),
        cluster: installed.cluster,
    };
    let egress = close_egress(run, &standing, cancel).await?;
    log.say(&egress);
    let stand_ins: Vec<String> = installed
        .found
        .iter()
        .filter_map(|(name, found)| Some(format!("{name} ({})", found.stand_in.as_ref()?)))
        .collect();
    run.note(&gateway.name, |stood| {
        let own = standing.ours.as_ref().map(|(_, _, made)| made);
        stood.kubeconfig = own.map_or_else(|| user_kubeconfig().unwrap_or_default(), |made| made.kubeconfig.clone());
        stood.context = own.map(|made| made.context.clone()).or_else(|| run.plan.run.context.clone());
        stood.kubernetes = standing.cluster.version().to_owned();
        stood.addresses =
            own.iter().flat_map(|made| &made.ports).map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        stood.egress = egress;
        stood.stand_ins = stand_ins;
    })?;
    Ok(())
}

fn name(run: &Run) -> Result<RunName, Failure> {
    run.folder.id().parse().map_err(Failure::usage)
}

/// The images of models, by the names that templates use; our own is made of the static program.
async fn images(
    run: &Run,
    gateway: &GatewayPlan,
    engine: Option<&Engine>,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut images = BTreeMap::new();
    if let Some(image) = &run.request.igc_image {
        images.insert("igc".to_owned(), image.clone());
    } else if let Some(engine) = engine {
        let program = crate::image::program(&run.root, log).await?;
        let image = image::of_program(engine, &program, cancel).await?;
        images.insert("igc".to_owned(), image.clone());
    }
    for model in [ModelKind::Echo, run.plan.run.model] {
        let file = ModelFile::read(&run.root.manifests(), model.word()).map_err(Failure::usage)?;
        let image = file.image(&gateway.versions, &images).map_err(Failure::usage)?;
        images.insert(model.word().to_owned(), image);
    }
    Ok(images)
}

/// The shared Gateway as a part of the install: it starts the moment what it needs is there.
fn shared_gateway(
    run: &Run,
    folder: &GatewayFolder,
    images: &BTreeMap<String, String>,
    existing: Existing,
) -> Result<Own, Failure> {
    let mut needs = vec![OwnNeed::MoreImages];
    for need in &folder.gateway.needs {
        let need: Need = need.parse().map_err(Failure::Usage)?;
        needs.push(OwnNeed::LaterImages(need.component.clone()));
        needs.push(OwnNeed::Component(need));
    }
    let (folder, images) = (folder.clone(), images.clone());
    let (manifests, run) = (run.root.manifests(), run.folder.id().to_owned());
    let work = move |cluster: Cluster| -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let reached = shared::stand_up(&cluster, &manifests, &folder, &images, &[], &run, existing).await;
            reached.map(drop).map_err(|error| error.to_string())
        })
    };
    Ok(Own { name: "gateway".into(), needs, seconds: 15.0, work: Box::new(work) })
}

/// Closes the way out where that was asked for, and says how it went.
async fn close_egress(run: &Run, standing: &Standing, cancel: &CancellationToken) -> Result<String, Failure> {
    let Some((engine, kind, own)) = &standing.ours else {
        return Ok("egress: not closed (the cluster is not ours)".into());
    };
    if !run.request.close_egress {
        return Ok("egress: open (asked for)".into());
    }
    let nodes = kind.nodes(&own.name, cancel).await?;
    let objects = standing.cluster.list("v1", "Node", None, "").await?;
    let service =
        standing.cluster.get(&ObjectRef::new("v1", "Service", "default", "kubernetes")).await?.unwrap_or_default();
    let closed = match Ranges::of(&objects, &service) {
        Ok(ranges) => egress::close(engine, &nodes, &ranges, cancel).await?,
        Err(reason) => egress::Egress::NotClosed { reason },
    };
    if run.request.egress_asked && matches!(closed, egress::Egress::NotClosed { .. }) {
        return Err(Failure::Environment(format!("--egress closed: {closed}")));
    }
    Ok(closed.to_string())
}

fn say_how(run: &Run, gateway: &GatewayPlan) {
    let stood = run.stood(&gateway.name);
    let version = gateway.versions.get(&gateway.version_of).map(String::as_str).unwrap_or_default();
    println!("# {} {version}", gateway.name);
    println!("export KUBECONFIG={}", stood.kubeconfig.display());
    if let Some(address) = stood.addresses.first() {
        println!("# gateway: http://{address}");
    }
    for note in &stood.notes {
        println!("# {note}");
    }
    if run.plan.run.place.is_real() {
        println!("# take it down again with: cargo xtask down");
    }
}

/// `doctor`.
pub async fn doctor(format: options::Format, cancel: &CancellationToken) -> Result<u8, Failure> {
    let facts = doctor::probe(&Programs::from_env(), cancel).await;
    let lines = doctor::judge(&facts);
    match format {
        options::Format::Json => println!("{}", serde_json::to_string_pretty(&lines)?),
        options::Format::Text => print!("{}", doctor::Table(&lines)),
    }
    Ok(if doctor::worst(&lines) == doctor::State::Missing { 3 } else { 0 })
}
