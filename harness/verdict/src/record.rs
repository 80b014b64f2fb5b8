//! Records: one file per attempt, written once and never changed.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    history::Key,
    invariant::{Invariant, Tally},
    judge::Clause,
};

pub const RECORD_SCHEMA: &str = "igc.record/v1";

/// What became of a check (design section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Judged true on the first try.
    Pass,
    /// Judged false.
    Fail,
    /// False, then true on a retry.
    Flaky,
    /// The gateway's folder declares that it lacks the capability.
    Unsupported,
    /// Declared supported, but the evidence to judge is missing.
    Unproven,
    /// Left out by the plan.
    NotRun,
    /// The harness, the cluster or the install failed, or no record exists.
    Error,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Flaky => "flaky",
            Verdict::Unsupported => "unsupported",
            Verdict::Unproven => "unproven",
            Verdict::NotRun => "not-run",
            Verdict::Error => "error",
        }
    }
}

/// How an observation compares with the golden file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoldenState {
    /// Equal.
    Same,
    /// Different: a regression, or a change to review.
    Changed,
    /// There is no golden file yet.
    Missing,
    /// The golden is of another version or model, or there was nothing to observe.
    NotCompared,
}

/// What a check fails by, where not by a clause of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// By what must hold of every exchange: the fault has a row of its own, `invariant/NAME`.
    Invariant,
}

/// One attempt at a check, as its test wrote it. The verdict is of this attempt alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub schema: String,
    pub key: Key,
    /// `Pass`, `Fail`, `Unproven` or `Error`.
    pub verdict: Verdict,
    /// Why, in one line; for a pass, what showed it.
    pub reason: String,
    pub clauses: Vec<Clause>,
    /// What makes it a `fail`, where no clause of the check's own does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// How many of its exchanges each invariant was judged for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub invariants: BTreeMap<Invariant, Tally>,
    /// Declared changes that explained a difference.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub used: BTreeSet<String>,
    pub golden: GoldenState,
    /// For `changed` the difference as a text, for `not-compared` the reason.
    pub golden_note: Option<String>,
    /// RFC 3339 in UTC.
    pub started: String,
    /// Seconds from the opening of the stage to the judgement.
    pub seconds: f64,
    /// Seconds of these that the configuration took to be live.
    pub settle_seconds: f64,
    /// How far its drive went, and its bounds. Earlier programs did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drive: Option<Drive>,
    /// `host:port` that the client connected to.
    pub address: Option<String>,
    /// What was wrong on purpose, where the attempt tried the check itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

impl Record {
    /// Of an attempt of which nothing is known yet: an error.
    pub fn new(key: Key) -> Self {
        Self {
            schema: RECORD_SCHEMA.into(),
            key,
            verdict: Verdict::Error,
            reason: String::new(),
            clauses: vec![],
            by: None,
            invariants: BTreeMap::new(),
            used: BTreeSet::new(),
            golden: GoldenState::NotCompared,
            golden_note: Some("nothing was observed".into()),
            started: jiff::Timestamp::now().to_string(),
            seconds: 0.0,
            settle_seconds: 0.0,
            drive: None,
            address: None,
            trial: None,
        }
    }
}

/// What a drive took of what it may take. One that comes to a bound ends there, and the judge says what was missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Requests that were sent, those that settle and prepare included.
    pub requests: u64,
    pub most_requests: u64,
    /// Those by which a rehearsal moves its clock take none.
    pub seconds: f64,
    pub most_seconds: f64,
}

/// The world of an attempt that tries the check and not a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    pub mutant: Option<String>,
    /// Whether the gateway was rid of its known faults.
    pub mended: bool,
    pub reached: bool,
}

#[cfg(test)]
pub(crate) mod tests_support {
    //! Records for tests of other rooms.

    use super::*;
    use crate::judge::Holds;

    pub(crate) fn clause(name: &str, holds: Holds) -> Clause {
        Clause {
            name: name.into(),
            holds,
            expected: "status 404".into(),
            got: "status 200".into(),
            exchanges: vec!["x-1".into()],
            subject: None,
        }
    }

    pub(crate) fn record(key: Key, verdict: Verdict) -> Record {
        let holds = match verdict {
            Verdict::Pass => Holds::Yes,
            Verdict::Fail => Holds::No,
            _ => Holds::Unproven,
        };
        Record {
            verdict,
            reason: "because".into(),
            clauses: if verdict == Verdict::Error { vec![] } else { vec![clause("wrong-host-is-404", holds)] },
            golden: GoldenState::Same,
            golden_note: None,
            started: "2026-11-21T12:03:06Z".into(),
            seconds: 1.5,
            settle_seconds: 0.5,
            address: Some("127.0.0.1:30080".into()),
            ..Record::new(key)
        }
    }
}
