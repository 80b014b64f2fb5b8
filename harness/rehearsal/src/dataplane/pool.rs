//! InferencePools: what a proxy is told of an InferencePool, and where an endpoint picker's choice leads. Pure.

use std::net::SocketAddr;

use super::local_reply::Failure;

/// The header in which an endpoint picker says where a request is to go (GIE protocol 004).
pub const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The metadata in which a proxy says where it went.
pub const SERVED: &str = "x-gateway-destination-endpoint-served";
pub const SERVED_NAMESPACE: &str = "envoy.lb";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its endpoint picker; `None` where the proxy never asks one.
    pub picker: Option<Picker>,
    /// The ready pods that its selector holds, each with each target port.
    pub endpoints: Vec<SocketAddr>,
    pub follows: Follows,
    pub without_picker: WithoutPicker,
    pub served: Served,
    pub asks: Asks,
}

/// The Service of an endpoint picker. It is spoken to over TLS, and any certificate will do: both gateways do it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picker {
    pub namespace: String,
    pub service: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// To endpoints of the pool; without a choice the proxy takes one of them itself (agentgateway in Kubernetes).
    Endpoints,
    /// Wherever the header says, and without it nowhere (Envoy's `ORIGINAL_DST` cluster).
    Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutPicker {
    Refuse,
    GoOn,
    /// The same, except that a request with a body is refused: the body is on its way to the picker already
    /// (agentgateway/agentgateway#3473).
    GoOnWithoutBody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It is, in the metadata of the response (GIE protocol 004).
    Reported,
    Untold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Once (GIE protocol 004).
    Once,
    /// Once for every match of the listener that leads to the pool, one after the other: each has put a filter of the same
    /// name into the proxy's chain, and all of them run (envoyproxy/ai-gateway#2595).
    ForEveryMatch,
}

impl Pool {
    /// Where the destination header leads; `None` leaves the choice to the proxy.
    pub fn destination(&self, said: Option<&str>) -> Result<Option<SocketAddr>, Failure> {
        match (self.follows, said) {
            (Follows::Endpoints, None) => Ok(None),
            (Follows::Endpoints, Some(said)) => match said.parse::<SocketAddr>() {
                Err(error) => Err(Failure::UnreadableChoice(error.to_string())),
                Ok(endpoint) if self.endpoints.contains(&endpoint) => Ok(Some(endpoint)),
                Ok(_) => Err(Failure::NoEndpoint),
            },
            (Follows::Header, said) => {
                said.and_then(|s| s.parse().ok()).map(Some).ok_or(Failure::NoEndpoint) // a list is no address either
            }
        }
    }

    pub fn in_turn(&self, turn: usize) -> Result<SocketAddr, Failure> {
        self.endpoints.get(turn % self.endpoints.len().max(1)).copied().ok_or(Failure::NoEndpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn pool(follows: Follows) -> Pool {
        let endpoints = ["10.244.0.7:8080", "10.244.0.8:8080"].map(|e| e.parse().expect("an endpoint")).to_vec();
        Pool {
            picker: None,
            endpoints,
            follows,
            without_picker: WithoutPicker::Refuse,
            served: Served::Untold,
            asks: Asks::Once,
        }
    }

    /// As recorded of agentgateway in Kubernetes (`32-epp-bad-answers.txt`), and as an `ORIGINAL_DST` cluster does it.
    #[rstest]
    #[case(Follows::Endpoints, Some("10.244.0.8:8080"), Ok(Some("10.244.0.8:8080")))]
    #[case(Follows::Endpoints, Some("127.0.0.1:9"), Err(Failure::NoEndpoint))]
    #[case(Follows::Endpoints, Some("10.244.0.7:8080,10.244.0.8:8080"),
        Err(Failure::UnreadableChoice("invalid socket address syntax".to_owned())))]
    #[case(Follows::Endpoints, None, Ok(None))]
    #[case(Follows::Header, Some("10.244.0.8:8080"), Ok(Some("10.244.0.8:8080")))]
    #[case(Follows::Header, Some("10.244.9.9:80"), Ok(Some("10.244.9.9:80")))]
    #[case(Follows::Header, Some("10.244.0.7:8080,10.244.0.8:8080"), Err(Failure::NoEndpoint))]
    #[case(Follows::Header, None, Err(Failure::NoEndpoint))]
    fn choices_lead(
        #[case] follows: Follows,
        #[case] said: Option<&str>,
        #[case] leads: Result<Option<&str>, Failure>,
    ) {
        let leads = leads.map(|to| to.map(|to| to.parse().expect("an endpoint")));
        assert_eq!(pool(follows).destination(said), leads);
    }

    #[test]
    fn endpoints_are_taken_in_turn() {
        let pool = pool(Follows::Endpoints);
        let expected = [0, 1, 0, 1].map(|at| Ok(pool.endpoints[at]));
        assert_eq!([0, 1, 2, 3].map(|turn| pool.in_turn(turn)), expected);
        assert_eq!(Pool { endpoints: vec![], ..pool }.in_turn(3), Err(Failure::NoEndpoint));
    }
}
