//! A check: one value that says what is required and how it is driven and judged.

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use serde_json::Value;
use verdict::{
    capability::Capability,
    change::Change,
    history::History,
    invariant::{self, Judged},
    judge::Judgement,
    observation,
    plan::{Exclusive, Level, PlaceName},
};

use crate::{Stage, judge::Judge};

/// What is done to a stage, as [`check!`](crate::check) makes it of an `async fn(&mut Stage) -> Result<()>`.
pub type Drive = for<'s> fn(&'s mut Stage) -> LocalBoxFuture<'s, Result<()>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    Judged,
    /// The drive settles nothing, or whether it did is no matter.
    NotJudged,
}

#[derive(Debug)]
pub struct Check {
    pub suite: &'static str,
    pub name: &'static str,
    /// Its cases, in snake case; none where there is but one.
    pub cases: &'static [&'static str],
    pub level: Level,
    /// What must hold, in one sentence.
    pub sentence: &'static str,
    pub source: &'static str,
    /// How it is driven and judged, in a sentence or two: what is sent or changed, and what is looked at.
    pub how: &'static str,
    /// The capability of the gateway that it needs, whose parameters drive and judge read.
    pub capability: Option<&'static Capability>,
    /// Capabilities that single cases need besides: (case in snake case, capability).
    pub case_capabilities: &'static [(&'static str, &'static Capability)],
    /// The model that serves; `None` for that of the run.
    pub model: Option<&'static str>,
    /// The model that serves in its place where the run's was not given by hand.
    pub usual_model: Option<&'static str>,
    pub kills: &'static [&'static str],
    /// The gateways that it is about; none for all.
    pub gateways: &'static [&'static str],
    pub exclusive: Exclusive,
    /// Retries are never allowed.
    pub counts_every_answer: bool,
    pub not_on: &'static [(PlaceName, &'static str)],
    /// Models that it cannot be run with, with the reason.
    pub not_with: &'static [(&'static str, &'static str)],
    /// Components that it is a statement about: where they are stand-ins it is not run.
    pub about: &'static [&'static str],
    /// What its own sentence is about, so that it is no invariant's: changes of requests and replies that its routes make.
    pub changes: fn() -> Vec<Change>,
    /// Its budgets are others than one of tokens, so that their marks are judged by itself alone.
    pub unmetered: bool,
    pub live: Live,
    pub drive: Drive,
    pub judge: fn(&mut Judge<'_>),
    /// What a golden keeps of the history.
    pub observe: fn(&History) -> Value,
}

pub const CHECK: Check = Check {
    suite: "",
    name: "",
    cases: &[],
    level: Level::Must,
    sentence: "",
    source: "",
    how: "",
    capability: None,
    case_capabilities: &[],
    model: Some("echo"),
    usual_model: None,
    kills: &[],
    gateways: &[],
    exclusive: Exclusive::Shared,
    counts_every_answer: false,
    not_on: &[],
    not_with: &[],
    about: &[],
    changes: Vec::new,
    unmetered: false,
    live: Live::Judged,
    drive: |_| Box::pin(async { Err(anyhow!("the check has no drive")) }),
    judge: |_| {},
    observe: observation::observe,
};

/// Declares a check: the test of each of its cases, and its entry in the registry.
#[macro_export]
macro_rules! check {
    ($suite:ident / $name:ident, $drive:expr, $judge:expr, $check:expr $(,)?) => {
        #[::rstest::rstest]
        #[::tokio::test]
        async fn $name() {
            $crate::declared!($suite, $name, [], $drive, $judge, $check);
            DECLARED.run("-").await;
        }
    };
    ($suite:ident / $name:ident($($case:ident),+ $(,)?), $drive:expr, $judge:expr, $check:expr $(,)?) => {
        #[::rstest::rstest]
        $(#[case::$case(stringify!($case))])+
        #[::tokio::test]
        async fn $name(#[case] case: &str) {
            $crate::declared!($suite, $name, [$(stringify!($case)),+], $drive, $judge, $check);
            DECLARED.run(case).await;
        }
    };
}

/// The value of a check, in the registry.
#[doc(hidden)]
#[macro_export]
macro_rules! declared {
    ($suite:ident, $name:ident, $cases:expr, $drive:expr, $judge:expr, $check:expr) => {
        static DECLARED: $crate::Check = $crate::Check {
            suite: stringify!($suite),
            name: stringify!($name),
            cases: &$cases,
            drive: |stage| Box::pin($drive(stage)),
            judge: $judge,
            ..$check
        };
        $crate::inventory::submit! { $crate::registry::Entry::at(&DECLARED, file!(), line!()) }
    };
}

/// Lower-case words joined by dashes, of a Rust name.
pub(crate) fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

impl Check {
    pub fn id(&self) -> String {
        format!("{}/{}", dashed(self.suite), dashed(self.name))
    }

    pub fn judged(&self, history: &History) -> Judgement {
        let mut judge = Judge::of_changed(history, (self.changes)());
        if self.live == Live::Judged || history.settle.missing.is_some() {
            judge.live();
        }
        (self.judge)(&mut judge);
        judge.judgement()
    }

    /// What the invariants say of every exchange, but for what the check itself is about.
    pub fn invariants(&self, history: &History) -> Judged {
        invariant::judge(history, &(self.changes)(), !self.unmetered)
    }
}
