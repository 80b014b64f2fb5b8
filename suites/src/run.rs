//! A run of a check: it drives a stage on each gateway that is planned, judges the history, compares the observation with
//! the golden, and always leaves a record.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use cluster::evidence::{self, Depth};
use futures::FutureExt;
use verdict::{
    baseline::Baseline,
    folder::Records,
    golden,
    history::History,
    invariant::Judged,
    judge::{Clause, Holds, Judgement},
    record::{By, GoldenState, Record, Trial, Verdict},
    report::{self, Ending, Inputs},
};

use crate::{
    Stage,
    check::{Check, dashed},
    open::{self, CheckRun, root},
    registry::requirements,
    replay::Replay,
    stage::GaveUp,
};

/// After its bounds a drive waits at most for what it waits for then. One that goes on hangs in the harness or the cluster.
const HUNG: Duration = Duration::from_secs(1_200);

impl Check {
    /// Runs a case on each gateway for which the run's plan has it.
    pub async fn run(&self, case: &str) {
        let case = dashed(case);
        let breaks = self.run_case(&case).await.unwrap_or_else(|error| vec![format!("{}: {error:#}", self.id())]);
        assert!(breaks.is_empty(), "{}", breaks.join("\n"));
    }

    async fn run_case(&self, case: &str) -> Result<Vec<String>> {
        if let Some(replay) = Replay::of_the_environment()? {
            self.judge_again(&replay, case)?;
            return Ok(vec![]);
        }
        let mut breaks = Vec::new();
        for check_run in open::open(&self.id(), case, requirements)? {
            // What goes wrong on one gateway keeps no other from being tried.
            match self.run_planned(check_run).await {
                Ok(why) => breaks.extend(why),
                Err(error) => breaks.push(format!("{}: {error:#}", self.id())),
            }
        }
        Ok(breaks)
    }

    async fn run_planned(&self, check_run: Result<CheckRun>) -> Result<Option<String>> {
        let check_run = Arc::new(check_run?);
        if check_run.plan.run.trials.is_empty() {
            return self.run_on(&check_run).await;
        }
        self.try_mutants(&check_run).await?;
        Ok(None)
    }

    /// Runs it on one gateway, as often as retries allow; why it breaks the run.
    async fn run_on(&self, check_run: &Arc<CheckRun>) -> Result<Option<String>> {
        let tries = if check_run.planned.counts_every_answer { 1 } else { check_run.plan.run.retries + 1 };
        let mut records = Records::default();
        for attempt in 1..=tries {
            let record = self.attempt(check_run, attempt, None).await?;
            let last = record.verdict == Verdict::Pass || attempt == tries;
            records.records.push(record.clone());
            let why = if last { breaks(check_run, &records) } else { None };
            say(check_run, &record, why.is_some());
            if last {
                return Ok(why);
            }
        }
        Ok(None)
    }

    fn judge_again(&self, replay: &Replay, case: &str) -> Result<()> {
        for history in replay.histories(&self.id(), case)? {
            let (history, judged) = match history {
                Ok(history) => {
                    let judged = self.judged_safely(&history);
                    (history, judged)
                }
                Err((key, why)) => (History { key, ..History::default() }, Err(anyhow!(why))),
            };
            let mut record = Record::new(history.key.clone());
            take_in(&mut record, &history, judged);
            replay.into.write_record(&record)?;
        }
        Ok(())
    }

    /// Tries the check itself: on the gateway as it is, mended where it fails there, and then on each mutant of it. Where it
    /// fails on the mended one as well, its mutants are told by the clauses that hold there.
    async fn try_mutants(&self, check_run: &Arc<CheckRun>) -> Result<()> {
        let mut attempts = 0;
        let mut passes = async |trial: Trial| {
            attempts += 1;
            anyhow::Ok(self.attempt(check_run, attempts, Some(trial)).await?.verdict == Verdict::Pass)
        };
        let mut mended = false;
        if !passes(Trial::default()).await? {
            mended = true;
            passes(Trial { mended, ..Trial::default() }).await?;
        }
        for mutant in check_run.trials() {
            passes(Trial { mutant: Some(mutant.clone()), mended, reached: false }).await?;
        }
        Ok(())
    }

    async fn attempt(&self, check_run: &Arc<CheckRun>, attempt: u32, trial: Option<Trial>) -> Result<Record> {
        let begun = Instant::now();
        let mut record = Record::new(check_run.planned.key(attempt));
        record.trial.clone_from(&trial);
        match Stage::open(Arc::clone(check_run), record.key.clone(), trial).await {
            Err(error) => record.reason = format!("the stage could not be opened: {error:#}"),
            Ok(mut stage) => {
                let driven = self.driven(&mut stage).await;
                record.drive = Some(stage.drive());
                stage.salvage().await;
                if let Some(trial) = &mut record.trial {
                    trial.reached = stage.reached_mutant();
                }
                // What is judged is what was written, so that a replay judges the same.
                match check_run.folder.write_history(stage.history()) {
                    Ok(history) => {
                        let judged = match stage.void() {
                            Some(why) => Err(anyhow!("void: {why}; not judged")),
                            None => driven.and_then(|()| self.judged_safely(&history)),
                        };
                        self.fill(&mut record, check_run, &stage, &history, judged).await;
                    }
                    Err(error) => record.reason = error.to_string(),
                }
                if record.verdict == Verdict::Pass || !check_run.environment.keep {
                    stage.close().await;
                }
            }
        }
        record.seconds = begun.elapsed().as_secs_f64();
        check_run.folder.write_record(&record)?;
        Ok(record)
    }

    /// Drives the stage to the end and reads the records. An error is one of the harness or the cluster.
    async fn driven(&self, stage: &mut Stage) -> Result<()> {
        let drive = async {
            match (self.drive)(stage).await {
                Err(ended) if ended.is::<GaveUp>() => {}
                ended => ended?,
            }
            stage.end().await
        };
        match AssertUnwindSafe(tokio::time::timeout(HUNG, drive)).catch_unwind().await {
            Err(panic) => Err(anyhow!("the drive panicked: {}", message(&*panic))),
            Ok(Err(_)) => Err(anyhow!("the drive took longer than {} s", HUNG.as_secs())),
            Ok(Ok(ended)) => ended,
        }
    }

    fn judged_safely(&self, history: &History) -> Result<(Judgement, Judged)> {
        std::panic::catch_unwind(AssertUnwindSafe(|| (self.judged(history), self.invariants(history))))
            .map_err(|panic| anyhow!("the judge panicked: {}", message(&*panic)))
    }

    async fn fill(
        &self,
        record: &mut Record,
        check_run: &CheckRun,
        stage: &Stage,
        history: &History,
        judged: Result<(Judgement, Judged)>,
    ) {
        record.settle_seconds = history.settle.seconds;
        record.address.clone_from(&history.address);
        if take_in(record, history, judged) {
            match self.compare(check_run, history) {
                Ok(compared) => (record.golden, record.golden_note) = compared,
                Err(error) => {
                    record.verdict = Verdict::Error;
                    record.reason = format!("the observation could not be compared: {error:#}");
                }
            }
        }
        if record.verdict != Verdict::Pass {
            // A dead cluster makes every check look false: that is an error of the place, never a failure of the gateway.
            let default = cluster::api::ObjectRef::global("v1", "Namespace", "default");
            if let Err(error) = stage.cluster().get(&default).await {
                record.verdict = Verdict::Error;
                record.reason =
                    format!("the cluster does not answer any more ({error}); before that: {}", record.reason);
            }
        }
        let depth = if record.verdict == Verdict::Pass { Depth::Objects } else { Depth::ObjectsAndLogs };
        match check_run.folder.evidence_dir(&record.key) {
            Ok(folder) => evidence::collect(stage.cluster(), &history.namespace, &folder, depth).await,
            Err(error) => record.reason = format!("{}; {error}", record.reason),
        }
    }

    /// Compares with the golden; what differs or is missing becomes a pending file in the run folder.
    fn compare(&self, check_run: &CheckRun, history: &History) -> Result<(GoldenState, Option<String>)> {
        let gateway = check_run.gateway_plan()?;
        let observation = (self.observe)(history);
        let (goldens, run, folder) = (root().join("golden"), &check_run.plan.run, &check_run.folder);
        Ok(golden::judge_observation(&goldens, folder, run, gateway, &check_run.planned, observation)?)
    }
}

/// Writes down what the judge said; `false` where it came to say nothing.
fn take_in(record: &mut Record, history: &History, judged: Result<(Judgement, Judged)>) -> bool {
    match judged {
        Ok((judgement, Judged { clauses, tallies, used })) => {
            (record.verdict, record.reason) = summary(history, &judgement);
            if let Some(first) = clauses.first().filter(|_| record.verdict != Verdict::Fail) {
                (record.verdict, record.reason, record.by) =
                    (Verdict::Fail, because(history, first), Some(By::Invariant));
            }
            (record.invariants, record.used) = (tallies, used);
            record.clauses = judgement.clauses.into_iter().chain(clauses).collect();
            true
        }
        Err(error) => {
            record.reason = format!("{error:#}");
            false
        }
    }
}

fn breaks(check_run: &CheckRun, records: &Records) -> Option<String> {
    let mut plan = check_run.plan.clone();
    plan.gateways.retain(|g| g.name == check_run.gateway.name);
    plan.checks = vec![check_run.planned.clone()];
    let baseline = match Baseline::find(&root().join("golden"), &check_run.gateway.name) {
        Ok(baseline) => baseline,
        Err(error) => return Some(error.to_string()),
    };
    let report = report::compile(&Inputs {
        plan: &plan,
        records,
        baselines: &[(check_run.gateway.name.clone(), baseline)].into(),
        histories: &|_| None,
        ending: Ending::Finished,
        now: jiff::Timestamp::now(),
        egress: None,
        notes: vec![],
    });
    let check = report.checks.first().filter(|c| c.breaks)?;
    let golden = check.golden.as_ref().and_then(|g| g.note.as_deref()).unwrap_or_default();
    Some(format!("{} is {}: {}\n{golden}", check.title(), check.verdict.word(), check.reason))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without words".to_owned())
}

/// The verdict of one attempt, and the line that says why: the first false clause, else the first unproven one.
fn summary(history: &History, judgement: &Judgement) -> (Verdict, String) {
    let first = |holds: Holds| {
        let clause = judgement.clauses.iter().find(|c| c.holds == holds);
        clause.map_or("nothing was judged".to_owned(), |clause| because(history, clause))
    };
    match judgement.holds() {
        Holds::Yes => (Verdict::Pass, format!("{} clauses hold", judgement.clauses.len())),
        Holds::No => (Verdict::Fail, first(Holds::No)),
        Holds::Unproven => (Verdict::Unproven, first(Holds::Unproven)),
    }
}

/// Why, with the first exchange that shows it.
fn because(history: &History, clause: &Clause) -> String {
    let Clause { name, expected, got, exchanges, .. } = clause;
    let all = || history.exchanges.iter().chain(&history.settle.exchanges);
    let first = exchanges.first().filter(|_| !clause.is_of_invariant()).and_then(|id| all().find(|e| e.id == *id));
    let shown = first.map_or(String::new(), |exchange| format!(" in {}", exchange.named()));
    format!("{name}: expected {expected}, got {got}{shown}")
}

/// One line for people, past the test runner's capture; the run's events keep it too.
fn say(check_run: &CheckRun, record: &Record, breaks: bool) {
    use std::io::Write;
    let golden = match record.golden {
        GoldenState::Changed => "  golden changed",
        GoldenState::Missing => "  no golden yet",
        GoldenState::Same | GoldenState::NotCompared => "",
    };
    let why = if record.verdict == Verdict::Pass { String::new() } else { format!("  {}", record.reason) };
    let mild = if breaks || record.verdict == Verdict::Pass { "" } else { "  (does not break the run)" };
    let (word, title, gateway) = (record.verdict.word(), record.key.title(), &record.key.gateway);
    let line = format!("{word:<9} {title} on {gateway} {:.1} s{golden}{why}{mild}", record.seconds);
    let line = verdict::render::inert(&line, 1_000, verdict::render::Lines::Joined);
    _ = writeln!(std::io::stderr(), "{line}"); // a closed terminal is no reason to stop
    let event = verdict::folder::Event {
        gateway: Some(record.key.gateway.clone()),
        check: Some(record.key.check.clone()),
        case: (record.key.case != "-").then(|| record.key.case.clone()),
        attempt: Some(record.key.attempt),
        verdict: Some(record.verdict),
        breaks: Some(breaks),
        seconds: Some(record.seconds),
        ..verdict::folder::Event::now("check", line)
    };
    _ = check_run.folder.append_event(&event);
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{CHECK, Drive, Judge, Live, budget, fake::Fake, stage::Bounds};
    use futures::future::LocalBoxFuture;

    fn crash(_: &mut Judge<'_>) {
        panic!("what is this?")
    }

    fn the_gateway_answers(judge: &mut Judge<'_>) {
        let status = judge.labelled("asked").first().and_then(|e| e.status());
        judge.clause("answer").expected("an answer").got(format!("{status:?}")).holds(status.is_some());
    }

    pub(crate) static ASKS: Check = Check {
        suite: "harness",
        name: "asks",
        sentence: "a gateway answers",
        source: "this test",
        live: Live::NotJudged,
        drive: |stage| {
            Box::pin(async {
                stage.lose_the_cluster();
                stage.send("asked", crate::Call::get("/")).await
            })
        },
        judge: the_gateway_answers,
        ..CHECK
    };
    inventory::submit! { crate::registry::Entry::at(&ASKS, file!(), line!()) }

    #[test]
    fn a_history_that_proves_nothing_never_passes() {
        let history = Fake::of("a/b").0;
        let judged = Check { live: Live::NotJudged, ..CHECK }.judged_safely(&history).unwrap();
        assert_eq!(summary(&history, &judged.0).0, Verdict::Unproven);
    }

    #[test]
    fn a_judge_that_panics_is_an_error() {
        let judged = Check { judge: crash, ..CHECK }.judged_safely(&Fake::of("a/b").0);
        assert_eq!(judged.unwrap_err().to_string(), "the judge panicked: what is this?");
    }

    async fn attempt(attempt: u32, drive: Drive) -> Record {
        let check_run = open::open(&ASKS.id(), "-", requirements).unwrap().remove(0).unwrap();
        Check { drive, ..ASKS }.attempt(&Arc::new(check_run), attempt, None).await.unwrap()
    }

    fn fails(_: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Err(anyhow!("no such thing")) })
    }

    fn panics(_: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { panic!("index out of bounds") })
    }

    #[rstest]
    #[case::fails(3, fails as Drive, "no such thing")]
    #[case::panics(4, panics as Drive, "the drive panicked: index out of bounds")]
    #[tokio::test]
    async fn a_drive_that_does_not_end_is_an_error(#[case] number: u32, #[case] drive: Drive, #[case] reason: &str) {
        let record = attempt(number, drive).await;
        assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Error, reason));
    }

    /// Though the check does not judge whether its configuration came to be live, and nothing else was driven.
    #[tokio::test]
    async fn a_drive_that_gives_up_is_a_failure_of_the_gateway() {
        let record =
            attempt(5, |stage| Box::pin(async { Err(stage.give_up("100 answers without a mark".into())) })).await;
        assert_eq!(record.verdict, Verdict::Fail, "{}", record.reason);
        assert_eq!(record.reason, "live: expected the configuration becomes live, got 100 answers without a mark");
    }

    fn bounded(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            stage.bound(Bounds { requests: 3, ..Bounds::DRIVE });
            loop {
                stage.send("asked", crate::Call::get("/")).await?;
            }
        })
    }

    fn late(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            stage.bound(Bounds { seconds: 0.0, ..Bounds::DRIVE });
            stage.prepare(crate::Call::get("/")).await.map(drop)
        })
    }

    fn late_to_settle(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            stage.bound(Bounds { seconds: 0.0, ..Bounds::DRIVE });
            stage.settle_any(|| crate::Call::get("/")).await
        })
    }

    fn a_year(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            stage.set_window_end(31_536_000.0);
            stage.until_window_end(0.5).await
        })
    }

    fn for_ever(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            stage.set_window_end(u64::MAX as f64);
            stage.until_window_end(-5.0).await
        })
    }

    fn longer_than_declared(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            budget::not_absurd(stage, 120, 60)?;
            budget::not_absurd(stage, 121, 60)
        })
    }

    #[rstest]
    #[case::a_window_of_another_length(12, longer_than_declared as Drive, 0, "a window of 60 s that ends in 121 s: its end is not waited for")]
    #[case::requests(6, bounded as Drive, 3, "3 requests (at most 3) in ")]
    #[case::seconds(7, late as Drive, 0, "0 requests (at most 3000) in 0 s (at most 0 s), and the drive is not at its end: prepare would be next")]
    #[case::seconds_of_settling(8, late_to_settle as Drive, 0, "0 requests (at most 3000) in 0 s (at most 0 s), and the drive is not at its end: settle would be next")]
    #[case::a_window_that_ends_in_a_year(10, a_year as Drive, 0, "a window that ends in 31536000 s, and a drive ends after 900 s")]
    #[case::a_window_that_never_ends(11, for_ever as Drive, 0, "a window that ends in 18446744073709551616 s, and a drive ends after 900 s")]
    #[tokio::test]
    async fn a_drive_that_comes_to_its_bounds_is_a_failure_of_the_gateway(
        #[case] number: u32,
        #[case] drive: Drive,
        #[case] requests: u64,
        #[case] got: &str,
    ) {
        let record = attempt(number, drive).await;
        assert_eq!(record.verdict, Verdict::Fail, "{}", record.reason);
        let said = format!("live: expected the configuration becomes live, got {got}");
        assert!(record.reason.starts_with(&said), "{}", record.reason);
        assert_eq!(record.drive.map(|drive| drive.requests), Some(requests));
    }

    #[tokio::test]
    async fn a_cluster_that_dies_under_a_wait_is_an_error() {
        let record = attempt(1, |stage| {
            Box::pin(async {
                stage.lose_the_cluster();
                let never = cluster::api::ObjectRef::new("v1", "ConfigMap", stage.namespace(), "never");
                stage.see("never", &never, cluster::api::WaitCondition::Exists, 24 * 3600).await
            })
        })
        .await;
        assert_eq!(record.verdict, Verdict::Error, "{}", record.reason);
        assert!(record.reason.contains("nobody listens at http://127.0.0.1:"), "{}", record.reason);
    }

    #[tokio::test]
    async fn a_cluster_that_dies_under_requests_is_an_error_and_no_failure_of_the_gateway() {
        let record = attempt(2, ASKS.drive).await;
        assert_eq!(record.verdict, Verdict::Error, "{}", record.reason);
        assert!(record.reason.contains("the cluster does not answer any more"), "{}", record.reason);
        assert_eq!(record.clauses.first().map(|c| c.holds), Some(Holds::No), "alone it would be a failure");
    }

    #[test]
    fn the_first_false_clause_is_the_reason() {
        let clause = |name: &str, holds: Holds, expected: &str, got: &str| Clause {
            name: name.into(),
            holds,
            expected: expected.into(),
            got: got.into(),
            exchanges: vec![],
            subject: None,
        };
        let clauses = vec![
            clause("one", Holds::Yes, "a", "a"),
            clause("two", Holds::Unproven, "b", "nothing"),
            clause("three", Holds::No, "c", "d"),
        ];
        let history = Fake::of("a/b").model("alpha").answered("asked", 503, "alpha").0;
        let mut clauses = clauses;
        clauses[2].exchanges.push(history.exchanges[0].id.clone());
        let (verdict, reason) = summary(&history, &Judgement { clauses });
        let shown = history.exchanges[0].named();
        assert_eq!((verdict, reason), (Verdict::Fail, format!("three: expected c, got d in {shown}")));
        assert!(shown.contains("(asked: POST /v1/chat/completions -> 503)"), "{shown}");
    }
}
