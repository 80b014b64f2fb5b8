//! The run of a graph: a node starts the moment its needs are done; the first failure stops all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    failure::Cause,
    graph::{Graph, Lane},
    progress::{InstallEvent, Progress},
    timing::{NodeTiming, Outcome, Timing, rounded},
};

/// How many nodes of a lane run side by side: more only take turns, and hold back what is urgent.
const LANE: usize = 2;

pub(crate) struct Ran {
    pub(crate) timing: Timing,
    /// The first failure, with its node.
    pub(crate) failure: Option<(String, Cause)>,
}

/// Does every node of the graph. `work` is given the node's name and a token that fires when the run is over before its time;
/// it must end soon after.
pub(crate) async fn run<W, F>(graph: &Graph, progress: &dyn Progress, cancel: &CancellationToken, work: W) -> Ran
where
    W: Fn(String, CancellationToken) -> F,
    F: Future<Output = Result<(), Cause>> + Send + 'static,
{
    let begun = Instant::now();
    let now = || rounded(begun.elapsed().as_secs_f64());
    let stop = cancel.child_token();
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut started: BTreeMap<String, f64> = BTreeMap::new();
    let mut running: BTreeSet<String> = BTreeSet::new();
    let mut times: Vec<NodeTiming> = Vec::new();
    let mut failure: Option<(String, Cause)> = None;
    let mut tasks: JoinSet<(String, Result<(), Cause>)> = JoinSet::new();
    let needs = |name: &str| graph.node(name).map(|node| node.needs.clone()).unwrap_or_default();
    loop {
        if !stop.is_cancelled() {
            // In the order of urgency, so that lanes go to what much waits for.
            for name in graph.order() {
                let Some(node) = graph.node(name) else { continue };
                let in_lane = || {
                    running
                        .iter()
                        .filter(|other| graph.node(other).is_some_and(|other| other.lane == node.lane))
                        .count()
                };
                let free = node.lane == Lane::Free || in_lane() < LANE;
                if started.contains_key(name) || !free || !node.needs.iter().all(|need| done.contains(need)) {
                    continue;
                }
                progress.say(InstallEvent::Started { node: name });
                started.insert(name.clone(), now());
                running.insert(name.clone());
                let future = work(name.clone(), stop.clone());
                let name = name.clone();
                tasks.spawn(async move { (name, future.await) });
            }
        }
        let Some(ended) = tasks.join_next().await else { break };
        let (name, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => continue, // nobody aborts tasks here
        };
        running.remove(&name);
        let start = started.get(&name).copied().unwrap_or_default();
        let mut time = NodeTiming {
            start,
            seconds: rounded(now() - start),
            needs: needs(&name),
            waited_for: None,
            outcome: Outcome::Done,
            node: name.clone(),
        };
        match result {
            Ok(()) => {
                done.insert(name.clone());
                let waited_for = times.iter().rfind(|t| time.needs.contains(&t.node)).map(|t| t.node.as_str());
                progress.say(InstallEvent::Finished { node: &name, seconds: time.seconds, waited_for });
            }
            Err(error) if error.is_cancelled() && stop.is_cancelled() => {
                time.outcome = Outcome::Stopped;
                progress.say(InstallEvent::Stopped { node: &name });
            }
            Err(error) => {
                time.outcome = Outcome::Failed;
                let text = error.to_string();
                let why = text.lines().next().unwrap_or_default();
                progress.say(InstallEvent::Failed { node: &name, seconds: time.seconds, why });
                stop.cancel();
                failure.get_or_insert((name, error));
            }
        }
        times.push(time);
    }
    Ran { timing: Timing::of(times), failure }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;
    use crate::install::{graph::Node, progress::Silent};

    fn graph(nodes: &[(&str, &[&str])]) -> Graph {
        lane_graph(&nodes.iter().map(|(name, needs)| (*name, *needs, Lane::Free)).collect::<Vec<_>>())
    }

    fn lane_graph(nodes: &[(&str, &[&str], Lane)]) -> Graph {
        let node = |(name, needs, lane): &(&str, &[&str], Lane)| Node {
            name: (*name).to_owned(),
            needs: needs.iter().map(ToString::to_string).collect(),
            seconds: 1.0,
            lane: *lane,
        };
        Graph::new(nodes.iter().map(node)).unwrap()
    }

    #[tokio::test]
    async fn what_can_overlap_does_and_needs_are_done_before() {
        let graph = graph(&[("end", &["left", "right"]), ("left", &["begin"]), ("right", &["begin"]), ("begin", &[])]);
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let both = Arc::new(tokio::sync::Barrier::new(2));
        let ran = run(&graph, &Silent, &CancellationToken::new(), |name, _| {
            let (log, both) = (log.clone(), both.clone());
            async move {
                if name == "left" || name == "right" {
                    both.wait().await; // only passes when both run at once
                }
                log.lock().unwrap().push(name);
                Ok(())
            }
        })
        .await;
        assert!(ran.failure.is_none(), "{:?}", ran.failure);
        let log = log.lock().unwrap().clone();
        assert_eq!((log[0].as_str(), log[3].as_str(), log.len()), ("begin", "end", 4));
        assert_eq!(ran.timing.critical_path.first().map(String::as_str), Some("begin"));
    }

    #[tokio::test]
    async fn the_first_failure_stops_what_runs_and_nothing_more_begins() {
        let graph = graph(&[("broken", &[]), ("long", &[]), ("behind", &["long"])]);
        let ran = run(&graph, &Silent, &CancellationToken::new(), |name, stop| async move {
            if name == "broken" {
                return Err(Cause::Other("broken".to_owned()));
            }
            stop.cancelled().await;
            Err(Cause::Stopped)
        })
        .await;
        assert!(matches!(&ran.failure, Some((node, Cause::Other(_))) if node == "broken"), "{:?}", ran.failure);
        let outcomes: Vec<(&str, Outcome)> =
            ran.timing.nodes.iter().map(|node| (node.node.as_str(), node.outcome)).collect();
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        assert!(outcomes.contains(&("broken", Outcome::Failed)) && outcomes.contains(&("long", Outcome::Stopped)));
    }

    #[tokio::test]
    async fn an_interrupted_run_has_no_failure_of_its_own() {
        let graph = graph(&[("a", &[]), ("b", &["a"])]);
        let cancel = CancellationToken::new();
        let begun = Arc::new(Notify::new());
        let interrupt = async {
            begun.notified().await;
            cancel.cancel();
        };
        let work = run(&graph, &Silent, &cancel, |_, stop| {
            let begun = begun.clone();
            async move {
                begun.notify_one();
                stop.cancelled().await;
                Err(Cause::Stopped)
            }
        });
        let (ran, ()) = tokio::join!(work, interrupt);
        assert!(ran.failure.is_none(), "{:?}", ran.failure);
        assert_eq!(ran.timing.nodes.len(), 1, "b never began");
    }

    #[tokio::test]
    async fn a_lane_is_shared_by_two() {
        let names: Vec<String> = (0..6).map(|n| format!("images-{n}")).collect();
        let nodes: Vec<(&str, &[&str], Lane)> =
            names.iter().map(|name| (name.as_str(), &[][..], Lane::Images)).collect();
        let side_by_side = Arc::new(Mutex::new((0, 0)));
        let ran = run(&lane_graph(&nodes), &Silent, &CancellationToken::new(), |_, _| {
            let counts = side_by_side.clone();
            async move {
                {
                    let mut counts = counts.lock().unwrap();
                    counts.0 += 1;
                    counts.1 = counts.1.max(counts.0);
                }
                tokio::task::yield_now().await;
                counts.lock().unwrap().0 -= 1;
                Ok(())
            }
        })
        .await;
        assert_eq!((ran.timing.nodes.len(), side_by_side.lock().unwrap().1), (6, 2));
    }
}
