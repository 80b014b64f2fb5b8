//! Patches of all three kinds: two JSON documents, the object and the patch, one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use apiserver::patch;
use serde_json::{Deserializer, Value};

fuzz_target!(|bytes: &[u8]| {
    let mut documents = Deserializer::from_slice(bytes).into_iter::<Value>();
    let (Some(Ok(target)), Some(Ok(change))) = (documents.next(), documents.next()) else { return };
    let mut merged = target.clone();
    patch::merge(&mut merged, &change);
    let _ = patch::json::apply(&target, &change);
    let _ = patch::strategic::apply(None, &target, &change);
});
