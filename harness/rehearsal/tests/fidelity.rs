//! Fidelity: the recordings that were written down, and that a case which says something else differs.

use std::path::{Path, PathBuf};

use rehearsal::fidelity::{self, Accepted, Case, Difference};
use rstest::rstest;

async fn play(case: &Case) -> Vec<Difference> {
    match fidelity::play(case).await {
        Ok(differences) => differences,
        Err(error) => panic!("{}: failed to {error}", case.id),
    }
}

/// Every difference is accepted, and every accepted one is there.
#[rstest]
#[tokio::test]
async fn recordings_are_reproduced(#[files("fidelity/*.yaml")] file: PathBuf) {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let mut wrong = Vec::new();
    for case in fidelity::read(&file).unwrap_or_else(|error| panic!("{error}")) {
        let differences = play(&case).await;
        let accepted = Accepted::find(&goldens, &case.gateway).unwrap_or_else(|error| panic!("{error}"));
        let entries: Vec<_> = accepted.entries.iter().filter(|e| e.case == case.id).collect();
        let unknown = differences.iter().filter(|d| !entries.iter().any(|e| e.covers(&case.id, &d.at)));
        wrong.extend(unknown.map(|d| {
            format!("{} line {} {}\n  recorded {}\n  here     {}", case.id, d.line, d.at, d.recorded, d.here)
        }));
        let stale = entries.iter().filter(|e| !differences.iter().any(|d| e.covers(&case.id, &d.at)));
        wrong.extend(stale.map(|e| format!("{} line {}: {} agrees", accepted.path.display(), e.line, e.case)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What agrees with the rehearsal; a row of the tables below spoils it.
const GOOD: &str = "
recording: mine
gateway: agentgateway
version: v1.3.1
place: kind
date: 2026-11-21
namespace: mine
manifests: |
  apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: gw}
  spec: {gatewayClassName: agentgateway, listeners: [{name: http, protocol: HTTP, port: 80}]}
  ---
  apiVersion: v1
  kind: Pod
  metadata: {name: mock, labels: {app: mock}}
  spec: {containers: [{name: m, image: igc, args: [model, --model, mock-llm, --port, '8080']}]}
  ---
  apiVersion: v1
  kind: Service
  metadata: {name: mock}
  spec: {selector: {app: mock}, ports: [{port: 80, targetPort: 8080}]}
  ---
  apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: r}
  spec: {parentRefs: [{name: gw}], hostnames: [a.test], rules: [{backendRefs: [{name: mock, port: 80}]}]}
steps:
- request: {path: /v1/chat/completions, host: a.test, json: {model: mock-llm, messages: [{role: user, content: Hello}]}}
  expect:
    status: 200
    headers: {content-type: application/json, x-request-id: null, date: {present: true}}
    body: {json: {model: mock-llm, choices: [{message: {content: Hello}}]}}
    ended: complete
    upstream: {pod: mock, method: POST, path: /v1/chat/completions, headers: {host: a.test}, body: {json: {model: mock-llm}}, finished: true}
- request: {path: /v1/chat/completions, host: a.test, json: {model: mock-llm, stream: true, messages: [{role: user, content: Hello}]}}
  expect:
    events:
    - {json: {choices: [{delta: {role: assistant}}]}}
    - {json: {choices: [{delta: {content: Hello}}]}}
    - {json: {choices: [{finish_reason: stop}]}}
    - '[DONE]'
- request: {path: /v1/models, host: b.test}
  expect: {status: 404, header-names: [content-type, content-length, date], body: route not found, upstream: nothing}
- request: {path: /x, host: a.test, script: {status: '503', reply: sorry, content-type: text/plain}}
  times: 3
  expect: {statuses: 3 x 503, body: sorry}
- object: {kind: HTTPRoute, name: r}
  expect:
    conditions: [{type: Accepted, status: True, reason: Accepted, current: true}, {type: Attached, absent: true}]
    parents: [{ref: {name: gw}, controllerName: agentgateway.dev/agentgateway, conditions: [{type: ResolvedRefs, status: True}]}]
    match: {spec: {hostnames: [a.test]}}
- object: {kind: Gateway, name: gw}
  expect: {listeners: [{name: http, attachedRoutes: 1}], status: {listeners: [{name: http}]}}
- apply: {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: wrong}, spec: {parentRefz: []}}
  expect:
    refused: 'Error from server (BadRequest): error when creating \"STDIN\": HTTPRoute in version \"v1\" cannot be handled as a HTTPRoute: strict decoding error: unknown field \"spec.parentRefz\"'
    code: 400
    reason: BadRequest
- apply: {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: wrong}, spec: {parentRefz: []}}
  validation: warn
  dry-run: true
  expect: {accepted: true, warnings: ['Warning: unknown field \"spec.parentRefz\"']}
- object: {kind: HTTPRoute, name: wrong}
  expect: {absent: true}
- request: {path: /, to: {gateway: mine/gw, port: 81}}
  expect: {no-response: true}
- request: {path: /health, to: {service: mine/mock}}
  expect: {status: [200, 204], body: ''}
- patch: {kind: HTTPRoute, name: r, merge: {spec: {hostnames: [c.test]}}}
- request: {path: /health, host: a.test}
  expect: {status: 404}
- delete: {kind: HTTPRoute, name: r}
- request: {path: /health, host: c.test}
  at-once: true
  times: 2
  expect: {statuses: 2 x 404}
";

fn spoiled(right: &str, wrong: &str) -> String {
    assert!(GOOD.contains(right), "{right:?} is not in the case");
    GOOD.replace(right, wrong)
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    fidelity::parse(text, Path::new("mine.yaml")).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_good_case_agrees() {
    let [case] = parse(GOOD).unwrap().try_into().unwrap();
    assert_eq!(play(&case).await, []);
    assert_eq!((case.id.as_str(), case.line), ("mine", 2));
}

/// Each thing that a case may expect can differ, and says where.
#[rstest]
#[case::status("status: 200\n", "status: [201, 202]\n", "reply status")]
#[case::header("content-type: application/json", "content-type: text/plain", "reply header content-type")]
#[case::no_such_header("x-request-id: null", "x-request-id: {present: true}", "reply header x-request-id")]
#[case::unwanted_header("date: {present: true}", "date: null", "reply header date")]
#[case::body("{message: {content: Hello}}", "{message: {content: Bye}}", "reply body.choices[0].message.content")]
#[case::end("ended: complete", "ended: truncated", "reply end")]
#[case::pod("pod: mock", "pod: other", "reply upstream pod")]
#[case::upstream_header("headers: {host: a.test}", "headers: {host: b.test}", "reply upstream header host")]
#[case::upstream_body(
    "body: {json: {model: mock-llm}}, fin",
    "body: {json: {model: foo}}, fin",
    "reply upstream body.model"
)]
#[case::upstream_end("finished: true", "finished: false", "reply upstream reply taken whole")]
#[case::something_arrives(
    "upstream: {pod: mock, method: POST, path: /v1/chat/completions, headers: {host: a.test}, \
    body: {json: {model: mock-llm}}, finished: true}",
    "upstream: nothing",
    "reply upstream"
)]
#[case::nothing_arrives("body: route not found, upstream: nothing", "upstream: something", "reply upstream")]
#[case::event("{delta: {content: Hello}}", "{delta: {content: Bye}}", "reply event 2.choices[0].delta.content")]
#[case::events("    - '[DONE]'\n", "", "reply events")]
#[case::header_names(
    "[content-type, content-length, date]",
    "[Content-Type, content-length, date]",
    "reply header names"
)]
#[case::text("body: route not found", "body: not found", "reply body")]
#[case::statuses("3 x 503", "2 x 503 then 504", "statuses")]
#[case::of_all("body: sorry", "body: {contains: glad}", "replies 1-3 body")]
#[case::condition("reason: Accepted, current", "reason: Refused, current", "HTTPRoute r condition Accepted reason")]
#[case::condition_status("status: True, reason", "status: False, reason", "HTTPRoute r condition Accepted status")]
#[case::no_condition("type: Attached, absent: true", "type: Attached, status: True", "HTTPRoute r condition Attached")]
#[case::a_condition("type: Attached, absent", "type: Accepted, absent", "HTTPRoute r condition Accepted")]
#[case::generation("current: true", "current: false", "HTTPRoute r condition Accepted current")]
#[case::parent("ref: {name: gw}, c", "ref: {name: other}, c", "HTTPRoute r parents[0] parentRef.name")]
#[case::controller("controllerName: agentgateway.dev/a", "controllerName: b", "HTTPRoute r parents[0] controllerName")]
#[case::parts("parents: [{ref: {name: gw}, ", "parents: [{}, {", "HTTPRoute r parents")]
#[case::part_condition(
    "ResolvedRefs, status: True",
    "ResolvedRefs, status: False",
    "HTTPRoute r parents[0] condition ResolvedRefs status"
)]
#[case::object("hostnames: [a.test]}}\n", "hostnames: [b.test]}}\n", "HTTPRoute r object.spec.hostnames[0]")]
#[case::routes("attachedRoutes: 1", "attachedRoutes: 2", "Gateway gw listeners[0] attachedRoutes")]
#[case::object_status(
    "status: {listeners: [{name: http}]}",
    "status: {listeners: [{name: x}]}",
    "Gateway gw status.listeners[0].name"
)]
#[case::refusal("parentRefz\"'\n    code", "parentRefs\"'\n    code", "HTTPRoute wrong admission")]
#[case::code("code: 400", "code: 422", "HTTPRoute wrong admission code")]
#[case::reason("reason: BadRequest", "reason: Invalid", "HTTPRoute wrong admission reason")]
#[case::accepted(
    "expect: {accepted: true, warnings",
    "expect: {accepted: false, warnings",
    "HTTPRoute wrong admission"
)]
#[case::warnings("['Warning: unknown", "['Warning: no", "HTTPRoute wrong warnings")]
#[case::there("expect: {absent: true}", "expect: {match: {}}", "HTTPRoute wrong")]
#[case::response("expect: {no-response: true}", "expect: {status: 200}", "reply")]
#[case::no_response("status: [200, 204], body: ''", "no-response: true", "reply")]
#[case::without_patch("hostnames: [c.test]}}}\n", "hostnames: [a.test]}}}\n", "reply status")]
#[case::refused_patch("merge: {spec: {hostnames: [c.test]}}", "merge: {spec: {hostname: c}}", "HTTPRoute r admission")]
#[case::manifests(
    "spec: {selector: {app: mock}, ports",
    "spec: {selector: {app: mock}, prots",
    "manifests Service mock admission"
)]
#[tokio::test]
async fn what_is_not_so_differs(#[case] right: &str, #[case] wrong: &str, #[case] at: &str) {
    let [case] = parse(&spoiled(right, wrong)).unwrap().try_into().unwrap();
    let differences = play(&case).await;
    let places: Vec<&str> = differences.iter().map(|d| d.at.as_str()).collect();
    assert!(places.contains(&at), "{at:?} is not among {places:?}");
}

#[rstest]
#[case::gateway("gateway: agentgateway", "gateway: agentgatway", &["line 3", "did you mean agentgateway?"])]
#[case::version("version: v1.3.1", "version: new", &["line 4", "like v1.1.0"])]
#[case::no_version("version: v1.3.1", "about: x", &["line 2", "version is missing"])]
#[case::no_recording("recording: mine", "about: x", &["recording is missing"])]
#[case::no_place("place: kind", "about: x", &["place is missing"])]
#[case::date("date: 2026-11-21", "date: today", &["line 6", "no date"])]
#[case::field("statuses: 3", "statusses: 3", &["statusses", "did you mean statuses"])]
#[case::step("- patch:", "- path:", &["unknown field `path`", "did you mean patch"])]
#[case::nothing_expected("expect: {status: 404}", "expect: {}", &["expect is empty"])]
#[case::no_expectation("  expect: {absent: true}\n", "", &["says nothing"])]
#[case::two_actions("- delete:", "- advance: 1s\n  delete:", &["a step does one thing"])]
#[case::expect_first("times: 3\n  expect: {statuses: 3 x 503, body: sorry}", "times: 3\n- expect: {}\n  advance: 1s", &["before `expect`"])]
#[case::statuses("2 x 404", "2 times 404", &["no row of statuses"])]
#[case::counts("times: 3", "times: 4", &["4 requests are sent, and 3 replies"])]
#[case::pattern("body: sorry", "body: {matches: '('}", &["no regular expression"])]
#[case::json_rule("{content: Hello}}]}}\n    ended", "{content: {$match: x}}}]}}\n    ended", &["$matches"])]
#[case::script("script: {status:", "script: {statsu:", &["did you mean status"])]
#[case::manifest("kind: Pod\n", "knd: Pod\n", &["line 9", "a manifest has no kind"])]
#[case::guide(
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: wrong}, spec: {parentRefz: []}}",
    "{guide: guide-000/routes}",
    &["no guide prints a manifest called guide-000/routes", "did you mean guide-000/route"]
)]
#[case::path("{path: /x,", "{path: x,", &["does not begin with /"])]
#[case::without("namespace: mine\n", "without: [extension-hook]\n", &["cannot be without"])]
#[case::both("json: {model: mock-llm, stream", "body: x, json: {model: mock-llm, stream", &["json or a body"])]
#[case::yaml("steps:", "steps: [", &["mine.yaml"])]
fn bad_cases_are_refused(#[case] right: &str, #[case] wrong: &str, #[case] said: &[&str]) {
    let message = parse(&spoiled(right, wrong)).unwrap_err();
    for words in said {
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
}

#[rstest]
#[case::empty("", "no case in it")]
#[case::no_steps(
    "recording: a\ngateway: agentgateway\nversion: v1.3.1\nplace: kind\ndate: 2026-11-21\n",
    "expects nothing"
)]
#[case::no_cases("cases: []", "empty list")]
#[case::same_name(
    "recording: a
gateway: agentgateway
version: v1.3.1
place: kind
date: 2026-11-21
cases:
- {name: a, steps: [{object: {kind: Pod, name: x}, expect: {absent: true}}]}
- {name: a, steps: [{object: {kind: Pod, name: x}, expect: {absent: true}}]}
",
    "line 8: mine/a is there twice"
)]
fn files_without_a_case_are_refused(#[case] text: &str, #[case] said: &str) {
    let message = parse(text).unwrap_err();
    assert!(message.contains(said), "{message}");
}

#[rstest]
#[case::kind(
    "kind: HTTPRoute, name: wrong}\n  expect",
    "kind: HTPRoute, name: wrong}\n  expect",
    "serves no kind HTPRoute"
)]
#[case::gateway("to: {gateway: mine/gw,", "to: {gateway: mine/other,", "no Gateway mine/other")]
#[case::service("to: {service: mine/mock}", "to: {service: mine/other}", "no Service mine/other")]
#[case::deletion("- delete: {kind: HTTPRoute, name: r}", "- delete: {kind: HTTPRoute, name: s}", "not found")]
#[tokio::test]
async fn what_cannot_be_played_is_an_error(#[case] right: &str, #[case] wrong: &str, #[case] said: &str) {
    let [case] = parse(&spoiled(right, wrong)).unwrap().try_into().unwrap();
    let error = fidelity::play(&case).await.unwrap_err().to_string();
    assert!(error.contains(said) && error.contains("line "), "{error}");
}
