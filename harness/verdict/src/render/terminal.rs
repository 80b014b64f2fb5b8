//! Terminal: a table by suite, then everything that did not hold, in full.

use std::collections::BTreeMap;

use similar::{ChangeTag, TextDiff};

use super::{Lines, inert, is_shown};
use crate::record::{GoldenState, Verdict};
use crate::report::{CheckReport, ClauseReport, GatewayReport, KnownState, Report, Totals, Word};
use crate::{baseline::Expect, front, judge::Holds, plan::Level};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Ansi,
}

/// How known failures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// In one line, with how many they are.
    Counted,
    Listed,
}

const LINE: usize = 600;
/// Longest command line; longer ones cannot be pasted whole.
const COMMAND: usize = 6_000;
const DIFFERENCE_LINES: usize = 60;
/// How many checks left out for one reason are named.
const NAMED: usize = 6;

/// How many checks that break the run are named again at the end.
const NAMED_AGAIN: usize = 10;

/// The report as text. Paths are relative to the run folder, which is named by `folder`.
///
/// What matters most comes last, where a terminal stands when the run is over: known failures, then what else did not pass in
/// full, and of that last what breaks the run.
pub fn terminal(report: &Report, folder: &str, colour: Colour, known: Known) -> String {
    let mut page = Page { out: String::new(), colour, front: front::of(&report.run.command) };
    for gateway in &report.gateways {
        page.gateway(report, gateway);
    }
    page.left_out(report);
    page.known(report);
    let shown = || report.checks.iter().filter(|c| is_shown(c) && !was_never_tried(c));
    match known {
        Known::Listed => shown().filter(|c| is_known(c)).for_each(|check| page.known_failure(check)),
        Known::Counted => page.known_failures(&shown().filter(|c| is_known(c)).collect::<Vec<_>>()),
    }
    page.line("");
    for breaks in [false, true] {
        // What fails by an invariant alone is shown in the row of the invariant.
        for check in shown().filter(|c| !is_known(c) && c.breaks == breaks && c.by.is_none()) {
            page.check(check, folder);
        }
    }
    page.by_invariants(&shown().filter(|c| !is_known(c) && c.by.is_some()).collect::<Vec<_>>());
    page.ending(report, folder);
    page.out
}

/// The last line: what a run has to say to those who want to hear nothing else.
pub fn closing(report: &Report, folder: &str) -> String {
    let (run, word) = (&report.run, report.run.word.word());
    let (compared, goldens) = goldens(report);
    let goldens = if goldens > 0 { format!(", {compared} of {goldens} goldens compared") } else { String::new() };
    format!("{word}: {} s on {}{goldens}, exit {}, {folder}", seconds(run.seconds), run.place.word(), run.exit)
}

/// How many goldens were compared, and how many checks that ran have one.
fn goldens(report: &Report) -> (usize, usize) {
    let states = report.checks.iter().filter_map(|check| Some(check.golden.as_ref()?.state));
    let there: Vec<GoldenState> = states.filter(|state| *state != GoldenState::Missing).collect();
    (there.iter().filter(|state| **state != GoldenState::NotCompared).count(), there.len())
}

/// Whether it was planned and nothing was tried: all that can be said is why, once for all of which it is true.
fn was_never_tried(check: &CheckReport) -> bool {
    check.verdict == Verdict::Error && check.attempts == 0
}

/// Whether somebody has accepted that it does not pass; what breaks the run nobody has.
fn is_known(check: &CheckReport) -> bool {
    check.baseline.is_some() && !check.breaks
}

struct Page {
    out: String,
    colour: Colour,
    front: &'static str,
}

#[derive(Clone, Copy)]
enum Ink {
    Good,
    Bad,
    Doubt,
    Faint,
    Bold,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Good => "32",
            Ink::Bad => "31",
            Ink::Doubt => "33",
            Ink::Faint => "2",
            Ink::Bold => "1",
        };
        match self.colour {
            Colour::Plain => text.to_owned(),
            Colour::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }

    fn gateway(&mut self, report: &Report, gateway: &GatewayReport) {
        let versions: Vec<String> = gateway.versions.iter().map(|(n, v)| format!("{n} {v}")).collect();
        let name = self.ink(Ink::Bold, &one_line(&gateway.name));
        self.line(&format!("{name}: {}{}", gateway.word.word(), beside(gateway)));
        if !versions.is_empty() {
            self.line(&self.ink(Ink::Faint, &format!("  {}", one_line(&versions.join(", ")))));
        }
        let mut suites: Vec<(&str, Vec<&CheckReport>)> = Vec::new();
        for check in report.checks.iter().filter(|c| c.gateway == gateway.name) {
            match suites.iter_mut().find(|(name, _)| *name == check.suite()) {
                Some((_, checks)) => checks.push(check),
                None => suites.push((check.suite(), vec![check])),
            }
        }
        let columns: Vec<Verdict> =
            gateway.totals.columns().iter().filter(|(v, n)| *n > 0 || *v == Verdict::Pass).map(|(v, _)| *v).collect();
        let width = suites.iter().map(|(name, _)| name.chars().count()).chain([5]).max().unwrap_or(5);
        let head: String = columns.iter().map(|v| format!("  {}", v.word())).collect();
        self.line(&self.ink(Ink::Faint, &format!("  {:width$}{head}", "suite")));
        let of_suites = suites.into_iter().map(|(name, checks)| (name, Totals::of(checks)));
        for (name, totals) in of_suites.chain([("total", gateway.totals)]) {
            let mut row = format!("  {name:width$}");
            for (verdict, count) in totals.columns().into_iter().filter(|(v, _)| columns.contains(v)) {
                let ink = if count == 0 { Ink::Faint } else { ink_of(verdict) };
                row += &format!("  {}", self.ink(ink, &format!("{count:>width$}", width = verdict.word().len())));
            }
            self.line(&row);
        }
        for check in report.checks.iter().filter(|c| c.gateway == gateway.name && c.judged.is_some()) {
            let judged = check.judged.unwrap_or_default();
            let line = format!("  {}: judged {} of {} exchanges", check.id, judged.judged, judged.of);
            self.line(&self.ink(Ink::Faint, &line));
        }
        match gateway.totals.by_invariant {
            0 => {}
            1 => self.line("  1 check fails by an invariant alone, which is counted in its own row"),
            more => {
                self.line(&format!("  {more} checks fail by invariants alone, which are counted in rows of their own"))
            }
        }
        self.line("");
    }

    fn known_failures(&mut self, checks: &[&CheckReport]) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for check in checks {
            *counts.entry(&check.gateway).or_default() += 1;
        }
        if !counts.is_empty() {
            let counts: Vec<String> = counts.iter().map(|(gateway, count)| format!("{gateway} {count}")).collect();
            let word = self.ink(Ink::Doubt, "known");
            let plural = if checks.len() == 1 { "" } else { "s" };
            let of = one_line(&counts.join(", "));
            self.line(&format!("{word}  {} failure{plural} in the baselines ({of}); -v lists them", checks.len()));
        }
    }

    fn known_failure(&mut self, check: &CheckReport) {
        let word = self.ink(Ink::Doubt, &format!("known {}", check.verdict.word()));
        self.line(&format!("{word}  {}", one_line(&format!("{} on {}", check.title(), check.gateway))));
        self.line(&format!("    why:       {}", one_line(&check.reason)));
        self.baseline(check);
    }

    fn baseline(&mut self, check: &CheckReport) {
        if let Some(known) = &check.baseline {
            let (reason, link) = (one_line(&known.reason), one_line(&known.link));
            self.line(&format!("    known:     {reason} ({link}, until {})", known.expires));
        }
    }

    fn check(&mut self, check: &CheckReport, folder: &str) {
        let mark = match (check.verdict, &check.finding, &check.golden) {
            (_, Some(_), _) => self.ink(Ink::Doubt, "finding"),
            (Verdict::Pass, None, Some(golden)) if golden.state == GoldenState::Changed => {
                self.ink(Ink::Bad, "changed")
            }
            (Verdict::Pass, None, Some(golden)) if golden.state == GoldenState::Missing => {
                self.ink(Ink::Bad, "golden missing")
            }
            (verdict, ..) => self.ink(ink_of(verdict), verdict.word()),
        };
        let mild = if check.level == Level::Should && !check.breaks { ", does not break the run" } else { "" };
        let title = self.ink(Ink::Bold, &one_line(&check.title()));
        self.line(&format!("{mark}  {title}  ({} on {}{mild})", check.level.word(), one_line(&check.gateway)));
        self.line(&format!("    must hold: {}", one_line(&check.sentence)));
        self.line(&self.ink(Ink::Faint, &format!("    source:    {}", one_line(&check.source))));
        let label = if check.finding.is_some() { "found:" } else { "why:" };
        self.line(&format!("    {label:10} {}", one_line(&check.reason)));
        self.baseline(check);
        for clause in check.clauses.iter().filter(|c| c.holds != Holds::Yes) {
            if check.judged.is_some() { self.subject(clause) } else { self.clause(clause) }
        }
        self.golden(check);
        if check.tries.len() > 1 {
            for attempt in &check.tries {
                self.line(&format!(
                    "    attempt {}: {}: {}",
                    attempt.attempt,
                    attempt.verdict.word(),
                    one_line(&attempt.reason)
                ));
            }
        }
        if let Some(evidence) = &check.evidence {
            self.line(&format!("    evidence:  {folder}/{}", one_line(evidence)));
        }
        self.line(&format!("    repeat:    {}", inert(&check.repeat, COMMAND, Lines::Joined)));
        self.line("");
    }

    /// Checks that fail by invariants alone, each in one line: the fault is one, however many show it.
    fn by_invariants(&mut self, checks: &[&CheckReport]) {
        for check in checks.iter().take(NAMED_AGAIN) {
            let mark = self.ink(ink_of(check.verdict), check.verdict.word());
            let title = self.ink(Ink::Bold, &one_line(&check.title()));
            self.line(&format!(
                "{mark}  {title}  (by invariant, on {}): {}",
                one_line(&check.gateway),
                one_line(&check.reason)
            ));
        }
        if checks.len() > NAMED_AGAIN {
            self.line(&format!("      and {} more by invariants alone", checks.len() - NAMED_AGAIN));
        }
        if !checks.is_empty() {
            self.line("");
        }
    }

    /// What an invariant is false of, in one line for each subject.
    fn subject(&mut self, clause: &ClauseReport) {
        let word = self.ink(Ink::Bad, "false");
        self.line(&format!("    {word}: {}", one_line(&format!("expected {}, got {}", clause.expected, clause.got))));
        for exchange in clause.exchanges.iter().take(1) {
            self.line(&self.ink(Ink::Faint, &format!("      {}", inert(&exchange.curl, COMMAND, Lines::Joined))));
        }
    }

    fn clause(&mut self, clause: &ClauseReport) {
        let word = match clause.holds {
            Holds::No => self.ink(Ink::Bad, "false"),
            _ => self.ink(Ink::Doubt, "unproven"),
        };
        self.line(&format!("    {word}: {}", one_line(&clause.name)));
        let (expected, got) = self.told_apart(&one_line(&clause.expected), &one_line(&clause.got));
        self.line(&format!("      {} {expected}", self.ink(Ink::Good, "- expected")));
        self.line(&format!("      {} {got}", self.ink(Ink::Bad, "+ got     ")));
        for exchange in &clause.exchanges {
            self.line(&format!("      {} -> {}", one_line(&exchange.label), one_line(&exchange.outcome)));
            self.line(&self.ink(Ink::Faint, &format!("        {}", inert(&exchange.curl, COMMAND, Lines::Joined))));
        }
    }

    /// Both texts, the words of each that the other does not have in bold.
    fn told_apart(&self, expected: &str, got: &str) -> (String, String) {
        let difference = TextDiff::from_words(expected, got);
        let (mut before, mut after) = (String::new(), String::new());
        for change in difference.iter_all_changes() {
            let bold = || self.ink(Ink::Bold, change.value());
            match change.tag() {
                ChangeTag::Equal => {
                    before.push_str(change.value());
                    after.push_str(change.value());
                }
                ChangeTag::Delete => before.push_str(&bold()),
                ChangeTag::Insert => after.push_str(&bold()),
            }
        }
        (before, after)
    }

    fn golden(&mut self, check: &CheckReport) {
        let Some(golden) = &check.golden else { return };
        match golden.state {
            GoldenState::Changed => {
                self.line(&format!(
                    "    golden:    changed; {} review shows it and accepts it with a reason",
                    self.front
                ));
                let note = golden.note.clone().unwrap_or_default();
                let count = note.lines().count();
                for line in note.lines().take(DIFFERENCE_LINES) {
                    let ink = match line.chars().next() {
                        Some('+') => Ink::Good,
                        Some('-') => Ink::Bad,
                        _ => Ink::Faint,
                    };
                    self.line(&self.ink(ink, &format!("      {}", one_line(line))));
                }
                if count > DIFFERENCE_LINES {
                    self.line(&format!("      ... ({} more lines)", count - DIFFERENCE_LINES));
                }
            }
            GoldenState::Missing if check.breaks && check.verdict == Verdict::Pass => {
                let front = self.front;
                self.line(&format!("    golden:    there is none, and CI demands one; accept one with {front} review"));
            }
            _ => {}
        }
    }

    /// Baseline entries that someone must look at, and rates of those that are seen sometimes.
    fn known(&mut self, report: &Report) {
        for entry in &report.baseline {
            let case = entry.case.as_ref().map(|c| format!("@{c}")).unwrap_or_default();
            let name = one_line(&format!(
                "{}{case} in golden/{}/baseline.yaml line {}",
                entry.check, entry.gateway, entry.line
            ));
            match entry.state {
                KnownState::Stale => {
                    let word = self.ink(Ink::Bad, "stale");
                    self.line(&format!("{word}  {name}: the check passed; remove the entry"));
                }
                KnownState::Expired => {
                    let word = self.ink(Ink::Bad, "expired");
                    let (date, link) = (&entry.expires, one_line(&entry.link));
                    self.line(&format!("{word}  {name}: it held until {date}; look at {link} again"));
                }
                KnownState::Holds if entry.expect == Expect::Sometimes => {
                    self.line(&format!("known  {name}: {} of {} attempts", entry.failed, entry.judged));
                }
                KnownState::Holds | KnownState::NotJudged => {}
            }
        }
        for problem in &report.problems {
            let word = self.ink(Ink::Bad, "problem");
            self.line(&format!("{word}  {}", one_line(problem)));
        }
    }

    fn left_out(&mut self, report: &Report) {
        let mut reasons: Vec<(&str, &str, Vec<String>)> = Vec::new();
        let left = |c: &&CheckReport| matches!(c.verdict, Verdict::Unsupported | Verdict::NotRun) || was_never_tried(c);
        for check in report.checks.iter().filter(left) {
            let on = if was_never_tried(check) { format!(" on {}", check.gateway) } else { String::new() };
            let (word, title) = (check.verdict.word(), check.title() + &on);
            match reasons.iter_mut().find(|(w, reason, _)| *w == word && *reason == check.reason) {
                Some((_, _, titles)) if titles.contains(&title) => {}
                Some((_, _, titles)) => titles.push(title),
                None => reasons.push((word, &check.reason, vec![title])),
            }
        }
        for (word, reason, titles) in reasons {
            let more = titles.len().saturating_sub(NAMED);
            let mut names = titles.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 {
                names += &format!(" and {more} more");
            }
            let ink = if word == Verdict::Error.word() { Ink::Bad } else { Ink::Faint };
            let word = self.ink(ink, word);
            self.line(&format!("{word}  {}: {}", one_line(reason), one_line(&names)));
        }
    }

    fn ending(&mut self, report: &Report, folder: &str) {
        let run = &report.run;
        let ink = match (run.exit, run.word) {
            (0, Word::Conformant) => Ink::Good,
            (0, _) => Ink::Doubt,
            _ => Ink::Bad,
        };
        let beside: Vec<String> = report.gateways.iter().map(beside).filter(|b| !b.is_empty()).collect();
        let beside = if report.gateways.len() == 1 { beside.concat() } else { String::new() };
        let word = self.ink(ink, run.word.word());
        self.line(&format!("{word}{beside}: {}", one_line(&run.statement)));
        for note in run.egress.iter().map(|e| format!("egress: {e}")).chain(run.notes.iter().cloned()) {
            self.line(&format!("  {}", one_line(&note)));
        }
        for reason in &report.breaks {
            let word = self.ink(Ink::Bad, "breaks:");
            self.line(&format!("  {word} {}", one_line(reason)));
        }
        let breaking: Vec<&CheckReport> =
            report.checks.iter().filter(|c| c.breaks && c.by.is_none() && !was_never_tried(c)).collect();
        for check in breaking.iter().take(NAMED_AGAIN) {
            self.line(&format!(
                "    {}",
                one_line(&format!("{} on {}: {}", check.title(), check.gateway, check.reason))
            ));
        }
        if breaking.len() > NAMED_AGAIN {
            self.line(&format!("    and {} more", breaking.len() - NAMED_AGAIN));
        }
        self.line(&self.ink(Ink::Faint, &format!("  {}", closing(report, folder))));
    }
}

/// What must be said beside the word: parts that are stand-ins.
fn beside(gateway: &GatewayReport) -> String {
    if gateway.stand_ins.is_empty() || gateway.word == Word::Rehearsed {
        return String::new();
    }
    format!(" (with stand-ins: {})", one_line(&gateway.stand_ins.join(", ")))
}

fn ink_of(verdict: Verdict) -> Ink {
    match verdict {
        Verdict::Pass => Ink::Good,
        Verdict::Fail | Verdict::Error => Ink::Bad,
        Verdict::Flaky | Verdict::Unproven => Ink::Doubt,
        Verdict::Unsupported | Verdict::NotRun => Ink::Faint,
    }
}

fn one_line(text: &str) -> String {
    inert(text, LINE, Lines::Joined)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1}")
}

#[cfg(test)]
mod tests;
