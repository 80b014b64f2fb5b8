//! Messages of ext_proc: whatever a gateway sends, nothing panics, what is held is bounded, and a request ends once.
//! Run: `cargo +nightly fuzz run messages` in harness/picker.

#![no_main]

#[path = "../../tests/picker/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| oracle::bytes(input));
