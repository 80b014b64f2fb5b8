//! Streaming: tokens arrive as they are made, whole and unchanged, and both sides hear of it when the other is gone.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Model, Stage, chat, chat_with, check, replies,
    stream::{self, InStep},
};
use verdict::{
    capability::{self, Streaming, UsageChunk},
    history::{Ended, Exchange, Usage},
};
use wire::sse;

const TOKENS: u64 = 8;

const STREAMING: Check = Check { capability: Some(capability::STREAMING), ..CHECK };

/// A model that is routed to as the case says: by a plain HTTPRoute, or as the gateway routes chats.
async fn routed(stage: &mut Stage) -> Result<Model> {
    if stage.case() != "plain-route" {
        return stage.routed_model("alpha").await;
    }
    let alpha = stage.model("alpha").await?;
    stage.plain_route(stage.route(), None, &alpha.service).await?;
    stage.settle(|| chat("alpha"), "alpha").await?;
    Ok(alpha)
}

check!(
    streaming / incremental(plain_route, chat_route),
    drive_incremental,
    judge_incremental,
    Check {
        sentence: "token i of a stream reaches the client before token i+2 is sent",
        source: "guide 000, streaming; OpenAI API reference, chat completions, stream",
        how: "The model sends token i+2 only when it is told, past the gateway, that token i has arrived; if forty other requests \
              pass the gateway meanwhile and no token comes, the stream is held back.",
        kills: &["buffers-streams"],
        observe: stream::observe,
        ..STREAMING
    }
);

async fn drive_incremental(stage: &mut Stage) -> Result<()> {
    let alpha = routed(stage).await?;
    InStep::new("stream", chat("alpha"), &alpha, TOKENS).send(stage).await
}

fn judge_incremental(judge: &mut Judge<'_>) {
    judge.answered_by("stream-answered-by-alpha", "stream", "alpha");
    stream::judge_each(judge, "stream-in-step", "stream");
    stream::judge_arrived(judge, "stream-arrives", "stream", TOKENS);
}

check!(
    streaming / framing(plain_route, chat_route),
    drive_framing,
    judge_framing,
    Check {
        sentence: "a stream arrives byte by byte as it was sent, characters that chunks split included, and ends with [DONE]",
        source: "HTML living standard, 9.2 Server-sent events; OpenAI API reference, streaming",
        how: "Asks for a stream of tokens and for one with everything that server-sent events may have, sent in chunks that split \
              characters; the client's bytes have to be those that the model sent.",
        kills: &["re-chunks-splitting-utf8", "drops-done", "rewrites-events"],
        ..STREAMING
    }
);

/// Everything that a stream may have: comments, ids, event types, data in two lines, characters of several bytes.
const EVENTS: &str = concat!(
    ": a comment\n\n",
    "id: 1\nevent: message\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"gr\u{fc}\u{df} \"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"\u{1f600}\u{2603}\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
);

async fn drive_framing(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    let split = |call: Call| call.stream().header("x-igc-split-utf8", "1");
    stage.send("tokens", split(chat("alpha")).header("x-igc-stream-tokens", TOKENS.to_string())).await?;
    stage.send("events", replies(split(chat("alpha")), EVENTS.as_bytes(), "text/event-stream")).await
}

fn judge_framing(judge: &mut Judge<'_>) {
    judge.answered_by("tokens-answered-by-alpha", "tokens", "alpha");
    judge.reply_untouched("tokens-reply-untouched", "tokens");
    judge_ends_with_done(judge, "tokens-ends-with-done", "tokens");
    judge.answered_by("events-answered-by-alpha", "events", "alpha");
    judge.reply_untouched("events-reply-untouched", "events");
    judge_ends_with_done(judge, "events-ends-with-done", "events");
}

fn judge_ends_with_done(judge: &mut Judge<'_>, clause: &'static str, label: &str) {
    judge.every(clause, label, "a stream without a fault whose last event is [DONE]", |exchange| {
        let parsed = sse::parse(text(exchange).as_bytes());
        if let Some(fault) = parsed.faults.first() {
            return Some(format!("{fault:?}"));
        }
        let last = parsed.events.last().map_or("nothing", |event| &event.data);
        (last != "[DONE]").then(|| format!("{} events, the last is {last}", parsed.events.len()))
    });
}

fn text(exchange: &Exchange) -> &str {
    exchange.response().and_then(|r| r.body.text.as_deref()).unwrap_or_default()
}

check!(
    streaming / usage_chunk,
    drive_usage_chunk,
    judge_usage_chunk,
    Check {
        sentence: "a stream ends with one chunk of usage where it was asked for, and where it was not as the gateway declares",
        source: "OpenAI API reference, stream_options.include_usage; the gateway's declaration",
        how: "Asks for three streams, with include_usage true, without naming it, and with false; looks for the event with usage \
              before [DONE] and compares its numbers with the model's own.",
        kills: &["drops-usage-chunk", "duplicates-usage-chunk"],
        ..STREAMING
    }
);

async fn drive_usage_chunk(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    for (label, options) in [
        ("asked", json!({"stream_options": {"include_usage": true}})),
        ("not-asked", json!({})),
        ("refused", json!({"stream_options": {"include_usage": false}})),
    ] {
        stage.send(label, chat_with("alpha", options).stream()).await?;
    }
    Ok(())
}

fn judge_usage_chunk(judge: &mut Judge<'_>) {
    judge.answered_by("asked-answered-by-alpha", "asked", "alpha");
    judge_ends_with_done(judge, "asked-ends-with-done", "asked");
    judge_usage(judge, "asked-usage", "asked", UsageChunk::Added);
    judge.answered_by("not-asked-answered-by-alpha", "not-asked", "alpha");
    judge_ends_with_done(judge, "not-asked-ends-with-done", "not-asked");
    judge.answered_by("refused-answered-by-alpha", "refused", "alpha");
    judge_ends_with_done(judge, "refused-ends-with-done", "refused");
    if let Some(Streaming { usage_chunk }) = judge.declared() {
        judge_usage(judge, "not-asked-usage", "not-asked", usage_chunk.not_asked);
        judge_usage(judge, "refused-usage", "refused", usage_chunk.refused);
    }
}

/// One event reports usage, or none: the last before `[DONE]`, without choices, with the model's own numbers.
fn judge_usage(judge: &mut Judge<'_>, clause: &'static str, label: &str, wanted: UsageChunk) {
    let history = judge.history();
    let expected = match wanted {
        UsageChunk::Added => "one last event with the model's usage and no choices",
        UsageChunk::Absent => "no event with usage",
    };
    judge.every(clause, label, expected, |exchange| {
        let parsed = sse::parse(text(exchange).as_bytes());
        let events: Vec<Value> = parsed.events.iter().filter_map(|e| serde_json::from_str(&e.data).ok()).collect();
        let reports: Vec<&Value> = events.iter().filter(|e| e["usage"].is_object()).collect();
        let counted = history.reached(exchange).first().and_then(|(_, record)| record.usage);
        let in_place = |report: &Value| {
            Some(report) == events.last() && report["choices"] == json!([]) && Some(reported(report)) == counted
        };
        match (wanted, &reports[..]) {
            (UsageChunk::Absent, []) => None,
            (UsageChunk::Added, [report]) if in_place(report) => None,
            (_, []) => Some("no event with usage".to_owned()),
            (_, [report]) => Some(format!("{report}; the model counted {counted:?}")),
            (_, several) => Some(format!("{} events with usage", several.len())),
        }
    });
}

fn reported(event: &Value) -> Usage {
    let number = |name: &str| event["usage"][name].as_u64().unwrap_or_default();
    Usage {
        prompt_tokens: number("prompt_tokens"),
        completion_tokens: number("completion_tokens"),
        total_tokens: number("total_tokens"),
    }
}

const DEATH: u64 = 4;

check!(
    streaming / mid_stream_error(plain_route, chat_route),
    drive_mid_stream_error,
    judge_mid_stream_error,
    Check {
        sentence: "when the model dies in the middle of a stream the client sees it break off, never a clean end",
        source: "RFC 9112, section 8 (incomplete messages)",
        how: "The model's connection is cut after token 4 of 8; looks at how the client's reply ends, and sends another chat.",
        kills: &["swallows-upstream-death"],
        observe: stream::observe,
        ..STREAMING
    }
);

async fn drive_mid_stream_error(stage: &mut Stage) -> Result<()> {
    let alpha = routed(stage).await?;
    InStep::new("dies", chat("alpha"), &alpha, TOKENS).dying_after(DEATH).send(stage).await?;
    stage.send("next", chat("alpha")).await
}

fn judge_mid_stream_error(judge: &mut Judge<'_>) {
    let history = judge.history();
    stream::judge_arrived(judge, "dies-arrives", "dies", DEATH - 2);
    let died = |exchange: &Exchange| history.reached(exchange).iter().any(|(_, record)| !record.finished);
    if judge.labelled("dies").into_iter().all(died) {
        judge.every("dies-truncated", "dies", "a stream that is seen to break off", |exchange| {
            let ended = exchange.response().map(|r| r.ended);
            let done = if text(exchange).contains("[DONE]") { ", with [DONE]" } else { "" };
            let got = ended.map_or_else(|| exchange.outcome_words(), |ended| format!("{ended:?}"));
            (ended != Some(Ended::Truncated) || !done.is_empty()).then(|| format!("{got}{done}"))
        });
    } else {
        let statement = judge.clause("dies-truncated").expected("a model that died");
        statement.unproven("no record of one that did not end its reply");
    }
    judge.answered_by("next-answered-by-alpha", "next", "alpha");
}

check!(
    streaming / client_abort(plain_route, chat_route),
    drive_client_abort,
    judge_client_abort,
    Check {
        sentence: "when the client leaves a stream the model sees it soon, and generates no more",
        source: "RFC 9112, section 9.6; vLLM, abort on disconnect",
        how: "The client leaves after the first token, while the model waits to send more; looks at whether the model's reply ends, \
              and sends another chat.",
        kills: &["reads-on-after-abort"],
        observe: stream::observe,
        ..STREAMING
    }
);

async fn drive_client_abort(stage: &mut Stage) -> Result<()> {
    let alpha = routed(stage).await?;
    InStep::new("leaves", chat("alpha"), &alpha, TOKENS).leaving_after(1).send(stage).await?;
    stage.send("next", chat("alpha")).await
}

fn judge_client_abort(judge: &mut Judge<'_>) {
    stream::judge_arrived(judge, "leaves-arrives", "leaves", 1);
    stream::judge_left(judge, "leaves-seen-by-the-model", "leaves");
    judge.answered_by("next-answered-by-alpha", "next", "alpha");
}

mod judges {
    use rstest::rstest;
    use suites::{
        fake::{Fake, Holds, No, Unproven, Yes},
        stream::Step::{self, *},
    };
    use verdict::{
        capability::UsageChunks,
        history::{Body, Sent},
    };

    use super::*;

    const IN_STEP: [Step; 8] =
        [Opened(2), Arrived(1), Opened(3), Arrived(3), Opened(5), Arrived(5), Opened(8), Arrived(8)];
    const HELD: [Step; 4] = [Opened(2), HeldBack(40), Opened(8), Arrived(8)];

    fn streamed(check: &str, label: &str, steps: &[Step]) -> Fake {
        Fake::of(check).model("alpha").answered(label, 200, "alpha").fact(&format!("steps-{label}"), json!(steps))
    }

    fn cut(fake: Fake, ended: Ended) -> Fake {
        fake.with_response(|response| response.ended = ended).with_record(|record| record.finished = false)
    }

    /// Two streams with these bodies, of which the model sent `sent`.
    fn framed(sent: &str, got: &str) -> Fake {
        let mut fake = Fake::of("streaming/framing").model("alpha");
        for (label, got) in [("tokens", got), ("events", sent)] {
            let headers = [("content-type", "text/event-stream")];
            fake = fake.answer(label, 200, &headers, got).also_reached("alpha");
            fake = fake.with_record(|record| record.sent = Some(Sent::of(sent.as_bytes())));
        }
        fake
    }

    const GOOD: &str = "data: {\"a\":\"\u{2603}\"}\n\ndata: [DONE]\n\n";

    const USAGE: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}"#;
    const WITHOUT: &str = "data: {\"choices\":[{}],\"usage\":null}\n\ndata: [DONE]\n\n";

    fn with_usage() -> String {
        format!("data: {{\"choices\":[{{}}],\"usage\":null}}\n\n{USAGE}\n\ndata: [DONE]\n\n")
    }

    /// The bodies of the three streams, on a gateway that declares to add the chunk where nothing is said.
    fn reported(asked: &str, not_asked: &str, refused: &str) -> Fake {
        let usage_chunk = UsageChunks { not_asked: UsageChunk::Added, refused: UsageChunk::Absent };
        let mut fake = Fake::of("streaming/usage-chunk").model("alpha").declares(Streaming { usage_chunk });
        for (label, body) in [("asked", asked), ("not-asked", not_asked), ("refused", refused)] {
            let usage = Usage { prompt_tokens: 6, completion_tokens: 1, total_tokens: 7 };
            fake = fake.answer(label, 200, &[("content-type", "text/event-stream")], body).also_reached("alpha");
            fake = fake.with_record(|record| record.usage = Some(usage));
        }
        fake
    }

    const DYING: [Step; 5] = [Opened(2), Arrived(1), Opened(3), Arrived(2), Opened(4)];

    fn dying(ended: Ended) -> Fake {
        cut(streamed("streaming/mid-stream-error", "dies", &DYING), ended)
    }

    fn leaving(steps: &[Step]) -> Fake {
        cut(streamed("streaming/client-abort", "leaves", steps), Ended::Abandoned)
    }

    #[rstest]
    #[case::incremental_in_step(streamed("streaming/incremental", "stream", &IN_STEP), Yes)]
    #[case::incremental_buffered(streamed("streaming/incremental", "stream", &HELD), No)]
    #[case::incremental_tokens_lost(streamed("streaming/incremental", "stream", &IN_STEP[..4]), No)]
    #[case::incremental_cut_short(streamed("streaming/incremental", "stream", &IN_STEP).with_response(|r| r.ended = Ended::Truncated), No)]
    #[case::incremental_from_nobody(Fake::of("streaming/incremental").model("alpha").refused("stream", 200).fact("steps-stream", json!(IN_STEP)), No)]
    #[case::incremental_never_live(streamed("streaming/incremental", "stream", &IN_STEP).unsettled(), No)]
    #[case::incremental_the_model_did_not_wait(streamed("streaming/incremental", "stream", &[Opened(2), Arrived(8)]), Unproven)]
    #[case::incremental_nothing_happened(Fake::of("streaming/incremental").model("alpha"), Unproven)]
    #[case::framing_as_sent(framed(GOOD, GOOD), Yes)]
    #[case::framing_another_space(framed(GOOD, "data:  {\"a\":\"\u{2603}\"}\n\ndata: [DONE]\n\n"), No)]
    #[case::framing_a_character_broken(framed(GOOD, "data: {\"a\":\"\u{fffd}\"}\n\ndata: [DONE]\n\n"), No)]
    #[case::framing_done_dropped(framed(GOOD, "data: {\"a\":\"\u{2603}\"}\n\n"), No)]
    #[case::framing_no_done_from_the_model(framed("data: {}\n\n", "data: {}\n\n"), No)]
    #[case::framing_last_event_unfinished(framed("data: {}\n\ndata: [DONE]\n", "data: {}\n\ndata: [DONE]\n"), No)]
    #[case::framing_not_text(framed(GOOD, GOOD).with_response(|r| r.body = Body::of(b"\xE2data")), No)]
    #[case::framing_truncated(framed(GOOD, GOOD).with_response(|r| r.ended = Ended::Truncated), No)]
    #[case::framing_model_did_not_say(framed(GOOD, GOOD).with_record(|record| record.sent = None), Unproven)]
    #[case::framing_one_was_not_sent(Fake::of("streaming/framing").model("alpha").answered("tokens", 200, "alpha"), No)]
    #[case::framing_nothing_happened(Fake::of("streaming/framing").model("alpha"), Unproven)]
    #[case::usage_chunk_as_declared(reported(&with_usage(), &with_usage(), WITHOUT), Yes)]
    #[case::usage_chunk_not_where_asked(reported(WITHOUT, &with_usage(), WITHOUT), No)]
    #[case::usage_chunk_not_where_declared(reported(&with_usage(), WITHOUT, WITHOUT), No)]
    #[case::usage_chunk_where_it_is_declared_absent(reported(&with_usage(), &with_usage(), &with_usage()), No)]
    #[case::usage_chunk_twice(reported(&format!("{USAGE}\n\n{}", with_usage()), &with_usage(), WITHOUT), No)]
    #[case::usage_chunk_with_choices(reported(&with_usage().replace("[],", "[{}],"), &with_usage(), WITHOUT), No)]
    #[case::usage_chunk_not_the_last(reported(&format!("{USAGE}\n\n{WITHOUT}"), &with_usage(), WITHOUT), No)]
    #[case::usage_chunk_other_numbers(reported(&with_usage().replace('7', "8"), &with_usage(), WITHOUT), No)]
    #[case::usage_chunk_undeclared(reported(&with_usage(), &with_usage(), WITHOUT).declares(json!({})), Unproven)]
    #[case::mid_stream_error_broken_off(dying(Ended::Truncated).answered("next", 200, "alpha"), Yes)]
    #[case::mid_stream_error_a_clean_end(dying(Ended::Complete).answered("next", 200, "alpha"), No)]
    #[case::mid_stream_error_a_hang(dying(Ended::Bounded).answered("next", 200, "alpha"), No)]
    #[case::mid_stream_error_done_was_made_up(dying(Ended::Truncated).with_response(|r| r.body = Body::of(b"data: [DONE]\n\n")).answered("next", 200, "alpha"), No)]
    #[case::mid_stream_error_nothing_had_arrived(cut(streamed("streaming/mid-stream-error", "dies", &DYING[..1]), Ended::Truncated).answered("next", 200, "alpha"), No)]
    #[case::mid_stream_error_the_gateway_is_gone(dying(Ended::Truncated).cut("next"), No)]
    #[case::mid_stream_error_it_did_not_die(streamed("streaming/mid-stream-error", "dies", &DYING).answered("next", 200, "alpha"), Unproven)]
    #[case::client_abort_seen(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).answered("next", 200, "alpha"), Yes)]
    #[case::client_abort_not_seen(leaving(&[Opened(2), Arrived(1), Left, Opened(8)]).answered("next", 200, "alpha"), No)]
    #[case::client_abort_read_to_the_end(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).with_record(|record| record.finished = true).answered("next", 200, "alpha"), No)]
    #[case::client_abort_the_gateway_is_gone(leaving(&[Opened(2), Arrived(1), Left, GaveUp, Opened(8)]).cut("next"), No)]
    #[case::client_abort_nothing_happened(Fake::of("streaming/client-abort").model("alpha"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
