//! Markdown: the report as a comment on a pull request. Text from outside cannot become markup.

use std::fmt::Write;

use crate::judge::Holds;
use crate::record::{GoldenState, Verdict};
use crate::report::{CheckReport, Report};

use super::{Lines, inert, models};

const LINE: usize = 400;
const SHOWN: usize = 20;
const DIFFERENCE_LINES: usize = 40;

pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "### Inference gateway conformance: {}\n", report.run.word.word());
    let _ = writeln!(out, "{}\n", text(&report.run.statement));
    table(&mut out, report);
    for reason in &report.breaks {
        let _ = writeln!(out, "- breaks the run: {}", text(reason));
    }
    for problem in &report.problems {
        let _ = writeln!(out, "- problem: {}", text(problem));
    }
    let loud: Vec<&CheckReport> =
        report.checks.iter().filter(|c| c.by.is_none() && (c.breaks || c.finding.is_some())).collect();
    for check in loud.iter().take(SHOWN) {
        full(&mut out, check);
    }
    if loud.len() > SHOWN {
        let _ = writeln!(out, "\n... and {} more, in `report.html` of the run.", loud.len() - SHOWN);
    }
    let known = report.checks.iter().filter(|c| !c.breaks && c.baseline.is_some()).count();
    if known > 0 {
        let _ = writeln!(out, "\n{known} known failures are in the baseline.");
    }
    let run = &report.run;
    let _ = writeln!(
        out,
        "\n<sub>run {}, {}, profile {}, model {}, {:.1} s, exit {}</sub>",
        text(&run.id),
        run.place.word(),
        text(&run.profile),
        models(report),
        run.seconds,
        run.exit
    );
    out
}

fn table(out: &mut String, report: &Report) {
    let verdicts: Vec<Verdict> =
        report.totals.columns().into_iter().filter(|(v, n)| *n > 0 || *v == Verdict::Pass).map(|(v, _)| v).collect();
    let heads: Vec<&str> = verdicts.iter().map(|v| v.word()).collect();
    let _ = writeln!(out, "| gateway | word | {} |", heads.join(" | "));
    let _ = writeln!(out, "|---|---|{}", "---:|".repeat(heads.len()));
    for gateway in &report.gateways {
        let beside = match gateway.stand_ins.is_empty() {
            true => String::new(),
            false => format!(" (with stand-ins: {})", gateway.stand_ins.join(", ")),
        };
        let counts: Vec<String> = gateway
            .totals
            .columns()
            .into_iter()
            .filter(|(v, _)| verdicts.contains(v))
            .map(|(_, n)| n.to_string())
            .collect();
        let name = text(format!("{} {}{beside}", gateway.name, gateway.version()).trim_end());
        let _ = writeln!(out, "| {name} | {} | {} |", gateway.word.word(), counts.join(" | "));
    }
    out.push('\n');
}

fn full(out: &mut String, check: &CheckReport) {
    let word = if check.finding.is_some() { "finding" } else { check.verdict.word() };
    let summary = format!("{} on {}", check.title(), check.gateway);
    let _ = writeln!(out, "\n<details><summary>{word}: {}</summary>\n", text(&summary));
    let _ = writeln!(out, "{}: {}  ", check.level.word(), text(&check.sentence));
    let _ = writeln!(out, "source: {}  ", text(&check.source));
    let _ = writeln!(out, "{}\n", text(check.finding.as_ref().unwrap_or(&check.reason)));
    for clause in check.clauses.iter().filter(|c| c.holds != Holds::Yes) {
        let _ = writeln!(out, "- {}", text(&clause.name));
        let _ = writeln!(out, "  - expected {}", text(&clause.expected));
        let _ = writeln!(out, "  - got {}", text(&clause.got));
    }
    if let Some(golden) = check.golden.as_ref().filter(|g| g.state == GoldenState::Changed) {
        let note = golden.note.clone().unwrap_or_default();
        let lines: Vec<String> = note.lines().take(DIFFERENCE_LINES).map(|l| inert(l, LINE, Lines::Joined)).collect();
        let _ = writeln!(out, "\n{}", fenced("diff", &lines.join("\n")));
    }
    let _ = writeln!(out, "\n{}", fenced("console", &format!("$ {}", inert(&check.repeat, 2_000, Lines::Joined))));
    let _ = writeln!(out, "</details>");
}

/// A block whose fence is longer than any run of backticks in it.
fn fenced(language: &str, block: &str) -> String {
    let longest = block.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{block}\n{fence}")
}

/// Text from outside in one line, with nothing that Markdown or HTML would read.
fn text(text: &str) -> String {
    let mut out = String::new();
    for c in inert(text, LINE, Lines::Joined).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A mention would call people; a reference would link.
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::render::tests_support::{everything, hostile};

    #[test]
    fn everything_is_there() {
        insta::assert_snapshot!(markdown(&everything().report()));
    }

    #[rstest]
    #[case::html("<img src=x>", "&lt;img src=x&gt;")]
    #[case::table("a|b", "a\\|b")]
    #[case::link("[a](b)", "\\[a\\](b)")]
    #[case::mention("@team", "&#64;team")]
    #[case::code("`x`", "\\`x\\`")]
    #[case::line_end("a\nb", "a\\\\nb")]
    fn words_are_only_words(#[case] words: &str, #[case] shown: &str) {
        assert_eq!(text(words), shown);
    }

    #[rstest]
    #[case::none("a", 3)]
    #[case::three("a ``` b", 4)]
    #[case::five("`````", 6)]
    fn a_fence_cannot_be_closed_from_inside(#[case] block: &str, #[case] fence: usize) {
        assert!(fenced("", block).starts_with(&format!("{}\n", "`".repeat(fence))));
    }

    #[test]
    fn a_hostile_gateway_stays_in_its_place() {
        let page = markdown(&hostile().report());
        assert!(page.len() < 65_536, "{} bytes: longer than a comment may be", page.len());
        let words: Vec<&str> = page.split("```").step_by(2).collect(); // what is not in a block of code
        assert!(!words.concat().contains("<x>") && !page.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn text_is_one_line_without_markup(words in any::<String>()) {
            let shown = text(&words);
            prop_assert!(!shown.contains(['\n', '<', '>', '@']));
        }
    }
}
