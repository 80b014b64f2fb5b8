//! Label and field selectors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use apiserver::selector::{Fields, Labels};
use serde_json::json;

fuzz_target!(|text: &str| {
    let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "n": "5"}}});
    if let Ok(labels) = Labels::read(text) {
        labels.fit(&object);
    }
    if let Ok(fields) = Fields::read(text) {
        fields.fit(&object);
    }
});
