//! Profiles: the version of everything in one run, `--set`, and the components that a gateway brings with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;
use serde_json::json;
use verdict::plan::GatewayPlan;

use super::{
    bundle::{Bundle, BundleError},
    component::{Catalogue, Component, DataError, Variables, read, yaml_names},
};
use crate::gateway::GatewayFolder;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub name: String,
    /// What a reader must know about it.
    #[serde(default)]
    pub note: Option<String>,
    pub versions: BTreeMap<String, String>,
}

/// The profile of the versions that goldens were recorded with, which a rehearsal reproduces.
pub const RECORDED: &str = "recorded";

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("--set {0}: write it as COMPONENT=VERSION, for example envoy-gateway=v1.8.3")]
    NotASetting(String),
    #[error("--set {setting}: {unknown}")]
    UnknownComponent { setting: String, unknown: DataError },
    #[error("profile {profile} names no version of {component}; add one, or give --set {component}=VERSION")]
    NoVersion { profile: String, component: String },
}

impl Profile {
    pub fn read(manifests: &Path, name: &str) -> Result<Self, ProfileError> {
        let folder = manifests.join("profiles");
        let known = yaml_names(&folder)?;
        if !known.iter().any(|k| k == name) {
            return Err(DataError::unknown("profile", name, &known).into());
        }
        let path = folder.join(format!("{name}.yaml"));
        let profile: Self = read(&path)?;
        if profile.name != name {
            let problem = format!("name is {:?}, but the file is {name}.yaml", profile.name);
            return Err(DataError::malformed(&path, problem).into());
        }
        Ok(profile)
    }

    /// Changes versions by `--set COMPONENT=VERSION`; the last one of a component counts.
    pub fn set(&mut self, settings: &[String], catalogue: &Catalogue) -> Result<(), ProfileError> {
        for setting in settings {
            let parts = setting.split_once('=').map(|(name, version)| (name.trim(), version.trim()));
            let Some((name, version)) = parts.filter(|(name, version)| !name.is_empty() && !version.is_empty()) else {
                return Err(ProfileError::NotASetting(setting.clone()));
            };
            if !self.versions.contains_key(name) && catalogue.get(name).is_none() {
                let mut known: Vec<&str> =
                    self.versions.keys().map(String::as_str).chain(catalogue.all().map(|c| c.name.as_str())).collect();
                known.sort_unstable();
                known.dedup();
                let unknown = DataError::unknown("component", name, &known);
                return Err(ProfileError::UnknownComponent { setting: setting.clone(), unknown });
            }
            self.versions.insert(name.to_owned(), version.to_owned());
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Selected {
    pub component: Component,
    pub version: String,
}

/// The components of a run: those that were asked for, and what they need.
#[derive(Clone, Debug)]
pub struct Selection {
    pub components: BTreeMap<String, Selected>,
    /// All versions of the profile that count: those of the components, and of the models.
    pub versions: BTreeMap<String, String>,
}

impl Selection {
    /// Selects these components and all that they need, in the versions of the profile.
    pub fn of(catalogue: &Catalogue, profile: &Profile, roots: &[String]) -> Result<Self, ProfileError> {
        let mut components = BTreeMap::new();
        let mut wanted: Vec<String> = roots.to_vec();
        while let Some(name) = wanted.pop() {
            if components.contains_key(&name) {
                continue;
            }
            let Some(component) = catalogue.get(&name) else {
                let known: Vec<&str> = catalogue.all().map(|component| component.name.as_str()).collect();
                return Err(DataError::unknown("component", &name, &known).into());
            };
            let Some(version) = profile.versions.get(&name) else {
                return Err(ProfileError::NoVersion { profile: profile.name.clone(), component: name });
            };
            wanted.extend(component.needs.all().map(|need| need.component.clone()));
            components.insert(name, Selected { component: component.clone(), version: version.clone() });
        }
        let counts = |name: &String| components.contains_key(name) || catalogue.get(name).is_none();
        let mut versions = profile.versions.clone();
        versions.retain(|name, _| counts(name));
        Ok(Self { versions, components })
    }

    pub(super) fn in_bundle(&self, bundle: &Bundle) -> Result<(), BundleError> {
        self.components.values().try_for_each(|selected| self.is_in(bundle, selected))
    }

    fn is_in(&self, bundle: &Bundle, selected: &Selected) -> Result<(), BundleError> {
        let component = &selected.component;
        let charts = component
            .charts
            .iter()
            .map(|chart| &chart.name)
            .chain(component.crds.iter().filter_map(|crds| crds.chart.as_ref()));
        let hinted = |error: BundleError| error.of_component(&component.name);
        for chart in charts {
            bundle.chart(chart, &selected.version).map_err(hinted)?;
        }
        let variables = Variables::of(component, &selected.version, &json!({"versions": self.versions}));
        for folder in component.crds.iter().filter_map(|crds| crds.folder.as_ref()) {
            if let Ok(Some(folder)) = variables.text(folder) {
                bundle.crds(&folder).map_err(hinted)?;
            }
        }
        Ok(())
    }

    /// What a plan says of a gateway in these versions. A bundle that it is installed from must have all of it, but what
    /// single capabilities want: where that is missing, their checks do not run.
    pub fn plan(&self, folder: &GatewayFolder, bundle: Option<&Bundle>) -> Result<GatewayPlan, BundleError> {
        let mut missing = BTreeMap::new();
        for (bundle, selected) in bundle.iter().flat_map(|bundle| self.components.values().map(move |s| (bundle, s))) {
            match (self.is_in(bundle, selected), &selected.component.r#for) {
                (Err(error), wanting) if !wanting.is_empty() => {
                    missing.extend(wanting.iter().map(|capability| (capability.clone(), error.to_string())));
                }
                (complete, _) => complete?,
            }
        }
        let declared = folder.at(&self.versions);
        Ok(GatewayPlan {
            name: folder.name.clone(),
            versions: self.versions.clone(),
            version_of: folder.version_of.clone(),
            capabilities: declared.capabilities,
            unsupported: declared.unsupported,
            changes: declared.changes,
            answers: declared.answers,
            missing,
            stand_ins: bundle.map(|bundle| self.stand_ins(bundle)).unwrap_or_default(),
            left_out: None,
        })
    }

    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.components.values().filter_map(|selected| selected.component.namespace.as_deref()).collect()
    }

    /// Components that a bundle brings a stand-in for, with its own words.
    fn stand_ins(&self, bundle: &Bundle) -> Vec<String> {
        let of = |selected: &Selected| {
            let said =
                selected.component.charts.iter().find_map(|chart| bundle.stand_in(&chart.name, &selected.version))?;
            Some(format!("{} {}: {said}", selected.component.name, selected.version))
        };
        self.components.values().filter_map(of).collect()
    }

    /// Versions that the component's folder was not written for: they are tried, and this is said.
    pub fn untried(&self) -> Vec<String> {
        let untried = self.components.values().filter(|s| !s.component.versions.contains_key(&s.version));
        untried
            .map(|s| {
                let known: Vec<&str> = s.component.versions.keys().map(String::as_str).collect();
                format!(
                    "{} {} is not among the versions that its folder was written for ({})",
                    s.component.name,
                    s.version,
                    known.join(", ")
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;

    use super::*;

    fn manifests() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
    }

    fn current() -> (Catalogue, Profile) {
        (Catalogue::read(&manifests()).unwrap(), Profile::read(&manifests(), "current").unwrap())
    }

    #[test]
    fn every_profile_of_the_project_says_a_version_of_every_component() {
        let (catalogue, _) = current();
        let all: Vec<String> = catalogue.all().map(|component| component.name.clone()).collect();
        for name in yaml_names(&manifests().join("profiles")).unwrap() {
            let profile = Profile::read(&manifests(), &name).unwrap();
            let selection = Selection::of(&catalogue, &profile, &all).unwrap();
            assert_eq!(selection.untried(), Vec::<String>::new(), "profile {name}");
        }
    }

    #[test]
    fn a_component_brings_what_it_needs_and_no_more() {
        let (catalogue, profile) = current();
        let names = |roots: &[&str]| {
            let roots: Vec<String> = roots.iter().map(ToString::to_string).collect();
            Selection::of(&catalogue, &profile, &roots).unwrap().components.into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&["kserve"]), "cert-manager gateway-api kserve");
        assert_eq!(names(&["envoy-gateway"]), "envoy-gateway gateway-api ratelimit redis");
        assert_eq!(
            names(&["envoy-ai-gateway"]),
            "envoy-ai-gateway envoy-gateway gateway-api inference-extension ratelimit redis"
        );
    }

    #[test]
    fn versions_of_components_that_are_left_out_do_not_count() {
        let (catalogue, profile) = current();
        let selection = Selection::of(&catalogue, &profile, &["kserve".to_owned()]).unwrap();
        assert!(selection.versions.contains_key("llm-d-sim"), "a model's version");
        assert!(!selection.versions.contains_key("envoy-ai-gateway"));
    }

    #[test]
    fn a_bundle_may_lack_what_single_capabilities_want() {
        let (catalogue, profile) = current();
        let selection = Selection::of(&catalogue, &profile, &["kserve-llmisvc".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |path: String| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for Selected { component, version } in selection.components.values().filter(|s| s.component.r#for.is_empty()) {
            component.charts.iter().for_each(|chart| write(format!("charts/{}-{version}.tgz", chart.name)));
            let variables = Variables::of(component, version, &json!({}));
            for crds in component.crds.iter().filter_map(|crds| crds.folder.as_ref()) {
                write(format!("crds/{}/a.yaml", variables.text(crds).unwrap().unwrap()));
            }
        }
        let gateway = GatewayFolder::read(&manifests().join("gateways"), "agentgateway").unwrap();
        let plan = || selection.plan(&gateway, Some(&Bundle::open(folder.path()).unwrap()));
        let missing = plan().unwrap().missing;
        assert!(missing["llmisvc"].contains("has no definitions crds/lws/v0.7.0"), "{missing:?}");
        write("crds/lws/v0.7.0/a.yaml".to_owned());
        let missing = plan().unwrap().missing;
        assert!(missing["llmisvc"].contains("has no chart kserve-llmisvc-crd v0.17.0"), "{missing:?}");
        std::fs::remove_file(folder.path().join("charts/kserve-crd-v0.17.0.tgz")).unwrap();
        assert!(
            plan().unwrap_err().to_string().contains("has no chart kserve-crd v0.17.0"),
            "all checks want that one"
        );
    }

    #[test]
    fn components_say_where_they_live() {
        let (catalogue, profile) = current();
        let of = |name: &str| {
            let selection = Selection::of(&catalogue, &profile, &[name.to_owned()]).unwrap();
            selection.namespaces().into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("kserve"), "cert-manager kserve");
        assert_eq!(of("envoy-ai-gateway"), "envoy-ai-gateway-system envoy-gateway-system redis-system");
    }

    #[test]
    fn settings_change_versions() {
        let (catalogue, mut profile) = current();
        let settings = ["envoy-ai-gateway=v1.0.0", "ratelimit = 3fb70258", "kserve=a", "kserve=b"].map(str::to_owned);
        profile.set(&settings, &catalogue).unwrap();
        assert_eq!(
            (profile.versions["envoy-ai-gateway"].as_str(), profile.versions["ratelimit"].as_str()),
            ("v1.0.0", "3fb70258")
        );
        assert_eq!(profile.versions["kserve"], "b");
        let selection = Selection::of(&catalogue, &profile, &["kserve".to_owned()]).unwrap();
        assert_eq!(
            selection.untried(),
            ["kserve b is not among the versions that its folder was written for (v0.17.0)"]
        );
    }

    #[rstest]
    #[case::no_equals("kserve", "--set kserve: write it as COMPONENT=VERSION, for example envoy-gateway=v1.8.3")]
    #[case::no_version("kserve=", "--set kserve=: write it as COMPONENT=VERSION, for example envoy-gateway=v1.8.3")]
    #[case::no_name("=v1", "--set =v1: write it as COMPONENT=VERSION, for example envoy-gateway=v1.8.3")]
    #[case::misspelt("kserv=v1", "--set kserv=v1: no component called 'kserv'; did you mean kserve?; there are: ")]
    fn wrong_settings(#[case] setting: &str, #[case] says: &str) {
        let (catalogue, mut profile) = current();
        let said = profile.set(&[setting.to_owned()], &catalogue).unwrap_err().to_string();
        assert!(said.starts_with(says), "{said}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let (catalogue, mut profile) = current();
        let unknown = Profile::read(&manifests(), "curent").unwrap_err().to_string();
        assert!(
            unknown.starts_with("no profile called 'curent'; did you mean current?; there are: current, "),
            "{unknown}"
        );
        let none = Selection::of(&catalogue, &profile, &["envoy-gatway".to_owned()]).unwrap_err().to_string();
        let says = "no component called 'envoy-gatway'; did you mean envoy-gateway, envoy-ai-gateway?; there are: ";
        assert!(none.starts_with(says), "{none}");
        profile.versions.remove("redis");
        let no_version = Selection::of(&catalogue, &profile, &["envoy-gateway".to_owned()]).unwrap_err();
        insta::assert_snapshot!(no_version, @"profile current names no version of redis; add one, or give --set redis=VERSION");
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("profiles")).unwrap();
        std::fs::write(folder.path().join("profiles/p.yaml"), "name: p\nversion:\n  kserve: v1\n").unwrap();
        let error = Profile::read(folder.path(), "p").unwrap_err().to_string();
        assert!(error.contains("version") && error.contains("line 2") && error.contains("profiles/p.yaml"), "{error}");
    }
}
