//! An InferencePool: which endpoints its ready pods make.

use std::future::pending;

use serde_json::Value;
use tokio::sync::watch;

use crate::api::{ApiFailure, Cluster, ObjectRef, Target, is_ready, items, text};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `a=b,c=d`.
    selector: String,
    ports: Vec<u64>,
}

impl Pool {
    /// Reads an InferencePool of either group: `inference.networking.k8s.io` (v1) or the older one with `x-k8s`.
    pub fn read(object: &Value) -> Result<Self, String> {
        let selector = &object["spec"]["selector"];
        let labels = selector.get("matchLabels").unwrap_or(selector).as_object();
        let labels = labels.filter(|labels| !labels.is_empty()).ok_or("spec.selector names no labels")?;
        let parts: Option<Vec<String>> =
            labels.iter().map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect();
        let ports: Vec<u64> = match object["spec"]["targetPortNumber"].as_u64() {
            Some(port) => vec![port],
            None => items(object, "/spec/targetPorts").filter_map(|port| port["number"].as_u64()).collect(),
        };
        if ports.is_empty() {
            return Err("spec.targetPorts names no number".to_owned());
        }
        Ok(Self { selector: parts.ok_or("spec.selector: a value is no text")?.join(","), ports })
    }

    /// `address:port` of each port of each pod that is ready and stays, in the order of the pods.
    pub fn endpoints(&self, pods: &[&Value]) -> Vec<String> {
        let addresses = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| {
            let address = Some(text(pod, "/status/podIP")).filter(|address| !address.is_empty())?;
            Some(if address.contains(':') { format!("[{address}]") } else { address.to_owned() })
        });
        addresses.flat_map(|address| self.ports.iter().map(move |port| format!("{address}:{port}"))).collect()
    }
}

/// Tells the endpoints of a pool, first as they are found and then whenever something changes, for ever. `None` as long as
/// there is no such pool, or one that cannot be read.
/// Ends only with what no waiting cures, for example missing rights.
pub async fn follow(
    cluster: &Cluster,
    pool: &ObjectRef,
    mut tell: impl FnMut(Option<Vec<String>>) + Send,
) -> ApiFailure {
    let (pools, mut current) = watch::channel(None);
    let reading = cluster.observe(pool, |objects| {
        let read = objects.first().and_then(|object| {
            Pool::read(object).inspect_err(|problem| tracing::warn!("{pool} cannot be read: {problem}")).ok()
        });
        pools.send_if_modified(|known| {
            let changed = *known != read;
            *known = read;
            changed
        });
    });
    let telling = async {
        loop {
            let selects: Option<Pool> = current.borrow_and_update().clone();
            let observing = async {
                let Some(selects) = selects else {
                    tell(None);
                    return pending().await;
                };
                let namespace = pool.namespace.as_deref();
                let pods = Target::labelled("v1", "Pod", namespace, &selects.selector);
                cluster.observe(pods, |pods| tell(Some(selects.endpoints(pods)))).await
            };
            tokio::select! {
                failure = observing => return failure,
                _another_pool = current.changed() => {}
            }
        }
    };
    tokio::select! {
        failure = reading => failure,
        failure = telling => failure,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, address: &str, ready: &str) -> Value {
        json!({"kind": "Pod", "metadata": {"name": name}, "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[rstest]
    #[case::v1(json!({"selector": {"matchLabels": {"b": "2", "a": "1"}}, "targetPorts": [{"number": 8000}, {"number": 8001}]}), Ok(("a=1,b=2", vec![8000, 8001])))]
    #[case::v1alpha2(json!({"selector": {"app": "x"}, "targetPortNumber": 8000}), Ok(("app=x", vec![8000])))]
    #[case::no_selector(json!({"targetPorts": [{"number": 1}]}), Err("spec.selector names no labels"))]
    #[case::empty_selector(json!({"selector": {"matchLabels": {}}, "targetPorts": [{"number": 1}]}), Err("spec.selector names no labels"))]
    #[case::strange_selector(json!({"selector": {"a": 1}, "targetPortNumber": 1}), Err("spec.selector: a value is no text"))]
    #[case::no_ports(json!({"selector": {"a": "b"}}), Err("spec.targetPorts names no number"))]
    fn pools(#[case] spec: Value, #[case] expected: Result<(&str, Vec<u64>), &str>) {
        let read = Pool::read(&json!({"spec": spec}));
        let expected = expected.map(|(selector, ports)| Pool { selector: selector.to_owned(), ports });
        assert_eq!(read, expected.map_err(str::to_owned));
    }

    #[test]
    fn endpoints_are_ready_pods_times_ports() {
        let mut going = pod("d", "10.0.0.4", "True");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let pods = [
            pod("a", "10.0.0.1", "True"),
            pod("b", "10.0.0.2", "False"),
            pod("c", "fd00::3", "True"),
            going,
            pod("e", "", "True"),
            json!({"metadata": {"name": "f"}}),
        ];
        let pool = Pool { selector: String::new(), ports: vec![1, 2] };
        let endpoints = pool.endpoints(&pods.iter().collect::<Vec<_>>());
        assert_eq!(endpoints, ["10.0.0.1:1", "10.0.0.1:2", "[fd00::3]:1", "[fd00::3]:2"]);
    }
}
