//! Worlds from end to end, in this process: what no recording of a real gateway shows.

mod agentgateway;
mod envoy_ai_gateway;
mod llmisvc;
mod picker;
mod pools;
mod restored;
mod stage;
