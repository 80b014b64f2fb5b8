//! Kinds of Envoy AI Gateway and Envoy Gateway, beside those that every world has.

use apiserver::Kind;

pub use crate::kinds::*;

/// aigateway.envoyproxy.io v1beta1
pub const AI_GATEWAY_ROUTE: Kind = Kind::of("aigateway.envoyproxy.io", "AIGatewayRoute");
/// aigateway.envoyproxy.io v1beta1
pub const AI_SERVICE_BACKEND: Kind = Kind::of("aigateway.envoyproxy.io", "AIServiceBackend");
/// gateway.envoyproxy.io v1alpha1
pub const BACKEND: Kind = Kind::of("gateway.envoyproxy.io", "Backend");
/// gateway.envoyproxy.io v1alpha1
pub const BACKEND_TRAFFIC_POLICY: Kind = Kind::of("gateway.envoyproxy.io", "BackendTrafficPolicy");
/// gateway.envoyproxy.io v1alpha1
pub const CLIENT_TRAFFIC_POLICY: Kind = Kind::of("gateway.envoyproxy.io", "ClientTrafficPolicy");
/// gateway.envoyproxy.io v1alpha1
pub const ENVOY_PROXY: Kind = Kind::of("gateway.envoyproxy.io", "EnvoyProxy");
/// gateway.envoyproxy.io v1alpha1
pub const HTTP_ROUTE_FILTER: Kind = Kind::of("gateway.envoyproxy.io", "HTTPRouteFilter");
