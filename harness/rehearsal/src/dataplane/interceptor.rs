//! Interceptors: what stands at the boundaries between the stages of an exchange, and may change what one hands to the next.
//!
//! A gateway has none: its proxies pass everything on as it is ([`Passthrough`]).

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{HeaderMutation, HttpBody};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use super::{
    bodies::{AbortOnDrop, Body},
    limits::{BucketDenial, WindowState},
    local_reply::{Failure, LocalReply},
    metering::{Charges, MeteredReply, Metering},
    network::Network,
    pool::Pool,
    routing::{Backend, Entry, Extraction, GlobalLimit, HeaderEdit, LocalLimit, RequestHead, RouteId, Rule, Table},
    upstream::{Upstream, UpstreamReply},
    usage::Usage,
};
use crate::clock::UnixMillis;

/// All boundaries of an exchange.
pub trait Interceptor:
    RouteInterceptor + LimitInterceptor + PickerInterceptor + UpstreamInterceptor + fmt::Debug + Send + Sync
{
}

/// Changes nothing.
#[derive(Debug)]
pub struct Passthrough;

impl Interceptor for Passthrough {}
impl RouteInterceptor for Passthrough {}
impl LimitInterceptor for Passthrough {}
impl PickerInterceptor for Passthrough {}
impl UpstreamInterceptor for Passthrough {}

/// Between a client and the choice of a route.
pub trait RouteInterceptor {
    /// Those of the received headers that are passed on.
    fn forwarded_headers(&self, _received: &HeaderMap, _forwarded: &mut HeaderMap) {}

    /// What a table chose for a request; where the model is read from the body it is asked twice.
    fn matched(
        &self,
        _table: &Table,
        _request: &RequestHead<'_>,
        chosen: Result<Arc<Entry>, Failure>,
    ) -> Result<Arc<Entry>, Failure> {
        chosen
    }

    /// The entry that the exchange goes on with.
    fn routed(&self, _table: &Table, entry: Arc<Entry>) -> Arc<Entry> {
        entry
    }

    /// Whether an AI route serves the request's path.
    fn serves_path(&self, served: bool) -> bool {
        served
    }

    /// The model that the body names, before it becomes the header that routes match.
    fn model(&self, _extraction: &Extraction, _request: &RequestHead<'_>, model: Option<String>) -> Option<String> {
        model
    }

    /// What the proxy answers itself where an exchange failed.
    fn local_reply(&self, _failure: &Failure, reply: LocalReply) -> LocalReply {
        reply
    }
}

/// Around limiters: what they are asked, what they say, and what they are charged.
pub trait LimitInterceptor {
    /// The time that a limiter goes by for a bucket whose windows or refills have this length.
    fn limiter_time(&self, _bucket: &str, _window_ms: u64, now: UnixMillis) -> UnixMillis {
        now
    }

    /// The bucket of the rate limit service that a request falls in; `None` where it is not limited.
    fn bucket(
        &self,
        _limit: &GlobalLimit,
        _route: &RouteId,
        _headers: &HeaderMap,
        bucket: Option<String>,
    ) -> Option<String> {
        bucket
    }

    /// The hits that a request has before its reply.
    fn request_hits(&self, hits: u64) -> u64 {
        hits
    }

    /// How the budgets of a request stand.
    fn budgets(&self, _now: UnixMillis, _budgets: &mut Vec<WindowState>) {}

    /// The local limits on tokens that a request asks, each for so many.
    fn reservations<'r>(&self, _rule: &'r Rule, _backend: &Backend, _reservations: &mut Vec<(&'r LocalLimit, u64)>) {}

    /// What a local limit says.
    fn admission(&self, _limit: &LocalLimit, admitted: Result<(), BucketDenial>) -> Result<(), BucketDenial> {
        admitted
    }

    /// When a reply is charged.
    fn metering(&self, _reply: &MeteredReply, metering: Metering) -> Metering {
        metering
    }

    /// What a reply is charged.
    fn charges(&self, _table: &Table, _rule: &Rule, _usage: &Usage, _charges: &mut Charges) {}
}

/// Between a proxy and an endpoint picker.
pub trait PickerInterceptor {
    /// The headers of a request, before its picker is asked.
    fn before_picker(&self, _headers: &mut HeaderMap) {}

    /// The body of a request as the picker sees it, and as it comes back.
    fn body_for_picker(&self, body: Body) -> Body {
        body
    }

    /// A piece of that body, in messages to the picker.
    fn picker_messages(&self, piece: HttpBody) -> Vec<HttpBody> {
        vec![piece]
    }

    /// The picker's own answer to the client.
    fn immediate_response(&self, reply: LocalReply) -> LocalReply {
        reply
    }

    /// The picker's changes of a request's headers.
    fn picker_changes(&self, _headers: &HeaderMap, _changes: &mut HeaderMutation) {}

    /// The endpoint that serves in place of a pool whose picker cannot be reached.
    fn fallback(&self, _table: &Table, _network: &Network) -> Option<SocketAddr> {
        None
    }

    /// Where the choice leads; `None` leaves it to the proxy. `named` is the header, `asked` whether a picker was asked.
    ///
    /// # Errors
    /// Where it leads nowhere.
    fn destination(
        &self,
        _network: &Network,
        _named: Option<&str>,
        _asked: bool,
        destination: Result<Option<SocketAddr>, Failure>,
    ) -> Result<Option<SocketAddr>, Failure> {
        destination
    }

    /// The endpoint that a request goes to.
    fn endpoint(&self, _pool: &Pool, endpoint: SocketAddr) -> SocketAddr {
        endpoint
    }
}

/// Between a proxy and a backend, and on the reply's way back.
pub trait UpstreamInterceptor {
    /// The call of a backend.
    fn call<'a>(
        &'a self,
        upstream: &'a Upstream<'a>,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<(Response<Incoming>, AbortOnDrop), Failure>> {
        upstream.call(request).boxed()
    }

    /// A reply as it comes from a backend.
    fn reply(&self, _headers: &mut HeaderMap, reply: UpstreamReply) -> (Body, Option<AbortOnDrop>) {
        (reply.body, reply.connection)
    }

    /// The changes of a reply's headers that its route asks for.
    fn response_edits(&self, _headers: &HeaderMap, _body: &Body, _edits: &mut Vec<&HeaderEdit>) {}

    /// The bodies of the request and of the reply that expressions read.
    fn expression_bodies(&self, _request: &mut Option<Bytes>, _reply: &mut Option<Bytes>) {}

    /// The headers of a reply before and after its transformation.
    fn transformed(&self, _before: &HeaderMap, _after: &mut HeaderMap) {}
}
