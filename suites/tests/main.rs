//! All suites, one module a subject. A check's test is `suite::check`, with a case for each named case.

mod errors;
mod guide_000;
mod guide_001;
mod guide_002;
mod guide_003;
mod guide_004;
mod kserve;
mod pool;
mod registry;
mod routing;
mod status;
mod streaming;
mod tokens;
mod transformation;
mod unit;

/// Worlds are made of objects of many small values, on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
