//! `job`: the manifest that runs the suites inside a cluster, with no more rights than they need; also as a plugin of
//! Sonobuoy, so that an engine that checks many clusters checks this too. What it leaves is merged like any other run.

use std::path::Path;

use cluster::install::profile::{Profile, Selection};
use cluster::rights::{self, Rule};
use cluster::{gateway::GatewayFolder, install::component::Catalogue};
use serde_json::{Value, json};
use shipped::Root;
use verdict::golden::yaml;

use crate::{failure::Failure, options::Job};

/// Where the results are in the pod; Sonobuoy looks for them there.
const RESULTS: &str = "/tmp/sonobuoy/results";
/// The programs in the image, as `cargo xtask programs` puts them there.
const PROGRAMS: &str = "/igc/programs";
const KUBECONFIG: &str = "/igc/kubeconfig/config";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the results can be fetched after the checks, in seconds.
const KEPT: u32 = 3_600;

pub fn job(root: &Root, options: &Job) -> Result<u8, Failure> {
    print!("{}", manifest(options, &root.manifests())?);
    Ok(0)
}

fn manifest(options: &Job, manifests: &Path) -> Result<String, Failure> {
    let rules = rules(manifests, options)?;
    if options.sonobuoy {
        return Ok(yaml(&plugin(options)));
    }
    let documents: Vec<String> = objects(options, &rules).iter().map(yaml).collect();
    Ok(documents.join("---\n"))
}

fn rules(manifests: &Path, options: &Job) -> Result<Vec<Rule>, Failure> {
    let folder = GatewayFolder::read(&manifests.join("gateways"), &options.gateway).map_err(Failure::usage)?;
    let catalogue = Catalogue::read(manifests).map_err(Failure::usage)?;
    let profile = Profile::read(manifests, &options.profile).map_err(Failure::usage)?;
    let selection = Selection::of(&catalogue, &profile, &folder.components).map_err(Failure::usage)?;
    rights::of(manifests, &folder, &selection).map_err(Failure::usage)
}

/// What is typed behind `igc` in the pod.
fn arguments(options: &Job) -> Vec<&str> {
    let mut arguments = vec!["e2e", "--on", "context", "--context", &options.cluster, "--gateway", &options.gateway];
    arguments.extend(["--profile", &options.profile, "--igc-image", &options.image, "--out", "/tmp/igc"]);
    options.suite.iter().for_each(|suite| arguments.extend(["--suite", suite]));
    arguments
}

/// Runs the checks, then leaves the run's folder as Sonobuoy wants it: an archive, and a file that names it. Its own exit
/// code is kept beside them, so that whoever fetches the results can have it.
fn script(options: &Job) -> String {
    let arguments: Vec<String> = arguments(options).into_iter().map(verdict::curl::quoted).collect();
    format!(
        "{PROGRAMS}/igc {}\ncode=$?\nmkdir -p {RESULTS}\necho $code > {RESULTS}/exit-code\n\
         tar -czf {RESULTS}/igc.tar.gz -C /tmp/igc --exclude=latest .\n\
         cp /tmp/igc/latest/report.xml {RESULTS}/report.xml\n\
         printf %s {RESULTS}/igc.tar.gz > {RESULTS}/done\n",
        arguments.join(" ")
    )
}

fn environment() -> Value {
    json!([{"name": "KUBECONFIG", "value": KUBECONFIG}, {"name": "CI", "value": "true"}])
}

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

fn objects(options: &Job, rules: &[Rule]) -> Vec<Value> {
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
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": rules}),
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
    use rstest::rstest;

    use super::*;
    use crate::options::{E2e, parsed};

    fn of(arguments: &[&str]) -> Job {
        let usual = ["--image", "registry.example/igc:1", "--gateway", "agentgateway", "--cluster", "blue"];
        parsed(&[&usual, arguments].concat()).unwrap()
    }

    fn written(job: &Job) -> Result<String, String> {
        manifest(job, &Root::find(None).unwrap().manifests()).map_err(|failure| failure.to_string())
    }

    fn documents(job: &Job) -> Vec<Value> {
        written(job).unwrap().split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    }

    #[test]
    fn the_manifest_is_what_it_is_documented_to_be() {
        insta::assert_snapshot!(written(&of(&["--suite", "routing"])).unwrap());
    }

    #[test]
    fn the_plugin_is_what_it_is_documented_to_be() {
        insta::assert_snapshot!(written(&of(&["--sonobuoy"])).unwrap());
    }

    #[test]
    fn the_command_in_the_pod_is_one_that_a_plan_understands() {
        let job = of(&["--suite", "guide-*"]);
        let plan: E2e = parsed(&arguments(&job)[1..]).unwrap();
        assert_eq!((plan.target.context.as_deref(), plan.target.gateway.as_str()), (Some("blue"), "agentgateway"));
        assert_eq!(plan.suite, ["guide-*"]);
        assert_eq!(plan.target.igc_image.as_deref(), Some("registry.example/igc:1"));
    }

    #[test]
    fn the_kubeconfig_has_the_context_that_the_command_names() {
        let all = documents(&of(&[]));
        let config = all.iter().find(|o| o["kind"] == "ConfigMap").unwrap()["data"]["config"].as_str().unwrap();
        let config: Value = serde_saphyr::from_str(config).unwrap();
        assert_eq!((&config["contexts"][0]["name"], &config["current-context"]), (&"blue".into(), &"blue".into()));
    }

    #[rstest]
    #[case::gateway(|job: &mut Job| job.gateway = "agentgatway".into(), "no gateway called 'agentgatway'; did you mean agentgateway?")]
    #[case::profile(|job: &mut Job| job.profile = "curent".into(), "no profile called 'curent'; did you mean current?")]
    fn what_is_not_there_is_refused(#[case] change: fn(&mut Job), #[case] said: &str) {
        let mut job = of(&[]);
        change(&mut job);
        let message = written(&job).unwrap_err();
        assert!(message.contains(said), "{message}");
    }
}
