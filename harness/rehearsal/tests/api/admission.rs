//! Admission: the recorded answers of a real API server, word for word, by our own definitions and by the real ones.

use std::path::{Path, PathBuf};

use rehearsal::{
    api::Store,
    fidelity::{self, Case},
};
use serde_json::Value;

use crate::world::World;

/// The recorded answers: cases of fidelity, which are played by our own definitions there.
fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fidelity");
    ["agentgateway-admission.yaml", "envoy-ai-gateway-admission.yaml"]
        .into_iter()
        .flat_map(|file| fidelity::read(&folder.join(file)).unwrap_or_else(|error| panic!("{error}")))
        .collect()
}

#[test]
fn every_rule_of_our_own_definitions_is_checked() {
    let rules = Store::on_system_clock().rules();
    assert!(rules.all > 100, "{}", rules.all);
    assert_eq!(rules.unreadable, Vec::<String>::new());
}

#[tokio::test]
async fn a_patch_with_an_unknown_field_is_refused_as_kubectl_shows_it() {
    let world = World::new().await;
    let backend = r#"{"metadata":{"name":"b"},"spec":{"static":{"host":"h","port":80}}}"#;
    let path = "/apis/agentgateway.dev/v1alpha1/namespaces/default/agentgatewaybackends";
    assert_eq!(world.send("POST", path, "application/json", backend).await.code(), 201);
    let one = format!("{path}/b?fieldValidation=");
    let patch = r#"{"spec":{"static":{"prot":81}}}"#;
    let media = "application/merge-patch+json";
    let refused = world.send("PATCH", &format!("{one}Strict"), media, patch).await;
    assert_eq!(refused.code(), 422);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{message}");
    assert!(message.ends_with("strict decoding error: unknown field \"spec.static.prot\""), "{message}");
    let warned = world.send("PATCH", &format!("{one}Warn"), media, patch).await;
    assert_eq!((warned.code(), warned.warnings()), (200, vec!["unknown field \"spec.static.prot\"".to_owned()]));
    assert!(warned.json()["spec"]["static"]["prot"].is_null());
}

/// The newest version folder of each project, or the one that was recorded.
fn real_definitions(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut projects: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    projects.sort();
    for project in projects.iter().filter(|p| p.is_dir()) {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(project).unwrap().map(|e| e.unwrap().path()).collect();
        versions.sort();
        if let Some(newest) = versions.last() {
            let mut found: Vec<PathBuf> = std::fs::read_dir(newest).unwrap().map(|e| e.unwrap().path()).collect();
            found.sort();
            files.extend(found);
        }
    }
    files
}

/// Serves the real definitions; returns how many there are.
fn post_real_definitions(store: &Store, root: &Path) -> usize {
    let mut posted = 0;
    for file in real_definitions(root) {
        let text = std::fs::read_to_string(&file).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for mut document in documents.into_iter().filter(|d| d["kind"] == "CustomResourceDefinition") {
            document.as_object_mut().unwrap().remove("status");
            store.create(document).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            posted += 1;
        }
    }
    posted
}

#[tokio::test]
async fn real_definitions_say_what_was_recorded() {
    let Some(root) = std::env::var_os("IGC_CRDS").map(PathBuf::from) else {
        println!("not-run: IGC_CRDS names no folder of real definitions");
        return;
    };
    let world = World::bare().await;
    let posted = post_real_definitions(&world.store, &root);
    let (mut own, mut agree, mut differ, mut not_run) = (0, 0, Vec::new(), Vec::new());
    let address = world.server.address().to_string();
    for case in cases() {
        own += usize::from(fidelity::play(&case).await.unwrap().is_empty());
        let differences = fidelity::admit(&case, &address, &world.store).await.unwrap();
        if differences.is_empty() {
            agree += 1;
        } else if differences.iter().any(|d| d.here.contains("no matches for kind")) {
            not_run.push(format!("not-run: {}: the definitions at hand do not serve this version", case.id));
        } else {
            differ.extend(
                differences
                    .iter()
                    .map(|d| format!("differ: {}\n  recorded {}\n  here     {}", case.id, d.recorded, d.here)),
            );
        }
    }
    let rules = world.store.rules();
    println!("rules {}, of which not-run {}", rules.all, rules.unreadable.len());
    rules.unreadable.iter().for_each(|rule| println!("not-run: {rule}"));
    println!("our own definitions: cases that agree {own}");
    println!(
        "real definitions: {posted}; cases that agree {agree}, differ {}, not-run {}",
        differ.len(),
        not_run.len()
    );
    not_run.iter().chain(&differ).for_each(|line| println!("{line}"));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(agree > not_run.len());
}
