//! Errors: what a client gets for requests that no model should ever see.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::json;
use suites::{Call, Stage, chat, check, proof};
use verdict::{history::History, judge::Judgement};

/// A live route to one model, which is to be left alone.
async fn routed(stage: &mut Stage) -> Result<String> {
    let alpha = stage.model("alpha").await?;
    stage.route_models(&[&alpha]).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    Ok(host)
}

#[rstest]
#[tokio::test]
async fn malformed_json(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("errors/malformed-json", "-", &folder).run(drive_malformed_json, judge_malformed_json).await;
}

async fn drive_malformed_json(stage: &mut Stage) -> Result<()> {
    let host = routed(stage).await?;
    stage.begin().await?;
    for (label, body) in
        [("cut-short", r#"{"model": "alpha", "#), ("quote-and-newline", "{\"model\": \"alpha\", \"x\": \"a\n\"b\"}")]
    {
        stage.send(label, Call::post("/v1/chat/completions").host(&host).body(body, "application/json")).await;
    }
    stage.end().await
}

fn judge_malformed_json(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["cut-short", "quote-and-newline"] {
        proof::declared_refusal(&mut judgement, history, label, "malformed-json");
        proof::client_error(&mut judgement, history, label);
        proof::reached_nothing(&mut judgement, history, label);
        proof::json_if_it_says_so(&mut judgement, history, label);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn no_model(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("errors/no-model", "-", &folder).run(drive_no_model, judge_no_model).await;
}

async fn drive_no_model(stage: &mut Stage) -> Result<()> {
    let host = routed(stage).await?;
    stage.begin().await?;
    let messages = json!([{"role": "user", "content": "Hello"}]);
    stage.send("no-model", Call::post("/v1/chat/completions").host(&host).json(&json!({"messages": messages}))).await;
    stage
        .send(
            "empty-model",
            Call::post("/v1/chat/completions").host(&host).json(&json!({"model": "", "messages": messages})),
        )
        .await;
    stage.send("empty-body", Call::post("/v1/chat/completions").host(&host).body("", "application/json")).await;
    stage.end().await
}

fn judge_no_model(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["no-model", "empty-model", "empty-body"] {
        proof::client_error(&mut judgement, history, label);
        proof::reached_nothing(&mut judgement, history, label);
    }
    proof::declared_refusal(&mut judgement, history, "no-model", "no-model");
    judgement
}

#[rstest]
#[tokio::test]
async fn unsupported_path(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("errors/unsupported-path", "-", &folder).run(drive_unsupported_path, judge_unsupported_path).await;
}

async fn drive_unsupported_path(stage: &mut Stage) -> Result<()> {
    let host = routed(stage).await?;
    stage.begin().await?;
    let body = json!({"model": "alpha", "messages": [{"role": "user", "content": "Hello"}]});
    stage.send("post-unknown", Call::post("/v1/nope").host(&host).json(&body)).await;
    stage.send("get-root", Call::get("/").host(&host)).await;
    stage.end().await
}

fn judge_unsupported_path(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["post-unknown", "get-root"] {
        proof::declared_refusal(&mut judgement, history, label, "unsupported-path");
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn malformed(content_type: &str, body: &str) -> Fake {
        let fake = Fake::of("errors/malformed-json").declares("malformed-json", json!({"status": 400})).model("alpha");
        fake.refused_with("cut-short", 400, content_type, body).refused_with(
            "quote-and-newline",
            400,
            "text/plain",
            "bad",
        )
    }

    #[rstest]
    #[case::json(malformed("application/json", r#"{"error":{"message":"bad"}}"#), Holds::Yes)]
    #[case::text(malformed("text/plain", "bad"), Holds::Yes)]
    #[case::json_that_is_none(malformed("application/json", r#"{"error":"a "quote""}"#), Holds::No)]
    #[case::server_error(Fake::of("errors/malformed-json").declares("malformed-json", json!({"status": 500})).model("alpha").refused("cut-short", 500).refused("quote-and-newline", 500), Holds::No)]
    #[case::reached(malformed("text/plain", "bad").answered("cut-short", 400, "alpha"), Holds::No)]
    #[case::one_was_not_sent(Fake::of("errors/malformed-json").declares("malformed-json", json!({"status": 400})).model("alpha").refused("cut-short", 400), Holds::Unproven)]
    fn malformed_json_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_malformed_json, &fake), holds);
    }

    fn no_model_gets(status: u16) -> Fake {
        let fake = Fake::of("errors/no-model").declares("no-model", json!({"status": 404})).model("alpha");
        fake.refused("no-model", status).refused("empty-model", 404).refused("empty-body", 404)
    }

    #[rstest]
    #[case::declared(no_model_gets(404), Holds::Yes)]
    #[case::other_refusal(no_model_gets(400), Holds::No)]
    #[case::served(no_model_gets(404).answered("no-model", 200, "alpha"), Holds::No)]
    #[case::server_error(no_model_gets(500), Holds::No)]
    fn no_model_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_no_model, &fake), holds);
    }

    fn path_gets(status: u16) -> Fake {
        let fake =
            Fake::of("errors/unsupported-path").declares("unsupported-path", json!({"status": 404})).model("alpha");
        fake.refused("post-unknown", status).refused("get-root", 404)
    }

    #[rstest]
    #[case::declared(path_gets(404), Holds::Yes)]
    #[case::other(path_gets(405), Holds::No)]
    #[case::passed_on(path_gets(404).answered("post-unknown", 404, "alpha"), Holds::No)]
    #[case::unproven(path_gets(404).without_marker("alpha"), Holds::Unproven)]
    fn unsupported_path_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_unsupported_path, &fake), holds);
    }
}
