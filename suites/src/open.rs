//! The run that a check belongs to: its folder and plan, the gateway's folder, and the cluster where it stands.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cluster::{
    api::Cluster,
    environment::{Environment, Stood},
    gateway::GatewayFolder,
};
use verdict::{
    folder::RunFolder,
    plan::{Exclusive, Plan, PlannedCheck},
};

/// A check of a run, with everything that its attempts share.
pub struct Opened {
    /// The run's folder.
    pub folder: RunFolder,
    /// Its plan.
    pub plan: Plan,
    /// The check as planned.
    pub planned: PlannedCheck,
    /// The gateway's folder.
    pub gateway: GatewayFolder,
    /// Where it stands.
    pub stood: Stood,
}

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The gateway that a case is for: the name of the folder that `gateway.yaml` is in.
pub fn gateway_of(case: &Path) -> String {
    case.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What the environment says of this process's part in a run.
struct Part {
    run: PathBuf,
    gateway: Option<String>,
    exclusive: Option<String>,
}

impl Part {
    fn of_the_environment() -> Option<Self> {
        let run = std::env::var_os("IGC_RUN")?;
        let text = |name: &str| std::env::var(name).ok();
        Some(Self { run: run.into(), gateway: text("IGC_GATEWAY"), exclusive: text("IGC_EXCLUSIVE") })
    }

    /// Whether this process runs checks of that gateway, shared or alone.
    fn includes(&self, check: &PlannedCheck) -> bool {
        let alone = check.exclusive != Exclusive::Shared;
        self.gateway.as_ref().is_none_or(|g| *g == check.gateway)
            && self.exclusive.as_deref().is_none_or(|e| (e == "alone") == alone)
    }
}

/// Opens the run for a check. `None`: it is not planned here, and leaves no trace.
pub fn open(check: &str, case: &str, gateway: &str) -> Result<Option<Opened>> {
    let Some(part) = Part::of_the_environment() else { return Ok(None) };
    let folder = RunFolder::open(&part.run)?;
    let plan = folder.read_plan()?;
    let planned = plan.checks.iter().find(|c| c.check == check && c.case == case && c.gateway == gateway).cloned();
    let Some(planned) = planned.filter(|c| c.runs() && part.includes(c)) else { return Ok(None) };
    let environment: Environment = folder.read_json("environment.json")?;
    let Some(stood) = environment.gateways.get(gateway).cloned() else {
        bail!("{} says nothing of gateway {gateway}; igc up has not run for it", folder.path().join("environment.json").display());
    };
    if let Some(error) = &stood.error {
        bail!("gateway {gateway} is not up: {error}");
    }
    let gateway = GatewayFolder::read(&root().join("manifests/gateways"), gateway)?;
    Ok(Some(Opened { folder, plan, planned, gateway, stood }))
}

impl Opened {
    /// Connects to the cluster.
    pub async fn cluster(&self) -> Result<Cluster> {
        cluster::api::init();
        Cluster::connect(&self.stood.kubeconfig, self.stood.context.as_deref()).await.context("failed to reach the cluster")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::plan::{Disposition, Level, ModelKind};

    use super::*;

    #[rstest]
    #[case(None, None, true)]
    #[case(Some("g"), Some("shared"), true)]
    #[case(Some("other"), Some("shared"), false)]
    #[case(Some("g"), Some("alone"), false)]
    fn a_process_runs_its_part(#[case] gateway: Option<&str>, #[case] exclusive: Option<&str>, #[case] included: bool) {
        let part = Part { run: PathBuf::new(), gateway: gateway.map(Into::into), exclusive: exclusive.map(Into::into) };
        let check = PlannedCheck {
            gateway: "g".into(),
            check: "a/b".into(),
            case: "-".into(),
            level: Level::Must,
            sentence: String::new(),
            source: String::new(),
            capability: None,
            model: ModelKind::Echo,
            counts_every_answer: false,
            exclusive: Exclusive::Shared,
            disposition: Disposition::Run,
        };
        assert_eq!(part.includes(&check), included);
    }

    #[test]
    fn the_gateway_of_a_case_is_its_folder() {
        assert_eq!(gateway_of(Path::new("../manifests/gateways/some/gateway.yaml")), "some");
    }
}
