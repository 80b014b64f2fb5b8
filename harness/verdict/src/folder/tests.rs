//! Tests of the run folder: exclusive, whole, and readable after any accident.

use std::fs;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::record::{Record, Verdict};
use crate::{history::History, plan::tests_support::small_plan, record::tests_support::record};

fn key(check: &str, attempt: u32) -> Key {
    Key { gateway: "gw".into(), check: check.into(), case: "-".into(), attempt }
}

fn run() -> (tempfile::TempDir, RunFolder) {
    let parent = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(parent.path(), "run-1").unwrap();
    (parent, folder)
}

fn passed(check: &str, attempt: u32) -> Record {
    record(key(check, attempt), Verdict::Pass)
}

#[test]
fn a_run_is_made_once_and_opened_often() {
    let (parent, folder) = run();
    assert!(RunFolder::create(parent.path(), "run-1").unwrap_err().is_existing());
    assert_eq!(RunFolder::open(&parent.path().join("run-1")).unwrap(), folder);
    assert_eq!(folder.id(), "run-1");
    let message = RunFolder::open(&parent.path().join("run-2")).unwrap_err().to_string();
    assert!(message.contains("run-2: it does not exist"), "{message}");
    assert!(RunFolder::create(parent.path(), "../out").is_err());
}

#[test]
fn latest_moves() {
    let (parent, first) = run();
    let second = RunFolder::create(parent.path(), "run-2").unwrap();
    let latest = parent.path().join("latest");
    for folder in [&first, &second, &second] {
        folder.point_latest().unwrap();
        assert_eq!(RunFolder::open(&latest).unwrap(), *folder);
        assert_eq!(fs::read_link(&latest).unwrap(), Path::new(folder.id()), "relative, so the tree can move");
    }
}

#[test]
fn plan_and_environment_come_back() {
    let (_parent, folder) = run();
    let plan = small_plan();
    folder.write_plan(&plan).unwrap();
    folder.write_plan(&plan).unwrap();
    assert_eq!(folder.read_plan().unwrap(), plan);
    let value = serde_json::json!({"kind": "v0.32"});
    folder.write_environment(&value).unwrap();
    assert_eq!(folder.read_json::<serde_json::Value>("environment.json").unwrap(), value);
}

#[rstest]
#[case::missing(None, "it does not exist")]
#[case::torn(Some("{\"schema\": \"igc.pl"), "cut short")]
#[case::other_version(Some("{\"schema\": \"igc.plan/v9\"}"), "igc.plan/v9, and this igc reads igc.plan/v1")]
#[case::no_version(Some("{}"), "no schema")]
fn a_bad_plan_is_explained(#[case] content: Option<&str>, #[case] said: &str) {
    let (_parent, folder) = run();
    if let Some(content) = content {
        folder.write_file("plan.json", content).unwrap();
    }
    let message = folder.read_plan().unwrap_err().to_string();
    assert!(message.contains(said) && message.contains("plan.json"), "{message}");
}

#[test]
fn records_are_written_once() {
    let (_parent, folder) = run();
    let first = passed("routing/host", 1);
    folder.write_record(&first).unwrap();
    let mut other = first.clone();
    other.verdict = Verdict::Fail;
    assert!(folder.write_record(&other).unwrap_err().is_existing());
    folder.write_record(&passed("routing/host", 2)).unwrap();
    let read = folder.read_records().unwrap();
    assert_eq!(read.records, [first, passed("routing/host", 2)]);
    assert_eq!(read.unreadable, []);
}

#[test]
fn a_run_without_records_has_none() {
    let (_parent, folder) = run();
    assert_eq!(folder.read_records().unwrap(), Records::default());
    assert_eq!(folder.read_events().unwrap(), Events::default());
    assert_eq!(folder.history_keys().unwrap(), []);
}

#[rstest]
#[case::torn("gw/routing/host/-/1.json", "{\"schema\":", true, "cut short")]
#[case::empty("gw/routing/host/-/1.json", "", true, "cut short")]
#[case::version("gw/routing/host/-/1.json", "{\"schema\": \"igc.record/v7\"}", true, "igc.record/v7")]
#[case::not_a_key("gw/routing/1.json", "{}", false, "no schema")]
#[case::not_a_number("gw/routing/host/-/x.json", "{}", false, "no schema")]
fn what_is_no_record_is_reported(#[case] path: &str, #[case] content: &str, #[case] has_key: bool, #[case] said: &str) {
    let (_parent, folder) = run();
    folder.write_record(&passed("tokens/exact", 1)).unwrap();
    folder.write_file(&format!("records/{path}"), content).unwrap();
    folder.write_file("records/gw/routing/host/-/.part-x", "being written").unwrap();
    let read = folder.read_records().unwrap();
    assert_eq!(read.records.len(), 1);
    let [bad] = read.unreadable.as_slice() else { panic!("{read:?}") };
    assert_eq!(bad.path, Path::new("records").join(path));
    assert_eq!(bad.key.is_some(), has_key);
    assert!(bad.problem.contains(said), "{}", bad.problem);
}

#[rstest]
#[case::elsewhere(passed("routing/host", 1), "belongs elsewhere")]
#[case::not_of_an_attempt(record(key("tokens/exact", 1), Verdict::Flaky), "not one of a single attempt")]
fn a_record_that_lies_is_reported(#[case] record: Record, #[case] said: &str) {
    let (_parent, folder) = run();
    folder.write_json("records/gw/tokens/exact/-/1.json", &record).unwrap();
    let read = folder.read_records().unwrap();
    assert_eq!(read.records, []);
    assert!(read.unreadable[0].problem.contains(said), "{:?}", read.unreadable);
}

#[rstest]
#[case("../gw", "routing/host", "-", 1)]
#[case("gw", "../host", "-", 1)]
#[case("gw", "routing/host/more", "-", 1)]
#[case("gw", "routing/host", "..", 1)]
#[case("gw", "routing/host", "a/b", 1)]
#[case("gw", "routing/host", "", 1)]
#[case("gw", "routing/host", "-", 0)]
fn no_key_leaves_the_folder(#[case] gateway: &str, #[case] check: &str, #[case] case: &str, #[case] attempt: u32) {
    let (_parent, folder) = run();
    let key = Key { gateway: gateway.into(), check: check.into(), case: case.into(), attempt };
    assert!(folder.evidence_dir(&key).is_err());
    assert!(folder.write_history(&History::new(key.clone(), "n", "h")).is_err());
    assert!(folder.write_record(&record(key, Verdict::Pass)).is_err());
}

#[test]
fn histories_come_back_and_unknown_versions_are_refused() {
    let (_parent, folder) = run();
    let mut history = History::new(key("routing/host", 1), "ns", "host");
    assert_eq!(folder.write_history(&history).unwrap(), history);
    assert!(folder.write_history(&history).unwrap_err().is_existing());
    assert_eq!(folder.read_history(&history.key).unwrap(), history);
    history.key.attempt = 2;
    history.version = 9;
    folder.write_history(&history).unwrap();
    let message = folder.read_history(&history.key).unwrap_err().to_string();
    assert!(message.contains("version 9, and this igc reads versions up to 2"), "{message}");
    assert_eq!(folder.history_keys().unwrap(), [key("routing/host", 1), key("routing/host", 2)]);
    history.key.attempt = 3;
    let message = folder.read_history(&history.key).unwrap_err().to_string();
    assert!(message.contains("does not exist"), "{message}");
}

/// A history of each version that there has been, as it was written then: a new version needs a new one here.
#[test]
fn histories_of_every_version_are_read() {
    let (_parent, folder) = run();
    for version in 1..=crate::history::HISTORY_VERSION {
        let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("histories/{version}.json"));
        let stored = fs::read_to_string(&stored).unwrap_or_else(|e| panic!("{}: {e}", stored.display()));
        folder.write_file(&format!("history/gw/routing/host/-/{version}.json"), &stored).unwrap();
        let read = folder.read_history(&key("routing/host", version)).unwrap();
        assert_eq!(read.version, version);
        assert!(!read.exchanges.is_empty() && read.models.values().all(|log| log.is_whole()), "nothing of it is lost");
    }
}

#[test]
fn evidence_has_a_folder_of_its_own() {
    let (_parent, folder) = run();
    let path = folder.evidence_dir(&key("routing/host", 1)).unwrap();
    assert!(path.is_dir() && path.ends_with("evidence/gw/routing/host/-/1"));
    assert_eq!(folder.evidence_dir(&key("routing/host", 1)).unwrap(), path);
}

#[test]
fn nothing_secret_is_written() {
    let (_parent, folder) = run();
    let key = key("routing/host", 1);
    let secret = "hf_S3cr3tValue99";
    let mut record = record(key.clone(), Verdict::Fail);
    record.reason = format!("got {secret}");
    record.clauses[0].got = secret.into();
    folder.write_record(&record).unwrap();
    let mut history = History::new(key, "ns", "host");
    history.notes.push(secret.into());
    assert!(!folder.write_history(&history).unwrap().notes[0].contains(secret));
    folder.append_event(&Event::now("x", secret)).unwrap();
    folder.write_environment(&serde_json::json!({"HF_TOKEN": secret})).unwrap();
    let files = files_below(folder.path()).unwrap();
    assert_eq!(files.len(), 4);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("<redacted:") && !text.contains(secret), "{}: {text}", file.display());
    }
}

#[test]
fn half_an_event_does_not_swallow_the_next() {
    let (_parent, folder) = run();
    let event = Event { gateway: Some("gw".into()), ..Event::now("install", "two\nlines") };
    folder.append_event(&event).unwrap();
    let path = folder.path().join("events.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"{\"at\": \"2026");
    fs::write(&path, bytes).unwrap();
    folder.append_event(&event).unwrap();
    let read = folder.read_events().unwrap();
    assert_eq!(read.events, [event.clone(), event]);
    assert_eq!(read.torn, [2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_record_cut_anywhere_is_reported(cut in 0..2000_usize) {
        let (_parent, folder) = run();
        let record = passed("routing/host", 1);
        let text = serde_json::to_string_pretty(&record).unwrap();
        let cut = cut % text.len();
        folder.write_file("records/gw/routing/host/-/1.json", &text[..cut]).unwrap();
        let read = folder.read_records().unwrap();
        prop_assert_eq!(read.records.len(), 0);
        prop_assert_eq!(read.unreadable.len(), 1);
        prop_assert_eq!(read.unreadable[0].key.as_ref(), Some(&record.key));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_parent, folder) = run();
        fs::write(folder.path().join("events.jsonl"), &bytes).unwrap();
        fs::write(folder.path().join("plan.json"), &bytes).unwrap();
        folder.read_events().unwrap();
        prop_assert!(folder.read_plan().is_err());
    }
}
