//! Budgets and streams: what a streamed reply costs, and what one costs that its client leaves.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Abandon, Stage,
    budget::{self, Budget},
    chat_with, check, proof,
};
use verdict::{
    history::{Ended, Exchange, History},
    judge::Judgement,
};
use wire::sse;

use super::{limited, repeat, spend};

/// A budget of two replies.
const TWO_REPLIES: u64 = 14;

#[rstest]
#[case::usage_absent("usage-absent")]
#[case::usage_true("usage-true")]
#[case::usage_false("usage-false")]
#[tokio::test]
async fn stream_charged(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/stream-charged", case, &folder)
        .observing(observe_streams)
        .run(drive_stream_charged, judge_stream_charged)
        .await;
}

async fn drive_stream_charged(stage: &mut Stage) -> Result<()> {
    limited(stage, TWO_REPLIES).await?;
    let fields = match stage.case() {
        "usage-true" => json!({"stream": true, "stream_options": {"include_usage": true}}),
        "usage-false" => json!({"stream": true, "stream_options": {"include_usage": false}}),
        _ => json!({"stream": true}),
    };
    let host = stage.hostname().to_owned();
    budget::in_one_window(stage, "alpha", &["stream"], async |stage, user| {
        repeat(stage, "stream", user, 7, || chat_with(&host, "alpha", fields.clone())).await;
        Ok(())
    })
    .await
}

fn judge_stream_charged(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "stream", TWO_REPLIES);
    budget.judge_one_window(&mut judgement);
    let streams: Vec<&Exchange> = history.labelled("stream").filter(|e| e.status() == Some(200)).collect();
    let broken: Vec<&Exchange> = streams.iter().copied().filter(|e| !is_whole_stream(e)).collect();
    let otherwise = streams.iter().filter_map(|e| usage_told(e)).find(|tokens| *tokens != budget::REPLY);
    if streams.is_empty() || !broken.is_empty() || otherwise.is_some() {
        let got = format!("{} of {} are none, one says {otherwise:?} tokens", broken.len(), streams.len());
        judgement.unproven("streams", format!("whole streams of {} tokens", budget::REPLY), got);
    }
    budget.judge_admitted_costing(&mut judgement, budget::REPLY);
    judgement
}

fn events(exchange: &Exchange) -> Vec<sse::Event> {
    let text = exchange.response().and_then(|r| r.body.text.as_deref()).unwrap_or_default();
    sse::parse(text.as_bytes()).events
}

fn is_whole_stream(exchange: &Exchange) -> bool {
    let whole = exchange.response().is_some_and(|r| {
        r.ended == Ended::Complete && r.header("content-type").is_some_and(|t| t.starts_with(sse::CONTENT_TYPE))
    });
    whole && events(exchange).last().is_some_and(|event| event.data == "[DONE]")
}

/// Tokens that the client was told of.
fn usage_told(exchange: &Exchange) -> Option<u64> {
    let said = |event: &sse::Event| serde_json::from_str::<Value>(&event.data).ok()?["usage"]["total_tokens"].as_u64();
    events(exchange).iter().find_map(said)
}

/// A budget's observation, and whether the client was told the usage.
fn observe_streams(history: &History) -> Value {
    let mut seen = budget::observe(history);
    let streams = history.labelled("stream").filter(|e| e.status() == Some(200));
    seen["usage-told"] = streams.map(usage_told).next().flatten().into();
    seen
}

/// Streams that are left, how many tokens of each are let out before that, and how many it would have.
const LEFT: u64 = 3;
const LET_OUT: u64 = 3;
const WHOLE: u64 = 20;

/// Seconds that a gateway has to let go of a stream that its client left, and the rest of one to go through it.
const LETS_GO: f64 = 5.0;

#[rstest]
#[tokio::test]
async fn aborted_stream(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/aborted-stream", "-", &folder)
        .observing(observe_aborted)
        .run(drive_aborted_stream, judge_aborted_stream)
        .await;
}

async fn drive_aborted_stream(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, budget::TELLING).await?;
    let host = stage.hostname().to_owned();
    budget::in_one_window(stage, "alpha", &["left", "spend"], async |stage, user| {
        // The model waits at the gate: the client cannot but leave in the middle.
        let gate = stage.unique();
        stage.open_gate(&alpha, &gate, LET_OUT).await?;
        let stream = || {
            chat_with(&host, "alpha", json!({"stream": true}))
                .header("x-igc-gate", &gate)
                .header("x-igc-stream-tokens", WHOLE.to_string())
                .abandon_after(Abandon::Bytes(1))
        };
        repeat(stage, "left", user, LEFT, stream).await;
        // Where a gateway has not let go of the model, it may read on to the end, and charge.
        stage.until_answering(&alpha, |n| n == 0, LETS_GO).await?;
        stage.open_gate(&alpha, &gate, WHOLE).await?;
        stage.until_answering(&alpha, |n| n == 0, LETS_GO).await?;
        spend(stage, "spend", user, budget::TELLING).await;
        Ok(())
    })
    .await
}

fn judge_aborted_stream(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let streams: Vec<&Exchange> = history.labelled("left").filter(|e| e.status() == Some(200)).collect();
    let in_the_middle = |e: &&Exchange| {
        let begun = e.response().is_some_and(|r| r.ended == Ended::Abandoned && r.body.bytes > 0);
        begun && history.reached(e).len() == 1
    };
    let left = streams.iter().copied().filter(in_the_middle).count();
    if streams.is_empty() || left < streams.len() {
        let got = format!("{left} of {} streams", streams.len());
        judgement.unproven("left-mid-stream", "streams that a model had begun, left by the client", got);
    }
    let budget = Budget::of(history, "spend", budget::TELLING);
    budget.judge_one_window(&mut judgement);
    budget.judge_price(&mut judgement, history.declared.get("aborted-stream").and_then(Value::as_str));
    judgement
}

/// A budget's observation, and whether the model's reply went on without the client.
fn observe_aborted(history: &History) -> Value {
    let mut seen = budget::observe(history);
    let left = history.labelled("left").filter_map(|e| history.reached(e).first().map(|(_, record)| record.finished));
    seen["read-to-the-end"] = left.collect::<Vec<bool>>().into();
    seen
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, verdict_of};
    use verdict::{history::Outcome, judge::Holds};

    use super::*;
    use crate::tokens::judges::{limited, spent};

    const MARKS: &[(&str, &str)] = &[
        ("content-type", "text/event-stream"),
        ("x-ratelimit-limit", "14, 14;w=60"),
        ("x-ratelimit-remaining", "14"),
        ("x-ratelimit-reset", "50"),
    ];

    fn stream(usage: &str, end: &str) -> String {
        format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n{end}")
    }

    #[rstest]
    #[case::charged(3, 4, Holds::Yes)]
    #[case::never_charged(7, 0, Holds::No)]
    #[case::charged_twice(2, 5, Holds::No)]
    #[case::nothing_was_answered(0, 0, Holds::Unproven)]
    fn stream_charged_is_judged(#[case] admitted: usize, #[case] refused: u64, #[case] holds: Holds) {
        for usage in ["null", r#"{"total_tokens":7}"#] {
            let mut fake = limited("tokens/stream-charged", "usage-absent");
            for _ in 0..admitted {
                fake = fake.answer("stream", 200, MARKS, &stream(usage, "data: [DONE]\n\n"));
            }
            assert_eq!(verdict_of(judge_stream_charged, &spent(fake, "stream", 14, 0, refused)), holds);
        }
    }

    #[rstest]
    #[case::not_a_stream(&[("content-type", "application/json")], stream("null", "data: [DONE]\n\n"))]
    #[case::without_its_end(MARKS, stream("null", ""))]
    #[case::of_another_size(MARKS, stream(r#"{"total_tokens":8}"#, "data: [DONE]\n\n"))]
    fn what_is_no_stream_of_known_size_proves_nothing(#[case] headers: &[(&str, &str)], #[case] body: String) {
        let mut fake = limited("tokens/stream-charged", "usage-absent");
        for _ in 0..3 {
            fake = fake.answer("stream", 200, headers, &body);
        }
        assert_eq!(verdict_of(judge_stream_charged, &spent(fake, "stream", 14, 0, 4)), Holds::Unproven);
    }

    /// Streams that a client left, of a model that had begun them.
    fn left(mut fake: Fake, streams: usize, ended: Ended) -> Fake {
        for _ in 0..streams {
            fake = fake.answer("left", 200, MARKS, "data: {}\n\n").also_reached("alpha");
            if let Some(Outcome::Response(response)) = fake.0.exchanges.last_mut().map(|e| &mut e.outcome) {
                response.ended = ended;
            }
        }
        fake
    }

    #[rstest]
    #[case::free_as_declared(Some("free"), 3, Holds::Yes)]
    #[case::charged_though_declared_free(Some("free"), 2, Holds::No)]
    #[case::charged(None, 2, Holds::Yes)]
    #[case::all_of_the_budget_charged(None, 0, Holds::Yes)]
    #[case::free_without_a_word(None, 3, Holds::No)]
    #[case::charged_as_declared(Some("charged"), 1, Holds::Yes)]
    #[case::free_though_declared_charged(Some("charged"), 3, Holds::No)]
    fn aborted_stream_is_judged(#[case] declared: Option<&str>, #[case] admitted: u64, #[case] holds: Holds) {
        let fake = declared.map_or_else(
            || limited("tokens/aborted-stream", "-"),
            |word| limited("tokens/aborted-stream", "-").declares("aborted-stream", json!(word)),
        );
        let fake = left(fake.model("alpha"), 3, Ended::Abandoned);
        assert_eq!(verdict_of(judge_aborted_stream, &spent(fake, "spend", budget::TELLING, admitted, 4)), holds);
    }

    #[rstest]
    #[case::none_was_sent(0, Ended::Abandoned, 4)]
    #[case::they_came_to_their_end(3, Ended::Complete, 4)]
    #[case::nothing_was_refused(3, Ended::Abandoned, 0)]
    fn aborted_stream_needs_evidence(#[case] streams: usize, #[case] ended: Ended, #[case] refused: u64) {
        for declared in ["free", "charged"] {
            let fake = limited("tokens/aborted-stream", "-").declares("aborted-stream", json!(declared)).model("alpha");
            let admitted = if declared == "free" { 3 } else { 2 };
            let fake = spent(left(fake, streams, ended), "spend", budget::TELLING, admitted, refused);
            assert_eq!(verdict_of(judge_aborted_stream, &fake), Holds::Unproven, "{declared}");
        }
    }
}
