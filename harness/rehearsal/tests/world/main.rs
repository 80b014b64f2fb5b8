//! Worlds from end to end, in this process: what the recordings of real gateways say, said again.

mod agentgateway;
mod envoy_ai_gateway;
mod kubernetes;
mod llmisvc;
mod picker;
mod pools;
mod restored;
mod stage;
