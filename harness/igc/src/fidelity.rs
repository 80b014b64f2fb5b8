//! `fidelity`: recordings of real gateways played in the rehearsal, and what came of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use rehearsal::fidelity::{self, Accepted, Case, Difference};
use serde::Serialize;
use shipped::Root;
use verdict::golden::{self, Recording};
use verdict::render::{Lines, inert};
use verdict::{folder::RunFolder, history::Key, names, record::GoldenState};

use crate::options::{Fidelity, Format, globs};
use crate::{failure::Failure, terminal::shown};

const CASES: &str = "harness/rehearsal/fidelity";

const AT_ONCE: usize = 4;

#[derive(Debug, Serialize)]
struct Results {
    counts: Counts,
    cases: Vec<CaseResult>,
    /// Accepted differences that are no more.
    stale: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    cases: usize,
    goldens: usize,
    agree: usize,
    accepted: usize,
    differ: usize,
    errors: usize,
    stale: usize,
}

#[derive(Debug, Serialize)]
struct CaseResult {
    case: String,
    kind: Kind,
    gateway: String,
    version: String,
    recording: String,
    place: String,
    date: String,
    file: PathBuf,
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Status>,
    differences: Vec<ReportedDifference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// A recording that was written down.
    Case,
    /// An observation of a check at a real place.
    Golden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Agree,
    Accepted,
    Differ,
    Error,
}

#[derive(Debug, Serialize)]
struct ReportedDifference {
    line: u64,
    at: String,
    recorded: String,
    here: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
}

/// Plays the cases and says what came of them; the exit code is 1 where one differs or an acceptance is stale.
pub async fn fidelity(root: &Root, run: Option<&RunFolder>, options: &Fidelity) -> Result<u8, Failure> {
    let wanted = globs("--case", &options.cases)?;
    let mut outcomes: Vec<(CaseResult, Option<Case>)> =
        cases(root, &options.paths)?.into_iter().map(|case| (CaseResult::of(&case), Some(case))).collect();
    if options.paths.is_empty() && (options.list || run.is_some()) {
        outcomes.extend(of_real_places(&root.goldens())?.into_iter().map(|golden| (golden, None)));
    }
    let known: Vec<String> = outcomes.iter().map(|(o, _)| o.case.clone()).collect();
    outcomes.retain(|(o, _)| wanted.is_match(&o.case));
    if outcomes.is_empty() {
        let near: Vec<String> =
            options.cases.iter().flat_map(|c| names::near(c, known.iter().map(String::as_str))).collect();
        let asked = if options.cases.is_empty() {
            "no case is there".to_owned()
        } else {
            format!("--case {} matches none of {} cases", options.cases.join(" --case "), known.len())
        };
        return Err(Failure::Usage(format!("{asked}{}", names::suggestion(&near))));
    }
    if options.list {
        return list(&outcomes, options.format);
    }
    let played = futures::stream::iter(outcomes).map(|(mut outcome, case)| async move {
        if let Some(case) = case {
            // A task of its own: cases are played on all processors, and a crash of one is its error alone.
            match tokio::spawn(async move { fidelity::play(&case).await }).await {
                Ok(Ok(differences)) => outcome.set_differences(differences),
                Ok(Err(error)) => outcome.set_error(format!("failed to {error}")),
                Err(crashed) => outcome.set_error(format!("playing it crashed: {crashed}")),
            }
        }
        outcome
    });
    let mut outcomes: Vec<CaseResult> = played.buffered(AT_ONCE).collect().await;
    if let Some(run) = run {
        compared(run, &mut outcomes)?;
    }
    let whole = options.paths.is_empty() && options.cases.is_empty();
    let stale = accept(root, &mut outcomes, whole && run.is_some())?;
    let results = Results { counts: Counts::of(&outcomes, stale.len()), cases: outcomes, stale };
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&results)?),
        Format::Text => print!("{}", text(&results)),
    }
    Ok(results.counts.exit())
}

/// The cases of these files and folders, of the project's own where there are none.
fn cases(root: &Root, paths: &[PathBuf]) -> Result<Vec<Case>, Failure> {
    let own = [root.path().join(CASES)];
    let paths = if paths.is_empty() { &own } else { paths };
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        match fidelity::files(path) {
            Ok(files) if files.is_empty() => wrong.push(format!("{} has no file called *.yaml", path.display())),
            Ok(files) => files.iter().for_each(|file| match fidelity::read(file) {
                Ok(cases) => all.extend(cases),
                Err(error) => wrong.push(error.to_string()),
            }),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(Failure::Usage(wrong.join("\nerror: "))) }
}

fn of_real_places(root: &Path) -> Result<Vec<CaseResult>, Failure> {
    let mut found = Vec::new();
    for (gateway, title, golden) in golden::accepted(root)? {
        if let Some(seen) = golden.latest().filter(|seen| seen.recording.place.is_real()) {
            found.push(CaseResult::golden(root, gateway, &title, seen.recording));
        }
    }
    found.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(found)
}

/// Fills in how the checks of a rehearsed run compare with their goldens.
fn compared(folder: &RunFolder, outcomes: &mut [CaseResult]) -> Result<(), Failure> {
    let records = folder.read_records()?;
    for outcome in outcomes.iter_mut().filter(|o| o.kind == Kind::Golden) {
        let title = |key: &Key| format!("golden/{}/{}", key.gateway, key.title());
        let record = records.records.iter().filter(|r| title(&r.key) == outcome.case).max_by_key(|r| r.key.attempt);
        let note = || record.and_then(|r| r.golden_note.clone()).unwrap_or_default();
        match record.map(|r| r.golden) {
            Some(GoldenState::Same) => outcome.set_differences(vec![]),
            Some(GoldenState::Changed) => outcome.set_differences(vec![Difference {
                line: 1,
                at: "observation".to_owned(),
                recorded: outcome.recording.clone(),
                here: note(),
            }]),
            Some(GoldenState::Missing | GoldenState::NotCompared) => {
                outcome.set_error(format!("not compared: {}", note()))
            }
            None => outcome.set_error("no check of the rehearsed run drove it".to_owned()),
        }
    }
    Ok(())
}

/// Marks what is accepted; what is accepted and agrees is stale. An acceptance of a case that is nowhere is stale where
/// everything was played.
fn accept(root: &Root, outcomes: &mut [CaseResult], everything: bool) -> Result<Vec<String>, Failure> {
    let mut stale = Vec::new();
    let mut gateways: Vec<String> = outcomes.iter().map(|o| o.gateway.clone()).collect();
    if everything {
        gateways
            .extend(std::fs::read_dir(root.goldens())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()));
    }
    gateways.sort();
    gateways.dedup();
    for gateway in gateways {
        let accepted = Accepted::find(&root.goldens(), &gateway).map_err(Failure::usage)?;
        let mut used: BTreeMap<u64, bool> = BTreeMap::new();
        for outcome in outcomes.iter_mut().filter(|o| o.gateway == gateway && o.is_our_own(root)) {
            for entry in accepted.entries.iter().filter(|e| e.case == outcome.case) {
                let mut covered = false;
                for difference in outcome.differences.iter_mut().filter(|t| t.accepted.is_none()) {
                    if entry.covers(&outcome.case, &difference.at) {
                        difference.accepted = Some(entry.reason.clone());
                        covered = true;
                    }
                }
                used.insert(entry.line, covered || outcome.outcome == Some(Status::Error));
            }
            if outcome.outcome == Some(Status::Differ) && outcome.differences.iter().all(|t| t.accepted.is_some()) {
                outcome.outcome = Some(Status::Accepted);
            }
        }
        for entry in &accepted.entries {
            let place = format!("{}:{}", accepted.path.display(), entry.line);
            match used.get(&entry.line) {
                Some(true) => {}
                Some(false) => stale.push(format!("{place}: {} agrees there; remove the entry", entry.case)),
                None if everything => {
                    stale.push(format!("{place}: no case is called {}; remove the entry", entry.case))
                }
                None => {}
            }
        }
    }
    Ok(stale)
}

impl CaseResult {
    fn of(case: &Case) -> Self {
        Self {
            case: case.id.clone(),
            kind: Kind::Case,
            gateway: case.gateway.clone(),
            version: case.version.clone(),
            recording: case.recording.name.clone(),
            place: case.recording.place.clone(),
            date: case.recording.date(),
            file: shown(&case.file),
            line: case.line,
            outcome: None,
            differences: vec![],
            error: None,
        }
    }

    fn golden(root: &Path, gateway: String, title: &str, recording: &Recording) -> Self {
        Self {
            case: format!("golden/{gateway}/{title}"),
            kind: Kind::Golden,
            file: root.join(&gateway).join(format!("{title}.snap")),
            gateway,
            version: recording.version.clone(),
            recording: recording.run.clone(),
            place: recording.place.word().to_owned(),
            date: recording.recorded.clone(),
            line: 1,
            outcome: None,
            differences: vec![],
            error: None,
        }
    }

    /// Only what stands in the project can be accepted: another's case may have the same name.
    fn is_our_own(&self, root: &Root) -> bool {
        self.kind == Kind::Golden || self.file.starts_with(root.path().join(CASES))
    }

    fn set_differences(&mut self, differences: Vec<Difference>) {
        self.outcome = Some(if differences.is_empty() { Status::Agree } else { Status::Differ });
        let reported =
            |Difference { line, at, recorded, here }| ReportedDifference { line, at, recorded, here, accepted: None };
        self.differences = differences.into_iter().map(reported).collect();
    }

    fn set_error(&mut self, error: String) {
        self.outcome = Some(Status::Error);
        self.error = Some(error);
    }
}

impl Counts {
    fn of(outcomes: &[CaseResult], stale: usize) -> Self {
        let count = |word: Status| outcomes.iter().filter(|o| o.outcome == Some(word)).count();
        let goldens = outcomes.iter().filter(|o| o.kind == Kind::Golden).count();
        Self {
            cases: outcomes.len() - goldens,
            goldens,
            agree: count(Status::Agree),
            accepted: count(Status::Accepted),
            differ: count(Status::Differ),
            errors: outcomes.len() - count(Status::Agree) - count(Status::Accepted) - count(Status::Differ),
            stale,
        }
    }

    /// What could not be played makes the results worth nothing: it comes before what differs.
    fn exit(&self) -> u8 {
        match (self.errors, self.differ + self.stale) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 3,
        }
    }
}

fn list(outcomes: &[(CaseResult, Option<Case>)], format: Format) -> Result<u8, Failure> {
    match format {
        Format::Json => {
            let all: Vec<&CaseResult> = outcomes.iter().map(|(o, _)| o).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        Format::Text => {
            for (outcome, case) in outcomes {
                let about = case.as_ref().and_then(|c| c.about.as_deref()).unwrap_or_default();
                let line = format!("{:<60} {} {:<8} {about}", outcome.case, outcome.gateway, outcome.version);
                println!("{}", inert(line.trim_end(), 1_000, Lines::Joined));
            }
            println!("{} cases", outcomes.len());
        }
    }
    Ok(0)
}

fn text(results: &Results) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&inert(&line, 4_000, Lines::Joined));
        out.push('\n');
    };
    for outcome in &results.cases {
        let word = match outcome.outcome {
            Some(Status::Agree) => "agree",
            Some(Status::Accepted) => "accepted",
            Some(Status::Differ) => "differ",
            Some(Status::Error) | None => "error",
        };
        let CaseResult { case, gateway, version, place, date, .. } = outcome;
        say(format!("{word:<9} {case}  ({gateway} {version}, {place} {date})"));
        outcome.error.iter().for_each(|error| say(format!("    {}: {error}", outcome.file.display())));
        for difference in &outcome.differences {
            say(format!("    {}:{} {}", outcome.file.display(), difference.line, difference.at));
            lines_of(difference).into_iter().for_each(|line| say(format!("      {line}")));
            difference.accepted.iter().for_each(|reason| say(format!("      accepted: {reason}")));
        }
    }
    results.stale.iter().for_each(|stale| say(format!("stale     {stale}")));
    let Counts { cases, goldens, agree, accepted, differ, errors, stale } = results.counts;
    say(format!(
        "{cases} cases and {goldens} goldens of real places: {agree} agree, {accepted} accepted, {differ} differ, \
         {errors} errors; {stale} stale acceptances"
    ));
    out
}

/// What was recorded and what is here; longer texts line by line.
fn lines_of(difference: &ReportedDifference) -> Vec<String> {
    if difference.at == "observation" {
        return difference.here.lines().map(str::to_owned).collect();
    }
    if !difference.recorded.contains('\n') && !difference.here.contains('\n') {
        return vec![format!("- {}", difference.recorded), format!("+ {}", difference.here)];
    }
    let lines = similar::TextDiff::from_lines(&difference.recorded, &difference.here);
    lines
        .iter_all_changes()
        .map(|change| format!("{} {}", change.tag(), change.value().trim_end_matches('\n')))
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn counts(agree: usize, differ: usize, errors: usize, stale: usize) -> Counts {
        Counts { agree, differ, errors, stale, ..Counts::default() }
    }

    #[rstest]
    #[case::all_agree(counts(3, 0, 0, 0), 0)]
    #[case::one_differs(counts(3, 1, 0, 0), 1)]
    #[case::stale(counts(3, 0, 0, 1), 1)]
    #[case::not_played(counts(3, 1, 1, 0), 3)]
    fn exit_codes(#[case] counts: Counts, #[case] code: u8) {
        assert_eq!(counts.exit(), code);
    }

    #[test]
    fn what_has_no_outcome_is_an_error() {
        let golden = |outcome| CaseResult {
            case: "golden/g/a/b".into(),
            kind: Kind::Golden,
            gateway: "g".into(),
            version: "v1.0.0".into(),
            recording: "r".into(),
            place: "kind".into(),
            date: "2026-11-21".into(),
            file: "golden/g/a/b.snap".into(),
            line: 1,
            outcome,
            differences: vec![],
            error: None,
        };
        let counts = Counts::of(&[golden(Some(Status::Agree)), golden(None)], 0);
        assert_eq!((counts.goldens, counts.agree, counts.errors, counts.exit()), (2, 1, 1, 3));
    }
}
