//! Tests of golden files: equal if and only if the values are, and insta reads what is written.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::plan::tests_support::{gateway, planned, run_info};

fn key(case: &str) -> Key {
    Key { gateway: "gw".into(), check: "routing/host".into(), case: case.into(), attempt: 1 }
}

fn info() -> Info {
    Info::of(&run_info(), &gateway("gw"), &planned("routing/host", crate::plan::Level::Must))
}

fn golden(observation: Value) -> Golden {
    Golden { description: "a hostname selects its route".into(), info: info(), observation }
}

fn read(text: &str) -> Golden {
    Golden::parse(text, Path::new("x.snap")).unwrap()
}

#[test]
fn the_file_is_what_it_is_documented_to_be() {
    let mut golden = golden(json!({"exchanges": [{"status": 404, "values": {"retry-after": "<number>"}, "on": "on"}]}));
    golden.info.reason = Some("first recording".into());
    insta::assert_snapshot!(golden.to_text().unwrap());
}

#[rstest]
#[case::other_version(|i: &mut Info| i.version = "v1.1.0".into(), Some("v1.0.0, this run of v1.1.0"))]
#[case::other_model(|i: &mut Info| i.model = ModelKind::VllmCpu, Some("model echo, this run of vllm-cpu"))]
#[case::patch(|i: &mut Info| i.version = "1.0.9".into(), None)]
#[case::place(|i: &mut Info| i.place = Place::Context, None)]
#[case::profile(|i: &mut Info| i.profile = "guide".into(), None)]
fn only_the_same_circumstances_are_compared(#[case] change: fn(&mut Info), #[case] said: Option<&str>) {
    let mut now = info();
    change(&mut now);
    for observation in [json!(1), json!(2)] {
        let got = compare(Some(&golden(json!(1))), &observation, &now);
        match (said, got) {
            (Some(said), Comparison::NotCompared { reason }) => assert!(reason.contains(said), "{reason}"),
            (None, Comparison::Same) => assert_eq!(observation, json!(1)),
            (None, Comparison::Changed { .. }) => assert_eq!(observation, json!(2)),
            (_, got) => panic!("{got:?}"),
        }
    }
}

#[test]
fn a_missing_golden_is_said_to_be_missing() {
    assert_eq!(compare(None, &json!(1), &info()), Comparison::Missing { reason: None });
}

#[rstest]
#[case::both_real(Place::Kind, Place::Context, false)]
#[case::both_rehearsed(Place::Rehearsal, Place::Rehearsal, false)]
#[case::real_for_a_rehearsal(Place::Kind, Place::Rehearsal, false)]
#[case::rehearsed_for_a_real_one(Place::Rehearsal, Place::Kind, true)]
fn what_was_rehearsed_is_no_measure_of_a_real_gateway(
    #[case] then: Place,
    #[case] place: Place,
    #[case] missing: bool,
) {
    let mut golden = golden(json!(1));
    golden.info.place = then;
    let got = compare(Some(&golden), &json!(1), &Info { place, ..info() });
    match missing {
        true => assert_eq!(
            got.record().1.as_deref(),
            Some("the golden file was rehearsed, and says nothing of a real gateway")
        ),
        false => assert_eq!(got, Comparison::Same),
    }
    assert_eq!(got.record().0 == GoldenState::Missing, missing);
}

#[rstest]
#[case(Place::Kind, Place::Rehearsal, false)]
#[case(Place::Rehearsal, Place::Rehearsal, true)]
#[case(Place::Rehearsal, Place::Kind, true)]
fn a_real_golden_is_not_replaced_by_a_rehearsed_one(#[case] then: Place, #[case] place: Place, #[case] taken: bool) {
    let parent = tempfile::tempdir().unwrap();
    let run = RunFolder::create(parent.path(), "r").unwrap();
    let root = parent.path().join("golden");
    let of = |place: Place, observation: Value| {
        let golden = golden(observation);
        Golden { info: Info { place, ..golden.info }, ..golden }
    };
    let first = write_pending(&run, &key("-"), &of(then, json!(1)), None).unwrap();
    accept(&first, &root, "first").unwrap();
    let second = write_pending(&run, &key("-"), &of(place, json!(2)), None).unwrap();
    assert_eq!(accept(&second, &root, "second").is_ok(), taken);
    let kept = Golden::find(&root, &key("-")).unwrap().unwrap().observation;
    assert_eq!(kept, if taken { json!(2) } else { json!(1) });
}

#[rstest]
#[case::value(json!({"status": 404}), json!({"status": 200}), &["-status: 404", "+status: 200"])]
#[case::number_or_text(json!({"a": 1}), json!({"a": "1"}), &["-a: 1", "+a: \"1\""])]
#[case::float(json!(1), json!(1.0), &["-1", "+1.0"])]
#[case::order(json!(["a", "b"]), json!(["b", "a"]), &["-- b", "+- b"])]
#[case::null(json!({"a": null}), json!({}), &["-a: null"])]
fn differences_are_shown(#[case] accepted: Value, #[case] observed: Value, #[case] lines: &[&str]) {
    let Comparison::Changed { difference } = compare(Some(&golden(accepted)), &observed, &info()) else {
        panic!("changed")
    };
    for line in lines {
        assert!(difference.lines().any(|l| l == *line), "{line:?} is not in:\n{difference}");
    }
}

#[rstest]
#[case("", "does not begin")]
#[case("---\nsource: x", "no closing line")]
#[case("---\nsource: x\ndescription: y\n---\n1\n", "front matter: ")]
#[case("---\nsource: x\nwrong: y\n---\n1\n", "wrong")]
fn what_is_no_golden_file_is_explained(#[case] text: &str, #[case] said: &str) {
    let message = Golden::parse(text, Path::new("golden/gw/a/b.snap")).unwrap_err().to_string();
    assert!(message.contains(said) && message.contains("golden/gw/a/b.snap"), "{message}");
}

/// insta writes the same observation through an assertion of its own; both must read both.
#[test]
fn insta_understands_a_pending_file() {
    let parent = tempfile::tempdir().unwrap();
    let run = RunFolder::create(parent.path(), "r").unwrap();
    let observation = json!({"a": [1, {"b": "x: y"}], "c": "<id>"});
    let pending = golden(observation.clone());
    let path = write_pending(&run, &key("-"), &pending, Some(&golden(json!({"a": 0})))).unwrap();
    assert_eq!(path, run.path().join("golden/gw/routing/host.snap.new"));
    let insta = insta::Snapshot::from_file(&path).unwrap();
    assert_eq!(insta.metadata().description(), Some("a hostname selects its route"));
    assert_eq!(insta.metadata().source(), Some("igc"));
    let insta::internals::SnapshotContents::Text(contents) = insta.contents() else { panic!("text") };
    let body: Value = serde_saphyr::from_str(&contents.to_string()).unwrap();
    assert_eq!(body, observation);
    let beside = insta::Snapshot::from_file(&path.with_extension("")).unwrap();
    assert_ne!(beside.contents(), insta.contents(), "cargo-insta finds the accepted one beside the pending one");
    assert_eq!(super::pending(&run).unwrap(), [path]);
}

#[test]
fn accepting_moves_the_pending_file_and_keeps_the_reason() {
    let parent = tempfile::tempdir().unwrap();
    let run = RunFolder::create(parent.path(), "r").unwrap();
    let root = parent.path().join("repository/golden");
    let path = write_pending(&run, &key("one"), &golden(json!(2)), Some(&golden(json!(1)))).unwrap();
    let message = accept(&path, &root, "  ").unwrap_err().to_string();
    assert!(message.contains("needs a reason"), "{message}");
    assert!(path.exists());
    let accepted = accept(&path, &root, "the gateway now answers 404").unwrap();
    assert_eq!(accepted, root.join("gw/routing/host@one.snap"));
    assert!(!path.exists() && !path.with_extension("").exists());
    let found = Golden::find(&root, &key("one")).unwrap().unwrap();
    assert_eq!(found.info.reason.as_deref(), Some("the gateway now answers 404"));
    assert_eq!(compare(Some(&found), &json!(2), &info()), Comparison::Same);
    assert_eq!(Golden::find(&root, &key("-")).unwrap(), None);
}

#[rstest]
#[case("elsewhere/gw/routing/host.snap.new")]
#[case("golden/gw/host.snap.new")]
#[case("golden/gw/routing/host.snap")]
#[case("golden/gw/routing/Host.snap.new")]
#[case("golden/other/routing/host.snap.new")]
fn accepting_from_elsewhere_is_refused(#[case] path: &str) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join(path);
    write_whole(&path, golden(json!(1)).to_text().unwrap().as_bytes(), Existing::Refused).unwrap();
    assert!(accept(&path, &parent.path().join("root"), "because").is_err());
    assert!(!parent.path().join("root").exists());
}

/// Runs the comparing tests again as insta's users set it up to pass, to accept and to be silent.
#[test]
fn no_insta_variable_changes_anything() {
    let program = std::env::current_exe().unwrap();
    for (name, value) in [("INSTA_UPDATE", "always"), ("INSTA_FORCE_PASS", "1"), ("INSTA_UPDATE", "no")] {
        let output = std::process::Command::new(&program)
            .args(["golden::tests::differences_are_shown", "golden::tests::accepting", "golden::tests::a_missing"])
            .env(name, value)
            .env("INSTA_WORKSPACE_ROOT", std::env::temp_dir())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}={value}: {said}");
        assert!(said.contains("12 passed"), "{said}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        (-1e6..1e6_f64).prop_map(|n| json!(n)),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| json!(n)),
    ];
    let text = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,12}",
        "(\n|\t|\r| |[a-z:#'\"\\-]){0,12}",
        Just("yes".to_owned()),
        Just("on".to_owned()),
        Just("~".to_owned()),
        Just("null".to_owned()),
        Just("0644".to_owned()),
        Just("1e3".to_owned()),
        Just(".inf".to_owned()),
        Just("---".to_owned()),
        Just("2026-11-21".to_owned()),
        "[a-z ]{60,120}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number,
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(text.clone(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_json(), description in "\\PC{0,20}") {
        let before = Golden { description, ..golden(value) };
        prop_assert_eq!(read(&before.to_text().unwrap()), before);
    }

    #[test]
    fn same_if_and_only_if_equal(a in any_json(), b in any_json()) {
        let accepted = read(&golden(a.clone()).to_text().unwrap());
        prop_assert_eq!(compare(Some(&accepted), &a, &info()), Comparison::Same);
        let got = compare(Some(&accepted), &b, &info());
        prop_assert_eq!(got == Comparison::Same, a == b);
        if let Comparison::Changed { difference } = got {
            prop_assert!(!difference.trim().is_empty());
        }
    }

    #[test]
    fn any_text_is_survived(text in "(---\n|source: x\n|info:\n|  place: kind\n|\\PC|\n){0,12}") {
        let _ = Golden::parse(&text, Path::new("x"));
    }
}

#[test]
fn what_is_rejected_is_gone_and_what_was_accepted_stays() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), "r").unwrap();
    let (old, new) = (golden(json!(1)), golden(json!(2)));
    let pending_file = write_pending(&run, &key("-"), &new, Some(&old)).unwrap();
    reject(&pending_file).unwrap();
    assert_eq!(pending(&run).unwrap(), Vec::<PathBuf>::new());
    assert!(!pending_file.with_extension("").exists(), "the copy for cargo-insta goes with it");
    let accepted = folder.path().join("golden/gw/routing/host.snap");
    write_whole(&accepted, b"x", Existing::Replaced).unwrap();
    assert!(reject(&accepted).is_err() && accepted.exists(), "an accepted file is never rejected");
}
