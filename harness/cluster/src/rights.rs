//! The rights that a run needs in a cluster that is there: no more than the kinds of its manifests say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    api::ObjectRef,
    gateway::GatewayFolder,
    install::{
        component::{Component, DataError, yaml_files},
        model::ModelFile,
        profile::Selection,
    },
};

/// What checks make beside their intents, as (API group, resource): namespaces of their own, and what guides add to a Gateway.
const MADE: [(&str, &str); 3] = [
    ("", "namespaces"),
    ("gateway.networking.k8s.io", "gatewayclasses"),
    ("gateway.networking.k8s.io", "referencegrants"),
];

/// What the harness reads whatever the gateway: whether pods and Services are ready, where a gateway is reached, and
/// evidence. KServe makes pools of the older group beside those that routes use.
const READ: [(&str, &str); 9] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "nodes"),
    ("", "pods"),
    ("", "pods/log"),
    ("apps", "replicasets"),
    ("discovery.k8s.io", "endpointslices"),
    ("events.k8s.io", "events"),
    ("inference.networking.x-k8s.io", "inferencepools"),
];

const READING: [&str; 3] = ["get", "list", "watch"];
const MAKING: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// API groups, the core one as an empty word.
    pub api_groups: Vec<String>,
    /// Plural names, with a subresource after a slash.
    pub resources: Vec<String>,
    pub verbs: Vec<String>,
}

/// API group -> resources.
type Resources = BTreeMap<String, BTreeSet<String>>;

/// The rules that the checks of a gateway need, in the order of groups and names; none is a wildcard.
///
/// Made is what the gateway's own intents, the shared ones, models and guides write; read is what components are known
/// by, and what Roles among the manifests give: nobody gives rights that he has not.
pub fn of(manifests: &Path, folder: &GatewayFolder, selection: &Selection) -> Result<Vec<Rule>, DataError> {
    let mut permissions = Permissions { made: resources(&MADE), read: resources(&READ) };
    for selected in selection.components.values() {
        permissions.component(&selected.component);
    }
    let own = manifests.join("gateways").join(&folder.name).join("intents");
    let files = |folder: &Path| yaml_files(folder).map_err(DataError::unreadable(folder));
    for path in files(&own)?.into_iter().chain(files(&manifests.join("intents"))?) {
        let text = fs::read_to_string(&path).map_err(DataError::unreadable(&path))?;
        permissions.template(&path, &text)?;
    }
    for model in ModelFile::all(manifests)? {
        permissions.template(model.path(), &model.intent)?;
    }
    Ok(permissions.rules())
}

fn resources(pairs: &[(&str, &str)]) -> Resources {
    let mut all = Resources::new();
    for (group, resource) in pairs {
        all.entry((*group).to_owned()).or_default().insert((*resource).to_owned());
    }
    all
}

/// Resources by what is done with them: a resource that is made is read as well.
struct Permissions {
    made: Resources,
    read: Resources,
}

impl Permissions {
    /// The kinds of a template's documents, and the rules of its Roles: what stands at the beginning of a line, so that no
    /// value has to be known.
    fn template(&mut self, path: &Path, text: &str) -> Result<(), DataError> {
        let wrong = |line: usize, what: &str| Err(DataError::malformed(path, format!("line {}: {what}", line + 1)));
        let (mut version, mut gives) = (None, false);
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("---") {
                (version, gives) = (None, false);
            } else if let Some(written) = line.strip_prefix("apiVersion: ") {
                version = Some(written.trim());
            } else if let Some(kind) = line.strip_prefix("kind: ") {
                let kind = kind.trim();
                let Some(version) = version else {
                    return wrong(number, "`kind` stands before `apiVersion`; write `apiVersion` first");
                };
                if !kind.chars().all(char::is_alphanumeric) {
                    return wrong(
                        number,
                        "the kind is a template value; write it out, because the RBAC rules are derived from it",
                    );
                }
                // A version that is filled in stands behind its group: `{{ ("group/" ~ version) | json }}`.
                let version = version.strip_prefix("{{ (\"").unwrap_or(version);
                let group = version.split_once('/').map_or("", |(group, _)| group);
                if group.contains(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '-')) {
                    return wrong(
                        number,
                        "the API group is a template value; write it out, because the RBAC rules are derived from it",
                    );
                }
                let resource = self.resource(group, kind);
                self.made.entry(group.to_owned()).or_default().insert(resource);
                gives = matches!(kind, "Role" | "ClusterRole");
            } else if gives && line.trim_start().starts_with("- ") {
                let Ok(rule) = serde_saphyr::from_str::<Rule>(line.trim_start().trim_start_matches("- ")) else {
                    return wrong(number, "a rule of a Role must be one line in flow style, without template values");
                };
                self.rule(rule);
            }
        }
        Ok(())
    }

    fn rule(&mut self, rule: Rule) {
        let only_read = rule.verbs.iter().all(|verb| READING.contains(&verb.as_str()));
        let into = if only_read { &mut self.read } else { &mut self.made };
        for group in rule.api_groups {
            into.entry(group).or_default().extend(rule.resources.iter().cloned());
        }
    }

    /// What a component defines, and what tells whether it is there and ready.
    fn component(&mut self, component: &Component) {
        for (resource, group) in component.definitions.iter().filter_map(|definition| definition.split_once('.')) {
            self.read.entry(group.to_owned()).or_default().insert(resource.to_owned());
        }
        let waits = component.waits.iter().map(|wait| &wait.object);
        let objects = waits.chain(component.configured.iter().map(|c| &c.object)).chain([&component.present.object]);
        let definition = ObjectRef::global("apiextensions.k8s.io/v1", "CustomResourceDefinition", "any");
        for object in objects.chain((!component.definitions.is_empty()).then_some(&definition)) {
            let resource = self.resource(object.group(), &object.kind);
            self.read.entry(object.group().to_owned()).or_default().insert(resource);
        }
    }

    /// The resource of a kind: one that is defined, else as Kubernetes' own rule makes it of the kind.
    fn resource(&self, group: &str, kind: &str) -> String {
        let kind = kind.to_lowercase();
        let regular = match kind.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
            _ if kind.ends_with("ss") => format!("{kind}es"),
            _ if kind.ends_with('s') => kind.clone(),
            _ => format!("{kind}s"),
        };
        let defined = || self.read.get(group)?.iter().find(|resource| resource.starts_with(&kind[..kind.len() - 1]));
        let is_defined = self.read.get(group).is_some_and(|resources| resources.contains(&regular));
        if is_defined { regular } else { defined().cloned().unwrap_or(regular) }
    }

    fn rules(mut self) -> Vec<Rule> {
        for (group, made) in &self.made {
            self.read.entry(group.clone()).or_default().retain(|resource| !made.contains(resource));
        }
        let rule = |(group, resources): (String, BTreeSet<String>), verbs: &[&str]| Rule {
            api_groups: vec![group],
            resources: resources.into_iter().collect(),
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        };
        let made = self.made.into_iter().map(|of| rule(of, &MAKING));
        let read = self.read.into_iter().filter(|(_, resources)| !resources.is_empty()).map(|of| rule(of, &READING));
        // The records of our own models and pickers are read through the API server.
        let asked = rule((String::new(), ["pods/proxy".to_owned()].into()), &["get", "create"]);
        made.chain(read).chain([asked]).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::install::{component::Catalogue, profile::Profile};

    fn manifests() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
    }

    fn of_gateway(name: &str) -> Vec<Rule> {
        let folder = GatewayFolder::read(&manifests().join("gateways"), name).unwrap();
        let catalogue = Catalogue::read(&manifests()).unwrap();
        let profile = Profile::read(&manifests(), "current").unwrap();
        of(&manifests(), &folder, &Selection::of(&catalogue, &profile, &folder.components).unwrap()).unwrap()
    }

    fn rights(rules: &[Rule]) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for rule in rules {
            for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
                all.extend(rule.verbs.iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
        all
    }

    fn read_and_made(group: &str, resources: &[&str], verbs: &[&str]) -> Rule {
        let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Rule { api_groups: vec![group.to_owned()], resources: all(resources), verbs: all(verbs) }
    }

    /// Rights with which the suites were run in clusters, as a Job of each of the two gateways.
    fn tried() -> Vec<Rule> {
        let made = |group, resources: &[&str]| read_and_made(group, resources, &MAKING);
        let read = |group, resources: &[&str]| read_and_made(group, resources, &READING);
        vec![
            made("", &["namespaces", "services", "serviceaccounts"]),
            read("", &["configmaps"]),
            made("apps", &["deployments"]),
            made("rbac.authorization.k8s.io", &["roles", "rolebindings"]),
            made("gateway.networking.k8s.io", &["gateways", "httproutes", "referencegrants", "gatewayclasses"]),
            made("inference.networking.k8s.io", &["inferencepools"]),
            made("serving.kserve.io", &["inferenceservices", "llminferenceservices"]),
            read("", &["pods", "pods/log", "events", "endpoints", "nodes"]),
            read("apps", &["replicasets"]),
            read("discovery.k8s.io", &["endpointslices"]),
            read("events.k8s.io", &["events"]),
            read("apiextensions.k8s.io", &["customresourcedefinitions"]),
            read("cert-manager.io", &["certificates"]),
            read("inference.networking.x-k8s.io", &["inferencepools", "inferenceobjectives", "inferencemodelrewrites"]),
            read_and_made("", &["pods/proxy"], &["get", "create"]),
        ]
    }

    #[rstest]
    #[case::agentgateway(
        "agentgateway",
        &[("agentgateway.dev", &["agentgatewaybackends", "agentgatewayparameters", "agentgatewaypolicies"][..])],
        "envoyproxy"
    )]
    #[case::envoy_ai_gateway(
        "envoy-ai-gateway",
        &[
            ("gateway.envoyproxy.io", &["backends", "backendtrafficpolicies", "clienttrafficpolicies", "envoyproxies"][..]),
            ("aigateway.envoyproxy.io", &["aigatewayroutes", "aiservicebackends"][..]),
        ],
        "agentgateway"
    )]
    fn a_gateway_has_what_its_checks_need_and_nothing_of_another(
        #[case] gateway: &str,
        #[case] own: &[(&str, &[&str])],
        #[case] other: &str,
    ) {
        let rules = of_gateway(gateway);
        let made = own.iter().map(|(group, resources)| read_and_made(group, resources, &MAKING));
        let needed: Vec<Rule> = tried().into_iter().chain(made).collect();
        let given = rights(&rules);
        assert_eq!(rights(&needed).difference(&given).collect::<Vec<_>>(), Vec::<&String>::new());
        let text = given.into_iter().collect::<Vec<_>>().join("\n");
        assert!(!text.contains('*') && !text.contains("secrets") && !text.contains(other), "{text}");
        assert!(!text.contains("configmaps create"), "nothing makes one: {text}");
    }

    fn of_template(text: &str) -> Result<BTreeSet<String>, String> {
        let mut permissions = Permissions { made: Resources::new(), read: resources(&[("example.dev", "toys")]) };
        permissions.template(Path::new("intents/toy.yaml"), text).map_err(|error| error.to_string())?;
        Ok(rights(&permissions.rules()).into_iter().filter(|right| right.ends_with(" create")).collect())
    }

    #[rstest]
    #[case::core("apiVersion: v1\nkind: Service\n", "/services create")]
    #[case::defined("apiVersion: example.dev/v1\nkind: Toy\n", "example.dev/toys create")]
    #[case::version_filled_in(
        "apiVersion: {{ (\"example.dev/\" ~ version) | json }}\nkind: Toy\n",
        "example.dev/toys create"
    )]
    #[case::ies("apiVersion: a.dev/v1\nkind: Policy\n", "a.dev/policies create")]
    #[case::vowel("apiVersion: a.dev/v1\nkind: Gateway\n", "a.dev/gateways create")]
    #[case::class("apiVersion: a.dev/v1\nkind: GatewayClass\n", "a.dev/gatewayclasses create")]
    #[case::plural_already("apiVersion: a.dev/v1\nkind: Parameters\n", "a.dev/parameters create")]
    #[case::inside("apiVersion: v1\nkind: Service\nspec:\n  kind: Other\n", "/services create")]
    fn kinds_of_a_template(#[case] text: &str, #[case] right: &str) {
        let found = of_template(text).unwrap();
        assert_eq!(found.iter().filter(|r| !r.contains("pods/proxy")).collect::<Vec<_>>(), [right]);
    }

    #[rstest]
    #[case::filled_in(
        "apiVersion: v1\nkind: {{ kind | json }}\n",
        "line 2: the kind is a template value; write it out"
    )]
    #[case::group(
        "apiVersion: {{ (group ~ \"/v1\") | json }}\nkind: Service\n",
        "line 2: the API group is a template value; write it out"
    )]
    #[case::no_version("---\nkind: Service\n", "line 2: `kind` stands before `apiVersion`")]
    #[case::rule_over_lines(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nrules:\n- apiGroups: [a]\n  verbs: [get]\n",
        "line 4: a rule of a Role must be one line in flow style"
    )]
    fn a_template_without_derivable_rights_is_refused(#[case] text: &str, #[case] said: &str) {
        let message = of_template(text).unwrap_err();
        assert!(message.contains(said) && message.contains("intents/toy.yaml"), "{message}");
    }
}
