//! Kinds that every world has: those of Kubernetes, of the Gateway API, of the inference extension and of KServe.

use apiserver::Kind;

pub use apiserver::kinds::*;

pub const GATEWAY_CLASS: Kind = Kind::of("gateway.networking.k8s.io", "GatewayClass");
pub const GATEWAY: Kind = Kind::of("gateway.networking.k8s.io", "Gateway");
pub const HTTP_ROUTE: Kind = Kind::of("gateway.networking.k8s.io", "HTTPRoute");
pub const REFERENCE_GRANT: Kind = Kind::of("gateway.networking.k8s.io", "ReferenceGrant");
pub const INFERENCE_POOL: Kind = Kind::of("inference.networking.k8s.io", "InferencePool");
pub const INFERENCE_SERVICE: Kind = Kind::of("serving.kserve.io", "InferenceService");
pub const LLM_INFERENCE_SERVICE: Kind = Kind::of("serving.kserve.io", "LLMInferenceService");
pub const LLM_INFERENCE_SERVICE_CONFIG: Kind = Kind::of("serving.kserve.io", "LLMInferenceServiceConfig");
