//! Kinds of agentgateway, beside those that every world has.

use apiserver::Kind;

pub use crate::kinds::*;

/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_POLICY: Kind = Kind::of("agentgateway.dev", "AgentgatewayPolicy");
/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_BACKEND: Kind = Kind::of("agentgateway.dev", "AgentgatewayBackend");
/// agentgateway.dev v1alpha1
pub const AGENTGATEWAY_PARAMETERS: Kind = Kind::of("agentgateway.dev", "AgentgatewayParameters");
