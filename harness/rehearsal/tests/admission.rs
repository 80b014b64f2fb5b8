//! Admission: the recorded answers of a real API server, word for word, by our own definitions and by the real ones.

use std::path::{Path, PathBuf};

use apiserver::{Definitions, NoHooks, Server, ServerOptions, Store};
use rehearsal::{
    definitions::DEFINITIONS,
    fidelity::{self, Case},
};
use serde_json::Value;

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fidelity");
    ["agentgateway-admission.yaml", "envoy-ai-gateway-admission.yaml"]
        .into_iter()
        .flat_map(|file| fidelity::read(&folder.join(file)).unwrap_or_else(|error| panic!("{error}")))
        .collect()
}

#[test]
fn every_rule_of_our_own_definitions_is_checked() {
    let rules = Store::new(NoHooks, &DEFINITIONS).rules();
    assert!(rules.all > 100, "{}", rules.all);
    assert_eq!(rules.unreadable, Vec::<String>::new());
}

/// The newest version folder of each project, or the one that was recorded.
fn real_definitions(root: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let projects = inside(root).into_iter().filter(|project| project.is_dir());
    projects.filter_map(|project| inside(&project).pop()).flat_map(|newest| inside(&newest)).collect()
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
    let store = Store::new(NoHooks, &Definitions::default());
    let server = Server::start(store.clone(), ServerOptions::default()).await.unwrap();
    let posted = post_real_definitions(&store, &root);
    let (mut own, mut agree, mut differ, mut not_run) = (0, 0, Vec::new(), Vec::new());
    let address = server.address().to_string();
    for case in cases() {
        own += usize::from(fidelity::play(&case).await.unwrap().is_empty());
        let differences = fidelity::admit(&case, &address, &store).await.unwrap();
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
    let rules = store.rules();
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
