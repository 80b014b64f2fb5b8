//! A check: drives a stage, judges its history, compares the observation with the golden, and always leaves a record.

use std::{
    panic::AssertUnwindSafe,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use futures::FutureExt;
use serde_json::Value;
use verdict::{
    baseline::Baseline,
    folder::Records,
    golden,
    history::{History, Key},
    judge::{Holds, Judge, Judgement},
    observation,
    record::{GoldenState, RECORD_SCHEMA, Record, Trial, Verdict},
    report::{self, Ending, Inputs},
};

use crate::{
    Stage,
    open::{self, Opened, gateway_of, root},
    replay::Replay,
};

/// Seconds that one drive may take; minutes of it are waits for windows and pods.
const DRIVE: Duration = Duration::from_secs(900);

/// A check of one gateway.
pub struct Check {
    id: &'static str,
    case: &'static str,
    gateway: String,
    observe: fn(&History) -> Value,
}

/// The check of this id and case, for the gateway whose `gateway.yaml` this is.
pub fn check(id: &'static str, case: &'static str, gateway: &Path) -> Check {
    Check { id, case, gateway: gateway_of(gateway), observe: observation::observe }
}

impl Check {
    /// With an observation of its own.
    pub fn observing(self, observe: fn(&History) -> Value) -> Self {
        Self { observe, ..self }
    }

    /// Runs it, if the run's plan has it.
    ///
    /// # Panics
    /// When the record breaks the run, after it was written: that is how the test runner hears of it.
    pub async fn run(self, drive: impl AsyncFn(&mut Stage) -> Result<()>, judge: Judge) {
        match Replay::of_the_environment() {
            Ok(Some(replay)) => {
                return self.judge_again(&replay, judge).unwrap_or_else(|error| panic!("{}: {error:#}", self.id));
            }
            Ok(None) => {}
            Err(error) => panic!("{}: {error:#}", self.id),
        }
        let opened = match open::open(self.id, self.case, &self.gateway) {
            Ok(Some(opened)) => Arc::new(opened),
            Ok(None) => return,
            Err(error) => panic!("{}: {error:#}", self.id),
        };
        if !opened.plan.run.trials.is_empty() {
            return self.be_tried(&opened, &drive, judge).await;
        }
        let tries = if opened.planned.counts_every_answer { 1 } else { opened.plan.run.retries + 1 };
        let mut records = Records::default();
        for attempt in 1..=tries {
            let record = self.attempt(&opened, attempt, None, &drive, judge).await;
            if let Err(error) = opened.folder.write_record(&record) {
                panic!("{}: {error}", record.key.title());
            }
            let last = record.verdict == Verdict::Pass || attempt == tries;
            records.records.push(record.clone());
            let why = if last { breaks(&opened, &records) } else { None };
            say(&opened, &record, why.is_some());
            if let Some(why) = why {
                panic!("{why}");
            }
            if last {
                break;
            }
        }
    }

    /// Judges what was kept of this check again, and writes a record of each.
    fn judge_again(&self, replay: &Replay, judge: Judge) -> Result<()> {
        for history in replay.histories(&self.gateway, self.id, self.case)? {
            let (key, judged) = match history {
                Ok(history) => (history.key.clone(), judged(Ok(Ok(Ok(()))), judge, &history)),
                Err((key, why)) => (key, Err(anyhow!(why))),
            };
            let mut record = blank(key);
            take_in(&mut record, judged);
            replay.into.write_record(&record)?;
        }
        Ok(())
    }

    /// Tries the check itself: on the gateway as it is, mended where it fails there, and then on each mutant of it.
    async fn be_tried(&self, opened: &Arc<Opened>, drive: &impl AsyncFn(&mut Stage) -> Result<()>, judge: Judge) {
        let mut attempts = 0;
        let mut attempt = async |trial: Trial| {
            attempts += 1;
            let record = self.attempt(opened, attempts, Some(trial), drive, judge).await;
            if let Err(error) = opened.folder.write_record(&record) {
                panic!("{}: {error}", record.key.title());
            }
            record.verdict == Verdict::Pass
        };
        let mut mended = false;
        if !attempt(Trial::default()).await {
            mended = true;
            if !attempt(Trial { mended, ..Trial::default() }).await {
                return; // whatever is wrong with the gateway, this check does not show it
            }
        }
        for mutant in opened.trials() {
            attempt(Trial { mutant: Some(mutant.clone()), mended, reached: false }).await;
        }
    }

    async fn attempt(
        &self,
        opened: &Arc<Opened>,
        attempt: u32,
        trial: Option<Trial>,
        drive: &impl AsyncFn(&mut Stage) -> Result<()>,
        judge: Judge,
    ) -> Record {
        let begun = Instant::now();
        let key = Key { gateway: self.gateway.clone(), check: self.id.into(), case: self.case.into(), attempt };
        let mut record = blank(key.clone());
        record.trial.clone_from(&trial);
        match Stage::open(Arc::clone(opened), key.clone(), trial).await {
            Err(error) => record.reason = format!("the stage could not be opened: {error:#}"),
            Ok(mut stage) => {
                let driven = AssertUnwindSafe(tokio::time::timeout(DRIVE, drive(&mut stage))).catch_unwind().await;
                stage.salvage().await;
                if let Some(trial) = &mut record.trial {
                    trial.reached = stage.reached_mutant();
                }
                // What is judged is what was written, so that a replay judges the same.
                match opened.folder.write_history(stage.history()) {
                    Ok(history) => {
                        let judged = match stage.void() {
                            Some(why) => Err(anyhow!("void: {why}; not judged")),
                            None => judged(driven, judge, &history),
                        };
                        self.fill(&mut record, opened, &stage, &history, judged).await;
                    }
                    Err(error) => record.reason = error.to_string(),
                }
                if record.verdict == Verdict::Pass || !opened.stood.keep {
                    stage.close().await;
                }
            }
        }
        record.seconds = begun.elapsed().as_secs_f64();
        record
    }

    async fn fill(
        &self,
        record: &mut Record,
        opened: &Opened,
        stage: &Stage,
        history: &History,
        judged: Result<Judgement>,
    ) {
        record.settle_seconds = history.settle.seconds;
        record.address.clone_from(&history.address);
        if take_in(record, judged) {
            match self.compare(opened, history) {
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
        match opened.folder.evidence_dir(&record.key) {
            Ok(folder) => {
                cluster::evidence::collect(stage.cluster(), &history.namespace, &folder, &evidence_depth(record)).await
            }
            Err(error) => record.reason = format!("{}; {error}", record.reason),
        }
    }

    /// Compares with the golden; what differs or is missing becomes a pending file in the run folder.
    fn compare(&self, opened: &Opened, history: &History) -> Result<(GoldenState, Option<String>)> {
        let gateway = opened.plan.gateways.iter().find(|g| g.name == self.gateway);
        let gateway = gateway.ok_or_else(|| anyhow!("the plan does not have gateway {}", self.gateway))?;
        let observation = (self.observe)(history);
        let (goldens, run, folder) = (root().join("golden"), &opened.plan.run, &opened.folder);
        Ok(golden::judge_observation(&goldens, folder, run, gateway, &opened.planned, observation)?)
    }
}

/// A record of which nothing is known yet.
fn blank(key: Key) -> Record {
    Record {
        schema: RECORD_SCHEMA.into(),
        key,
        verdict: Verdict::Error,
        reason: String::new(),
        clauses: vec![],
        golden: GoldenState::NotCompared,
        golden_note: Some("nothing was observed".into()),
        started: jiff::Timestamp::now().to_string(),
        seconds: 0.0,
        settle_seconds: 0.0,
        address: None,
        trial: None,
    }
}

/// Writes down what the judge said; `false` where it came to say nothing.
fn take_in(record: &mut Record, judged: Result<Judgement>) -> bool {
    match judged {
        Ok(judgement) => {
            (record.verdict, record.reason) = summary(&judgement);
            record.clauses = judgement.clauses;
            true
        }
        Err(error) => {
            record.reason = format!("{error:#}");
            false
        }
    }
}

/// Why the records of this check break the run, known failures considered: as the report of the run will say it.
fn breaks(opened: &Opened, records: &Records) -> Option<String> {
    let mut plan = opened.plan.clone();
    plan.gateways.retain(|g| g.name == opened.gateway.name);
    plan.checks = vec![opened.planned.clone()];
    let baseline = match Baseline::find(&root().join("golden"), &opened.gateway.name) {
        Ok(baseline) => baseline,
        Err(error) => return Some(error.to_string()),
    };
    let report = report::compile(&Inputs {
        plan: &plan,
        records,
        baselines: &[(opened.gateway.name.clone(), baseline)].into(),
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

fn evidence_depth(record: &Record) -> cluster::evidence::Depth {
    if record.verdict == Verdict::Pass {
        cluster::evidence::Depth::Objects
    } else {
        cluster::evidence::Depth::ObjectsAndLogs
    }
}

type Driven =
    std::result::Result<std::result::Result<Result<()>, tokio::time::error::Elapsed>, Box<dyn std::any::Any + Send>>;

/// What the judge says of a drive that went to its end; an error of the harness or the cluster otherwise.
fn judged(driven: Driven, judge: Judge, history: &History) -> Result<Judgement> {
    match driven {
        Err(panic) => return Err(anyhow!("the drive panicked: {}", words(&*panic))),
        Ok(Err(_)) => return Err(anyhow!("the drive took longer than {} s", DRIVE.as_secs())),
        Ok(Ok(Err(error))) => return Err(error),
        Ok(Ok(Ok(()))) => {}
    }
    std::panic::catch_unwind(AssertUnwindSafe(|| judge(history)))
        .map_err(|panic| anyhow!("the judge panicked: {}", words(&*panic)))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without words".to_owned())
}

/// The verdict of one attempt, and the line that says why: the first false clause, else the first unproven one.
fn summary(judgement: &Judgement) -> (Verdict, String) {
    let first = |holds: Holds| judgement.clauses.iter().find(|c| c.holds == holds);
    let because = |clause: Option<&verdict::judge::Clause>| {
        clause
            .map_or("nothing was judged".to_owned(), |c| format!("{}: expected {}, got {}", c.name, c.expected, c.got))
    };
    match judgement.holds() {
        Holds::Yes => (Verdict::Pass, format!("{} clauses hold", judgement.clauses.len())),
        Holds::No => (Verdict::Fail, because(first(Holds::No))),
        Holds::Unproven => (Verdict::Unproven, because(first(Holds::Unproven))),
    }
}

/// One line for people, past the test runner's capture; the run's events keep it too.
fn say(opened: &Opened, record: &Record, breaks: bool) {
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
    let line = verdict::render::inert(&line, 400, verdict::render::Lines::Joined);
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
    _ = opened.folder.append_event(&event);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fake::Fake;

    fn empty(_: &History) -> Judgement {
        Judgement::new()
    }

    fn crash(_: &History) -> Judgement {
        panic!("what is this?")
    }

    #[test]
    fn a_history_that_proves_nothing_never_passes() {
        let judged = judged(Ok(Ok(Ok(()))), empty, &Fake::of("a/b").0).unwrap();
        assert_eq!(summary(&judged).0, Verdict::Unproven);
    }

    #[rstest]
    #[case::drive_failed(Ok(Ok(Err(anyhow!("the cluster is gone")))), empty as Judge, "the cluster is gone")]
    #[case::drive_panicked(Err(Box::new("index out of bounds") as Box<dyn std::any::Any + Send>), empty as Judge, "the drive panicked: index out of bounds")]
    #[case::judge_panicked(Ok(Ok(Ok(()))), crash as Judge, "the judge panicked: what is this?")]
    fn crashes_are_errors(#[case] driven: Driven, #[case] judge: Judge, #[case] reason: &str) {
        assert_eq!(judged(driven, judge, &Fake::of("a/b").0).unwrap_err().to_string(), reason);
    }

    fn the_gateway_answers(history: &History) -> Judgement {
        let mut judgement = Judgement::new();
        let status = history.labelled("asked").next().and_then(|e| e.status());
        judgement.that("answer", status.is_some(), "an answer", format!("{status:?}"), []);
        judgement
    }

    /// One attempt at a check whose cluster dies in the middle of the drive.
    async fn attempt_on_a_dying_cluster(attempt: u32, drive: impl AsyncFn(&mut Stage) -> Result<()>) -> Record {
        let gateway = cluster::gateway::names(&root().join("manifests/gateways")).unwrap().remove(0);
        let check = check("routing/host", "-", &Path::new(&gateway).join("gateway.yaml"));
        let opened = open::open(check.id, check.case, &gateway).unwrap().unwrap();
        check.attempt(&Arc::new(opened), attempt, None, &drive, the_gateway_answers).await
    }

    #[tokio::test]
    async fn a_cluster_that_dies_under_a_wait_is_an_error() {
        let record = attempt_on_a_dying_cluster(1, async |stage: &mut Stage| {
            stage.lose_the_cluster();
            let never = cluster::api::ObjectRef::new("v1", "ConfigMap", stage.namespace(), "never");
            stage.see("never", &never, cluster::api::Until::Exists, 24 * 3600).await.map(drop)
        })
        .await;
        assert_eq!(record.verdict, Verdict::Error, "{}", record.reason);
        assert!(record.reason.contains("nobody listens at http://127.0.0.1:"), "{}", record.reason);
    }

    #[tokio::test]
    async fn a_cluster_that_dies_under_requests_is_an_error_and_no_failure_of_the_gateway() {
        let record = attempt_on_a_dying_cluster(2, async |stage: &mut Stage| {
            stage.lose_the_cluster();
            stage.send("asked", crate::Call::get("/")).await;
            Ok(())
        })
        .await;
        assert_eq!(record.verdict, Verdict::Error, "{}", record.reason);
        assert!(record.reason.contains("the cluster does not answer any more"), "{}", record.reason);
        assert_eq!(record.clauses.first().map(|c| c.holds), Some(Holds::No), "alone it would be a failure");
    }

    #[test]
    fn the_first_false_clause_is_the_reason() {
        let mut judgement = Judgement::new();
        judgement.that("one", true, "a", "a", []).unproven("two", "b", "nothing").that("three", false, "c", "d", []);
        assert_eq!(summary(&judgement), (Verdict::Fail, "three: expected c, got d".into()));
    }
}
