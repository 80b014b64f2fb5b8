//! The graph of an install: what must be done before what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use verdict::names::{near, suggestion};

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, for example `kserve:ready`.
    pub name: String,
    pub needs: Vec<String>,
    /// About how long it takes, in seconds: makes what many wait for urgent.
    pub seconds: f64,
    pub lane: Lane,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    #[default]
    Free,
    /// The engine's way of giving images to nodes.
    Images,
    /// The API server, which is busy for seconds with each large definition.
    Definitions,
}

#[derive(Clone, Debug)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
    order: Vec<String>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    #[error("{node} needs {need}, which is no step of the install{near}")]
    Unknown { node: String, need: String, near: String },
    #[error("{0} occurs twice")]
    Twice(String),
    #[error("these steps of the install need each other: {}", .0.join(" needs "))]
    Cycle(Vec<String>),
}

impl Graph {
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Result<Self, GraphError> {
        let mut named: BTreeMap<String, Node> = BTreeMap::new();
        for mut node in nodes {
            node.needs.sort();
            node.needs.dedup();
            if let Some(first) = named.insert(node.name.clone(), node) {
                return Err(GraphError::Twice(first.name));
            }
        }
        for node in named.values() {
            if let Some(need) = node.needs.iter().find(|need| !named.contains_key(*need)) {
                let near = suggestion(&near(need, named.keys().map(String::as_str)));
                return Err(GraphError::Unknown { node: node.name.clone(), need: need.clone(), near });
            }
        }
        let mut urgency: BTreeMap<String, f64> = BTreeMap::new();
        for name in ordered(&named, |_| 0.0)?.iter().rev() {
            let behind = named.values().filter(|node| node.needs.contains(name)).map(|node| urgency[&node.name]);
            let behind = behind.fold(0.0, f64::max);
            urgency.insert(name.clone(), behind + named[name].seconds);
        }
        let order = ordered(&named, |name| urgency[name])?;
        Ok(Self { nodes: named, order })
    }

    /// All names, in the order in which one worker would do them: needs first, then what the longest way hangs on, then by name.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }
}

/// All names: needs first; among those that could be done the most urgent one, then by name.
///
/// The urgency of a node is about how many seconds lie between its start and the end of all that waits for it.
fn ordered(nodes: &BTreeMap<String, Node>, urgency: impl Fn(&str) -> f64) -> Result<Vec<String>, GraphError> {
    let mut done: Vec<String> = Vec::new();
    let mut open: BTreeSet<&String> = nodes.keys().collect();
    loop {
        let possible = open.iter().filter(|name| nodes[**name].needs.iter().all(|need| !open.contains(need)));
        let next = possible.max_by(|a, b| urgency(a).total_cmp(&urgency(b)).then_with(|| b.cmp(a))).copied();
        let Some(next) = next else { break };
        open.remove(next);
        done.push(next.clone());
    }
    let Some(first) = open.first() else { return Ok(done) };
    // Every open node has an open need: following them must come round.
    let mut path: Vec<String> = vec![(*first).clone()];
    loop {
        let last = &path[path.len() - 1];
        let next =
            nodes[last].needs.iter().find(|need| open.contains(need)).expect("an open node has an open need").clone();
        if let Some(start) = path.iter().position(|name| *name == next) {
            path.push(next);
            return Err(GraphError::Cycle(path.split_off(start)));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    pub(crate) fn node(name: &str, needs: &[&str], seconds: f64) -> Node {
        Node {
            name: name.to_owned(),
            needs: needs.iter().map(ToString::to_string).collect(),
            seconds,
            lane: Lane::Free,
        }
    }

    #[test]
    fn needs_come_first_and_then_what_the_longest_way_hangs_on() {
        let graph = Graph::new([
            node("z", &[], 1.0),
            node("a", &[], 1.0),
            node("slow", &["z"], 30.0),
            node("quick", &["a"], 1.0),
            node("end", &["slow", "quick"], 0.0),
        ])
        .unwrap();
        assert_eq!(graph.order(), ["z", "slow", "a", "quick", "end"]);
    }

    #[test]
    fn the_order_does_not_hang_on_the_order_of_the_input() {
        let nodes =
            [node("b", &["a"], 0.0), node("a", &[], 0.0), node("d", &["b", "c"], 0.0), node("c", &["a", "a"], 0.0)];
        let mut turned = nodes.clone();
        turned.reverse();
        assert_eq!(Graph::new(nodes).unwrap().order(), ["a", "b", "c", "d"]);
        assert_eq!(Graph::new(turned).unwrap().order(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn among_equals_needs_come_first_whatever_their_names() {
        let graph = Graph::new([node("a", &["z"], 0.0), node("z", &[], 0.0)]).unwrap();
        assert_eq!(graph.order(), ["z", "a"]);
    }

    #[rstest]
    #[case::itself(vec![node("a", &["a"], 0.0)], "these steps of the install need each other: a needs a")]
    #[case::round(vec![node("a", &["c"], 0.0), node("b", &["a"], 0.0), node("c", &["b"], 0.0), node("d", &["a"], 0.0)], "these steps of the install need each other: a needs c needs b needs a")]
    #[case::behind_others(vec![node("x", &[], 0.0), node("a", &["x", "b"], 0.0), node("b", &["a"], 0.0)], "these steps of the install need each other: a needs b needs a")]
    #[case::way_into_it(vec![node("a", &["m"], 0.0), node("m", &["n"], 0.0), node("n", &["m"], 0.0)], "these steps of the install need each other: m needs n needs m")]
    #[case::unknown(vec![node("redis:ready", &[], 0.0), node("a", &["redi:ready"], 0.0)], "a needs redi:ready, which is no step of the install; did you mean redis:ready?")]
    #[case::twice(vec![node("a", &[], 0.0), node("a", &[], 0.0)], "a occurs twice")]
    fn no_graph(#[case] nodes: Vec<Node>, #[case] says: &str) {
        assert_eq!(Graph::new(nodes).unwrap_err().to_string(), says);
    }

    #[test]
    fn nothing_to_do_is_a_graph() {
        assert!(Graph::new([]).unwrap().order().is_empty());
    }
}
