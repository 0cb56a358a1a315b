//! The client against a scripted broker, over real TLS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop where it is")]

mod batches;
mod connecting;
mod consuming;
mod dating;
mod delivering;
mod fake;
mod fake_stream;
mod hostile;
mod pki;
mod proving;
mod proxy;
mod publishing;
mod replaying;
mod storing;

use std::time::Duration;

use sealbus_client::{Builder, Bus, Event, Events, Reconnect, Subscription};

use crate::fake::Fake;
use crate::pki::Pki;

/// Long enough for a slow machine, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client with quick reconnects.
fn client(pki: &Pki, fake: &Fake, name: &str) -> Builder {
    sealbus_client::builder().server(fake.server()).identity(pki.identity(name)).trust(pki.trust()).reconnect(
        Reconnect { initial: Duration::from_millis(5), max: Duration::from_millis(50), attempts: None },
    )
}

async fn connected(pki: &Pki, fake: &Fake, name: &str) -> Bus {
    client(pki, fake, name).connect().await.unwrap()
}

async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.expect("the bus goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the event comes")
}

/// Waits until the connection has broken and another one serves.
async fn reconnected(events: &mut Events) {
    event(events, |event| matches!(event, Event::Disconnected { .. })).await;
    event(events, |event| matches!(event, Event::Connected { .. })).await;
}

async fn payload(subscription: &mut Subscription) -> String {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message comes");
    String::from_utf8(next.expect("the stream goes on").expect("it is a message").payload().to_vec()).unwrap()
}
