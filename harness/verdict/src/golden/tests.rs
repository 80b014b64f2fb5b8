//! Tests of goldens: same if and only if the values are, what is a measure of what, and insta reads what is pending.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::folder::{Existing, write_whole};
use crate::plan::tests_support::{gateway, planned, run_info};

fn recording() -> Recording {
    Recording::of(&run_info(), &gateway("gw"), &planned("routing/host", crate::plan::Level::Must))
}

/// A golden of these observations, each of a recording of its own.
fn golden(observations: impl IntoIterator<Item = (Recording, Value)>) -> Golden {
    let accepted = observations.into_iter().enumerate().map(|(n, (recording, observation))| Accepted {
        recordings: vec![(format!("r-{n}"), Recording { reason: Some("because".into()), ..recording })],
        observation,
    });
    Golden { observations: accepted.collect() }
}

fn one(observation: Value) -> Golden {
    golden([(recording(), observation)])
}

fn pending_of(title: &str, observation: Value) -> Pending {
    Pending {
        gateway: "gw".into(),
        title: title.into(),
        sentence: "a hostname selects its route".into(),
        recording: recording(),
        observation,
    }
}

struct World {
    parent: tempfile::TempDir,
    run: RunFolder,
}

impl World {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let run = RunFolder::create(parent.path(), "r").unwrap();
        Self { parent, run }
    }

    fn root(&self) -> PathBuf {
        self.parent.path().join("repository/golden")
    }

    fn accept(&self, observation: Value, change: impl FnOnce(&mut Recording)) -> Result<PathBuf, GoldenError> {
        let mut pending = pending_of("routing/host", observation);
        change(&mut pending.recording);
        Pending::accept(&pending.write(&self.run, None)?, &self.root(), "because")
    }

    fn golden(&self) -> Golden {
        Golden::find(&self.root(), "gw", "routing/host").unwrap()
    }

    fn seen(&self) -> Vec<(Value, Vec<String>)> {
        let ids = |accepted: &Accepted| accepted.recordings.iter().map(|(id, _)| id.clone()).collect();
        self.golden().observations.iter().map(|accepted| (accepted.observation.clone(), ids(accepted))).collect()
    }
}

#[test]
fn the_files_are_what_they_are_documented_to_be() {
    let world = World::new();
    world.accept(json!({"exchanges": {"a": [{"status": 404, "on": "on"}]}}), |_| ()).unwrap();
    world.accept(json!({"exchanges": {"a": [{"status": 404, "on": "on"}]}}), |r| r.version = "v1.1.0".into()).unwrap();
    let path = world.accept(json!("<text>"), |r| r.place = PlaceName::Context).unwrap();
    let recordings = std::fs::read_to_string(world.root().join("gw/recordings.yaml")).unwrap();
    insta::assert_snapshot!(format!("{}\n----\n{recordings}", std::fs::read_to_string(path).unwrap()));
}

#[test]
fn a_pending_file_is_what_it_was() {
    let world = World::new();
    let path =
        pending_of("routing/host", json!({"exchanges": {"a": [{"status": 404}]}})).write(&world.run, None).unwrap();
    insta::assert_snapshot!(std::fs::read_to_string(path).unwrap());
}

/// A run of before left its exchanges in a list.
#[test]
fn a_pending_file_of_before_is_read() {
    let world = World::new();
    let path = pending_of("routing/host", json!(1)).write(&world.run, None).unwrap();
    let front = std::fs::read_to_string(&path).unwrap();
    let entry = |label: &str, times: u64| json!({"label": label, "status": 200, "times": times});
    let body = json!({"exchanges": [entry("a", 2), {"label": "b", "status": 404}, entry("a", 3)], "streams": 1});
    std::fs::write(&path, format!("{}{body}\n", front.strip_suffix("1\n").unwrap())).unwrap();
    let expected = json!({"exchanges": {"a": [{"status": 200, "times": 5}], "b": [{"status": 404}]}, "streams": 1});
    assert_eq!(Pending::read(&path).unwrap().observation, expected);
}

#[rstest]
#[case::other_version(|r: &mut Recording| r.version = "v1.1.0".into(), Some("v1.0.0, this run of v1.1.0"))]
#[case::other_model(|r: &mut Recording| r.model = "vllm-cpu".parse().unwrap(), Some("model echo, this run of vllm-cpu"))]
#[case::patch(|r: &mut Recording| r.version = "1.0.9".into(), None)]
#[case::place(|r: &mut Recording| r.place = PlaceName::Context, None)]
#[case::profile(|r: &mut Recording| r.profile = "guide".into(), None)]
fn only_the_same_circumstances_are_compared(#[case] change: fn(&mut Recording), #[case] said: Option<&str>) {
    let mut now = recording();
    change(&mut now);
    for observation in [json!(1), json!(2)] {
        let got = compare(&one(json!(1)), &observation, &now);
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
    assert_eq!(compare(&Golden::default(), &json!(1), &recording()), Comparison::Missing { reason: None });
}

#[rstest]
#[case::both_real(PlaceName::Kind, PlaceName::Context, None)]
#[case::both_rehearsed(PlaceName::Rehearsal, PlaceName::Rehearsal, None)]
#[case::real_for_a_rehearsal(PlaceName::Kind, PlaceName::Rehearsal, None)]
#[case::rehearsed_for_a_real_one(
    PlaceName::Rehearsal,
    PlaceName::Kind,
    Some("the golden file was rehearsed, and says nothing of a real gateway")
)]
#[case::elsewhere(PlaceName::Context, PlaceName::Kind, Some("the golden file is of context, and says nothing of kind"))]
fn what_was_rehearsed_is_no_measure_of_a_real_gateway(
    #[case] then: PlaceName,
    #[case] place: PlaceName,
    #[case] missing: Option<&str>,
) {
    let golden = golden([(Recording { place: then, ..recording() }, json!(1))]);
    let got = compare(&golden, &json!(1), &Recording { place, ..recording() });
    match missing {
        Some(reason) => assert_eq!(got.record(), (GoldenState::Missing, Some(reason.to_owned()))),
        None => assert_eq!(got, Comparison::Same),
    }
}

/// Each place sees what its name says, and a rehearsal of another version something else.
#[rstest]
#[case(PlaceName::Rehearsal, &[PlaceName::Rehearsal, PlaceName::Kind], PlaceName::Kind)]
#[case(PlaceName::Rehearsal, &[PlaceName::Context, PlaceName::Rehearsal], PlaceName::Context)]
#[case(PlaceName::Rehearsal, &[PlaceName::Rehearsal], PlaceName::Rehearsal)]
#[case(PlaceName::Kind, &[PlaceName::Context, PlaceName::Kind, PlaceName::Rehearsal], PlaceName::Kind)]
#[case(PlaceName::Context, &[PlaceName::Kind, PlaceName::Context], PlaceName::Context)]
#[case(PlaceName::Context, &[PlaceName::Rehearsal, PlaceName::Kind], PlaceName::Kind)]
#[case(PlaceName::Container, &[PlaceName::Kind, PlaceName::Context], PlaceName::Kind)]
fn the_nearest_place_is_the_measure(#[case] now: PlaceName, #[case] there: &[PlaceName], #[case] measure: PlaceName) {
    let of = |place: PlaceName, version: &str, recorded: &str| Recording {
        place,
        version: version.into(),
        recorded: recorded.into(),
        ..recording()
    };
    // Other versions are later, and do not count where there is one of this.
    let others = there.iter().map(|place| (of(*place, "v1.1.0", "2026-11-23"), json!("of another version")));
    let here = there.iter().map(|place| (of(*place, "v1.0.1", "2026-11-21"), json!(place)));
    let golden = golden(others.chain(here));
    assert_eq!(compare(&golden, &json!(measure), &of(now, "v1.0.0", "2026-11-25")), Comparison::Same);
}

#[test]
fn of_two_recordings_the_later_is_the_measure() {
    let of = |recorded: &str, run: &str| Recording { recorded: recorded.into(), run: run.into(), ..recording() };
    let golden = golden([
        (of("2026-11-21", "20261121-2"), json!(1)),
        (of("2026-11-22", "20261122-2"), json!(3)),
        (of("2026-11-22", "20261122-1"), json!(2)),
    ]);
    assert_eq!(compare(&golden, &json!(3), &recording()), Comparison::Same);
    assert_eq!(golden.latest().unwrap().observation, &json!(3));
}

#[test]
fn what_a_gateway_is_known_to_do_is_what_a_real_one_did_in_its_newest_version() {
    let of = |place: PlaceName, version: &str| Recording { place, version: version.into(), ..recording() };
    let golden = golden([
        (of(PlaceName::Kind, "v1.9.0"), json!(1)),
        (of(PlaceName::Context, "v1.10.0"), json!(2)),
        (of(PlaceName::Rehearsal, "v1.11.0"), json!(3)),
    ]);
    assert_eq!(golden.latest().unwrap().observation, &json!(2));
}

#[rstest]
#[case(PlaceName::Kind, PlaceName::Rehearsal, false)]
#[case(PlaceName::Rehearsal, PlaceName::Rehearsal, true)]
#[case(PlaceName::Rehearsal, PlaceName::Kind, true)]
fn a_real_golden_is_not_replaced_by_a_rehearsed_one(
    #[case] then: PlaceName,
    #[case] place: PlaceName,
    #[case] taken: bool,
) {
    let world = World::new();
    world.accept(json!(1), |r| r.place = then).unwrap();
    let accepted = world.accept(json!(2), |r| r.place = place);
    assert_eq!(accepted.is_ok(), taken);
    let [accepted] = world.golden().observations.try_into().unwrap();
    assert_eq!(accepted.observation, if taken { json!(2) } else { json!(1) });
}

/// What may still be a measure stays, what nothing is compared with any more goes.
#[test]
fn accepting_adds_an_id_or_an_observation() {
    let world = World::new();
    world.accept(json!(1), |_| ()).unwrap();
    world.accept(json!(1), |r| r.version = "v1.1.0".into()).unwrap();
    world.accept(json!(2), |r| r.model = "llm-d-sim".parse().unwrap()).unwrap();
    world.accept(json!(2), |r| r.place = PlaceName::Context).unwrap();
    let [first, other_version] = ["v1.0.0-kind-echo", "v1.1.0-kind-echo"].map(str::to_owned);
    let others = vec!["v1.0.0-kind-llm-d-sim".to_owned(), "v1.0.0-context-echo".to_owned()];
    let before = [(json!(1), vec![first, other_version.clone()]), (json!(2), others.clone())];
    assert_eq!(world.seen(), before);
    world.accept(json!(3), |r| r.run = "another".into()).unwrap();
    let after =
        [(json!(1), vec![other_version]), (json!(2), others), (json!(3), vec!["v1.0.0-kind-echo-2".to_owned()])];
    assert_eq!(world.seen(), after);
    // A run of the same circumstances and reason has one id, whatever it saw.
    let same_run = world.accept(json!({"of": "another check"}), |r| r.run = "another".into());
    same_run.unwrap();
    let ids = Recordings::find(&world.root(), "gw").unwrap();
    assert_eq!(ids.ids().filter(|id| id.contains("kind-echo")).count(), 3, "{ids:?}");
}

#[test]
fn a_run_leaves_what_is_not_the_same() {
    let world = World::new();
    let (run, gateway, check) = (run_info(), gateway("gw"), planned("routing/host", crate::plan::Level::Must));
    let judged_on = |place: PlaceName, observation: Value, version: &str| {
        let (run, mut gateway) = (RunInfo { place, ..run.clone() }, gateway.clone());
        gateway.versions.insert("gw".into(), version.into());
        let judged = judge_observation(&world.root(), &world.run, &run, &gateway, &check, observation).unwrap();
        let left = pending(&world.run).unwrap();
        left.iter().for_each(|path| Pending::reject(path).unwrap());
        (judged.0, left.len())
    };
    let judged = |observation, version| judged_on(PlaceName::Kind, observation, version);
    assert_eq!(judged(json!(1), "v1.0.0"), (GoldenState::Missing, 1));
    world.accept(json!(1), |_| ()).unwrap();
    assert_eq!(judged(json!(1), "v1.0.0"), (GoldenState::Same, 0));
    assert_eq!(judged(json!(2), "v1.0.0"), (GoldenState::Changed, 1));
    assert_eq!(judged(json!(1), "v1.1.0"), (GoldenState::NotCompared, 1));
    assert_eq!(judged_on(PlaceName::Rehearsal, json!(1), "v1.1.0"), (GoldenState::NotCompared, 0));
    assert_eq!(judged_on(PlaceName::Rehearsal, json!(2), "v1.0.0"), (GoldenState::Changed, 1));
}

#[rstest]
#[case::value(json!({"status": 404}), json!({"status": 200}), &["-status: 404", "+status: 200"])]
#[case::number_or_text(json!({"a": 1}), json!({"a": "1"}), &["-a: 1", "+a: \"1\""])]
#[case::float(json!(1), json!(1.0), &["-1", "+1.0"])]
#[case::order(json!(["a", "b"]), json!(["b", "a"]), &["-- b", "+- b"])]
#[case::null(json!({"a": null}), json!({}), &["-a: null"])]
fn differences_are_shown(#[case] accepted: Value, #[case] observed: Value, #[case] lines: &[&str]) {
    let Comparison::Changed { difference } = compare(&one(accepted), &observed, &recording()) else {
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
fn what_is_no_pending_file_is_explained(#[case] text: &str, #[case] said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden/gw/a/b.snap.new");
    write_whole(&path, text.as_bytes(), Existing::Refused).unwrap();
    let message = Pending::read(&path).unwrap_err().to_string();
    assert!(message.contains(said) && message.contains("golden/gw/a/b.snap.new"), "{message}");
}

#[rstest]
#[case::unknown_id(
    "recordings: [v1.0.0-kind-ecko]\nobservation: 1\n",
    "no recording v1.0.0-kind-ecko; did you mean v1.0.0-kind-echo?"
)]
#[case::no_id("recordings: []\nobservation: 1\n", "names no recording")]
#[case::misspelt("recording: [v1.0.0-kind-echo]\nobservation: 1\n", "recording")]
#[case::of_before("---\nsource: igc\ndescription: d\ninfo: {}\n---\n1\n", "source")]
fn what_is_no_golden_is_explained(#[case] text: &str, #[case] said: &str) {
    let world = World::new();
    let path = world.accept(json!(1), |_| ()).unwrap();
    std::fs::write(&path, text).unwrap();
    let message = Golden::find(&world.root(), "gw", "routing/host").unwrap_err().to_string();
    assert!(message.contains(said) && message.contains("gw/routing/host.snap"), "{message}");
}

#[rstest]
#[case("  reason: because\n", "", "v1.0.0-kind-echo has no reason")]
#[case("reason:", "raeson:", "raeson")]
fn what_are_no_recordings_is_explained(#[case] right: &str, #[case] wrong: &str, #[case] said: &str) {
    let world = World::new();
    world.accept(json!(1), |_| ()).unwrap();
    let path = world.root().join("gw/recordings.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(right), "{text}");
    std::fs::write(&path, text.replace(right, wrong)).unwrap();
    let message = Golden::find(&world.root(), "gw", "routing/host").unwrap_err().to_string();
    assert!(message.contains(said) && message.contains("gw/recordings.yaml"), "{message}");
}

#[test]
fn the_goldens_of_the_project_are_whole() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden"));
    let all = super::accepted(root).unwrap();
    let gateways: std::collections::BTreeSet<&str> = all.iter().map(|(gateway, ..)| gateway.as_str()).collect();
    assert!(gateways.len() > 1);
    for gateway in gateways {
        let of_it = all.iter().filter(|(name, ..)| name == gateway).flat_map(|(.., golden)| &golden.observations);
        let used: std::collections::BTreeSet<&str> =
            of_it.flat_map(|accepted| &accepted.recordings).map(|(id, _)| id.as_str()).collect();
        let recordings = Recordings::find(root, gateway).unwrap();
        let unused: Vec<&str> = recordings.ids().filter(|id| !used.contains(id)).collect();
        assert!(unused.is_empty(), "golden/{gateway}/recordings.yaml: no snapshot names {unused:?}; remove them");
    }
}

/// insta writes the same observation through an assertion of its own; both must read both.
#[test]
fn insta_understands_a_pending_file() {
    let World { run, .. } = &World::new();
    let observation = json!({"a": [1, {"b": "x: y"}], "c": "<id>"});
    let accepted = pending_of("routing/host", json!({"a": 0}));
    let path = pending_of("routing/host", observation.clone()).write(run, Some(&accepted)).unwrap();
    assert_eq!(path, run.path().join("golden/gw/routing/host.snap.new"));
    let insta = insta::Snapshot::from_file(&path).unwrap();
    assert_eq!(insta.metadata().description(), Some("a hostname selects its route"));
    assert_eq!(insta.metadata().source(), Some("igc"));
    let insta::internals::SnapshotContents::Text(contents) = insta.contents() else { panic!("text") };
    let body: Value = serde_saphyr::from_str(&contents.to_string()).unwrap();
    assert_eq!(body, observation);
    let beside = insta::Snapshot::from_file(&path.with_extension("")).unwrap();
    assert_ne!(beside.contents(), insta.contents(), "cargo-insta finds the accepted one beside the pending one");
    assert_eq!(super::pending(run).unwrap(), [path]);
}

#[test]
fn accepting_moves_the_pending_file_and_keeps_the_reason() {
    let world = World::new();
    let (run, root) = (&world.run, world.root());
    let (old, new) = (pending_of("routing/host@one", json!(1)), pending_of("routing/host@one", json!(2)));
    let path = new.write(run, Some(&old)).unwrap();
    let message = Pending::accept(&path, &root, "  ").unwrap_err().to_string();
    assert!(message.contains("needs a reason"), "{message}");
    assert!(path.exists());
    let accepted = Pending::accept(&path, &root, "the gateway now answers 404").unwrap();
    assert_eq!(accepted, root.join("gw/routing/host@one.snap"));
    assert!(!path.exists() && !path.with_extension("").exists());
    let found = Golden::find(&root, "gw", "routing/host@one").unwrap();
    assert_eq!(found.latest().unwrap().recording.reason.as_deref(), Some("the gateway now answers 404"));
    assert_eq!(compare(&found, &json!(2), &recording()), Comparison::Same);
    assert_eq!(Golden::find(&root, "gw", "routing/host").unwrap(), Golden::default());
    let all: Vec<(String, String)> = super::accepted(&root).unwrap().into_iter().map(|(g, t, _)| (g, t)).collect();
    assert_eq!(all, [("gw".to_owned(), "routing/host@one".to_owned())]);
}

#[rstest]
#[case("elsewhere/gw/routing/host.snap.new")]
#[case("golden/gw/host.snap.new")]
#[case("golden/gw/routing/host.snap")]
#[case("golden/gw/routing/Host.snap.new")]
#[case("golden/other/routing/host.snap.new")]
fn accepting_from_elsewhere_is_refused(#[case] path: &str) {
    let World { parent, run } = &World::new();
    let written = pending_of("routing/host", json!(1)).write(run, None).unwrap();
    let path = parent.path().join(path);
    write_whole(&path, &std::fs::read(written).unwrap(), Existing::Refused).unwrap();
    assert!(Pending::accept(&path, &parent.path().join("root"), "because").is_err());
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
        assert!(said.contains("13 passed"), "{said}");
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

fn reread(golden: &Golden) -> Golden {
    let root = tempfile::tempdir().unwrap();
    let mut recordings = Recordings::find(root.path(), "gw").unwrap();
    let mut golden = golden.clone();
    for (id, recording) in golden.observations.iter_mut().flat_map(|accepted| &mut accepted.recordings) {
        *id = recordings.id_of(recording).unwrap();
    }
    let path = Path::new("x.snap");
    let read = text::parse(&text::write(&golden, path, &recordings).unwrap(), path, &recordings).unwrap();
    assert_eq!(read, golden);
    read
}

const PENDING: &str = "golden/gw/routing/host.snap.new";

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_json(), other in any_json(), sentence in "\\PC{0,20}") {
        let later = Recording { run: "later".into(), ..recording() };
        reread(&golden([(recording(), value.clone()), (later, other)]));
        let (path, before) = (Path::new(PENDING), Pending { sentence, ..pending_of("routing/host", value) });
        prop_assert_eq!(Pending::parse(&before.text(path).unwrap(), path).unwrap(), before);
    }

    #[test]
    fn same_if_and_only_if_equal(a in any_json(), b in any_json()) {
        let accepted = reread(&one(a.clone()));
        prop_assert_eq!(compare(&accepted, &a, &recording()), Comparison::Same);
        let got = compare(&accepted, &b, &recording());
        prop_assert_eq!(got == Comparison::Same, a == b);
        if let Comparison::Changed { difference } = got {
            prop_assert!(!difference.trim().is_empty());
        }
    }

    #[test]
    fn any_text_is_survived(text in "(---\n|source: x\n|info:\n|  place: kind\n|recordings: [x]\n|observation: |\\PC|\n){0,12}") {
        let recordings = Recordings::find(Path::new("nowhere"), "gw").unwrap();
        let _ = text::parse(&text, Path::new("x"), &recordings);
        let _ = Pending::parse(&text, Path::new(PENDING));
    }
}

#[test]
fn what_is_rejected_is_gone_and_what_was_accepted_stays() {
    let world = World::new();
    let (old, new) = (pending_of("routing/host", json!(1)), pending_of("routing/host", json!(2)));
    let pending_file = new.write(&world.run, Some(&old)).unwrap();
    Pending::reject(&pending_file).unwrap();
    assert_eq!(pending(&world.run).unwrap(), Vec::<PathBuf>::new());
    assert!(!pending_file.with_extension("").exists(), "the copy for cargo-insta goes with it");
    let accepted = world.parent.path().join("golden/gw/routing/host.snap");
    write_whole(&accepted, b"x", Existing::Replaced).unwrap();
    assert!(Pending::reject(&accepted).is_err() && accepted.exists(), "an accepted file is never rejected");
}
