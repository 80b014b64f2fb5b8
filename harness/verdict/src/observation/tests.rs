//! Tests of observations: equal for the same behaviour under other names, different for other behaviour.

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::history::{Body, Key, ModelLog, ModelRecord, Request, Response};

struct Names {
    run: &'static str,
    namespace: &'static str,
    hostname: &'static str,
    id: &'static str,
    pod: &'static str,
    ip: &'static str,
    uid: &'static str,
    time: &'static str,
    created: u64,
}

const ONE: Names = Names {
    run: "20261121-120305-k3f9",
    namespace: "igc-a1",
    hostname: "routing-host-igc-a1.igc.test",
    id: "x-0001",
    pod: "mock-llm-predictor-7d9fbc6d8-x2x4z",
    ip: "10.244.0.17",
    uid: "0f5a7a86-93c4-4d3d-9f5e-3d2f1c0b9a88",
    time: "2026-11-21T12:03:06.123Z",
    created: 1_795_000_001,
};
const TWO: Names = Names {
    run: "20270101-000000-zzzz",
    namespace: "igc-b22",
    hostname: "routing-host-igc-b22.igc.test",
    id: "y-0042",
    pod: "mock-llm-predictor-5bdfcc9f44-wq9lz",
    ip: "10.96.3.254",
    uid: "ffffffff-93c4-4d3d-9f5e-3d2f1c0b9a88",
    time: "2027-01-01T00:00:00+01:00",
    created: 1_800_000_000,
};

fn history(n: &Names) -> History {
    let key = Key { gateway: "g".into(), check: "routing/host".into(), case: "-".into(), attempt: 1 };
    let mut history = History::new(key, n.namespace, n.hostname);
    history.address = Some(format!("{}:30080", n.ip));
    let body = json!({"id": format!("chatcmpl-{}", n.uid), "object": "chat.completion", "created": n.created,
        "model": "mock", "system_fingerprint": n.uid, "choices": [{"message": {"content": "Hello"}}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7}});
    history.exchanges.push(Exchange {
        id: n.id.into(),
        label: "right-host".into(),
        sent_ms: n.created as f64,
        request: Request {
            method: "POST".into(),
            target: format!("/v1/chat/completions?from={}", n.namespace),
            host: n.hostname.into(),
            ..Request::default()
        },
        outcome: Outcome::Response(Response {
            status: 200,
            headers: vec![
                ("Date".into(), n.time.into()),
                ("X-Request-Id".into(), n.uid.into()),
                ("Content-Type".into(), "application/json".into()),
                ("Retry-After".into(), (n.created % 7).to_string()),
                ("X-RateLimit-Limit".into(), "70, 70;w=60".into()),
                ("Location".into(), format!("http://{}/x", n.hostname)),
            ],
            body: Body::of(body.to_string().as_bytes()),
            ..Response::default()
        }),
        connection: None,
    });
    let marker = |exchange: &str, sequence| ModelRecord {
        sequence,
        exchange: Some(exchange.into()),
        pod: n.pod.into(),
        at_ms: n.created,
        ..ModelRecord::default()
    };
    let records = vec![marker("m-1", 0), marker(n.id, 1), marker("m-2", 2)];
    let log = ModelLog { marker_before: Some("m-1".into()), marker_after: Some("m-2".into()), records };
    history.models.insert("mock".into(), log);
    history.admissions.insert(
        "as-printed".into(),
        Admission::Refused {
            code: 422,
            reason: "Invalid".into(),
            message: format!("AIServiceBackend in {} is wrong at {}", n.namespace, n.time),
        },
    );
    history.admissions.insert("good".into(), Admission::Accepted { warnings: vec![] });
    history.objects.insert(
        "route".into(),
        json!({
        "metadata": {"uid": n.uid, "resourceVersion": n.created.to_string()},
        "status": {"parents": [{"parentRef": {"name": "igc"}, "controllerName": "c.io/x", "conditions": [
            {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "lastTransitionTime": n.time,
             "message": format!("{}/mock at {}:8000, pod {}, run {}", n.namespace, n.ip, n.pod, n.run)},
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "ok"}]}]}}),
    );
    history
}

#[test]
fn the_same_behaviour_under_other_names_is_the_same() {
    let one = observe(&history(&ONE));
    assert_eq!(one, observe(&history(&TWO)));
    insta::assert_yaml_snapshot!(one);
}

#[rstest]
#[case::status(|h: &mut History| with_response(h, |r| r.status = 201))]
#[case::header_name(|h: &mut History| with_response(h, |r| r.headers.push(("x-new".into(), "1".into()))))]
#[case::header_value(|h: &mut History| with_response(h, |r| r.headers[2].1 = "text/plain".into()))]
#[case::limit(|h: &mut History| with_response(h, |r| r.headers[4].1 = "71".into()))]
#[case::negative(|h: &mut History| with_response(h, |r| r.headers[3].1 = "-1".into()))]
#[case::body(|h: &mut History| with_response(h, |r| r.body = Body::of(br#"{"usage": 8}"#)))]
#[case::ended(|h: &mut History| with_response(h, |r| r.ended = Ended::Truncated))]
#[case::failed(|h: &mut History| h.exchanges[0].outcome = Outcome::Failed { stage: "connect".into(), error: "x".into() })]
#[case::label(|h: &mut History| h.exchanges[0].label = "wrong-host".into())]
#[case::method(|h: &mut History| h.exchanges[0].request.method = "GET".into())]
#[case::reached_nobody(|h: &mut History| drop(h.models.get_mut("mock").unwrap().records.remove(1)))]
#[case::records_not_whole(|h: &mut History| h.models.get_mut("mock").unwrap().records.clear())]
#[case::reached_twice(|h: &mut History| { let r = h.models["mock"].records[1].clone(); h.models.get_mut("mock").unwrap().records.push(r); })]
#[case::admission(|h: &mut History| drop(h.admissions.remove("good")))]
#[case::condition(|h: &mut History| h.objects.get_mut("route").unwrap()["status"]["parents"][0]["conditions"][0]["reason"] = json!("RefNotPermitted"))]
#[case::again(|h: &mut History| { let e = h.exchanges[0].clone(); h.exchanges.push(e); })]
fn other_behaviour_is_different(#[case] change: fn(&mut History)) {
    let mut other = history(&ONE);
    change(&mut other);
    assert_ne!(observe(&other), observe(&history(&ONE)));
}

fn with_response(history: &mut History, change: impl FnOnce(&mut Response)) {
    let Outcome::Response(response) = &mut history.exchanges[0].outcome else { panic!("a response") };
    change(response);
}

#[test]
fn nothing_reached_is_apart_from_unproven() {
    let mut history = history(&ONE);
    history.models.get_mut("mock").unwrap().records.remove(1);
    let reached = |h: &History| Observer::new(h).reached(&h.exchanges[0]);
    assert_eq!(reached(&history), Some(json!([])));
    history.models.get_mut("mock").unwrap().marker_after = None;
    assert_eq!(reached(&history), Some(json!("unproven")));
    history.models.clear();
    assert_eq!(reached(&history), None);
}

fn body_of(content_type: &str, text: &str) -> Option<Value> {
    let history = history(&ONE);
    Observer::new(&history).body(&Body::of(text.as_bytes()), content_type)
}

#[rstest]
#[case::empty("text/plain", "", None)]
#[case::text("text/plain", "no route for routing-host-igc-a1.igc.test", Some(json!({"text": "no route for <hostname>"})))]
#[case::json("application/json", r#"{"b": 1, "a": null}"#, Some(json!({"json": {"a": null, "b": 1}})))]
#[case::json_in_all_but_name("text/plain", r#"{"a":1}"#, Some(json!({"json": {"a": 1}})))]
#[case::json_in_name_only("application/json", "{a", Some(json!({"text": "{a"})))]
#[case::number_is_text("application/json", "12", Some(json!({"text": "12"})))]
#[case::models("application/json", r#"{"object":"list","data":[{"id":"mock","object":"model","created":5}]}"#,
    Some(json!({"json": {"object": "list", "data": [{"id": "mock", "object": "model", "created": "<time>"}]}})))]
fn bodies(#[case] content_type: &str, #[case] text: &str, #[case] expected: Option<Value>) {
    assert_eq!(body_of(content_type, text), expected);
}

#[test]
fn bodies_are_bounded() {
    let long = body_of("text/plain", &"é".repeat(200_000)).unwrap();
    assert_eq!(long["begins"].as_str().unwrap().chars().count(), TEXT_KEPT);
    let history = history(&ONE);
    assert_eq!(Observer::new(&history).body(&Body::of(b"\xff\xfe"), ""), Some(json!({"binary": 2})));
}

#[test]
fn a_stream_is_the_shape_of_its_events() {
    let event = |delta: &str| format!("data: {{\"id\":\"c-{}\",\"choices\":[{{\"delta\":{delta}}}]}}\n\n", delta.len());
    let text = format!(
        ": comment\n\n{}{}{}data: {{\"choices\":[],\"usage\":{{\"total_tokens\":7}}}}\r\n\r\ndata: [DONE]\n\n",
        event(r#"{"role":"assistant"}"#),
        event(r#"{"content":"He"}"#),
        event(r#"{"content":"llo"}"#),
    );
    let whole = body_of("text/event-stream; charset=utf-8", &text).unwrap();
    assert_eq!(
        whole,
        json!({"stream": {"done": true, "events": 5, "shapes": [
        {"shape": {"id": "<id>", "choices": [{"delta": {"role": "assistant"}}]}, "times": 1},
        {"shape": {"id": "<id>", "choices": [{"delta": {"content": "<text>"}}]}, "times": 2},
        {"shape": {"choices": [], "usage": {"total_tokens": 7}}, "times": 1},
        {"shape": "[DONE]", "times": 1}]}})
    );
    let cut = body_of("text/event-stream", &text[..text.len() - 1]).unwrap();
    assert_eq!((&cut["stream"]["done"], &cut["stream"]["unfinished"]), (&json!(false), &json!("data: [DONE]\n")));
}

#[test]
fn a_check_can_build_its_own() {
    let mut history = history(&ONE);
    let again = history.exchanges[0].clone();
    history.exchanges.push(Exchange { id: "x-2".into(), ..again.clone() });
    let observer = Observer::new(&history).with_values_of(&["X-Request-ID"]);
    assert_eq!(observer.statuses(&history.exchanges), json!({"200": 2}));
    let seen = observer.exchange(&history.exchanges[0]);
    assert_eq!(seen["values"]["x-request-id"], "<uuid>");
    assert_eq!(seen["reached"], json!(["mock"]));
    history.models.clear();
    let seen = Observer::new(&history).exchanges(&history.exchanges);
    assert_eq!(seen["right-host"][0]["times"], 2);
}

/// What alternates is one entry for each label; within a label the order counts.
#[test]
fn exchanges_go_by_label() {
    let mut history = history(&ONE);
    let one = history.exchanges[0].clone();
    let of = |label: &str, status: u16| {
        let mut exchange = Exchange { label: label.into(), ..one.clone() };
        if let Outcome::Response(response) = &mut exchange.outcome {
            response.status = status;
        }
        exchange
    };
    let mut seen = |exchanges: [(&str, u16); 4]| {
        history.exchanges = exchanges.map(|(label, status)| of(label, status)).to_vec();
        observe(&history)
    };
    let alternating = seen([("a", 200), ("b", 200), ("a", 200), ("b", 404)]);
    let exchanges = &alternating["exchanges"];
    assert_eq!((&exchanges["a"][0]["times"], exchanges["a"].as_array().unwrap().len()), (&json!(2), 1));
    assert_eq!((&exchanges["b"][0]["status"], &exchanges["b"][1]["status"]), (&json!(200), &json!(404)));
    assert_eq!(alternating, seen([("b", 200), ("a", 200), ("a", 200), ("b", 404)]), "labels in another order");
    assert_ne!(alternating, seen([("a", 200), ("b", 404), ("a", 200), ("b", 200)]), "a label in another order");
}

#[rstest]
#[case("igc-a1", "<namespace>")]
#[case("igc-a1-gateway", "<namespace>-gateway")]
#[case("exchange x-0001 came", "exchange <exchange> came")]
#[case("x-00011", "x-00011")]
#[case("igc-a12 and igc-a1", "igc-a12 and <namespace>")]
#[case("routing-host-igc-a1.igc.test", "<hostname>")]
#[case("at 2026-11-21 12:03:06 UTC", "at <time>")]
#[case("Sat, 21 Nov 2026 12:03:06 GMT", "<time>")]
#[case("10.1.2.3:8080, 10.1.2.3", "<address>, <address>")]
#[case("[fd00::1]:80", "<address>")]
#[case("uid=12ab resourceVersion: 991", "uid=<id> resourceVersion: <id>")]
#[case("mock-llm-predictor-7d9fbc6d8-x2x4z", "<pod>")]
#[case("other-7d9fbc6d8-x2x4z is up", "other-<pod> is up")]
#[case(
    "ReplicaSet \"a-predictor-58c4964c7b\" has successfully progressed.",
    "ReplicaSet \"a-predictor-<hash>\" has successfully progressed."
)]
#[case("port 30080", "port <port>")]
#[case("chatcmpl-123456789", "<id>")]
#[case("version 1.2.3 has status 404 and limit 70", "version 1.2.3 has status 404 and limit 70")]
#[case("model-name-spoof stays-as-it-is", "model-name-spoof stays-as-it-is")]
fn what_differs_from_run_to_run(#[case] text: &str, #[case] expected: &str) {
    let placeholders = Placeholders::of(&history(&ONE));
    assert_eq!(placeholders.apply(text), expected);
    assert_eq!(placeholders.apply(expected), expected, "placeholders stay");
}
