//! Rows of what counts as reached and what does not.

use rstest::rstest;
use serde_json::json;

use super::*;

const MET: &str = "met";

fn evaluate(condition: &WaitCondition, objects: &[Value]) -> String {
    let objects: Vec<&Value> = objects.iter().collect();
    condition.evaluate(&objects).err().unwrap_or(MET.to_owned())
}

fn with_condition(generation: i64, observed: Option<i64>, status: &str, reason: &str) -> Value {
    let mut condition = json!({"type": "Ready", "status": status, "reason": reason});
    if let Some(observed) = observed {
        condition["observedGeneration"] = json!(observed);
    }
    json!({"metadata": {"generation": generation}, "status": {"conditions": [{"type": "Other", "status": "True"}, condition]}})
}

#[rstest]
#[case(WaitCondition::Exists, &[], "it does not exist")]
#[case(WaitCondition::Exists, &[json!({})], MET)]
#[case(WaitCondition::Gone, &[], MET)]
#[case(WaitCondition::Gone, &[json!({})], "1 of it still there")]
#[case(WaitCondition::DeploymentAvailable, &[], "it does not exist")]
fn being_there(#[case] condition: WaitCondition, #[case] objects: &[Value], #[case] said: &str) {
    assert_eq!(evaluate(&condition, objects), said);
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
    assert_eq!(evaluate(&WaitCondition::ConditionTrue("Ready".into()), &[object]), said);
}

#[rstest]
#[case("True", "True", MET)]
#[case("False", "True", "Accepted=False ()")]
#[case("True", "False", "Programmed=False ()")]
fn a_gateway(#[case] accepted: &str, #[case] programmed: &str, #[case] said: &str) {
    let conditions = json!([{"type": "Accepted", "status": accepted}, {"type": "Programmed", "status": programmed}]);
    assert_eq!(evaluate(&WaitCondition::GatewayProgrammed, &[json!({"status": {"conditions": conditions}})]), said);
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
    assert_eq!(evaluate(&WaitCondition::DeploymentAvailable, &[object]), said);
}

#[test]
fn a_daemon_set_counts_its_nodes() {
    let status = json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1});
    let object = json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": status});
    assert_eq!(evaluate(&WaitCondition::DeploymentAvailable, &[object]), "2 of 2 updated, 1 available");
}

#[rstest]
#[case(&[], "0 endpoints, none ready")]
#[case(&[json!({"endpoints": null})], "0 endpoints, none ready")]
#[case(&[json!({"endpoints": [{"conditions": {"ready": false}}]})], "1 endpoints, none ready")]
#[case(&[json!({"endpoints": [{"conditions": {"ready": false}}]}), json!({"endpoints": [{"conditions": {"ready": true}}]})], MET)]
#[case(&[json!({"endpoints": [{"addresses": ["10.0.0.1"]}]})], MET)]
fn endpoints(#[case] slices: &[Value], #[case] said: &str) {
    assert_eq!(evaluate(&WaitCondition::EndpointsReady, slices), said);
}

#[rstest]
#[case(true, MET)]
#[case(false, "not three of them")]
fn a_question_of_the_callers(#[case] answer: bool, #[case] said: &str) {
    let condition = WaitCondition::holds("three of them", move |_| answer);
    assert_eq!(evaluate(&condition, &[json!({})]), said);
}

#[test]
fn all_of_a_set_must_be_so() {
    let set = [with_condition(1, None, "True", "R"), with_condition(1, None, "False", "Slow")];
    assert_eq!(evaluate(&WaitCondition::ConditionTrue("Ready".into()), &set), "Ready=False (Slow)");
}

#[rstest]
#[case("exists", "it exists")]
#[case("condition-true: Established", "Established=True")]
#[case("deployment-available", "its rollout is complete and available")]
fn it_can_be_written_as_data(#[case] text: &str, #[case] said: &str) {
    let condition: WaitCondition = serde_saphyr::from_str(text).expect("read");
    assert_eq!(condition.to_string(), said);
}

#[rstest]
#[case("fn: x")]
#[case("condition-tru: Ready")]
#[case("gone-away")]
fn misspelt_data_is_refused(#[case] text: &str) {
    assert!(serde_saphyr::from_str::<WaitCondition>(text).is_err());
}
