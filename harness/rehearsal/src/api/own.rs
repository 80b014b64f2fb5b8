//! Our own definitions: built-in kinds and the custom resources of the guides, read once in a process.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::definition;
use super::kind::{Kind, kinds};
use super::meta;
use super::resource::Resource;
use super::state::{State, stamp};

/// A definition that is part of this program.
pub(crate) struct Own {
    pub resource: Arc<Resource>,
    definition: Value,
}

const BUILT_IN: &[&str] = &[include_str!("../schemas/built-in.yaml")];
const CUSTOM: &[&str] = &[include_str!("../schemas/pending.yaml")];

/// All definitions of our own.
pub(crate) static DEFINITIONS: LazyLock<Vec<Own>> = LazyLock::new(|| {
    let read = |(text, custom): (&&str, bool)| -> Vec<Own> {
        let definitions: Vec<Value> = serde_saphyr::from_multiple(text).expect("our own definitions are YAML");
        definitions
            .into_iter()
            .map(|definition| Own {
                resource: Arc::new(Resource::read(&definition, custom).expect("our own definitions are complete")),
                definition,
            })
            .collect()
    };
    BUILT_IN.iter().map(|t| (t, false)).chain(CUSTOM.iter().map(|t| (t, true))).flat_map(read).collect()
});

/// Serves our own definitions; custom ones are objects of the world too.
pub(crate) fn install(state: &mut State, now: jiff::Timestamp, wanted: impl Fn(&Kind) -> bool) {
    for own in DEFINITIONS.iter() {
        if own.resource.custom && !wanted(&own.resource.kind) {
            continue;
        }
        state.serve(own.resource.clone());
        if own.resource.custom {
            let mut object = own.definition.clone();
            definition::complete(&mut object);
            let meta = meta::meta_mut(&mut object);
            meta.insert("uid".into(), json!(state.new_uid()));
            meta.insert("creationTimestamp".into(), json!(stamp(now)));
            meta.insert("generation".into(), json!(1));
            definition::establish(&mut object, &stamp(now));
            let name = meta::name(&object).to_owned();
            state.commit(&kinds::CUSTOM_RESOURCE_DEFINITION, (String::new(), name), Some(object));
        }
    }
}
