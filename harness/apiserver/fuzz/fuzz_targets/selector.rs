//! Label and field selectors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use apiserver::selector::{FieldSelector, LabelSelector};
use serde_json::json;

fuzz_target!(|text: &str| {
    let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "n": "5"}}});
    if let Ok(labels) = LabelSelector::read(text) {
        labels.matches(&object);
    }
    if let Ok(fields) = FieldSelector::read(text) {
        fields.matches(&object);
    }
});
