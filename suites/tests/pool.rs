//! Pools: the endpoint picker was asked, its choice was followed, and nothing else chose in its place.

mod bodies;
mod choice;
mod failure;
mod status;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, ObjectRef, Pool, PoolOf, Stage, Until, chat,
    fake::{CONTROLLER, Fake, conditions},
    object, picked,
};
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

fn everything() -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}})
}

fn with_header(name: &str, value: &str) -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": name, "value": value}]})
}

fn models() -> Call {
    Call::get("/v1/models")
}

/// A pool called alpha, and all of the stage's hostname leading to it. It serves.
async fn routed(stage: &mut Stage, wanted: PoolOf) -> Result<Pool> {
    let pool = stage.pool(wanted).await?;
    stage.intent("pool-route", json!({"rules": [{"match": everything(), "pool": pool.name}]})).await?;
    stage.settle(|| chat("alpha").header(SELECT, pool.endpoint(0)), "alpha").await?;
    Ok(pool)
}

async fn see_pool(stage: &mut Stage, name: &str, pool: &str, until: Until) -> Result<()> {
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", stage.namespace(), pool);
    stage.see(name, &pool, until, 60).await.map(drop)
}

fn route_object(stage: &Stage, name: &str) -> ObjectRef {
    object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), name)
}

fn alpha(check: &str) -> Fake {
    Fake::of(check).pool("alpha", 3)
}

fn of_the_gateway(fake: Fake) -> Fake {
    fake.fact("gateway", json!({"name": "gw", "namespace": "gws"}))
}

/// The status of a route or a pool of generation 1 whose one entry, about the Gateway called gw, says this.
fn entry(said: &[(&str, &str, &str)]) -> Value {
    let gateway = json!({"name": "gw", "namespace": "gws"});
    let entry = json!({"parentRef": gateway, "controllerName": CONTROLLER, "conditions": conditions(1, said)});
    json!({"metadata": {"generation": 1}, "status": {"parents": [entry]}})
}
