//! Commands: request headers by which a test tells the picker what to choose.
//!
//! | header | value | effect |
//! |---|---|---|
//! | `test-epp-endpoint-selection` | `10.0.0.1:8000, 10.0.0.2` | as the Inference Extension's own test pickers: these endpoints of the pool, in this order; an address without a port means all of its ports. None of them in the pool: 503 |
//! | `x-igc-pick` | `endpoints=10.0.0.1:9,10.0.0.2:8000` | exactly these, in the pool or not |
//! | `x-igc-pick` | `none` | ImmediateResponse 503, as if no endpoint were ready |
//! | `x-igc-pick` | `shed` | ImmediateResponse 429, as if all endpoints were busy |
//! | `x-igc-pick` | `silent` | the request passes and no endpoint is named |
//! | `x-igc-pick` | `abort` | the stream ends with gRPC status INTERNAL |
//!
//! `x-igc-pick` goes before `test-epp-endpoint-selection`. A value that cannot be read is answered with status 400.

use crate::message::listed;

/// The request header of the Inference Extension's test pickers.
pub const SELECTION: &str = "test-epp-endpoint-selection";
pub const PICK: &str = "x-igc-pick";

/// What a request asks of the picker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// These of the pool.
    Select(Vec<String>),
    /// Exactly these.
    Endpoints(Vec<String>),
    None,
    Shed,
    Silent,
    Abort,
    Unreadable,
}

impl Command {
    /// Reads one header, if it is a command.
    pub(crate) fn of_header(name: &str, value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).map(str::trim);
        let list = |text: &str| listed(text).map(str::to_owned).collect::<Vec<_>>();
        match (name, text) {
            (SELECTION, Ok("")) => None,
            (SELECTION, Ok(text)) => Some(Self::Select(list(text))),
            (PICK, Ok("none")) => Some(Self::None),
            (PICK, Ok("shed")) => Some(Self::Shed),
            (PICK, Ok("silent")) => Some(Self::Silent),
            (PICK, Ok("abort")) => Some(Self::Abort),
            (PICK, Ok(text)) => {
                let endpoints = text.strip_prefix("endpoints=").map(list).filter(|endpoints| !endpoints.is_empty());
                Some(endpoints.map_or(Self::Unreadable, Self::Endpoints))
            }
            (SELECTION | PICK, Err(_)) => Some(Self::Unreadable),
            _ => None,
        }
    }
}

/// The endpoints of a pool that a list of addresses names, in the order of the list, each once.
pub(crate) fn select<'a>(wanted: &[String], pool: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut selected: Vec<String> = Vec::new();
    for wanted in wanted {
        for endpoint in pool.clone().filter(|endpoint| names(wanted, endpoint)) {
            if selected.iter().all(|s| s != endpoint) {
                selected.push(endpoint.to_owned());
            }
        }
    }
    selected
}

/// Whether `wanted` is an endpoint, or its address without the port. Addresses of IPv6 may stand in brackets or not.
fn names(wanted: &str, endpoint: &str) -> bool {
    let bare = |address: &str| address.trim_start_matches('[').trim_end_matches(']').to_owned();
    wanted == endpoint || endpoint.rsplit_once(':').is_some_and(|(address, _)| bare(address) == bare(wanted))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[rstest]
    #[case(SELECTION, "10.0.0.1:80, 10.0.0.2,", Some(Command::Select(owned(&["10.0.0.1:80", "10.0.0.2"]))))]
    #[case(SELECTION, " ", None)]
    #[case(SELECTION, ",", Some(Command::Select(vec![])))]
    #[case(PICK, "none", Some(Command::None))]
    #[case(PICK, "shed", Some(Command::Shed))]
    #[case(PICK, " silent ", Some(Command::Silent))]
    #[case(PICK, "abort", Some(Command::Abort))]
    #[case(PICK, "endpoints=a:1,b:2", Some(Command::Endpoints(owned(&["a:1", "b:2"]))))]
    #[case(PICK, "endpoints=", Some(Command::Unreadable))]
    #[case(PICK, "what", Some(Command::Unreadable))]
    #[case("x-igc-exchange", "none", None)]
    fn commands(#[case] name: &str, #[case] value: &str, #[case] command: Option<Command>) {
        assert_eq!(Command::of_header(name, value.as_bytes()), command);
        assert_eq!(Command::of_header(PICK, b"\xff"), Some(Command::Unreadable));
    }

    #[rstest]
    #[case::in_order(&["10.0.0.3:1", "10.0.0.1:1"], &["10.0.0.3:1", "10.0.0.1:1"])]
    #[case::address_alone(&["10.0.0.1"], &["10.0.0.1:1", "10.0.0.1:2"])]
    #[case::each_once(&["10.0.0.1:2", "10.0.0.1"], &["10.0.0.1:2", "10.0.0.1:1"])]
    #[case::not_there(&["10.0.0.9", "10.0.0.3:9"], &[])]
    #[case::not_half_an_address(&["10.0.0"], &[])]
    #[case::bare_ipv6(&["fd00::1"], &["[fd00::1]:3"])]
    #[case::ipv6_in_brackets(&["[fd00::1]"], &["[fd00::1]:3"])]
    #[case::ipv6_with_port(&["[fd00::1]:3"], &["[fd00::1]:3"])]
    fn selections(#[case] wanted: &[&str], #[case] selected: &[&str]) {
        let pool = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.3:1", "[fd00::1]:3"];
        assert_eq!(select(&owned(wanted), pool.into_iter()), owned(selected));
    }
}
