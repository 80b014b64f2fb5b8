//! Structural schemas: compiled once in a process, shared by every world.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use serde_json::Value;

mod compiled;
mod field_path;
pub(crate) mod functions;
pub(crate) mod prune;
mod rule;
pub mod rules;
pub(crate) mod validate;

pub use compiled::{ListType, Schema};

/// A schema as written, compiled at first use.
#[derive(Debug)]
pub struct SchemaSource {
    source: Value,
    compiled: OnceLock<Schema>,
}

/// The schemas of the process by the hash of their text.
static KNOWN: LazyLock<Mutex<HashMap<u64, Vec<Weak<SchemaSource>>>>> = LazyLock::new(Mutex::default);

impl SchemaSource {
    /// The source for this text; equal texts share one compiled schema. No schema means that everything is kept.
    pub fn shared(source: Option<&Value>) -> Arc<Self> {
        let source = source
            .cloned()
            .unwrap_or_else(|| serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = known.entry(hasher.finish()).or_default();
        alike.retain(|schema| schema.strong_count() > 0);
        if let Some(found) = alike.iter().filter_map(Weak::upgrade).find(|s| s.source == source) {
            return found;
        }
        let schema = Arc::new(Self { source, compiled: OnceLock::new() });
        alike.push(Arc::downgrade(&schema));
        known.retain(|_, alike| alike.iter().any(|schema| schema.strong_count() > 0));
        schema
    }

    pub fn source(&self) -> &Value {
        &self.source
    }

    pub fn schema(&self) -> &Schema {
        self.compiled.get_or_init(|| Schema::compile(&self.source))
    }
}
