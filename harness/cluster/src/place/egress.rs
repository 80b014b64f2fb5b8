//! The way out of a kind cluster, closed inside its nodes: pods reach pods, live Services and nodes, nothing else, and a dial proves it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{items, text},
    programs::{child::ChildError, engine::Engine},
};

/// Chain of ours in each node's filter table.
const CHAIN: &str = "IGC-EGRESS";
const EXEC: Duration = Duration::from_secs(30);
const DIAL_SECONDS: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub pods: Vec<String>,
    pub nodes: Vec<IpAddr>,
    /// A Service that answers as long as the cluster does: the API server's.
    pub service: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Closed, and proven by an address that answered before and does not any more.
    Closed {
        witness: SocketAddr,
    },
    NotClosed {
        reason: String,
    },
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { witness } => write!(f, "egress: closed ({witness} answered before and does not any more)"),
            Self::NotClosed { reason } => write!(f, "egress: not closed ({reason})"),
        }
    }
}

impl Ranges {
    /// Reads them from the cluster's Node objects and from the Service `default/kubernetes`.
    pub fn of(nodes: &[Value], service: &Value) -> Result<Self, String> {
        let cidrs = nodes.iter().flat_map(|node| items(node, "/spec/podCIDRs"));
        let pods: Vec<String> = cidrs.filter_map(Value::as_str).map(str::to_owned).collect();
        let addresses: Vec<IpAddr> = nodes
            .iter()
            .flat_map(|node| items(node, "/status/addresses"))
            .filter(|address| text(address, "/type") == "InternalIP")
            .filter_map(|address| text(address, "/address").parse().ok())
            .collect();
        let ip: Option<IpAddr> = text(service, "/spec/clusterIP").parse().ok();
        let port = service["spec"]["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        match (pods.is_empty(), addresses.is_empty(), ip.zip(port)) {
            (true, ..) => Err("no node has a range of pod addresses (spec.podCIDRs)".to_owned()),
            (_, true, _) => Err("no node has an address (status.addresses of type InternalIP)".to_owned()),
            (.., None) => Err("Service default/kubernetes has no address".to_owned()),
            (.., Some(service)) => Ok(Self { pods, nodes: addresses, service: service.into() }),
        }
    }
}

/// Closes the way out of the nodes, and proves it from inside a pod's network on each of them.
/// Fails only when cancelled; whatever else goes wrong is the reason of [`Egress::NotClosed`].
pub async fn close(
    engine: &Engine,
    nodes: &[String],
    ranges: &Ranges,
    cancel: &CancellationToken,
) -> Result<Egress, ChildError> {
    match try_close(engine, nodes, ranges, cancel).await {
        Ok(closed) => Ok(closed),
        Err(Obstacle::Call(error)) if error.is_cancelled() => Err(error),
        Err(obstacle) => Ok(Egress::NotClosed { reason: obstacle.to_string() }),
    }
}

async fn open(engine: &Engine, nodes: &[String], cancel: &CancellationToken) -> Result<(), ChildError> {
    for node in nodes {
        exec(engine, node, &opening(), cancel).await?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("{0}")]
    Call(#[from] ChildError),
    #[error("{0}")]
    Proof(String),
}

async fn try_close(
    engine: &Engine,
    nodes: &[String],
    ranges: &Ranges,
    cancel: &CancellationToken,
) -> Result<Egress, Obstacle> {
    let Some(first) = nodes.first() else { return Err(Obstacle::Proof("the cluster has no nodes".to_owned())) };
    let gateway = read_gateway(&exec(engine, first, "ip route show default", cancel).await?)
        .ok_or_else(|| Obstacle::Proof(format!("node {first} has no default route whose gateway could be dialled")))?;
    // The handshake is the kernel's: nobody needs to accept.
    let listener = TcpListener::bind((gateway, 0))
        .map_err(|error| Obstacle::Proof(format!("the engine's network has its gateway {gateway} on another machine than this one ({error}), so no dial can prove it")))?;
    let witness = listener.local_addr().map_err(|error| Obstacle::Proof(error.to_string()))?;

    let before = dial_from_all(engine, nodes, &[witness, ranges.service], cancel).await?;
    for (node, answers) in &before {
        if !answers[1] {
            return Err(Obstacle::Proof(format!("no pod of node {node} reaches the Service {}", ranges.service)));
        }
        if !answers[0] {
            return Err(Obstacle::Proof(format!(
                "{witness} did not answer a pod of node {node} before either, so nothing can be proven"
            )));
        }
    }
    for node in nodes {
        exec(engine, node, &closing(ranges), cancel).await?;
    }
    let after = dial_from_all(engine, nodes, &[witness, ranges.service], cancel).await?;
    for (node, answers) in &after {
        let wrong = match (answers[0], answers[1]) {
            (false, true) => continue,
            (true, _) => format!("{witness} still answers a pod of node {node}"),
            (false, false) => format!("the Service {} no longer answers a pod of node {node}", ranges.service),
        };
        // Rules that do not do what they should are no rules.
        open(engine, nodes, cancel).await?;
        return Err(Obstacle::Proof(format!("{wrong}; the rules were taken back")));
    }
    Ok(Egress::Closed { witness })
}

async fn dial_from_all<'n>(
    engine: &Engine,
    nodes: &'n [String],
    addresses: &[SocketAddr],
    cancel: &CancellationToken,
) -> Result<Vec<(&'n String, Vec<bool>)>, Obstacle> {
    let mut seen = Vec::new();
    for node in nodes {
        let said = exec(engine, node, &dialling(addresses), cancel).await?;
        let answers = read_answers(&said, addresses.len())
            .ok_or_else(|| Obstacle::Proof(format!("node {node} has no pod network to dial from ({})", said.trim())))?;
        seen.push((node, answers));
    }
    Ok(seen)
}

async fn exec(engine: &Engine, node: &str, script: &str, cancel: &CancellationToken) -> Result<String, ChildError> {
    Ok(engine.call(["exec", node, "sh", "-ec", script], EXEC, cancel).await?.stdout)
}

fn read_gateway(routes: &str) -> Option<IpAddr> {
    let words: Vec<&str> = routes.lines().next()?.split_whitespace().collect();
    let via = words.iter().position(|word| *word == "via")?;
    words.get(via + 1)?.parse().ok()
}

fn read_answers(said: &str, expected: usize) -> Option<Vec<bool>> {
    let answers: Vec<bool> =
        said.lines().filter_map(|line| line.strip_prefix("dialled ")).map(|code| code.trim() == "0").collect();
    (answers.len() == expected).then_some(answers)
}

/// Dials from inside the network namespace of one of the node's pods.
fn dialling(addresses: &[SocketAddr]) -> String {
    let mut script = "namespace=$(ls /run/netns | head -n 1)\n[ -n \"$namespace\" ] || { echo 'no namespace in /run/netns'; exit 0; }\n".to_owned();
    for address in addresses {
        let (ip, port) = (address.ip(), address.port());
        script += &format!(
            "code=0; nsenter --net=/run/netns/$namespace timeout {DIAL_SECONDS} bash -c 'exec 3<>/dev/tcp/{ip}/{port}' 2>/dev/null || code=$?\necho \"dialled $code\"\n"
        );
    }
    script
}

fn opening() -> String {
    ["iptables", "ip6tables"]
        .map(|table| {
            format!(
                "if {table} -w -n -L {CHAIN} >/dev/null 2>&1; then {table} -w -D FORWARD -j {CHAIN} || true; {table} -w -F {CHAIN}; {table} -w -X {CHAIN}; fi\n"
            )
        })
        .concat()
}

/// The rules, first in FORWARD: what goes between this machine, pods and nodes goes on to the node's own rules.
///
/// A packet that is still addressed to the range of Services here belongs to none (live ones have got a pod's address
/// by then), and would leave through the default route: it is refused like all else.
fn closing(ranges: &Ranges) -> String {
    let mut script = opening();
    for (table, reject, v6) in
        [("iptables", "icmp-admin-prohibited", false), ("ip6tables", "icmp6-adm-prohibited", true)]
    {
        let pods = ranges.pods.iter().filter(|range| range.contains(':') == v6).cloned();
        let nodes = ranges.nodes.iter().filter(|ip| ip.is_ipv6() == v6).map(IpAddr::to_string);
        let allowed: Vec<String> = pods.chain(nodes).collect();
        if !ranges.pods.iter().any(|range| range.contains(':') == v6) {
            continue; // pods have no address of this family
        }
        script += &format!("{table} -w -N {CHAIN}\n");
        // Answers to who came from outside, over a node port for example.
        script +=
            &format!("{table} -w -A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j RETURN\n");
        for range in allowed {
            script += &format!("{table} -w -A {CHAIN} -d {range} -j RETURN\n");
        }
        script += &format!("{table} -w -A {CHAIN} -p tcp -j REJECT --reject-with tcp-reset\n");
        script += &format!("{table} -w -A {CHAIN} -j REJECT --reject-with {reject}\n");
        script += &format!("{table} -w -I FORWARD 1 -j {CHAIN}\n");
    }
    script
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::programs::fakes::Fakes;

    fn node(cidrs: Value, ip: &str) -> Value {
        json!({"spec": {"podCIDRs": cidrs}, "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": ip}]}})
    }

    fn service() -> Value {
        json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}})
    }

    fn ranges() -> Ranges {
        Ranges::of(&[node(json!(["10.244.0.0/24"]), "172.18.0.2")], &service()).unwrap()
    }

    #[rstest]
    #[case::no_nodes(vec![], service(), "no node has a range of pod addresses (spec.podCIDRs)")]
    #[case::no_range(vec![node(json!(null), "172.18.0.2")], service(), "no node has a range of pod addresses (spec.podCIDRs)")]
    #[case::no_address(vec![node(json!(["10.244.0.0/24"]), "")], service(), "no node has an address (status.addresses of type InternalIP)")]
    #[case::headless(vec![node(json!(["10.244.0.0/24"]), "172.18.0.2")], json!({"spec": {"clusterIP": "None"}}), "Service default/kubernetes has no address")]
    fn ranges_that_are_not_there(#[case] nodes: Vec<Value>, #[case] service: Value, #[case] expected: &str) {
        assert_eq!(Ranges::of(&nodes, &service).unwrap_err(), expected);
    }

    #[test]
    fn the_rules_of_one_node() {
        insta::assert_snapshot!(closing(&ranges()), @r#"
        if iptables -w -n -L IGC-EGRESS >/dev/null 2>&1; then iptables -w -D FORWARD -j IGC-EGRESS || true; iptables -w -F IGC-EGRESS; iptables -w -X IGC-EGRESS; fi
        if ip6tables -w -n -L IGC-EGRESS >/dev/null 2>&1; then ip6tables -w -D FORWARD -j IGC-EGRESS || true; ip6tables -w -F IGC-EGRESS; ip6tables -w -X IGC-EGRESS; fi
        iptables -w -N IGC-EGRESS
        iptables -w -A IGC-EGRESS -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j RETURN
        iptables -w -A IGC-EGRESS -d 10.244.0.0/24 -j RETURN
        iptables -w -A IGC-EGRESS -d 172.18.0.2 -j RETURN
        iptables -w -A IGC-EGRESS -p tcp -j REJECT --reject-with tcp-reset
        iptables -w -A IGC-EGRESS -j REJECT --reject-with icmp-admin-prohibited
        iptables -w -I FORWARD 1 -j IGC-EGRESS
        "#);
    }

    #[rstest]
    #[case("default via 172.18.0.1 dev eth0 \n", Some("172.18.0.1"))]
    #[case("default dev eth0 scope link\n", None)]
    #[case("", None)]
    fn gateways(#[case] routes: &str, #[case] expected: Option<&str>) {
        assert_eq!(read_gateway(routes).map(|ip| ip.to_string()).as_deref(), expected);
    }

    /// An engine whose node has loopback as its gateway; `dials` says what each pair of dials ends with.
    async fn engine(dials: &str) -> (Fakes, Engine) {
        let fakes = Fakes::new();
        let state = fakes.path().join("state");
        let script = format!(
            r#"case "$1 $5" in
"info "*) echo '{{"ServerVersion":"27"}}';;
*"show default") echo 'default via 127.0.0.1 dev eth0';;
*namespace*) n=$(cat {state} 2>/dev/null || echo 0); n=$((n+1)); echo $n > {state}; {dials};;
esac"#,
            state = state.display()
        );
        let fakes = fakes.program("docker", &script);
        let engine = Engine::find(&fakes.programs(), &CancellationToken::new()).await.unwrap();
        (fakes, engine)
    }

    async fn closed(dials: &str) -> (Vec<String>, String) {
        let (fakes, engine) = engine(dials).await;
        let egress = close(&engine, &["node".to_owned()], &ranges(), &CancellationToken::new()).await.unwrap();
        let text = match &egress {
            Egress::Closed { witness } => egress.to_string().replace(&witness.to_string(), "WITNESS"),
            _ => egress.to_string(),
        };
        (fakes.calls(), text)
    }

    #[tokio::test]
    async fn closed_is_what_answered_before_and_does_not_after() {
        let (calls, text) = closed("if [ $n = 1 ]; then echo dialled 0; else echo dialled 1; fi; echo dialled 0").await;
        assert_eq!(text, "egress: closed (WITNESS answered before and does not any more)");
        assert!(calls.iter().any(|call| call.contains("-I FORWARD 1 -j IGC-EGRESS")), "{calls:#?}");
    }

    #[rstest]
    #[case::answers_still(
        "echo dialled 0; echo dialled 0",
        "still answers a pod of node node; the rules were taken back)"
    )]
    #[case::never_answered(
        "echo dialled 1; echo dialled 0",
        "did not answer a pod of node node before either, so nothing can be proven)"
    )]
    #[case::timed_out_before(
        "echo dialled 124; echo dialled 0",
        "did not answer a pod of node node before either, so nothing can be proven)"
    )]
    #[case::no_service("echo dialled 0; echo dialled 1", "no pod of node node reaches the Service 10.96.0.1:443)")]
    #[case::service_lost(
        "if [ $n = 1 ]; then echo dialled 0; echo dialled 0; else echo dialled 1; echo dialled 1; fi",
        "the Service 10.96.0.1:443 no longer answers a pod of node node; the rules were taken back)"
    )]
    #[case::no_pod(
        "echo 'no namespace in /run/netns'",
        "node node has no pod network to dial from (no namespace in /run/netns))"
    )]
    #[tokio::test]
    async fn what_is_not_proven_is_not_closed(#[case] dials: &str, #[case] reason: &str) {
        let (_, text) = closed(dials).await;
        assert!(text.starts_with("egress: not closed (") && text.ends_with(reason), "{text}");
    }

    #[tokio::test]
    async fn a_node_without_iptables_is_not_closed_and_a_cancelled_run_is_no_answer() {
        let fakes = Fakes::new().program(
            "docker",
            "[ $1 = info ] && echo '{\"ServerVersion\":\"27\"}' && exit; echo 'sh: 1: ip: not found' >&2; exit 127",
        );
        let engine = Engine::find(&fakes.programs(), &CancellationToken::new()).await.unwrap();
        let cancel = CancellationToken::new();
        let egress = close(&engine, &["node".to_owned()], &ranges(), &cancel).await.unwrap();
        insta::assert_snapshot!(egress, @r"
        egress: not closed (`docker exec node sh -ec 'ip route show default'` ended with exit status: 127
            sh: 1: ip: not found)
        ");
        cancel.cancel();
        assert!(close(&engine, &["node".to_owned()], &ranges(), &cancel).await.unwrap_err().is_cancelled());
    }
}
