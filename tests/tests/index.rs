//! The index may be lost, stale or garbage: the logs are the truth, and nobody notices but the audit log.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::fs;
use std::path::Path;

use sealbus_tests::audit::event;
use sealbus_tests::reading::{ORDERS, numbered, publish, replayed};
use sealbus_tests::{TestBus, allow, allow_stream, sealbus_program, stream};

const TOPIC: &str = "orders/eu";

fn bus() -> TestBus {
    let bus = TestBus::new();
    bus.write_policy(
        &(stream("orders", ORDERS, "orders/#", "")
            + &allow("write", "shop", "publish", "orders/#")
            + &allow_stream("read", "auditor", "replay", "orders")),
    );
    bus
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a file can be copied");
        }
    }
}

fn fill_with_garbage(dir: &Path) {
    for entry in fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            fill_with_garbage(&path);
        } else {
            let mut garbage = vec![0; 20_000];
            getrandom::fill(&mut garbage).expect("the system gives randomness");
            fs::write(&path, garbage).expect("a file can be written");
        }
    }
}

/// What a broker does with an index that somebody has had in hands while it was stopped.
async fn goes_on_with(spoil: impl FnOnce(&Path, &Path)) -> Vec<String> {
    let (program, bus) = (sealbus_program!(), bus());
    let broker = bus.serve(program).await;
    let port = broker.address().port();
    bus.listen_on(port);
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, TOPIC, 0..10).await;
    assert!(broker.terminate().await.success());
    let (index, early) = (bus.path("data/index"), bus.path("early"));
    copy(&index, &early);
    let broker = bus.serve(program).await;
    publish(&shop, TOPIC, 10..20).await;
    assert!(broker.terminate().await.success());
    spoil(&index, &early);
    let broker = bus.serve(program).await;
    // The same incarnation, whose sequence the broker must know to go on with it.
    publish(&shop, TOPIC, 20..30).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(
        replayed(&auditor, "orders").await,
        numbered(0..30),
        "once, in order, whatever the index says"
    );
    let lines = bus.audit().lines();
    lines.iter().map(|line| event(line).to_owned()).filter(|event| event.starts_with("index")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_gone_is_made_anew() {
    let told = goes_on_with(|index, _| fs::remove_dir_all(index).expect("it can be removed")).await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_garbage_is_moved_aside_and_that_is_told() {
    let told = goes_on_with(|index, _| fill_with_garbage(index)).await;
    assert_eq!(told, ["index-rebuilt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_from_before_is_followed_on() {
    let told = goes_on_with(|index, early| {
        fs::remove_dir_all(index).expect("it can be removed");
        copy(early, index);
    })
    .await;
    assert!(told.is_empty(), "{told:?}");
}
