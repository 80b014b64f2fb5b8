//! One run from nothing to a report: plan, place up, suites, place down, report; the report's exit code is the run's.

use std::{fs::File, time::Duration};

use cluster::place::{Audience, Ending, Place};
use cluster::{install::profile::RECORDED, programs::processes::Recorded, run::PlannedRun};
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::front;
use verdict::plan::{Exclusive, GatewayPlan, Plan};

use crate::live::{Live, Style};
use crate::options::{self, E2e, Target};
use crate::suites::{Ended, Suites};
use crate::{down, failure::Failure, fidelity as recordings, log::Log, places, plan, report, up};

/// How long what stands a place up may take to end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(4);

/// What one process of the suites runs.
#[derive(Clone, Copy)]
enum Batch<'p> {
    /// The checks of one gateway that share it, or those that need it alone.
    Of { gateway: &'p GatewayPlan, shared: bool },
    /// Every check of every gateway: each has a world of its own, so none disturbs another.
    All,
}

impl<'p> Batch<'p> {
    fn of(place: &dyn Place, gateways: &[&'p GatewayPlan]) -> Vec<Self> {
        if place.holds_all() {
            return vec![Batch::All];
        }
        gateways.iter().flat_map(|gateway| [true, false].map(|shared| Batch::Of { gateway, shared })).collect()
    }

    fn planned(self, plan: &Plan) -> usize {
        let ours = |gateway: &str, exclusive: Exclusive| match self {
            Batch::All => true,
            Batch::Of { gateway: own, shared } => own.name == gateway && (exclusive == Exclusive::Shared) == shared,
        };
        plan.checks.iter().filter(|c| c.runs() && ours(&c.gateway, c.exclusive)).count()
    }

    fn jobs(self, plan: &Plan) -> u32 {
        match self {
            Batch::Of { shared: false, .. } => 1,
            _ => plan.run.jobs,
        }
    }
}

/// Gateways that stand at the same time: one after the other where they take room, else all at once.
fn turns<'r>(place: &dyn Place, run: &'r PlannedRun) -> Vec<Vec<&'r GatewayPlan>> {
    let gateways = run.gateways();
    if place.holds_all() { vec![gateways] } else { gateways.into_iter().map(|gateway| vec![gateway]).collect() }
}

struct Driver<'a> {
    suites: &'a Suites,
    place: &'a dyn Place,
    run: &'a PlannedRun,
    live: Live,
    log: &'a Log,
    cancel: &'a CancellationToken,
}

impl Driver<'_> {
    /// Runs checks; verdicts are in the records, so the test runner's code does not matter.
    async fn checks(&self, batch: Batch<'_>) -> Result<Ended, Failure> {
        let log = append(self.run, "tests.log")?;
        let mut command = self.suites.checks();
        command.args(["--test-threads", &batch.jobs(&self.run.plan).to_string()]);
        command.env("IGC_RUN", self.run.folder.path()).stderr(log.try_clone()?).stdout(log);
        if let Batch::Of { gateway, shared } = batch {
            command.env("IGC_GATEWAY", &gateway.name).env("IGC_EXCLUSIVE", if shared { "shared" } else { "alone" });
        }
        self.suites.run(&mut command, self.run.folder.path(), self.cancel).await
    }

    /// Gateways from up to the end of their checks. One that does not come up is in the run's environment, and no check of
    /// it is tried.
    async fn turn(&self, gateways: &[&GatewayPlan]) -> Result<(), Failure> {
        let up = up::up(self.place, self.run, gateways, Audience::Checks, self.log, self.cancel);
        let given_up = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let stands = tokio::select! {
            result = up => result.inspect_err(|failure| self.log.say(format_args!("error: {failure}"))).is_ok(),
            () = given_up => false,
        };
        let plan = &self.run.plan;
        let batches = Batch::of(self.place, gateways);
        let all = batches.iter().map(|batch| batch.planned(plan)).sum();
        for batch in batches.into_iter().filter(|batch| stands && batch.planned(plan) > 0) {
            self.live.checks(gateways, all);
            if self.checks(batch).await? == Ended::Interrupted {
                break;
            }
        }
        Ok(())
    }

    /// Every gateway of the run, each taken down in every case, also after an error or Ctrl-C.
    async fn all(&self) -> Result<(), Failure> {
        for gateways in turns(self.place, self.run) {
            let ended = self.turn(&gateways).await;
            self.live.rest();
            let ending = if self.cancel.is_cancelled() { Ending::Interrupted } else { Ending::Done };
            if let Err(failure) = down::down(self.place, self.run, &gateways, ending, self.log).await {
                eprintln!("warning: {failure}; `{}` removes what is left", front::command("down"));
            }
            ended?;
            if ending == Ending::Interrupted {
                break;
            }
        }
        Ok(())
    }
}

fn append(run: &PlannedRun, name: &str) -> Result<File, Failure> {
    let path = run.folder.path().join(name);
    let opened = File::options().create(true).append(true).open(&path);
    opened.map_err(|e| Failure::Environment(format!("failed to open {}: {e}", path.display())))
}

/// Plans a run, and says so where somebody listens or it is refused.
async fn planned(
    root: &Root,
    suites: &Suites,
    e2e: &E2e,
    audience: Audience,
    listened_to: bool,
    cancel: &CancellationToken,
) -> Result<PlannedRun, Failure> {
    let mut notes = Vec::new();
    let run = plan::plan(root, suites, e2e, audience, &mut notes, cancel).await;
    if listened_to || run.is_err() {
        notes.iter().for_each(|note| eprintln!("{note}"));
    }
    run
}

async fn driven(
    root: &Root,
    suites: &Suites,
    e2e: &E2e,
    style: Style,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<PlannedRun, Failure> {
    let run = planned(root, suites, e2e, Audience::Checks, style != Style::Silent, cancel).await?;
    if style == Style::Silent {
        log.to_file(append(&run, "place.log")?);
    }
    let _recorded = Recorded::this(run.folder.path())?;
    let live = Live::of(run.folder.path(), run.plan.run.place.word(), style);
    let place = places::of(&run.plan.run)?;
    let driver = Driver { suites, place: &*place, run: &run, live, log, cancel };
    driver.all().await?;
    drop(driver); // the last events are said before the report is
    Ok(run)
}

pub async fn e2e(
    root: &Root,
    e2e: &E2e,
    output: &options::Output,
    log: Log,
    cancel: &CancellationToken,
) -> Result<u8, Failure> {
    let suites = Suites::find(root)?;
    let run = driven(root, &suites, e2e, Style::of(output), &log, cancel).await?;
    report::write(root, &run.folder, cancel.is_cancelled(), output)
}

/// `up`: a rehearsal stays until Ctrl-C, whose code is 130, or until `down`, which gives 0.
pub async fn up(
    root: &Root,
    target: &Target,
    log: Log,
    cancel: &CancellationToken,
    terminated: &CancellationToken,
) -> Result<u8, Failure> {
    let suites = Suites::find(root)?;
    let e2e = E2e { target: target.clone(), ..E2e::default() };
    let run = planned(root, &suites, &e2e, Audience::People, true, cancel).await?;
    let _recorded = Recorded::this(run.folder.path())?;
    let (place, gateways) = (places::of(&run.plan.run)?, run.gateways());
    let stood = up::up(&*place, &run, &gateways, Audience::People, &log, cancel).await;
    if !cancel.is_cancelled() || (stood.is_ok() && terminated.is_cancelled()) {
        return stood.map(|()| 0);
    }
    down::down(&*place, &run, &gateways, Ending::Interrupted, &log).await?;
    Ok(130)
}

/// `fidelity`: the cases; where all is asked for also the goldens of real places, by a rehearsed run of every check.
pub async fn fidelity(
    root: &Root,
    options: &options::Fidelity,
    log: Log,
    cancel: &CancellationToken,
) -> Result<u8, Failure> {
    let goldens = options.paths.is_empty() && !options.list && options.cases.iter().all(|c| c.starts_with("golden"));
    let mut run = None;
    if goldens {
        let recorded = E2e {
            target: Target { on: options::On::Rehearsal, profile: Some(RECORDED.to_owned()), ..Target::default() },
            ..E2e::default()
        };
        run = Some(driven(root, &Suites::find(root)?, &recorded, Style::Silent, &log, cancel).await?.folder);
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(130),
        code = recordings::fidelity(root, run.as_ref(), options) => code,
    }
}
