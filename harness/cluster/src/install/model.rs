//! Models as the files of `manifests/models` describe them: an image, what it needs, and an InferenceService as a template.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::component::{DataError, read, yaml_names};
use crate::intents;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    pub name: String,
    pub title: String,
    pub source: String,
    /// Whether it records every request, and gives its records away: proof of what reached it.
    pub records: bool,
    /// Its image: a template that sees `versions` and `images`.
    pub image: String,
    pub needs: ModelNeeds,
    /// The InferenceService: a template that sees the fields of [`Served`] and `image`.
    pub intent: String,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelNeeds {
    pub cpu_millis: u64,
    pub memory_mib: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served<'s> {
    pub name: &'s str,
    pub namespace: &'s str,
    pub model: &'s str,
    pub replicas: u32,
    /// Arguments of its program beside the usual ones.
    pub args: &'s [&'s str],
}

impl ModelFile {
    /// Reads `<manifests>/models/<name>.yaml`.
    pub fn read(manifests: &Path, name: &str) -> Result<Self, DataError> {
        let folder = manifests.join("models");
        let known = names(manifests)?;
        if !known.iter().any(|k| k == name) {
            return Err(DataError::malformed(&folder, DataError::unknown("model", name, &known)));
        }
        let path = folder.join(format!("{name}.yaml"));
        let model: Self = read(&path)?;
        if model.name != name {
            return Err(DataError::malformed(&path, format!("name is {:?}, but the file is {name}.yaml", model.name)));
        }
        Ok(Self { path, ..model })
    }

    pub fn all(manifests: &Path) -> Result<Vec<Self>, DataError> {
        names(manifests)?.iter().map(|name| Self::read(manifests, name)).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its image. `versions` and `images` are those of the run; a missing one is an error.
    pub fn image(&self, versions: &impl Serialize, images: &impl Serialize) -> Result<String, DataError> {
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        let values = json!({"versions": versions, "images": images});
        environment
            .render_str(&self.image, minijinja::value::Serde(&values))
            .map_err(|error| DataError::malformed(&self.path, format!("image: {error}")))
    }

    pub fn manifests(&self, served: &Served<'_>, image: &str) -> Result<Vec<Value>, DataError> {
        let mut values = serde_json::to_value(served).map_err(|error| DataError::malformed(&self.path, error))?;
        values["image"] = json!(image);
        let text = intents::fill(&self.path, &self.intent, &values)?;
        intents::documents(&text).map_err(|problem| DataError::malformed(&self.path, problem))
    }

    /// Whether one replica fits into a machine with so many processors and bytes of memory; refused in words.
    pub fn fits(&self, processors: u64, memory: u64) -> Result<(), String> {
        let mib = memory >> 20;
        let ModelNeeds { cpu_millis, memory_mib, .. } = self.needs;
        let mut short = Vec::new();
        if cpu_millis > processors * 1000 {
            short.push((format!("{cpu_millis}m of processors"), format!("{}m", processors * 1000)));
        }
        if memory_mib > mib {
            short.push((format!("{memory_mib} MiB of memory"), format!("{mib} MiB")));
        }
        if short.is_empty() {
            return Ok(());
        }
        let (needed, had): (Vec<String>, Vec<String>) = short.into_iter().unzip();
        let engine = "and the container engine has";
        Err(format!("{} needs {}, {engine} {}", self.title, needed.join(" and "), had.join(" and ")))
    }
}

pub fn names(manifests: &Path) -> Result<Vec<String>, DataError> {
    yaml_names(&manifests.join("models"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn manifests() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
    }

    #[rstest]
    #[case("echo", "igc/igc:ab", true)]
    #[case("llm-d-sim", "ghcr.io/llm-d/llm-d-inference-sim:v0.10.2", false)]
    #[case("vllm-cpu", "docker.io/vllm/vllm-openai-cpu:v0.18.0", false)]
    fn every_model_of_the_project_is_an_inference_service(
        #[case] name: &str,
        #[case] image: &str,
        #[case] records: bool,
    ) {
        let model = ModelFile::read(&manifests(), name).unwrap();
        assert_eq!(model.records, records);
        assert_eq!(model.image(&json!({"llm-d-sim": "v0.10.2"}), &json!({"igc": "igc/igc:ab"})).unwrap(), image);
        let served = Served { name: "mock", namespace: "n", model: "m: \"x\"", replicas: 2, args: &["--more"] };
        let [service] = &model.manifests(&served, image).unwrap()[..] else { panic!("one object") };
        assert_eq!(service["kind"], "InferenceService");
        assert_eq!(service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"], "Standard");
        let predictor = &service["spec"]["predictor"];
        assert_eq!((&predictor["minReplicas"], &predictor["containers"][0]["image"]), (&json!(2), &json!(image)));
        assert!(
            predictor["containers"][0]["args"].as_array().unwrap().contains(&json!("m: \"x\"")),
            "a name is only ever a name"
        );
        assert_eq!(predictor["containers"][0]["args"].as_array().unwrap().last(), Some(&json!("--more")));
        assert_eq!(predictor["containers"][0]["readinessProbe"]["periodSeconds"], 1);
    }

    #[test]
    fn what_is_not_given_is_said() {
        let model = ModelFile::read(&manifests(), "echo").unwrap();
        let error = model.image(&json!({}), &json!({})).unwrap_err().to_string();
        assert!(error.contains("models/echo.yaml: image: undefined value"), "{error}");
        let error = ModelFile::read(&manifests(), "llmd-sim").unwrap_err().to_string();
        assert!(error.contains("no model called 'llmd-sim'; did you mean llm-d-sim?; there are: "), "{error}");
    }

    #[rstest]
    #[case::fits(11, 10 << 30, Ok(()))]
    #[case::two_processors(2, 32 << 30, Err("vLLM on CPU needs 11000m of processors, and the container engine has 2000m".to_owned()))]
    #[case::memory(16, 8 << 30, Err("vLLM on CPU needs 10240 MiB of memory, and the container engine has 8192 MiB".to_owned()))]
    #[case::both(1, 0, Err("vLLM on CPU needs 11000m of processors and 10240 MiB of memory, and the container engine has 1000m and 0 MiB".to_owned()))]
    fn preflight(#[case] processors: u64, #[case] memory: u64, #[case] expected: Result<(), String>) {
        assert_eq!(ModelFile::read(&manifests(), "vllm-cpu").unwrap().fits(processors, memory), expected);
    }
}
