//! Rules: any text, about one object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let object = json!({"name": "a", "list": [1, 2.5, "x", null], "map": {"k": true}});
    let _ = apiserver::holds(text, &object);
});
