//! Pools: the endpoint picker was asked, its choice was followed, and nothing else chose in its place.

mod bodies;
mod choice;
mod failure;
mod status;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{CHECK, Call, Check, Pool, PoolOf, Stage, chat, every_path, fake::Fake, picked};
use verdict::capability;

/// The Inference Extension's header that tells a test picker which endpoints to choose.
const SELECT: &str = "test-epp-endpoint-selection";
/// Our own, for what that one cannot say.
const PICK: &str = "x-igc-pick";
/// The header of a choice, which is the picker's to set.
const DESTINATION: &str = "x-gateway-destination-endpoint";
/// How many requests show what becomes of a pool without its picker.
const COUNTED: usize = 20;

const POOL: Check = Check { capability: Some(capability::POOL), observe: picked::observe, ..CHECK };

fn with_header(name: &str, value: &str) -> Value {
    let mut matching = every_path();
    matching["headers"] = json!([{"name": name, "value": value}]);
    matching
}

fn models() -> Call {
    Call::get("/v1/models")
}

/// A pool called alpha, and all of the stage's hostname leading to it. It serves.
async fn routed(stage: &mut Stage, wanted: PoolOf) -> Result<Pool> {
    let pool = stage.pool(wanted).await?;
    stage.intent("pool-route", json!({"rules": [{"match": every_path(), "pool": pool.name}]})).await?;
    stage.settle(|| chat("alpha").header(SELECT, pool.endpoint(0)), "alpha").await?;
    Ok(pool)
}

fn alpha(check: &str) -> Fake {
    Fake::of(check).pool("alpha", 3)
}
