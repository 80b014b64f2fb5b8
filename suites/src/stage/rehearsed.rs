//! The world of a stage, where a run is rehearsed.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use cluster::{
    api::Cluster,
    shared::{self, Existing},
};
use rehearsal::{
    clock::Clock,
    hops::Hops,
    mutants::{Mutant, Mutants},
    world::{Backup, World, WorldConfig},
};
use tokio::sync::OnceCell;
use verdict::record::Trial;

use crate::open::{CheckRun, root};

/// See the module.
pub(super) struct Rehearsed {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    _kubeconfig: tempfile::NamedTempFile,
}

impl Rehearsed {
    pub(super) async fn start(check_run: &CheckRun, trial: &Trial) -> Result<Self> {
        let shared = &check_run.gateway.gateway;
        let plan = check_run.gateway_plan()?;
        let version = plan.versions.get(&plan.version_of).context("the plan names no version of the gateway")?;
        let mut config = WorldConfig::new(&check_run.gateway.name, version)?;
        config.kserve_gateway = (shared.namespace.clone(), shared.name.clone());
        let backup = backup(check_run, &config, trial.mended).await?;
        config.mutants = mutants(trial)?;
        config.hops = Hops::of_the_environment()?;
        let (world, kubeconfig, cluster) = connected(World::restore(&backup, config).await?).await?;
        world.settled().await;
        Ok(Self { world, cluster, _kubeconfig: kubeconfig })
    }
}

async fn connected(world: World) -> Result<(World, tempfile::NamedTempFile, Cluster)> {
    let kubeconfig = tempfile::NamedTempFile::new().context("failed to write a kubeconfig for the rehearsal")?;
    world.write_kubeconfig(kubeconfig.path())?;
    cluster::api::init();
    let cluster = Cluster::connect(kubeconfig.path(), None).await?.on_loopback();
    Ok((world, kubeconfig, cluster))
}

type Backups = HashMap<(String, bool), Arc<OnceCell<Arc<Backup>>>>;

/// What the worlds of a gateway have in common, mended or not: the gateway as `igc up` would have it stand. It is stood up
/// once in a process; each check's own world starts from there.
async fn backup(check_run: &CheckRun, config: &WorldConfig, mended: bool) -> Result<Arc<Backup>> {
    static MADE: LazyLock<Mutex<Backups>> = LazyLock::new(Mutex::default);
    let made = {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry((check_run.gateway.name.clone(), mended)).or_default().clone()
    };
    let stand_up = async || {
        let config =
            WorldConfig { clock: Clock::movable_from_now(), mutants: Mutants::new(None, mended), ..config.clone() };
        let (world, _kubeconfig, cluster) = connected(World::start(config).await?).await?;
        let (manifests, images) = (root().join("manifests"), &check_run.environment.images);
        let run = &check_run.plan.run.id;
        shared::stand_up(&cluster, &manifests, &check_run.gateway, images, &[], run, Existing::Applied).await?;
        Ok(Arc::new(world.backup().await))
    };
    made.get_or_try_init(stand_up).await.cloned()
}

fn mutants(trial: &Trial) -> Result<Mutants> {
    let named = |name: &String| Mutant::named(name).with_context(|| format!("there is no mutant called {name}"));
    Ok(Mutants::new(trial.mutant.as_ref().map(named).transpose()?, trial.mended))
}
