//! Components as the folders of `manifests/components` describe them: what each needs, brings, and how it shows that it is ready.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use minijinja::{Environment, UndefinedBehavior};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use verdict::names::{near, suggestion};

use crate::{
    api::{ObjectRef, WaitCondition},
    intents::{self, DocumentError, IntentError},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The cluster's nodes have the images that its first pods need.
    Images,
    /// Its definitions are served.
    Crds,
    /// Its objects are in the cluster.
    Installed,
    /// It does its work.
    Ready,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Crds => "crds",
            Self::Installed => "installed",
            Self::Ready => "ready",
        })
    }
}

/// What is needed of another component, written `redis:ready`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Need {
    pub component: String,
    pub state: State,
}

impl FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (component, state) =
            text.split_once(':').ok_or_else(|| format!("{text:?} is no need; write it like redis:ready"))?;
        let state = match state {
            "images" => State::Images,
            "crds" => State::Crds,
            "installed" => State::Installed,
            "ready" => State::Ready,
            other => return Err(format!("{other:?} is no state; there are images, crds, installed and ready")),
        };
        Ok(Self { component: component.to_owned(), state })
    }
}

impl TryFrom<String> for Need {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Needs {
    /// Before its definitions are applied.
    pub crds: Vec<Need>,
    /// Before its objects are.
    pub installed: Vec<Need>,
    /// Before its readiness is awaited.
    pub ready: Vec<Need>,
}

impl Needs {
    pub fn of(&self, state: State) -> &[Need] {
        match state {
            State::Images => &[],
            State::Crds => &self.crds,
            State::Installed => &self.installed,
            State::Ready => &self.ready,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Need> {
        self.crds.iter().chain(&self.installed).chain(&self.ready)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Crds {
    /// `project/version` under `crds/` of a bundle.
    pub folder: Option<String>,
    /// The same on the internet.
    pub url: Option<String>,
    /// A chart that has them as plain files.
    pub chart: Option<String>,
    /// The chart's OCI reference.
    pub from: Option<String>,
    /// Folder of these files in the chart.
    pub path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Chart {
    /// What it brings: `crds`, `installed`, or `ready` for what the component itself must admit.
    pub state: State,
    pub name: String,
    pub from: String,
    pub release: String,
    /// File of values beside `component.yaml`.
    pub values: Option<String>,
    /// Whether it brings what others have brought before, and is to have it: helm 3.17 and newer can.
    #[serde(default)]
    pub take_ownership: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    pub object: ObjectRef,
    pub until: WaitCondition,
    /// Seconds until that is given up.
    pub seconds: u64,
}

/// A manifest that is offered (dry run) until it is accepted: proof that a webhook is up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub manifest: String,
    pub seconds: u64,
}

/// A text that a field of an object must contain, whatever its blanks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    pub object: ObjectRef,
    /// The field, as a JSON pointer.
    pub field: String,
    /// The text, a template.
    pub contains: String,
    /// The component that this is for; it is not looked at where that one is left out.
    pub r#for: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    pub object: ObjectRef,
    /// What tells its version; absent where nothing does.
    pub version: Option<VersionFrom>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum VersionFrom {
    /// The tag of the image of this name (its last word) in the object's pods; where no image has this name, something
    /// else stands in for the component.
    Image(String),
    Annotation(String),
}

/// About how long its states take, in seconds: what is urgent is done first, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seconds {
    pub crds: f64,
    pub installed: f64,
    pub ready: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Component {
    pub name: String,
    pub title: String,
    pub source: String,
    pub namespace: Option<String>,
    /// The capabilities whose checks alone need it: where none of them runs, it is left out. Without any it is for all.
    #[serde(default)]
    pub r#for: Vec<String>,
    /// Versions that this folder was written for, with what else depends on the version.
    pub versions: BTreeMap<String, BTreeMap<String, String>>,
    /// What it cannot be without: these components are selected with it.
    #[serde(default)]
    pub needs: Needs,
    /// What comes first where it is selected anyway.
    #[serde(default)]
    pub after: Needs,
    /// Definitions that are applied as they are.
    #[serde(default)]
    pub crds: Vec<Crds>,
    #[serde(default)]
    pub charts: Vec<Chart>,
    #[serde(default)]
    pub manifests: Vec<String>,
    /// Images of its first pods.
    #[serde(default)]
    pub images: Vec<String>,
    /// Images of pods that come when it is used.
    #[serde(default)]
    pub images_later: Vec<String>,
    /// Names of definitions without which it is not there.
    #[serde(default)]
    pub definitions: Vec<String>,
    #[serde(default)]
    pub waits: Vec<Wait>,
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// What its configuration must say, after the probes.
    #[serde(default)]
    pub configured: Vec<Configured>,
    pub present: Detection,
    #[serde(default)]
    pub seconds: Seconds,
}

impl Component {
    /// Whether reaching this state means work.
    pub fn has(&self, state: State) -> bool {
        match state {
            State::Images => !self.images.is_empty(),
            State::Crds => !self.crds.is_empty() || self.charts.iter().any(|chart| chart.state == State::Crds),
            State::Installed => {
                !self.manifests.is_empty() || self.charts.iter().any(|chart| chart.state == State::Installed)
            }
            State::Ready => {
                !self.waits.is_empty()
                    || !self.probes.is_empty()
                    || !self.configured.is_empty()
                    || self.charts.iter().any(|chart| chart.state == State::Ready)
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("failed to read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    Malformed {
        path: PathBuf,
        /// What is wrong, with line and column where they are known.
        problem: String,
    },
    #[error("no {kind} called '{name}'{near}; there are: {known}")]
    Unknown {
        /// For example `gateway`.
        kind: &'static str,
        name: String,
        near: String,
        known: String,
    },
    #[error(transparent)]
    Template(#[from] IntentError),
}

impl DataError {
    pub(crate) fn unknown(kind: &'static str, name: &str, known: &[impl AsRef<str>]) -> Self {
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        let near = suggestion(&near(name, known.iter().copied()));
        Self::Unknown { kind, name: name.to_owned(), near, known: known.join(", ") }
    }

    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Unreadable { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, problem: impl fmt::Display) -> Self {
        Self::Malformed { path: path.to_owned(), problem: problem.to_string() }
    }
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let text = fs::read_to_string(path).map_err(DataError::unreadable(path))?;
    serde_saphyr::from_str(&text).map_err(|error| DataError::malformed(path, error))
}

pub(crate) fn folders_with(folder: &Path, file: &str) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::unreadable(folder))? {
        let entry = entry.map_err(DataError::unreadable(folder))?;
        if entry.path().join(file).is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// The names of the YAML files of a folder, without `.yaml`, sorted.
pub(crate) fn yaml_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let files = yaml_files(folder).map_err(DataError::unreadable(folder))?;
    let stem = |path: &PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = files.iter().filter_map(stem).collect();
    names.sort();
    Ok(names)
}

#[derive(Clone, Debug)]
pub struct Catalogue {
    folder: PathBuf,
    components: BTreeMap<String, Component>,
}

impl Catalogue {
    pub fn read(manifests: &Path) -> Result<Self, DataError> {
        let folder = manifests.join("components");
        let mut components = BTreeMap::new();
        for name in folders_with(&folder, "component.yaml")? {
            let path = folder.join(&name).join("component.yaml");
            let component: Component = read(&path)?;
            check(&component, &name).map_err(|problem| DataError::malformed(&path, problem))?;
            components.insert(name, component);
        }
        for component in components.values() {
            let path = folder.join(&component.name).join("component.yaml");
            for need in component.needs.all().chain(component.after.all()) {
                let wrong = |what: String| {
                    DataError::malformed(&path, format!("it needs {}:{}, and {what}", need.component, need.state))
                };
                let Some(other) = components.get(&need.component) else {
                    let near = suggestion(&near(&need.component, components.keys().map(String::as_str)));
                    return Err(wrong(format!("there is no such component{near}")));
                };
                if !other.has(need.state) {
                    return Err(wrong(format!("nothing of {} is ever {}", other.name, need.state)));
                }
            }
        }
        Ok(Self { folder, components })
    }

    pub fn get(&self, name: &str) -> Option<&Component> {
        self.components.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Component> {
        self.components.values()
    }

    pub fn file(&self, component: &str, file: &str) -> PathBuf {
        self.folder.join(component).join(file)
    }
}

fn check(component: &Component, folder: &str) -> Result<(), String> {
    if component.name != folder {
        return Err(format!("name is {:?}, but the folder is {folder:?}", component.name));
    }
    let mut into_namespace = component.charts.iter().map(|chart| &chart.release).chain(&component.manifests);
    if component.namespace.is_none()
        && let Some(what) = into_namespace.next()
    {
        return Err(format!("namespace is not said, and {what} goes into one"));
    }
    for chart in &component.charts {
        if chart.state == State::Images {
            return Err(format!("chart {} has state images; a chart brings crds, installed or ready", chart.name));
        }
    }
    for crds in &component.crds {
        let given = [&crds.folder, &crds.url, &crds.chart, &crds.from, &crds.path].map(Option::is_some);
        if !matches!(given, [true, true, false, false, false] | [false, false, true, true, true]) {
            return Err("crds come from `folder` and `url`, or from `chart`, `from` and `path`".to_owned());
        }
    }
    Ok(())
}

/// What templates of components see: `version`, `known`, `versions`, and what the run gives (`gateway`, `run`).
#[derive(Clone, Debug)]
pub struct Variables(Value);

impl Variables {
    /// Those of one component: its own version, what it knows of that version, and those of the run.
    pub fn of(component: &Component, version: &str, run: &Value) -> Self {
        let mut all = run.clone();
        let known = component.versions.get(version).cloned().unwrap_or_default();
        if let Some(all) = all.as_object_mut() {
            all.insert("version".to_owned(), version.into());
            all.insert("known".to_owned(), serde_json::json!(known));
        }
        Self(all)
    }

    /// Fills a short text of a data file. `None` where it names what is not known of this version.
    pub fn text(&self, template: &str) -> Result<Option<String>, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        match environment.render_str(template, minijinja::value::Serde(&self.0)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == minijinja::ErrorKind::UndefinedError => Ok(None),
            Err(error) => Err(format!("{template:?}: {error}")),
        }
    }

    /// Fills a file whose values go in as JSON.
    pub fn file(&self, path: &Path) -> Result<String, DataError> {
        let template = fs::read_to_string(path).map_err(DataError::unreadable(path))?;
        Ok(intents::fill(path, &template, &self.0)?)
    }

    pub fn objects(&self, path: &Path) -> Result<Vec<Value>, DataError> {
        intents::documents(&self.file(path)?).map_err(|problem: DocumentError| DataError::malformed(path, problem))
    }
}

impl Wait {
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    pub(crate) fn manifests() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
    }

    #[test]
    fn every_component_of_the_project_can_be_read_and_filled() {
        let catalogue = Catalogue::read(&manifests()).unwrap();
        assert!(catalogue.all().count() >= 8);
        let versions: BTreeMap<&str, &String> =
            catalogue.all().map(|c| (c.name.as_str(), c.versions.keys().next_back().unwrap())).collect();
        let run = json!({"versions": versions, "gateway": {"namespace": "igc-gateway", "name": "igc"}, "run": "r"});
        for component in catalogue.all() {
            for version in component.versions.keys() {
                let variables = Variables::of(component, version, &run);
                let texts = component
                    .images
                    .iter()
                    .chain(&component.images_later)
                    .chain(component.configured.iter().map(|c| &c.contains));
                for text in texts.chain(component.crds.iter().filter_map(|crds| crds.folder.as_ref())) {
                    let filled = variables.text(text).unwrap();
                    assert!(filled.is_some_and(|text| !text.contains("{{")), "{} {version}: {text}", component.name);
                }
                for chart in &component.charts {
                    if let Some(values) = &chart.values {
                        let filled = variables.objects(&catalogue.file(&component.name, values)).unwrap();
                        assert_eq!(filled.len(), 1, "{}: values are one mapping", component.name);
                    }
                }
                for file in component.manifests.iter().chain(component.probes.iter().map(|probe| &probe.manifest)) {
                    assert!(!variables.objects(&catalogue.file(&component.name, file)).unwrap().is_empty());
                }
            }
        }
    }

    #[test]
    fn what_a_version_does_not_know_is_left_out() {
        let catalogue = Catalogue::read(&manifests()).unwrap();
        let eg = catalogue.get("envoy-gateway").unwrap();
        let run = json!({"versions": {}});
        let text = &eg.images_later[0];
        assert_eq!(
            Variables::of(eg, "v1.8.3", &run).text(text),
            Ok(Some("docker.io/envoyproxy/envoy:distroless-v1.38.3".into()))
        );
        assert_eq!(Variables::of(eg, "v9.9.9", &run).text(text), Ok(None));
        assert!(Variables::of(eg, "v1.8.3", &run).text("{{ version").is_err());
    }

    fn catalogue(files: &[(&str, &str)]) -> Result<Catalogue, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let own = folder.path().join("components").join(name);
            fs::create_dir_all(&own).unwrap();
            fs::write(own.join("component.yaml"), text).unwrap();
        }
        Catalogue::read(folder.path())
            .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "M"))
    }

    const PRESENT: &str =
        "present: {object: {apiVersion: v1, kind: Service, namespace: a, name: a}, version: {image: a}}\n";

    fn component(name: &str, more: &str) -> String {
        format!("name: {name}\ntitle: T\nsource: S\nversions: {{}}\n{PRESENT}{more}")
    }

    #[rstest]
    #[case::misspelt_key(component("a", "wiats: []\n"), "M/components/a/component.yaml: ", "wiats")]
    #[case::other_name(component("b", ""), "", r#"name is "b", but the folder is "a""#)]
    #[case::no_state(component("a", "needs: {ready: [b]}\n"), "", r#""b" is no need; write it like redis:ready"#)]
    #[case::strange_state(
        component("a", "needs: {ready: ['b:up']}\n"),
        "",
        r#""up" is no state; there are images, crds, installed and ready"#
    )]
    #[case::unknown_need(
        component("a", "needs: {ready: ['redi:ready']}\n"),
        "",
        "it needs redi:ready, and there is no such component; did you mean redis?"
    )]
    #[case::never_so_far(
        component("a", "needs: {ready: ['redis:crds']}\n"),
        "",
        "it needs redis:crds, and nothing of redis is ever crds"
    )]
    #[case::no_namespace(
        component("a", "manifests: [x.yaml]\n"),
        "",
        "namespace is not said, and x.yaml goes into one"
    )]
    #[case::chart_state(
        component("a", "namespace: n\ncharts: [{state: images, name: c, from: oci, release: r}]\n"),
        "",
        "chart c has state images; a chart brings crds, installed or ready"
    )]
    #[case::crds_from_nowhere(
        component("a", "crds: [{folder: x}]\n"),
        "",
        "crds come from `folder` and `url`, or from `chart`, `from` and `path`"
    )]
    fn wrong_data(#[case] text: String, #[case] begins: &str, #[case] says: &str) {
        let said = catalogue(&[("a", &text), ("redis", &component("redis", ""))]).unwrap_err();
        assert!(said.starts_with(begins) && said.contains(says), "{said}");
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line() {
        let said = catalogue(&[("a", &component("a", "wiats: []\n"))]).unwrap_err();
        assert!(said.contains("line 6"), "{said}");
    }
}
