//! What only kubectl asks for: tables, OpenAPI, bodies in protobuf and port forwarding. The core can be read without it.

pub(super) mod forward;
mod jsonpath;
pub(super) mod openapi;
pub(super) mod protobuf;
pub(super) mod table;
