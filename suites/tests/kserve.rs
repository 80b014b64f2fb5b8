//! KServe's own side: what an InferenceService makes, and where it says that it can be reached.

mod llmisvc;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{CHECK, Check, Judge, Live, Stage, WaitCondition, by_kserve, chat, check, condition};
use verdict::capability::{self, Kserve};

struct Child {
    /// The object in the history, and the clause that the service owns it.
    called: &'static str,
    version: &'static str,
    kind: &'static str,
    name: &'static str,
}

impl Child {
    const fn of(called: &'static str, version: &'static str, kind: &'static str, name: &'static str) -> Self {
        Self { called, version, kind, name }
    }

    fn object(&self, stage: &Stage) -> suites::ObjectRef {
        stage.object(self.version, self.kind, self.name)
    }

    fn judge(&self, judge: &mut Judge<'_>, owner: &str) {
        let found = &judge.object(self.called)["metadata"]["ownerReferences"][0];
        let statement =
            judge.clause(self.called).expected(format!("{} {}, owned by {owner} alpha", self.kind, self.name));
        let owned = found["kind"] == owner && found["name"] == "alpha" && found["controller"] == true;
        statement.got(format!("owner {found}")).holds(owned);
    }
}

const CHILDREN: &[Child] = &[
    Child::of("deployment", "apps/v1", "Deployment", "alpha-predictor"),
    Child::of("service", "v1", "Service", "alpha-predictor"),
    Child::of("route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha"),
    Child::of("predictor-route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha-predictor"),
];

check!(
    kserve / children,
    drive_children,
    judge_children,
    Check {
        sentence: "an InferenceService makes its Deployment, Service and HTTPRoutes, owned by it, with the documented names and contents",
        source: "KServe v0.17, Standard deployment mode, Gateway API ingress",
        how: "Applies an InferenceService and reads what it makes: owners, the Service's port, and hostnames, match, headers and \
              timeout of both routes.",
        capability: Some(capability::KSERVE),
        live: Live::NotJudged,
        kills: &["forgets-predictor-route"],
        ..CHECK
    }
);

async fn drive_children(stage: &mut Stage) -> Result<()> {
    stage.see_model("alpha").await?;
    for child in CHILDREN {
        stage.see(child.called, &child.object(stage), WaitCondition::Exists, 30).await?;
    }
    Ok(())
}

/// The routes: name, and the clauses about hostname, match, headers and timeout.
const ROUTES: [(&str, &str, [&str; 4]); 2] = [
    ("route", "alpha", ["route-hostname", "route-matches-every-path", "route-sets-headers", "route-timeout"]),
    (
        "predictor-route",
        "alpha-predictor",
        [
            "predictor-route-hostname",
            "predictor-route-matches-every-path",
            "predictor-route-sets-headers",
            "predictor-route-timeout",
        ],
    ),
];

fn judge_children(judge: &mut Judge<'_>) {
    judge.is_true("ready", judge.object("inference-service"), "Ready");
    for child in CHILDREN {
        child.judge(judge, "InferenceService");
    }
    let port = &judge.object("service")["spec"]["ports"][0]["port"];
    judge.clause("service-port").expected("port 80").got(format!("port {port}")).holds(port == 80);
    let Some(Kserve { domain }) = judge.declared() else { return };
    let namespace = &judge.history().namespace;
    for (called, name, [hostname, matches, sets_headers, timeout]) in ROUTES {
        let spec = &judge.object(called)["spec"];
        let (hosts, wanted) = (&spec["hostnames"], format!("{name}-{namespace}.{domain}"));
        judge.clause(hostname).expected(&wanted).got(hosts.to_string()).holds(*hosts == json!([wanted]));
        let rule = &spec["rules"][0];
        let path = &rule["matches"][0]["path"];
        let every = path["type"] == "RegularExpression" && path["value"] == "^/.*$";
        judge.clause(matches).expected("RegularExpression ^/.*$").got(path.to_string()).holds(every);
        let set = &rule["filters"][0]["requestHeaderModifier"]["set"];
        let sets = |name: &str, value: &str| {
            let header = set.as_array().and_then(|set| set.iter().find(|header| header["name"] == name));
            header.is_some_and(|header| header["value"] == value)
        };
        let both = sets("KServe-Isvc-Name", "alpha") && sets("KServe-Isvc-Namespace", namespace);
        judge.clause(sets_headers).expected("KServe-Isvc-Name and -Namespace set").got(set.to_string()).holds(both);
        let limit = &rule["timeouts"]["request"];
        judge.clause(timeout).expected("request timeout 60s").got(limit.to_string()).holds(limit == "60s");
    }
}

check!(
    kserve / url,
    drive_url,
    judge_url,
    Check {
        sentence: "status.url names a host that the gateway routes to the model",
        source: "KServe v0.17, InferenceServiceStatus.url",
        how: "Reads the URLs in the status of an InferenceService that is Ready, and sends a chat to the host of the outer one; the \
              model's record has to show it.",
        capability: Some(capability::KSERVE),
        kills: &["url-of-another-service"],
        changes: by_kserve,
        ..CHECK
    }
);

async fn drive_url(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    stage.see("inference-service", &stage.inference_service("alpha"), condition("Ready"), 60).await?;
    let url = stage.seen("inference-service")["status"]["url"].as_str();
    let said = url.and_then(|url| url.strip_prefix("http://")).unwrap_or("no-url.invalid").to_owned();
    stage.settle(|| chat("alpha").host(&alpha.host), "alpha").await?;
    stage.send("host-of-the-url", chat("alpha").host(said)).await
}

fn judge_url(judge: &mut Judge<'_>) {
    let (status, namespace) = (&judge.object("inference-service")["status"], &judge.history().namespace);
    if let Some(Kserve { domain }) = judge.declared() {
        let (url, wanted) = (&status["url"], format!("http://alpha-{namespace}.{domain}"));
        judge.clause("url").expected(&wanted).got(url.to_string()).holds(*url == wanted);
    }
    let (url, wanted) = (&status["address"]["url"], format!("http://alpha-predictor.{namespace}.svc.cluster.local"));
    judge.clause("address").expected(&wanted).got(url.to_string()).holds(*url == wanted);
    judge.answered_by("host-of-the-url-answered-by-alpha", "host-of-the-url", "alpha");
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, object_saying};

    use super::*;

    fn owned() -> Value {
        json!({"ownerReferences": [{"kind": "InferenceService", "name": "alpha", "controller": true}]})
    }

    fn a_route(host: &str) -> Value {
        let set =
            json!([{"name": "KServe-Isvc-Name", "value": "alpha"}, {"name": "KServe-Isvc-Namespace", "value": "ns"}]);
        json!({"metadata": owned(), "spec": {"hostnames": [host], "rules": [{
            "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
            "filters": [{"requestHeaderModifier": {"set": set}}], "timeouts": {"request": "60s"}}]}})
    }

    fn family() -> Fake {
        Fake::of("kserve/children")
            .declares(Kserve { domain: "example.com".into() })
            .object("inference-service", object_saying(&[("Ready", "True", "")]))
            .object("deployment", json!({"metadata": owned()}))
            .object("service", json!({"metadata": owned(), "spec": {"ports": [{"port": 80}]}}))
            .object("route", a_route("alpha-ns.example.com"))
            .object("predictor-route", a_route("alpha-predictor-ns.example.com"))
    }

    fn says(url: &str) -> Fake {
        let status = json!({"url": url, "address": {"url": "http://alpha-predictor.ns.svc.cluster.local"}});
        let fake = Fake::of("kserve/url").declares(Kserve { domain: "example.com".into() }).model("alpha");
        fake.object("inference-service", json!({"status": status}))
    }

    #[rstest]
    #[case::children_whole(family(), Yes)]
    #[case::children_nothing(Fake::of("kserve/children"), No)]
    #[case::children_no_predictor_route(family().without_object("predictor-route"), No)]
    #[case::children_not_ready(family().object("inference-service", object_saying(&[("Ready", "False", "")])), No)]
    #[case::children_other_port(family().object("service", json!({"metadata": owned(), "spec": {"ports": [{"port": 8080}]}})), No)]
    #[case::children_not_owned(family().object("deployment", json!({"metadata": {}})), No)]
    #[case::children_other_host(family().object("route", a_route("alpha.example.com")), No)]
    #[case::url_good(says("http://alpha-ns.example.com").answered("host-of-the-url", 200, "alpha"), Yes)]
    #[case::url_other_url(says("http://beta-ns.example.com").answered("host-of-the-url", 200, "alpha"), No)]
    #[case::url_does_not_answer(says("http://alpha-ns.example.com").refused("host-of-the-url", 404), No)]
    #[case::url_was_not_asked(says("http://alpha-ns.example.com"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
