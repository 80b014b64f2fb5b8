//! Kinds that every world has: those of Kubernetes, of the Gateway API, of the inference extension and of KServe.

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
