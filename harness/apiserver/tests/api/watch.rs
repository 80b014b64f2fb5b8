//! Watches: from a version on, with bookmarks, by selectors, until they expire.

use std::time::Duration;

use apiserver::kinds;
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use crate::world::{World, config_map};

/// Long enough for a machine that is busy with other things; only a broken server takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a watch says next, in short.
async fn next(stream: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin)) -> String {
    let event = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    match event {
        None => "end".into(),
        Some(Ok(WatchEvent::Added(o))) => format!("+{}", o.name_any()),
        Some(Ok(WatchEvent::Modified(o))) => format!("~{}", o.name_any()),
        Some(Ok(WatchEvent::Deleted(o))) => format!("-{}", o.name_any()),
        Some(Ok(WatchEvent::Bookmark(b))) => format!("@{}", b.metadata.resource_version),
        Some(Ok(WatchEvent::Error(status))) => format!("!{} {}", status.code, status.reason),
        Some(Err(error)) => format!("!{error}"),
    }
}

fn create(world: &World, name: &str, labels: Value) {
    let metadata = json!({"name": name, "namespace": "default", "labels": labels});
    world.keep("ConfigMap", name, json!({"metadata": metadata}));
}

#[tokio::test]
async fn a_watch_tells_what_came_after_a_version() {
    let world = World::new().await;
    let maps = world.config_maps();
    create(&world, "before", json!({}));
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    create(&world, "between", json!({}));
    let mut stream = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "+between");
    world.store.change(&kinds::CONFIG_MAP, "default", "before", |o| o["data"] = json!({"k": "v"})).unwrap();
    assert_eq!(next(&mut stream).await, "~before");
    world.store.delete(&kinds::CONFIG_MAP, "default", "between").unwrap();
    assert_eq!(next(&mut stream).await, "-between");
}

#[tokio::test]
async fn objects_come_and_go_as_a_selector_holds() {
    let world = World::new().await;
    let maps = world.config_maps();
    create(&world, "a", json!({"app": "x"}));
    create(&world, "b", json!({}));
    let version = world.store.version().to_string();
    let mut stream = maps.watch(&WatchParams::default().labels("app=x"), &version).await.unwrap().boxed();
    let label = |name: &str, labels: Value| {
        world.store.change(&kinds::CONFIG_MAP, "default", name, |o| o["metadata"]["labels"] = labels).unwrap();
    };
    label("b", json!({"app": "x"}));
    label("a", json!({"app": "y"}));
    label("b", json!({"app": "x", "more": "1"}));
    for said in ["+b", "-a", "~b"] {
        assert_eq!(next(&mut stream).await, said);
    }
}

#[tokio::test]
async fn a_forgotten_version_is_expired() {
    let world = World::new().await;
    create(&world, "a", json!({}));
    let old = world.store.version().to_string();
    create(&world, "b", json!({}));
    world.store.compact();
    let maps = world.config_maps();
    let mut stream = maps.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "!410 Expired");
    assert_eq!(next(&mut stream).await, "end");
    let newest = world.store.version().to_string();
    let mut stream = maps.watch(&WatchParams::default(), &newest).await.unwrap().boxed();
    create(&world, "c", json!({}));
    assert_eq!(next(&mut stream).await, "+c");
}

#[tokio::test]
async fn the_history_is_bounded() {
    let world = World::new().await;
    create(&world, "a", json!({}));
    let old = world.store.version().to_string();
    for at in 0..2100 {
        world.store.change(&kinds::CONFIG_MAP, "default", "a", |o| o["data"] = json!({"k": at.to_string()})).unwrap();
    }
    let mut stream = world.config_maps().watch(&WatchParams::default(), &old).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "!410 Expired");
}

#[tokio::test]
async fn bookmarks_say_how_far_the_world_is() {
    let world = World::with_bookmarks(Duration::from_millis(20)).await;
    let version = world.store.version().to_string();
    let mut stream = world.config_maps().watch(&WatchParams::default(), &version).await.unwrap().boxed();
    world.keep("Secret", "s", json!({}));
    let newest = format!("@{}", world.store.version());
    let mut said = next(&mut stream).await;
    while said != newest {
        assert!(said.starts_with('@'), "{said}");
        said = next(&mut stream).await;
    }
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let world = World::new().await;
    let version = world.store.version().to_string();
    let params = WatchParams::default().timeout(1);
    let mut stream = world.config_maps().watch(&params, &version).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, format!("@{version}"), "the last word says how far it got");
    assert_eq!(next(&mut stream).await, "end");
}

#[tokio::test]
async fn the_watcher_of_kube_follows_through_an_expiry() {
    let world = World::new().await;
    create(&world, "a", json!({}));
    let config = watcher::Config::default();
    let mut stream = watcher(world.config_maps(), config).applied_objects().boxed();
    let mut next = async || tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap().name_any();
    assert_eq!(next().await, "a");
    create(&world, "b", json!({}));
    assert_eq!(next().await, "b");
}

#[tokio::test]
async fn a_streaming_list_is_a_watch_with_a_mark() {
    let world = World::new().await;
    create(&world, "a", json!({}));
    let config = watcher::Config::default().streaming_lists();
    let mut stream = watcher(world.config_maps(), config).boxed();
    let mut said = Vec::new();
    while said.last().map(String::as_str) != Some("done") {
        let event = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        said.push(match event {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(o) => o.name_any(),
            watcher::Event::InitDone => "done".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(said.iter().filter(|word| *word != "init").collect::<Vec<_>>(), ["a", "done"]);
}

#[tokio::test]
async fn a_thousand_watches_hear_the_same() {
    let world = World::new().await;
    let maps = world.config_maps();
    let version = world.store.version().to_string();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(maps.watch(&WatchParams::default(), &version).await.unwrap().boxed());
    }
    maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    for stream in &mut streams {
        assert_eq!(next(stream).await, "+a");
    }
    drop(streams);
    maps.create(&PostParams::default(), &config_map("b", json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_the_world_goes_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.server.address()).await.unwrap();
    let version = world.store.version();
    let request =
        format!("GET /api/v1/configmaps?watch=true&resourceVersion={version} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    create(&world, "big", json!({}));
    for at in 0..1200 {
        world.store.change(&kinds::CONFIG_MAP, "default", "big", |o| o["data"] = json!({"k": at.to_string()})).unwrap();
    }
    // What was under way still comes; then the answer ends, before the last of the 1200 changes.
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !read.ends_with(b"0\r\n\r\n") {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "the answer ends in an orderly way");
        read.extend_from_slice(&buffer[..n]);
    }
    let told = String::from_utf8_lossy(&read).matches("\"type\":\"MODIFIED\"").count();
    assert!(told < 1200, "{told} changes");
    assert_eq!(world.send("GET", "/healthz", "", "").await.code(), 200);
}
