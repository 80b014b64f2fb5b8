//! Interceptors: what stands at the boundaries between the stages of an exchange, and may change what one hands to the next.
//!
//! A gateway has none: its proxies pass everything on as it is ([`Passthrough`]).

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{HeaderMutation, HttpBody};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    bodies::{AbortOnDrop, Body, READ_BUFFER},
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

pub trait Interceptor:
    RouteInterceptor
    + LimitInterceptor
    + PickerInterceptor
    + UpstreamInterceptor
    + ClientInterceptor
    + fmt::Debug
    + Send
    + Sync
{
}

#[derive(Debug)]
pub struct Passthrough;

impl Interceptor for Passthrough {}
impl RouteInterceptor for Passthrough {}
impl LimitInterceptor for Passthrough {}
impl PickerInterceptor for Passthrough {}
impl UpstreamInterceptor for Passthrough {}
impl ClientInterceptor for Passthrough {}

pub trait RouteInterceptor {
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

    fn routed(&self, _table: &Table, entry: Arc<Entry>) -> Arc<Entry> {
        entry
    }

    fn serves_path(&self, served: bool) -> bool {
        served
    }

    /// The model that the body names, before it becomes the header that routes match.
    fn model(&self, _extraction: &Extraction, _request: &RequestHead<'_>, model: Option<String>) -> Option<String> {
        model
    }

    fn local_reply(&self, _failure: &Failure, reply: LocalReply) -> LocalReply {
        reply
    }
}

pub trait LimitInterceptor {
    /// The time that a limiter goes by for a bucket whose windows or refills have this length.
    fn limiter_time(&self, _bucket: &str, _window_ms: u64, now: UnixMillis) -> UnixMillis {
        now
    }

    /// `None` where a request is not limited.
    fn bucket(
        &self,
        _limit: &GlobalLimit,
        _route: &RouteId,
        _headers: &HeaderMap,
        bucket: Option<String>,
    ) -> Option<String> {
        bucket
    }

    fn request_hits(&self, hits: u64) -> u64 {
        hits
    }

    fn budgets(&self, _now: UnixMillis, _budgets: &mut Vec<WindowState>) {}

    /// The local limits on tokens that a request asks, each for so many.
    fn reservations<'r>(&self, _rule: &'r Rule, _backend: &Backend, _reservations: &mut Vec<(&'r LocalLimit, u64)>) {}

    fn admission(&self, _limit: &LocalLimit, admitted: Result<(), BucketDenial>) -> Result<(), BucketDenial> {
        admitted
    }

    fn metering(&self, _reply: &MeteredReply, metering: Metering) -> Metering {
        metering
    }

    fn charges(&self, _table: &Table, _rule: &Rule, _usage: &Usage, _charges: &mut Charges) {}
}

pub trait PickerInterceptor {
    fn before_picker(&self, _headers: &mut HeaderMap) {}

    /// The headers of a request as the picker sees them; the model's are others.
    fn headers_for_picker<'h>(&self, headers: &'h HeaderMap) -> Cow<'h, HeaderMap> {
        Cow::Borrowed(headers)
    }

    /// The body of a request as the picker sees it, and as it comes back.
    fn body_for_picker(&self, body: Body) -> Body {
        body
    }

    fn picker_messages(&self, piece: HttpBody) -> Vec<HttpBody> {
        vec![piece]
    }

    fn immediate_response(&self, reply: LocalReply) -> LocalReply {
        reply
    }

    fn picker_changes(&self, _headers: &HeaderMap, _changes: &mut HeaderMutation) {}

    /// The endpoint that serves in place of a pool whose picker cannot be reached.
    fn fallback(&self, _table: &Table, _network: &Network) -> Option<SocketAddr> {
        None
    }

    /// Where the choice leads; `None` leaves it to the proxy. `named` is the header, `asked` whether a picker was asked.
    fn destination(
        &self,
        _network: &Network,
        _named: Option<&str>,
        _asked: bool,
        destination: Result<Option<SocketAddr>, Failure>,
    ) -> Result<Option<SocketAddr>, Failure> {
        destination
    }

    fn endpoint(&self, _pool: &Pool, endpoint: SocketAddr) -> SocketAddr {
        endpoint
    }
}

pub trait UpstreamInterceptor {
    fn call<'a>(
        &'a self,
        upstream: &'a Upstream<'a>,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<(Response<Incoming>, AbortOnDrop), Failure>> {
        upstream.call(request).boxed()
    }

    fn reply(&self, _headers: &mut HeaderMap, reply: UpstreamReply) -> (Body, Option<AbortOnDrop>) {
        (reply.body, reply.connection)
    }

    fn response_edits(&self, _headers: &HeaderMap, _body: &Body, _edits: &mut Vec<&HeaderEdit>) {}

    /// How many bytes of a body are read for expressions, if it has at least `size`.
    fn read_buffer(&self, _size: u64, _streaming: bool) -> usize {
        READ_BUFFER
    }

    /// What expressions see of a reply's body: nothing of one that is compressed (seen of agentgateway v1.3.1, on a route to
    /// a Service).
    fn readable(&self, headers: &HeaderMap, read: Bytes) -> Option<Bytes> {
        (!headers.contains_key(header::CONTENT_ENCODING)).then_some(read)
    }

    /// A chat that is read before it is sent to a provider.
    fn chat(&self, _chat: &mut Value) {}

    fn expression_bodies(&self, _request: &mut Option<Bytes>, _reply: &mut Option<Bytes>) {}

    fn transformed(&self, _before: &HeaderMap, _after: &mut HeaderMap) {}
}

pub trait ClientInterceptor {
    /// What the client gets, and whether the proxy answered itself.
    fn respond(&self, _is_own: bool, response: Response<Body>) -> BoxFuture<'_, Response<Body>> {
        std::future::ready(response).boxed()
    }

    /// Whether a connection that has served a request is closed at the next one, without a word.
    fn hangs_up(&self) -> bool {
        false
    }
}
