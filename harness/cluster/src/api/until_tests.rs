//! Rows of what counts as reached and what does not.

use rstest::rstest;
use serde_json::json;

use super::*;

const MET: &str = "met";

fn look(until: &Until, objects: &[Value]) -> String {
    let objects: Vec<&Value> = objects.iter().collect();
    match until.look(&objects) {
        Look::Met => MET.to_owned(),
        Look::NotYet(why) => why,
        Look::Senseless(why) => format!("senseless: {why}"),
    }
}

fn with_condition(generation: i64, observed: Option<i64>, status: &str, reason: &str) -> Value {
    let mut condition = json!({"type": "Ready", "status": status, "reason": reason});
    if let Some(observed) = observed {
        condition["observedGeneration"] = json!(observed);
    }
    json!({"metadata": {"generation": generation}, "status": {"conditions": [{"type": "Other", "status": "True"}, condition]}})
}

#[rstest]
#[case(Until::Exists, &[], "it does not exist")]
#[case(Until::Exists, &[json!({})], MET)]
#[case(Until::Gone, &[], MET)]
#[case(Until::Gone, &[json!({})], "1 of it still there")]
#[case(Until::DeploymentAvailable, &[], "it does not exist")]
fn being_there(#[case] until: Until, #[case] objects: &[Value], #[case] said: &str) {
    assert_eq!(look(&until, objects), said);
}

#[rstest]
#[case(with_condition(1, None, "True", "R"), MET)]
#[case(with_condition(2, Some(2), "True", "R"), MET)]
#[case(with_condition(2, Some(3), "True", "R"), MET)]
#[case(with_condition(2, Some(1), "True", "R"), "Ready is of generation 1, the object is at 2")]
#[case(with_condition(1, None, "False", "Broken"), "Ready=False (Broken)")]
#[case(with_condition(1, None, "Unknown", "R"), "Ready=Unknown (R)")]
#[case(json!({"status": {}}), "no condition Ready")]
#[case(json!({"status": {"conditions": "none"}}), "no condition Ready")]
#[case(json!({}), "no condition Ready")]
// Knative keeps one generation for all conditions.
#[case(json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}), "Ready is of generation 1, the object is at 2")]
#[case(json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}}), MET)]
fn a_condition_that_is_true_and_of_this_generation(#[case] object: Value, #[case] said: &str) {
    assert_eq!(look(&Until::ConditionTrue("Ready".into()), &[object]), said);
}

#[rstest]
#[case("False", None, MET)]
#[case("False", Some("Broken"), MET)]
#[case("False", Some("Other"), "Ready=False (Broken)")]
#[case("True", None, "Ready=False (Broken)")]
fn a_condition_with_status_and_reason(#[case] status: &str, #[case] reason: Option<&str>, #[case] said: &str) {
    let until = Until::Condition { r#type: "Ready".into(), status: status.into(), reason: reason.map(str::to_owned) };
    assert_eq!(look(&until, &[with_condition(1, None, "False", "Broken")]), said);
}

#[rstest]
#[case("True", "True", MET)]
#[case("False", "True", "Accepted=False ()")]
#[case("True", "False", "Programmed=False ()")]
fn a_gateway(#[case] accepted: &str, #[case] programmed: &str, #[case] said: &str) {
    let conditions = json!([{"type": "Accepted", "status": accepted}, {"type": "Programmed", "status": programmed}]);
    assert_eq!(look(&Until::GatewayProgrammed, &[json!({"status": {"conditions": conditions}})]), said);
}

fn route(named: Value, parents: Value) -> Value {
    json!({"metadata": {"namespace": "shop", "generation": 1}, "spec": {"parentRefs": named}, "status": {"parents": parents}})
}

fn parent(reference: Value, controller: &str, accepted: &str) -> Value {
    json!({"parentRef": reference, "controllerName": controller, "conditions": [{"type": "Accepted", "status": accepted, "observedGeneration": 1}]})
}

#[rstest]
#[case::accepted(json!([{"name": "gw"}]), json!([parent(json!({"name": "gw"}), "c", "True")]), MET)]
#[case::defaults_are_the_same(json!([{"name": "gw"}]), json!([parent(json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "shop"}), "c", "True")]), MET)]
#[case::refused(json!([{"name": "gw"}]), json!([parent(json!({"name": "gw"}), "c", "False")]), "parent gw: Accepted=False ()")]
#[case::another_controller(json!([{"name": "gw"}]), json!([parent(json!({"name": "gw"}), "other", "True")]), "no status of c for parent gw")]
#[case::another_namespace(json!([{"name": "gw", "namespace": "a"}]), json!([parent(json!({"name": "gw"}), "c", "True")]), "no status of c for parent gw")]
#[case::another_section(json!([{"name": "gw", "sectionName": "http"}]), json!([parent(json!({"name": "gw", "sectionName": "https"}), "c", "True")]), "no status of c for parent gw")]
#[case::one_of_two(json!([{"name": "gw"}, {"name": "gw2"}]), json!([parent(json!({"name": "gw"}), "c", "True")]), "no status of c for parent gw2")]
#[case::no_parents(json!([]), json!([]), "senseless: the route names no parents")]
fn a_route(#[case] named: Value, #[case] parents: Value, #[case] said: &str) {
    assert_eq!(look(&Until::RouteAccepted { controller: "c".into() }, &[route(named, parents)]), said);
}

#[rstest]
#[case::complete(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}), MET)]
#[case::not_seen(json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}), "its controller has seen generation 1 of 2")]
#[case::old_pods_serve(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3}), "1 of 2 updated, 3 available")]
#[case::not_available(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}), "2 of 2 updated, 1 available")]
#[case::old_pods_are_left(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}), "1 old pods are left")]
#[case::nothing_yet(json!({}), "its controller has seen generation 0 of 2")]
fn a_rollout(#[case] status: Value, #[case] said: &str) {
    let object =
        json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
    assert_eq!(look(&Until::DeploymentAvailable, &[object]), said);
}

#[test]
fn a_daemon_set_counts_its_nodes() {
    let status = json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1});
    let object = json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": status});
    assert_eq!(look(&Until::DeploymentAvailable, &[object]), "2 of 2 updated, 1 available");
}

#[rstest]
#[case(&[], "0 endpoints, none ready")]
#[case(&[json!({"endpoints": null})], "0 endpoints, none ready")]
#[case(&[json!({"endpoints": [{"conditions": {"ready": false}}]})], "1 endpoints, none ready")]
#[case(&[json!({"endpoints": [{"conditions": {"ready": false}}]}), json!({"endpoints": [{"conditions": {"ready": true}}]})], MET)]
#[case(&[json!({"endpoints": [{"addresses": ["10.0.0.1"]}]})], MET)]
fn endpoints(#[case] slices: &[Value], #[case] said: &str) {
    assert_eq!(look(&Until::EndpointsReady, slices), said);
}

#[rstest]
#[case(".status.addresses[0].value", json!("10.0.0.1"), MET)]
#[case(".status.addresses[1].value", json!("10.0.0.1"), ".status.addresses[1].value is not set")]
#[case(".metadata.labels['a.b/c']", json!("x"), MET)]
#[case(".spec.replicas", json!(2), ".spec.replicas is 1, not 2")]
#[case(".spec.replicas", json!(1), MET)]
#[case("", json!(1), "senseless: the path \"\" is empty; write it like .status.addresses[0].value")]
#[case("spec", json!(1), "senseless: the path \"spec\" begins with neither a dot nor a bracket; write it like .status.addresses[0].value")]
#[case(".a[b]", json!(1), "senseless: the path \".a[b]\" has a bracket with neither a number nor a quoted key; write it like .status.addresses[0].value")]
#[case(".a[0", json!(1), "senseless: the path \".a[0\" has a bracket that never ends; write it like .status.addresses[0].value")]
#[case(".a..b", json!(1), "senseless: the path \".a..b\" has an empty step; write it like .status.addresses[0].value")]
fn a_field(#[case] path: &str, #[case] equals: Value, #[case] said: &str) {
    let object = json!({"metadata": {"labels": {"a.b/c": "x"}}, "spec": {"replicas": 1}, "status": {"addresses": [{"value": "10.0.0.1"}]}});
    assert_eq!(look(&Until::Field { path: path.into(), equals }, &[object]), said);
}

#[rstest]
#[case(Ok(true), MET)]
#[case(Ok(false), "not three of them")]
#[case(Err("no such list".to_owned()), "senseless: no such list")]
fn a_question_of_the_callers(#[case] answer: Result<bool, String>, #[case] said: &str) {
    let until = Until::holds("three of them", move |_| answer.clone());
    assert_eq!(look(&until, &[json!({})]), said);
}

#[test]
fn all_of_a_set_must_be_so() {
    let set = [with_condition(1, None, "True", "R"), with_condition(1, None, "False", "Slow")];
    assert_eq!(look(&Until::ConditionTrue("Ready".into()), &set), "Ready=False (Slow)");
}

#[rstest]
#[case("exists", "it exists")]
#[case("condition-true: Established", "Established=True")]
#[case("condition: {type: Ready, status: \"False\"}", "Ready=False")]
#[case("condition: {type: Ready, status: \"False\", reason: X}", "Ready=False (X)")]
#[case("field: {path: .status.phase, equals: Ready}", ".status.phase is \"Ready\"")]
#[case("route-accepted: {controller: c}", "c has accepted it for all its parents")]
#[case("deployment-available", "its rollout is complete and available")]
fn it_can_be_written_as_data(#[case] text: &str, #[case] said: &str) {
    let until: Until = serde_saphyr::from_str(text).expect("read");
    assert_eq!(until.to_string(), said);
}

#[rstest]
#[case("fn: x")]
#[case("condition: {type: Ready, status: \"True\", reson: X}")]
#[case("gone-away")]
fn misspelt_data_is_refused(#[case] text: &str) {
    assert!(serde_saphyr::from_str::<Until>(text).is_err());
}
