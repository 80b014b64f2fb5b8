//! The work of single nodes: a cluster, charts, images, definitions, objects, readiness.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, try_join_all},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use verdict::history::Admission;

use super::{
    bundle::Archive,
    component::{Catalogue, Chart, Configured, Crds, Probe, State, Variables, yaml_files},
    failure::Cause,
    nodes::Work,
    presence::{self, Presence},
    profile::Selected,
    progress::{InstallEvent, Progress},
    request::{InstallMissing, Request, Site},
};
use crate::{
    api::{Apply, Backoff, Cluster, Deadline, ObjectRef, WaitCondition},
    intents,
    programs::{
        child::{Call, Programs},
        engine::full_name,
        helm::{self, Helm, Release},
        kind::KindCluster,
    },
};

/// How long an API server may take to answer after it was made.
const CONNECT: Duration = Duration::from_secs(60);
/// How long applying goes on while the API server or a webhook is not up.
const PATIENCE: Duration = Duration::from_secs(60);
const ESTABLISHED: Duration = Duration::from_secs(60);
/// How long a field that is written at installation may take to be there.
const CONFIGURED: Duration = Duration::from_secs(10);

pub(crate) struct Worker {
    pub(crate) request: Request,
    pub(crate) catalogue: Catalogue,
    pub(crate) run: Value,
    pub(crate) programs: Programs,
    pub(crate) archives: Vec<Archive>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) cluster: OnceLock<Cluster>,
    pub(crate) kind: OnceLock<KindCluster>,
    charts: Mutex<BTreeMap<String, PathBuf>>,
    /// Components that were there before.
    found: Mutex<BTreeMap<String, Presence>>,
}

impl Worker {
    pub(crate) fn new(
        request: Request,
        catalogue: Catalogue,
        run: Value,
        archives: Vec<Archive>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            programs: request.programs.clone().recorded_in(&request.run_folder),
            request,
            catalogue,
            run,
            archives,
            progress,
            cluster: OnceLock::new(),
            kind: OnceLock::new(),
            charts: Mutex::default(),
            found: Mutex::default(),
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.request.run_folder.join("install")
    }

    fn note(&self, node: &str, text: &str) {
        self.progress.say(InstallEvent::Note { node: Some(node), text });
    }

    pub(crate) fn found(&self) -> BTreeMap<String, Presence> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does the work of a node; ends soon after `stop` fires.
    pub(crate) async fn work(&self, node: &str, work: &Work, stop: &CancellationToken) -> Result<(), Cause> {
        match work {
            Work::Cluster => self.make_cluster(node, stop).await,
            Work::Fetch { name, from, version } => {
                let chart = helm::pull(&self.programs, &self.folder(), from, name, version, stop).await?;
                self.charts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), chart);
                Ok(())
            }
            Work::Images(images) => self.load(node, images, stop).await,
            Work::Reach(component, state) => {
                let selected = self.request.selection.components.get(component);
                let selected = selected.ok_or_else(|| Cause::Other(format!("{component} is not selected")))?;
                match state {
                    State::Images => Ok(()),
                    State::Crds | State::Installed if self.found().contains_key(component) => Ok(()),
                    State::Crds => self.crds(selected, stop).await,
                    State::Installed => self.install(selected, stop).await,
                    State::Ready => unless_stopped(stop, self.ready(node, selected, stop)).await,
                }
            }
            Work::Extra => Ok(()),
        }
    }

    async fn make_cluster(&self, node: &str, stop: &CancellationToken) -> Result<(), Cause> {
        let cluster = match &self.request.site {
            Site::Kind { kind, request } => {
                let made = kind.create(request, stop).await?;
                // Said at once, so that it is deleted whatever comes next.
                let made = self.kind.get_or_init(|| made);
                unless_stopped(stop, connect(made)).await?
            }
            Site::Context { kubeconfig, context, .. } => {
                unless_stopped(stop, async { Ok(Cluster::connect(kubeconfig, Some(context)).await?) }).await?
            }
        };
        let cluster = self.cluster.get_or_init(|| cluster);
        if let Site::Context { install_missing, .. } = &self.request.site {
            unless_stopped(stop, self.look_around(node, cluster, *install_missing)).await?;
        }
        Ok(())
    }

    /// What a cluster that was there before has of the selection.
    async fn look_around(&self, node: &str, cluster: &Cluster, install_missing: InstallMissing) -> Result<(), Cause> {
        let mut missing = Vec::new();
        for (name, presence) in presence::detect(cluster, &self.request.selection).await? {
            let Some(presence) = presence else {
                // What has nothing of its own to install comes with another.
                let selected = &self.request.selection.components[&name];
                if selected.component.has(State::Crds) || selected.component.has(State::Installed) {
                    missing.push(format!("{name} (there is no {})", selected.component.present.object));
                }
                continue;
            };
            let planned = &self.request.selection.components[&name].version;
            let version = presence.version.as_deref();
            if version.is_some_and(|version| !planned.starts_with(version) && !version.starts_with(planned)) {
                self.note(node, &format!("{name} is there as {}, planned was {planned}", version.unwrap_or_default()));
            }
            if let Some(image) = &presence.stand_in {
                self.note(node, &format!("{name} is a stand-in: {image} runs in its place"));
            }
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name, presence);
        }
        match install_missing {
            InstallMissing::No if !missing.is_empty() => Err(Cause::NotThere(missing)),
            _ => Ok(()),
        }
    }

    async fn load(&self, node: &str, images: &[String], stop: &CancellationToken) -> Result<(), Cause> {
        let (Site::Kind { kind, .. }, Some(cluster)) = (&self.request.site, self.kind.get()) else { return Ok(()) };
        let mut missing = Vec::new();
        for absent in kind.load(&cluster.name, images, stop).await? {
            match self.archives.iter().find(|archive| archive.images.contains(&full_name(&absent.image))) {
                Some(archive) => kind.load_archive(&cluster.name, &archive.path, stop).await?,
                None => missing.push(absent.to_string()),
            }
        }
        if !missing.is_empty() {
            self.note(node, &format!("not in the engine, so the nodes have to fetch them: {}", missing.join(", ")));
        }
        Ok(())
    }

    fn cluster(&self) -> Result<&Cluster, Cause> {
        self.cluster.get().ok_or_else(|| Cause::Other("there is no cluster yet".to_owned()))
    }

    pub(crate) fn helm(&self) -> Option<Helm> {
        let (kubeconfig, context) = match (&self.request.site, self.kind.get()) {
            (_, Some(made)) => (&made.kubeconfig, &made.context),
            (Site::Context { kubeconfig, context, .. }, None) => (kubeconfig, context),
            (Site::Kind { .. }, None) => return None,
        };
        Some(Helm::new(&self.programs, &self.folder(), kubeconfig, context, &self.request.run.to_string()))
    }

    fn variables(&self, selected: &Selected) -> Variables {
        Variables::of(&selected.component, &selected.version, &self.run)
    }

    fn chart(&self, name: &str, version: &str) -> Result<PathBuf, Cause> {
        if let Some(bundle) = &self.request.bundle {
            return Ok(bundle.chart(name, version)?);
        }
        let charts = self.charts.lock().unwrap_or_else(PoisonError::into_inner);
        charts.get(name).cloned().ok_or_else(|| Cause::Other(format!("chart {name} was not fetched")))
    }

    async fn crds(&self, selected: &Selected, stop: &CancellationToken) -> Result<(), Cause> {
        if matches!(self.request.site, Site::Context { .. }) && unless_stopped(stop, self.are_there(selected)).await? {
            return Ok(()); // somebody's, and maybe newer
        }
        let mut objects: Vec<Value> = Vec::new();
        for crds in &selected.component.crds {
            for file in self.files_of(selected, crds, stop).await? {
                let text = fs::read_to_string(&file).map_err(|source| Cause::File { path: file.clone(), source })?;
                let read = intents::documents(&text)
                    .map_err(|problem| Cause::Other(format!("{}: {problem}", file.display())))?;
                objects.extend(read);
            }
        }
        let run = self.request.run.to_string();
        let apply = Apply::of_run(&run).patient(PATIENCE);
        unless_stopped(stop, async { Ok(self.cluster()?.apply_all(&objects, apply).await?) }).await?;
        self.charts_of(selected, State::Crds, stop).await?;
        let served: Vec<BoxFuture<'_, Result<(), Cause>>> =
            selected.component.definitions.iter().map(|name| self.is_served(name).boxed()).collect();
        unless_stopped(stop, async { try_join_all(served).await.map(|_| ()) }).await
    }

    /// Whether a cluster that was there before has the definitions of a component.
    async fn are_there(&self, selected: &Selected) -> Result<bool, Cause> {
        for name in &selected.component.definitions {
            if self.cluster()?.get(&definition(name)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(!selected.component.definitions.is_empty())
    }

    async fn is_served(&self, name: &str) -> Result<(), Cause> {
        let established = WaitCondition::ConditionTrue("Established".to_owned());
        self.cluster()?.wait(&definition(name), established, ESTABLISHED).await?;
        Ok(())
    }

    async fn files_of(
        &self,
        selected: &Selected,
        crds: &Crds,
        stop: &CancellationToken,
    ) -> Result<Vec<PathBuf>, Cause> {
        let variables = self.variables(selected);
        let fill = |text: &str| -> Result<String, Cause> {
            let filled = variables.text(text).map_err(Cause::Other)?;
            filled.ok_or_else(|| Cause::Other(format!("{text} is not known of version {}", selected.version)))
        };
        match (crds, &self.request.bundle) {
            (Crds { chart: Some(chart), path: Some(path), .. }, _) => {
                let folder = self.chart(chart, &selected.version)?;
                let folder = self.unpacked(&folder, chart, stop).await?.join(path);
                yaml_files(&folder).map_err(|source| Cause::File { path: folder, source })
            }
            (Crds { folder: Some(folder), .. }, Some(bundle)) => Ok(bundle.crds(&fill(folder)?)?),
            (Crds { url: Some(url), .. }, None) => {
                let file = self.folder().join(format!("{}.yaml", selected.component.name));
                fs::create_dir_all(self.folder()).map_err(|source| Cause::File { path: self.folder(), source })?;
                let curl = Call::new("curl").args(["--fail", "--silent", "--show-error", "--location"]);
                let curl = curl.args(["--retry", "2", "--max-time", "60", "--output"]);
                curl.arg(&file).arg(fill(url)?).deadline(Duration::from_secs(200)).run(&self.programs, stop).await?;
                Ok(vec![file])
            }
            _ => Err(Cause::Other("crds come from `folder` and `url`, or from `chart`, `from` and `path`".to_owned())),
        }
    }

    /// A chart as a folder; an archive of a bundle is unpacked into the run's.
    async fn unpacked(&self, chart: &Path, name: &str, stop: &CancellationToken) -> Result<PathBuf, Cause> {
        if chart.is_dir() {
            return Ok(chart.to_owned());
        }
        let into = self.folder().join("unpacked");
        fs::create_dir_all(&into).map_err(|source| Cause::File { path: into.clone(), source })?;
        Call::new("tar").arg("-xzf").arg(chart).arg("-C").arg(&into).run(&self.programs, stop).await?;
        Ok(into.join(name))
    }

    async fn charts_of(&self, selected: &Selected, state: State, stop: &CancellationToken) -> Result<(), Cause> {
        for chart in selected.component.charts.iter().filter(|chart| chart.state == state) {
            self.install_chart(selected, chart, stop).await?;
        }
        Ok(())
    }

    async fn install_chart(&self, selected: &Selected, chart: &Chart, stop: &CancellationToken) -> Result<(), Cause> {
        let namespace = selected.component.namespace.as_deref().unwrap_or("default");
        unless_stopped(stop, self.namespace(namespace)).await?;
        let values = match &chart.values {
            None => None,
            Some(file) => {
                let text = self.variables(selected).file(&self.catalogue.file(&selected.component.name, file))?;
                let path = self.folder().join(format!("{}-{}", chart.release, file));
                fs::create_dir_all(self.folder())
                    .and_then(|()| fs::write(&path, text))
                    .map_err(|source| Cause::File { path: path.clone(), source })?;
                Some(path)
            }
        };
        let folder = self.chart(&chart.name, &selected.version)?;
        let release = Release {
            name: &chart.release,
            namespace,
            chart: &folder,
            values: values.as_deref(),
            take_ownership: chart.take_ownership,
        };
        let helm = self.helm().ok_or_else(|| Cause::Other("there is no cluster yet".to_owned()))?;
        Ok(helm.install(&release, stop).await?)
    }

    /// Makes a namespace, unless it is there: labels of ours on a namespace of others would have it swept away.
    async fn namespace(&self, name: &str) -> Result<(), Cause> {
        let cluster = self.cluster()?;
        let namespace = ObjectRef::global("v1", "Namespace", name);
        if cluster.get(&namespace).await?.is_none() {
            let manifest = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            cluster.apply(&manifest, Apply::of_run(&self.request.run.to_string()).patient(PATIENCE)).await?;
        }
        Ok(())
    }

    async fn install(&self, selected: &Selected, stop: &CancellationToken) -> Result<(), Cause> {
        self.charts_of(selected, State::Installed, stop).await?;
        let Some(namespace) = &selected.component.namespace else { return Ok(()) };
        let run = self.request.run.to_string();
        for file in &selected.component.manifests {
            let objects = self.variables(selected).objects(&self.catalogue.file(&selected.component.name, file))?;
            unless_stopped(stop, async {
                self.namespace(namespace).await?;
                self.cluster()?
                    .apply_all(&objects, Apply::of_run(&run).in_namespace(namespace).patient(PATIENCE))
                    .await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn ready(&self, node: &str, selected: &Selected, stop: &CancellationToken) -> Result<(), Cause> {
        let cluster = self.cluster()?;
        for definition in &selected.component.definitions {
            self.is_served(definition).await?;
        }
        for wait in &selected.component.waits {
            cluster.wait(&wait.object, wait.until.clone(), wait.patience()).await?;
        }
        for probe in &selected.component.probes {
            self.offer(node, cluster, selected, probe).await?;
        }
        if !self.found().contains_key(&selected.component.name) {
            self.charts_of(selected, State::Ready, stop).await?;
        }
        for configured in &selected.component.configured {
            let counts =
                configured.r#for.as_ref().is_none_or(|other| self.request.selection.components.contains_key(other));
            if counts {
                self.is_configured(cluster, selected, configured).await?;
            }
        }
        Ok(())
    }

    /// Offers a manifest until it is accepted: until then webhooks, or what they need, are not up.
    async fn offer(&self, node: &str, cluster: &Cluster, selected: &Selected, probe: &Probe) -> Result<(), Cause> {
        let manifests =
            self.variables(selected).objects(&self.catalogue.file(&selected.component.name, &probe.manifest))?;
        let deadline = Deadline::within(Duration::from_secs(probe.seconds));
        for manifest in &manifests {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            loop {
                match cluster.dry_run(manifest).await {
                    Ok(Admission::Accepted { .. }) => break,
                    Ok(Admission::Refused { message, .. }) => {
                        let object = ObjectRef::of(manifest)
                            .map_err(|missing| Cause::Other(format!("{} lacks {missing}", probe.manifest)))?;
                        return Err(Cause::Refused { object, message });
                    }
                    // Somebody with few rights, as a Job of ours is, looks at what others have installed.
                    Err(failure) if failure.lacks_rights() && matches!(self.request.site, Site::Context { .. }) => {
                        self.note(node, &format!("whether its webhooks answer was not asked: {}", failure.kind));
                        break;
                    }
                    Err(failure) if !backoff.pause(deadline).await => return Err(failure.into()),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    async fn is_configured(
        &self,
        cluster: &Cluster,
        selected: &Selected,
        configured: &Configured,
    ) -> Result<(), Cause> {
        let wanted = self.variables(selected).text(&configured.contains).map_err(Cause::Other)?;
        let wanted =
            wanted.ok_or_else(|| Cause::Other(format!("{:?} names what is not given", configured.contains)))?;
        let (field, bare) = (configured.field.clone(), without_blanks(&wanted));
        let contains = WaitCondition::holds(&format!("{field} contains {wanted}"), move |object| {
            object.pointer(&field).and_then(Value::as_str).is_some_and(|text| without_blanks(text).contains(&bare))
        });
        cluster.wait(&configured.object, contains, CONFIGURED).await?;
        Ok(())
    }
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

fn definition(name: &str) -> ObjectRef {
    ObjectRef::global("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
}

/// Connects to a kind cluster whose API server may only just be starting.
async fn connect(made: &KindCluster) -> Result<Cluster, Cause> {
    let (deadline, mut backoff) = (Deadline::within(CONNECT), Backoff::default());
    loop {
        match Cluster::connect(&made.kubeconfig, Some(&made.context)).await {
            Ok(cluster) => return Ok(cluster),
            Err(error) if error.is_usage() || deadline.passed() => return Err(error.into()),
            Err(_) => _ = backoff.pause(deadline).await,
        }
    }
}

/// A future, unless the run is over before: what runs no program is simply left.
pub(crate) async fn unless_stopped<T>(
    stop: &CancellationToken,
    future: impl Future<Output = Result<T, Cause>>,
) -> Result<T, Cause> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Cause::Stopped),
        done = future => done,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;
    use crate::{
        install::{
            bundle::Bundle,
            profile::{Profile, Selection},
            progress::Silent,
        },
        programs::fakes::Fakes,
    };

    fn worker(fakes: &Fakes, folder: &Path, bundle: Option<Bundle>) -> Worker {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
        let catalogue = Catalogue::read(&manifests).unwrap();
        let profile = Profile::read(&manifests, "current").unwrap();
        let selection = Selection::of(&catalogue, &profile, &["envoy-gateway".to_owned()]).unwrap();
        let run = json!({"versions": selection.versions});
        let site =
            Site::Context { kubeconfig: "/k".into(), context: "c".to_owned(), install_missing: InstallMissing::Yes };
        let request = Request {
            run: "20261121-120305-k3f9".parse().unwrap(),
            run_folder: folder.to_owned(),
            manifests,
            selection,
            gateway: json!({}),
            bundle,
            site,
            more_images: vec![],
            programs: fakes.programs(),
        };
        Worker::new(request, catalogue, run, vec![], Arc::new(Silent))
    }

    async fn files(worker: &Worker, component: &str) -> Result<Vec<String>, String> {
        let selected = &worker.request.selection.components[component];
        let files = worker.files_of(selected, &selected.component.crds[0], &CancellationToken::new()).await;
        let files = files.map_err(|error| error.to_string())?;
        Ok(files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    #[tokio::test]
    async fn definitions_come_from_the_internet_where_there_is_no_bundle() {
        let run = tempfile::tempdir().unwrap();
        let fakes = Fakes::new().program("curl", "");
        assert_eq!(files(&worker(&fakes, run.path(), None), "gateway-api").await.unwrap(), ["gateway-api.yaml"]);
        let call = fakes.calls().pop().unwrap();
        let url = "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.5.1/standard-install.yaml";
        assert!(call.ends_with(&format!("/install/gateway-api.yaml {url}")) && call.contains("--fail"), "{call}");

        let refused =
            Fakes::new().program("curl", "echo 'curl: (22) The requested URL returned error: 404' >&2; exit 22");
        let said = files(&worker(&refused, run.path(), None), "gateway-api").await.unwrap_err();
        assert!(said.contains(url) && said.contains("error: 404"), "{said}");
    }

    #[tokio::test]
    async fn definitions_in_a_chart_are_found_in_an_archive_of_a_bundle() {
        let (run, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let crds = folder.path().join("gateway-helm/charts/crds/crds/generated");
        fs::create_dir_all(&crds).unwrap();
        fs::write(crds.join("b.yaml"), "").unwrap();
        fs::write(crds.join("a.yaml"), "").unwrap();
        fs::write(crds.join("README.md"), "").unwrap();
        for part in ["charts", "crds"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let archive = folder.path().join("charts/gateway-helm-v1.8.3.tgz");
        let packed =
            Command::new("tar").arg("-czf").arg(archive).arg("-C").arg(folder.path()).arg("gateway-helm").status();
        assert!(packed.unwrap().success());
        let worker = worker(&Fakes::new(), run.path(), Some(Bundle::open(folder.path()).unwrap()));
        assert_eq!(files(&worker, "envoy-gateway").await.unwrap(), ["a.yaml", "b.yaml"]);
        assert!(
            files(&worker, "gateway-api")
                .await
                .unwrap_err()
                .contains("has no definitions crds/gateway-api/v1.5.1-standard")
        );
    }
}
