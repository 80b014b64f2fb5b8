//! Kinds: how objects are called by controllers, whatever version they were written in.

use std::borrow::Cow;
use std::fmt;

/// A kind of object: its API group (empty for the core group) and its kind, without a version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Kind {
    /// The API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// The kind in CamelCase, `HTTPRoute`.
    pub kind: Cow<'static, str>,
}

impl Kind {
    /// A kind known when the program is written.
    pub const fn of(group: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), kind: Cow::Borrowed(kind) }
    }

    /// A kind that is read from an object or a reference.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: Cow::Owned(group.into()), kind: Cow::Owned(kind.into()) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

/// The kinds that the rehearsal's controllers speak of.
pub mod kinds {
    use super::Kind;

    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident = $group:literal, $kind:literal;)*) => {
            $($(#[$doc])* pub const $name: Kind = Kind::of($group, $kind);)*
        };
    }

    kinds! {
        /// core v1
        NAMESPACE = "", "Namespace";
        /// core v1
        POD = "", "Pod";
        /// core v1
        SERVICE = "", "Service";
        /// core v1
        ENDPOINTS = "", "Endpoints";
        /// core v1
        CONFIG_MAP = "", "ConfigMap";
        /// core v1
        SECRET = "", "Secret";
        /// core v1
        SERVICE_ACCOUNT = "", "ServiceAccount";
        /// core v1
        NODE = "", "Node";
        /// core v1
        EVENT = "", "Event";
        /// discovery.k8s.io v1
        ENDPOINT_SLICE = "discovery.k8s.io", "EndpointSlice";
        /// apps v1
        DEPLOYMENT = "apps", "Deployment";
        /// apps v1
        REPLICA_SET = "apps", "ReplicaSet";
        /// coordination.k8s.io v1
        LEASE = "coordination.k8s.io", "Lease";
        /// apiextensions.k8s.io v1
        CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io", "CustomResourceDefinition";
        /// gateway.networking.k8s.io v1
        GATEWAY_CLASS = "gateway.networking.k8s.io", "GatewayClass";
        /// gateway.networking.k8s.io v1
        GATEWAY = "gateway.networking.k8s.io", "Gateway";
        /// gateway.networking.k8s.io v1
        HTTP_ROUTE = "gateway.networking.k8s.io", "HTTPRoute";
        /// gateway.networking.k8s.io v1beta1
        REFERENCE_GRANT = "gateway.networking.k8s.io", "ReferenceGrant";
        /// gateway.networking.k8s.io v1
        BACKEND_TLS_POLICY = "gateway.networking.k8s.io", "BackendTLSPolicy";
        /// inference.networking.k8s.io v1
        INFERENCE_POOL = "inference.networking.k8s.io", "InferencePool";
        /// serving.kserve.io v1beta1
        INFERENCE_SERVICE = "serving.kserve.io", "InferenceService";
        /// serving.kserve.io
        LLM_INFERENCE_SERVICE = "serving.kserve.io", "LLMInferenceService";
        /// serving.kserve.io
        LLM_INFERENCE_SERVICE_CONFIG = "serving.kserve.io", "LLMInferenceServiceConfig";
        /// aigateway.envoyproxy.io v1beta1
        AI_GATEWAY_ROUTE = "aigateway.envoyproxy.io", "AIGatewayRoute";
        /// aigateway.envoyproxy.io v1beta1
        AI_SERVICE_BACKEND = "aigateway.envoyproxy.io", "AIServiceBackend";
        /// aigateway.envoyproxy.io v1beta1
        BACKEND_SECURITY_POLICY = "aigateway.envoyproxy.io", "BackendSecurityPolicy";
        /// gateway.envoyproxy.io v1alpha1
        BACKEND = "gateway.envoyproxy.io", "Backend";
        /// gateway.envoyproxy.io v1alpha1
        BACKEND_TRAFFIC_POLICY = "gateway.envoyproxy.io", "BackendTrafficPolicy";
        /// gateway.envoyproxy.io v1alpha1
        CLIENT_TRAFFIC_POLICY = "gateway.envoyproxy.io", "ClientTrafficPolicy";
        /// gateway.envoyproxy.io v1alpha1
        ENVOY_PROXY = "gateway.envoyproxy.io", "EnvoyProxy";
        /// gateway.envoyproxy.io v1alpha1
        HTTP_ROUTE_FILTER = "gateway.envoyproxy.io", "HTTPRouteFilter";
        /// gateway.envoyproxy.io v1alpha1
        SECURITY_POLICY = "gateway.envoyproxy.io", "SecurityPolicy";
        /// agentgateway.dev v1alpha1
        AGENTGATEWAY_POLICY = "agentgateway.dev", "AgentgatewayPolicy";
        /// agentgateway.dev v1alpha1
        AGENTGATEWAY_BACKEND = "agentgateway.dev", "AgentgatewayBackend";
        /// agentgateway.dev v1alpha1
        AGENTGATEWAY_PARAMETERS = "agentgateway.dev", "AgentgatewayParameters";
    }
}
