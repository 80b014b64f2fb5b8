//! Configuration in the shape of the Inference Extension's EndpointPickerConfig, read strictly.
//!
//! What is not understood is refused with its place and with what there is instead: a picker that passes over half of its
//! configuration chooses in a way that nobody asked for.

use std::collections::HashSet;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::prefix::Blocks;

/// The versions of the shape that are read; the parts used here are the same in all of them.
const VERSIONS: [&str; 3] = ["inference.networking.x-k8s.io/v1alpha1", "llm-d.ai/v1alpha1", "llm-d.ai/v1"];

/// Bytes that stand for a token where blocks are given in tokens.
const BYTES_OF_A_TOKEN: usize = 4;

/// What `concurrency-detector` allows where it does not say.
const MAX_CONCURRENCY: u64 = 100;

/// What `load-aware-scorer` takes for much where it does not say.
const THRESHOLD: u64 = 128;

#[derive(Clone, Debug, PartialEq)]
pub struct Scheduling {
    pub(crate) scorers: Vec<(Scorer, f64)>,
    pub(crate) most: usize,
    pub(crate) blocks: Blocks,
    pub(crate) max_concurrency: Option<u64>,
}

/// Gives each candidate between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scorer {
    /// More of the prompt's beginning seen.
    Prefix,
    /// Fewer requests waiting, as the model says; in flight through this picker where it does not.
    Waiting,
    /// Fewer requests running, as the model says; in flight through this picker where it does not.
    Running,
    /// Fewer requests in flight through this picker.
    InFlight,
    /// Less of the KV cache used, as the model says.
    KvCache,
    /// Up to half, the more the further the requests waiting are below this threshold.
    BelowThreshold(u64),
}

impl Default for Scheduling {
    /// Load and prefix, weighted as the Inference Extension's chart does (2 and 3), one endpoint, no bound.
    fn default() -> Self {
        Self {
            scorers: vec![(Scorer::Waiting, 2.0), (Scorer::Prefix, 3.0)],
            most: 1,
            blocks: Blocks::default(),
            max_concurrency: None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("EndpointPickerConfig: {0}")]
pub struct ConfigError(String);

impl Scheduling {
    /// Reads a configuration in YAML or JSON.
    pub fn read(text: &str) -> Result<Self, ConfigError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        file.resolve().map_err(ConfigError)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    plugins: Vec<PluginSpec>,
    scheduling_profiles: Option<Vec<Profile>>,
    saturation_detector: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginSpec {
    r#type: String,
    name: Option<String>,
    parameters: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
    plugins: Vec<ProfilePlugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfilePlugin {
    plugin_ref: String,
    weight: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reference {
    plugin_ref: String,
}

#[derive(Clone, Copy)]
enum Plugin {
    Handler,
    /// Commands by request header, which are followed here whatever is configured.
    Commands,
    Scorer(Scorer),
    PrefixScorer(Blocks),
    Picker {
        most: usize,
    },
    Concurrency {
        max: u64,
    },
}

const TYPES: &str = "single-profile-handler, max-score-picker, prefix-cache-scorer, queue-scorer, \
     running-requests-size-scorer, active-request-scorer, kv-cache-utilization-scorer, load-aware-scorer, \
     header-based-testing-filter, concurrency-detector";

impl File {
    fn resolve(self) -> Result<Scheduling, String> {
        if !VERSIONS.contains(&self.api_version.as_str()) {
            return Err(format!("apiVersion {:?} is not one of {}", self.api_version, VERSIONS.join(", ")));
        }
        if self.kind != "EndpointPickerConfig" {
            return Err(format!("kind {:?} is not EndpointPickerConfig", self.kind));
        }
        let mut plugins = Vec::new();
        let mut names = HashSet::new();
        for spec in &self.plugins {
            let name = spec.name.as_ref().unwrap_or(&spec.r#type);
            if !names.insert(name.as_str()) {
                return Err(format!("plugins: there are two called {name:?}; give one of them another name"));
            }
            plugins.push((name.as_str(), spec.plugin().map_err(|why| format!("plugins: {name}: {why}"))?));
        }
        let find = |place: &str, name: &str| {
            let found = plugins.iter().find(|(n, _)| *n == name).map(|(_, plugin)| *plugin);
            found.ok_or_else(|| {
                let there: Vec<&str> = plugins.iter().map(|(n, _)| *n).collect();
                format!("{place}: pluginRef {name:?} is none of the plugins {}", there.join(", "))
            })
        };

        let profile = match self.scheduling_profiles {
            None => self.whole_profile(&plugins),
            Some(mut profiles) => {
                let count = profiles.len();
                let only = profiles.pop().filter(|_| count == 1);
                only.ok_or_else(|| format!("schedulingProfiles: one is run here, not {count}"))?
            }
        };
        let mut scheduling = Scheduling { scorers: Vec::new(), ..Scheduling::default() };
        let mut picks = 0;
        for part in &profile.plugins {
            let place = format!("schedulingProfiles: {}", profile.name);
            let weight = part.weight.unwrap_or(1.0);
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(format!("{place}: {}: weight {weight} is no number from 0 up", part.plugin_ref));
            }
            let mut score = |scorer| {
                let again = scheduling.scorers.iter().any(|(s, _)| *s == scorer);
                scheduling.scorers.push((scorer, weight));
                if again { Err(format!("{place}: {} is there twice", part.plugin_ref)) } else { Ok(()) }
            };
            match find(&place, &part.plugin_ref)? {
                Plugin::Scorer(scorer) => score(scorer)?,
                Plugin::PrefixScorer(blocks) => {
                    score(Scorer::Prefix)?;
                    scheduling.blocks = blocks;
                }
                _ if part.weight.is_some() => {
                    return Err(format!("{place}: {}: only scorers have a weight", part.plugin_ref));
                }
                Plugin::Commands => {}
                Plugin::Picker { most } => {
                    picks += 1;
                    scheduling.most = most;
                }
                Plugin::Handler | Plugin::Concurrency { .. } => {
                    return Err(format!("{place}: {} is no part of a profile; only plugins names it", part.plugin_ref));
                }
            }
        }
        if picks > 1 {
            return Err(format!("schedulingProfiles: {}: {picks} pickers; one picks", profile.name));
        }
        if let Some(Reference { plugin_ref }) = self.saturation_detector {
            match find("saturationDetector", &plugin_ref)? {
                Plugin::Concurrency { max } => scheduling.max_concurrency = Some(max),
                _ => return Err(format!("saturationDetector: {plugin_ref} is no concurrency-detector")),
            }
        }
        Ok(scheduling)
    }

    /// The profile of a configuration that has none: everything that can be part of one.
    fn whole_profile(&self, plugins: &[(&str, Plugin)]) -> Profile {
        let parts =
            plugins.iter().filter(|(_, plugin)| !matches!(plugin, Plugin::Handler | Plugin::Concurrency { .. }));
        let plugins = parts.map(|(name, _)| ProfilePlugin { plugin_ref: (*name).to_owned(), weight: None }).collect();
        Profile { name: "default".to_owned(), plugins }
    }
}

impl PluginSpec {
    fn plugin(&self) -> Result<Plugin, String> {
        Ok(match self.r#type.as_str() {
            "single-profile-handler" => self.without_parameters(Plugin::Handler)?,
            "queue-scorer" => self.without_parameters(Plugin::Scorer(Scorer::Waiting))?,
            "running-requests-size-scorer" => self.without_parameters(Plugin::Scorer(Scorer::Running))?,
            "active-request-scorer" => self.without_parameters(Plugin::Scorer(Scorer::InFlight))?,
            "kv-cache-utilization-scorer" => self.without_parameters(Plugin::Scorer(Scorer::KvCache))?,
            "load-aware-scorer" => {
                let threshold = self.parameters::<LoadParameters>()?.threshold.unwrap_or(THRESHOLD);
                Plugin::Scorer(Scorer::BelowThreshold(threshold.max(1)))
            }
            "header-based-testing-filter" => self.without_parameters(Plugin::Commands)?,
            "prefix-cache-scorer" => Plugin::PrefixScorer(self.parameters::<PrefixParameters>()?.blocks()?),
            "max-score-picker" => {
                let most = self.parameters::<PickerParameters>()?.max_num_of_endpoints.unwrap_or(1);
                Plugin::Picker { most: at_least_one("maxNumOfEndpoints", most)? }
            }
            "concurrency-detector" => {
                let max = self.parameters::<ConcurrencyParameters>()?.max_concurrency.unwrap_or(MAX_CONCURRENCY);
                Plugin::Concurrency { max }
            }
            other => return Err(format!("type {other:?} is not known here; there are {TYPES}")),
        })
    }

    fn without_parameters(&self, plugin: Plugin) -> Result<Plugin, String> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.parameters::<Nothing>().map(|Nothing {}| plugin)
    }

    fn parameters<P: Default + DeserializeOwned>(&self) -> Result<P, String> {
        match &self.parameters {
            None | Some(Value::Null) => Ok(P::default()),
            Some(given) => serde_json::from_value(given.clone()).map_err(|error| format!("parameters: {error}")),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrefixParameters {
    block_size: Option<usize>,
    block_size_tokens: Option<usize>,
    max_prefix_blocks_to_match: Option<usize>,
    #[serde(rename = "lruCapacityPerServer")]
    lru_capacity_per_server: Option<usize>,
}

impl PrefixParameters {
    fn blocks(self) -> Result<Blocks, String> {
        let default = Blocks::default();
        let size = match (self.block_size, self.block_size_tokens) {
            (Some(_), Some(_)) => return Err("parameters: blockSize and blockSizeTokens; give one".to_owned()),
            (Some(bytes), None) => at_least_one("blockSize", bytes)?,
            (None, Some(tokens)) => at_least_one("blockSizeTokens", tokens)?.saturating_mul(BYTES_OF_A_TOKEN),
            (None, None) => default.size,
        };
        let remembered = self.lru_capacity_per_server.unwrap_or(default.remembered);
        Ok(Blocks {
            size,
            most: self.max_prefix_blocks_to_match.unwrap_or(default.most),
            remembered: at_least_one("lruCapacityPerServer", remembered)?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadParameters {
    threshold: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PickerParameters {
    max_num_of_endpoints: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConcurrencyParameters {
    max_concurrency: Option<u64>,
}

fn at_least_one(name: &str, value: usize) -> Result<usize, String> {
    if value == 0 { Err(format!("parameters: {name} is 0; at least 1")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A configuration with these plugins, and a profile of these parts.
    fn config(plugins: &str, parts: &str) -> String {
        format!(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{plugins}]\n\
             schedulingProfiles: [{{name: default, plugins: [{parts}]}}]\n"
        )
    }

    #[test]
    fn what_kserve_and_the_chart_write() {
        let read = Scheduling::read(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: single-profile-handler
- type: queue-scorer
- type: prefix-cache-scorer
  name: prefix
  parameters: {blockSizeTokens: 16, maxPrefixBlocksToMatch: 128, lruCapacityPerServer: 1000}
- type: max-score-picker
  parameters: {maxNumOfEndpoints: 3}
- type: concurrency-detector
  parameters: {maxConcurrency: 8}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: prefix, weight: 3.5}
  - {pluginRef: max-score-picker}
saturationDetector: {pluginRef: concurrency-detector}
",
        );
        let expected = Scheduling {
            scorers: vec![(Scorer::Waiting, 2.0), (Scorer::Prefix, 3.5)],
            most: 3,
            blocks: Blocks { size: 64, most: 128, remembered: 1000 },
            max_concurrency: Some(8),
        };
        assert_eq!(read, Ok(expected));
    }

    #[rstest]
    #[case::in_json(r#"{"apiVersion":"llm-d.ai/v1alpha1","kind":"EndpointPickerConfig","plugins":[{"type":"queue-scorer"}]}"#.to_owned(), vec![(Scorer::Waiting, 1.0)])]
    #[case::no_profile("apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\nplugins: [{type: single-profile-handler}, {type: active-request-scorer}, {type: kv-cache-utilization-scorer}]".to_owned(), vec![(Scorer::InFlight, 1.0), (Scorer::KvCache, 1.0)])]
    #[case::weight_one_where_none_is_said(config("{type: running-requests-size-scorer}", "{pluginRef: running-requests-size-scorer}"), vec![(Scorer::Running, 1.0)])]
    #[case::of_guide_001(config("{type: prefix-cache-scorer}, {type: load-aware-scorer, parameters: {threshold: 100}}", "{pluginRef: prefix-cache-scorer, weight: 2.0}, {pluginRef: load-aware-scorer, weight: 1.0}"), vec![(Scorer::Prefix, 2.0), (Scorer::BelowThreshold(100), 1.0)])]
    #[case::of_the_conformance_suite(config("{type: header-based-testing-filter}", "{pluginRef: header-based-testing-filter}"), vec![])]
    #[case::no_scorers(config("{type: max-score-picker}", "{pluginRef: max-score-picker}"), vec![])]
    fn profiles(#[case] text: String, #[case] scorers: Vec<(Scorer, f64)>) {
        assert_eq!(Scheduling::read(&text).map(|s| s.scorers), Ok(scorers));
    }

    #[rstest]
    #[case::no_yaml("a: [", "")]
    #[case::version(config("", "").replace("x-k8s.io", "k8s.io"), "apiVersion \"inference.networking.k8s.io/v1alpha1\" is not one of inference.networking.x-k8s.io/v1alpha1, llm-d.ai/v1alpha1, llm-d.ai/v1")]
    #[case::kind(config("", "").replace("EndpointPickerConfig", "InferencePool"), "kind \"InferencePool\" is not EndpointPickerConfig")]
    #[case::section(config("", "") + "flowControl: {}\n", "unknown field `flowControl`")]
    #[case::plugin_type(
        config("{type: lora-affinity-scorer}", ""),
        "plugins: lora-affinity-scorer: type \"lora-affinity-scorer\" is not known here; there are single-profile-handler, "
    )]
    #[case::parameter(
        config("{type: prefix-cache-scorer, name: p, parameters: {blocksize: 4}}", ""),
        "plugins: p: parameters: unknown field `blocksize`, expected one of `blockSize`, "
    )]
    #[case::parameter_of_none(
        config("{type: queue-scorer, parameters: {x: 1}}", ""),
        "plugins: queue-scorer: parameters: unknown field `x`"
    )]
    #[case::block_size_zero(
        config("{type: prefix-cache-scorer, parameters: {blockSize: 0}}", ""),
        "blockSize is 0; at least 1"
    )]
    #[case::two_block_sizes(
        config("{type: prefix-cache-scorer, parameters: {blockSize: 1, blockSizeTokens: 1}}", ""),
        "give one"
    )]
    #[case::no_endpoints(
        config("{type: max-score-picker, parameters: {maxNumOfEndpoints: 0}}", ""),
        "maxNumOfEndpoints is 0"
    )]
    #[case::same_name(
        config("{type: queue-scorer}, {type: queue-scorer}", ""),
        "plugins: there are two called \"queue-scorer\""
    )]
    #[case::reference(
        config("{type: queue-scorer}", "{pluginRef: prefix}"),
        "schedulingProfiles: default: pluginRef \"prefix\" is none of the plugins queue-scorer"
    )]
    #[case::twice(
        config("{type: queue-scorer}", "{pluginRef: queue-scorer}, {pluginRef: queue-scorer}"),
        "queue-scorer is there twice"
    )]
    #[case::weight(
        config("{type: queue-scorer}", "{pluginRef: queue-scorer, weight: -1}"),
        "weight -1 is no number from 0 up"
    )]
    #[case::weight_of_a_picker(
        config("{type: max-score-picker}", "{pluginRef: max-score-picker, weight: 1}"),
        "only scorers have a weight"
    )]
    #[case::two_pickers(
        config(
            "{type: max-score-picker}, {type: max-score-picker, name: b}",
            "{pluginRef: max-score-picker}, {pluginRef: b}"
        ),
        "2 pickers; one picks"
    )]
    #[case::handler_in_a_profile(
        config("{type: single-profile-handler}", "{pluginRef: single-profile-handler}"),
        "single-profile-handler is no part of a profile"
    )]
    #[case::two_profiles(config("", "").replace("]}]", "]}, {name: b, plugins: []}]"), "schedulingProfiles: one is run here, not 2")]
    #[case::no_profiles(
        "apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\nplugins: []\nschedulingProfiles: []",
        "schedulingProfiles: one is run here, not 0"
    )]
    #[case::detector(config("{type: queue-scorer}", "") + "saturationDetector: {pluginRef: queue-scorer}\n", "saturationDetector: queue-scorer is no concurrency-detector")]
    fn refusals(#[case] text: impl AsRef<str>, #[case] says: &str) {
        let error = Scheduling::read(text.as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("EndpointPickerConfig: ") && error.contains(says), "{error}");
    }
}
