//! The README's commands, run: those that need no cluster, with the programs that this build has left.

use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;

fn built(what: [&str; 2]) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
            cargo.env_remove(&name); // build scripts would look at them, and build again
        }
    }
    cargo.args(["build", "--workspace", "--test", "suites"]).args(what).arg("--message-format=json-render-diagnostics");
    let output = cargo.current_dir(checkout()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = messages.find(|m| m["target"]["name"] == what[1] && m["executable"].is_string());
    executable.unwrap()["executable"].as_str().unwrap().into()
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("programs").arg(folder.path()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    folder
}

/// `cargo xtask WORDS...`: exit code, standard output, standard error.
fn xtask(programs: &Path, words: &[&str]) -> (i32, String, String) {
    xtask_in(programs, &[], words)
}

fn xtask_in(programs: &Path, variables: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.env("IGC_PROGRAMS", programs).env_remove("IGC_RUN").env_remove("CI").args(words);
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_the_readme_says_of_a_rehearsal_is_so() {
    let programs = programs();
    let readme = fs::read_to_string(checkout().join("README.md")).unwrap();
    let said = |command: &str| assert!(readme.contains(command), "the README does not have it any more: {command}");
    let out = tempfile::tempdir().unwrap();
    let to = ["--out", out.path().to_str().unwrap()];
    let run = |words: &[&str]| {
        said(&format!("cargo xtask {}", words.join(" ")));
        xtask(programs.path(), &[words, &to].concat())
    };

    let (code, stdout, stderr) = run(&["e2e", "--on", "rehearsal", "--suite", "routing", "--quiet"]);
    assert_eq!((code, stdout.lines().count(), stderr.as_str()), (0, 1, ""), "{stdout}");
    let latest = out.path().join("latest");
    for name in ["report.html", "report.json", "report.xml", "report.md", "plan.json", "events.jsonl", "tests.log"] {
        assert!(latest.join(name).is_file(), "{name} is missing");
    }

    said("cargo xtask e2e --on rehearsal --format json-lines");
    let one = ["e2e", "--on", "rehearsal", "--format", "json-lines", "--check", "routing/host", to[0], to[1]];
    let (code, stdout, stderr) = xtask(programs.path(), &one);
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((of("check"), of("run")), (2, 1), "{stdout}");
    assert_eq!(lines.last().unwrap()["run"]["exit"], 0);

    let latest = latest.to_str().unwrap();
    said("cargo xtask report ");
    assert_eq!(xtask(programs.path(), &["report", latest]).0, 0);
    said("cargo xtask review --list");
    let (code, stdout, _) = xtask(programs.path(), &["review", "--list", latest]);
    assert!(code == 0 && stdout.contains("to review"), "{stdout}");
}

fn last(out: &Path, gateway: &str, check: &str) -> (Value, Value) {
    let read = |kind: &str| {
        let file = out.join("latest").join(kind).join(gateway).join(check).join("-/1.json");
        serde_json::from_slice(&fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))).unwrap()
    };
    (read("records"), read("history"))
}

#[test]
fn what_the_readme_says_of_programs_on_a_hop_is_so() {
    let programs = programs();
    let proxy = built(["--bin", "altering-proxy"]);
    let altering = format!("'{}' 'HTTP/1.1 404' 'HTTP/1.1 200'", proxy.display());
    let out = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let variables = [("IGC_MUTANT_PROXY", command), ("IGC_MUTANT_BETWEEN", "client-gateway")];
        let words = ["e2e", "--on", "rehearsal", "--gateway", "agentgateway", "--check", "routing/host"];
        xtask_in(programs.path(), &variables, &[&words[..], &["--out", out.path().to_str().unwrap()]].concat())
    };

    let (code, stdout, _) = run(&format!("'{}'", proxy.display()));
    assert_eq!(code, 0, "what only passes on changes nothing: {stdout}");

    let (code, stdout, _) = run(&altering);
    assert_eq!(code, 1, "what alters the meaning is caught: {stdout}");
    let (record, history) = last(out.path(), "agentgateway", "routing/host");
    assert_eq!(record["verdict"], "fail");
    let failed = record["clauses"].as_array().unwrap().iter().filter(|clause| clause["holds"] == "no");
    let named: Vec<&Value> = failed.flat_map(|clause| clause["exchanges"].as_array().unwrap()).collect();
    assert!(!named.is_empty(), "{record}");
    for id in named {
        let exchange = history["exchanges"].as_array().unwrap().iter().find(|exchange| exchange["id"] == *id);
        assert_eq!(exchange.unwrap()["outcome"]["response"]["status"], 200, "the altered answer itself: {history}");
    }

    let (code, stdout, _) = run("false");
    assert_eq!(code, 3, "what never listens proves nothing: {stdout}");
    assert!(stdout.contains("not judged"), "{stdout}");
}

#[test]
fn what_needs_no_run_works() {
    let programs = programs();
    for (words, code) in [
        (&["matrix", "--on", "kind", "--shards", "2"][..], 0),
        (&["job", "--image", "registry.example/igc:1", "--gateway", "agentgateway", "--cluster", "blue"], 0),
        (&["job", "--image", "registry.example/igc:1", "--gateway", "agentgateway", "--sonobuoy"], 0),
        (&["completions", "bash"], 0),
        (&["report", "--schema"], 0),
        (&["list"], 0),
        (&["explain", "routing/host"], 0),
        (&["matrix", "--gateway", "agentgatway"], 2),
    ] {
        let (exit, stdout, stderr) = xtask(programs.path(), words);
        assert_eq!(exit, code, "{words:?}: {stdout}{stderr}");
        assert_eq!(stdout.is_empty(), code != 0, "{words:?}: {stdout}");
    }
    let (exit, stdout, stderr) = xtask(programs.path(), &["tidy"]);
    assert_eq!((exit, stdout.as_str()), (0, ""), "{stderr}");
}

#[test]
fn without_a_checkout_all_is_rehearsed_that_is_packed() {
    let (programs, elsewhere) = (programs(), tempfile::tempdir().unwrap());
    let igc = |words: &[&str]| {
        let mut command = Command::new(programs.path().join("igc"));
        command.current_dir(elsewhere.path()).env_clear().env("HOME", elsewhere.path()).args(words).output().unwrap()
    };
    let output = igc(&["e2e", "--on", "rehearsal", "--profile", "recorded", "--check", "routing/host"]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = fs::read(elsewhere.path().join("target/igc/latest/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let of_checks = |check: &&Value| check["verdict"] == "pass" && check["id"] == "routing/host";
    let goldens: Vec<&Value> = report["checks"].as_array().unwrap().iter().filter(of_checks).collect();
    assert_eq!(goldens.len(), 2, "{}", report["totals"]);
    assert!(goldens.into_iter().all(|check| check["golden"]["state"] == "same"), "goldens are packed too: {report}");
    for words in [&["list"][..], &["differ"], &["replay"], &["fidelity", "--list"]] {
        let output = igc(words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {text}");
    }
    let accepted = igc(&["review", "--accept", "*/*", "--reason", "r"]);
    assert_eq!(accepted.status.code(), Some(2), "what is packed stays as it is");
}

#[test]
fn help_shows_what_igc_and_the_front_can_do() {
    let programs = programs();
    let (code, help, _) = xtask(programs.path(), &["--help"]);
    assert_eq!(code, 0);
    for command in ["e2e", "explain", "tidy", "ci", "programs"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command}: {help}");
    }
    assert!(help.contains("Usage: cargo xtask"), "{help}");
    let (_, completions, _) = xtask(programs.path(), &["completions", "bash"]);
    assert!(completions.contains("programs"), "{completions}");
    for words in [&["ci", "--fast"][..], &["programs"], &["no-such-command"]] {
        assert_eq!(xtask(programs.path(), words).0, 2, "{words:?}");
    }
}
