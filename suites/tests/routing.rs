//! Routing: which model answers, by hostname, path and the model that the body names.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use suites::{CHECK, Call, Check, Judge, Model, Stage, by_kserve, chat, check};
use verdict::capability::{self, HostRoute, ModelRoute, PathKind, PathRoute};

check!(
    routing / host,
    drive_host,
    judge_host,
    Check {
        sentence: "a hostname selects its route; any other Host gets 404 and reaches no model",
        source: "Gateway API v1, HTTPRouteSpec.hostnames",
        how: "Sends a chat to the route's hostname, to an unknown one and to the Gateway's address as Host; the models' records \
              say which of them arrived.",
        capability: Some(capability::HOST_ROUTE),
        kills: &["ignores-host"],
        ..CHECK
    }
);

async fn drive_host(stage: &mut Stage) -> Result<()> {
    stage.routed_model("alpha").await?;
    stage.send("right-host", chat("alpha")).await?;
    let unknown = format!("unknown-{}", stage.hostname());
    stage.send("unknown-host", chat("alpha").host(unknown)).await?;
    let address = stage.address().to_owned();
    stage.send("address-as-host", chat("alpha").host(address)).await
}

fn judge_host(judge: &mut Judge<'_>) {
    judge.answered_by("right-host-answered-by-alpha", "right-host", "alpha");
    if let Some(HostRoute { status_unknown_host }) = judge.declared() {
        judge.status("unknown-host-status", "unknown-host", status_unknown_host);
        judge.status("address-as-host-status", "address-as-host", status_unknown_host);
    }
    judge.reached_nothing("unknown-host-reaches-nothing", "unknown-host");
    judge.reached_nothing("address-as-host-reaches-nothing", "address-as-host");
}

fn path(kind: &str, value: &str) -> Value {
    json!({"path": {"type": kind, "value": value}})
}

#[derive(Clone, Copy)]
enum Winner {
    /// On every gateway: the expected loser is written first.
    Beta,
    /// Between a prefix and a regular expression, as the gateway declares of a shorter prefix.
    AgainstShorterPrefix,
    /// As the gateway declares of a longer prefix.
    AgainstLongerPrefix,
}

const REGEX: &str = "RegularExpression";
const CHAT: &str = "/v1/chat/completions";

/// What a rule matches: type and value of its path.
type Path = (&'static str, &'static str);

/// Case, the paths of alpha's rule and of beta's, which is written last, and which of them wins.
const PAIRS: [(&str, Path, Path, Winner); 8] = [
    ("exact-over-prefix", ("PathPrefix", CHAT), ("Exact", CHAT), Winner::Beta),
    ("exact-over-regex", (REGEX, "^/v1/.*$"), ("Exact", CHAT), Winner::Beta),
    ("longer-prefix-over-shorter", ("PathPrefix", "/v1"), ("PathPrefix", "/v1/chat"), Winner::Beta),
    ("prefix-over-root", ("PathPrefix", "/"), ("PathPrefix", "/v1"), Winner::Beta),
    ("prefix-by-segment", ("PathPrefix", "/v1/cha"), ("PathPrefix", "/v1"), Winner::Beta),
    ("regex-and-shorter-prefix", ("PathPrefix", "/v1"), (REGEX, "^/v1/chat/.*$"), Winner::AgainstShorterPrefix),
    ("regex-and-longer-prefix", (REGEX, "^/v1/.*$"), ("PathPrefix", CHAT), Winner::AgainstLongerPrefix),
    ("method-breaks-tie", ("PathPrefix", "/v1"), ("PathPrefix", "/v1"), Winner::Beta), // beta's names the method too
];

fn pair(case: &str) -> Option<(Path, Path, Winner)> {
    PAIRS.iter().find(|pair| pair.0 == case).map(|(_, alpha, beta, winner)| (*alpha, *beta, *winner))
}

check!(
    routing
        / path_precedence(
            exact_over_prefix,
            exact_over_regex,
            longer_prefix_over_shorter,
            prefix_over_root,
            prefix_by_segment,
            regex_and_shorter_prefix,
            regex_and_longer_prefix,
            method_breaks_tie
        ),
    drive_path_precedence,
    judge_path_precedence,
    Check {
        sentence: "of two rules that match, the more specific path wins and the other rule's model gets nothing",
        source: "Gateway API v1, HTTPRouteRule.matches; regular expressions as the gateway declares",
        how: "Writes the expected loser first, each rule with a model of its own, and sends three chats that both match; the \
              records of both models say who answered.",
        capability: Some(capability::PATH_ROUTE),
        kills: &["prefers-short-prefix", "regex-always-loses", "regex-always-wins"],
        ..CHECK
    }
);

async fn drive_path_precedence(stage: &mut Stage) -> Result<()> {
    let (alpha, beta, _) = pair(stage.case()).context("there is no such pair of rules")?;
    let models = stage.models(&["alpha", "beta"]).await?;
    let rule = |(kind, value), model: &Model| json!({"match": path(kind, value), "service": model.service, "port": 80});
    let mut rules = [rule(alpha, &models[0]), rule(beta, &models[1])];
    if stage.case() == "method-breaks-tie" {
        rules[1]["match"]["method"] = json!("POST");
    }
    stage.intent("http-route", json!({"name": "pair", "rules": rules})).await?;
    stage.settle_any(|| chat("any")).await?;
    stage.send_in_turn(3, &[("both-match", chat("any"))]).await
}

fn judge_path_precedence(judge: &mut Judge<'_>) {
    let Some(declared) = judge.declared::<PathRoute>() else { return };
    let Some((alpha, _, winner)) = pair(judge.case()) else { return };
    let alpha_is = if alpha.0 == REGEX { PathKind::Regex } else { PathKind::Prefix };
    let alpha_wins = match winner {
        Winner::Beta => false,
        Winner::AgainstShorterPrefix => declared.regex_against_shorter_prefix == alpha_is,
        Winner::AgainstLongerPrefix => declared.regex_against_longer_prefix == alpha_is,
    };
    if alpha_wins {
        judge.answered_by("both-match-answered-by-alpha", "both-match", "alpha");
    } else {
        judge.answered_by("both-match-answered-by-beta", "both-match", "beta");
    }
}

check!(
    routing / query_and_encoding,
    drive_query_and_encoding,
    judge_query_and_encoding,
    Check {
        sentence: "query, percent-encoding and a trailing slash reach the model as they were sent",
        source: "RFC 9110 section 4.2, RFC 3986 section 2: a proxy without a rewrite leaves the target as it is",
        how: "Sends requests whose targets have repeated and empty parameters, encoded spaces and letters, and a slash at the end, \
              on a route without filters; the target in the model's record has to be the one that was sent.",
        capability: Some(capability::PATH_ROUTE),
        kills: &["normalizes-targets"],
        ..CHECK
    }
);

const TARGETS: [(&str, &str); 4] = [
    ("query", "/v1/models?b=2&a=1&b=&a=1&flag"),
    ("encoded-query", "/v1/models?q=a%20b+c%26d%3De&name=%C3%BC"),
    ("encoded-path", "/v1/models/a%20b%C3%BC"),
    ("trailing-slash", "/v1/models/"),
];

async fn drive_query_and_encoding(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    stage.plain_route("plain", None, &alpha.service).await?;
    stage.settle(|| chat("alpha"), "alpha").await?;
    stage.send_in_turn(1, &TARGETS.map(|(label, target)| (label, Call::get(target)))).await
}

fn judge_query_and_encoding(judge: &mut Judge<'_>) {
    let history = judge.history();
    for (clause, label) in [
        ("query-untouched", "query"),
        ("encoded-query-untouched", "encoded-query"),
        ("encoded-path-untouched", "encoded-path"),
        ("trailing-slash-untouched", "trailing-slash"),
    ] {
        judge.every(clause, label, "the target that was sent", |exchange| match history.reached(exchange)[..] {
            [(_, record)] if record.target == exchange.request.target => None,
            [(_, record)] => Some(format!("{}, sent was {}", record.target, exchange.request.target)),
            ref records => Some(format!("{} records of a model", records.len())),
        });
    }
}

check!(
    routing / model_name,
    drive_model_name,
    judge_model_name,
    Check {
        sentence: "the model that the body names selects the backend; an unknown one is refused as declared and reaches no model",
        source: "OpenAI API reference, chat completions, model; the gateway's declaration",
        how: "Sends thirty chats to each of two models in turn and one to a model that no route has; each record has to be that of \
              the model that was named.",
        capability: Some(capability::MODEL_ROUTE),
        kills: &["drops-model-header-rewrite", "sends-one-in-fifty-elsewhere", "duplicates-requests"],
        ..CHECK
    }
);

async fn two_models(stage: &mut Stage) -> Result<()> {
    let models = stage.models(&["alpha", "beta"]).await?;
    stage.route_models(&models.iter().collect::<Vec<_>>()).await?;
    stage.settle(|| chat("alpha"), "alpha").await?;
    stage.settle(|| chat("beta"), "beta").await
}

async fn drive_model_name(stage: &mut Stage) -> Result<()> {
    two_models(stage).await?;
    stage.send_in_turn(30, &[("names-alpha", chat("alpha")), ("names-beta", chat("beta"))]).await?;
    stage.send("names-nobody", chat("gamma")).await
}

fn judge_model_name(judge: &mut Judge<'_>) {
    judge.answered_by("names-alpha-answered-by-alpha", "names-alpha", "alpha");
    judge.answered_by("names-beta-answered-by-beta", "names-beta", "beta");
    if let Some(ModelRoute { unknown_model }) = judge.declared() {
        judge.refused("names-nobody-as-declared", "names-nobody", &unknown_model);
    }
    judge.reached_nothing("names-nobody-reaches-nothing", "names-nobody");
}

check!(
    routing / model_name_spoof(x_ai_eg_model, x_gateway_model_name),
    drive_model_name_spoof,
    judge_model_name_spoof,
    Check {
        sentence: "a routing header that the client sends cannot override the model that the body names",
        source: "envoyproxy/ai-gateway#2410",
        how: "Sends chats for one model with the case's header naming the other, or one that does not exist; the record has to be that of \
              the body's model.",
        capability: Some(capability::MODEL_ROUTE),
        kills: &["trusts-client-model-header"],
        ..CHECK
    }
);

async fn drive_model_name_spoof(stage: &mut Stage) -> Result<()> {
    two_models(stage).await?;
    let header = stage.case().to_owned();
    let says = |model: &str| chat("alpha").header(&header, model);
    stage.send_in_turn(3, &[("says-beta-in-header", says("beta")), ("says-nobody-in-header", says("nobody"))]).await
}

fn judge_model_name_spoof(judge: &mut Judge<'_>) {
    judge.answered_by("says-beta-in-header-answered-by-alpha", "says-beta-in-header", "alpha");
    judge.answered_by("says-nobody-in-header-answered-by-alpha", "says-nobody-in-header", "alpha");
}

check!(
    routing / kserve_headers,
    drive_kserve_headers,
    judge_kserve_headers,
    Check {
        sentence: "KServe-Isvc-Name and KServe-Isvc-Namespace reach the model, and client-sent ones are overwritten",
        source: "KServe v0.17 HTTPRoute reconciler, RequestHeaderModifier set",
        how: "Sends a chat to KServe's own hostname without the headers, and one with others' values; the model's record has to \
              have each once, with KServe's value.",
        capability: Some(capability::KSERVE),
        kills: &["appends-instead-of-set"],
        changes: by_kserve,
        ..CHECK
    }
);

async fn drive_kserve_headers(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let call = || chat("alpha").host(&alpha.host);
    stage.settle(call, "alpha").await?;
    stage.send("plain", call()).await?;
    let spoofed = call().header("KServe-Isvc-Name", "somebody").header("KServe-Isvc-Namespace", "elsewhere");
    stage.send("spoofed", spoofed).await
}

fn judge_kserve_headers(judge: &mut Judge<'_>) {
    let namespace = judge.history().namespace.as_str();
    judge.answered_by("plain-answered-by-alpha", "plain", "alpha");
    judge.model_got("plain-kserve-isvc-name", "plain", "KServe-Isvc-Name", &["alpha"]);
    judge.model_got("plain-kserve-isvc-namespace", "plain", "KServe-Isvc-Namespace", &[namespace]);
    judge.answered_by("spoofed-answered-by-alpha", "spoofed", "alpha");
    judge.model_got("spoofed-kserve-isvc-name", "spoofed", "KServe-Isvc-Name", &["alpha"]);
    judge.model_got("spoofed-kserve-isvc-namespace", "spoofed", "KServe-Isvc-Namespace", &[namespace]);
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes};
    use verdict::capability::Refusal;

    use super::*;

    fn declared() -> Fake {
        Fake::of("routing/host").declares(HostRoute { status_unknown_host: 404 }).model("alpha")
    }

    fn two(case: &str) -> Fake {
        Fake::of("routing/path-precedence").case(case).declares(regex(PathKind::Prefix)).model("alpha").model("beta")
    }

    /// This rules where a regular expression meets a longer prefix; the shorter one loses.
    fn regex(longer: PathKind) -> PathRoute {
        PathRoute { regex_against_shorter_prefix: PathKind::Regex, regex_against_longer_prefix: longer }
    }

    /// Every target was sent; the model recorded these in their place.
    fn targets(recorded: [&str; 4]) -> Fake {
        let sent = |fake: Fake, ((label, target), recorded): ((&str, &str), &str)| {
            let fake = fake.answered(label, 404, "alpha").with_exchange(|e| e.request.target = target.to_owned());
            fake.with_model_target(recorded)
        };
        TARGETS.into_iter().zip(recorded).fold(Fake::of("routing/query-and-encoding").model("alpha"), sent)
    }

    fn unrecorded_targets() -> Fake {
        let fake = Fake::of("routing/query-and-encoding").model("alpha");
        TARGETS.into_iter().fold(fake, |fake, (label, _)| fake.refused(label, 404))
    }

    fn named() -> Fake {
        Fake::of("routing/model-name")
            .declares(ModelRoute {
                unknown_model: Refusal { status: 404, content_type: Some("text/plain".into()), ..Refusal::default() },
            })
            .model("alpha")
            .model("beta")
    }

    fn model_name_spoof(first: &str, second: &str) -> Fake {
        let fake = Fake::of("routing/model-name-spoof").model("alpha").model("beta");
        fake.answered("says-beta-in-header", 200, first).answered("says-nobody-in-header", 200, second)
    }

    fn kserve_headers(name: &str, namespace: &str, more: &[(&str, &str)]) -> Fake {
        let headers = [&[("kserve-isvc-name", name), ("kserve-isvc-namespace", namespace)], more].concat();
        Fake::of("routing/kserve-headers")
            .model("alpha")
            .answered("plain", 200, "alpha")
            .with_model_headers(&headers)
            .answered("spoofed", 200, "alpha")
            .with_model_headers(&headers)
    }

    #[rstest]
    #[case::host_as_it_should(declared().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404), Yes)]
    #[case::host_nothing_happened(declared(), Unproven)]
    #[case::host_never_live(declared().unsettled().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404), No)]
    #[case::host_unknown_host_served(declared().answered("right-host", 200, "alpha").answered("unknown-host", 200, "alpha").refused("address-as-host", 404), No)]
    #[case::host_a_404_that_reached_the_model(declared().answered("right-host", 200, "alpha").answered("unknown-host", 404, "alpha").refused("address-as-host", 404), No)]
    #[case::host_a_200_from_nobody(declared().refused("right-host", 200).refused("unknown-host", 404).refused("address-as-host", 404), No)]
    #[case::host_records_not_whole(declared().answered("right-host", 200, "alpha").refused("unknown-host", 404).refused("address-as-host", 404).without_marker("alpha"), Unproven)]
    #[case::host_wrong_refusal(declared().answered("right-host", 200, "alpha").refused("unknown-host", 503).refused("address-as-host", 404), No)]
    #[case::host_connection_cut(declared().answered("right-host", 200, "alpha").cut("unknown-host").refused("address-as-host", 404), No)]
    #[case::path_precedence_winner(two("exact-over-prefix").answered("both-match", 200, "beta"), Yes)]
    #[case::path_precedence_loser(two("exact-over-prefix").answered("both-match", 200, "alpha"), No)]
    #[case::path_precedence_relapse(two("exact-over-prefix").answered("both-match", 200, "beta").answered("both-match", 200, "alpha"), No)]
    #[case::path_precedence_nobody(two("exact-over-prefix").refused("both-match", 200), No)]
    #[case::path_precedence_undeclared(two("regex-and-longer-prefix").declares(json!({})).answered("both-match", 200, "alpha"), Unproven)]
    #[case::path_precedence_declared_regex(two("regex-and-longer-prefix").declares(regex(PathKind::Regex)).answered("both-match", 200, "alpha"), Yes)]
    #[case::path_precedence_declared_prefix(two("regex-and-longer-prefix").declares(regex(PathKind::Prefix)).answered("both-match", 200, "alpha"), No)]
    #[case::query_and_encoding_as_sent(targets(TARGETS.map(|(_, target)| target)), Yes)]
    #[case::query_and_encoding_unrecorded(unrecorded_targets(), No)]
    #[case::query_and_encoding_nothing_sent(Fake::of("routing/query-and-encoding").model("alpha"), Unproven)]
    #[case::query_and_encoding_sorted_query(targets(["/v1/models?a=1&a=1&b=2&b=&flag", TARGETS[1].1, TARGETS[2].1, TARGETS[3].1]), No)]
    #[case::query_and_encoding_without_query(targets(["/v1/models", TARGETS[1].1, TARGETS[2].1, TARGETS[3].1]), No)]
    #[case::query_and_encoding_plus_for_space(targets([TARGETS[0].1, "/v1/models?q=a+b+c%26d%3De&name=%C3%BC", TARGETS[2].1, TARGETS[3].1]), No)]
    #[case::query_and_encoding_lower_case_hex(targets([TARGETS[0].1, TARGETS[1].1, "/v1/models/a%20b%c3%bc", TARGETS[3].1]), No)]
    #[case::query_and_encoding_decoded_path(targets([TARGETS[0].1, TARGETS[1].1, "/v1/models/a b\u{fc}", TARGETS[3].1]), No)]
    #[case::query_and_encoding_without_slash(targets([TARGETS[0].1, TARGETS[1].1, TARGETS[2].1, "/v1/models"]), No)]
    #[case::model_name_as_it_should(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), Yes)]
    #[case::model_name_swapped(named().answered("names-alpha", 200, "beta").answered("names-beta", 200, "alpha").refused_with("names-nobody", 404, "text/plain", "no"), No)]
    #[case::model_name_one_stray(named().answered("names-alpha", 200, "alpha").answered("names-alpha", 200, "beta").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), No)]
    #[case::model_name_answered_twice(named().answered("names-alpha", 200, "alpha").also_reached("beta").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "text/plain", "no"), No)]
    #[case::model_name_unknown_served(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").answered("names-nobody", 200, "alpha"), No)]
    #[case::model_name_other_shape(named().answered("names-alpha", 200, "alpha").answered("names-beta", 200, "beta").refused_with("names-nobody", 404, "application/json", "{}"), No)]
    #[case::model_name_spoof_body_wins(model_name_spoof("alpha", "alpha"), Yes)]
    #[case::model_name_spoof_header_wins(model_name_spoof("beta", "alpha"), No)]
    #[case::model_name_spoof_header_wins_once(model_name_spoof("alpha", "beta"), No)]
    #[case::kserve_headers_set(kserve_headers("alpha", "ns", &[]), Yes)]
    #[case::kserve_headers_spoof_kept(kserve_headers("somebody", "elsewhere", &[]), No)]
    #[case::kserve_headers_appended(kserve_headers("alpha", "ns", &[("KServe-Isvc-Name", "somebody")]), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
