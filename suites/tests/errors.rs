//! Errors: what a client gets for requests that no model should ever see.

use anyhow::Result;
use serde_json::json;
use suites::{CHECK, Call, Check, Judge, Stage, chat, chat_to, check, judge::CLIENT_ERROR};
use verdict::capability::{self, ChatErrors};

const ERRORS: Check = Check { capability: Some(capability::CHAT_ERRORS), ..CHECK };

fn completions() -> Call {
    Call::post("/v1/chat/completions")
}

check!(
    errors / malformed_json,
    drive_malformed_json,
    judge_malformed_json,
    Check {
        sentence: "a body that is not JSON is refused with 4xx before any model; a reply that calls itself JSON is JSON",
        source: "RFC 9110 section 8.3 (Content-Type); the gateway's declaration",
        how: "Sends a body that is cut short and one with a bare newline and quotes in a string; looks at status, content type and \
              body of the refusals and at the model's records.",
        kills: &["malformed-as-500"],
        ..ERRORS
    }
);

async fn drive_malformed_json(stage: &mut Stage) -> Result<()> {
    stage.routed_model("alpha").await?;
    stage.send("cut-short", completions().body(r#"{"model": "alpha", "#, "application/json")).await?;
    let quote_and_newline = "{\"model\": \"alpha\", \"x\": \"a\n\"b\"}";
    stage.send("quote-and-newline", completions().body(quote_and_newline, "application/json")).await
}

fn judge_malformed_json(judge: &mut Judge<'_>) {
    if let Some(ChatErrors { malformed_json, .. }) = judge.declared() {
        judge.refused("cut-short-as-declared", "cut-short", &malformed_json);
        judge.refused("quote-and-newline-as-declared", "quote-and-newline", &malformed_json);
    }
    judge.unserved(["cut-short-is-a-client-error", "cut-short-reaches-nothing"], "cut-short", CLIENT_ERROR);
    let clauses = ["quote-and-newline-is-a-client-error", "quote-and-newline-reaches-nothing"];
    judge.unserved(clauses, "quote-and-newline", CLIENT_ERROR);
    judge.json_if_it_says_so("cut-short-is-the-json-it-says", "cut-short");
    judge.json_if_it_says_so("quote-and-newline-is-the-json-it-says", "quote-and-newline");
}

check!(
    errors / no_model,
    drive_no_model,
    judge_no_model,
    Check {
        sentence: "a body without a model is refused as declared and reaches no model",
        source: "OpenAI API reference, chat completions, model is required",
        how: "Sends a chat without a model, one whose model is empty and one without a body; looks at the refusals and at the model's \
              records.",
        kills: &["defaults-to-first-model"],
        ..ERRORS
    }
);

async fn drive_no_model(stage: &mut Stage) -> Result<()> {
    stage.routed_model("alpha").await?;
    let messages = json!([{"role": "user", "content": "Hello"}]);
    stage.send("no-model", completions().json(&json!({"messages": messages}))).await?;
    stage.send("empty-model", chat("")).await?;
    stage.send("empty-body", completions().body("", "application/json")).await
}

fn judge_no_model(judge: &mut Judge<'_>) {
    judge.unserved(["no-model-is-a-client-error", "no-model-reaches-nothing"], "no-model", CLIENT_ERROR);
    judge.unserved(["empty-model-is-a-client-error", "empty-model-reaches-nothing"], "empty-model", CLIENT_ERROR);
    judge.unserved(["empty-body-is-a-client-error", "empty-body-reaches-nothing"], "empty-body", CLIENT_ERROR);
    if let Some(ChatErrors { no_model, .. }) = judge.declared() {
        judge.refused("no-model-as-declared", "no-model", &no_model);
    }
}

check!(
    errors / unsupported_path,
    drive_unsupported_path,
    judge_unsupported_path,
    Check {
        sentence: "a path that the API does not have is refused as declared and reaches no model",
        source: "OpenAI API reference; the gateway's declaration",
        how: "Sends a chat to a path that does not exist, and a GET of the root; looks at the refusals and at the model's records.",
        kills: &["passes-unknown-paths"],
        ..ERRORS
    }
);

async fn drive_unsupported_path(stage: &mut Stage) -> Result<()> {
    stage.routed_model("alpha").await?;
    stage.send("post-unknown", chat_to("/v1/nope", "alpha")).await?;
    stage.send("get-root", Call::get("/")).await
}

fn judge_unsupported_path(judge: &mut Judge<'_>) {
    if let Some(ChatErrors { unsupported_path, .. }) = judge.declared() {
        judge.refused("post-unknown-as-declared", "post-unknown", &unsupported_path);
        judge.refused("get-root-as-declared", "get-root", &unsupported_path);
    }
    judge.reached_nothing("post-unknown-reaches-nothing", "post-unknown");
    judge.reached_nothing("get-root-reaches-nothing", "get-root");
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes};
    use verdict::capability::Refusal;

    use super::*;

    fn refusing(check: &str, status: u16) -> Fake {
        declaring(check, Refusal { status, ..Refusal::default() })
    }

    fn declaring(check: &str, refusal: Refusal) -> Fake {
        let declared =
            ChatErrors { malformed_json: refusal.clone(), no_model: refusal.clone(), unsupported_path: refusal };
        Fake::of(check).declares(declared).model("alpha")
    }

    /// A refusal that is declared whole, and the answer to one of two requests.
    fn whole(status: u16, headers: &[(&str, &str)], body: &str) -> Fake {
        let refusal = Refusal {
            status: 404,
            content_type: Some("text/plain".into()),
            body: Some("no model [a-z]+".into()),
            headers: [("x-reason".into(), "[0-9]+".into())].into(),
        };
        let fake = declaring("errors/unsupported-path", refusal).answer("post-unknown", status, headers, body);
        fake.answer("get-root", 404, &[("X-Reason", "7"), ("content-type", "text/plain"), ("date", "d")], "no model b")
    }

    const MALFORMED: &str = "errors/malformed-json";
    const TEXT: (&str, &str) = ("content-type", "text/plain");

    fn malformed(content_type: &str, body: &str) -> Fake {
        let fake = refusing(MALFORMED, 400).refused_with("cut-short", 400, content_type, body);
        fake.refused_with("quote-and-newline", 400, "text/plain", "bad")
    }

    fn no_model_gets(status: u16) -> Fake {
        let fake = refusing("errors/no-model", 404).refused("no-model", status);
        fake.refused("empty-model", 404).refused("empty-body", 404)
    }

    fn path_gets(status: u16) -> Fake {
        refusing("errors/unsupported-path", 404).refused("post-unknown", status).refused("get-root", 404)
    }

    #[rstest]
    #[case::malformed_json_json(malformed("application/json", r#"{"error":{"message":"bad"}}"#), Yes)]
    #[case::malformed_json_text(malformed("text/plain", "bad"), Yes)]
    #[case::malformed_json_json_that_is_none(malformed("application/json", r#"{"error":"a "quote""}"#), No)]
    #[case::malformed_json_server_error(refusing(MALFORMED, 500).refused("cut-short", 500).refused("quote-and-newline", 500), No)]
    #[case::malformed_json_reached(malformed("text/plain", "bad").answered("cut-short", 400, "alpha"), No)]
    #[case::malformed_json_one_was_not_sent(refusing(MALFORMED, 400).refused("cut-short", 400), Unproven)]
    #[case::whole_as_declared(whole(404, &[TEXT, ("x-reason", "12")], "no model a"), Yes)]
    #[case::whole_with_a_charset(whole(404, &[("content-type", "text/plain; charset=utf-8"), ("x-reason", "12")], "no model a"), Yes)]
    #[case::whole_other_body(whole(404, &[TEXT, ("x-reason", "12")], "no model a!"), No)]
    #[case::whole_no_body(whole(404, &[TEXT, ("x-reason", "12")], ""), No)]
    #[case::whole_one_more_header(whole(404, &[TEXT, ("x-reason", "12"), ("server", "envoy")], "no model a"), No)]
    #[case::whole_one_header_twice(whole(404, &[TEXT, ("x-reason", "12"), ("x-reason", "a")], "no model a"), No)]
    #[case::whole_other_value(whole(404, &[TEXT, ("x-reason", "a")], "no model a"), No)]
    #[case::whole_one_header_less(whole(404, &[TEXT], "no model a"), No)]
    #[case::whole_other_type(whole(404, &[("content-type", "text/html"), ("x-reason", "12")], "no model a"), No)]
    #[case::whole_other_status(whole(400, &[TEXT, ("x-reason", "12")], "no model a"), No)]
    #[case::no_model_declared(no_model_gets(404), Yes)]
    #[case::no_model_other_refusal(no_model_gets(400), No)]
    #[case::no_model_served(no_model_gets(404).answered("no-model", 200, "alpha"), No)]
    #[case::no_model_server_error(no_model_gets(500), No)]
    #[case::unsupported_path_declared(path_gets(404), Yes)]
    #[case::unsupported_path_other(path_gets(405), No)]
    #[case::unsupported_path_passed_on(path_gets(404).answered("post-unknown", 404, "alpha"), No)]
    #[case::unsupported_path_unproven(path_gets(404).without_marker("alpha"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
