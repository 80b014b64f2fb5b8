//! The definitions of custom resources that a world serves, in the API server's short form, read once in a process.

use std::sync::LazyLock;

use apiserver::Definitions;

use crate::dialects;

pub static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let documents = [
        include_str!("schemas/gateway-api.yaml"),
        include_str!("schemas/inference.yaml"),
        include_str!("schemas/kserve.yaml"),
    ];
    let documents: Vec<&str> = documents.into_iter().chain(dialects::schemas()).collect();
    Definitions::read(include_str!("schemas/pieces.yaml"), &documents).expect("the definitions can be read")
});
