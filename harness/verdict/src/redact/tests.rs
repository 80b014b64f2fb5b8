//! Tests of redaction: no secret survives, redacting twice changes nothing, and equal secrets stay equal.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::history::{Connection, Key, ModelRecord, PickerLog, PickerRecord, Request, Response, Sent};

const TOKEN: &str = "S3cr3tValue99";

#[rstest]
#[case::bearer("authorization", "Bearer S3cr3tValue99", "Bearer <mark>")]
#[case::case_of_name("Authorization", "bearer S3cr3tValue99", "bearer <mark>")]
#[case::no_scheme("authorization", "S3cr3tValue99", "<mark>")]
#[case::api_key("api-key", "S3cr3tValue99", "<mark>")]
#[case::x_api_key("X-API-Key", "S3cr3tValue99", "<mark>")]
#[case::cookie("cookie", "S3cr3tValue99", "<mark>")]
#[case::in_another("x-echo", "was Bearer S3cr3tValue99", "was Bearer <mark>")]
#[case::harmless("x-ratelimit-remaining-tokens", "12", "12")]
fn the_mark_is_that_of_the_secret_alone(#[case] name: &str, #[case] value: &str, #[case] kept: &str) {
    let got = header(name, value);
    assert_eq!(got, kept.replace("<mark>", &mark(TOKEN)));
    assert_eq!(header(name, &got), got);
}

#[test]
fn an_unknown_scheme_may_be_part_of_the_secret() {
    assert_eq!(header("authorization", "S3cr3t Value"), mark("S3cr3t Value"));
}

#[rstest]
#[case::bearer("curl -H 'Authorization: Bearer S3cr3tValue99' http://x")]
#[case::lower("authorization: bearer S3cr3tValue99\r\nx: y")]
#[case::alone("sent Bearer S3cr3tValue99 to it")]
#[case::json(r#"{"Authorization": "Bearer S3cr3tValue99"}"#)]
#[case::json_array(r#"{"authorization": ["S3cr3tValue99"]}"#)]
#[case::json_in_json(r#"{"log": "{\"authorization\": \"S3cr3tValue99\"}"}"#)]
#[case::api_key_json(r#"{"api_key": "S3cr3tValue99"}"#)]
#[case::api_key_with_spaces(r#"{"password": "my S3cr3tValue99"}"#)]
#[case::api_key_with_quote(r#"{"password": "my \"S3cr3tValue99"}"#)]
#[case::environment("OPENAI_API_KEY=S3cr3tValue99 run")]
#[case::query("GET /v1?api_key=S3cr3tValue99&x=1")]
#[case::header_line("x-api-key: S3cr3tValue99")]
#[case::cookie("Set-Cookie: session=S3cr3tValue99; Path=/")]
#[case::openai("Incorrect API key provided: sk-S3cr3tValue99.")]
#[case::hugging_face("token hf_S3cr3tValue99 is wrong")]
#[case::jwt("eyJhbGciOiJI.eyJzdWIiOiIx.S3cr3tValue99")]
#[case::pem("-----BEGIN RSA PRIVATE KEY-----\nS3cr3tValue99\n-----END RSA PRIVATE KEY-----")]
#[case::pem_cut("-----BEGIN PRIVATE KEY-----\nS3cr3tValue99")]
#[case::secret_yaml(
    "apiVersion: v1\nkind: Secret\ndata:\n  apiKey: UzNjcjN0VmFsdWU5OQ==\nstringData:\n  other: S3cr3tValue99\n"
)]
#[case::secret_yaml_first("stringData:\n  k: |\n    S3cr3tValue99\n    S3cr3tValue99: x\nkind: Secret\n")]
#[case::secret_yaml_list("items:\n- apiVersion: v1\n  kind: Secret\n  data:\n    k: UzNjcjN0VmFsdWU5OQ==\n")]
#[case::secret_json(r#"{"kind":"Secret","data":{"k":"UzNjcjN0VmFsdWU5OQ=="}}"#)]
fn no_secret_survives_in_text(#[case] before: &str) {
    let after = text(before);
    assert!(!after.contains(TOKEN) && !after.contains("UzNjcjN0VmFsdWU5OQ"), "{after}");
    assert!(after.contains("<redacted:"), "{after}");
    assert_eq!(text(&after), after);
    if serde_json::from_str::<Value>(before).is_ok() {
        assert!(serde_json::from_str::<Value>(&after).is_ok(), "still JSON: {after}");
    }
}

#[rstest]
#[case("sk-abcd1234")]
#[case("pk-abcd1234")]
#[case("rk-abcd1234")]
#[case("hf_abcd1234")]
#[case("ghp_abcdefgh12345678")]
#[case("gho_abcdefgh12345678")]
#[case("ghu_abcdefgh12345678")]
#[case("ghs_abcdefgh12345678")]
#[case("ghr_abcdefgh12345678")]
#[case("glpat-abcdefgh12345678")]
#[case("AKIAABCDEFGH12345678")]
fn credentials_of_known_form_are_found_alone(#[case] token: &str) {
    assert_eq!(text(&format!("x {token} y")), format!("x {} y", mark(token)));
}

#[rstest]
#[case("access_token")]
#[case("refresh-token")]
#[case("id_token")]
#[case("auth-token")]
#[case("x-amz-security-token")]
#[case("HF_TOKEN")]
#[case("hf-token")]
#[case("client_secret")]
#[case("aws_secret_access_key")]
#[case("passwd")]
#[case("Apikey")]
fn credentials_are_found_by_their_name(#[case] name: &str) {
    assert_eq!(text(&format!("{name}=S3cr3tValue99")), format!("{name}={}", mark(TOKEN)));
}

#[test]
fn basic_credentials_are_found_without_their_header() {
    let pair = STANDARD.encode("user:S3cr3tValue99");
    let after = text(&format!("sent Basic {pair} to it"));
    assert!(!after.contains(&pair), "{after}");
}

#[rstest]
#[case("the bearer token was missing")]
#[case("basic authentication is off")]
#[case("task-manager-7d9f and risk-free pods")]
#[case(r#"{"usage":{"prompt_tokens":1,"completion_tokens":6,"total_tokens":7}}"#)]
#[case("max_tokens: 12")]
#[case(r#"{"api_key": null, "password": {"secretRef": "x"}}"#)]
#[case("authorization:\n  cel: request.path\n")]
#[case("kind: ConfigMap\ndata:\n  a: b\n# about a Secret")]
#[case("WWW-Authenticate: Bearer realm=x")]
fn what_is_no_secret_stays(#[case] harmless: &str) {
    assert_eq!(text(harmless), harmless);
}

#[test]
fn objects_lose_their_secrets() {
    let secret = json!({"kind": "Secret", "metadata": {"name": "key", "annotations": {
        "kubectl.kubernetes.io/last-applied-configuration":
            r#"{"kind":"Secret","stringData":{"apiKey":"S3cr3tValue99"}}"#}},
        "data": {"apiKey": "UzNjcjN0VmFsdWU5OQ==", "empty": null}});
    let typed = json!({"metadata": {}, "type": "Opaque", "data": {"k": "UzNjcjN0VmFsdWU5OQ=="}});
    let list = json!({"kind": "SecretList", "items": [{"data": {"k": "UzNjcjN0VmFsdWU5OQ=="}}]});
    let pod = json!({"spec": {"env": [{"name": "HF_TOKEN", "value": TOKEN}]}});
    let picker = json!({"headers": [["authorization", "Bearer S3cr3tValue99"]], "more": {"x-api-key": TOKEN}});
    let user = json!({"users": [{"user": {"token": TOKEN}}]});
    for before in [secret.clone(), typed, list, pod, picker, user] {
        let after = object(&before);
        let written = after.to_string();
        assert!(!written.contains(TOKEN) && !written.contains("UzNjcjN0"), "{written}");
        assert!(written.contains(&mark(TOKEN)), "the same secret has the same mark everywhere: {written}");
        assert_eq!(object(&after), after);
    }
    let plain = json!({"kind": "ConfigMap", "data": {"a": "b"}, "spec": {"privateKey": {"algorithm": "RSA"}}});
    assert_eq!(object(&plain), plain);
}

/// A history with the token in every place that can hold text from outside.
fn telling(token: &str) -> History {
    let key = Key { gateway: "g".into(), check: "a/b".into(), case: "-".into(), attempt: 1 };
    let mut history = History::new(key, "ns", "host");
    let secret = || vec![("authorization".to_owned(), format!("Bearer {token}")), ("cookie".into(), token.to_owned())];
    let body = || Body::of(format!(r#"{{"api_key":"{token}"}}"#).as_bytes());
    let target = format!("/?api-key={token}");
    let mut exchange = Exchange {
        id: "x".into(),
        label: "l".into(),
        sent_ms: 0.0,
        request: Request { target, headers: secret(), body: body(), ..Request::default() },
        outcome: Outcome::Response(Response { headers: secret(), body: body(), ..Response::default() }),
        connection: Some(Connection { surplus: Some(format!("cookie: {token}")), ..Connection::default() }),
    };
    history.settle.exchanges.push(exchange.clone());
    history.exchanges.push(exchange.clone());
    exchange.outcome = Outcome::Failed { stage: "send".into(), error: format!("password={token}") };
    history.exchanges.push(exchange);
    history.objects.insert("s".into(), json!({"kind": "Secret", "data": {"k": STANDARD.encode(token)}}));
    history.facts.insert("f".into(), json!({"token": token}));
    let picked = PickerRecord { target: format!("/?api_key={token}"), headers: secret(), ..PickerRecord::default() };
    history.pickers.insert("p".into(), PickerLog { records: vec![picked], ..PickerLog::default() });
    history.admissions.insert("a".into(), Admission::Accepted { warnings: vec![format!("Bearer {token}")] });
    let refused = Admission::Refused { code: 400, reason: "r".into(), message: format!("authorization: {token}") };
    history.admissions.insert("b".into(), refused);
    history.notes.push(format!("sk-{token}"));
    let target = format!("/?api_key={token}");
    let sent = Some(Sent::of(format!("api-key: {token}").as_bytes()));
    let record =
        ModelRecord { target, headers: secret(), body: body(), reply: Some(secret()), sent, ..ModelRecord::default() };
    history.models.insert("m".into(), ModelLog { records: vec![record], ..ModelLog::default() });
    history
}

#[test]
fn a_body_keeps_the_hash_of_the_wire() {
    let before = telling(TOKEN);
    let mut after = before.clone();
    history(&mut after);
    assert_eq!(after.exchanges[0].request.body.sha256, before.exchanges[0].request.body.sha256);
    assert_ne!(after.exchanges[0].request.body.text, before.exchanges[0].request.body.text);
}

proptest! {
    #[test]
    fn no_secret_survives_in_a_history(token in "[A-Za-z0-9]{12,40}") {
        let mut once = telling(&token);
        history(&mut once);
        let written = serde_json::to_string(&once).unwrap();
        prop_assert!(!written.contains(&token), "{}", written);
        prop_assert!(!written.contains(&STANDARD.encode(&token)));
        let mut twice = once.clone();
        history(&mut twice);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn redacting_text_twice_changes_nothing(
        before in r#"((?i:authorization|api[-_]key|cookie|bearer|basic|password|kind: Secret|data|stringData|---|sk-|hf_|eyJ)|<redacted:0123abcd>|[ :="'\\\n\[\]{},&a-z0-9]|\PC){0,24}"#
    ) {
        let once = text(&before);
        prop_assert_eq!(text(&once), once);
    }

    #[test]
    fn redacting_values_twice_changes_nothing(name in "token|data|value|name|kind|stringData|authorization", inner in "[ -~]{0,30}") {
        let value = json!({"kind": "Secret", "name": "api-key", name: inner.clone(), "data": {"x": inner}});
        let once = object(&value);
        prop_assert_eq!(object(&once), once);
    }

    #[test]
    fn bearer_tokens_never_survive(token in "[A-Za-z0-9._~+/-]{12,60}", before in "[a-z ]{0,20}", after in "[ ,;\"'][a-z ]{0,20}") {
        let kept = text(&format!("{before} Bearer {token}{after}"));
        prop_assert!(!kept.contains(&token), "{}", kept);
    }

    #[test]
    fn marks_tell_equal_from_different(a in "[ -~]{1,20}", b in "[ -~]{1,20}") {
        prop_assert_eq!(mark(&a) == mark(&b), a == b);
        prop_assert!(is_mark(&mark(&a)));
        prop_assert!(!is_mark(&a));
    }
}
