//! Budgets and streams: what a streamed reply costs, and what one costs that its client leaves.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    Abandon, Check, Judge, Stage,
    budget::{self, Budget},
    chat, chat_with, check,
};
use verdict::{
    history::{Ended, Exchange, History},
    plan::Level,
};
use wire::sse;

use super::{LIMIT, limited, repeat, spend};

const TWO_REPLIES: u64 = 14;

check!(
    tokens / stream_charged(usage_absent, usage_true, usage_false),
    drive_stream_charged,
    judge_stream_charged,
    Check {
        sentence: "a streamed reply costs what it used, whether the client asks for its usage, forbids it or says nothing",
        source: "OpenAI API reference, stream_options.include_usage; guide 001, usage is metered",
        how: "Spends a budget of two replies with streams whose request has the case's stream_options, and counts how many are \
              admitted.",
        kills: &["never-charges-streams", "charges-streams-that-ask"],
        observe: observe_streams,
        ..LIMIT
    }
);

async fn drive_stream_charged(stage: &mut Stage) -> Result<()> {
    limited(stage, TWO_REPLIES).await?;
    let fields = match stage.case() {
        "usage-true" => json!({"stream": true, "stream_options": {"include_usage": true}}),
        "usage-false" => json!({"stream": true, "stream_options": {"include_usage": false}}),
        _ => json!({"stream": true}),
    };
    budget::in_one_window(stage, "alpha", &["stream"], async |stage, user| {
        repeat(stage, "stream", user, 7, || chat_with("alpha", fields.clone())).await
    })
    .await
}

fn judge_stream_charged(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "stream", TWO_REPLIES) else { return };
    budget.judge_one_window(judge);
    let streams = answered(judge.history(), "stream");
    let broken = streams.iter().filter(|e| !is_whole_stream(e)).count();
    let otherwise = streams.iter().filter_map(|e| usage_told(e)).find(|tokens| *tokens != budget::REPLY);
    if streams.is_empty() || broken > 0 || otherwise.is_some() {
        let statement = judge.clause("streams").expected(format!("whole streams of {} tokens", budget::REPLY));
        statement.unproven(format!("{broken} of {} are none, one says {otherwise:?} tokens", streams.len()));
    }
    budget.judge_admitted_costing(judge, budget::REPLY);
}

fn answered<'h>(history: &'h History, label: &'h str) -> Vec<&'h Exchange> {
    history.labelled(label).filter(|e| e.status() == Some(200)).collect()
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

fn usage_told(exchange: &Exchange) -> Option<u64> {
    let said = |event: &sse::Event| serde_json::from_str::<Value>(&event.data).ok()?["usage"]["total_tokens"].as_u64();
    events(exchange).iter().find_map(said)
}

fn observe_streams(history: &History) -> Value {
    let mut seen = budget::observe(history);
    seen["usage-told"] = answered(history, "stream").first().and_then(|e| usage_told(e)).into();
    seen
}

/// Streams that are left, how many tokens of each are let out before that, and how many it would have.
const LEFT: u64 = 3;
const LET_OUT: u64 = 3;
const WHOLE: u64 = 20;

/// Seconds that a gateway has to let go of a stream that its client left, and the rest of one to go through it.
const LETS_GO: f64 = 5.0;

check!(
    tokens / aborted_stream,
    drive_aborted_stream,
    judge_aborted_stream,
    Check {
        level: Level::Should,
        sentence: "a stream that its client leaves is charged, or declared to be free",
        source: "the gateway's declaration",
        how: "Leaves three streams in their middle, then spends the budget: how many replies it still admits tells whether those \
              cost something.",
        kills: &["charges-on-first-byte"],
        observe: observe_aborted,
        ..LIMIT
    }
);

async fn drive_aborted_stream(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, budget::TELLING).await?;
    budget::in_one_window(stage, "alpha", &["left", "spend"], async |stage, user| {
        // The model waits at the gate: the client cannot but leave in the middle.
        let gate = stage.unique();
        stage.open_gate(&alpha, &gate, LET_OUT).await?;
        let stream = || {
            chat("alpha")
                .stream()
                .header("x-igc-gate", &gate)
                .header("x-igc-stream-tokens", WHOLE.to_string())
                .abandon_after(Abandon::Bytes(1))
        };
        repeat(stage, "left", user, LEFT, stream).await?;
        // Where a gateway has not let go of the model, it may read on to the end, and charge.
        stage.until_answering(&alpha, |n| n == 0, LETS_GO).await?;
        stage.open_gate(&alpha, &gate, WHOLE).await?;
        stage.until_answering(&alpha, |n| n == 0, LETS_GO).await?;
        spend(stage, "spend", user, budget::TELLING).await
    })
    .await
}

fn judge_aborted_stream(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", budget::TELLING) else { return };
    let history = judge.history();
    let streams = answered(history, "left");
    let in_the_middle = |e: &&&Exchange| {
        let begun = e.response().is_some_and(|r| r.ended == Ended::Abandoned && r.body.bytes > 0);
        begun && history.reached(e).len() == 1
    };
    let left = streams.iter().filter(in_the_middle).count();
    if streams.is_empty() || left < streams.len() {
        let expected = "streams that a model had begun, left by the client";
        let statement = judge.clause("left-mid-stream").expected(expected);
        statement.unproven(format!("{left} of {} streams", streams.len()));
    }
    budget.judge_one_window(judge);
    budget.judge_price(judge, budget.declared.aborted_stream);
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
    use suites::fake::Fake;
    use verdict::judge::Holds;

    use super::*;
    use crate::tokens::judges::{limited, limited_with, spent};

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
            let body = stream(usage, "data: [DONE]\n\n");
            let fake = limited("tokens/stream-charged", "usage-absent");
            let fake = fake.times(admitted, |fake, _| fake.answer("stream", 200, MARKS, &body));
            assert_eq!(spent(fake, "stream", 14, 0, refused).verdict(), holds);
        }
    }

    #[rstest]
    #[case::not_a_stream(&[("content-type", "application/json")], stream("null", "data: [DONE]\n\n"))]
    #[case::without_its_end(MARKS, stream("null", ""))]
    #[case::of_another_size(MARKS, stream(r#"{"total_tokens":8}"#, "data: [DONE]\n\n"))]
    fn what_is_no_stream_of_known_size_proves_nothing(#[case] headers: &[(&str, &str)], #[case] body: String) {
        let fake = limited("tokens/stream-charged", "usage-absent");
        let fake = fake.times(3, |fake, _| fake.answer("stream", 200, headers, &body));
        assert_eq!(spent(fake, "stream", 14, 0, 4).verdict(), Holds::Unproven);
    }

    /// Streams that a client left, of a model that had begun them.
    fn left(fake: Fake, streams: usize, ended: Ended) -> Fake {
        fake.times(streams, |fake, _| {
            let fake = fake.answer("left", 200, MARKS, "data: {}\n\n").also_reached("alpha");
            fake.with_response(|response| response.ended = ended)
        })
    }

    #[rstest]
    #[case::free_as_declared(json!("free"), 3, Holds::Yes)]
    #[case::charged_though_declared_free(json!("free"), 2, Holds::No)]
    #[case::charged(json!("charged"), 2, Holds::Yes)]
    #[case::all_of_the_budget_charged(json!("charged"), 0, Holds::Yes)]
    #[case::free_without_a_word(json!(null), 3, Holds::Unproven)]
    #[case::charged_as_declared(json!("charged"), 1, Holds::Yes)]
    #[case::free_though_declared_charged(json!("charged"), 3, Holds::No)]
    fn aborted_stream_is_judged(#[case] declared: Value, #[case] admitted: u64, #[case] holds: Holds) {
        let fake = limited_with("tokens/aborted-stream", "-", "aborted-stream", declared);
        let fake = left(fake.model("alpha"), 3, Ended::Abandoned);
        assert_eq!(spent(fake, "spend", budget::TELLING, admitted, 4).verdict(), holds);
    }

    #[rstest]
    #[case::none_was_sent(0, Ended::Abandoned, 4)]
    #[case::they_came_to_their_end(3, Ended::Complete, 4)]
    #[case::nothing_was_refused(3, Ended::Abandoned, 0)]
    fn aborted_stream_needs_evidence(#[case] streams: usize, #[case] ended: Ended, #[case] refused: u64) {
        for declared in ["free", "charged"] {
            let fake = limited_with("tokens/aborted-stream", "-", "aborted-stream", json!(declared)).model("alpha");
            let admitted = if declared == "free" { 3 } else { 2 };
            let fake = spent(left(fake, streams, ended), "spend", budget::TELLING, admitted, refused);
            assert_eq!(fake.verdict(), Holds::Unproven, "{declared}");
        }
    }
}
