//! Place `kind`: a cluster of our own on this machine, deleted at the end.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use verdict::{
    front,
    plan::{self, GatewayPlan},
};

use super::{
    Ending, Held, Place, PlaceError, Up, doctor,
    egress::{self, Egress, Ranges},
    in_cluster::{self, Provision},
    sweep::{self, Swept},
};
use crate::{
    api::{Cluster, ObjectRef},
    environment::GatewayEnvironment,
    install::{model::ModelFile, request::Site},
    programs::{
        child::Programs,
        engine::Engine,
        kind::{Kind, KindCluster, KindRequest},
    },
    run::PlannedRun,
    shared::Existing,
};

#[derive(Clone, Debug)]
pub struct KindPlace {
    programs: Programs,
}

impl KindPlace {
    pub fn new(programs: Programs) -> Self {
        Self { programs }
    }
}

#[async_trait]
impl Place for KindPlace {
    fn name(&self) -> plan::PlaceName {
        plan::PlaceName::Kind
    }

    async fn look(&self, cancel: &CancellationToken) -> Result<String, PlaceError> {
        Engine::find(&self.programs, cancel).await?;
        for program in ["kind", "helm"] {
            self.programs.find(program)?;
        }
        Ok("a container engine, kind and helm answer".to_owned())
    }

    async fn preflight(&self, model: &ModelFile, cancel: &CancellationToken) -> Result<(), PlaceError> {
        let engine = Engine::find(&self.programs, cancel).await?;
        model
            .fits(engine.info.processors, engine.info.memory)
            .map_err(|why| PlaceError::Environment(format!("--model {}: {why}", model.name)))
    }

    async fn doctor(&self, cancel: &CancellationToken) -> Vec<doctor::Line> {
        doctor::judge(&doctor::probe(&self.programs, cancel).await)
    }

    async fn up(&self, up: Up<'_>, cancel: &CancellationToken) -> Result<Held, PlaceError> {
        let Up { run, gateway, .. } = up;
        let progress = up.progress.clone();
        let programs = self.programs.clone().recorded_in(run.folder.path());
        let engine = Engine::find(&programs, cancel).await?;
        let kind = Kind::new(&programs, &engine)?;
        let (folder, selection) = run.selection(gateway)?;
        let request = KindRequest {
            run: run.name()?,
            node_image: run.options.node_image.clone(),
            node_ports: vec![folder.gateway.node_port],
            run_folder: run.folder.path().to_owned(),
        };
        let provision = Provision {
            environment: GatewayEnvironment::default(),
            site: Site::Kind { kind: kind.clone(), request },
            existing: Existing::Applied,
            programs,
            engine: Some(&engine),
        };
        let ended = in_cluster::install(up, folder, selection, provision, cancel).await?;
        if let Some(made) = &ended.kind {
            run.note(&gateway.name, |environment| environment.cluster = Some(made.name.to_string()))?;
        }
        let installed = in_cluster::installed(run, gateway, &*progress, ended.result)?;
        let made = installed.kind.ok_or_else(|| PlaceError::Environment("kind made no cluster".to_owned()))?;
        run.note(&gateway.name, |environment| {
            environment.kubeconfig.clone_from(&made.kubeconfig);
            environment.context = Some(made.context.clone());
            environment.addresses = made.ports.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        })?;
        let egress = close_egress(run, &engine, &kind, &made, &installed.cluster, cancel).await?;
        in_cluster::say_egress(run, gateway, &*progress, egress)?;
        Ok(None)
    }

    async fn evidence(&self, run: &PlannedRun, gateway: &GatewayPlan) -> Result<(), PlaceError> {
        in_cluster::evidence(run, gateway).await
    }

    async fn down(&self, run: &PlannedRun, gateway: &GatewayPlan, ending: Ending) -> Result<String, PlaceError> {
        let cluster = run.name()?.cluster();
        if run.options.keep && ending == Ending::Done {
            let (kubeconfig, down) = (run.environment(&gateway.name).kubeconfig, front::command("down"));
            let kubeconfig = kubeconfig.display();
            return Ok(format!("kept: kind cluster {cluster}; KUBECONFIG={kubeconfig}; `{down}` removes it"));
        }
        let engine = match Engine::find(&self.programs, &CancellationToken::new()).await {
            Ok(engine) => engine,
            Err(error) if ending == Ending::Interrupted => {
                return Ok(format!("nothing could be taken down: {error}"));
            }
            Err(error) => return Err(error.into()),
        };
        Kind::new(&self.programs, &engine)?.delete(&cluster, None).await?;
        Ok(format!("kind cluster {cluster} deleted"))
    }

    async fn sweep(&self, cancel: &CancellationToken) -> Result<Swept, PlaceError> {
        Ok(sweep::clusters_and_images(&self.programs, cancel).await)
    }
}

async fn close_egress(
    run: &PlannedRun,
    engine: &Engine,
    kind: &Kind,
    made: &KindCluster,
    cluster: &Cluster,
    cancel: &CancellationToken,
) -> Result<String, PlaceError> {
    if !run.options.close_egress {
        return Ok("egress: open (asked for)".to_owned());
    }
    let nodes = kind.nodes(&made.name, cancel).await?;
    let objects = cluster.list("v1", "Node", None, "").await?;
    let service = cluster.get(&ObjectRef::new("v1", "Service", "default", "kubernetes")).await?.unwrap_or_default();
    let closed = match Ranges::of(&objects, &service) {
        Ok(ranges) => egress::close(engine, &nodes, &ranges, cancel).await?,
        Err(reason) => Egress::NotClosed { reason },
    };
    if run.options.egress_asked && matches!(closed, Egress::NotClosed { .. }) {
        return Err(PlaceError::Environment(format!("--egress closed: {closed}")));
    }
    Ok(closed.to_string())
}
