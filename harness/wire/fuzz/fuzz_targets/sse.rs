//! Event streams: wherever a stream is cut, the reader says the same, and it never panics.
//! Run: `cargo +nightly fuzz run sse` in harness/wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::sse::{Reader, parse};

fuzz_target!(|input: &[u8]| {
    // the first byte says where the rest is cut
    let Some((cut, stream)) = input.split_first() else { return };
    let at = usize::from(*cut) * stream.len() / 255;
    let whole = parse(stream);
    let mut reader = Reader::new();
    let mut told = reader.feed(&stream[..at]).to_vec();
    told.extend_from_slice(reader.feed(&stream[at..]));
    assert_eq!(told, whole.events);
    assert_eq!(reader.finish(), whole);
    for event in &whole.events {
        assert!(event.start < event.end && event.end <= stream.len() as u64);
        assert!(!event.data.contains('\r'));
    }
});
