//! Long bodies, prompts that begin alike, and pools that grow and shrink.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    Call, Check, Judge, PoolOf, Stage, chat, check,
    picked::{self, PREFIXES},
};
use verdict::plan::Level;

use super::{COUNTED, POOL, routed};

/// Sizes of bodies, below and above what gateways and pickers buffer (GIE#854, #2988): label, bytes, and the clauses that they
/// are served as picked, arrive unchanged at the model, and are seen whole by the picker.
const SIZES: [(&str, usize, &str, &str, &str); 4] = [
    ("1-kib", 1 << 10, "1-kib-as-picked", "1-kib-arrives-unchanged", "1-kib-seen-whole"),
    ("64-kib", 64 << 10, "64-kib-as-picked", "64-kib-arrives-unchanged", "64-kib-seen-whole"),
    ("256-kib", 256 << 10, "256-kib-as-picked", "256-kib-arrives-unchanged", "256-kib-seen-whole"),
    ("2-mib", 2 << 20, "2-mib-as-picked", "2-mib-arrives-unchanged", "2-mib-seen-whole"),
];

check!(
    pool / body_sizes,
    drive_body_sizes,
    judge_body_sizes,
    Check {
        sentence: "bodies of 1 KiB, 64 KiB, 256 KiB and 2 MiB reach picker and model byte for byte, with one end of stream",
        source: "GIE protocol 004, full-duplex streamed bodies; GIE issues 854 and 2988",
        how: "Sends two chats of each size; compares the digests of what was sent with those in the records of picker and model, and \
              counts the ends of stream that the picker saw.",
        kills: &["truncates-bodies-over-64-kib", "says-two-ends-of-stream"],
        ..POOL
    }
);

/// A chat whose body has exactly so many bytes, none of them where it could be mistaken for another.
fn sized(bytes: usize) -> Call {
    let around = json!({"messages": [{"content": "", "role": "user"}], "model": "alpha"}).to_string();
    let wanted = bytes.saturating_sub(around.len());
    let mut prompt = String::with_capacity(wanted + 8);
    for n in 0.. {
        if prompt.len() >= wanted {
            break;
        }
        _ = write!(prompt, "{n} ");
    }
    prompt.truncate(wanted);
    long(&prompt)
}

/// A chat with a long prompt, answered `{}` whatever its length is in tokens.
fn long(prompt: &str) -> Call {
    let body = json!({"messages": [{"content": prompt, "role": "user"}], "model": "alpha"});
    Call::post("/v1/chat/completions").json(&body).header("x-igc-reply", "e30=")
}

async fn drive_body_sizes(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    stage.send_in_turn(2, &SIZES.map(|(label, bytes, ..)| (label, sized(bytes)))).await
}

fn judge_body_sizes(judge: &mut Judge<'_>) {
    for (label, _, as_picked, arrives, seen_whole) in SIZES {
        picked::as_picked(judge, as_picked, label, "alpha");
        judge.request_untouched(arrives, label);
        let expected = "the picker saw all of it and one end";
        picked::record_of_each(judge, seen_whole, label, "alpha", expected, |exchange, pick| {
            let (sent, seen) = (&exchange.request.body, &pick.request);
            let whole = seen.sha256 == sent.sha256 && seen.ends == 1;
            let words = format!("{} of {} bytes and {} ends of stream", seen.bytes, sent.bytes, seen.ends);
            (!whole).then(|| format!("the picker saw {words}"))
        });
    }
}

check!(
    pool / scale,
    drive_scale,
    judge_scale,
    Check {
        level: Level::Should,
        sentence: "an endpoint that is added to a pool is used, one that is removed is not, and no request fails for it",
        source: "GIE v1, InferencePoolSpec.selector",
        how: "Adds a pod to a pool of two and sends forty chats, then leaves it one pod and sends twenty; all have to be served as the \
              picker chose, and of the first some by the pod that was added.",
        kills: &["keeps-the-first-endpoints"],
        ..POOL
    }
);

async fn drive_scale(stage: &mut Stage) -> Result<()> {
    let mut pool = routed(stage, PoolOf::new("alpha")).await?;
    stage.begin().await?;
    let before = pool.endpoints.clone();
    stage.scale(&mut pool, 3).await?;
    let added: Vec<&String> = pool.endpoints.iter().filter(|e| !before.contains(e)).map(|(_, e)| e).collect();
    stage.fact("added", json!(added));
    for _ in 0..40 {
        stage.send("one-more", chat("alpha")).await?;
        stage.pause(0.25).await;
    }
    stage.scale(&mut pool, 1).await?;
    stage.pause(10.0).await;
    stage.send_in_turn(COUNTED, &[("two-fewer", chat("alpha"))]).await
}

fn judge_scale(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "one-more-as-picked", "one-more", "alpha");
    picked::as_picked(judge, "two-fewer-as-picked", "two-fewer", "alpha");
    let history = judge.history();
    let added = history.facts.get("added").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let picks = picked::picks(history, "one-more", "alpha");
    let used = picks.iter().filter(|p| p.chosen.first().is_some_and(|c| added.iter().any(|a| a == c))).count();
    let got = format!("{used} of {} requests went to {added:?}", picks.len());
    let statement = judge.clause("added-is-used").expected("the added endpoint is used");
    let known = !added.is_empty() && !picks.is_empty();
    statement.got(got).holds_if_known(known.then_some(used > 0));
}

check!(
    pool / prefix_affinity,
    drive_prefix_affinity,
    judge_prefix_affinity,
    Check {
        level: Level::Should,
        sentence: "long prompts that begin alike go to one endpoint, and others spread",
        source: "guide 001, prefix cache; GIE, prefix-cache-scorer",
        how: "Sends five prompts of each of four long beginnings in turn; the picker's records have to name one endpoint for all of a \
              beginning, and not the same for all four.",
        kills: &["cuts-the-body-that-the-picker-sees"],
        ..POOL
    }
);

async fn drive_prefix_affinity(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf { replicas: 3, ..PoolOf::new("alpha") }).await?;
    for round in 0..5 {
        for (prefix, ..) in PREFIXES {
            let prompt: String = (0..2000).map(|n| format!("{prefix} {n} ")).collect();
            stage.send(prefix, long(&format!("{prompt} question {round}"))).await?;
        }
    }
    Ok(())
}

fn judge_prefix_affinity(judge: &mut Judge<'_>) {
    let history = judge.history();
    let mut used = Vec::new();
    for (prefix, as_picked, sticks) in PREFIXES {
        picked::as_picked(judge, as_picked, prefix, "alpha");
        let picks = picked::picks(history, prefix, "alpha");
        let chosen = picks.iter().map(|pick| pick.chosen.first().cloned()).filter(Option::is_some);
        used.extend(picked::sticks(judge, sticks, &chosen.collect::<Vec<_>>()));
    }
    let (statement, spread) = picked::spreads(judge, &used);
    statement.holds(spread);
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, endpoint};

    use super::super::alpha;
    use super::*;

    fn sizes() -> Fake {
        SIZES
            .iter()
            .skip(1)
            .fold(alpha("pool/body-sizes"), |fake, (label, ..)| fake.picked(label, "alpha", 0).sent_body(label))
    }

    fn scaled(more: &[usize]) -> Fake {
        let fake = alpha("pool/scale").fact("added", json!([endpoint("alpha", 2)])).picked("two-fewer", "alpha", 0);
        more.iter().fold(fake, |fake, n| fake.picked("one-more", "alpha", *n))
    }

    fn prefixes(chosen: [[usize; 2]; 4]) -> Fake {
        PREFIXES.iter().zip(chosen).fold(alpha("pool/prefix-affinity"), |fake, ((label, ..), [first, second])| {
            fake.picked(label, "alpha", first).picked(label, "alpha", second)
        })
    }

    #[rstest]
    #[case::body_sizes_equal(sizes().picked("1-kib", "alpha", 0).sent_body("x"), Yes)]
    #[case::body_sizes_two_ends(sizes().picked("1-kib", "alpha", 0).with_pick(|p| p.request.ends = 2), No)]
    #[case::body_sizes_the_picker_saw_less(sizes().picked("1-kib", "alpha", 0).with_pick(|p| p.request.sha256 = "other".into()), No)]
    #[case::body_sizes_the_model_got_less(sizes().picked("1-kib", "alpha", 0).sent_body("xyz").model_got("xy"), No)]
    #[case::body_sizes_cut(sizes().picked("1-kib", "alpha", 0).sent_body("x").cut("1-kib"), No)]
    #[case::scale_used(scaled(&[0, 1, 2]), Yes)]
    #[case::scale_unused(scaled(&[0, 1, 1]), No)]
    #[case::scale_fails(scaled(&[0, 2]).refused("two-fewer", 503), No)]
    #[case::scale_nothing_sent(scaled(&[]), Unproven)]
    #[case::prefix_affinity_sticks(prefixes([[0, 0], [1, 1], [2, 2], [0, 0]]), Yes)]
    #[case::prefix_affinity_strays(prefixes([[0, 0], [1, 2], [2, 2], [0, 0]]), No)]
    #[case::prefix_affinity_all_at_one(prefixes([[0, 0], [0, 0], [0, 0], [0, 0]]), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
