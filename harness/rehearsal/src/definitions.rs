//! The definitions of custom resources that a world serves, in the API server's short form, read once in a process.

use std::sync::LazyLock;

use apiserver::Definitions;

/// Of the Gateway API, of the inference extension, of KServe and of the gateways.
pub static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let documents = [
        include_str!("schemas/gateway-api.yaml"),
        include_str!("schemas/inference.yaml"),
        include_str!("schemas/kserve.yaml"),
        include_str!("schemas/ai-gateway.yaml"),
        include_str!("schemas/envoy-gateway.yaml"),
        include_str!("schemas/agentgateway.yaml"),
    ];
    Definitions::read(include_str!("schemas/pieces.yaml"), &documents).expect("the definitions can be read")
});
