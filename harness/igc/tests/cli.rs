//! The command line of igc: what it says to bad input, and with which exit code. Nothing here needs a container engine:
//! programs are scripts in a folder that is all of PATH.

use std::path::{Path, PathBuf};
use std::{fs, process};

use assert_cmd::Command;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;
use verdict::judge::{Clause, Holds};
use verdict::record::{GoldenState, Record, Verdict};

mod fake;

/// A checkout of its own: a copy of the manifests, and a binary of suites; a test may spoil both.
struct Checkout {
    folder: TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        testtools::copy(&root().join("manifests"), &folder.path().join("manifests")).unwrap();
        fs::create_dir_all(folder.path().join("programs")).unwrap();
        fake::suites(folder.path(), None);
        Self { folder }
    }

    fn program(self, name: &str, script: &str) -> Self {
        let file = self.folder.path().join("programs").join(name);
        testtools::script(&file, &format!("#!/bin/sh\n{script}\n")).unwrap();
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.folder.path().join(name), text);
    }

    /// `igc`, with nothing in its environment but the suites and programs of this checkout.
    fn igc(&self) -> Command {
        Command::from_std(self.process())
    }

    fn process(&self) -> process::Command {
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_igc"));
        command.current_dir(self.folder.path()).env_clear().env("PATH", self.folder.path().join("programs"));
        command.env("HOME", self.folder.path()).env("IGC_SUITES", self.folder.path().join("suites-fake"));
        command
    }

    fn e2e(&self, words: &[&str]) -> (i32, String, String) {
        igc(self, &[&["e2e"], words].concat())
    }

    fn latest(&self) -> PathBuf {
        fs::canonicalize(self.folder.path().join("target/igc/latest")).unwrap()
    }
}

/// A kubeconfig with one context, of a server that nobody runs.
const KUBECONFIG: &str = "apiVersion: v1
kind: Config
clusters: [{name: here, cluster: {server: \"http://127.0.0.1:1\"}}]
users: [{name: me, user: {}}]
contexts: [{name: my-cluster, context: {cluster: here, user: me}}]
";

#[rstest]
#[case::unknown_gateway(&["--on", "rehearsal", "--gateway", "envoy-ai-gatway"], 2, &["no gateway called 'envoy-ai-gatway'", "did you mean envoy-ai-gateway?"])]
#[case::unknown_suite(&["--on", "rehearsal", "--suite", "rooting"], 2, &["--suite \"rooting\"", "did you mean routing"])]
#[case::unknown_check(&["--on", "rehearsal", "--check", "routing/hosts"], 2, &["routing/hosts", "did you mean routing/host"])]
#[case::unknown_profile(&["--on", "rehearsal", "--profile", "curent"], 2, &["no profile called 'curent'", "did you mean current"])]
#[case::unknown_component(&["--on", "rehearsal", "--set", "kserv=v1"], 2, &["no component called 'kserv'", "did you mean kserve"])]
#[case::unknown_model(&["--on", "rehearsal", "--model", "ecko"], 2, &["manifests/models", "no model called 'ecko'", "did you mean echo?"])]
#[case::not_a_setting(&["--on", "rehearsal", "--set", "kserve"], 2, &["--set kserve", "COMPONENT=VERSION"])]
#[case::not_built(&["--on", "container"], 2, &["--on container is not built yet", "rehearsal, kind and context"])]
#[case::context_without_name(&["--on", "context"], 2, &["--context NAME", "never guessed"])]
#[case::context_that_is_not_there(&["--on", "context", "--context", "my-clutser"], 2, &["my-clutser", "my-cluster"])]
#[case::context_that_does_not_answer(&["--on", "context", "--context", "my-cluster"], 3, &["127.0.0.1:1"])]
#[case::no_engine(&["--on", "kind"], 3, &["no container engine", "doctor"])]
#[case::no_bundle(&["--on", "rehearsal", "--bundle", "nowhere"], 3, &["bundle nowhere", "charts/NAME-VERSION"])]
fn bad_input_is_refused_in_words(#[case] words: &[&str], #[case] code: i32, #[case] said: &[&str]) {
    let (exit, out, err) = Checkout::new().file(".kube/config", KUBECONFIG).e2e(words);
    assert_eq!(exit, code, "{err}");
    assert_said(&err, said);
    assert_eq!(out, "", "a refusal makes no report");
}

const ENGINE: &str =
    r#"echo '{"ServerVersion":"27.3.1","MemTotal":17179869184,"NCPU":8,"CgroupVersion":"2","DockerRootDir":"/"}'"#;

#[rstest]
#[case::engine_does_not_answer("echo 'Cannot connect to the daemon' >&2; exit 1", "", "", &["does not answer", "Cannot connect to the daemon"])]
#[case::kind_is_missing(ENGINE, "", "exit 0", &["kind"])]
#[case::helm_is_missing(ENGINE, "exit 0", "", &["helm"])]
fn a_machine_that_lacks_something_is_told_what(
    #[case] docker: &str,
    #[case] kind: &str,
    #[case] helm: &str,
    #[case] said: &[&str],
) {
    let mut checkout = Checkout::new().program("docker", docker);
    for (name, script) in [("kind", kind), ("helm", helm)].into_iter().filter(|(_, script)| !script.is_empty()) {
        checkout = checkout.program(name, script);
    }
    let (exit, _, err) = checkout.e2e(&["--on", "kind"]);
    assert_eq!(exit, 3, "{err}");
    assert_said(&err, said);
}

#[test]
fn a_chart_that_a_bundle_lacks_is_named() {
    let checkout = Checkout::new()
        .file("bundle/charts/some-v1/Chart.yaml", "name: some\n")
        .file("bundle/crds/x/v1/a.yaml", "{}\n");
    let (exit, _, err) = checkout.e2e(&["--on", "rehearsal", "--gateway", "envoy-ai-gateway", "--bundle", "bundle"]);
    assert_eq!(exit, 3, "{err}");
    assert!(err.contains("cert-manager") && err.contains("v1.20.2"), "{err}");
}

#[test]
fn a_misspelt_key_is_shown_with_its_line() {
    let checkout = Checkout::new().file("manifests/profiles/mine.yaml", "name: mine\nverisons: {}\n");
    let (exit, _, err) = checkout.e2e(&["--on", "rehearsal", "--profile", "mine"]);
    assert_eq!(exit, 2, "{err}");
    assert!(err.contains("mine.yaml") && err.contains("verisons") && err.contains('2'), "{err}");
}

#[test]
fn where_nothing_is_installed_a_run_is_rehearsed_and_says_so() {
    let checkout = Checkout::new();
    let (exit, out, err) = checkout.e2e(&["--suite", "routing"]);
    assert_eq!(exit, 3, "no check left a record: {err}");
    assert!(err.contains("on rehearsal (no gateway is tested, because"), "{err}");
    assert!(out.contains("no gateway was tested"), "{out}");
    assert!(checkout.latest().join("plan.json").is_file());
}

#[test]
fn a_run_without_records_is_an_error_and_never_a_pass() {
    let checkout = Checkout::new();
    let (code, said, _) = checkout.e2e(&["--gateway", "envoy-ai-gateway", "--check", "routing/host"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("error") && said.contains("routing/host"), "{said}");
    let written: Value = read_json(&checkout.latest().join("report.json"));
    assert_eq!((&written["schema"], &written["run"]["word"]), (&"igc.report/v1".into(), &"rehearsed".into()));
    assert_eq!(written["totals"]["error"], 1, "{written}");
}

fn fidelity(files: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(&folder.path().join(name), text);
    }
    fs::create_dir_all(folder.path().join("manifests/gateways")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_igc"));
    ended(command.current_dir(folder.path()).arg("fidelity").args(words))
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Exit code, standard output and standard error of a command.
fn ended(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn assert_said(text: &str, said: &[&str]) {
    for words in said {
        assert!(text.contains(words), "{words:?} is not said in: {text}");
    }
}

fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

macro_rules! case {
    ($version:literal, $kind:literal, $accepted:literal) => {
        concat!(
            "\nrecording: r\ngateway: agentgateway\n",
            $version,
            ": v1.3.1\nplace: kind\ndate: 2026-11-21\ncases:\n- name: one\n  steps: [{object: {kind: ",
            $kind,
            ", name: agentgateway}, expect: {conditions: [{type: Accepted, status: ",
            $accepted,
            "}]}}]\n"
        )
    };
}
const CASE: &str = case!("version", "GatewayClass", "True");
const DIFFERS: &str = case!("version", "GatewayClass", "False");
const OWN: &str = "harness/rehearsal/fidelity/a.yaml";
const ACCEPTED: &str = "golden/agentgateway/fidelity.yaml";

#[rstest]
#[case::agrees(&[("a.yaml", CASE)], &["a.yaml"], 0, &["agree     a/one", "1 agree"])]
#[case::of_the_project(&[(OWN, CASE)], &["--case", "a/one"], 0, &["agree     a/one"])]
#[case::one_of_them(&[(OWN, CASE)], &["--case", "*/one"], 0, &["agree     a/one"])]
#[case::listed(&[(OWN, CASE), ("golden/x", "")], &["--list"], 0, &["a/one", "1 cases"])]
#[case::json(&[("a.yaml", CASE)], &["a.yaml", "--format", "json"], 0, &["\"outcome\": \"agree\"", "\"agree\": 1"])]
#[case::differs(&[("a.yaml", DIFFERS)], &["a.yaml"], 1,
    &["differ    a/one", "a.yaml:9 GatewayClass agentgateway condition Accepted status", "- one of False, false", "+ True"])]
#[case::accepted(&[(OWN, DIFFERS),
    (ACCEPTED, "accepted: [{case: a/one, at: .* condition Accepted status, reason: it is a test}]")], &["--case", "a/one"], 0,
    &["accepted  a/one", "accepted: it is a test", "1 accepted"])]
#[case::another_place(&[(OWN, DIFFERS),
    (ACCEPTED, "accepted: [{case: a/one, at: elsewhere, reason: it is a test}]")], &["--case", "a/one"], 1,
    &["differ    a/one", "stale     golden/agentgateway/fidelity.yaml:1"])]
#[case::stale(&[(OWN, CASE), (ACCEPTED, "accepted: [{case: a/one, reason: it is a test}]")], &["--case", "a/one"], 1,
    &["agree     a/one", "stale     golden/agentgateway/fidelity.yaml:1: a/one agrees there; remove the entry"])]
#[case::anothers_case(&[("a.yaml", DIFFERS),
    (ACCEPTED, "accepted: [{case: a/one, reason: it is a test}]")], &["a.yaml"], 1, &["differ    a/one"])]
#[case::cannot_be_played(&[("a.yaml", case!("version", "GatewayClas", "True"))], &["a.yaml"], 3,
    &["error     a/one", "serves no kind GatewayClas"])]
fn recordings_agree_or_differ(
    #[case] files: &[(&str, &str)],
    #[case] words: &[&str],
    #[case] code: i32,
    #[case] said: &[&str],
) {
    let (exit, out, err) = fidelity(files, words);
    assert_eq!(exit, code, "{out}{err}");
    assert_said(&out, said);
}

#[rstest]
#[case::no_file(&[], &["a.yaml"], &["failed to read a.yaml"])]
#[case::no_folder(&[], &["--case", "a/one"], &["harness/rehearsal/fidelity"])]
#[case::empty_folder(&[("b/x.txt", "")], &["b"], &["b has no file called *.yaml"])]
#[case::bad_case(&[("a.yaml", "gateway: [")], &["a.yaml"], &["failed to understand a.yaml"])]
#[case::every_bad_file(&[("b/a.yaml", "a: b"), ("b/c.yaml", "d: e")], &["b"], &["b/a.yaml", "b/c.yaml", "unknown field"])]
#[case::misspelt(&[("a.yaml", case!("versoin", "GatewayClass", "True"))], &["a.yaml"], &["line 4", "did you mean version"])]
#[case::no_such_case(&[("a.yaml", CASE)], &["a.yaml", "--case", "a/onee"], &["--case a/onee matches none of 1", "did you mean a/one?"])]
#[case::no_glob(&[("a.yaml", CASE)], &["a.yaml", "--case", "["], &["--case \"[\" is not a glob"])]
#[case::bad_acceptance(&[(OWN, CASE), (ACCEPTED, "accepted: [{case: a/one}]")], &["--case", "a/one"], &[ACCEPTED, "reason"])]
fn bad_cases_are_refused_in_words(#[case] files: &[(&str, &str)], #[case] words: &[&str], #[case] said: &[&str]) {
    let (exit, out, err) = fidelity(files, words);
    assert_eq!(exit, 2, "{out}{err}");
    assert_said(&err, said);
}

/// A rehearsed run of one check that passed, as a part of a run or whole; its folder.
fn finished(checkout: &Checkout, words: &[&str]) -> PathBuf {
    let words = [&["--on", "rehearsal", "--gateway", "agentgateway"], words].concat();
    let (code, out, err) = checkout.e2e(&words);
    assert_eq!(code, 3, "{out}{err}");
    let run = verdict::folder::RunFolder::open(&checkout.latest()).unwrap();
    for check in run.read_plan().unwrap().checks.iter().filter(|c| c.runs()) {
        let (name, expected, got) = ("c".into(), "e".into(), "e".into());
        let clause = Clause { name, holds: Holds::Yes, expected, got, exchanges: vec![], subject: None };
        let mut record = Record::new(check.key(1));
        (record.verdict, record.golden, record.clauses) = (Verdict::Pass, GoldenState::Same, vec![clause]);
        run.write_record(&record).unwrap();
    }
    run.path().to_owned()
}

fn igc(checkout: &Checkout, words: &[&str]) -> (i32, String, String) {
    ended(checkout.igc().args(words))
}

const TWO: [&str; 4] = ["--check", "routing/host", "--check", "status/gateway"];

/// As `igc list | head` leaves it.
#[rstest]
#[case::list(&["list"])]
#[case::explain(&["explain", "routing/host"])]
#[case::matrix(&["matrix"])]
#[case::schema(&["report", "--schema"])]
#[case::completions(&["completions", "bash"])]
#[case::help(&["e2e", "--help"])]
fn a_reader_that_has_gone_is_no_error(#[case] words: &[&str]) {
    let checkout = Checkout::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = checkout.process().args(words).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{words:?}");
}

#[test]
fn parts_of_a_run_on_two_machines_become_one_report() {
    let checkout = Checkout::new();
    let part = |shard: &str| {
        let run = finished(&checkout, &[&TWO[..], &["--shard", shard]].concat());
        let run = run.display().to_string();
        assert_eq!(igc(&checkout, &["report", "--write", &run]).0, 0);
        run
    };
    let (first, second) = (part("1/2"), part("2/2"));
    let (code, out, err) = igc(&checkout, &["merge", &first, &second]);
    assert_eq!(code, 0, "{out}{err}");
    let merged = checkout.latest();
    let report: Value = read_json(&merged.join("report.json"));
    assert_eq!(report["totals"]["pass"], 2, "{report}");
    for check in report["checks"].as_array().unwrap().iter().filter(|c| c["verdict"] == "pass") {
        let records = check["evidence"].as_str().unwrap().replace("/evidence/", "/records/");
        assert!(merged.join(format!("{records}.json")).is_file(), "{records} was not kept");
    }
    assert_eq!(igc(&checkout, &["report"]).0, 0, "a merged run is shown again");

    let (code, out, _) = igc(&checkout, &["merge", &first]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("part 2/2 of agentgateway is missing"), "{out}");
}

#[test]
fn a_cell_whose_job_died_is_an_error_of_the_whole() {
    let checkout = Checkout::new();
    let run = finished(&checkout, &TWO).display().to_string();
    assert_eq!(igc(&checkout, &["report", "--write", &run]).0, 0);
    let cell = |name: &str, profile: &str| {
        format!(
            r#"{{"name":"{name}","on":"rehearsal","gateway":"agentgateway","profile":"{profile}","model":"llm-d-sim","words":""}}"#
        )
    };
    let matrix = checkout.folder.path().join("matrix.json");
    let of = |cells: &[String]| fs::write(&matrix, format!(r#"{{"include":[{}]}}"#, cells.join(","))).unwrap();
    let merge = || igc(&checkout, &["merge", &run, "--matrix", "matrix.json"]);
    of(&[cell("here", "recorded")]);
    assert_eq!(merge().0, 0);
    of(&[cell("here", "recorded"), cell("gone", "guide")]);
    let (code, out, _) = merge();
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("there is no run of gone"), "{out}");
    fs::write(&matrix, "[]").unwrap();
    let (code, _, err) = merge();
    assert!(code == 2 && err.contains("is not the output of `matrix`"), "{err}");
}

#[rstest]
#[case::nothing(&[], "RUN")]
#[case::no_folder(&["nowhere"], "nowhere")]
fn there_is_nothing_to_merge(#[case] runs: &[&str], #[case] said: &str) {
    let (code, _, err) = igc(&Checkout::new(), &[&["merge"], runs].concat());
    assert!(code == 2 && err.contains(said), "{err}");
}

fn accepted(checkout: Checkout, gateway: &str, title: &str, reached: &str, body: &str) -> Checkout {
    let snapshot = format!(
        "recordings: [v1.0.0-rehearsal-echo]
observation:
  exchanges:
    known: [{{reached: [{reached}], status: 200}}]
    unknown: [{{body: {{text: {body}}}, reached: [], status: 404}}]
"
    );
    let recordings = format!(
        "recordings:
  v1.0.0-rehearsal-echo:
    place: rehearsal
    version: v1.0.0
    versions: {{{gateway}: v1.0.0}}
    model: echo
    profile: current
    recorded: \"2026-11-21\"
    run: r
    reason: because
"
    );
    checkout
        .file(&format!("golden/{gateway}/{title}.snap"), &snapshot)
        .file(&format!("golden/{gateway}/recordings.yaml"), &recordings)
}

/// What a gateway was seen to do under one check, as runs of before left it: who answered, and in which words.
fn observed(gateway: &str, reached: &str, body: &str) -> String {
    format!(
        "---
source: igc
description: a hostname selects its route
info:
  place: rehearsal
  gateway: {gateway}
  version: v1.0.0
  versions: {{{gateway}: v1.0.0}}
  model: echo
  profile: current
  recorded: \"2026-11-21\"
  run: r
---
exchanges:
- label: known
  reached: [{reached}]
  status: 200
- body: {{text: {body}}}
  label: unknown
  reached: []
  status: 404
"
    )
}

const DECLARED: &str = "differences:
- check: routing/*
  at: exchanges/[^/]+/0/body/text
  reason: each has words of its own
  link: https://example.test/words
";

#[rstest]
#[case::the_same("alpha", "none", "", 0, "1 compared: 1 same, 0 differ as declared, 0 differ otherwise; 0 stale")]
#[case::declared(
    "alpha",
    "no route",
    DECLARED,
    0,
    "1 compared: 0 same, 1 differ as declared, 0 differ otherwise; 0 stale"
)]
#[case::stale(
    "alpha",
    "none",
    DECLARED,
    1,
    "golden/b/differences.yaml:2 is stale: what it declares differs no more; remove it"
)]
#[case::undeclared("alpha", "no route", "", 1, "  undeclared  exchanges/unknown/0/body/text")]
#[case::declared_is_not_all("beta", "no route", DECLARED, 1, "  undeclared  exchanges/known/0/reached")]
fn what_gateways_do_differently_is_declared_or_shown(
    #[case] reached: &str,
    #[case] body: &str,
    #[case] declared: &str,
    #[case] code: i32,
    #[case] said: &str,
) {
    let checkout = accepted(Checkout::new(), "a", "routing/host", "alpha", "none");
    let checkout = accepted(checkout, "b", "routing/host", reached, body);
    let mut checkout = accepted(checkout, "b", "routing/alone", reached, body);
    if !declared.is_empty() {
        checkout = checkout.file("golden/b/differences.yaml", declared);
    }
    let (ended, out, err) = igc(&checkout, &["differ"]);
    assert_eq!(ended, code, "{out}{err}");
    assert!(out.lines().any(|line| line == said), "{out}");
    assert!(!out.contains("words of its own"), "{out}");
    let (ended, out, _) = igc(&checkout, &["differ", "--format", "json"]);
    assert_eq!(ended, code);
    let came: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(came["compared"], 1);
}

#[test]
fn two_gateways_stand_side_by_side() {
    let checkout = accepted(Checkout::new(), "a", "routing/host", "alpha", "none");
    let checkout =
        accepted(checkout, "b", "routing/host", "beta", "no route").file("golden/b/differences.yaml", DECLARED);
    let (_, out, _) = igc(&checkout, &["differ", "--declared"]);
    insta::assert_snapshot!(out);
    let (code, _, err) = igc(&checkout, &["differ", "--check", "tokens/*"]);
    assert_eq!(
        (code, err.contains("--check tokens/* matches no check that has been observed on two gateways")),
        (2, true),
        "{err}"
    );
}

#[test]
fn what_a_run_observed_counts_in_place_of_what_was_accepted() {
    let checkout = accepted(Checkout::new(), "a", "routing/host", "alpha", "none");
    let checkout = accepted(checkout, "b", "routing/host", "alpha", "none");
    let run = finished(&checkout, &["--check", "routing/host"]);
    assert_eq!(igc(&checkout, &["differ", run.to_str().unwrap()]).0, 0);
    let pending = run.join("golden/a/routing/host.snap.new");
    write(&pending, &observed("a", "beta", "none"));
    let (code, out, err) = igc(&checkout, &["differ", run.to_str().unwrap()]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("undeclared  exchanges/known/0/reached"), "{out}");
}

#[test]
fn what_was_accepted_of_gateways_differs_as_declared() {
    let output = Command::new(env!("CARGO_BIN_EXE_igc")).current_dir(root()).arg("differ").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[rstest]
#[case::not_there(None, "there is no ")]
#[case::says_nothing(Some("exit 0"), "wrote no registry of its checks")]
#[case::fails(Some("echo broken >&2; exit 1"), "broken")]
#[case::of_another_version(
    Some("echo '{\"schema\":\"igc.dev/registry/v2\",\"checks\":[]}' > \"$IGC_REGISTRY\""),
    "igc.dev/registry/v2"
)]
fn without_a_registry_nothing_is_planned(#[case] script: Option<&str>, #[case] said: &str) {
    let checkout = Checkout::new();
    let suites = checkout.folder.path().join("suites-fake");
    match script {
        Some(script) => fs::write(&suites, format!("#!/bin/sh\n{script}\n")).unwrap(),
        None => fs::remove_file(&suites).unwrap(),
    }
    let (code, out, err) = checkout.e2e(&["--on", "rehearsal"]);
    assert!(matches!(code, 2 | 3) && out.is_empty(), "{code}: {out}");
    assert!(err.contains(said), "{err}");
}

#[test]
fn a_suite_may_be_written_as_its_checks() {
    let checkout = Checkout::new();
    let planned = |suite: &str| {
        checkout.e2e(&["--on", "rehearsal", "--suite", suite]);
        read_json::<Value>(&checkout.latest().join("plan.json"))["checks"].clone()
    };
    assert_eq!(planned("pool/*"), planned("pool"));
}

#[test]
fn checks_are_listed_with_what_gateways_declare() {
    let checkout = Checkout::new();
    let (code, out, err) = igc(&checkout, &["list", "--format", "json"]);
    assert_eq!(code, 0, "{err}");
    let listed: Vec<Value> = serde_json::from_str(&out).unwrap();
    let registry = fs::read_to_string(checkout.folder.path().join("registry.json")).unwrap();
    assert_eq!(listed.len(), registry.matches("\"check\":").count());
    let of = |id: &str| listed.iter().find(|check| check["id"] == id).unwrap();
    assert_eq!(of("routing/host")["gateways"]["agentgateway"], "declared");
    assert_eq!(of("routing/host")["level"], "MUST");
    let unsupported = |check: &Value| {
        let mut gateways = check["gateways"].as_object().unwrap().values();
        gateways.any(|support| support["unsupported"].as_str().is_some_and(|reason| !reason.is_empty()))
    };
    assert!(listed.iter().any(unsupported), "{out}");
    let (code, out, _) = igc(&checkout, &["list", "--gateway", "agentgateway"]);
    assert!(code == 0 && out.contains("routing/host"), "{out}");
}

#[test]
fn a_check_is_explained_with_its_last_verdict() {
    let checkout = Checkout::new();
    let run = finished(&checkout, &["--check", "routing/host"]);
    let (code, out, err) = igc(&checkout, &["explain", "routing/host"]);
    assert_eq!(code, 0, "{err}");
    let said = [
        "a hostname selects its route",
        "kills       ignores-host: ",
        "agentgateway: declared",
        "pass      routing/host on agentgateway, rehearsal, ",
        &format!("{}/records/agentgateway/routing/host/-/1.json", run.display()),
    ];
    assert_said(&out, &said);
}

#[rstest]
#[case::gateway(&["list", "--gateway", "agentgatway"], "did you mean agentgateway?")]
#[case::check(&["explain", "routing/hots"], "did you mean routing/host")]
#[case::invariant(&["explain", "invariant/own-replies"], "there are invariant/own-reply, ")]
#[case::declared(&["e2e", "--on", "rehearsal", "--declare", "/nowhere.yaml"], "/nowhere.yaml")]
#[case::root(&["list", "--root", "/nowhere"], "it has no manifests/gateways")]
fn what_is_not_there_is_said_with_near_names(#[case] words: &[&str], #[case] said: &str) {
    let (code, out, err) = igc(&Checkout::new(), words);
    assert!(code == 2 && out.is_empty() && err.contains(said), "{code}: {err}");
}

#[test]
fn a_front_is_named_in_help_with_what_it_can_do_besides() {
    let igc = |front: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_igc"));
        front.iter().for_each(|front| _ = command.env("IGC_FRONT", front));
        String::from_utf8(command.arg("--help").output().unwrap().stdout).unwrap()
    };
    let alone = igc(None);
    assert!(alone.contains("  igc e2e --on kind") && !alone.contains("cargo xtask"), "{alone}");
    let front = igc(Some("cargo xtask\nci\tEverything that a commit must pass"));
    assert!(front.contains("Usage: cargo xtask ") && front.contains("  cargo xtask e2e --on kind"), "{front}");
    assert!(front.lines().any(|line| line.trim() == "ci           Everything that a commit must pass"), "{front}");
}

/// A gateway of its own: a folder alone, the copy of another under a new name. No line of Rust knows it.
fn with_a_toy(copied: &str) -> Checkout {
    let checkout = Checkout::new().file("Cargo.toml", "");
    for generated in ["suites/requirements.yaml", "docs/capabilities.md"] {
        checkout.write(generated, &fs::read_to_string(root().join(generated)).unwrap());
    }
    testtools::add_toy(&checkout.folder.path().join("manifests"), copied).unwrap();
    checkout
}

#[rstest]
#[case::every_name("- {direction: reply, header: '*', rule: add, source: s}", 1, "matches every name")]
#[case::one_name("- {direction: reply, header: x-a, rule: add, source: s}", 0, "")]
fn tidy_reads_what_folders_declare(#[case] change: &str, #[case] exit: i32, #[case] said: &str) {
    let checkout = with_a_toy("agentgateway");
    let path = checkout.folder.path().join("manifests/gateways/toy/gateway.yaml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nchanges:\n"), "{text}");
    fs::write(&path, text.replace("\nchanges:\n", &format!("\nchanges:\n{change}\n"))).unwrap();
    let (code, out, err) = igc(&checkout, &["tidy"]);
    assert!(code == exit && out.contains(said), "{code}: {out}{err}");
}

#[rstest]
#[case("agentgateway")]
#[case("envoy-ai-gateway")]
fn a_gateway_is_a_folder(#[case] copied: &str) {
    let checkout = with_a_toy(copied);
    // Without a rehearsal it is left out of one, and the report says so.
    let (_, out, err) = checkout.e2e(&["--on", "rehearsal", "--format", "json-lines"]);
    assert!(err.contains("note: toy is left out: no rehearsal of toy"), "{err}");
    let plan: verdict::plan::Plan = read_json(&checkout.latest().join("plan.json"));
    let of_toy: Vec<_> = plan.checks.iter().filter(|c| c.gateway == "toy").collect();
    assert!(of_toy.len() > 50 && of_toy.iter().all(|c| !c.runs()), "{out}");
    assert!(plan.checks.iter().any(|c| c.gateway == copied && c.runs()));

    let (exit, _, err) = checkout.e2e(&["--on", "rehearsal", "--gateway", "toy"]);
    assert_eq!(exit, 2, "{err}");
    assert!(err.contains("no rehearsal of toy; name another place with --on"), "{err}");

    let (exit, out, err) = igc(&checkout, &["matrix", "--gateway", "toy", "--profile", "current", "--model", "echo"]);
    assert_eq!(exit, 0, "{err}");
    assert!(out.contains("--on kind --gateway toy --profile current --model echo"), "{out}");

    let (exit, out, err) = igc(&checkout, &["list", "--gateway", "toy", "--format", "json"]);
    assert_eq!(exit, 0, "{err}");
    let listed: Vec<Value> = serde_json::from_str(&out).unwrap();
    let declared = |gateway: &str| listed.iter().filter(|check| check["gateways"][gateway] == "declared").count();
    assert!(declared("toy") > 30, "{out}");

    let (exit, out, err) = igc(&checkout, &["tidy"]);
    assert_eq!((exit, out.as_str()), (0, ""), "{err}");

    // The Job's rights are those of the gateway that it copies.
    let rights = |gateway: &str| {
        let (exit, out, err) = igc(&checkout, &["job", "--image", "i", "--gateway", gateway]);
        assert_eq!(exit, 0, "{err}");
        out.split("---\n").find(|document| document.contains("kind: ClusterRole\n")).unwrap().to_owned()
    };
    assert_eq!(rights("toy"), rights(copied));
}
