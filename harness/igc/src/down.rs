//! Taking down: evidence first, then nothing is left; and sweeping what runs that were killed have left.

use std::path::Path;

use cluster::{
    api::Cluster,
    environment::Stood,
    evidence,
    install::helm::Helm,
    place::{child::Programs, engine::Engine, kind::Kind, name::ClusterName, sweep},
};
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::{
    folder::Event,
    plan::{GatewayPlan, Place},
    record::Verdict,
};

use crate::{
    failure::Failure,
    log::Log,
    options,
    plan::{runs, user_kubeconfig},
    run::Run,
};

/// Takes gateways of a run down.
pub async fn down(run: &Run, gateways: &[&GatewayPlan], interrupted: bool, log: &Log) -> Result<(), Failure> {
    for &gateway in gateways {
        let stood = run.stood(&gateway.name);
        let records = run.folder.read_records()?;
        let failed = stood.error.is_some()
            || records.records.iter().any(|r| r.key.gateway == gateway.name && r.verdict != Verdict::Pass);
        if failed && !interrupted && run.plan.run.place.is_real() {
            // What cannot be kept is no reason to leave a cluster behind.
            if let Err(failure) = keep_evidence(run, gateway, &stood).await {
                log.say(format_args!("no evidence of the components: {failure}"));
            }
        }
        let done = match (run.plan.run.place, run.request.keep && !interrupted) {
            (Place::Rehearsal, _) => "the rehearsal is over".to_owned(),
            (Place::Kind, true) => kept(&stood),
            (Place::Kind, false) => delete_cluster(run, interrupted).await?,
            (_, keep) => leave(run, &stood, keep).await?,
        };
        log.say(&done);
        run.folder.append_event(&Event { gateway: Some(gateway.name.clone()), ..Event::now("down", done) })?;
    }
    Ok(())
}

fn kept(stood: &Stood) -> String {
    let name = stood.cluster.as_deref().unwrap_or("-");
    format!("kept: kind cluster {name}; KUBECONFIG={}; `cargo xtask down` removes it", stood.kubeconfig.display())
}

/// Objects and logs of the shared Gateway and of every component, where something did not pass.
async fn keep_evidence(run: &Run, gateway: &GatewayPlan, stood: &Stood) -> Result<(), Failure> {
    let Ok(cluster) = connect(stood).await else { return Ok(()) }; // it is gone, or it never was
    let kept = run.folder.path().join("evidence").join(&gateway.name).join("_cluster");
    let (folder, selection) = run.selection(gateway)?;
    let mut namespaces = selection.namespaces();
    namespaces.insert(&folder.gateway.namespace);
    for namespace in namespaces {
        evidence::collect(&cluster, namespace, &kept.join(namespace), &evidence::Depth::ObjectsAndLogs).await;
    }
    Ok(())
}

async fn connect(stood: &Stood) -> Result<Cluster, Failure> {
    cluster::api::init();
    Ok(Cluster::connect(&stood.kubeconfig, stood.context.as_deref()).await?)
}

async fn delete_cluster(run: &Run, interrupted: bool) -> Result<String, Failure> {
    let name: ClusterName = run.folder.id().parse::<cluster::place::name::RunName>().map_err(Failure::usage)?.cluster();
    let programs = Programs::from_env();
    let engine = match Engine::find(&programs, &CancellationToken::new()).await {
        Ok(engine) => engine,
        Err(error) if interrupted => return Ok(format!("nothing could be taken down: {error}")),
        Err(error) => return Err(error.into()),
    };
    Kind::new(&programs, &engine)?.delete(&name, None).await?;
    Ok(format!("kind cluster {name} deleted"))
}

/// Leaves a cluster that is not ours as it was: what this run made goes.
async fn leave(run: &Run, stood: &Stood, keep: bool) -> Result<String, Failure> {
    if keep {
        return Ok("kept: what the run made in the cluster; `cargo xtask down --context NAME` removes it".into());
    }
    if stood.kubeconfig.as_os_str().is_empty() {
        return Ok("nothing was made".into());
    }
    let cluster = connect(stood).await?;
    let helm = helm(run.folder.path(), &stood.kubeconfig, cluster.context(), run.folder.id());
    let swept = sweep::context(&cluster, &helm, Some(run.folder.id()), &CancellationToken::new()).await;
    Ok(swept.to_string().trim_end().to_owned())
}

fn helm(folder: &Path, kubeconfig: &Path, context: &str, run: &str) -> Helm {
    Helm::new(&Programs::from_env(), folder, kubeconfig, context, run)
}

/// Removes everything of every run on this machine, or of every run in a cluster of the user's.
pub async fn sweep(root: &Root, options: &options::Down, cancel: &CancellationToken) -> Result<u8, Failure> {
    if let Some(context) = options.context.as_deref() {
        cluster::api::init();
        let kubeconfig = user_kubeconfig()?;
        let cluster = Cluster::connect(&kubeconfig, Some(context)).await;
        let cluster = cluster.map_err(|e| if e.is_usage() { Failure::usage(&e) } else { e.into() })?;
        let folder = tempfile::tempdir()?;
        let helm = helm(folder.path(), &kubeconfig, context, "none");
        return said(&sweep::context(&cluster, &helm, None, cancel).await);
    }
    said(&sweep::machine(&Programs::from_env(), options.out.as_deref().unwrap_or(&runs(root)), cancel).await)
}

fn said(swept: &sweep::Swept) -> Result<u8, Failure> {
    print!("{swept}");
    Ok(if swept.problems.is_empty() { 0 } else { 3 })
}
