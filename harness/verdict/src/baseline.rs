//! Baseline: failures of a gateway that are known, each with a reason, a link and an expiry.

use std::path::{Path, PathBuf};

use jiff::civil::Date;
use schemars::JsonSchema;
use semver::VersionReq;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::file::{self, FileError};
use crate::invariant::{self, Invariant};
use crate::judge::{Clause, Holds};
use crate::plan::{GatewayPlan, PlaceName};
use crate::{names, record::Verdict, renamed::NAMES, version::lenient as lenient_version};

/// `golden/<gateway>/baseline.yaml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its line in the file, counted from 1.
    pub line: u64,
    /// `suite/name`.
    pub check: String,
    /// What a false invariant is about: `header x-a`, `field /model`, `body`, `status`, as its clause names it.
    pub subject: Option<String>,
    /// One case; absent means all of them.
    pub case: Option<String>,
    pub versions: Versions,
    /// Where it is seen; absent means on real gateways and in the rehearsal.
    pub place: Option<Reality>,
    pub expect: Expect,
    pub verdict: Known,
    pub reason: String,
    pub link: String,
    /// The last day on which it holds.
    pub expires: Date,
    /// The clauses that it explains; empty means any. A failure of another clause is not covered.
    pub clauses: Vec<String>,
}

/// Whether gateways are real where a failure is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reality {
    Real,
    Rehearsal,
}

impl Reality {
    pub fn of(place: PlaceName) -> Self {
        if place.is_real() { Reality::Real } else { Reality::Rehearsal }
    }
}

/// How often a known failure is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// In every run: the entry is stale once the check passes.
    #[default]
    Always,
    /// In some runs: the entry ends by its expiry alone.
    Sometimes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    #[default]
    Fail,
    Unproven,
}

/// A range of versions: `*` or comma-separated bounds such as `>=1.0, <1.2`; a leading `v` is fine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Versions {
    text: String,
    range: VersionReq,
}

impl TryFrom<String> for Versions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Versions> for String {
    fn from(versions: Versions) -> Self {
        versions.text
    }
}

impl Versions {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bounds: Vec<String> = text
            .split(',')
            .map(|bound| {
                let bound = bound.trim();
                let at = bound.find(|c: char| !matches!(c, '<' | '>' | '=' | '~' | '^' | ' ')).unwrap_or(bound.len());
                let (operator, version) = bound.split_at(at);
                format!("{operator}{}", version.trim_start_matches(['v', 'V']))
            })
            .collect();
        let range = VersionReq::parse(&bounds.join(", ")).map_err(|e| {
            format!("{text:?} is no range of versions ({e}); write for example \">=1.0, <1.2\" or \"*\"")
        })?;
        Ok(Self { text: text.to_owned(), range })
    }

    /// Whether the version lies in the range. A release candidate counts as its release; a version that is not
    /// numbers lies only in `*`.
    pub fn contain(&self, version: &str) -> bool {
        if self.range == VersionReq::STAR {
            return true;
        }
        lenient_version(version).is_some_and(|mut version| {
            version.pre = semver::Prerelease::EMPTY;
            self.range.matches(&version)
        })
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    entries: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    check: Spanned<String>,
    subject: Option<String>,
    case: Option<String>,
    versions: Spanned<String>,
    place: Option<Reality>,
    expect: Expect,
    #[serde(default)]
    verdict: Known,
    reason: String,
    link: String,
    expires: Spanned<String>,
    #[serde(default)]
    clause: Vec<String>,
}

impl Baseline {
    pub fn find(root: &Path, gateway: &str) -> Result<Self, FileError> {
        let path = root.join(gateway).join("baseline.yaml");
        match file::read_if_there(&path)? {
            Some(text) => Self::parse(&text, &path),
            None => Ok(Self { path, entries: Vec::new() }),
        }
    }

    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| FileError::shape(path, e))?;
        let accept =
            |written: Written| written.accept().map_err(|(line, problem)| FileError::entry(path, line, problem));
        let entries = file.entries.into_iter().map(accept).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), entries })
    }

    pub fn in_force<'b>(&'b self, gateway: &GatewayPlan, place: PlaceName) -> impl Iterator<Item = &'b Entry> {
        let version = gateway.versions.get(&gateway.version_of).cloned().unwrap_or_default();
        self.entries.iter().filter(move |e| e.is_seen_in(Reality::of(place)) && e.versions.contain(&version))
    }
}

impl Entry {
    pub fn is_seen_in(&self, reality: Reality) -> bool {
        self.place.is_none_or(|place| place == reality)
    }

    pub fn is_about(&self, check: &str, case: &str) -> bool {
        self.check == check && self.case.as_deref().is_none_or(|c| c == case)
    }

    /// Whether it is about this false invariant, in whichever check it was seen.
    pub fn is_of_invariant(&self, clause: &Clause) -> bool {
        self.check == clause.name && clause.holds == Holds::No && self.subject == clause.subject
    }

    pub fn has_expired(&self, today: Date) -> bool {
        today > self.expires
    }

    /// Whether it explains this verdict with these clauses. Expiry is apart.
    ///
    /// A flaky check is explained only by an entry that expects `sometimes`; an error never is.
    pub fn explains(&self, verdict: Verdict, clauses: &[Clause]) -> bool {
        let (known, holds) = match verdict {
            Verdict::Fail => (Known::Fail, Holds::No),
            Verdict::Flaky if self.expect == Expect::Sometimes => (Known::Fail, Holds::No),
            Verdict::Unproven => (Known::Unproven, Holds::Unproven),
            _ => return false,
        };
        let shown = || clauses.iter().filter(|c| c.holds == holds);
        self.verdict == known
            && (self.clauses.is_empty() || (shown().count() > 0 && shown().all(|c| self.clauses.contains(&c.name))))
    }
}

impl Written {
    fn accept(self) -> Result<Entry, (u64, String)> {
        let line = self.check.referenced.line();
        let check = self.check.value;
        if !names::is_check_id(&check) {
            return Err((line, format!("{check:?} is not suite/name in lower-case words joined by dashes")));
        }
        match (check.starts_with(invariant::PREFIX), &self.subject) {
            (true, _) if Invariant::of_id(&check).is_none() => {
                let names = Invariant::ALL.map(Invariant::id);
                return Err((line, format!("{check} is no invariant; there are {}", names.join(", "))));
            }
            (true, None) => {
                let problem =
                    format!("the entry of {check} has no subject; name one, for example `subject: header x-a`");
                return Err((line, problem));
            }
            (true, Some(_)) if self.case.is_some() || !self.clause.is_empty() || self.verdict == Known::Unproven => {
                let problem = format!("the entry of {check} covers every check: it has no case, clause or verdict");
                return Err((line, problem));
            }
            (false, Some(_)) => {
                return Err((line, format!("the entry of {check} has a subject, which only invariants have")));
            }
            _ => {}
        }
        for (field, text) in [("reason", &self.reason), ("link", &self.link)] {
            if text.trim().is_empty() {
                return Err((line, format!("the entry of {check} has an empty {field}; a known failure needs both")));
            }
        }
        let versions = Versions::parse(&self.versions.value).map_err(|e| (self.versions.referenced.line(), e))?;
        let expires = self.expires.value.parse().map_err(|e| {
            let problem = format!("{:?} is no date ({e}); write for example 2027-06-30", self.expires.value);
            (self.expires.referenced.line(), problem)
        })?;
        let mut clauses = self.clause;
        let (mut check, mut case) = (check, self.case);
        NAMES.check(&mut check, &mut case);
        clauses.iter_mut().for_each(|clause| NAMES.clause(&check, clause));
        Ok(Entry {
            line,
            check,
            subject: self.subject,
            case,
            versions,
            place: self.place,
            expect: self.expect,
            verdict: self.verdict,
            reason: self.reason,
            link: self.link,
            expires,
            clauses,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{plan::tests_support::gateway, record::tests_support::clause};

    const GOOD: &str = "
entries:
- check: routing/host
  case: first
  versions: '>=v1.0, <1.2'
  place: real
  expect: always
  reason: it answers 200
  link: https://example.com/1
  expires: 2027-06-30
  clause: [wrong-host-is-404]
- {check: tokens/no-leak, versions: '*', place: rehearsal, expect: sometimes, verdict: unproven, reason: r, link: l, expires: 2026-11-20}
";

    fn parse(text: &str) -> Result<Baseline, FileError> {
        Baseline::parse(text, Path::new("golden/gw/baseline.yaml"))
    }

    fn first() -> Entry {
        parse(GOOD).unwrap().entries.remove(0)
    }

    #[test]
    fn reads_every_field() {
        let baseline = parse(GOOD).unwrap();
        let [first, second] = baseline.entries.as_slice() else { panic!("two") };
        assert_eq!((first.line, first.case.as_deref(), first.place), (3, Some("first"), Some(Reality::Real)));
        assert_eq!((first.expect, first.verdict), (Expect::Always, Known::Fail));
        assert_eq!(first.expires, jiff::civil::date(2027, 6, 30));
        assert_eq!((second.expect, second.verdict, second.clauses.len()), (Expect::Sometimes, Known::Unproven, 0));
    }

    #[rstest]
    #[case::misspelt("expcet: always", "expect: always", &["line 7", "expcet"])]
    #[case::range("versions: new", "versions: '>=v1.0, <1.2'", &["line 5", "no range"])]
    #[case::date("expires: soon", "expires: 2027-06-30", &["line 10", "no date"])]
    #[case::reason("reason: ' '", "reason: it answers 200", &["line 3", "empty reason"])]
    #[case::link("link: ''", "link: https://example.com/1", &["line 3", "empty link"])]
    #[case::check("check: host", "check: routing/host", &["line 3", "suite/name"])]
    #[case::unknown_invariant("check: invariant/own-replies", "check: routing/host", &["line 3", "no invariant", "invariant/own-reply"])]
    #[case::no_subject("check: invariant/own-reply", "check: routing/host", &["line 3", "has no subject"])]
    #[case::invariant_of_a_case("check: invariant/own-reply\n  subject: status", "check: routing/host", &["line 3", "covers every check"])]
    #[case::subject_of_a_check("check: routing/host\n  subject: status", "check: routing/host", &["line 3", "only invariants have"])]
    #[case::no_expiry("", "  expires: 2027-06-30\n", &["expires"])]
    fn refuses(#[case] wrong: &str, #[case] right: &str, #[case] said: &[&str]) {
        assert!(GOOD.contains(right), "the row replaces nothing");
        let message = parse(&GOOD.replace(right, wrong)).unwrap_err().to_string();
        for word in said.iter().chain(&["golden/gw/baseline.yaml"]) {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }

    #[rstest]
    #[case("*", "anything", true)]
    #[case("*", "v1.0.0", true)]
    #[case(">=1.0, <1.2", "v1.0.0", true)]
    #[case(">=v1.0, <v1.2", "1.1.9", true)]
    #[case(">=1.0, <1.2", "1.2.0", false)]
    #[case(">=1.0, <1.2", "v0.9.9", false)]
    #[case("<1.2", "v1.2.0-rc.1", false)]
    #[case(">=1.0", "v1.1.0-rc.1", true)]
    #[case(">=1.0", "3fb70258", false)]
    #[case("=1.0.3", "v1.0.3", true)]
    #[case("=1.0.3", "v1.0.4", false)]
    fn ranges(#[case] range: &str, #[case] version: &str, #[case] holds: bool) {
        assert_eq!(Versions::parse(range).unwrap().contain(version), holds);
    }

    #[rstest]
    #[case("2027-06-29", false)]
    #[case("2027-06-30", false)]
    #[case("2027-07-01", true)]
    fn expiry(#[case] today: &str, #[case] holds: bool) {
        assert_eq!(first().has_expired(today.parse().unwrap()), holds);
    }

    #[rstest]
    #[case::place(PlaceName::Kind, "v1.0.0", 1)]
    #[case::rehearsal(PlaceName::Rehearsal, "v1.0.0", 1)]
    #[case::version(PlaceName::Kind, "v1.2.0", 0)]
    fn only_what_the_run_covers(#[case] place: PlaceName, #[case] version: &str, #[case] count: usize) {
        let mut gateway = gateway("gw");
        gateway.versions.insert("gw".into(), version.into());
        let baseline = parse(GOOD).unwrap();
        assert_eq!(baseline.in_force(&gateway, place).count(), count);
        assert!(baseline.in_force(&gateway, place).all(|e| e.place == Some(Reality::of(place))));
    }

    #[rstest]
    #[case::real("  place: real\n", &[Reality::Real])]
    #[case::rehearsal("  place: rehearsal\n", &[Reality::Rehearsal])]
    #[case::both("", &[Reality::Real, Reality::Rehearsal])]
    fn without_a_place_it_is_seen_everywhere(#[case] written: &str, #[case] expected: &[Reality]) {
        let entry = parse(&GOOD.replace("  place: real\n", written)).unwrap().entries.remove(0);
        let seen = [Reality::Real, Reality::Rehearsal].into_iter().filter(|reality| entry.is_seen_in(*reality));
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case("routing/host", "first", true)]
    #[case("routing/host", "second", false)]
    #[case("routing/hosts", "first", false)]
    fn about(#[case] check: &str, #[case] case: &str, #[case] holds: bool) {
        assert_eq!(first().is_about(check, case), holds);
        let every = Entry { case: None, ..first() };
        assert_eq!(every.is_about(check, case), check == "routing/host");
    }

    #[rstest]
    #[case::known(Verdict::Fail, &[("wrong-host-is-404", Holds::No)], true)]
    #[case::beside_a_good_one(Verdict::Fail, &[("wrong-host-is-404", Holds::No), ("x", Holds::Yes)], true)]
    #[case::another_clause(Verdict::Fail, &[("other", Holds::No)], false)]
    #[case::one_more_clause(Verdict::Fail, &[("wrong-host-is-404", Holds::No), ("other", Holds::No)], false)]
    #[case::no_clause(Verdict::Fail, &[], false)]
    #[case::error(Verdict::Error, &[("wrong-host-is-404", Holds::No)], false)]
    #[case::unproven(Verdict::Unproven, &[("wrong-host-is-404", Holds::Unproven)], false)]
    #[case::flaky(Verdict::Flaky, &[("wrong-host-is-404", Holds::No)], false)]
    #[case::pass(Verdict::Pass, &[("wrong-host-is-404", Holds::Yes)], false)]
    fn explains(#[case] verdict: Verdict, #[case] clauses: &[(&str, Holds)], #[case] holds: bool) {
        let clauses: Vec<Clause> = clauses.iter().map(|(name, holds)| clause(name, *holds)).collect();
        assert_eq!(first().explains(verdict, &clauses), holds);
    }

    #[test]
    fn entries_may_say_unproven_or_sometimes() {
        let unproven = Entry { verdict: Known::Unproven, ..first() };
        let missing = [clause("wrong-host-is-404", Holds::Unproven)];
        assert!(unproven.explains(Verdict::Unproven, &missing));
        assert!(!unproven.explains(Verdict::Fail, &[clause("wrong-host-is-404", Holds::No)]));
        let sometimes = Entry { expect: Expect::Sometimes, ..first() };
        assert!(sometimes.explains(Verdict::Flaky, &[clause("wrong-host-is-404", Holds::No)]));
        let any = Entry { clauses: vec![], ..first() };
        assert!(any.explains(Verdict::Fail, &[]));
    }

    #[test]
    fn a_gateway_without_a_file_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Baseline::find(root.path(), "gw").unwrap().entries, []);
        std::fs::create_dir(root.path().join("gw")).unwrap();
        std::fs::write(root.path().join("gw/baseline.yaml"), GOOD).unwrap();
        assert_eq!(Baseline::find(root.path(), "gw").unwrap().entries.len(), 2);
    }
}
