//! HTML: one page that needs no network, no scripts and no other file, and shows what broke and why.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::history::{History, Key};
use crate::record::{GoldenState, Verdict};
use crate::report::{
    CheckReport, ClauseReport, GatewayReport, KnownFailure, KnownReport, KnownState, Report, ShownExchange, Totals,
    Try, Word,
};
use crate::{judge::Holds, plan::Level};

use super::{Lines, inert, models};

mod objects;
mod sequence;

/// Where the page gets what the report itself does not hold.
pub struct Sources<'a> {
    pub histories: &'a dyn Fn(&Key) -> Option<History>,
    /// The ends of the logs below an evidence folder (relative to the run folder); asked only for what did not pass.
    pub logs: &'a dyn Fn(&str) -> Vec<Log>,
    /// Reports of runs before this one, the oldest first.
    pub earlier: &'a [Report],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Relative to the run folder.
    pub path: String,
    pub end: String,
}

/// How many bytes a page may hold. Drawings and objects have what the matrix leaves; of what passed they are left out first,
/// and the page says so.
const SIZE: usize = 4_600_000;
/// How many bytes of it drawings and objects have in any case.
const LEAST: usize = 400_000;
/// How many checks that break the run are open from the beginning.
const OPEN: usize = 20;
/// Longest line of text from outside.
const LINE: usize = 1_000;
/// Longest block of text from outside.
const BLOCK: usize = 6_000;
/// How many checks that break the run are listed at the top.
const LISTED: usize = 100;

pub fn html(report: &Report, sources: &Sources<'_>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("page", include_str!("html/page.html"))?;
    environment.add_template("detail", include_str!("html/detail.html"))?;
    let (style, script) = (include_str!("html/page.css"), include_str!("html/page.js"));

    let details = details(&environment, report, sources)?;
    let trend = trend(report, sources.earlier);
    let page = json!({
        "style": style,
        "script": script,
        "script_hash": BASE64_STANDARD.encode(Sha256::digest(script)),
        "run": run(report),
        "gateways": report.gateways.iter().map(column).collect::<Vec<_>>(),
        "broken": broken(report, &trend),
        "suites": suites(report, &details.kept, &trend),
        "details": details.text,
        "left_out": details.left_out,
        "known": known(report),
        "problems": lines(&report.problems),
        "runs": sources.earlier.iter().chain([report]).map(past).collect::<Vec<_>>(),
    });
    environment.get_template("page")?.render(Serde(page))
}

fn run(report: &Report) -> Value {
    let run = &report.run;
    let mut facts = vec![
        ("place", run.place.word().to_owned()),
        ("profile", line(&run.profile)),
        ("model", models(report)),
        ("started", moment(&run.started)),
        ("took", format!("{:.1} s", run.seconds)),
        ("exit code", run.exit.to_string()),
    ];
    facts.extend(run.context.iter().map(|c| ("context", line(c))));
    facts.extend(run.egress.iter().map(|e| ("egress", line(e))));
    facts.extend(run.error.iter().map(|e| ("error", line(e))));
    facts.extend(run.notes.iter().map(|n| ("note", line(n))));
    if !run.command.is_empty() {
        facts.push(("command", line(&run.command.join(" "))));
    }
    // Known: only the baseline keeps it from breaking.
    let tone = match (run.exit, run.word) {
        (0, Word::Conformant | Word::Rehearsed) => "good",
        (0, _) => "known",
        _ => "bad",
    };
    json!({
        "id": line(&run.id),
        "word": run.word.word(),
        "tone": tone,
        "statement": line(&run.statement),
        "facts": facts,
        "breaks": lines(&report.breaks),
    })
}

fn moment(rfc3339: &str) -> String {
    let seconds = rfc3339.split(['.', 'Z']).next().unwrap_or_default();
    line(&format!("{} UTC", seconds.replacen('T', " ", 1)))
}

fn column(gateway: &GatewayReport) -> Value {
    let versions = gateway.versions.iter().map(|(name, version)| line(&format!("{name} {version}")));
    json!({
        "name": line(&gateway.name),
        "word": gateway.word.word(),
        "versions": versions.collect::<Vec<_>>(),
        "version": line(gateway.version()),
        "stand_ins": lines(&gateway.stand_ins),
        "bar": bar(&gateway.totals),
    })
}

/// The segments of a bar: verdict, count, and its part of the whole in percent.
fn bar(totals: &Totals) -> Vec<Value> {
    let all: u64 = totals.columns().iter().map(|(_, n)| n).sum();
    let percent = |count: u64| format!("{:.2}", 100.0 * count as f64 / all.max(1) as f64);
    let segment = |(verdict, count): (Verdict, u64)| json!({"verdict": verdict.word(), "count": count, "percent": percent(count)});
    totals.columns().into_iter().filter(|(_, n)| *n > 0).map(segment).collect()
}

/// What breaks the run, with what became of it in the last run before that judged it.
fn broken(report: &Report, trend: &Trend) -> Vec<Value> {
    let breaking = report.checks.iter().enumerate().filter(|(_, c)| c.breaks).take(LISTED);
    let entry = |(at, check): (usize, &CheckReport)| {
        json!({
            "anchor": anchor(at),
            "title": line(&check.title()),
            "gateway": line(&check.gateway),
            "word": mark(check),
            "reason": line(&check.reason),
            "before": trend.get(&(check.gateway.clone(), check.title())).and_then(|signs| before(signs)),
            "repeat": block(&check.repeat),
        })
    };
    breaking.map(entry).collect()
}

/// The last of the signs of earlier runs, in words: whether something broke now or was broken before.
fn before(signs: &str) -> Option<&'static str> {
    Some(match signs.chars().next_back()? {
        '+' => "it passed in the run before",
        '-' => return None,
        _ => "it did not pass in the run before either",
    })
}

#[derive(Serialize)]
struct Suite {
    name: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    title: String,
    level: &'static str,
    sentence: String,
    /// One for each gateway; null where it has no such check.
    cells: Vec<Value>,
}

/// The matrix: rows in the order of the plan, a column for each gateway.
fn suites(report: &Report, kept: &BTreeSet<usize>, trend: &Trend) -> Vec<Suite> {
    let columns: BTreeMap<&str, usize> =
        report.gateways.iter().enumerate().map(|(at, g)| (g.name.as_str(), at)).collect();
    let mut suites: Vec<Suite> = Vec::new();
    let mut places: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (at, check) in report.checks.iter().enumerate() {
        let title = check.title();
        let suite = *names.entry(check.suite().to_owned()).or_insert_with(|| {
            suites.push(Suite { name: line(check.suite()), rows: Vec::new() });
            suites.len() - 1
        });
        let (suite, row) = *places.entry(title.clone()).or_insert_with(|| {
            suites[suite].rows.push(Row {
                title: line(&title),
                level: check.level.word(),
                sentence: line(&check.sentence),
                cells: vec![Value::Null; columns.len()],
            });
            (suite, suites[suite].rows.len() - 1)
        });
        let Some(column) = columns.get(check.gateway.as_str()) else { continue };
        suites[suite].rows[row].cells[*column] = json!({
            "verdict": check.verdict.word(),
            "known": check.baseline.is_some() && !check.breaks,
            "mark": mark(check),
            "anchor": kept.contains(&at).then(|| anchor(at)),
            "trend": trend.get(&(check.gateway.clone(), title)),
        });
    }
    suites
}

/// Verdicts of earlier runs in one character each, by gateway and title.
type Trend = BTreeMap<(String, String), String>;

fn trend(report: &Report, earlier: &[Report]) -> Trend {
    let mut trend = Trend::new();
    let comparable = earlier.iter().filter(|r| r.run.place == report.run.place);
    for check in comparable.flat_map(|r| &r.checks).filter(|c| c.verdict != Verdict::NotRun) {
        trend.entry((check.gateway.clone(), check.title())).or_default().push(sign(check.verdict));
    }
    trend
}

/// The same signs as in the page's legend.
fn sign(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pass => '+',
        Verdict::Fail => 'x',
        Verdict::Flaky => '~',
        Verdict::Unproven => '?',
        Verdict::Error => '!',
        Verdict::Unsupported => '-',
        Verdict::NotRun => '.',
    }
}

struct Details {
    text: String,
    kept: BTreeSet<usize>,
    left_out: usize,
}

/// What is behind the cells: first of all that did not pass, then of the rest while there is room.
fn details(environment: &Environment<'_>, report: &Report, sources: &Sources<'_>) -> Result<Details, minijinja::Error> {
    let template = environment.get_template("detail")?;
    let loud = |c: &CheckReport| c.breaks || c.finding.is_some() || is_judged_otherwise(c.verdict);
    let in_order = |wanted: bool| report.checks.iter().enumerate().filter(move |(_, c)| loud(c) == wanted);
    let mut parts: BTreeMap<usize, String> = BTreeMap::new();
    let budget = SIZE.saturating_sub(matrix_size(report)).max(LEAST);
    let (mut size, mut left_out, mut open) = (0, 0, 0);
    for (at, check) in in_order(true).chain(in_order(false)) {
        if size > budget {
            left_out += 1;
            continue;
        }
        open += usize::from(check.breaks);
        let part = template.render(Serde(detail(at, check, check.breaks && open <= OPEN, sources)))?;
        size += part.len();
        parts.insert(at, part);
    }
    Ok(Details { kept: parts.keys().copied().collect(), text: parts.into_values().collect(), left_out })
}

/// About how many bytes the matrix takes: a row for each requirement, a cell for each check.
fn matrix_size(report: &Report) -> usize {
    let text = |text: &str| text.len().min(LINE) + 4 * text.matches(['/', '\'', '"', '<', '>', '&']).count();
    let row = |check: &CheckReport| 150 + text(&check.title()) + text(&check.sentence);
    let rows: BTreeMap<_, usize> = report.checks.iter().map(|c| ((&c.id, &c.case), row(c))).collect();
    report.checks.len() * 130 + rows.values().sum::<usize>()
}

fn is_judged_otherwise(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Pass | Verdict::Unsupported | Verdict::NotRun)
}

fn detail(at: usize, check: &CheckReport, open: bool, sources: &Sources<'_>) -> Value {
    let history = history_of(check, sources);
    let loud = check.breaks || is_judged_otherwise(check.verdict);
    let shown: BTreeSet<&str> = check.clauses.iter().flat_map(|c| &c.exchanges).map(|e| e.id.as_str()).collect();
    let attempt = |t: &Try| line(&format!("attempt {}: {}: {}", t.attempt, t.verdict.word(), t.reason));
    let tries = if check.tries.len() > 1 { &check.tries[..] } else { &[] };
    let known = |k: &KnownFailure| line(&format!("{} ({}, until {})", k.reason, k.link, k.expires));
    let differences = check.golden.iter().filter_map(|g| g.note.as_deref()).flat_map(difference);
    let logs = check.evidence.iter().filter(|_| loud).flat_map(|folder| (sources.logs)(folder));
    let inert_log = |log: Log| json!({"path": line(&log.path), "end": inert(&log.end, BLOCK, Lines::Kept)});
    json!({
        "anchor": anchor(at),
        "verdict": check.verdict.word(),
        "mark": mark(check),
        "open": open,
        "title": line(&check.title()),
        "gateway": line(&check.gateway),
        "level": check.level.word(),
        "reason": line(check.finding.as_ref().unwrap_or(&check.reason)),
        "sentence": line(&check.sentence),
        "source": line(&check.source),
        "known": check.baseline.as_ref().map(known),
        "clauses": check.clauses.iter().map(clause).collect::<Vec<_>>(),
        "tries": tries.iter().map(attempt).collect::<Vec<_>>(),
        "golden": differences.collect::<Vec<_>>(),
        "golden_state": check.golden.as_ref().map(|g| golden_word(g.state)),
        "drawing": history.as_ref().and_then(|h| sequence::draw(h, &shown, loud)),
        "objects": history.as_ref().map(objects::with_conditions).unwrap_or_default(),
        "admissions": history.as_ref().map(objects::admissions).unwrap_or_default(),
        "notes": history.map(|h| lines(&h.notes)).unwrap_or_default(),
        "logs": logs.map(inert_log).collect::<Vec<_>>(),
        "evidence": check.evidence.as_ref().map(|e| line(e)),
        "repeat": block(&check.repeat),
        "seconds": format!("{:.1}", check.seconds),
    })
}

fn clause(clause: &ClauseReport) -> Value {
    let holds = match clause.holds {
        Holds::Yes => "holds",
        Holds::No => "false",
        Holds::Unproven => "unproven",
    };
    let exchange = |e: &ShownExchange| (line(&format!("{} -> {}", e.label, e.outcome)), block(&e.curl));
    json!({
        "name": line(&clause.name),
        "holds": holds,
        "expected": line(&clause.expected),
        "got": line(&clause.got),
        "exchanges": clause.exchanges.iter().map(exchange).collect::<Vec<_>>(),
    })
}

fn history_of(check: &CheckReport, sources: &Sources<'_>) -> Option<History> {
    let last = check.tries.last()?;
    (sources.histories)(&Key {
        gateway: check.gateway.clone(),
        check: check.id.clone(),
        case: check.case.clone().unwrap_or_else(|| "-".to_owned()),
        attempt: last.attempt,
    })
}

/// The lines of a difference, each with the class that colours it.
fn difference(note: &str) -> Vec<Value> {
    let class = |text: &str| match text.chars().next() {
        Some('+') => "new",
        Some('-') => "old",
        _ => "same",
    };
    let shown = inert(note, BLOCK, Lines::Kept);
    shown.lines().map(|text| json!({"class": class(text), "text": text})).collect()
}

fn known(report: &Report) -> Vec<String> {
    let entry = |k: &KnownReport| {
        let case = k.case.as_ref().map(|c| format!("@{c}")).unwrap_or_default();
        let state = match k.state {
            KnownState::Holds => "holds",
            KnownState::Stale => "stale: the check passed, remove the entry",
            KnownState::Expired => "expired: look again",
            KnownState::NotJudged => "not judged in this run",
        };
        line(&format!(
            "{}: {}{case}: {state}; {} of {} attempts failed; until {}: {} ({})",
            k.gateway, k.check, k.failed, k.judged, k.expires, k.reason, k.link
        ))
    };
    report.baseline.iter().map(entry).collect()
}

fn past(report: &Report) -> Value {
    let version = |g: &GatewayReport| format!("{} {}", g.name, g.version()).trim_end().to_owned();
    json!({
        "id": line(&report.run.id),
        "place": report.run.place.word(),
        "word": report.run.word.word(),
        "exit": report.run.exit,
        "versions": line(&report.gateways.iter().map(version).collect::<Vec<_>>().join(", ")),
        "bar": bar(&report.totals),
    })
}

/// The word of a cell: the verdict, or what is worse than it.
fn mark(check: &CheckReport) -> &'static str {
    match (check.verdict, &check.finding, &check.golden) {
        (_, Some(_), _) => "finding",
        (Verdict::Pass, None, Some(golden)) if golden.state == GoldenState::Changed => "changed",
        (Verdict::Fail, ..) if check.baseline.is_some() => "known",
        (Verdict::Fail, ..) if check.by.is_some() => "fail (by invariant)",
        (Verdict::Fail, ..) if check.level == Level::Should && !check.breaks => "fail (SHOULD)",
        (verdict, ..) => verdict.word(),
    }
}

fn golden_word(state: GoldenState) -> &'static str {
    match state {
        GoldenState::Same => "same",
        GoldenState::Changed => "changed",
        GoldenState::Missing => "missing",
        GoldenState::NotCompared => "not compared",
    }
}

fn anchor(at: usize) -> String {
    format!("c{at}")
}

fn line(text: &str) -> String {
    inert(text, LINE, Lines::Joined)
}

fn lines(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| line(text)).collect()
}

fn block(text: &str) -> String {
    inert(text, BLOCK, Lines::Joined)
}

#[cfg(test)]
mod tests;
