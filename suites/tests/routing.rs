//! Routing: which model answers, by hostname, path and the model that the body names.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Stage, chat, check, proof};
use verdict::{history::History, judge::Judgement};

#[rstest]
#[tokio::test]
async fn host(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("routing/host", "-", &folder).run(drive_host, judge_host).await;
}

async fn drive_host(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    stage.route_models(&[&alpha]).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    stage.begin().await?;
    stage.send("right-host", chat(&host, "alpha")).await;
    stage.send("unknown-host", chat(&format!("unknown-{host}"), "alpha")).await;
    let address = stage.address().to_owned();
    stage.send("address-as-host", chat(&address, "alpha")).await;
    stage.end().await
}

fn judge_host(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "right-host", "alpha");
    let status = history.declared.get("status-unknown-host").and_then(Value::as_u64);
    for label in ["unknown-host", "address-as-host"] {
        proof::status(&mut judgement, history, label, status);
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

/// One rule of a pair: its match, and the model behind it.
type Rule = (Value, &'static str);

fn path(kind: &str, value: &str) -> Value {
    json!({"path": {"type": kind, "value": value}})
}

/// The two rules of a case, in the order in which they are written (the expected loser first), and the declared winner.
fn pair(case: &str) -> ([Rule; 2], Expected) {
    let (alpha, beta) = ("alpha", "beta");
    let chat = "/v1/chat/completions";
    match case {
        "exact-over-prefix" => {
            ([(path("PathPrefix", chat), alpha), (path("Exact", chat), beta)], Expected::Model(beta))
        }
        "exact-over-regex" => {
            ([(path("RegularExpression", "^/v1/.*$"), alpha), (path("Exact", chat), beta)], Expected::Model(beta))
        }
        "longer-prefix-over-shorter" => {
            ([(path("PathPrefix", "/v1"), alpha), (path("PathPrefix", "/v1/chat"), beta)], Expected::Model(beta))
        }
        "prefix-over-root" => {
            ([(path("PathPrefix", "/"), alpha), (path("PathPrefix", "/v1"), beta)], Expected::Model(beta))
        }
        "prefix-by-segment" => {
            ([(path("PathPrefix", "/v1/cha"), alpha), (path("PathPrefix", "/v1"), beta)], Expected::Model(beta))
        }
        "regex-and-shorter-prefix" => (
            [(path("PathPrefix", "/v1"), alpha), (path("RegularExpression", "^/v1/chat/.*$"), beta)],
            Expected::Declared { key: "regex-against-shorter-prefix", prefix: alpha, regex: beta },
        ),
        "regex-and-longer-prefix" => (
            [(path("RegularExpression", "^/v1/.*$"), alpha), (path("PathPrefix", chat), beta)],
            Expected::Declared { key: "regex-against-longer-prefix", prefix: beta, regex: alpha },
        ),
        _ => {
            let mut with_method = path("PathPrefix", "/v1");
            with_method["method"] = json!("POST");
            ([(path("PathPrefix", "/v1"), alpha), (with_method, beta)], Expected::Model(beta))
        }
    }
}

/// Who is to answer.
enum Expected {
    /// The same on every gateway.
    Model(&'static str),
    /// As the gateway declares: the value of `key` is `regex` or `prefix`.
    Declared { key: &'static str, prefix: &'static str, regex: &'static str },
}

impl Expected {
    fn model(&self, history: &History) -> Option<&'static str> {
        match self {
            Expected::Model(model) => Some(model),
            Expected::Declared { key, prefix, regex } => match history.declared.get(*key).and_then(Value::as_str)? {
                "prefix" => Some(prefix),
                "regex" => Some(regex),
                _ => None,
            },
        }
    }
}

#[rstest]
#[case::exact_over_prefix("exact-over-prefix")]
#[case::exact_over_regex("exact-over-regex")]
#[case::longer_prefix_over_shorter("longer-prefix-over-shorter")]
#[case::prefix_over_root("prefix-over-root")]
#[case::prefix_by_segment("prefix-by-segment")]
#[case::regex_and_shorter_prefix("regex-and-shorter-prefix")]
#[case::regex_and_longer_prefix("regex-and-longer-prefix")]
#[case::method_breaks_tie("method-breaks-tie")]
#[tokio::test]
async fn path_precedence(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("routing/path-precedence", case, &folder).run(drive_path_precedence, judge_path_precedence).await;
}

async fn drive_path_precedence(stage: &mut Stage) -> Result<()> {
    let (rules, _) = pair(stage.case());
    let models = stage.models(&["alpha", "beta"]).await?;
    let service = |name: &str| models.iter().find(|m| m.name == name).map(|m| m.service.clone());
    let rules: Vec<Value> = rules
        .iter()
        .map(|(matching, model)| json!({"match": matching, "service": service(model), "port": 80}))
        .collect();
    let host = stage.hostname().to_owned();
    stage.intent("http-route", json!({"name": "pair", "rules": rules})).await?;
    stage.settle_any(|| chat(&host, "any")).await?;
    stage.begin().await?;
    for _ in 0..3 {
        stage.send("both-match", chat(&host, "any")).await;
    }
    stage.end().await
}

fn judge_path_precedence(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    match pair(&history.key.case).1.model(history) {
        Some(winner) => proof::answered_by(&mut judgement, history, "both-match", winner),
        None => _ = judgement.unproven("winner", "a declared winner", "the gateway's folder declares none"),
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn model_name(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("routing/model-name", "-", &folder).run(drive_model_name, judge_model_name).await;
}

async fn drive_model_name(stage: &mut Stage) -> Result<()> {
    let models = stage.models(&["alpha", "beta"]).await?;
    stage.route_models(&models.iter().collect::<Vec<_>>()).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    stage.settle(|| chat(&host, "beta"), "beta").await?;
    stage.begin().await?;
    for _ in 0..30 {
        stage.send("names-alpha", chat(&host, "alpha")).await;
        stage.send("names-beta", chat(&host, "beta")).await;
    }
    stage.send("names-nobody", chat(&host, "gamma")).await;
    stage.end().await
}

fn judge_model_name(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "names-alpha", "alpha");
    proof::answered_by(&mut judgement, history, "names-beta", "beta");
    proof::declared_refusal(&mut judgement, history, "names-nobody", "unknown-model");
    proof::reached_nothing(&mut judgement, history, "names-nobody");
    judgement
}

#[rstest]
#[case::x_ai_eg_model("x-ai-eg-model")]
#[case::x_gateway_model_name("x-gateway-model-name")]
#[tokio::test]
async fn model_name_spoof(
    #[case] case: &'static str,
    #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf,
) {
    check("routing/model-name-spoof", case, &folder).run(drive_model_name_spoof, judge_model_name_spoof).await;
}

async fn drive_model_name_spoof(stage: &mut Stage) -> Result<()> {
    let models = stage.models(&["alpha", "beta"]).await?;
    stage.route_models(&models.iter().collect::<Vec<_>>()).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    stage.settle(|| chat(&host, "beta"), "beta").await?;
    let header = stage.case().to_owned();
    stage.begin().await?;
    for _ in 0..3 {
        stage.send("says-beta-in-header", chat(&host, "alpha").header(&header, "beta")).await;
        stage.send("says-nobody-in-header", chat(&host, "alpha").header(&header, "nobody")).await;
    }
    stage.end().await
}

fn judge_model_name_spoof(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "says-beta-in-header", "alpha");
    proof::answered_by(&mut judgement, history, "says-nobody-in-header", "alpha");
    judgement
}

#[rstest]
#[tokio::test]
async fn kserve_headers(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("routing/kserve-headers", "-", &folder).run(drive_kserve_headers, judge_kserve_headers).await;
}

async fn drive_kserve_headers(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = alpha.host.clone();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    stage.begin().await?;
    stage.send("plain", chat(&host, "alpha")).await;
    let spoofed =
        chat(&host, "alpha").header("KServe-Isvc-Name", "somebody").header("KServe-Isvc-Namespace", "elsewhere");
    stage.send("spoofed", spoofed).await;
    stage.end().await
}

fn judge_kserve_headers(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["plain", "spoofed"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        for (name, wanted) in [("KServe-Isvc-Name", "alpha"), ("KServe-Isvc-Namespace", history.namespace.as_str())] {
            proof::model_got_header(&mut judgement, history, label, name, wanted);
        }
    }
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn declared() -> Fake {
        Fake::of("routing/host").declares("status-unknown-host", json!(404)).model("alpha")
    }

    #[rstest]
    #[case::as_it_should(declared().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404), Holds::Yes)]
    #[case::nothing_happened(declared(), Holds::Unproven)]
    #[case::never_live(declared().unsettled().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404), Holds::No)]
    #[case::unknown_host_served(declared().answered("right-host", 200, "alpha").answered("unknown-host", 200, "alpha").refused("address-as-host", 404), Holds::No)]
    #[case::a_404_that_reached_the_model(declared().answered("right-host", 200, "alpha").answered("unknown-host", 404, "alpha").refused("address-as-host", 404), Holds::No)]
    #[case::a_200_from_nobody(declared().refused("right-host", 200).refused("unknown-host", 404).refused("address-as-host", 404), Holds::No)]
    #[case::records_not_whole(declared().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404).without_marker("alpha"), Holds::Unproven)]
    #[case::wrong_refusal(declared().answered("right-host", 200, "alpha").refused("unknown-host", 503).refused("address-as-host", 404), Holds::No)]
    #[case::connection_cut(declared().answered("right-host", 200, "alpha").cut("unknown-host").refused("address-as-host", 404), Holds::No)]
    fn host_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_host, &fake), holds);
    }

    fn two(case: &str) -> Fake {
        Fake::of("routing/path-precedence").case(case).model("alpha").model("beta")
    }

    #[rstest]
    #[case::winner(two("exact-over-prefix").answered("both-match", 200, "beta"), Holds::Yes)]
    #[case::loser(two("exact-over-prefix").answered("both-match", 200, "alpha"), Holds::No)]
    #[case::relapse(two("exact-over-prefix").answered("both-match", 200, "beta").answered("both-match", 200, "alpha"), Holds::No)]
    #[case::nobody(two("exact-over-prefix").refused("both-match", 200), Holds::No)]
    #[case::undeclared(two("regex-and-longer-prefix").answered("both-match", 200, "alpha"), Holds::Unproven)]
    #[case::declared_regex(two("regex-and-longer-prefix").declares("regex-against-longer-prefix", json!("regex")).answered("both-match", 200, "alpha"), Holds::Yes)]
    #[case::declared_prefix(two("regex-and-longer-prefix").declares("regex-against-longer-prefix", json!("prefix")).answered("both-match", 200, "alpha"), Holds::No)]
    fn path_precedence_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_path_precedence, &fake), holds);
    }

    fn named() -> Fake {
        Fake::of("routing/model-name")
            .declares("unknown-model", json!({"status": 404, "content-type": "text/plain"}))
            .model("alpha")
            .model("beta")
    }

    #[rstest]
    #[case::as_it_should(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), Holds::Yes)]
    #[case::swapped(named().answered("names-alpha", 200, "beta").answered("names-beta", 200, "alpha").refused_with("names-nobody", 404, "text/plain", "no"), Holds::No)]
    #[case::one_stray(named().answered("names-alpha", 200, "alpha").answered("names-alpha", 200, "beta").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), Holds::No)]
    #[case::answered_twice(named().answered("names-alpha", 200, "alpha").also_reached("beta").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), Holds::No)]
    #[case::unknown_served(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").answered("names-nobody", 200, "alpha"), Holds::No)]
    #[case::other_shape(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "application/json", "{}"), Holds::No)]
    fn model_name_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_model_name, &fake), holds);
    }

    #[rstest]
    #[case::body_wins("alpha", "alpha", Holds::Yes)]
    #[case::header_wins("beta", "alpha", Holds::No)]
    #[case::header_wins_once("alpha", "beta", Holds::No)]
    fn model_name_spoof_is_judged(#[case] first: &str, #[case] second: &str, #[case] holds: Holds) {
        let fake = Fake::of("routing/model-name-spoof").model("alpha").model("beta");
        let fake = fake.answered("says-beta-in-header", 200, first).answered("says-nobody-in-header", 200, second);
        assert_eq!(verdict_of(judge_model_name_spoof, &fake), holds);
    }

    #[rstest]
    #[case::set("alpha", "ns", &[], Holds::Yes)]
    #[case::spoof_kept("somebody", "elsewhere", &[], Holds::No)]
    #[case::appended("alpha", "ns", &[("KServe-Isvc-Name", "somebody")], Holds::No)]
    fn kserve_headers_are_judged(
        #[case] name: &str,
        #[case] namespace: &str,
        #[case] more: &[(&str, &str)],
        #[case] holds: Holds,
    ) {
        let mut headers = vec![("kserve-isvc-name", name), ("kserve-isvc-namespace", namespace)];
        headers.extend(more);
        let fake = Fake::of("routing/kserve-headers").model("alpha");
        let fake = fake
            .answered("plain", 200, "alpha")
            .with_model_headers(&headers)
            .answered("spoofed", 200, "alpha")
            .with_model_headers(&headers);
        assert_eq!(verdict_of(judge_kserve_headers, &fake), holds);
    }
}
