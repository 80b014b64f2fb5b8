//! Kinds of Envoy AI Gateway and Envoy Gateway, beside those that every world has.

use apiserver::Kind;

pub use crate::kinds::*;

pub const AI_GATEWAY_ROUTE: Kind = Kind::of("aigateway.envoyproxy.io", "AIGatewayRoute");
pub const AI_SERVICE_BACKEND: Kind = Kind::of("aigateway.envoyproxy.io", "AIServiceBackend");
pub const BACKEND: Kind = Kind::of("gateway.envoyproxy.io", "Backend");
pub const BACKEND_TRAFFIC_POLICY: Kind = Kind::of("gateway.envoyproxy.io", "BackendTrafficPolicy");
pub const CLIENT_TRAFFIC_POLICY: Kind = Kind::of("gateway.envoyproxy.io", "ClientTrafficPolicy");
pub const ENVOY_PROXY: Kind = Kind::of("gateway.envoyproxy.io", "EnvoyProxy");
pub const HTTP_ROUTE_FILTER: Kind = Kind::of("gateway.envoyproxy.io", "HTTPRouteFilter");
