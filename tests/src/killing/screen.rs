//! A live subscriber. What it sees must be durable, wherever the broker is killed in the next moment.

use std::sync::Arc;

use sealbus_client::DeliveryError;
use serde_json::json;

use super::ground::{Ground, PATIENCE};
use super::history::Reading;

/// Listens until readers stop.
pub(super) async fn watch(ground: Arc<Ground>) {
    let bus = ground.connect("screen").await;
    let mut messages = loop {
        match bus.subscribe("#").await {
            Ok(messages) => break messages,
            Err(_) => tokio::time::sleep(PATIENCE).await,
        }
    };
    while !ground.readers_stop() {
        let Ok(next) = tokio::time::timeout(PATIENCE, messages.next()).await else { continue };
        let history = &ground.history;
        match next.expect("a subscription does not end by itself") {
            Ok(message) => history.received(Reading::Live, &message),
            Err(DeliveryError::Gap { missed, .. } | DeliveryError::Lagged { missed }) => {
                history.note("missed", &json!({ "who": "screen", "messages": missed }));
            }
            Err(error @ (DeliveryError::Rejected(_) | DeliveryError::Skipped { .. })) => {
                history.note("rejected", &json!({ "who": "screen", "why": error.to_string() }));
            }
            Err(error @ DeliveryError::Closed(_)) => panic!("the live subscriber cannot go on: {error}"),
        }
    }
}
