//! A gateway's folder: what it is installed from, what it declares, and how its shared Gateway is found.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use verdict::{
    names::{near, suggestion},
    plan::ModelKind,
    render::Implementation,
};

/// `gateway.yaml` of a folder under `manifests/gateways`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GatewayFolder {
    /// The folder's own name.
    pub name: String,
    /// As people say it.
    pub title: String,
    /// Who makes it, as ConformanceReports say it.
    pub implementation: Implementation,
    /// The component whose version is the gateway's.
    pub version_of: String,
    /// Roots of the install graph.
    pub components: Vec<String>,
    /// The Gateway that the checks of a run share.
    pub gateway: SharedGateway,
    /// Capability -> parameters.
    pub capabilities: BTreeMap<String, BTreeMap<String, Value>>,
    /// Capability that it lacks -> why, with the source.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
}

/// The Gateway that the checks of a run share, as intents see it too (as `gateway`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct SharedGateway {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of its listener.
    pub listener: String,
    /// Port of its listener.
    pub port: u16,
    /// The node port that its Service is asked to have.
    pub node_port: u16,
    /// `controllerName` in statuses that count.
    pub controller: String,
    /// Labels of the Service that leads to it.
    pub service_labels: BTreeMap<String, String>,
    /// What must be there before it is made, as `component:state`.
    pub needs: Vec<String>,
    /// Intents applied for it, in this order.
    pub intents: Vec<String>,
    /// The route whose answer proves the whole path live.
    pub marker: Marker,
}

/// The route whose answer proves the whole path live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Its hostname.
    pub hostname: String,
    /// Its model.
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

/// A gateway's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no such folder.
    #[error("no gateway called '{name}'{near}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// `; did you mean x?` or nothing.
        near: String,
        /// The folders that are there.
        known: String,
    },
    /// A file or folder cannot be read.
    #[error("failed to read {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not say what it should.
    #[error("{path}: {problem}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// With line and column.
        problem: String,
    },
}

impl GatewayFolder {
    /// Reads `<gateways>/<name>/gateway.yaml`.
    pub fn read(gateways: &Path, name: &str) -> Result<Self, GatewayError> {
        let known = names(gateways)?;
        if !known.iter().any(|k| k == name) {
            return Err(GatewayError::Unknown {
                name: name.to_owned(),
                near: suggestion(&near(name, known.iter().map(String::as_str))),
                known: known.join(", "),
            });
        }
        let path = gateways.join(name).join("gateway.yaml");
        let text =
            fs::read_to_string(&path).map_err(|source| GatewayError::Unreadable { path: path.clone(), source })?;
        let folder: Self = serde_saphyr::from_str(&text)
            .map_err(|e| GatewayError::Malformed { path: path.clone(), problem: e.to_string() })?;
        if folder.name != name {
            return Err(GatewayError::Malformed {
                problem: format!("name is '{}', but the folder is '{name}'", folder.name),
                path,
            });
        }
        for (capability, parameters) in &folder.capabilities {
            if let Some(model) = parameters.get("model")
                && serde_json::from_value::<ModelKind>(model.clone()).is_err()
            {
                let problem = format!("capabilities.{capability}.model is {model}, which is no model of this project");
                return Err(GatewayError::Malformed { problem, path });
            }
        }
        Ok(folder)
    }
}

/// The gateways that there are, sorted.
pub fn names(gateways: &Path) -> Result<Vec<String>, GatewayError> {
    let unreadable = |source| GatewayError::Unreadable { path: gateways.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(gateways).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("gateway.yaml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways() -> PathBuf {
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

    #[test]
    fn a_capabilitys_model_is_one_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(gateways().join("agentgateway/gateway.yaml")).unwrap();
        fs::create_dir(folder.path().join("agentgateway")).unwrap();
        fs::write(folder.path().join("agentgateway/gateway.yaml"), text.replace("model: echo", "model: ecco")).unwrap();
        let error = GatewayFolder::read(folder.path(), "agentgateway").unwrap_err().to_string();
        assert!(error.contains("capabilities.token-limit.model is \"ecco\""), "{error}");
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
