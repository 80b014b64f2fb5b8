//! Admission: the recorded answers of a real API server, word for word, by our own definitions and by the real ones.

use std::path::{Path, PathBuf};

use rehearsal::api::Store;
use rstest::rstest;
use serde::Deserialize;
use serde_json::Value;

use crate::world::World;

/// One recorded answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    unknown: String,
    /// The causes of an invalid object as kubectl prints them, or the message of another refusal.
    said: Vec<String>,
    #[serde(default)]
    warned: Vec<String>,
    manifest: String,
}

const ENVOY_AI_GATEWAY: &str = include_str!("recorded-envoy-ai-gateway.yaml");
const AGENTGATEWAY: &str = include_str!("recorded-agentgateway.yaml");

fn cases(text: &str) -> Vec<Case> {
    serde_saphyr::from_str(text).unwrap()
}

fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        Some(stem) if kind.ends_with("Policy") => format!("{stem}ies"),
        _ => format!("{lower}s"),
    }
}

/// What the server says to a manifest, and what it warns of.
async fn answer(world: &World, case: &Case) -> (Vec<String>, Vec<String>) {
    let object: Value = serde_saphyr::from_str(&case.manifest).unwrap();
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let path = format!(
        "/apis/{version}/namespaces/default/{}?dryRun=All&fieldManager=kubectl&fieldValidation={}",
        plural(kind),
        case.unknown
    );
    let answer = world.send("POST", &path, "application/yaml", case.manifest.clone()).await;
    let body = answer.json();
    let warned = answer.warnings();
    if answer.code() == 201 {
        return (Vec::new(), warned);
    }
    let causes = body["details"]["causes"].as_array();
    let said = match causes {
        Some(causes) => causes
            .iter()
            .map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap()))
            .collect(),
        None => vec![body["message"].as_str().unwrap().to_owned()],
    };
    (said, warned)
}

#[rstest]
#[case::envoy_ai_gateway(ENVOY_AI_GATEWAY, 18)]
#[case::agentgateway(AGENTGATEWAY, 36)]
#[tokio::test]
async fn our_own_definitions_say_what_was_recorded(#[case] recorded: &str, #[case] count: usize) {
    let world = World::new().await;
    let cases = cases(recorded);
    assert_eq!(cases.len(), count);
    let mut differ = Vec::new();
    for case in &cases {
        let (said, warned) = answer(&world, case).await;
        if said != case.said || warned != case.warned {
            differ.push(format!(
                "{}\n  recorded {:?} {:?}\n  here     {said:?} {warned:?}",
                case.name, case.said, case.warned
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_rule_of_our_own_definitions_is_checked() {
    let rules = Store::on_system_clock().rules();
    assert!(rules.all > 100, "{}", rules.all);
    assert_eq!(rules.unreadable, Vec::<String>::new());
}

#[tokio::test]
async fn defaults_are_filled_in_and_unknown_fields_dropped() {
    let world = World::new().await;
    let case = cases(ENVOY_AI_GATEWAY).into_iter().find(|c| c.unknown == "Ignore" && c.said.is_empty()).unwrap();
    let path =
        "/apis/aigateway.envoyproxy.io/v1alpha1/namespaces/default/aigatewayroutes?dryRun=All&fieldValidation=Ignore";
    let shown = world.send("POST", path, "application/yaml", case.manifest).await.json();
    let spec: Value = serde_saphyr::from_str(
        "llmRequestCosts:
- {metadataKey: llm_input_token, type: InputToken}
- {metadataKey: llm_output_token, type: OutputToken}
- {metadataKey: llm_total_token, type: TotalToken}
rules:
- backendRefs: [{name: envoy-ai-gateway-openai-kserve, priority: 0, weight: 100}]
  matches: [{headers: [{name: x-ai-eg-model, type: Exact, value: llama3-1b}]}]
  modelsOwnedBy: Envoy AI Gateway",
    )
    .unwrap();
    assert_eq!(shown["spec"], spec);
    assert_eq!(
        (&shown["metadata"]["generation"], &shown["apiVersion"]),
        (&1.into(), &"aigateway.envoyproxy.io/v1alpha1".into())
    );
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
    let (mut agree, mut differ, mut not_run) = (0, Vec::new(), Vec::new());
    for case in cases(ENVOY_AI_GATEWAY).iter().chain(&cases(AGENTGATEWAY)) {
        let (said, warned) = answer(&world, case).await;
        let absent = said == ["the server could not find the requested resource"];
        if said == case.said && warned == case.warned {
            agree += 1;
        } else if absent {
            not_run.push(format!("not-run: {}: the definitions at hand do not serve this version", case.name));
        } else {
            differ.push(format!("differ: {}\n  recorded {:?}\n  here     {said:?}", case.name, case.said));
        }
    }
    let rules = world.store.rules();
    println!("rules {}, of which not-run {}", rules.all, rules.unreadable.len());
    rules.unreadable.iter().for_each(|rule| println!("not-run: {rule}"));
    println!(
        "real definitions: {posted}; cases that agree {agree}, differ {}, not-run {}",
        differ.len(),
        not_run.len()
    );
    not_run.iter().chain(&differ).for_each(|line| println!("{line}"));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(agree > not_run.len());
}
