//! A gateway's folder: what it is installed from, what it declares, and how its shared Gateway is found.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use verdict::{
    baseline::Versions,
    capability::{self, Capability, Declared, Problem},
    change::{Answer, Change},
    names::{near, suggestion},
    render::Implementation,
};

use crate::install::{
    component::{DataError, folders_with},
    model,
};

/// `gateway.yaml` of a folder under `manifests/gateways`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GatewayFolder {
    pub name: String,
    pub title: String,
    /// Who makes it, as ConformanceReports say it.
    pub implementation: Implementation,
    /// The component whose version is the gateway's.
    pub version_of: String,
    /// Roots of the install graph.
    pub components: Vec<String>,
    pub gateway: SharedGateway,
    /// Capability -> parameters.
    pub capabilities: Declared,
    /// Capability that it lacks -> why, with the source.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
    /// What it changes of requests and replies, besides what any intermediary may.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What it answers itself.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// What differs from these, by version: every entry whose range holds, one after the other.
    #[serde(default)]
    pub by_version: Vec<ByVersion>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ByVersion {
    /// The component whose version is meant; left out the gateway's own.
    pub component: Option<String>,
    /// In the notation of baseline entries: `">=1.2, <1.5"`.
    pub versions: Versions,
    #[serde(default)]
    pub capabilities: Declared,
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
    #[serde(default)]
    pub changes: Vec<Change>,
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// What a gateway declares in the versions of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    pub capabilities: Declared,
    pub unsupported: BTreeMap<String, String>,
    pub changes: Vec<Change>,
    pub answers: Vec<Answer>,
}

impl Resolved {
    fn differs(&mut self, entry: &ByVersion) {
        for (capability, parameters) in &entry.capabilities {
            self.unsupported.remove(capability);
            self.capabilities.entry(capability.clone()).or_default().extend(parameters.clone());
        }
        for (capability, reason) in &entry.unsupported {
            self.capabilities.remove(capability);
            self.unsupported.insert(capability.clone(), reason.clone());
        }
        self.changes.extend(entry.changes.iter().cloned());
        self.answers.extend(entry.answers.iter().cloned());
    }

    /// Every capability and parameter is one that there is, and none is both declared and lacking.
    fn check(&self, models: &[String]) -> Result<(), Problem> {
        capability::check(&self.capabilities)?;
        for (name, parameters) in &self.capabilities {
            let model = parameters.get("model").and_then(Value::as_str);
            if let Some(model) = model.filter(|model| !models.iter().any(|known| known == model)) {
                let near = suggestion(&near(model, models.iter().map(String::as_str)));
                let problem = format!("there is no model called {model}{near}");
                return Err(Problem { path: vec![name.clone(), "model".into()], problem });
            }
        }
        for name in self.unsupported.keys() {
            if Capability::named(name).is_none() {
                return Err(capability::unknown(name));
            }
            if self.capabilities.contains_key(name) {
                let problem = "it is declared, and unsupported; remove one of them".to_owned();
                return Err(Problem { path: vec![name.clone()], problem });
            }
        }
        let of_changes = self.changes.iter().find_map(Change::problem).map(|problem| ("changes", problem));
        let of_answers = self.answers.iter().find_map(Answer::problem).map(|problem| ("answers", problem));
        if let Some((list, problem)) = of_changes.or(of_answers) {
            return Err(Problem { path: vec![list.to_owned()], problem });
        }
        Ok(())
    }
}

/// The Gateway that the checks of a run share, as intents see it too (as `gateway`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct SharedGateway {
    pub namespace: String,
    pub name: String,
    pub listener: String,
    pub port: u16,
    pub node_port: u16,
    /// `controllerName` in statuses that count.
    pub controller: String,
    pub service_labels: BTreeMap<String, String>,
    /// What must be there before it is made, as `component:state`.
    pub needs: Vec<String>,
    pub intents: Vec<String>,
    pub marker: Marker,
}

/// The route whose answer proves the whole path live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    pub hostname: String,
    pub model: String,
}

impl SharedGateway {
    /// The same under another name: the labels that name it follow.
    pub fn named(&self, namespace: &str, name: &str) -> Self {
        let mut named = Self { namespace: namespace.to_owned(), name: name.to_owned(), ..self.clone() };
        for value in named.service_labels.values_mut() {
            if *value == self.name {
                name.clone_into(value);
            } else if *value == self.namespace {
                namespace.clone_into(value);
            }
        }
        named
    }
}

impl GatewayFolder {
    pub fn read(gateways: &Path, name: &str) -> Result<Self, DataError> {
        let known = names(gateways)?;
        if !known.iter().any(|k| k == name) {
            return Err(DataError::unknown("gateway", name, &known));
        }
        let path = gateways.join(name).join("gateway.yaml");
        let text = fs::read_to_string(&path).map_err(DataError::unreadable(&path))?;
        let folder: Self = serde_saphyr::from_str(&text).map_err(|error| DataError::malformed(&path, error))?;
        if folder.name != name {
            let problem = format!("name is '{}', but the folder is '{name}'", folder.name);
            return Err(DataError::malformed(&path, problem));
        }
        let models = model::names(gateways.parent().unwrap_or(gateways))?;
        folder.check(&models).map_err(|problem| {
            let line = line_of(&text, &problem.path).map_or(String::new(), |line| format!(" line {line}"));
            DataError::malformed(&path, format!("failed to accept{line}: {problem}"))
        })?;
        Ok(folder)
    }

    fn declared(&self) -> Resolved {
        Resolved {
            capabilities: self.capabilities.clone(),
            unsupported: self.unsupported.clone(),
            changes: self.changes.clone(),
            answers: self.answers.clone(),
        }
    }

    pub fn at(&self, versions: &BTreeMap<String, String>) -> Resolved {
        let mut resolved = self.declared();
        for entry in &self.by_version {
            let component = entry.component.as_ref().unwrap_or(&self.version_of);
            if versions.get(component).is_some_and(|version| entry.versions.contain(version)) {
                resolved.differs(entry);
            }
        }
        resolved
    }

    /// What is declared is known, in every range of versions, whether a run is in it or not.
    fn check(&self, models: &[String]) -> Result<(), Problem> {
        self.declared().check(models)?;
        for entry in &self.by_version {
            let mut resolved = self.declared();
            resolved.differs(entry);
            resolved.check(models)?;
            let component = entry.component.as_ref().unwrap_or(&self.version_of);
            if !self.components.contains(component) {
                let problem = format!("the gateway has no component {component}, whose version is meant");
                return Err(Problem { path: vec!["by-version".into()], problem });
            }
        }
        Ok(())
    }
}

/// The line where the keys of a path are written, one after the other; of a key that is not written out (an alias) that of
/// the key before it. Counted from 1.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let mut at = None;
    let mut rest = text;
    for key in path {
        let is_key = |i: usize| {
            let before = rest[..i].chars().next_back();
            let after = rest[i + key.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '-') && matches!(after, Some(':'))
        };
        let Some((found, _)) = rest.match_indices(key.as_str()).find(|(i, _)| is_key(*i)) else { break };
        let offset = text.len() - rest.len() + found;
        at = Some(text[..offset].matches('\n').count() + 1);
        rest = &text[offset + key.len()..];
    }
    at
}

pub fn names(gateways: &Path) -> Result<Vec<String>, DataError> {
    folders_with(gateways, "gateway.yaml")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn gateways() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/gateways")
    }

    #[test]
    fn every_folder_of_the_project_can_be_read() {
        let names = names(&gateways()).unwrap();
        assert!(!names.is_empty());
        for name in names {
            let folder = GatewayFolder::read(&gateways(), &name).unwrap();
            for intent in &folder.gateway.intents {
                let own = gateways().join(&name).join("intents").join(format!("{intent}.yaml"));
                let common = gateways().join("../intents").join(format!("{intent}.yaml"));
                assert!(own.is_file() || common.is_file(), "{name} names an intent that is not there: {intent}");
            }
        }
    }

    #[test]
    fn an_unknown_gateway_is_told_what_there_is() {
        let error = GatewayFolder::read(&gateways(), "envoy-ai-gatway").unwrap_err().to_string();
        assert!(error.contains("did you mean envoy-ai-gateway?"), "{error}");
    }

    fn read_changed(changed: &str, by: &str) -> Result<GatewayFolder, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(gateways().join("agentgateway/gateway.yaml")).unwrap();
        assert!(text.contains(changed), "the row replaces nothing");
        let own = folder.path().join("gateways/agentgateway");
        fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(gateways().join("../models"), folder.path().join("models")).unwrap();
        fs::write(own.join("gateway.yaml"), text.replacen(changed, by, 1)).unwrap();
        GatewayFolder::read(&folder.path().join("gateways"), "agentgateway")
    }

    #[rstest]
    #[case::model("model: echo", "model: ecco", "token-limit.model: there is no model called ecco; did you mean echo?")]
    #[case::capability("  host-route:", "  hots-route:", "no capability called `hots-route`; did you mean host-route")]
    #[case::parameter("window-seconds:", "window-secnds:", "did you mean window-seconds?")]
    #[case::deep(
        "{status: 404, content-type: text/plain, body:",
        "{status: 404, content-typ: text/plain, body:",
        "did you mean content-type?"
    )]
    #[case::lacking("  token-limit-per-user:", "  tokn-limit-per-user:", "did you mean token-limit-per-user")]
    #[case::both("  token-limit-per-user:", "  token-limit:", "it is declared, and unsupported")]
    #[case::in_a_range("    model-pool-route: ai", "    model-pol-route: ai", "did you mean model-pool-route")]
    #[case::every_header(
        "changes:\n",
        "changes:\n- {direction: reply, header: '*', rule: add, source: s}\n",
        "matches every name"
    )]
    #[case::any_answer("answers:\n", "answers:\n- {status: 500, body: '.*', source: s}\n", "matches everything")]
    #[case::range("versions: \"<1.3\"", "versions: old", "no range of versions")]
    #[case::component("by-version:", "by-version:\n- {component: nobody, versions: \"*\"}", "no component nobody")]
    fn what_is_declared_is_known(#[case] changed: &str, #[case] by: &str, #[case] said: &str) {
        let error = read_changed(changed, by).expect_err("it is wrong").to_string();
        assert!(error.contains(said) && error.contains("line ") || error.contains("no component"), "{error}");
    }

    #[test]
    fn the_line_of_what_is_wrong_is_named() {
        let text = fs::read_to_string(gateways().join("agentgateway/gateway.yaml")).unwrap();
        let line = text.lines().position(|line| line.contains("window-seconds:")).unwrap() + 1;
        let error = read_changed("window-seconds:", "window-secnds:").unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}:")), "{error}");
    }

    #[rstest]
    #[case::older("v1.2.1", false)]
    #[case::first("v1.3.0", true)]
    #[case::newer("v1.4.1", true)]
    fn what_is_declared_may_differ_by_version(#[case] version: &str, #[case] has: bool) {
        let folder = GatewayFolder::read(&gateways(), "agentgateway").unwrap();
        let resolved = folder.at(&[("agentgateway".to_owned(), version.to_owned())].into());
        assert_eq!(resolved.capabilities.contains_key("model-pool-route"), has);
        assert_eq!(resolved.unsupported.contains_key("model-pool-route"), !has);
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("g");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("gateway.yaml"), "name: g\ntitel: G\n").unwrap();
        let error = GatewayFolder::read(folder.path(), "g").unwrap_err().to_string();
        assert!(error.contains("titel") && error.contains('2'), "{error}");
    }
}
