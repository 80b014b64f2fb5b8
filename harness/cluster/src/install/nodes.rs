//! From a selection of components to the nodes of the graph, each with the work that it stands for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    component::{State, Variables},
    failure::Cause,
    graph::{Graph, GraphError, Lane, Node},
    profile::{Selected, Selection},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Cluster,
    Fetch { name: String, from: String, version: String },
    Images(Vec<String>),
    Reach(String, State),
    Extra,
}

/// What decides the shape of the graph beside the selection.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'s> {
    pub(crate) loads: bool,
    pub(crate) fetches: bool,
    /// Component -> the images of what stands in for it, which are others than its own.
    pub(crate) stand_ins: &'s BTreeMap<String, Vec<String>>,
    /// Images that no component names: of models, of the run.
    pub(crate) more_images: &'s [String],
    /// Nodes of the caller: name, needs, about how many seconds.
    pub(crate) extra: &'s [(String, Vec<String>, f64)],
}

pub(crate) const CLUSTER: &str = "cluster";
const MORE_IMAGES: &str = "models:images";
/// About how long a cluster, a chart from its registry, and an image take.
const CLUSTER_SECONDS: f64 = 20.0;
const CHART_SECONDS: f64 = 3.0;
const IMAGE_SECONDS: f64 = 2.0;

pub(crate) fn graph(
    selection: &Selection,
    run: &Value,
    shape: &Shape<'_>,
) -> Result<(Graph, BTreeMap<String, Work>), Cause> {
    let mut all: Vec<(Node, Work)> = Vec::new();
    all.push((node(CLUSTER, vec![], CLUSTER_SECONDS), Work::Cluster));
    for selected in selection.components.values() {
        let images = images(selected, run, shape.stand_ins)?;
        let loads = shape.loads.then_some(images);
        for (suffix, images) in
            loads.into_iter().flat_map(|(first, later)| [("images", first), ("images-later", later)])
        {
            if !images.is_empty() {
                let seconds = IMAGE_SECONDS * f64::from(u16::try_from(images.len()).unwrap_or(u16::MAX));
                let mut load =
                    node(&format!("{}:{suffix}", selected.component.name), vec![CLUSTER.to_owned()], seconds);
                load.lane = Lane::Images;
                all.push((load, Work::Images(images)));
            }
        }
        if shape.fetches {
            all.extend(fetches(selected));
        }
        for state in [State::Crds, State::Installed, State::Ready] {
            if selected.component.has(state) {
                all.push((
                    reach(selection, selected, state, shape),
                    Work::Reach(selected.component.name.clone(), state),
                ));
            }
        }
    }
    if shape.loads && !shape.more_images.is_empty() {
        let mut load = node(MORE_IMAGES, vec![CLUSTER.to_owned()], IMAGE_SECONDS);
        load.lane = Lane::Images;
        all.push((load, Work::Images(shape.more_images.to_vec())));
    }
    let names: Vec<String> = all.iter().map(|(node, _)| node.name.clone()).collect();
    for (name, needs, seconds) in shape.extra {
        // What is not part of this install needs no waiting: a component left out, images where none are loaded.
        let needs = needs.iter().filter(|need| names.contains(need)).cloned().chain([CLUSTER.to_owned()]);
        all.push((node(name, needs.collect(), *seconds), Work::Extra));
    }
    let work = all.iter().map(|(node, work)| (node.name.clone(), work.clone())).collect();
    let mut unique: BTreeMap<String, Node> = BTreeMap::new();
    for (node, work) in all {
        // Two components, or two states of one, may come out of one chart.
        if unique.contains_key(&node.name) && matches!(work, Work::Fetch { .. }) {
            continue;
        }
        if let Some(twice) = unique.insert(node.name.clone(), node) {
            return Err(Cause::Other(GraphError::Twice(twice.name).to_string()));
        }
    }
    let graph = Graph::new(unique.into_values()).map_err(|error| Cause::Other(error.to_string()))?;
    Ok((graph, work))
}

fn node(name: &str, needs: Vec<String>, seconds: f64) -> Node {
    Node { name: name.to_owned(), needs, seconds, lane: Lane::Free }
}

fn chart_node(name: &str) -> String {
    format!("chart:{name}")
}

fn fetches(selected: &Selected) -> Vec<(Node, Work)> {
    let component = &selected.component;
    let charts = component.charts.iter().map(|chart| (&chart.name, &chart.from));
    let of_crds = component.crds.iter().filter_map(|crds| crds.chart.as_ref().zip(crds.from.as_ref()));
    charts
        .chain(of_crds)
        .map(|(name, from)| {
            let work = Work::Fetch { name: name.clone(), from: from.clone(), version: selected.version.clone() };
            (node(&chart_node(name), vec![], CHART_SECONDS), work)
        })
        .collect()
}

/// A state of a component: it needs the state before, its images and charts, and what its folder says.
fn reach(selection: &Selection, selected: &Selected, state: State, shape: &Shape<'_>) -> Node {
    let component = &selected.component;
    let named = |name: &str, state: State| format!("{name}:{state}");
    let mut needs = vec![CLUSTER.to_owned()];
    let before = match state {
        State::Images | State::Crds => &[][..],
        State::Installed => &[State::Crds],
        State::Ready => &[State::Crds, State::Installed],
    };
    needs.extend(before.iter().filter(|before| component.has(**before)).map(|before| named(&component.name, *before)));
    if shape.loads && component.has(State::Images) && state != State::Crds {
        needs.push(named(&component.name, State::Images));
    }
    if shape.fetches {
        let charts = component.charts.iter().filter(|chart| chart.state == state).map(|chart| &chart.name);
        let of_crds = component.crds.iter().filter(|_| state == State::Crds).filter_map(|crds| crds.chart.as_ref());
        needs.extend(charts.chain(of_crds).map(|name| chart_node(name)));
    }
    for need in component.needs.of(state).iter().chain(component.after.of(state)) {
        let there = selection.components.get(&need.component).is_some_and(|other| other.component.has(need.state));
        if there && (need.state != State::Images || shape.loads) {
            needs.push(named(&need.component, need.state));
        }
    }
    let seconds = match state {
        State::Images => 0.0,
        State::Crds => component.seconds.crds,
        State::Installed => component.seconds.installed,
        State::Ready => component.seconds.ready,
    };
    let lane = if state == State::Crds { Lane::Definitions } else { Lane::Free };
    Node { lane, ..node(&named(&component.name, state), needs, seconds) }
}

/// The images of a component's first pods, and those of later ones.
pub(crate) fn images(
    selected: &Selected,
    run: &Value,
    stand_ins: &BTreeMap<String, Vec<String>>,
) -> Result<(Vec<String>, Vec<String>), Cause> {
    if let Some(images) = stand_ins.get(&selected.component.name) {
        return Ok((images.clone(), vec![]));
    }
    let variables = Variables::of(&selected.component, &selected.version, run);
    let fill = |texts: &[String]| -> Result<Vec<String>, Cause> {
        let filled = texts.iter().map(|text| variables.text(text)).collect::<Result<Vec<_>, _>>();
        let filled = filled.map_err(|problem| Cause::Other(format!("{}: {problem}", selected.component.name)))?;
        Ok(filled.into_iter().flatten().collect())
    };
    Ok((fill(&selected.component.images)?, fill(&selected.component.images_later)?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::install::{component::Catalogue, profile::Profile};

    fn of(roots: &[&str], shape: &Shape<'_>) -> (Graph, BTreeMap<String, Work>) {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
        let catalogue = Catalogue::read(&manifests).unwrap();
        let profile = Profile::read(&manifests, "current").unwrap();
        let roots: Vec<String> = roots.iter().map(ToString::to_string).collect();
        let selection = Selection::of(&catalogue, &profile, &roots).unwrap();
        graph(&selection, &json!({"versions": selection.versions}), shape).unwrap()
    }

    static NONE: BTreeMap<String, Vec<String>> = BTreeMap::new();

    fn shape(loads: bool, fetches: bool) -> Shape<'static> {
        Shape { loads, fetches, more_images: &[], extra: &[], stand_ins: &NONE }
    }

    fn written(graph: &Graph) -> String {
        let needs =
            |name: &str| graph.node(name).unwrap().needs.iter().map(|need| format!(" {need}")).collect::<String>();
        graph.order().iter().map(|name| format!("{name} <-{}\n", needs(name))).collect()
    }

    #[test]
    fn the_whole_stack_on_kind_out_of_a_bundle() {
        let shape = Shape { more_images: &["igc/igc:1".to_owned()], ..shape(true, false) };
        let (graph, work) = of(&["envoy-ai-gateway", "kserve"], &shape);
        insta::assert_snapshot!(written(&graph), @"
        cluster <-
        cert-manager:images <- cluster
        cert-manager:installed <- cert-manager:images cluster
        cert-manager:ready <- cert-manager:images cert-manager:installed cluster
        kserve:crds <- cluster
        kserve:images <- cluster
        gateway-api:crds <- cluster
        kserve:installed <- cert-manager:ready cluster gateway-api:crds kserve:crds kserve:images
        kserve:ready <- cluster kserve:crds kserve:images kserve:installed
        envoy-ai-gateway:crds <- cluster
        envoy-gateway:crds <- cluster
        envoy-ai-gateway:images <- cluster
        inference-extension:crds <- cluster
        envoy-ai-gateway:installed <- cluster envoy-ai-gateway:crds envoy-ai-gateway:images envoy-gateway:crds gateway-api:crds inference-extension:crds
        envoy-ai-gateway:ready <- cluster envoy-ai-gateway:crds envoy-ai-gateway:images envoy-ai-gateway:installed
        redis:images <- cluster
        redis:installed <- cluster redis:images
        envoy-gateway:images <- cluster
        ratelimit:images <- cluster
        redis:ready <- cluster redis:images redis:installed
        envoy-gateway:installed <- cluster envoy-ai-gateway:ready envoy-gateway:crds envoy-gateway:images gateway-api:crds inference-extension:crds ratelimit:images redis:ready
        envoy-gateway:ready <- cluster envoy-gateway:crds envoy-gateway:images envoy-gateway:installed
        ratelimit:ready <- cluster envoy-gateway:installed ratelimit:images redis:ready
        envoy-ai-gateway:images-later <- cluster
        envoy-gateway:images-later <- cluster
        inference-extension:images-later <- cluster
        models:images <- cluster
        ");
        assert_eq!(
            work["envoy-gateway:images-later"],
            Work::Images(vec!["docker.io/envoyproxy/envoy:distroless-v1.38.3".into()])
        );
    }

    #[test]
    fn without_the_ai_gateway_envoy_gateway_waits_for_nothing_of_it() {
        let (graph, work) = of(&["envoy-gateway"], &shape(false, true));
        insta::assert_snapshot!(written(&graph), @"
        cluster <-
        chart:gateway-helm <-
        envoy-gateway:crds <- chart:gateway-helm cluster
        gateway-api:crds <- cluster
        redis:installed <- cluster
        redis:ready <- cluster redis:installed
        envoy-gateway:installed <- chart:gateway-helm cluster envoy-gateway:crds gateway-api:crds redis:ready
        envoy-gateway:ready <- cluster envoy-gateway:crds envoy-gateway:installed
        ratelimit:ready <- cluster envoy-gateway:installed redis:ready
        ");
        assert!(matches!(&work["chart:gateway-helm"], Work::Fetch { version, .. } if version == "v1.8.3"));
    }

    #[test]
    fn work_of_the_caller_waits_for_what_is_part_of_the_install() {
        let needs = ["envoy-gateway:ready", "envoy-gateway:images-later", "kgateway:ready"].map(str::to_owned).to_vec();
        let extra = [("gateway".to_owned(), needs, 10.0)];
        let (graph, _) = of(&["envoy-gateway"], &Shape { extra: &extra, ..shape(false, false) });
        assert_eq!(graph.node("gateway").unwrap().needs, ["cluster", "envoy-gateway:ready"]);
    }
}
