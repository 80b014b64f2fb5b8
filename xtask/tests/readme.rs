//! The README's commands, run: those that need no cluster, with the programs that this build has left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// `igc` and the suites' test binary, as `IGC_PROGRAMS` wants them; a build of this package alone does not have them.
fn programs() -> Option<TempDir> {
    let beside = Path::new(env!("CARGO_BIN_EXE_xtask")).parent()?;
    let newest = |name: &str| -> Option<PathBuf> {
        let programs = fs::read_dir(beside.join("deps")).ok()?.flatten().map(|entry| entry.path());
        let ours = programs.filter(|path| {
            path.file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.strip_prefix(name))
                .is_some_and(|rest| !rest.contains('.'))
        });
        let lists = |path: &PathBuf| {
            let listed = Command::new(path).args(["--list", "--format", "terse"]).output();
            listed.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("routing::host"))
        };
        let mut all: Vec<PathBuf> = ours.collect();
        all.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
        all.into_iter().rev().find(lists)
    };
    let folder = tempfile::tempdir().ok()?;
    let igc = beside.join("igc");
    if !igc.is_file() {
        eprintln!("skipped: igc is not built; cargo test --workspace builds it");
        return None;
    }
    let Some(suites) = newest("suites-") else {
        eprintln!("skipped: the suites are not built; cargo test --workspace builds them");
        return None;
    };
    for (program, name) in [(igc, "igc"), (suites, "suites")] {
        std::os::unix::fs::symlink(program, folder.path().join(name)).ok()?;
    }
    Some(folder)
}

/// `cargo xtask WORDS...`: exit code, standard output, standard error.
fn xtask(programs: &Path, words: &[&str]) -> (i32, String, String) {
    xtask_in(programs, &[], words)
}

/// The same with variables.
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
    let Some(programs) = programs() else { return };
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
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

/// A record of the last run below a folder, and its history.
fn last(out: &Path, gateway: &str, check: &str) -> (Value, Value) {
    let read = |kind: &str| {
        let file = out.join("latest").join(kind).join(gateway).join(check).join("-/1.json");
        serde_json::from_slice(&fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))).unwrap()
    };
    (read("records"), read("history"))
}

#[test]
fn what_the_readme_says_of_programs_on_a_hop_is_so() {
    let Some(programs) = programs() else { return };
    let proxy = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("altering-proxy");
    if !proxy.is_file() {
        eprintln!("skipped: altering-proxy is not built; cargo test --workspace builds it");
        return;
    }
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
    let Some(programs) = programs() else { return };
    for (words, code) in [
        (&["matrix", "--on", "kind", "--shards", "2"][..], 0),
        (&["job", "--image", "registry.example/igc:1", "--gateway", "agentgateway", "--cluster", "blue"], 0),
        (&["job", "--image", "registry.example/igc:1", "--gateway", "agentgateway", "--sonobuoy"], 0),
        (&["completions", "bash"], 0),
        (&["report", "--schema"], 0),
        (&["matrix", "--gateway", "agentgatway"], 2),
    ] {
        let (exit, stdout, stderr) = xtask(programs.path(), words);
        assert_eq!(exit, code, "{words:?}: {stdout}{stderr}");
        assert_eq!(stdout.is_empty(), code != 0, "{words:?}: {stdout}");
    }
}
