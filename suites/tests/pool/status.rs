//! What a pool's status says of the Gateway.

use anyhow::Result;
use serde_json::Value;
use suites::{Check, Judge, PoolOf, Stage, Until, chat, check, judge::pool_parents, parents_say, picked};

use super::{POOL, route_object, routed, see_pool};

check!(
    pool / status_written,
    drive_status_written,
    judge_status_written,
    Check {
        sentence: "a pool that a route leads to says Accepted and ResolvedRefs for the Gateway, for the generation that is there",
        source: "GIE v1, InferencePoolStatus.parents; agentgateway/agentgateway#2818, kgateway-dev/kgateway#13456",
        how: "Reads the status of a pool that serves: it has to have one entry about the Gateway with both conditions True.",
        kills: &["pool-status-never-written", "stale-observed-generation"],
        ..POOL
    }
);

async fn drive_status_written(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    stage.note_gateway();
    see_pool(stage, "pool", "alpha", parents_say("ResolvedRefs")).await?;
    stage.send("post", chat("alpha")).await;
    Ok(())
}

fn judge_status_written(judge: &mut Judge<'_>) {
    judge_entry(judge, judge.object("pool"));
    picked::as_picked(judge, "post-as-picked", "post", "alpha");
}

fn judge_entry(judge: &mut Judge<'_>, pool: &Value) {
    let entries = judge.pool_entries(pool).len();
    let statement = judge.clause("one-entry").expected("one entry for the Gateway");
    statement.got(format!("{entries} entries")).holds(entries == 1);
    judge.pool_condition("pool-Accepted", pool, "Accepted", "True");
    judge.pool_condition("pool-ResolvedRefs", pool, "ResolvedRefs", "True");
}

check!(
    pool / status_cleared,
    drive_status_cleared,
    judge_status_cleared,
    Check {
        sentence: "when the last route to a pool is gone, the Gateway's entry in the pool's status goes as well",
        source: "GIE v1, InferencePoolStatus.parents",
        how: "Reads the status of a pool that serves, deletes the route to it, and reads the status again until the Gateway's entry \
              is gone.",
        kills: &["status-never-cleared"],
        ..POOL
    }
);

async fn drive_status_cleared(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let gateway = stage.note_gateway();
    see_pool(stage, "before", "alpha", parents_say("ResolvedRefs")).await?;
    let route = route_object(stage, stage.route());
    stage.delete(&route).await?;
    let cleared = move |pool: &Value| Ok(pool_parents(pool, &gateway).is_empty());
    see_pool(stage, "after", "alpha", Until::holds("no entry for the Gateway", cleared)).await
}

fn judge_status_cleared(judge: &mut Judge<'_>) {
    judge_entry(judge, judge.object("before"));
    let left = judge.history().objects.get("after").map(|pool| judge.pool_entries(pool).len());
    let statement = judge.clause("cleared").expected("no entry once no route leads there");
    match left {
        Some(left) => statement.got(format!("{left} entries")).holds(left == 0),
        None => statement.unproven("the pool was not read after its last route"),
    }
}

mod judges {
    use rstest::rstest;
    use serde_json::json;
    use verdict::judge::Holds;

    use super::super::{alpha, entry, of_the_gateway};
    use super::*;

    fn standing(accepted: &str, resolved: &str) -> Value {
        entry(&[("Accepted", accepted, "Accepted"), ("ResolvedRefs", resolved, "ResolvedRefs")])
    }

    fn empty() -> Value {
        json!({"metadata": {"generation": 1}, "status": {}})
    }

    #[rstest]
    #[case::written(standing("True", "True"), Holds::Yes)]
    #[case::never_written(empty(), Holds::No)]
    #[case::not_accepted(standing("False", "True"), Holds::No)]
    #[case::not_resolved(standing("True", "False"), Holds::No)]
    #[case::about_another_gateway(json!({"metadata": {"generation": 1}, "status": {"parents": [
        {"parentRef": {"name": "other", "namespace": "gws"}, "conditions": []}]}}), Holds::No)]
    fn status_written_is_judged(#[case] pool: Value, #[case] holds: Holds) {
        let fake = of_the_gateway(alpha("pool/status-written")).object("pool", pool).picked("post", "alpha", 0);
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::cleared(standing("True", "True"), Some(empty()), Holds::Yes)]
    #[case::left(standing("True", "True"), Some(standing("True", "True")), Holds::No)]
    #[case::never_there(empty(), Some(empty()), Holds::No)]
    #[case::not_read(standing("True", "True"), None, Holds::Unproven)]
    fn status_cleared_is_judged(#[case] before: Value, #[case] after: Option<Value>, #[case] holds: Holds) {
        let fake = of_the_gateway(alpha("pool/status-cleared")).object("before", before);
        let fake = after.into_iter().fold(fake, |fake, pool| fake.object("after", pool));
        assert_eq!(fake.verdict(), holds);
    }
}
