//! Timing of an install: when each node began, how long it took, what it waited for, and which way was the longest.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

pub const TIMING_SCHEMA: &str = "igc.timing/v1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    pub schema: String,
    /// Seconds from the first start to the last end.
    pub seconds: f64,
    /// In the order of their starts.
    pub nodes: Vec<NodeTiming>,
    /// The nodes that the end waited for, one after the other.
    pub critical_path: Vec<String>,
    /// Seconds of work on that way; what is missing to `seconds` was waited for a free lane.
    pub critical_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTiming {
    pub node: String,
    pub start: f64,
    pub seconds: f64,
    pub needs: Vec<String>,
    /// The last of these to end: what held it.
    pub waited_for: Option<String>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Failed,
    Stopped,
}

impl NodeTiming {
    fn end(&self) -> f64 {
        self.start + self.seconds
    }
}

impl Timing {
    pub fn of(mut nodes: Vec<NodeTiming>) -> Self {
        nodes.sort_by(|a, b| a.start.total_cmp(&b.start).then_with(|| a.node.cmp(&b.node)));
        let ends: BTreeMap<String, f64> = nodes.iter().map(|node| (node.node.clone(), node.end())).collect();
        for node in &mut nodes {
            let known = node.needs.iter().filter(|need| ends.contains_key(*need));
            node.waited_for = known.max_by(|a, b| ends[*a].total_cmp(&ends[*b])).cloned();
        }
        let by_name: BTreeMap<&str, &NodeTiming> = nodes.iter().map(|node| (node.node.as_str(), node)).collect();
        let mut path = Vec::new();
        let mut at = nodes.iter().max_by(|a, b| a.end().total_cmp(&b.end()));
        while let Some(node) = at {
            path.push(node);
            at = node.waited_for.as_deref().and_then(|need| by_name.get(need)).copied();
        }
        path.reverse();
        Self {
            schema: TIMING_SCHEMA.to_owned(),
            seconds: rounded(nodes.iter().map(NodeTiming::end).fold(0.0, f64::max)),
            critical_path: path.iter().map(|node| node.node.clone()).collect(),
            critical_seconds: rounded(path.iter().map(|node| node.seconds).sum()),
            nodes,
        }
    }

    /// Writes `timing.json` into the run folder, whole or not at all.
    pub fn write(&self, run_folder: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(run_folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.as_file().sync_all()?;
        file.persist(run_folder.join("timing.json"))?;
        Ok(())
    }
}

pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, start: f64, seconds: f64, needs: &[&str]) -> NodeTiming {
        let needs = needs.iter().map(ToString::to_string).collect();
        NodeTiming { node: name.to_owned(), start, seconds, needs, waited_for: None, outcome: Outcome::Done }
    }

    #[test]
    fn the_critical_path_goes_back_from_the_last_end_along_what_held_each_node() {
        let timing = Timing::of(vec![
            node("kserve:ready", 25.0, 35.0, &["kserve:installed"]),
            node("cluster", 0.0, 20.0, &[]),
            node("cert-manager:ready", 20.0, 4.0, &["cluster"]),
            node("kserve:crds", 20.0, 3.0, &["cluster"]),
            node("kserve:installed", 24.5, 0.5, &["kserve:crds", "cert-manager:ready"]),
            node("redis:ready", 20.0, 30.0, &["cluster"]),
        ]);
        assert_eq!(timing.critical_path, ["cluster", "cert-manager:ready", "kserve:installed", "kserve:ready"]);
        assert_eq!((timing.seconds, timing.critical_seconds), (60.0, 59.5));
        assert_eq!(timing.nodes.iter().map(|n| n.node.as_str()).next(), Some("cluster"));
    }

    #[test]
    fn what_never_began_holds_nothing() {
        let timing = Timing::of(vec![node("a", 0.0, 1.0, &["never"])]);
        assert_eq!((timing.nodes[0].waited_for.clone(), timing.critical_path.len()), (None, 1));
        assert_eq!(Timing::of(vec![]).seconds, 0.0);
    }

    #[test]
    fn it_is_a_file_of_the_run() {
        let run = tempfile::tempdir().unwrap();
        let timing = Timing::of(vec![node("a", 0.0, 1.0, &[])]);
        timing.write(run.path()).unwrap();
        let read: Timing = serde_json::from_slice(&std::fs::read(run.path().join("timing.json")).unwrap()).unwrap();
        assert_eq!(read, timing);
    }
}
