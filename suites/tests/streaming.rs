//! Streaming: tokens arrive as they are made, whole and unchanged, and both sides hear of it when the other is gone.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Model, Stage, chat, chat_with, check, proof, replies,
    stream::{self, InStep},
};
use verdict::{
    history::{Ended, Exchange, History, Usage},
    judge::Judgement,
};
use wire::sse;

/// How many tokens the streams have.
const TOKENS: u64 = 8;

/// A model that is routed to as the case says: by a plain HTTPRoute, or as the gateway routes chats.
async fn routed(stage: &mut Stage) -> Result<(Model, String)> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    if stage.case() == "plain-route" {
        let everything = json!({"path": {"type": "PathPrefix", "value": "/"}});
        let rules = json!([{"match": everything, "service": alpha.service, "port": 80}]);
        stage.intent("http-route", json!({"rules": rules})).await?;
    } else {
        stage.route_models(&[&alpha]).await?;
    }
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    Ok((alpha, host))
}

#[rstest]
#[case::plain_route("plain-route")]
#[case::chat_route("chat-route")]
#[tokio::test]
async fn incremental(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("streaming/incremental", case, &folder)
        .observing(stream::observe)
        .run(drive_incremental, judge_incremental)
        .await;
}

async fn drive_incremental(stage: &mut Stage) -> Result<()> {
    let (alpha, host) = routed(stage).await?;
    stage.begin().await?;
    InStep::new("stream", chat(&host, "alpha"), &alpha, TOKENS).send(stage).await?;
    stage.end().await
}

fn judge_incremental(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "stream", "alpha");
    stream::judge_each(&mut judgement, history, "stream");
    stream::judge_arrived(&mut judgement, history, "stream", TOKENS);
    judgement
}

#[rstest]
#[case::plain_route("plain-route")]
#[case::chat_route("chat-route")]
#[tokio::test]
async fn framing(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("streaming/framing", case, &folder).run(drive_framing, judge_framing).await;
}

/// Everything that a stream may have: comments, ids, event types, data in two lines, characters of several bytes.
const EVENTS: &str = concat!(
    ": a comment\n\n",
    "id: 1\nevent: message\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"gr\u{fc}\u{df} \"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"\u{1f600}\u{2603}\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
);

async fn drive_framing(stage: &mut Stage) -> Result<()> {
    let (_, host) = routed(stage).await?;
    stage.begin().await?;
    let split = |call: Call| call.stream().header("x-igc-split-utf8", "1");
    stage.send("tokens", split(chat(&host, "alpha")).header("x-igc-stream-tokens", TOKENS.to_string())).await;
    stage.send("events", replies(split(chat(&host, "alpha")), EVENTS.as_bytes(), "text/event-stream")).await;
    stage.end().await
}

fn judge_framing(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["tokens", "events"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        proof::reply_untouched(&mut judgement, history, label);
        judge_ends_with_done(&mut judgement, history, label);
    }
    judgement
}

/// The stream reads without a fault, and its last event is `[DONE]`.
fn judge_ends_with_done(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-ends-with-done");
    for exchange in history.labelled(label) {
        let parsed = sse::parse(text(exchange).as_bytes());
        let last = parsed.events.last().map_or("nothing", |event| &event.data);
        let got = match parsed.faults.first() {
            Some(fault) => format!("{fault:?}"),
            None => format!("{} events, the last is {last}", parsed.events.len()),
        };
        let holds = parsed.faults.is_empty() && last == "[DONE]";
        judgement.that(&clause, holds, "a stream without a fault whose last event is [DONE]", got, [exchange]);
    }
}

fn text(exchange: &Exchange) -> &str {
    exchange.response().and_then(|r| r.body.text.as_deref()).unwrap_or_default()
}

#[rstest]
#[tokio::test]
async fn usage_chunk(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("streaming/usage-chunk", "-", &folder).run(drive_usage_chunk, judge_usage_chunk).await;
}

async fn drive_usage_chunk(stage: &mut Stage) -> Result<()> {
    let (_, host) = routed(stage).await?;
    stage.begin().await?;
    for (label, options) in [
        ("asked", json!({"stream_options": {"include_usage": true}})),
        ("not-asked", json!({})),
        ("refused", json!({"stream_options": {"include_usage": false}})),
    ] {
        stage.send(label, chat_with(&host, "alpha", options).stream()).await;
    }
    stage.end().await
}

fn judge_usage_chunk(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let declared = history.declared.get("usage-chunk").cloned().unwrap_or_default();
    for label in ["asked", "not-asked", "refused"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        judge_ends_with_done(&mut judgement, history, label);
        match declared[label].as_str().or((label == "asked").then_some("added")) {
            Some("added") => judge_usage(&mut judgement, history, label, 1),
            Some("absent") => judge_usage(&mut judgement, history, label, 0),
            _ => _ = judgement.unproven(label, "a declaration of usage-chunk", "the gateway's folder declares none"),
        }
    }
    judgement
}

/// So many events of each stream report usage: the last before `[DONE]`, without choices, with the model's own numbers.
fn judge_usage(judgement: &mut Judgement, history: &History, label: &str, wanted: usize) {
    let clause = format!("{label}-usage");
    for exchange in history.labelled(label) {
        let parsed = sse::parse(text(exchange).as_bytes());
        let events: Vec<Value> = parsed.events.iter().filter_map(|e| serde_json::from_str(&e.data).ok()).collect();
        let reports: Vec<&Value> = events.iter().filter(|e| e["usage"].is_object()).collect();
        let number = |report: &Value, name: &str| report["usage"][name].as_u64().unwrap_or_default();
        let told = |report: &&Value| Usage {
            prompt_tokens: number(report, "prompt_tokens"),
            completion_tokens: number(report, "completion_tokens"),
            total_tokens: number(report, "total_tokens"),
        };
        let counted = history.reached(exchange).first().and_then(|(_, record)| record.usage);
        let in_place = reports.iter().all(|report| {
            report["choices"].as_array().is_some_and(Vec::is_empty)
                && Some(*report) == events.last()
                && Some(told(report)) == counted
        });
        let got = match reports.first() {
            None => "no event with usage".to_owned(),
            Some(report) if reports.len() == 1 => format!("{report}; the model counted {counted:?}"),
            Some(_) => format!("{} events with usage", reports.len()),
        };
        let expected =
            if wanted == 0 { "no event with usage" } else { "one last event with the model's usage and no choices" };
        judgement.that(&clause, reports.len() == wanted && in_place, expected, got, [exchange]);
    }
}

/// The token after which the model dies.
const DEATH: u64 = 4;

#[rstest]
#[case::plain_route("plain-route")]
#[case::chat_route("chat-route")]
#[tokio::test]
async fn mid_stream_error(
    #[case] case: &'static str,
    #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf,
) {
    check("streaming/mid-stream-error", case, &folder)
        .observing(stream::observe)
        .run(drive_mid_stream_error, judge_mid_stream_error)
        .await;
}

async fn drive_mid_stream_error(stage: &mut Stage) -> Result<()> {
    let (alpha, host) = routed(stage).await?;
    stage.begin().await?;
    InStep::new("dies", chat(&host, "alpha"), &alpha, TOKENS).dying_after(DEATH).send(stage).await?;
    stage.send("next", chat(&host, "alpha")).await;
    stage.end().await
}

fn judge_mid_stream_error(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    stream::judge_arrived(&mut judgement, history, "dies", DEATH - 2);
    if history.labelled("dies").next().is_none() {
        judgement.unproven("dies-truncated", "a stream whose model died", "none was sent");
    }
    for exchange in history.labelled("dies") {
        let died = history.reached(exchange).iter().any(|(_, record)| !record.finished);
        if !died {
            judgement.unproven("dies-truncated", "a model that died", "no record of one that did not end its reply");
            continue;
        }
        let ended = exchange.response().map(|r| r.ended);
        let got = ended.map_or_else(|| exchange.outcome_words(), |ended| format!("{ended:?}"));
        let done = text(exchange).contains("[DONE]");
        let holds = ended == Some(Ended::Truncated) && !done;
        let got = if done { format!("{got}, with [DONE]") } else { got };
        judgement.that("dies-truncated", holds, "a stream that is seen to break off", got, [exchange]);
    }
    proof::answered_by(&mut judgement, history, "next", "alpha");
    judgement
}

#[rstest]
#[case::plain_route("plain-route")]
#[case::chat_route("chat-route")]
#[tokio::test]
async fn client_abort(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("streaming/client-abort", case, &folder)
        .observing(stream::observe)
        .run(drive_client_abort, judge_client_abort)
        .await;
}

async fn drive_client_abort(stage: &mut Stage) -> Result<()> {
    let (alpha, host) = routed(stage).await?;
    stage.begin().await?;
    InStep::new("leaves", chat(&host, "alpha"), &alpha, TOKENS).leaving_after(1).send(stage).await?;
    stage.send("next", chat(&host, "alpha")).await;
    stage.end().await
}

fn judge_client_abort(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    stream::judge_arrived(&mut judgement, history, "leaves", 1);
    stream::judge_left(&mut judgement, history, "leaves");
    proof::answered_by(&mut judgement, history, "next", "alpha");
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::{
        fake::{Fake, verdict_of},
        stream::Step::{self, *},
    };
    use verdict::{history::Body, history::Sent, judge::Holds};

    use super::*;

    const IN_STEP: [Step; 8] =
        [Opened(2), Arrived(1), Opened(3), Arrived(3), Opened(5), Arrived(5), Opened(8), Arrived(8)];
    const HELD: [Step; 4] = [Opened(2), HeldBack(40), Opened(8), Arrived(8)];

    fn streamed(check: &str, label: &str, steps: &[Step]) -> Fake {
        let fake = Fake::of(check).model("alpha").answered(label, 200, "alpha");
        fake.fact(&format!("steps-{label}"), json!(steps))
    }

    fn cut(fake: Fake, ended: Ended) -> Fake {
        fake.with_response(|response| response.ended = ended).with_record(|record| record.finished = false)
    }

    #[rstest]
    #[case::in_step(streamed("streaming/incremental", "stream", &IN_STEP), Holds::Yes)]
    #[case::buffered(streamed("streaming/incremental", "stream", &HELD), Holds::No)]
    #[case::tokens_lost(streamed("streaming/incremental", "stream", &IN_STEP[..4]), Holds::No)]
    #[case::cut_short(streamed("streaming/incremental", "stream", &IN_STEP).with_response(|r| r.ended = Ended::Truncated), Holds::No)]
    #[case::from_nobody(Fake::of("streaming/incremental").model("alpha").refused("stream", 200).fact("steps-stream", json!(IN_STEP)), Holds::No)]
    #[case::never_live(streamed("streaming/incremental", "stream", &IN_STEP).unsettled(), Holds::No)]
    #[case::the_model_did_not_wait(streamed("streaming/incremental", "stream", &[Opened(2), Arrived(8)]), Holds::Unproven)]
    #[case::nothing_happened(Fake::of("streaming/incremental").model("alpha"), Holds::Unproven)]
    fn incremental_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_incremental, &fake), holds);
    }

    /// Two streams with these bodies, of which the model sent `sent`.
    fn framed(sent: &str, got: &str) -> Fake {
        let digest = |body: Body| Sent { bytes: body.bytes, sha256: body.sha256 };
        let mut fake = Fake::of("streaming/framing").model("alpha");
        for (label, got) in [("tokens", got), ("events", sent)] {
            let headers = [("content-type", "text/event-stream")];
            fake = fake.answer(label, 200, &headers, got).also_reached("alpha");
            fake = fake.with_record(|record| record.sent = Some(digest(Body::of(sent.as_bytes()))));
        }
        fake
    }

    const GOOD: &str = "data: {\"a\":\"\u{2603}\"}\n\ndata: [DONE]\n\n";

    #[rstest]
    #[case::as_sent(framed(GOOD, GOOD), Holds::Yes)]
    #[case::another_space(framed(GOOD, "data:  {\"a\":\"\u{2603}\"}\n\ndata: [DONE]\n\n"), Holds::No)]
    #[case::a_character_broken(framed(GOOD, "data: {\"a\":\"\u{fffd}\"}\n\ndata: [DONE]\n\n"), Holds::No)]
    #[case::done_dropped(framed(GOOD, "data: {\"a\":\"\u{2603}\"}\n\n"), Holds::No)]
    #[case::no_done_from_the_model(framed("data: {}\n\n", "data: {}\n\n"), Holds::No)]
    #[case::last_event_unfinished(framed("data: {}\n\ndata: [DONE]\n", "data: {}\n\ndata: [DONE]\n"), Holds::No)]
    #[case::not_text(framed(GOOD, GOOD).with_response(|r| r.body = Body::of(b"\xE2data")), Holds::No)]
    #[case::truncated(framed(GOOD, GOOD).with_response(|r| r.ended = Ended::Truncated), Holds::No)]
    #[case::model_did_not_say(framed(GOOD, GOOD).with_record(|record| record.sent = None), Holds::Unproven)]
    #[case::one_was_not_sent(Fake::of("streaming/framing").model("alpha").answered("tokens", 200, "alpha"), Holds::No)]
    #[case::nothing_happened(Fake::of("streaming/framing").model("alpha"), Holds::Unproven)]
    fn framing_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_framing, &fake), holds);
    }

    const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}"#;
    const WITHOUT: &str = "data: {\"choices\":[{}],\"usage\":null}\n\ndata: [DONE]\n\n";

    fn with_usage() -> String {
        format!("data: {{\"choices\":[{{}}],\"usage\":null}}\n\n{USAGE}\n\ndata: [DONE]\n\n")
    }

    /// The bodies of the three streams, on a gateway that declares to add the chunk where nothing is said.
    fn reported(asked: &str, not_asked: &str, refused: &str) -> Fake {
        let declared = json!({"not-asked": "added", "refused": "absent"});
        let mut fake = Fake::of("streaming/usage-chunk").model("alpha").declares("usage-chunk", declared);
        for (label, body) in [("asked", asked), ("not-asked", not_asked), ("refused", refused)] {
            let usage = Usage { prompt_tokens: 6, completion_tokens: 1, total_tokens: 7 };
            fake = fake.answer(label, 200, &[("content-type", "text/event-stream")], body).also_reached("alpha");
            fake = fake.with_record(|record| record.usage = Some(usage));
        }
        fake
    }

    #[rstest]
    #[case::as_declared(reported(&with_usage(), &with_usage(), WITHOUT), Holds::Yes)]
    #[case::not_where_asked(reported(WITHOUT, &with_usage(), WITHOUT), Holds::No)]
    #[case::not_where_declared(reported(&with_usage(), WITHOUT, WITHOUT), Holds::No)]
    #[case::where_it_is_declared_absent(reported(&with_usage(), &with_usage(), &with_usage()), Holds::No)]
    #[case::twice(reported(&format!("{USAGE}\n\n{}", with_usage()), &with_usage(), WITHOUT), Holds::No)]
    #[case::with_choices(reported(&with_usage().replace("[],", "[{}],"), &with_usage(), WITHOUT), Holds::No)]
    #[case::not_the_last(reported(&format!("{USAGE}\n\n{WITHOUT}"), &with_usage(), WITHOUT), Holds::No)]
    #[case::other_numbers(reported(&with_usage().replace('7', "8"), &with_usage(), WITHOUT), Holds::No)]
    #[case::undeclared(reported(&with_usage(), &with_usage(), WITHOUT).declares("usage-chunk", Value::Null), Holds::Unproven)]
    fn usage_chunk_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_usage_chunk, &fake), holds);
    }

    const DYING: [Step; 5] = [Opened(2), Arrived(1), Opened(3), Arrived(2), Opened(4)];

    fn dying(ended: Ended) -> Fake {
        cut(streamed("streaming/mid-stream-error", "dies", &DYING), ended)
    }

    #[rstest]
    #[case::broken_off(dying(Ended::Truncated).answered("next", 200, "alpha"), Holds::Yes)]
    #[case::a_clean_end(dying(Ended::Complete).answered("next", 200, "alpha"), Holds::No)]
    #[case::a_hang(dying(Ended::Bounded).answered("next", 200, "alpha"), Holds::No)]
    #[case::done_was_made_up(dying(Ended::Truncated).with_response(|r| r.body = Body::of(b"data: [DONE]\n\n")).answered("next", 200, "alpha"), Holds::No)]
    #[case::nothing_had_arrived(cut(streamed("streaming/mid-stream-error", "dies", &DYING[..1]), Ended::Truncated).answered("next", 200, "alpha"), Holds::No)]
    #[case::the_gateway_is_gone(dying(Ended::Truncated).cut("next"), Holds::No)]
    #[case::it_did_not_die(streamed("streaming/mid-stream-error", "dies", &DYING).answered("next", 200, "alpha"), Holds::Unproven)]
    fn mid_stream_error_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_mid_stream_error, &fake), holds);
    }

    fn leaving(steps: &[Step]) -> Fake {
        cut(streamed("streaming/client-abort", "leaves", steps), Ended::Abandoned)
    }

    #[rstest]
    #[case::seen(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).answered("next", 200, "alpha"), Holds::Yes)]
    #[case::not_seen(leaving(&[Opened(2), Arrived(1), Left, Opened(8)]).answered("next", 200, "alpha"), Holds::No)]
    #[case::read_to_the_end(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).with_record(|record| record.finished = true).answered("next", 200, "alpha"), Holds::No)]
    #[case::the_gateway_is_gone(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).cut("next"), Holds::No)]
    #[case::nothing_happened(Fake::of("streaming/client-abort").model("alpha"), Holds::Unproven)]
    fn client_abort_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_client_abort, &fake), holds);
    }
}
