//! Kinds that the world speaks of: those of Kubernetes, and the custom ones of gateways and KServe.

use apiserver::Kind;

pub use apiserver::kinds::*;

/// gateway.networking.k8s.io v1
pub const GATEWAY_CLASS: Kind = Kind::of("gateway.networking.k8s.io", "GatewayClass");
/// gateway.networking.k8s.io v1
pub const GATEWAY: Kind = Kind::of("gateway.networking.k8s.io", "Gateway");
/// gateway.networking.k8s.io v1
pub const HTTP_ROUTE: Kind = Kind::of("gateway.networking.k8s.io", "HTTPRoute");
/// gateway.networking.k8s.io v1beta1
pub const REFERENCE_GRANT: Kind = Kind::of("gateway.networking.k8s.io", "ReferenceGrant");
/// inference.networking.k8s.io v1
pub const INFERENCE_POOL: Kind = Kind::of("inference.networking.k8s.io", "InferencePool");
/// serving.kserve.io v1beta1
pub const INFERENCE_SERVICE: Kind = Kind::of("serving.kserve.io", "InferenceService");
/// serving.kserve.io
pub const LLM_INFERENCE_SERVICE: Kind = Kind::of("serving.kserve.io", "LLMInferenceService");
/// serving.kserve.io
pub const LLM_INFERENCE_SERVICE_CONFIG: Kind = Kind::of("serving.kserve.io", "LLMInferenceServiceConfig");
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
/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_POLICY: Kind = Kind::of("agentgateway.dev", "AgentgatewayPolicy");
/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_BACKEND: Kind = Kind::of("agentgateway.dev", "AgentgatewayBackend");
/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_PARAMETERS: Kind = Kind::of("agentgateway.dev", "AgentgatewayParameters");
