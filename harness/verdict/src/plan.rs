//! Plan: which checks a run will execute on which gateways, and why the others are left out.

use std::{collections::BTreeMap, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    change::{Answer, Change},
    names,
};

mod build;
mod filter;

pub use build::{PlanError, build};
pub use filter::{Filter, FilterError};

pub const PLAN_SCHEMA: &str = "igc.plan/v1";

/// The model of a run that names none: the one that the guides use.
pub const USUAL_MODEL: &str = "llm-d-sim";

/// Where a run happens (design section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Place")]
pub enum PlaceName {
    /// The embedded stand-in: nothing but the harness itself is real.
    Rehearsal,
    /// A gateway's data plane from its image.
    Container,
    /// A kind cluster of our own.
    Kind,
    /// A cluster that is there.
    Context,
}

impl PlaceName {
    pub fn word(self) -> &'static str {
        match self {
            PlaceName::Rehearsal => "rehearsal",
            PlaceName::Container => "container",
            PlaceName::Kind => "kind",
            PlaceName::Context => "context",
        }
    }

    pub fn is_real(self) -> bool {
        self != PlaceName::Rehearsal
    }
}

/// How much a false check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// False is a failure.
    Must,
    /// False is a failure that breaks the run only with `--strict`.
    Should,
    /// A finding, never a failure.
    Info,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::Info => "INFO",
        }
    }
}

/// What serves tokens: the name of a file of `manifests/models`, which says all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct ModelName(String);

impl ModelName {
    /// As the command line and files write it.
    pub fn word(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let refused = || format!("{name:?} is no model's name: it is lower-case words joined by dashes");
        names::is_kebab(name).then(|| Self(name.to_owned())).ok_or_else(refused)
    }
}

impl TryFrom<String> for ModelName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclusive {
    /// Anything: hostnames and namespaces keep checks apart.
    #[default]
    Shared,
    Gateway,
    Cluster,
}

/// One part of a run that several machines share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which, counted from 1.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("it is written K/N with K from 1 to N, for example 2/3".to_owned()),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// `plan.json` of a run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub schema: String,
    pub run: RunInfo,
    pub gateways: Vec<GatewayPlan>,
    pub checks: Vec<PlannedCheck>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// Name of the run folder, for example `20261121-120305-k3f9`.
    pub id: String,
    /// Start, RFC 3339 in UTC.
    pub started: String,
    pub place: PlaceName,
    pub context: Option<String>,
    pub profile: String,
    /// `--set`: component -> version.
    pub set: BTreeMap<String, String>,
    pub model: ModelName,
    /// `--suite` and `--check` as they were given; empty means all.
    pub suites: Vec<String>,
    pub checks: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// `--strict`: a false SHOULD breaks the run.
    pub strict: bool,
    pub retries: u32,
    pub jobs: u32,
    /// `CI` is set: a missing golden breaks the run.
    pub ci: bool,
    pub allow_empty: bool,
    pub command: Vec<String>,
    /// `--declare`: the file of changes that the installation makes, beyond the gateways' folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declare: Option<String>,
    /// `--model` was given by hand: it serves the token suites too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub model_by_hand: bool,
    /// Mutants that checks are tried on; without any a run tries gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trials>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl RunInfo {
    /// A rehearsal of everything in the versions of a profile, by a command that has no such options.
    pub fn rehearsal(profile: &str, command: &[&str]) -> Self {
        Self {
            id: String::new(),
            started: jiff::Timestamp::now().to_string(),
            place: PlaceName::Rehearsal,
            context: None,
            profile: profile.to_owned(),
            set: BTreeMap::new(),
            model: ModelName(USUAL_MODEL.to_owned()),
            suites: vec![],
            checks: vec![],
            shard: None,
            strict: false,
            retries: 0,
            jobs: 1,
            ci: false,
            allow_empty: true,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            declare: None,
            model_by_hand: false,
            trials: vec![],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trials {
    pub gateway: String,
    pub check: String,
    pub case: String,
    pub mutants: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayPlan {
    pub name: String,
    /// Component -> version.
    pub versions: BTreeMap<String, String>,
    /// The component whose version is the gateway's own (golden and baseline go by its minor version).
    pub version_of: String,
    /// Capability -> declared parameters; absent means unsupported.
    pub capabilities: BTreeMap<String, BTreeMap<String, Value>>,
    /// Capability -> why the gateway lacks it, with the source; absent gives a general reason.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
    /// What it changes of requests and replies; with `--declare` also what stands around it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What it answers itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Capability -> what it wants installed and is not to be had here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// Components that are stand-ins on this place, with what they stand in for.
    pub stand_ins: Vec<String>,
    /// Why it cannot stand in this place: then none of its checks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedCheck {
    pub gateway: String,
    pub check: String,
    pub case: String,
    pub level: Level,
    pub sentence: String,
    pub source: String,
    pub capability: Option<String>,
    pub model: ModelName,
    /// Retries are never allowed: every answer counts.
    pub counts_every_answer: bool,
    pub exclusive: Exclusive,
    pub disposition: Disposition,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Disposition {
    /// It is; a missing record is an error.
    Run,
    Unsupported {
        reason: String,
    },
    NotRun {
        reason: String,
        /// Whether a filter of the command line is the reason.
        filtered: bool,
    },
}

impl PlannedCheck {
    pub fn key(&self, attempt: u32) -> crate::history::Key {
        crate::history::Key {
            gateway: self.gateway.clone(),
            check: self.check.clone(),
            case: self.case.clone(),
            attempt,
        }
    }

    pub fn title(&self) -> String {
        self.key(1).title()
    }

    pub fn suite(&self) -> &str {
        self.check.split('/').next().unwrap_or_default()
    }

    pub fn runs(&self) -> bool {
        self.disposition == Disposition::Run
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Shard;

    #[rstest]
    #[case::first("1/3", true)]
    #[case::last("3/3", true)]
    #[case::counted_from_zero("0/3", false)]
    #[case::beyond("4/3", false)]
    #[case::no_parts("0/0", false)]
    #[case::one_number("2", false)]
    #[case::words("a/b", false)]
    fn parts_of_a_run(#[case] text: &str, #[case] good: bool) {
        assert_eq!(text.parse::<Shard>().map(|s| s.to_string()).ok(), good.then(|| text.to_owned()));
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    //! A small plan for tests of other rooms.

    use super::*;
    pub(crate) use crate::plan::build::tests::{gateway, run_info};

    pub(crate) fn planned(check: &str, level: Level) -> PlannedCheck {
        PlannedCheck {
            gateway: "gw".into(),
            check: check.into(),
            case: "-".into(),
            level,
            sentence: format!("{check} holds"),
            source: "a specification".into(),
            capability: None,
            model: "echo".parse().unwrap(),
            counts_every_answer: false,
            exclusive: Exclusive::Shared,
            disposition: Disposition::Run,
        }
    }

    pub(crate) fn small_plan() -> Plan {
        Plan {
            schema: PLAN_SCHEMA.into(),
            run: run_info(),
            gateways: vec![gateway("gw")],
            checks: vec![planned("routing/host", Level::Must)],
        }
    }
}
