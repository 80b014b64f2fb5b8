//! Structural schemas: compiled once in a process, shared by every world.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use serde_json::Value;
use sha2::{Digest, Sha256};

mod compiled;
pub(crate) mod functions;
pub(crate) mod prune;
pub mod rules;
pub(crate) mod validate;

pub use compiled::{ListType, Schema};

/// A schema as written, compiled at first use.
#[derive(Debug)]
pub struct SchemaSource {
    source: Value,
    compiled: OnceLock<Schema>,
}

static KNOWN: LazyLock<Mutex<HashMap<[u8; 32], Weak<SchemaSource>>>> = LazyLock::new(Mutex::default);

impl SchemaSource {
    /// The source for this text; equal texts share one compiled schema. No schema means that everything is kept.
    pub fn shared(source: Option<&Value>) -> Arc<Self> {
        let source = source
            .cloned()
            .unwrap_or_else(|| serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        let key: [u8; 32] = Sha256::digest(source.to_string().as_bytes()).into();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        known.retain(|_, schema| schema.strong_count() > 0);
        let schema = Arc::new(Self { source, compiled: OnceLock::new() });
        known.insert(key, Arc::downgrade(&schema));
        schema
    }

    /// The schema as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// The compiled schema.
    pub fn schema(&self) -> &Schema {
        self.compiled.get_or_init(|| Schema::compile(&self.source))
    }
}
