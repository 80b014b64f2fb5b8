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
        judge.clause("left-mid-stream").expected(expected).unproven(format!("{left} of {} streams", streams.len()));
    }
    budget.judge_price(judge, budget.declared.aborted_stream);
}

fn observe_aborted(history: &History) -> Value {
    let mut seen = budget::observe(history);
    let left = history.labelled("left").filter_map(|e| history.reached(e).first().map(|(_, record)| record.finished));
    seen["read-to-the-end"] = left.collect::<Vec<bool>>().into();
    seen
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes};

    use super::*;
    use crate::tokens::judges::{limited, limited_with, spent};

    const MARKS: &[(&str, &str)] = &[
        ("content-type", "text/event-stream"),
        ("x-ratelimit-limit", "14, 14;w=60"),
        ("x-ratelimit-remaining", "14"),
        ("x-ratelimit-reset", "50"),
    ];

    const DONE: &str = "data: [DONE]\n\n";

    /// So many streams with this `usage` and this end, then refusals.
    fn streamed(headers: &[(&str, &str)], usage: &str, end: &str, admitted: usize, refused: u64) -> Fake {
        let body = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n{end}");
        let fake = limited("tokens/stream-charged", "usage-absent");
        let fake = fake.times(admitted, |fake, _| fake.answer("stream", 200, headers, &body));
        spent(fake, "stream", 14, 0, refused)
    }

    const UNSAID: &str = "null";
    const SAID: &str = r#"{"total_tokens":7}"#;

    /// Streams that a client left, of a model that had begun them.
    fn left(fake: Fake, streams: usize, ended: Ended) -> Fake {
        fake.times(streams, |fake, _| {
            let fake = fake.answer("left", 200, MARKS, "data: {}\n\n").also_reached("alpha");
            fake.with_response(|response| response.ended = ended)
        })
    }

    fn aborted(declared: Value, streams: usize, ended: Ended, admitted: u64, refused: u64) -> Fake {
        let fake = limited_with("tokens/aborted-stream", "-", "aborted-stream", declared).model("alpha");
        spent(left(fake, streams, ended), "spend", budget::TELLING, admitted, refused)
    }

    fn aborted_stream(declared: Value, admitted: u64) -> Fake {
        aborted(declared, 3, Ended::Abandoned, admitted, 4)
    }

    #[rstest]
    #[case::stream_charged(streamed(MARKS, UNSAID, DONE, 3, 4), Yes)]
    #[case::stream_charged_and_said(streamed(MARKS, SAID, DONE, 3, 4), Yes)]
    #[case::stream_charged_never(streamed(MARKS, UNSAID, DONE, 7, 0), No)]
    #[case::stream_charged_never_and_said(streamed(MARKS, SAID, DONE, 7, 0), No)]
    #[case::stream_charged_twice(streamed(MARKS, UNSAID, DONE, 2, 5), No)]
    #[case::stream_charged_twice_and_said(streamed(MARKS, SAID, DONE, 2, 5), No)]
    #[case::stream_charged_nothing_was_answered(streamed(MARKS, UNSAID, DONE, 0, 0), Unproven)]
    #[case::stream_charged_not_a_stream(streamed(&[("content-type", "application/json")], UNSAID, DONE, 3, 4), Unproven)]
    #[case::stream_charged_without_its_end(streamed(MARKS, UNSAID, "", 3, 4), Unproven)]
    #[case::stream_charged_of_another_size(streamed(MARKS, r#"{"total_tokens":8}"#, DONE, 3, 4), Unproven)]
    #[case::aborted_stream_free_but_none_was_sent(aborted(json!("free"), 0, Ended::Abandoned, 3, 4), Unproven)]
    #[case::aborted_stream_charged_but_none_was_sent(aborted(json!("charged"), 0, Ended::Abandoned, 2, 4), Unproven)]
    #[case::aborted_stream_free_but_came_to_its_end(aborted(json!("free"), 3, Ended::Complete, 3, 4), Unproven)]
    #[case::aborted_stream_charged_but_came_to_its_end(aborted(json!("charged"), 3, Ended::Complete, 2, 4), Unproven)]
    #[case::aborted_stream_free_but_never_refused(aborted(json!("free"), 3, Ended::Abandoned, 3, 0), Unproven)]
    #[case::aborted_stream_charged_but_never_refused(aborted(json!("charged"), 3, Ended::Abandoned, 2, 0), Unproven)]
    #[case::aborted_stream_free_as_declared(aborted_stream(json!("free"), 3), Yes)]
    #[case::aborted_stream_charged_though_declared_free(aborted_stream(json!("free"), 2), No)]
    #[case::aborted_stream_charged(aborted_stream(json!("charged"), 2), Yes)]
    #[case::aborted_stream_all_of_the_budget_charged(aborted_stream(json!("charged"), 0), Yes)]
    #[case::aborted_stream_free_without_a_word(aborted_stream(json!(null), 3), Unproven)]
    #[case::aborted_stream_charged_as_declared(aborted_stream(json!("charged"), 1), Yes)]
    #[case::aborted_stream_free_though_declared_charged(aborted_stream(json!("charged"), 3), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
