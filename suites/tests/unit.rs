//! What the suites do as a whole: with a program of somebody else's on a hop (one that passes on what it gets changes no
//! verdict, one that alters its meaning is caught, one that never listens proves nothing), and with a run that was kept.

mod toy;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use rehearsal::hops::{BETWEEN, PROXY};
use rstest::rstest;
use suites::replay;
use verdict::{
    folder::RunFolder,
    history::Key,
    judge::Holds,
    record::{Record, Verdict},
    tests_list::CHECKS_ALONE,
};

/// Rehearses some checks, each alone, with this command on a hop.
fn rehearsed(checks: &[&str], between: &str, command: &str) -> Output {
    alone(&["--test-threads", "2"])
        .args(CHECKS_ALONE)
        .args(checks)
        .env(PROXY, command)
        .env(BETWEEN, between)
        .output()
        .expect("the test binary runs")
}

/// The test binary itself, in no run.
fn alone(arguments: &[&str]) -> Command {
    let mut suites = Command::new(std::env::current_exe().expect("the test binary knows itself"));
    suites.args(arguments).env_remove("IGC_RUN");
    suites
}

fn proxy(alteration: &[&str]) -> String {
    let words: Vec<String> = alteration.iter().map(|word| format!(" '{word}'")).collect();
    format!("'{}'{}", env!("CARGO_BIN_EXE_altering-proxy"), words.concat())
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[rstest]
#[case("client-gateway")]
#[case("gateway-picker")]
#[case("gateway-model")]
fn what_only_passes_on_changes_no_verdict(#[case] between: &str) {
    let checks =
        ["routing::host", "streaming::framing", "streaming::client_abort", "pool::picker_asked", "tokens::exact"];
    let output = rehearsed(&checks, between, &proxy(&[]));
    assert!(output.status.success(), "{}", said(&output));
}

#[rstest]
#[case::a_refusal_as_a_reply("routing::host", "client-gateway", &["HTTP/1.1 404", "HTTP/1.1 200"])]
#[case::another_model_asked_for("routing::model_name_spoof", "client-gateway", &["\"model\":\"alpha\"", "\"model\":\"beta\" "])]
#[case::a_header_of_somebody_else("routing::kserve_headers", "gateway-model", &[": alpha\r\n", ": aleph\r\n"])]
#[case::another_end_of_a_stream("streaming::framing", "gateway-model", &["[DONE]", "[STOP]"])]
#[case::other_numbers("guide_000::chat_completion", "gateway-model", &["\"total_tokens\":7", "\"total_tokens\":9"])]
#[case::another_prompt_for_the_picker("pool::bodies::body_sizes", "gateway-picker", &["\"role\":\"user\"", "\"role\":\"tool\""])]
fn what_alters_the_meaning_is_caught(#[case] check: &str, #[case] between: &str, #[case] alteration: &[&str]) {
    let output = rehearsed(&[check], between, &proxy(alteration));
    let said = said(&output);
    let segments: Vec<&str> = check.split("::").collect();
    let title = format!("{}/{}", segments[0], segments[segments.len() - 1]).replace('_', "-");
    let failed = said.lines().any(|line| line.starts_with("fail ") && line.contains(&title));
    assert!(!output.status.success() && failed, "{said}");
}

#[rstest]
#[case::that_ends("false")]
#[case::that_is_not_there("/no/such/program")]
fn a_program_that_never_listens_proves_nothing(#[case] command: &str) {
    let output = rehearsed(&["routing::host"], "client-gateway", command);
    let said = said(&output);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(" routing/host ")).collect();
    let void =
        lines.iter().all(|line| line.starts_with("error ") && line.contains("void: ") && line.contains("not judged"));
    assert!(!lines.is_empty() && void, "{said}");
}

#[test]
fn a_gateway_without_a_rehearsal_is_left_out_and_named() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let root = tempfile::tempdir().expect("a folder");
    let toy = root.path().join("manifests/gateways/toy");
    fs::create_dir_all(&toy).expect("a folder of a gateway");
    fs::write(toy.join("gateway.yaml"), "").expect("a gateway");
    for part in ["components", "profiles"] {
        symlink(manifests.join(part), root.path().join("manifests").join(part)).expect("a link");
    }
    let output = alone(&["--exact", "routing::host"]).env("IGC_ROOT", root.path()).output().expect("it runs");
    let said = said(&output);
    assert!(output.status.success() && said.contains("note: toy is left out: no rehearsal of toy\n"), "{said}");
}

/// A run of Envoy AI Gateway v1.0.0 on kind, as it was recorded on 2026-11-21; six of its checks.
#[test]
fn a_recorded_run_is_judged_as_it_was() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/20261121-143948-jvrz");
    let parent = tempfile::tempdir().expect("a folder");
    let into = RunFolder::create(parent.path(), "again").expect("a folder in it");
    let output = alone(&CHECKS_ALONE)
        .env(replay::RUN, &recorded)
        .env(replay::INTO, into.path())
        .output()
        .expect("the test binary runs");
    assert!(output.status.success(), "{}", said(&output));
    type Said = (Key, Verdict, Vec<(String, Holds)>);
    let said_by = |folder: &RunFolder| -> Vec<Said> {
        let records = folder.read_records().expect("records").records.into_iter();
        let clauses = |r: &Record| {
            let mut clauses: Vec<_> = r.clauses.iter().map(|c| (c.name.clone(), c.holds)).collect();
            clauses.sort_by(|a, b| a.0.cmp(&b.0));
            clauses
        };
        records.map(|r| (r.key.clone(), r.verdict, clauses(&r))).collect()
    };
    let (before, now) = (said_by(&RunFolder::open(&recorded).expect("the recorded run")), said_by(&into));
    assert_eq!(before.len(), 6);
    assert!(before.iter().any(|(_, verdict, _)| *verdict == Verdict::Fail), "also a failure");
    assert_eq!(before, now);
}
