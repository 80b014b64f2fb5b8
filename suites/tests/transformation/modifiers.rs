//! Headers that the filters of a route modify, and those of a connection, which pass no proxy.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{CHECK, Call, Check, Judge, Stage, chat, check};
use verdict::{
    capability,
    change::{Change, Direction, Rule},
};

fn modifier() -> Value {
    let header = |name: &str| json!([{"name": name, "value": "by-route"}]);
    json!({"set": header("x-igc-set"), "add": header("x-igc-add"), "remove": ["x-igc-remove"]})
}

/// What the modifiers of both directions change.
fn by_route() -> Vec<Change> {
    vec![
        Change::header(Direction::Request, "x-igc-set", Rule::Set, "by-route"),
        Change::header(Direction::Request, "x-igc-add", Rule::Append, "by-route"),
        Change::header(Direction::Request, "x-igc-remove", Rule::Remove, ""),
        Change::header(Direction::Reply, "x-igc-set", Rule::Set, "by-route"),
        Change::header(Direction::Reply, "x-igc-add", Rule::Append, "by-route"),
        Change::header(Direction::Reply, "x-igc-remove", Rule::Remove, ""),
    ]
}

/// The headers that a client or a model sends to meet the modifier, and one more.
const MODIFIED: [&str; 4] = ["x-igc-set", "x-igc-add", "x-igc-remove", "x-igc-other"];

/// Routes the stage's own hostname to the model, with headers modified in both directions.
async fn modified(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let context = json!({"service": alpha.service, "request": modifier(), "response": modifier()});
    stage.intent("modify-headers", context).await?;
    stage.settle_header(|| chat("alpha"), "x-igc-set").await
}

/// Headers of one direction are modified: `has` judges the values of one where they arrive, `by` is the value that was sent.
fn judge_modified<'h>(
    judge: &mut Judge<'h>,
    has: fn(&mut Judge<'h>, &'static str, &str, &str, &[&str]),
    by: &'static str,
) {
    judge.answered_by("bare-answered-by-alpha", "bare", "alpha");
    has(judge, "bare-x-igc-set", "bare", "x-igc-set", &["by-route"]);
    has(judge, "bare-x-igc-remove", "bare", "x-igc-remove", &[]);
    judge.answered_by("given-answered-by-alpha", "given", "alpha");
    has(judge, "given-x-igc-set", "given", "x-igc-set", &["by-route"]);
    has(judge, "given-x-igc-remove", "given", "x-igc-remove", &[]);
    judge.answered_by("of-the-connection-answered-by-alpha", "of-the-connection", "alpha");
    has(judge, "of-the-connection-x-igc-set", "of-the-connection", "x-igc-set", &["by-route"]);
    has(judge, "of-the-connection-x-igc-remove", "of-the-connection", "x-igc-remove", &[]);
    has(judge, "bare-x-igc-add", "bare", "x-igc-add", &["by-route"]);
    has(judge, "given-x-igc-add", "given", "x-igc-add", &[by, "by-route"]);
    has(judge, "given-x-igc-other", "given", "x-igc-other", &[by]);
}

check!(
    transformation / request_header,
    drive_request_header,
    judge_request_header,
    Check {
        sentence: "a route sets, adds and removes request headers, and headers of the connection never reach the model",
        source: "Gateway API v1, HTTPHeaderFilter (core); RFC 9110, section 7.6.1",
        how: "Sends a chat without the headers, one that has them already and one with headers of its connection; looks at those \
              that the model recorded.",
        capability: Some(capability::HEADER_MODIFIER),
        changes: by_route,
        kills: &["adds-hop-by-hop-header", "appends-instead-of-set", "ignores-header-removal"],
        ..CHECK
    }
);

async fn drive_request_header(stage: &mut Stage) -> Result<()> {
    modified(stage).await?;
    stage.send("bare", chat("alpha")).await?;
    let given = MODIFIED.into_iter().fold(chat("alpha"), |call, name| call.header(name, "by-client"));
    stage.send("given", given).await?;
    let of_the_connection = chat("alpha")
        .header("connection", "keep-alive, x-igc-hop")
        .header("x-igc-hop", "by-client")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive");
    stage.send("of-the-connection", of_the_connection).await
}

fn judge_request_header(judge: &mut Judge<'_>) {
    judge_modified(judge, Judge::model_got, "by-client");
    judge.model_got("of-the-connection-x-igc-hop", "of-the-connection", "x-igc-hop", &[]);
    judge.model_got("of-the-connection-keep-alive", "of-the-connection", "keep-alive", &[]);
    judge.model_got("of-the-connection-proxy-connection", "of-the-connection", "proxy-connection", &[]);
}

check!(
    transformation / response_header,
    drive_response_header,
    judge_response_header,
    Check {
        sentence: "a route sets, adds and removes response headers, and headers of the connection never reach the client",
        source: "Gateway API v1, HTTPHeaderFilter on responses (extended); RFC 9110, section 7.6.1",
        how: "The model replies without the headers, with them and with a header of its connection; looks at those that the client \
              gets.",
        capability: Some(capability::HEADER_MODIFIER),
        changes: by_route,
        kills: &["leaks-upstream-keep-alive", "ignores-response-headers"],
        ..CHECK
    }
);

async fn drive_response_header(stage: &mut Stage) -> Result<()> {
    modified(stage).await?;
    stage.send("bare", chat("alpha")).await?;
    let scripted = |call: Call, name| call.header("x-igc-header", format!("{name}: by-model"));
    stage.send("given", MODIFIED.into_iter().fold(chat("alpha"), scripted)).await?;
    stage.send("of-the-connection", chat("alpha").header("x-igc-header", "keep-alive: timeout=5")).await
}

fn judge_response_header(judge: &mut Judge<'_>) {
    judge_modified(judge, Judge::reply_has, "by-model");
    judge.reply_has("of-the-connection-keep-alive", "of-the-connection", "keep-alive", &[]);
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes};

    use crate::transformation::judges::{Headers, exchanged};

    const SET: (&str, &str) = ("x-igc-set", "by-route");
    const ADDED: (&str, &str) = ("x-igc-add", "by-route");

    /// The three requests, the last two as the model got them.
    fn requests(given: &Headers, of_the_connection: &Headers) -> Fake {
        let fake = exchanged(Fake::of("transformation/request-header").model("alpha"), "bare", &[], &[SET, ADDED]);
        let fake = exchanged(fake, "given", &[], given);
        exchanged(fake, "of-the-connection", &[], of_the_connection)
    }

    const GIVEN: [(&str, &str); 3] =
        [("X-Igc-Set", "by-route"), ("x-igc-add", "by-client,by-route"), ("x-igc-other", "by-client")];

    fn responses(given: &Headers, of_the_connection: &Headers) -> Fake {
        let fake = exchanged(Fake::of("transformation/response-header").model("alpha"), "bare", &[SET, ADDED], &[]);
        let fake = exchanged(fake, "given", given, &[]);
        exchanged(fake, "of-the-connection", of_the_connection, &[])
    }

    const REPLY: [(&str, &str); 3] = [SET, ("x-igc-add", "by-model, by-route"), ("x-igc-other", "by-model")];

    #[rstest]
    #[case::request_header_as_it_should(requests(&GIVEN, &[SET]), Yes)]
    #[case::request_header_added_on_a_line_of_its_own(requests(&[SET, ("x-igc-add", "by-client"), ADDED, GIVEN[2]], &[SET]), Yes)]
    #[case::request_header_set_appends(requests(&[("x-igc-set", "by-client"), GIVEN[0], GIVEN[1], GIVEN[2]], &[SET]), No)]
    #[case::request_header_add_replaces(requests(&[SET, ADDED, GIVEN[2]], &[SET]), No)]
    #[case::request_header_not_removed(requests(&[GIVEN[0], GIVEN[1], GIVEN[2], ("x-igc-remove", "by-client")], &[SET]), No)]
    #[case::request_header_another_one_removed(requests(&GIVEN[..2], &[SET]), No)]
    #[case::request_header_nominated_header_leaks(requests(&GIVEN, &[SET, ("x-igc-hop", "by-client")]), No)]
    #[case::request_header_keep_alive_leaks(requests(&GIVEN, &[SET, ("Keep-Alive", "timeout=5")]), No)]
    #[case::request_header_proxy_connection_leaks(requests(&GIVEN, &[SET, ("proxy-connection", "keep-alive")]), No)]
    #[case::request_header_cut(Fake::of("transformation/request-header").model("alpha").cut("bare"), No)]
    #[case::request_header_nothing_happened(Fake::of("transformation/request-header").model("alpha"), Unproven)]
    #[case::response_header_as_it_should(responses(&REPLY, &[SET]), Yes)]
    #[case::response_header_not_at_all(responses(&[("x-igc-set", "by-model"), ("x-igc-add", "by-model"), REPLY[2]], &[]), No)]
    #[case::response_header_not_removed(responses(&[REPLY[0], REPLY[1], REPLY[2], ("x-igc-remove", "by-model")], &[SET]), No)]
    #[case::response_header_another_one_removed(responses(&REPLY[..2], &[SET]), No)]
    #[case::response_header_keep_alive_leaks(responses(&REPLY, &[SET, ("keep-alive", "timeout=5")]), No)]
    #[case::response_header_from_nobody(responses(&REPLY, &[SET]).answer("bare", 200, &[SET, ADDED], "{}"), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
