//! Report: what a run says of its gateways; made from plan, records and baseline alone, so it can be made again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, Expect};
use crate::folder::{FolderError, Records, RunFolder};
use crate::history::{History, Key};
use crate::plan::{Level, ModelName, PlaceName, Plan, Shard};
use crate::record::{By, GoldenState, Verdict};
use crate::{invariant::Tally, judge::Holds, renamed::NAMES};

mod attempts;
mod compile;
mod ending;
mod invariants;
mod known;
mod merge;
mod repeat;
mod schema;

pub use compile::compile;
pub use merge::{Expected, MergeError, Merged, merge};
pub use repeat::repeat_command;
pub use schema::schema;

pub const REPORT_SCHEMA: &str = "igc.report/v1";

pub struct Inputs<'a> {
    pub plan: &'a Plan,
    pub records: &'a Records,
    pub baselines: &'a BTreeMap<String, Baseline>,
    /// Gives the history of an attempt; asked only for what did not pass.
    pub histories: &'a dyn Fn(&Key) -> Option<History>,
    pub ending: Ending,
    /// The end of the run; expiry of baseline entries goes by its date in UTC.
    pub now: Timestamp,
    /// What is known of the way out of the cluster's network, for example `closed`, `not closed`, `open`.
    pub egress: Option<String>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Finished,
    Interrupted,
    Broken(String),
}

/// `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `igc.report/v1`.
    pub schema: String,
    pub run: RunReport,
    /// In the order in which they ran.
    pub gateways: Vec<GatewayReport>,
    /// In the order of the plan.
    pub checks: Vec<CheckReport>,
    pub totals: Totals,
    /// Why the exit code is not 0, each with its count; empty where it is.
    pub breaks: Vec<String>,
    /// Files and records that do not fit the plan; each is an error of the harness.
    pub problems: Vec<String>,
    /// Baseline entries that this run covers.
    pub baseline: Vec<KnownReport>,
}

/// The one word for a run or a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The plan was complete and every MUST passed.
    Conformant,
    /// The plan was complete and a MUST did not hold.
    Nonconformant,
    /// The plan was filtered or not all of it could be judged.
    Partial,
    /// Nothing but the harness was real.
    Rehearsed,
}

impl Word {
    pub fn word(self) -> &'static str {
        match self {
            Word::Conformant => "conformant",
            Word::Nonconformant => "nonconformant",
            Word::Partial => "partial",
            Word::Rehearsed => "rehearsed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    pub id: String,
    pub place: PlaceName,
    /// The worst of the gateways' words.
    pub word: Word,
    /// What the word means here, in one sentence.
    pub statement: String,
    /// `--profile`; of merged runs all of them.
    pub profile: String,
    /// RFC 3339 in UTC.
    pub started: String,
    /// From the start to the report.
    pub seconds: f64,
    /// Exit code: 0 held, 1 failures, 3 environment or harness error, 130 interrupted.
    pub exit: u8,
    /// `--model`; of merged runs all of them.
    pub models: Vec<ModelName>,
    pub context: Option<String>,
    /// `--shard`: only this part of the checks was planned.
    pub shard: Option<Shard>,
    pub strict: bool,
    pub interrupted: bool,
    pub error: Option<String>,
    /// What is known of the way out of the cluster's network.
    pub egress: Option<String>,
    pub notes: Vec<String>,
    pub command: Vec<String>,
}

/// One gateway; where runs were merged, one gateway under the circumstances that tell it apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayReport {
    /// What its checks call it: the folder's name; of merged runs with what tells it apart, for example the profile.
    pub name: String,
    /// Folder name under `manifests/gateways`.
    pub gateway: String,
    pub profile: String,
    pub model: ModelName,
    pub context: Option<String>,
    pub runs: Vec<String>,
    /// Component -> version.
    pub versions: BTreeMap<String, String>,
    pub word: Word,
    pub totals: Totals,
    /// Components that are stand-ins, to be named beside the word.
    pub stand_ins: Vec<String>,
}

/// Checks (cases counted one by one) per verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    pub pass: u64,
    pub fail: u64,
    pub flaky: u64,
    pub unsupported: u64,
    pub unproven: u64,
    pub not_run: u64,
    pub error: u64,
    /// Checks that fail by an invariant alone. They are no part of `fail`: the row of the invariant is.
    #[serde(default)]
    pub by_invariant: u64,
}

impl Totals {
    pub fn of<'c>(checks: impl IntoIterator<Item = &'c CheckReport>) -> Self {
        let mut totals = Self::default();
        for check in checks {
            *match check.verdict {
                Verdict::Fail if check.by == Some(By::Invariant) => &mut totals.by_invariant,
                Verdict::Pass => &mut totals.pass,
                Verdict::Fail => &mut totals.fail,
                Verdict::Flaky => &mut totals.flaky,
                Verdict::Unsupported => &mut totals.unsupported,
                Verdict::Unproven => &mut totals.unproven,
                Verdict::NotRun => &mut totals.not_run,
                Verdict::Error => &mut totals.error,
            } += 1;
        }
        totals
    }

    pub fn columns(&self) -> [(Verdict, u64); 7] {
        [
            (Verdict::Pass, self.pass),
            (Verdict::Fail, self.fail),
            (Verdict::Flaky, self.flaky),
            (Verdict::Unproven, self.unproven),
            (Verdict::Error, self.error),
            (Verdict::Unsupported, self.unsupported),
            (Verdict::NotRun, self.not_run),
        ]
    }
}

impl GatewayReport {
    pub fn version(&self) -> &str {
        self.versions.get(&self.gateway).map(String::as_str).unwrap_or_default()
    }
}

/// One check or case on one gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// `suite/name`.
    pub id: String,
    /// Name of the case, if it has any.
    pub case: Option<String>,
    /// The `name` of one of the report's gateways.
    pub gateway: String,
    pub level: Level,
    /// What became of it, all attempts together.
    pub verdict: Verdict,
    pub seconds: f64,
    /// Seconds of these that configurations took to be live.
    pub settle_seconds: f64,
    /// How many attempts left a record.
    pub attempts: u32,
    /// Why, in one line.
    pub reason: String,
    /// Folder of the evidence, relative to the run folder; absent where nothing was executed.
    pub evidence: Option<String>,
    pub sentence: String,
    pub source: String,
    /// The capability of the gateway that it is about, if any.
    pub capability: Option<String>,
    pub model: ModelName,
    /// Whether this alone makes the exit code other than 0.
    pub breaks: bool,
    /// What it fails by, where by no clause of its own. The fault then has a row of its own, and is counted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// In the row of an invariant: how many exchanges of all checks were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Tally>,
    /// For an INFO check that does not hold: what was found. Its verdict is then `pass`.
    pub finding: Option<String>,
    /// Whether a filter of the command line left it out.
    pub filtered: bool,
    /// How the observation of the last attempt compares.
    pub golden: Option<GoldenReport>,
    pub baseline: Option<KnownFailure>,
    /// What the judge said in the attempt that decided.
    pub clauses: Vec<ClauseReport>,
    pub tries: Vec<Try>,
    /// The command that runs it alone.
    pub repeat: String,
}

impl CheckReport {
    pub fn title(&self) -> String {
        self.case.as_ref().map_or_else(|| self.id.clone(), |case| format!("{}@{case}", self.id))
    }

    pub fn suite(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenReport {
    pub state: GoldenState,
    /// The difference, or why it was not compared.
    pub note: Option<String>,
}

/// A clause with the exchanges that show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClauseReport {
    pub name: String,
    pub holds: Holds,
    pub expected: String,
    pub got: String,
    /// Exchanges that show it, the first few; only for a clause that does not hold.
    pub exchanges: Vec<ShownExchange>,
}

/// An exchange as a person can repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownExchange {
    pub id: String,
    /// What the drive calls it.
    pub label: String,
    /// Status, or what failed.
    pub outcome: String,
    /// The command that sends it again.
    pub curl: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Try {
    /// Counts from 1.
    pub attempt: u32,
    pub verdict: Verdict,
    pub reason: String,
    /// From the opening of the stage to the judgement.
    pub seconds: f64,
    /// Folder of its evidence, relative to the run folder.
    pub evidence: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KnownFailure {
    pub reason: String,
    pub link: String,
    /// The last day on which it holds.
    pub expires: String,
    /// How often it is seen. What is seen sometimes has no one observation, so that none is demanded of it.
    #[serde(default)]
    pub expect: Expect,
}

/// What became of a baseline entry that the run covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KnownState {
    /// It explains what was seen, or may be seen again.
    Holds,
    /// The check passed: remove the entry. Breaks the run.
    Stale,
    /// Its last day has passed: look again. Breaks the run.
    Expired,
    /// The check was not judged in this run.
    NotJudged,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KnownReport {
    /// Folder name under `manifests/gateways`.
    pub gateway: String,
    /// `suite/name`.
    pub check: String,
    /// One case, where the entry names one.
    pub case: Option<String>,
    /// Line of `baseline.yaml`.
    pub line: u64,
    pub expect: Expect,
    pub state: KnownState,
    /// Attempts of this run that failed.
    pub failed: u64,
    /// Attempts of this run that were judged.
    pub judged: u64,
    pub reason: String,
    pub link: String,
    /// The last day on which it holds.
    pub expires: String,
}

impl Report {
    /// Reads `report.json` of a run's folder, with names as of today; nothing where the run left none.
    pub fn read(folder: &RunFolder) -> Result<Option<Self>, FolderError> {
        if !folder.path().join("report.json").exists() {
            return Ok(None);
        }
        let mut report: Self = folder.read_json("report.json")?;
        for check in &mut report.checks {
            NAMES.check(&mut check.id, &mut check.case);
            check.clauses.iter_mut().for_each(|clause| NAMES.clause(&check.id, &mut clause.name));
            check.capability.iter_mut().for_each(|name| NAMES.capability(name));
        }
        report.baseline.iter_mut().for_each(|known| NAMES.check(&mut known.check, &mut known.case));
        Ok(Some(report))
    }
}

#[cfg(test)]
mod runner_mutants;
#[cfg(test)]
pub(crate) mod tests;
