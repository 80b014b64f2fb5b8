//! How what passes between a proxy and an endpoint picker is wrong. Mended, a client's destination counts for nothing, and a
//! dead endpoint of a list is passed over.

use std::{borrow::Cow, net::SocketAddr};

use envoy_types::pb::envoy::service::ext_proc::v3::{HeaderMutation, HttpBody};
use http::{HeaderMap, HeaderValue};
use hyper::body::Body as _;

use super::{
    Mutants, mutant,
    unfaithful::{CHANGES_HEADERS_FOR_PICKERS as CHANGES_HEADERS, HIDES_HEADERS_FROM_PICKERS as HIDES_HEADERS},
    upstream::cut,
};
use crate::dataplane::{
    bodies::Body,
    interceptor::PickerInterceptor,
    local_reply::{Failure, LocalReply},
    network::Network,
    pool::{DESTINATION, Pool},
    routing::{Table, Target},
};

/// Where a picker's sight of a body ends, in bytes.
const SIGHT: usize = 20;

impl PickerInterceptor for Mutants {
    fn before_picker(&self, headers: &mut HeaderMap) {
        self.enter();
        if self.is_mended() && !self.is(mutant::KEEPS_THE_CLIENTS_DESTINATION) {
            headers.remove(DESTINATION);
        }
    }

    fn headers_for_picker<'h>(&self, headers: &'h HeaderMap) -> Cow<'h, HeaderMap> {
        let canary = headers.keys().find(|name| name.as_str().starts_with(verdict::canary::HEADERS));
        let Some(canary) = canary.filter(|_| self.could_be(&[HIDES_HEADERS, CHANGES_HEADERS])) else {
            return Cow::Borrowed(headers);
        };
        let mut shown = headers.clone();
        if self.is(HIDES_HEADERS) {
            shown.remove(canary);
        } else if self.is(CHANGES_HEADERS) {
            shown.insert(canary.clone(), HeaderValue::from_static("another"));
        }
        Cow::Owned(shown)
    }

    fn body_for_picker(&self, body: Body) -> Body {
        if body.is_end_stream() || !self.is(mutant::CUTS_THE_BODY_THAT_THE_PICKER_SEES) {
            body
        } else {
            cut(body, SIGHT)
        }
    }

    fn picker_messages(&self, piece: HttpBody) -> Vec<HttpBody> {
        let twice = piece.end_of_stream && self.is(mutant::SAYS_TWO_ENDS_OF_STREAM);
        let again = twice.then(|| HttpBody { body: Vec::new(), ..piece.clone() });
        [piece].into_iter().chain(again).collect()
    }

    fn immediate_response(&self, reply: LocalReply) -> LocalReply {
        if self.is(mutant::SWALLOWS_IMMEDIATE_RESPONSES) { LocalReply::empty(500) } else { reply }
    }

    fn picker_changes(&self, headers: &HeaderMap, changes: &mut HeaderMutation) {
        if headers.contains_key(DESTINATION) && self.is(mutant::KEEPS_THE_CLIENTS_DESTINATION) {
            changes.set_headers.retain(|option| {
                option.header.as_ref().is_none_or(|header| !header.key.eq_ignore_ascii_case(DESTINATION))
            });
        }
    }

    fn fallback(&self, table: &Table, network: &Network) -> Option<SocketAddr> {
        if !self.could_be(&[mutant::FAILS_OPEN_TO_ANOTHER_POOL]) {
            return None;
        }
        let mut backends = table.entries().flat_map(|entry| &entry.rule.backends);
        let elsewhere = backends.find_map(|backend| match &backend.target {
            Target::Service { namespace, name, port } => network.endpoint(namespace, name, *port),
            Target::Host { host, port } => {
                let mut parts = host.split('.');
                let (name, namespace) = (parts.next()?, parts.next()?);
                network.endpoint(namespace, name, *port)
            }
            _ => None,
        })?;
        self.is(mutant::FAILS_OPEN_TO_ANOTHER_POOL).then(|| elsewhere.into())
    }

    fn destination(
        &self,
        network: &Network,
        named: Option<&str>,
        asked: bool,
        destination: Result<Option<SocketAddr>, Failure>,
    ) -> Result<Option<SocketAddr>, Failure> {
        if !self.is_mended() {
            return destination;
        }
        let listens = |e: &SocketAddr| network.socket(e.ip(), e.port()).is_ok();
        let mut all = named.into_iter().flat_map(|list| list.split(',')).filter_map(|e| e.trim().parse().ok());
        match named {
            Some(_) if self.is(mutant::TAKES_THE_FIRST_ENDPOINT_ALONE) => {
                all.next().map(Some).ok_or(Failure::NoEndpoint)
            }
            Some(_) => all.find(listens).map(Some).ok_or(Failure::NoEndpoint),
            None if asked && !self.is(mutant::CHOOSES_IN_THE_PICKERS_PLACE) => Err(Failure::NoEndpoint),
            None => Ok(None),
        }
    }

    fn endpoint(&self, pool: &Pool, endpoint: SocketAddr) -> SocketAddr {
        let others_under_way = self.leave() > 0;
        if let Some(another) = pool.endpoints.iter().find(|another| **another != endpoint)
            && self.is(mutant::IGNORES_CHOICE)
        {
            return *another;
        }
        if others_under_way && self.is(mutant::SWAPS_CHOICES) {
            return self.memory().choice.replace(endpoint).unwrap_or(endpoint); // of the request before
        }
        endpoint
    }
}
