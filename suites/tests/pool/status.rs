//! What a pool's status says of the Gateway.

use anyhow::Result;
use serde_json::Value;
use suites::{Check, Judge, PoolOf, Stage, WaitCondition, chat, check, judge::pool_parents, parents_say, picked};

use super::{POOL, routed};

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
    stage.see("pool", &stage.inference_pool("alpha"), parents_say("ResolvedRefs"), 60).await?;
    stage.send("post", chat("alpha")).await
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
    stage.see("before", &stage.inference_pool("alpha"), parents_say("ResolvedRefs"), 60).await?;
    stage.delete(&stage.http_route(stage.route())).await?;
    let cleared = move |pool: &Value| pool_parents(pool, &gateway).is_empty();
    stage
        .see("after", &stage.inference_pool("alpha"), WaitCondition::holds("no entry for the Gateway", cleared), 60)
        .await
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
    use suites::fake::{Fake, Holds, No, Unproven, Yes, parents_saying};

    use super::super::alpha;
    use super::*;

    fn standing(accepted: &str, resolved: &str) -> Value {
        parents_saying(&[("Accepted", accepted, "Accepted"), ("ResolvedRefs", resolved, "ResolvedRefs")])
    }

    fn empty() -> Value {
        json!({"metadata": {"generation": 1}, "status": {}})
    }

    fn status_written(pool: Value) -> Fake {
        alpha("pool/status-written").of_the_gateway().object("pool", pool).picked("post", "alpha", 0)
    }

    fn status_cleared(before: Value, after: Option<Value>) -> Fake {
        let fake = alpha("pool/status-cleared").of_the_gateway().object("before", before);
        after.into_iter().fold(fake, |fake, pool| fake.object("after", pool))
    }

    #[rstest]
    #[case::status_written_written(status_written(standing("True", "True")), Yes)]
    #[case::status_written_never_written(status_written(empty()), No)]
    #[case::status_written_not_accepted(status_written(standing("False", "True")), No)]
    #[case::status_written_not_resolved(status_written(standing("True", "False")), No)]
    #[case::status_written_about_another_gateway(status_written(json!({"metadata": {"generation": 1}, "status": {"parents": [ {"parentRef": {"name": "other", "namespace": "gws"}, "conditions": []}]}})), No)]
    #[case::status_cleared_cleared(status_cleared(standing("True", "True"), Some(empty())), Yes)]
    #[case::status_cleared_left(status_cleared(standing("True", "True"), Some(standing("True", "True"))), No)]
    #[case::status_cleared_never_there(status_cleared(empty(), Some(empty())), No)]
    #[case::status_cleared_not_read(status_cleared(standing("True", "True"), None), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
