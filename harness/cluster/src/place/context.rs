//! Place `context`: a cluster that is there, of the user's kubeconfig; what runs made in it goes, all else stays.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use verdict::{
    front,
    plan::{self, GatewayPlan},
};

use super::{
    Ending, Held, Place, PlaceError, Up, doctor,
    in_cluster::{self, Provision},
    sweep::{self, Swept},
};
use crate::{
    api::Cluster,
    environment::GatewayEnvironment,
    install::request::{InstallMissing, Site},
    programs::{child::Programs, engine::Engine, helm::Helm},
    run::PlannedRun,
    shared::Existing,
};

#[derive(Clone, Debug)]
pub struct ContextPlace {
    programs: Programs,
    context: Option<String>,
}

impl ContextPlace {
    /// A context of the user's kubeconfig. Without its name there is no run.
    pub fn new(programs: Programs, context: Option<&str>) -> Self {
        Self { programs, context: context.map(str::to_owned) }
    }

    fn named(&self) -> Result<&str, PlaceError> {
        let never = || PlaceError::Usage("--on context needs --context NAME: a cluster is never guessed".to_owned());
        self.context.as_deref().ok_or_else(never)
    }

    fn helm(&self, folder: &Path, kubeconfig: &Path, context: &str, run: &str) -> Helm {
        Helm::new(&self.programs, folder, kubeconfig, context, run)
    }

    async fn connect(&self) -> Result<(PathBuf, Cluster), PlaceError> {
        let kubeconfig = user_kubeconfig()?;
        crate::api::init();
        let cluster = Cluster::connect(&kubeconfig, Some(self.named()?)).await?;
        Ok((kubeconfig, cluster))
    }
}

#[async_trait]
impl Place for ContextPlace {
    fn name(&self) -> plan::PlaceName {
        plan::PlaceName::Context
    }

    fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    async fn look(&self, _: &CancellationToken) -> Result<String, PlaceError> {
        let (_, cluster) = self.connect().await?;
        Ok(format!("context {} at {}", cluster.context(), cluster.server()))
    }

    async fn doctor(&self, _: &CancellationToken) -> Vec<doctor::Line> {
        vec![doctor::contexts(doctor::kubeconfig())]
    }

    async fn up(&self, up: Up<'_>, cancel: &CancellationToken) -> Result<Held, PlaceError> {
        let Up { run, gateway, .. } = up;
        let progress = up.progress.clone();
        let programs = self.programs.clone().recorded_in(run.folder.path());
        let engine = Engine::find(&programs, cancel).await.ok();
        let (kubeconfig, context) = (user_kubeconfig()?, self.named()?);
        let (folder, selection) = run.selection(gateway)?;
        let install_missing = if run.options.install_missing { InstallMissing::Yes } else { InstallMissing::No };
        let provision = Provision {
            // Known from the beginning, so that what a failed install has made is removed.
            environment: GatewayEnvironment {
                kubeconfig: kubeconfig.clone(),
                context: Some(context.to_owned()),
                ..GatewayEnvironment::default()
            },
            site: Site::Context { kubeconfig, context: context.to_owned(), install_missing },
            existing: Existing::Used,
            programs,
            engine: engine.as_ref(),
        };
        let ended = in_cluster::install(up, folder, selection, provision, cancel).await?;
        in_cluster::installed(run, gateway, &*progress, ended.result)?;
        in_cluster::say_egress(run, gateway, &*progress, "egress: not closed (the cluster is not ours)".to_owned())?;
        Ok(None)
    }

    async fn evidence(&self, run: &PlannedRun, gateway: &GatewayPlan) -> Result<(), PlaceError> {
        in_cluster::evidence(run, gateway).await
    }

    async fn down(&self, run: &PlannedRun, gateway: &GatewayPlan, ending: Ending) -> Result<String, PlaceError> {
        if run.options.keep && ending == Ending::Done {
            let down = front::command("down --context NAME");
            return Ok(format!("kept: what the run made in the cluster; `{down}` removes it"));
        }
        let environment = run.environment(&gateway.name);
        if environment.kubeconfig.as_os_str().is_empty() {
            return Ok("nothing was made".to_owned());
        }
        let cluster = match in_cluster::connect(&environment).await {
            Err(error) if environment.error.is_some() => return Ok(format!("nothing could be removed: {error}")),
            connected => connected?,
        };
        let helm = self.helm(run.folder.path(), &environment.kubeconfig, cluster.context(), run.folder.id());
        let swept = sweep::objects(&cluster, &helm, Some(run.folder.id()), &CancellationToken::new()).await;
        Ok(swept.to_string().trim_end().to_owned())
    }

    async fn sweep(&self, cancel: &CancellationToken) -> Result<Swept, PlaceError> {
        let (kubeconfig, cluster) = self.connect().await?;
        let folder = tempfile::tempdir()?;
        let helm = self.helm(folder.path(), &kubeconfig, cluster.context(), "none");
        Ok(sweep::objects(&cluster, &helm, None, cancel).await)
    }
}

fn user_kubeconfig() -> Result<PathBuf, PlaceError> {
    let named = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let path = named
        .or_else(home)
        .ok_or_else(|| PlaceError::Usage("neither KUBECONFIG nor HOME is set: there is no kubeconfig".to_owned()))?;
    // A list of files is kubectl's own; one of them has to be chosen here.
    match std::env::split_paths(&path).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        several => Err(PlaceError::Usage(format!(
            "KUBECONFIG names {} files; set it to the one that has the context",
            several.len()
        ))),
    }
}
