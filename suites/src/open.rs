//! The run that a check belongs to: its folder and plan, the gateway's folder, and the cluster where it stands.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, Once, OnceLock, PoisonError},
};

use anyhow::{Context, Result, bail};
use cluster::{
    api::Cluster,
    environment::{Environment, GatewayEnvironment},
    gateway::{self, GatewayFolder},
    install::{
        component::Catalogue,
        profile::{Profile, RECORDED, Selection},
    },
    programs::processes::Recorded,
};
use shipped::Root;
use verdict::{
    folder::RunFolder,
    plan::{Exclusive, GatewayPlan, Plan, PlannedCheck, RunInfo},
    requirements::Requirements,
    tests_list::TestList,
};

/// A check of a run, with everything that its attempts share.
pub struct CheckRun {
    pub folder: RunFolder,
    pub plan: Plan,
    pub planned: PlannedCheck,
    pub gateway: GatewayFolder,
    pub environment: GatewayEnvironment,
}

/// Where manifests and goldens are.
pub fn root() -> PathBuf {
    found().absolute().to_owned()
}

fn found() -> &'static Root {
    static FOUND: LazyLock<Root> =
        LazyLock::new(|| Root::of_the_environment().unwrap_or_else(|error| panic!("{error}")));
    &FOUND
}

/// The run that this process belongs to, and which of its checks it runs: all where nothing is said.
struct Assignment {
    run: PathBuf,
    gateway: Option<String>,
    exclusive: Option<String>,
}

impl Assignment {
    fn of_the_environment() -> Option<Self> {
        let run = std::env::var_os("IGC_RUN")?;
        let text = |name: &str| std::env::var(name).ok();
        Some(Self { run: run.into(), gateway: text("IGC_GATEWAY"), exclusive: text("IGC_EXCLUSIVE") })
    }

    fn includes(&self, check: &PlannedCheck) -> bool {
        let alone = check.exclusive != Exclusive::Shared;
        self.gateway.as_ref().is_none_or(|g| *g == check.gateway)
            && self.exclusive.as_deref().is_none_or(|e| (e == "alone") == alone)
    }
}

/// Opens the run for a case of a check, once for each gateway that it is planned on; nothing where it is not planned, which
/// leaves no trace. Without a run (plain `cargo test`) the check plans itself from `requirements` and is rehearsed on every
/// gateway that has a rehearsal, in the versions that the goldens were recorded with.
pub fn open(
    check: &str,
    case: &str,
    requirements: impl FnOnce() -> Result<Requirements>,
) -> Result<Vec<Result<CheckRun>>> {
    let Some(assignment) = Assignment::of_the_environment() else {
        return rehearse_alone(check, case, &requirements()?);
    };
    // igc may be killed before it records this process; a sweep finds the process by its own record.
    static THIS_PROCESS: OnceLock<Option<Recorded>> = OnceLock::new();
    THIS_PROCESS.get_or_init(|| Recorded::this(&assignment.run).ok());
    let plan = RunFolder::open(&assignment.run)?.read_plan()?;
    let planned =
        plan.checks.iter().filter(|c| c.check == check && c.case == case && c.runs() && assignment.includes(c));
    Ok(planned.map(|planned| open_planned(&assignment, &plan, planned)).collect())
}

fn open_planned(assignment: &Assignment, plan: &Plan, planned: &PlannedCheck) -> Result<CheckRun> {
    let folder = RunFolder::open(&assignment.run)?;
    let environment: Environment = folder.read_json("environment.json")?;
    let gateway = &planned.gateway;
    let Some(environment) = environment.gateways.get(gateway).cloned() else {
        bail!(
            "{} says nothing of gateway {gateway}; igc up has not run for it",
            folder.path().join("environment.json").display()
        );
    };
    if let Some(error) = &environment.error {
        bail!("gateway {gateway} is not up: {error}");
    }
    let gateway = GatewayFolder::read(&root().join("manifests/gateways"), gateway)?;
    Ok(CheckRun { folder, plan: plan.clone(), planned: planned.clone(), gateway, environment })
}

fn rehearse_alone(check: &str, case: &str, requirements: &Requirements) -> Result<Vec<Result<CheckRun>>> {
    let tests = TestList::of(requirements);
    let manifests = root().join("manifests");
    let profile = Profile::read(&manifests, RECORDED)?;
    let catalogue = Catalogue::read(&manifests)?;
    let mut all = Vec::new();
    let gateways = manifests.join("gateways");
    for name in rehearsed(&gateways)? {
        let gateway = GatewayFolder::read(&gateways, &name)?;
        let planned = Selection::of(&catalogue, &profile, &gateway.components)?.plan(&gateway, None)?;
        let folder = alone_folder()?;
        let run = RunInfo {
            id: folder.id().to_owned(),
            ci: std::env::var_os("CI").is_some(),
            ..RunInfo::rehearsal(RECORDED, &["cargo", "test", "-p", "suites"])
        };
        let plan = verdict::plan::build(requirements, vec![planned], run, &tests)?;
        let planned = plan.checks.iter().find(|c| c.check == check && c.case == case).cloned();
        if let Some(planned) = planned.filter(PlannedCheck::runs) {
            let environment = GatewayEnvironment::rehearsed(&manifests, &plan.gateways[0].versions)?;
            all.push(Ok(CheckRun { folder, plan, planned, gateway, environment }));
        }
    }
    Ok(all)
}

/// The gateways that have a rehearsal. That the others are left out is said once in a process.
fn rehearsed(gateways: &Path) -> Result<Vec<String>> {
    static SAID: Once = Once::new();
    let has_dialect = |name: &String| rehearsal::dialects::of(name).is_some();
    let (rehearsed, others): (Vec<_>, Vec<_>) = gateway::names(gateways)?.into_iter().partition(has_dialect);
    SAID.call_once(|| {
        for name in others {
            _ = writeln!(io::stderr(), "note: {name} is left out: no rehearsal of {name}"); // past the test runner's capture
        }
    });
    Ok(rehearsed)
}

/// One folder for all that this process rehearses alone; those of processes that are gone are removed.
fn alone_folder() -> Result<RunFolder> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = FOLDER.get() {
        return Ok(RunFolder::open(path)?);
    }
    let parent = found().target().join("rehearsed");
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let alive = name.rsplit('-').next().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            _ = std::fs::remove_dir_all(entry.path()); // another process may remove it too
        }
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let folder = RunFolder::create(&parent, &format!("{now}-{}", std::process::id()))?;
    Ok(RunFolder::open(FOLDER.get_or_init(|| folder.path().to_owned()))?)
}

impl CheckRun {
    pub fn gateway_plan(&self) -> Result<&GatewayPlan> {
        let name = &self.gateway.name;
        self.plan
            .gateways
            .iter()
            .find(|g| g.name == *name)
            .with_context(|| format!("the plan does not have gateway {name}"))
    }

    pub fn trials(&self) -> &[String] {
        let of = |t: &&verdict::plan::Trials| {
            (&t.gateway, &t.check, &t.case) == (&self.planned.gateway, &self.planned.check, &self.planned.case)
        };
        self.plan.run.trials.iter().find(of).map_or(&[], |trials| &trials.mutants)
    }

    pub async fn cluster(&self) -> Result<Cluster> {
        cluster::api::init();
        Cluster::connect(&self.environment.kubeconfig, self.environment.context.as_deref())
            .await
            .context("failed to reach the cluster")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use verdict::plan::{Disposition, Level};

    use super::*;

    #[rstest]
    #[case(None, None, true)]
    #[case(Some("g"), Some("shared"), true)]
    #[case(Some("other"), Some("shared"), false)]
    #[case(Some("g"), Some("alone"), false)]
    fn a_process_runs_what_it_is_assigned(
        #[case] gateway: Option<&str>,
        #[case] exclusive: Option<&str>,
        #[case] included: bool,
    ) {
        let assignment =
            Assignment { run: PathBuf::new(), gateway: gateway.map(Into::into), exclusive: exclusive.map(Into::into) };
        let check = PlannedCheck {
            gateway: "g".into(),
            check: "a/b".into(),
            case: "-".into(),
            level: Level::Must,
            sentence: String::new(),
            source: String::new(),
            capability: None,
            model: "echo".parse().unwrap(),
            counts_every_answer: false,
            exclusive: Exclusive::Shared,
            disposition: Disposition::Run,
        };
        assert_eq!(assignment.includes(&check), included);
    }
}
