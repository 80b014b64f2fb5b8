//! Kinds of agentgateway, beside those that every world has.

use apiserver::Kind;

pub use crate::kinds::*;

pub const AGENTGATEWAY_POLICY: Kind = Kind::of("agentgateway.dev", "AgentgatewayPolicy");
pub const AGENTGATEWAY_BACKEND: Kind = Kind::of("agentgateway.dev", "AgentgatewayBackend");
pub const AGENTGATEWAY_PARAMETERS: Kind = Kind::of("agentgateway.dev", "AgentgatewayParameters");
