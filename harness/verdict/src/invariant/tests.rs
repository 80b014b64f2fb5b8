//! Tables of invariants: each with true and false rows, on one exchange that the model answered.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::change::Rule;
use crate::history::{Key, Outcome, Passed, Request, Sent, Usage};

const MODEL: &str = "alpha";
const REPLY: &str = r#"{"id":"chatcmpl-1","usage":{"total_tokens":7}}"#;

fn headers(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn marker(name: &str) -> ModelRecord {
    ModelRecord { exchange: Some(name.into()), ..ModelRecord::default() }
}

/// A request that reached the model as it was sent, and a reply that the client got as the model wrote it.
fn exchanged() -> History {
    let mut history = History::new(Key::default(), "ns", "a.igc.test");
    let request = Request {
        method: "POST".into(),
        target: "/v1/chat/completions?a=1&b=2".into(),
        host: "a.igc.test".into(),
        headers: headers(&[("content-type", "application/json"), ("x-two", "1"), ("x-two", "2")]),
        body: Body::of(br#"{"model":"alpha","seed":9007199254740993}"#),
    };
    let reply = headers(&[("Content-Type", "application/json"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]);
    let record = ModelRecord {
        exchange: Some("e-1".into()),
        method: request.method.clone(),
        target: request.target.clone(),
        headers: [headers(&[("Host", "a.igc.test")]), request.headers.clone()].concat(),
        body: request.body.clone(),
        model: Some(MODEL.into()),
        status: 200,
        finished: true,
        sent: Some(Sent::of(REPLY.as_bytes())),
        reply: Some(reply.clone()),
        ..ModelRecord::default()
    };
    let response = Response { status: 200, headers: reply, body: Body::of(REPLY.as_bytes()), ..Response::default() };
    history.exchanges.push(Exchange {
        id: "e-1".into(),
        label: "asked".into(),
        sent_ms: 0.0,
        request,
        outcome: Outcome::Response(response),
        connection: None,
    });
    let log = ModelLog {
        marker_before: Some("m-1".into()),
        marker_after: Some("m-2".into()),
        records: vec![marker("m-1"), record, marker("m-2")],
    };
    history.models.insert(MODEL.into(), log);
    history.answers = vec![
        serde_saphyr::from_str("{status: 404, headers: {content-type: text/plain}, body: no route, source: s}")
            .unwrap(),
    ];
    history
}

fn record(history: &mut History) -> &mut ModelRecord {
    &mut history.models.get_mut(MODEL).unwrap().records[1]
}

fn response(history: &mut History) -> &mut Response {
    let Outcome::Response(response) = &mut history.exchanges[0].outcome else { panic!("it has one") };
    response
}

fn connection(history: &mut History) -> &mut crate::history::Connection {
    history.exchanges[0].connection.get_or_insert_default()
}

/// False invariants with their subjects.
fn falses(history: &History, own: &[Change]) -> Vec<String> {
    let judged = judge(history, own, true);
    judged.clauses.iter().map(|c| format!("{}: {}", &c.name[PREFIX.len()..], c.subject.as_deref().unwrap())).collect()
}

type Break = fn(&mut History);

#[rstest]
#[case::as_sent(|_: &mut History| {}, &[])]
#[case::method(|h: &mut History| record(h).method = "PUT".into(), &["request-untouched: method"])]
#[case::query_lost(|h: &mut History| record(h).target = "/v1/chat/completions".into(), &["request-untouched: target"])]
#[case::query_sorted(|h: &mut History| record(h).target = "/v1/chat/completions?b=2&a=1".into(), &["request-untouched: target"])]
#[case::host(|h: &mut History| record(h).headers[0].1 = "b.igc.test".into(), &["request-untouched: header host"])]
#[case::header_lost(|h: &mut History| record(h).headers.retain(|(n, _)| n != "content-type"), &["request-untouched: header content-type"])]
#[case::header_added(|h: &mut History| record(h).headers.push(("X-New".into(), "1".into())), &["request-untouched: header x-new"])]
#[case::header_changed(|h: &mut History| record(h).headers[1].1.push(' '), &[])]
#[case::header_in_capitals(|h: &mut History| record(h).headers[1].1 = "APPLICATION/JSON".into(), &["request-untouched: header content-type"])]
#[case::repeated_in_another_order(|h: &mut History| record(h).headers.swap(2, 3), &["request-untouched: header x-two"])]
#[case::repeated_joined(|h: &mut History| { record(h).headers.pop(); record(h).headers[2].1 = "1, 2".into(); }, &[])]
#[case::repeated_joined_wrongly(|h: &mut History| { record(h).headers.pop(); record(h).headers[2].1 = "2, 1".into(); }, &["request-untouched: header x-two"])]
#[case::repeated_once(|h: &mut History| { record(h).headers.pop(); }, &["request-untouched: header x-two"])]
#[case::another_order_of_names(|h: &mut History| record(h).headers.swap(0, 1), &[])]
#[case::of_the_connection(|h: &mut History| record(h).headers.push(("Connection".into(), "close".into())), &[])]
#[case::number_rounded(|h: &mut History| record(h).body = Body::of(br#"{"model":"alpha","seed":9007199254740992}"#), &["request-untouched: field /seed"])]
#[case::field_lost(|h: &mut History| record(h).body = Body::of(br#"{"model":"alpha"}"#), &["request-untouched: field /seed"])]
#[case::written_anew(|h: &mut History| record(h).body = Body::of(br#"{"seed": 9007199254740993,"model":"alpha"}"#), &["request-untouched: body"])]
#[case::truncated(|h: &mut History| record(h).body = Body::of(br#"{"model""#), &["request-untouched: body"])]
fn requests_reach_the_model_as_they_were_sent(#[case] breaks: Break, #[case] expected: &[&str]) {
    let mut history = exchanged();
    breaks(&mut history);
    assert_eq!(falses(&history, &[]), expected);
}

#[rstest]
#[case::status(|h: &mut History| response(h).status = 201, &["own-reply: status"])]
#[case::header_lost(|h: &mut History| response(h).headers.retain(|(n, _)| n != "Content-Type"), &["own-reply: header content-type"])]
#[case::header_added(|h: &mut History| response(h).headers.push(("x-powered-by".into(), "x".into())), &["own-reply: header x-powered-by"])]
#[case::cookies_joined(|h: &mut History| { response(h).headers.pop(); response(h).headers[1].1 = "a=1, b=2".into(); }, &["own-reply: header set-cookie"])]
#[case::cookies_swapped(|h: &mut History| response(h).headers.swap(1, 2), &["own-reply: header set-cookie"])]
#[case::date_of_its_own(|h: &mut History| response(h).headers.push(("date".into(), "d".into())), &[])]
#[case::field_added(|h: &mut History| response(h).body = Body::of(REPLY.replace('}', ",\"x\":1}").as_bytes()), &["own-reply: field /usage/x"])]
#[case::date_of_the_model_replaced(|h: &mut History| { let date = |d: &str| ("Date".to_owned(), d.to_owned()); record(h).reply.as_mut().unwrap().push(date("d")); response(h).headers.push(date("e")); }, &["own-reply: header date"])]
#[case::of_another(|h: &mut History| response(h).body = Body::of(REPLY.replace("-1", "-2").as_bytes()), &["own-reply: field /id"])]
#[case::cut_but_whole_by_its_framing(|h: &mut History| response(h).body = Body::of(&REPLY.as_bytes()[..9]), &["own-reply: body"])]
#[case::broken_off(|h: &mut History| { response(h).body = Body::of(&REPLY.as_bytes()[..9]); response(h).ended = Ended::Truncated; }, &["true-framing: end"])]
#[case::left_by_the_client(|h: &mut History| { response(h).body = Body::of(&REPLY.as_bytes()[..9]); response(h).ended = Ended::Abandoned; }, &[])]
#[case::left_after_other_bytes(|h: &mut History| { response(h).body = Body::of(b"other"); response(h).ended = Ended::Abandoned; }, &["own-reply: body"])]
#[case::no_reply(|h: &mut History| h.exchanges[0].outcome = Outcome::Failed { stage: "read".into(), error: "closed".into() }, &["true-framing: reply"])]
#[case::model_broke_off(|h: &mut History| { record(h).finished = false; }, &["true-framing: end"])]
#[case::answered_itself_then(|h: &mut History| { record(h).finished = false; own_answer(h); }, &[])]
#[case::answered_itself_although(own_answer, &["own-reply: body", "own-reply: header content-type", "own-reply: header set-cookie", "own-reply: status"])]
#[case::length(|h: &mut History| response(h).headers.push(("content-length".into(), "9".into())), &["true-framing: header content-length"])]
#[case::true_length(|h: &mut History| response(h).headers.push(("content-length".into(), REPLY.len().to_string())), &[])]
#[case::surplus(|h: &mut History| connection(h).surplus = Some("2 bytes: \"xy\"".into()), &["true-framing: surplus"])]
#[case::used_again(|h: &mut History| { connection(h).reused = true; connection(h).after = Some("e-0".into()); }, &[])]
#[case::closed_although_open(|h: &mut History| { connection(h).broke = Some("closed".into()); connection(h).after = Some("e-0".into()); }, &["true-framing: connection"])]
#[case::length_of_chunks(|h: &mut History| response(h).headers.extend(headers(&[("content-length", &REPLY.len().to_string()), ("transfer-encoding", "chunked")])), &["true-framing: header content-length"])]
fn replies_are_what_the_model_wrote(#[case] breaks: Break, #[case] expected: &[&str]) {
    let mut history = exchanged();
    breaks(&mut history);
    assert_eq!(falses(&history, &[]), expected);
}

/// The gateway's own answer takes the place of the reply.
fn own_answer(history: &mut History) {
    let headers = headers(&[("content-type", "text/plain")]);
    *response(history) = Response { status: 404, headers, body: Body::of(b"no route"), ..Response::default() };
}

fn unreached(history: &mut History) {
    history.models.get_mut(MODEL).unwrap().records.remove(1);
}

#[rstest]
#[case::once(|_: &mut History| {}, &[])]
#[case::twice(|h: &mut History| { let again = record(h).clone(); h.models.get_mut(MODEL).unwrap().records.push(again); }, &["reached-once: records"])]
#[case::another_model_too(|h: &mut History| { let again = record(h).clone(); h.models.insert("beta".into(), ModelLog { records: vec![again], ..ModelLog::default() }); }, &["reached-once: records"])]
#[case::never(unreached, &["own-reply: answer 200", "reached-once: records"])]
#[case::never_as_far_as_is_known(|h: &mut History| { unreached(h); h.models.get_mut(MODEL).unwrap().marker_after = None; }, &[])]
#[case::by_a_model_without_records(|h: &mut History| { unreached(h); h.unrecorded.push("sim".into()); }, &[])]
#[case::copied_without_its_id(|h: &mut History| { let copy = ModelRecord { exchange: None, ..record(h).clone() }; h.models.get_mut(MODEL).unwrap().records.push(copy); }, &["reached-once: stray"])]
#[case::copied_under_another_id(|h: &mut History| { let copy = ModelRecord { exchange: Some("other-1".into()), ..record(h).clone() }; h.models.get_mut(MODEL).unwrap().records.push(copy); }, &["reached-once: stray"])]
#[case::probed(|h: &mut History| h.models.get_mut(MODEL).unwrap().records.push(ModelRecord { method: "GET".into(), ..ModelRecord::default() }), &[])]
#[case::answered_by_the_gateway(|h: &mut History| { unreached(h); own_answer(h); }, &[])]
#[case::answered_in_other_words(|h: &mut History| { unreached(h); own_answer(h); response(h).body = Body::of(b"no"); }, &["own-reply: answer 404"])]
#[case::with_another_status(|h: &mut History| { unreached(h); own_answer(h); response(h).status = 503; }, &["own-reply: answer 503"])]
fn requests_reach_one_model_once(#[case] breaks: Break, #[case] expected: &[&str]) {
    let mut history = exchanged();
    breaks(&mut history);
    assert_eq!(falses(&history, &[]), expected);
}

/// The endpoint picker saw request and reply of the exchange.
fn pick(history: &mut History) -> &mut PickerRecord {
    let request = &history.exchanges[0].request;
    let passed = |body: &Body| Passed { bytes: body.bytes, sha256: body.sha256.clone(), messages: 1, ends: 1 };
    let of_request = [headers(&[(":path", "/")]), request.headers.clone()].concat();
    let record = PickerRecord {
        exchange: Some("e-1".into()),
        method: request.method.clone(),
        target: request.target.clone(),
        headers: of_request,
        request: passed(&request.body),
        response: passed(&Body::of(REPLY.as_bytes())),
        status: Some(200),
        ..PickerRecord::default()
    };
    let log = history.pickers.entry("alpha".into()).or_default();
    log.records = vec![record];
    &mut log.records[0]
}

#[rstest]
#[case::as_sent(|h: &mut History| _ = pick(h), &[])]
#[case::method(|h: &mut History| pick(h).method = "GET".into(), &["request-untouched: picker method"])]
#[case::target(|h: &mut History| pick(h).target = "/".into(), &["request-untouched: picker target"])]
#[case::header_lost(|h: &mut History| _ = pick(h).headers.pop(), &["request-untouched: picker header x-two"])]
#[case::header_added(|h: &mut History| pick(h).headers.push(("x-new".into(), "1".into())), &["request-untouched: picker header x-new"])]
#[case::other_body(|h: &mut History| pick(h).request.sha256 = "0".into(), &["request-untouched: picker body"])]
#[case::no_body_shown(|h: &mut History| pick(h).request = Passed::default(), &[])]
#[case::other_status(|h: &mut History| pick(h).status = Some(500), &["own-reply: picker status"])]
#[case::other_reply(|h: &mut History| pick(h).response.bytes = 1, &["own-reply: picker reply"])]
#[case::two_ends(|h: &mut History| pick(h).request.ends = 2, &["true-framing: picker ends"])]
fn pickers_see_what_client_and_model_see(#[case] breaks: Break, #[case] expected: &[&str]) {
    let mut history = exchanged();
    breaks(&mut history);
    assert_eq!(falses(&history, &[]), expected);
}

/// What is declared explains a difference, is then used, and explains no other.
#[rstest]
#[case::added("{direction: request, header: x-new, rule: add, value: '1', source: s}", |h: &mut History| record(h).headers.push(("X-New".into(), "1".into())), true)]
#[case::another_value("{direction: request, header: x-new, rule: add, value: '1', source: s}", |h: &mut History| record(h).headers.push(("X-New".into(), "2".into())), false)]
#[case::other_direction("{direction: reply, header: x-new, rule: add, source: s}", |h: &mut History| record(h).headers.push(("X-New".into(), "1".into())), false)]
#[case::added_but_there("{direction: request, header: x-two, rule: add, source: s}", |h: &mut History| record(h).headers[2].1 = "3".into(), false)]
#[case::set("{direction: request, header: x-two, rule: set, source: s}", |h: &mut History| record(h).headers[2].1 = "3".into(), true)]
#[case::removed("{direction: request, header: content-type, rule: remove, source: s}", |h: &mut History| { record(h).headers.remove(1); }, true)]
#[case::removed_but_set("{direction: request, header: content-type, rule: set, source: s}", |h: &mut History| { record(h).headers.remove(1); }, false)]
#[case::appended_line("{direction: request, header: x-two, rule: append, value: '3', source: s}", |h: &mut History| record(h).headers.push(("x-two".into(), "3".into())), true)]
#[case::appended_element("{direction: request, header: x-two, rule: append, value: '3', source: s}", |h: &mut History| record(h).headers[3].1 = "2,3".into(), true)]
#[case::put_in_front("{direction: request, header: x-two, rule: append, value: '3', source: s}", |h: &mut History| record(h).headers.insert(1, ("x-two".into(), "3".into())), false)]
#[case::field("{direction: request, field: /seed, rule: set, source: s}", |h: &mut History| record(h).body = Body::of(br#"{"model":"alpha","seed":1}"#), true)]
#[case::other_field("{direction: request, field: /seed, rule: set, source: s}", |h: &mut History| record(h).body = Body::of(br#"{"model":"beta","seed":1}"#), false)]
#[case::field_in_a_new_object("{direction: request, field: /stream_options/include_usage, rule: add, value: 'true', source: s}",
    |h: &mut History| record(h).body = Body::of(br#"{"model":"alpha","seed":9007199254740993,"stream_options":{"include_usage":true}}"#), true)]
#[case::and_another_one_in_it("{direction: request, field: /stream_options/include_usage, rule: add, value: 'true', source: s}",
    |h: &mut History| record(h).body = Body::of(br#"{"model":"alpha","seed":9007199254740993,"stream_options":{"include_usage":true,"x":1}}"#), false)]
#[case::written_anew("{direction: request, body: json, rule: rewrite, source: s}", |h: &mut History| record(h).body = Body::of(br#"{"seed":9007199254740993, "model":"alpha"}"#), true)]
#[case::written_anew_with_less("{direction: request, body: json, rule: rewrite, source: s}", |h: &mut History| record(h).body = Body::of(br#"{"model":"alpha"}"#), false)]
#[case::target("{direction: request, target: '(/v1/.*)[?].*', value: $1, rule: rewrite, source: s}", |h: &mut History| record(h).target = "/v1/chat/completions".into(), true)]
#[case::other_target("{direction: request, target: '(/v1/.*)[?].*', value: $1, rule: rewrite, source: s}", |h: &mut History| record(h).target = "/v1/completions".into(), false)]
fn declared_changes_explain_what_they_say(#[case] declared: &str, #[case] breaks: Break, #[case] explained: bool) {
    let mut history = exchanged();
    breaks(&mut history);
    let change: Change = serde_saphyr::from_str(declared).unwrap();
    assert_eq!(change.problem(), None);
    let words = change.words();
    assert!(!falses(&history, &[]).is_empty(), "the row breaks nothing");
    for judged in [judge(&history, std::slice::from_ref(&change), true), {
        history.changes.push(change);
        judge(&history, &[], true)
    }] {
        assert_eq!(judged.clauses.is_empty(), explained);
        assert!(!explained || judged.used.contains(&words));
    }
}

const EVENTS: &str = ": hi\n\ndata: {\"a\":1,\"b\":\"x\"}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n";

#[rstest]
#[case::same(EVENTS, true, "")]
#[case::one_dropped(&EVENTS.replace("data: {\"a\":2}\n\n", ""), true, "with event 2 of 3")]
#[case::one_twice(&EVENTS.replace("data: {\"a\":2}\n\n", "data: {\"a\":2}\n\ndata: {\"a\":2}\n\n"), true, "with event 3 of 3")]
#[case::end_dropped(&EVENTS.replace("data: [DONE]\n\n", ""), true, "with event 3 of 3")]
#[case::one_changed(&EVENTS.replace("\"x\"", "\"y\""), true, "with event 1 of 3: field /b x")]
#[case::other_bytes(&EVENTS.replace("\"a\":1,\"b\":\"x\"", "\"b\": \"x\", \"a\": 1"), true, "")]
#[case::other_bytes_undeclared(&EVENTS.replace("\"a\":1,\"b\":\"x\"", "\"b\": \"x\", \"a\": 1"), false, "from byte")]
#[case::comment_dropped(&EVENTS.replace(": hi\n\n", ""), true, "")]
#[case::comment_dropped_undeclared(&EVENTS.replace(": hi\n\n", ""), false, "from byte")]
fn streams_differ_by_their_first_event(#[case] got: &str, #[case] rewritten: bool, #[case] said: &str) {
    let mut history = exchanged();
    record(&mut history).sent = Some(Sent::of(EVENTS.as_bytes()));
    response(&mut history).body = Body::of(got.as_bytes());
    let declared = "{direction: reply, body: events, rule: rewrite, source: s}";
    let own: Vec<Change> = if rewritten { vec![serde_saphyr::from_str(declared).unwrap()] } else { vec![] };
    let clauses = judge(&history, &own, true).clauses;
    assert_eq!(clauses.is_empty(), said.is_empty(), "{clauses:?}");
    assert!(clauses.iter().all(|c| c.expected.contains(said) && c.name == "invariant/own-reply"), "{clauses:?}");
}

/// Tokens a minute, and what each answer of a user says is left; each reply uses 7, but where `used` says otherwise.
#[rstest]
#[case::exact(&[(70, 7), (63, 7), (56, 7)], &[])]
#[case::late_by_one(&[(70, 7), (70, 7), (63, 7)], &[])]
#[case::late_by_two(&[(70, 7), (70, 7), (70, 7)], &["metered-as-used: remaining"])]
#[case::one_more(&[(70, 7), (62, 7), (54, 7)], &["metered-as-used: remaining"])]
#[case::part_of_a_charge(&[(70, 7), (66, 7), (59, 7)], &["metered-as-used: remaining"])]
#[case::prompt_alone(&[(70, 7), (64, 7), (58, 7)], &["metered-as-used: remaining"])]
#[case::another_cost(&[(70, 20), (50, 7), (43, 7)], &[])]
#[case::nothing_left(&[(70, 69), (1, 7), (0, 7)], &[])]
fn marks_say_what_was_used(#[case] answers: &[(u64, u64)], #[case] expected: &[&str]) {
    assert_eq!(falses(&metered("every-answer", "spent > limit", answers), &[]), expected);
}

/// A slow exchange may have been counted at its beginning or at its end: its window is one with that of the others.
#[rstest]
#[case::as_used(7, &[])]
#[case::one_more(8, &["metered-as-used: remaining"])]
fn slow_answers_are_of_the_same_window(#[case] charged: u64, #[case] expected: &[&str]) {
    let answers: Vec<(u64, u64)> = (0..4).map(|n| (70 - n * charged, 7)).collect();
    let mut history = metered("every-answer", "spent > limit", &answers);
    let Outcome::Response(response) = &mut history.exchanges[2].outcome else { panic!("it has one") };
    response.end_ms = 900.0;
    for (name, value) in response.headers.iter_mut().filter(|(name, _)| name == "x-ratelimit-reset") {
        assert_eq!((name.as_str(), value.as_str()), ("x-ratelimit-reset", "48"));
        *value = "46".into();
    }
    assert_eq!(falses(&history, &[]), expected);
}

#[test]
fn a_budget_has_one_limit() {
    let mut history = metered("every-answer", "spent > limit", &[(70, 7), (63, 7)]);
    let Outcome::Response(response) = &mut history.exchanges[1].outcome else { panic!("it has one") };
    response.headers.iter_mut().filter(|(n, _)| n == "x-ratelimit-limit").for_each(|(_, v)| *v = "71".into());
    assert_eq!(falses(&history, &[]), ["metered-as-used: limit"]);
}

/// A limiter that marks refusals alone, by what the replies before it used.
#[rstest]
#[case::used_up(&[(70, 35), (70, 35), (0, 0)], &[])]
#[case::one_over(&[(70, 35), (70, 36), (0, 0)], &[])]
#[case::too_early(&[(70, 35), (70, 34), (0, 0)], &["metered-as-used: refusal"])]
#[case::too_late(&[(70, 70), (70, 7), (70, 7), (0, 0)], &["metered-as-used: refusal"])]
#[case::late_by_one(&[(70, 70), (70, 7), (0, 0)], &[])]
fn refusals_come_when_the_budget_is_used(#[case] answers: &[(u64, u64)], #[case] expected: &[&str]) {
    assert_eq!(falses(&metered("refusals", "spent >= limit", answers), &[]), expected);
}

/// Answers of one user: (what is left, 0 in a refusal where only refusals are marked; usage of the reply).
fn metered(marks: &str, rule: &str, answers: &[(u64, u64)]) -> History {
    let mut history = exchanged();
    let (first, of_first) = (history.exchanges.remove(0), record(&mut history).clone());
    let declared = json!({
        "charged-fields": ["total"], "aborted-stream": "free", "no-usage-reply": "free", "block-when": rule,
        "window": "fixed-unix", "window-seconds": 60, "mark-header": "x-ratelimit-limit", "marked-answers": marks,
        "status": 429, "body": "empty", "headers": ["x-ratelimit-limit"], "identity-header": "x-user-id",
        "without-identity": "unlimited",
    });
    history.declared = serde_json::from_value(declared).unwrap();
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        let change = Change { source: "s".into(), ..Change::header(Direction::Reply, name, Rule::Add, "[0-9]+") };
        history.changes.push(change);
    }
    let records = &mut history.models.get_mut(MODEL).unwrap().records;
    records.truncate(1);
    history.answers = vec![serde_saphyr::from_str(
        "{status: 429, headers: {x-ratelimit-limit: '70', x-ratelimit-remaining: '0', x-ratelimit-reset: '[0-9]+'}, source: s}",
    )
    .unwrap()];
    for (at, (left, used)) in answers.iter().enumerate() {
        let mut exchange = Exchange { id: format!("e-{at}"), sent_ms: at as f64 * 1000.0, ..first.clone() };
        exchange.request.headers.push(("x-user-id".into(), "u".into()));
        let refused = marks == "refusals" && *left == 0;
        let reset = (50 - at).to_string();
        let marks_of = headers(&[
            ("x-ratelimit-limit", "70"),
            ("x-ratelimit-remaining", &left.to_string()),
            ("x-ratelimit-reset", &reset),
        ]);
        let Outcome::Response(response) = &mut exchange.outcome else { panic!("it has one") };
        if refused {
            *response = Response { status: 429, headers: marks_of, body: Body::of(b""), ..Response::default() };
        } else {
            if marks == "every-answer" {
                response.headers.extend(marks_of);
            }
            let usage = Usage { prompt_tokens: used - 1, completion_tokens: 1, total_tokens: *used };
            let mut record =
                ModelRecord { exchange: Some(exchange.id.clone()), usage: Some(usage), ..of_first.clone() };
            record.headers.push(("x-user-id".into(), "u".into()));
            records.push(record);
        }
        history.exchanges.push(exchange);
    }
    records.push(marker("m-2"));
    history
}

/// What cannot be judged is counted, and neither false nor unproven.
#[rstest]
#[case::whole(|_: &mut History| {}, [1, 1, 1, 1, 0])]
#[case::of_version_1(|h: &mut History| h.version = 1, [0, 0, 0, 0, 0])]
#[case::reply_not_recorded(|h: &mut History| record(h).reply = None, [0, 1, 1, 1, 0])]
#[case::no_records(|h: &mut History| { h.models.clear(); h.unrecorded.push("sim".into()); }, [0, 0, 0, 1, 0])]
fn what_cannot_be_judged_is_counted(#[case] breaks: Break, #[case] judged: [u64; 5]) {
    let mut history = exchanged();
    breaks(&mut history);
    let said = judge(&history, &[], true);
    assert_eq!(said.clauses, []);
    let counts = Invariant::ALL.map(|invariant| said.tallies[&invariant]);
    assert_eq!(counts, judged.map(|judged| Tally { judged, of: 1 }));
}

#[test]
fn a_clause_names_the_exchange_and_how_many() {
    let mut history = exchanged();
    response(&mut history).status = 201;
    let clause = judge(&history, &[], true).clauses.remove(0);
    assert_eq!((clause.name.as_str(), clause.expected.as_str()), ("invariant/own-reply", "status 200"));
    assert_eq!(clause.got, "201 in exchange e-1 (asked: POST /v1/chat/completions?a=1&b=2 -> 201)");
    assert_eq!(clause.exchanges, ["e-1"]);
}

proptest! {
    /// Whatever is sent and comes, nothing panics: the same bytes are no difference, and other bytes are one where nothing
    /// is declared.
    #[test]
    fn bodies_differ_where_their_bytes_do(one in "[\\[{}\\]\"a-c:,0-2\n ]{0,40}|data: [a-c{}\n:]{0,30}", other in "[\\[{}\\]\"a-c:,0-2\n ]{0,40}|data: [a-c{}\n:]{0,30}", cut in 0_usize..40) {
        let mut history = exchanged();
        record(&mut history).sent = Some(Sent::of(one.as_bytes()));
        response(&mut history).body = Body::of(other.as_bytes());
        prop_assert_eq!(falses(&history, &[]).is_empty(), one == other);
        let cut = one.char_indices().nth(cut).map_or(one.len(), |(at, _)| at);
        response(&mut history).body = Body::of(&one.as_bytes()[..cut]);
        response(&mut history).ended = Ended::Abandoned;
        prop_assert_eq!(falses(&history, &[]), Vec::<String>::new());
    }
}
