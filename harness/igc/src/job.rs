//! `job`: the manifest that runs the suites inside a cluster, with no more rights than they need; also as a plugin of
//! Sonobuoy, so that an engine that checks many clusters checks this too. What it leaves is merged like any other run.

use serde_json::{Value, json};
use verdict::golden::yaml;

use crate::{failure::Failure, options::Job};

/// Where the results are in the pod; Sonobuoy looks for them there.
const RESULTS: &str = "/tmp/sonobuoy/results";
/// The programs in the image, as `cargo xtask programs` puts them there.
const PROGRAMS: &str = "/igc/programs";
/// Where the kubeconfig of the pod's own account is.
const KUBECONFIG: &str = "/igc/kubeconfig/config";
/// What Kubernetes gives every pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the results can be fetched after the checks, in seconds.
const KEPT: u32 = 3_600;

/// Kinds that checks make, by API group: written and read.
const MADE: [(&str, &[&str]); 9] = [
    ("", &["namespaces", "services", "serviceaccounts", "configmaps"]),
    ("apps", &["deployments"]),
    ("rbac.authorization.k8s.io", &["roles", "rolebindings"]),
    ("gateway.networking.k8s.io", &["gateways", "httproutes", "referencegrants", "gatewayclasses"]),
    ("gateway.envoyproxy.io", &["backends", "backendtrafficpolicies", "clienttrafficpolicies", "envoyproxies"]),
    ("aigateway.envoyproxy.io", &["aigatewayroutes", "aiservicebackends"]),
    ("agentgateway.dev", &["agentgatewaybackends", "agentgatewayparameters", "agentgatewaypolicies"]),
    ("inference.networking.k8s.io", &["inferencepools"]),
    ("serving.kserve.io", &["inferenceservices", "llminferenceservices"]),
];

/// Kinds that are only read: whether things are ready, and evidence.
const READ: [(&str, &[&str]); 7] = [
    ("", &["pods", "pods/log", "events", "endpoints", "nodes"]),
    ("apps", &["replicasets"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("events.k8s.io", &["events"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("cert-manager.io", &["certificates"]),
    // What checks let the pickers of their pools read: nobody gives rights that he has not.
    ("inference.networking.x-k8s.io", &["inferencepools", "inferenceobjectives", "inferencemodelrewrites"]),
];

/// Prints the manifest.
pub fn job(options: &Job) -> Result<u8, Failure> {
    print!("{}", manifest(options));
    Ok(0)
}

fn manifest(options: &Job) -> String {
    if options.sonobuoy {
        return yaml(&plugin(options));
    }
    let documents: Vec<String> = objects(options).iter().map(yaml).collect();
    documents.join("---\n")
}

/// What is typed behind `igc` in the pod.
fn words(options: &Job) -> Vec<String> {
    let mut words = vec!["e2e", "--on", "context", "--context", &options.cluster, "--gateway", &options.gateway];
    words.extend(["--profile", &options.profile, "--igc-image", &options.image, "--out", "/tmp/igc"]);
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    options.suite.iter().for_each(|suite| words.extend(["--suite".to_owned(), suite.clone()]));
    words
}

/// Runs the checks, then leaves the run's folder as Sonobuoy wants it: an archive, and a file that names it. Its own exit
/// code is kept beside them, so that whoever fetches the results can have it.
fn script(options: &Job) -> String {
    let words: Vec<String> = words(options).iter().map(|word| verdict::curl::quoted(word)).collect();
    format!(
        "{PROGRAMS}/igc {}\ncode=$?\nmkdir -p {RESULTS}\necho $code > {RESULTS}/exit-code\n\
         tar -czf {RESULTS}/igc.tar.gz -C /tmp/igc --exclude=latest .\n\
         cp /tmp/igc/latest/report.xml {RESULTS}/report.xml\n\
         printf %s {RESULTS}/igc.tar.gz > {RESULTS}/done\n",
        words.join(" ")
    )
}

fn environment() -> Value {
    json!([{"name": "KUBECONFIG", "value": KUBECONFIG}, {"name": "CI", "value": "true"}])
}

/// What nobody needs is not given.
fn confined() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// A kubeconfig of the pod's own account: its context is called as the cluster is, and reports name it.
fn kubeconfig(options: &Job) -> String {
    let cluster = &options.cluster;
    yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {
            "server": "https://kubernetes.default.svc", "certificate-authority": format!("{ACCOUNT}/ca.crt")}}],
        "users": [{"name": "igc", "user": {"tokenFile": format!("{ACCOUNT}/token")}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": "igc"}}],
    }))
}

fn rules() -> Value {
    let rule = |(group, resources): &(&str, &[&str]), verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let made = MADE.iter().map(|of| rule(of, &["get", "list", "watch", "create", "patch", "delete"]));
    let read = READ.iter().map(|of| rule(of, &["get", "list", "watch"]));
    // The records of our own models and pickers are read through the API server.
    let asked = rule(&("", &["pods/proxy"]), &["get", "create"]);
    json!(made.chain(read).chain([asked]).collect::<Vec<_>>())
}

/// Everything that the Job needs, in the order in which it is applied.
fn objects(options: &Job) -> Vec<Value> {
    let namespace = &options.namespace;
    let named = |kind: &str, api: &str, name: &str| {
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "igc"}}})
    };
    let with = |mut object: Value, fields: Value| {
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        object
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace,
            "labels": {"app.kubernetes.io/name": "igc"}}}),
        named("ServiceAccount", "v1", "igc"),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": rules()}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "name": "igc", "namespace": namespace}]}),
        with(named("ConfigMap", "v1", "igc"), json!({"data": {"config": kubeconfig(options)}})),
        with(
            named("Job", "batch/v1", "igc"),
            json!({"spec": {"backoffLimit": 0, "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "igc"}},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "igc",
                    // The checks first; then the results can be fetched for a while.
                    "initContainers": [{
                        "name": "checks", "image": options.image, "command": ["sh", "-c", script(options)],
                        "env": environment(), "securityContext": confined(),
                        "volumeMounts": [
                            {"name": "kubeconfig", "mountPath": "/igc/kubeconfig"},
                            {"name": "results", "mountPath": RESULTS},
                            {"name": "work", "mountPath": "/tmp/igc"},
                        ],
                    }],
                    "containers": [{
                        "name": "results", "image": options.image, "securityContext": confined(),
                        "command": ["sh", "-c", format!("sleep {KEPT}; exit $(cat {RESULTS}/exit-code)")],
                        "volumeMounts": [{"name": "results", "mountPath": RESULTS}],
                    }],
                    "volumes": [
                        {"name": "kubeconfig", "configMap": {"name": "igc"}},
                        {"name": "results", "emptyDir": {}},
                        {"name": "work", "emptyDir": {}},
                    ],
                },
            }}}),
        ),
    ]
}

/// A plugin of Sonobuoy: its engine makes pod, account and rights, and fetches the results.
fn plugin(options: &Job) -> Value {
    let kubeconfig =
        format!("mkdir -p /tmp/kubeconfig\ncat > /tmp/kubeconfig/config <<'END'\n{}END\n", kubeconfig(options));
    let script = format!("{kubeconfig}export KUBECONFIG=/tmp/kubeconfig/config\n{}", script(options));
    json!({
        "sonobuoy-config": {"driver": "Job", "plugin-name": "igc", "result-format": "junit", "result-files": ["report.xml"]},
        "spec": {
            "name": "plugin", "image": options.image, "command": ["sh", "-c", script], "env": environment(),
            "volumeMounts": [{"name": "results", "mountPath": RESULTS}],
        },
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use clap::Parser;
    use cluster::install::component::Catalogue;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        job: Job,
    }

    fn of(words: &[&str]) -> Job {
        let usual = ["igc", "--image", "registry.example/igc:1", "--gateway", "agentgateway", "--cluster", "blue"];
        Program::try_parse_from(usual.iter().chain(words)).unwrap().job
    }

    fn documents(job: &Job) -> Vec<Value> {
        manifest(job).split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    }

    #[test]
    fn the_manifest_is_what_it_is_documented_to_be() {
        insta::assert_snapshot!(manifest(&of(&["--suite", "routing"])));
    }

    #[test]
    fn the_plugin_is_what_it_is_documented_to_be() {
        insta::assert_snapshot!(manifest(&of(&["--sonobuoy"])));
    }

    #[test]
    fn the_command_in_the_pod_is_one_that_a_plan_understands() {
        #[derive(Parser)]
        struct Plan {
            #[command(flatten)]
            e2e: crate::options::E2e,
        }
        let words = words(&of(&["--suite", "guide-*"]));
        let plan = Plan::try_parse_from(words).unwrap().e2e;
        assert_eq!((plan.target.context.as_deref(), plan.target.gateway.as_str()), (Some("blue"), "agentgateway"));
        assert_eq!(
            (plan.suite, plan.target.igc_image.as_deref()),
            (vec!["guide-*".to_owned()], Some("registry.example/igc:1"))
        );
    }

    #[test]
    fn the_kubeconfig_has_the_context_that_the_command_names() {
        let all = documents(&of(&[]));
        let config = all.iter().find(|o| o["kind"] == "ConfigMap").unwrap()["data"]["config"].as_str().unwrap();
        let config: Value = serde_saphyr::from_str(config).unwrap();
        assert_eq!((&config["contexts"][0]["name"], &config["current-context"]), (&"blue".into(), &"blue".into()));
    }

    /// Kinds of the manifests that checks apply, lower-case and plural as the API serves them.
    fn kinds_of_manifests(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                kinds_of_manifests(&path, found);
            } else if path.parent().is_some_and(|p| p.ends_with("intents") || p.ends_with("models")) {
                let text = std::fs::read_to_string(&path).unwrap();
                let kinds =
                    text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("kind: "));
                found.extend(kinds.filter(|k| k.chars().all(char::is_alphanumeric)).map(plural));
            }
        }
    }

    fn plural(kind: &str) -> String {
        let kind = kind.to_lowercase();
        match kind.strip_suffix('y') {
            Some(stem) if !stem.ends_with('a') => format!("{stem}ies"),
            _ if kind.ends_with("ss") => format!("{kind}es"),
            _ if kind.ends_with('s') => kind,
            _ => format!("{kind}s"),
        }
    }

    /// Roles that checks make give only what the Job has itself, else the API server refuses them.
    #[test]
    fn the_rights_cover_those_that_checks_give() {
        let intents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/intents");
        let text = |name: &str| std::fs::read_to_string(intents.join(name)).unwrap();
        let mut given = BTreeSet::new();
        for line in (text("pool.yaml") + &text("llm-service.yaml")).lines().filter(|l| l.starts_with("- {apiGroups:")) {
            let rule: Value = serde_saphyr::from_str(line.trim_start_matches("- ")).unwrap();
            assert_eq!(rule["verbs"], json!(["get", "list", "watch"]), "{line}");
            let resources = rule["resources"].as_array().unwrap().iter().filter_map(Value::as_str);
            given.extend(resources.map(|r| (rule["apiGroups"][0].as_str().unwrap().to_owned(), r.to_owned())));
        }
        assert!(given.len() > 3, "{given:?}");
        let own = |(group, resources): &(&str, &[&str])| {
            resources.iter().map(|r| ((*group).to_owned(), (*r).to_owned())).collect::<Vec<_>>()
        };
        let own: BTreeSet<(String, String)> = MADE.iter().chain(&READ).flat_map(own).collect();
        assert_eq!(given.difference(&own).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    }

    #[test]
    fn the_rights_cover_what_is_looked_for_before_checks_run() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
        let catalogue = Catalogue::read(&manifests).unwrap();
        let looked_at = catalogue.all().flat_map(|component| {
            let waits = component.waits.iter().map(|wait| &wait.object);
            waits.chain(component.configured.iter().map(|c| &c.object)).chain([&component.present.object])
        });
        let looked_at: BTreeSet<String> = looked_at.map(|object| plural(&object.kind)).collect();
        let allowed: BTreeSet<String> =
            MADE.iter().chain(&READ).flat_map(|(_, resources)| resources.iter().map(|r| (*r).to_owned())).collect();
        assert!(looked_at.len() > 4, "{looked_at:?}");
        assert_eq!(looked_at.difference(&allowed).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn the_rights_cover_what_checks_make_and_nothing_is_a_wildcard() {
        let mut kinds = BTreeSet::new();
        kinds_of_manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests"), &mut kinds);
        assert!(kinds.len() > 8, "{kinds:?}");
        kinds.remove("endpointpickerconfigs"); // no object: a file of the picker, inside a ConfigMap
        let made: BTreeSet<String> =
            MADE.iter().flat_map(|(_, resources)| resources.iter().map(|r| (*r).to_owned())).collect();
        assert_eq!(kinds.difference(&made).collect::<Vec<_>>(), Vec::<&String>::new());
        let text = yaml(&rules());
        assert!(!text.contains('*') && !text.contains("secrets"), "{text}");
    }
}
