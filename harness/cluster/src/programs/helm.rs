//! Helm through its command line: with caches of its own, without its waits, and only releases of our own run are touched.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::child::{Call, ChildError, Output, Programs};
use crate::api::RUN_LABEL;

const INSTALL: Duration = Duration::from_secs(300);
const ASK: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Helm {
    programs: Programs,
    folder: PathBuf,
    kubeconfig: PathBuf,
    context: String,
    run: String,
}

#[derive(Clone, Debug)]
pub struct Release<'r> {
    pub name: &'r str,
    pub namespace: &'r str,
    pub chart: &'r Path,
    pub values: Option<&'r Path>,
    /// Whether it takes over what others have made of what it brings.
    pub take_ownership: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum HelmError {
    #[error(transparent)]
    Call(#[from] ChildError),
    #[error(
        "release {name} in namespace {namespace} is there already ({status}), and this run did not make it; uninstall it, or use another cluster"
    )]
    NotOurs { name: String, namespace: String, status: String },
    #[error("failed to read the output of `helm list`: {0}")]
    Strange(serde_json::Error),
    #[error("chart {} does not render to YAML: {problem}", chart.display())]
    Rendered { chart: PathBuf, problem: String },
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

impl HelmError {
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_cancelled())
    }
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    namespace: String,
    status: String,
}

impl Helm {
    /// Helm with caches below this folder, for a context of a kubeconfig.
    pub fn new(programs: &Programs, folder: &Path, kubeconfig: &Path, context: &str, run: &str) -> Self {
        Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            context: context.to_owned(),
            run: run.to_owned(),
        }
    }

    fn call(&self, deadline: Duration) -> Call {
        local_call(&self.folder, deadline)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--kube-context")
            .arg(&self.context)
    }

    /// Installs a release. Helm does not wait for what the release makes, only for hooks.
    ///
    /// A release of our own run that hangs half-way (`pending-*`, or failed) is removed before; one that is deployed is left as it is.
    pub async fn install(&self, release: &Release<'_>, cancel: &CancellationToken) -> Result<(), HelmError> {
        match self.install_once(release, cancel).await {
            Err(HelmError::Call(error)) if error.output().contains("cannot re-use a name that is still in use") => {
                let Some(there) = self.there(release, None, cancel).await? else { return Err(error.into()) };
                let of_this_run = format!("{RUN_LABEL}={}", self.run);
                let ours = self.there(release, Some(&of_this_run), cancel).await?.is_some();
                match (ours, there.status.as_str()) {
                    (false, _) => {
                        Err(HelmError::NotOurs { name: there.name, namespace: there.namespace, status: there.status })
                    }
                    (true, "deployed") => Ok(()),
                    (true, _) => {
                        self.uninstall(release.name, release.namespace, cancel).await?;
                        self.install_once(release, cancel).await
                    }
                }
            }
            other => other,
        }
    }

    async fn install_once(&self, release: &Release<'_>, cancel: &CancellationToken) -> Result<(), HelmError> {
        let (labels, timeout) = (format!("{RUN_LABEL}={}", self.run), format!("{}s", INSTALL.as_secs()));
        let mut call = self.call(INSTALL + ASK).args(["install", release.name]).arg(release.chart);
        call = call.args(["--namespace", release.namespace, "--labels", &labels, "--timeout", &timeout]);
        if let Some(values) = release.values {
            call = call.arg("--values").arg(values);
        }
        if release.take_ownership {
            call = call.arg("--take-ownership");
        }
        call.run(&self.programs, cancel).await?;
        Ok(())
    }

    async fn there(
        &self,
        release: &Release<'_>,
        selector: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<Option<Listed>, HelmError> {
        let listed = self.list(&["--namespace", release.namespace], selector, cancel).await?;
        Ok(listed.into_iter().find(|listed| listed.name == release.name))
    }

    async fn list(
        &self,
        scope: &[&str],
        selector: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Listed>, HelmError> {
        let mut call = self.call(ASK).args(["list", "--all"]).args(scope.iter().copied());
        if let Some(selector) = selector {
            call = call.args(["--selector", selector]);
        }
        let listed = call.args(["--output", "json"]).run(&self.programs, cancel).await?;
        serde_json::from_str(&listed.stdout).map_err(HelmError::Strange)
    }

    pub async fn uninstall(&self, name: &str, namespace: &str, cancel: &CancellationToken) -> Result<(), HelmError> {
        self.call(ASK).args(["uninstall", name, "--namespace", namespace]).run(&self.programs, cancel).await?;
        Ok(())
    }

    /// Names and namespaces of the releases that runs made: all of them, or those of one run.
    pub async fn of_runs(
        &self,
        run: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, HelmError> {
        let selector = run.map_or_else(|| RUN_LABEL.to_owned(), |run| format!("{RUN_LABEL}={run}"));
        let listed = self.list(&["--all-namespaces"], Some(&selector), cancel).await?;
        Ok(listed.into_iter().map(|listed| (listed.name, listed.namespace)).collect())
    }

    /// What helm knows of a release, for evidence.
    pub async fn status(&self, name: &str, namespace: &str) -> Result<Output, ChildError> {
        let call = self.call(ASK).args(["status", name, "--namespace", namespace, "--output", "yaml"]);
        call.run(&self.programs, &CancellationToken::new()).await
    }
}

/// Fetches a chart from its OCI reference and unpacks it: the folder of the chart.
pub async fn pull(
    programs: &Programs,
    folder: &Path,
    from: &str,
    name: &str,
    version: &str,
    cancel: &CancellationToken,
) -> Result<PathBuf, HelmError> {
    let into = folder.join("charts").join(format!("{name}-{version}"));
    let failed = |source| HelmError::Folder { path: into.clone(), source };
    if into.exists() {
        fs::remove_dir_all(&into).map_err(failed)?; // half of it may be there
    }
    fs::create_dir_all(&into).map_err(failed)?;
    let call =
        local_call(folder, INSTALL).args(["pull", from, "--version", version, "--untar", "--untardir"]).arg(&into);
    call.run(programs, cancel).await?;
    Ok(into.join(name))
}

/// The images that a chart's pods would run, by rendering it; no cluster is asked.
pub async fn images_of(
    programs: &Programs,
    folder: &Path,
    chart: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<String>, HelmError> {
    let call = local_call(folder, ASK).args(["template", "igc"]).arg(chart);
    let rendered = call.run(programs, cancel).await?.stdout;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered)
        .map_err(|error| HelmError::Rendered { chart: chart.to_owned(), problem: error.to_string() })?;
    let mut images = BTreeSet::new();
    objects.iter().for_each(|object| collect_images(object, &mut images));
    Ok(images.into_iter().collect())
}

fn collect_images(value: &Value, images: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_images(item, images)),
        Value::Object(fields) => {
            for (key, field) in fields {
                let containers =
                    matches!(key.as_str(), "containers" | "initContainers").then(|| field.as_array()).flatten();
                let named = containers.into_iter().flatten().filter_map(|container| container.get("image")?.as_str());
                images.extend(named.map(str::to_owned));
                collect_images(field, images);
            }
        }
        _ => {}
    }
}

/// A call of helm that knows nothing of the user's own.
fn local_call(folder: &Path, deadline: Duration) -> Call {
    let own = folder.join("helm");
    [
        "HELM_NAMESPACE",
        "HELM_KUBECONTEXT",
        "HELM_KUBEAPISERVER",
        "HELM_KUBETOKEN",
        "HELM_DRIVER",
        "HELM_PLUGINS",
        "KUBECONFIG",
    ]
    .into_iter()
    .fold(Call::new("helm").deadline(deadline), Call::without)
    .env("HELM_CACHE_HOME", own.join("cache"))
    .env("HELM_CONFIG_HOME", own.join("config"))
    .env("HELM_DATA_HOME", own.join("data"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::programs::fakes::Fakes;

    const IN_USE: &str = "echo 'Error: INSTALLATION FAILED: cannot re-use a name that is still in use' >&2; exit 1";

    /// Installs a release with a helm of these words: what came of it, and the calls without their common parts.
    async fn install(script: &str) -> (Result<(), String>, Vec<String>) {
        let fakes = Fakes::new().program("helm", script);
        let folder = fakes.path().join("install");
        let helm = Helm::new(&fakes.programs(), &folder, Path::new("/k"), "kind-x", "20261121-120305-k3f9");
        let release = Release {
            name: "redis",
            namespace: "n",
            chart: Path::new("/chart"),
            values: Some(Path::new("/values.yaml")),
            take_ownership: false,
        };
        let came = helm.install(&release, &CancellationToken::new()).await.map_err(|error| error.to_string());
        (
            came,
            fakes.calls().iter().map(|call| call.replace("helm --kubeconfig /k --kube-context kind-x ", "")).collect(),
        )
    }

    #[tokio::test]
    async fn a_release_is_labelled_and_not_waited_for() {
        let (came, calls) = install("[ -n \"$HELM_CACHE_HOME\" ] && [ -z \"$KUBECONFIG$HELM_NAMESPACE\" ]").await;
        assert_eq!(came, Ok(()));
        assert_eq!(
            calls,
            [
                "install redis /chart --namespace n --labels igc.dev/run=20261121-120305-k3f9 --timeout 300s --values /values.yaml"
            ]
        );
    }

    /// A helm with a release in this state, until it is uninstalled.
    fn holding(status: &str, ours: bool) -> String {
        let list = format!(r#"echo '[{{"name":"redis","namespace":"n","status":"{status}"}}]'"#);
        let of_this_run = if ours { &list } else { "echo '[]'" };
        format!(
            r#"case "$*" in *uninstall*) touch "$0.gone";; *--selector*) {of_this_run};; *list*) {list};; *) [ -e "$0.gone" ] || {{ {IN_USE}; }};; esac"#
        )
    }

    #[rstest]
    #[case::of_ours_that_hangs_is_removed_first(holding("pending-install", true), Ok(()), "install list list uninstall install")]
    #[case::of_ours_that_is_deployed_stays(holding("deployed", true), Ok(()), "install list list")]
    #[case::of_others_is_never_touched(
        holding("pending-upgrade", false),
        Err(
            "release redis in namespace n is there already (pending-upgrade), and this run did not make it; uninstall it, or use another cluster"
        ),
        "install list list"
    )]
    #[tokio::test]
    async fn a_release_that_is_there(#[case] script: String, #[case] expected: Result<(), &str>, #[case] called: &str) {
        let (came, calls) = install(&script).await;
        assert_eq!(came, expected.map_err(str::to_owned));
        assert_eq!(calls.iter().map(|call| call.split(' ').next().unwrap()).collect::<Vec<_>>().join(" "), called);
    }

    #[tokio::test]
    async fn helm_is_missing_or_fails() {
        let fakes = Fakes::new();
        let error =
            pull(&fakes.alone(), &fakes.path().join("install"), "oci://x/y", "y", "v1", &CancellationToken::new())
                .await
                .unwrap_err();
        insta::assert_snapshot!(error, @"helm is not on PATH: install Helm 3.13 or newer (https://helm.sh/docs/intro/install)");
        let (came, _) = install("echo 'Error: INSTALLATION FAILED: Kubernetes cluster unreachable' >&2; exit 1").await;
        insta::assert_snapshot!(came.unwrap_err(), @r"
        `helm --kubeconfig /k --kube-context kind-x install redis /chart --namespace n --labels igc.dev/run=20261121-120305-k3f9 --timeout 300s --values /values.yaml` ended with exit status: 1
            Error: INSTALLATION FAILED: Kubernetes cluster unreachable
        ");
    }

    #[tokio::test]
    async fn images_are_read_from_what_a_chart_renders_to() {
        let rendered = "kind: Deployment\nspec: {template: {spec: {containers: [{name: a, image: a/b:1}, {name: b, image: c:2}]}}}\n---\n---\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {initContainers: [{image: c:2}]}}}}}\n---\nkind: ConfigMap\ndata: {image: not/one:1}";
        let fakes = Fakes::new().program("helm", &format!("cat <<'YAML'\n{rendered}\nYAML"));
        let images =
            images_of(&fakes.programs(), fakes.path(), Path::new("/chart"), &CancellationToken::new()).await.unwrap();
        assert_eq!(images, ["a/b:1", "c:2"]);
        assert_eq!(fakes.calls(), ["helm template igc /chart"]);
        let broken = Fakes::new().program("helm", "echo 'a: [1'");
        let error = images_of(&broken.programs(), broken.path(), Path::new("/chart"), &CancellationToken::new())
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("chart /chart does not render to YAML: "), "{error}");
    }

    #[tokio::test]
    async fn a_chart_is_unpacked_into_a_folder_of_its_own() {
        let fakes = Fakes::new().program("helm", "");
        let folder = fakes.path().join("install");
        let half = folder.join("charts/y-v1/y");
        fs::create_dir_all(&half).unwrap();
        let chart = pull(&fakes.programs(), &folder, "oci://x/y", "y", "v1", &CancellationToken::new()).await.unwrap();
        assert_eq!(chart, half);
        assert!(!half.exists(), "what an earlier try left is gone");
        let call = fakes.calls().pop().unwrap().replace(&folder.display().to_string(), "I");
        assert_eq!(call, "helm pull oci://x/y --version v1 --untar --untardir I/charts/y-v1");
    }
}
