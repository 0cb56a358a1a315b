//! A durable consumer: acknowledges most of what it gets, forgets some of it, gives some back, and leaves and joins again.

use std::sync::Arc;
use std::time::Duration;

use sealbus_client::{Bus, Consumer, DeliveryError, Message, SettleError};
use serde_json::json;
use tokio::task::JoinSet;

use super::ground::{CONSUMED, CONSUMER, Ground, PATIENCE};
use super::history::{History, Reading};
use super::random::Random;

/// How long the broker waits for an acknowledgement. Short, so that what is forgotten comes again within a few lives.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// How long it is listened for what should not come.
const REST: Duration = Duration::from_millis(300);

/// Durable acknowledgements that are waited for at a time.
const SYNCS_MAX: usize = 64;

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
enum Treatment {
    Ack,
    AckSync,
    Nack,
    Forget,
}

/// Takes part until readers stop. By then it treats everything well, so that nothing is left.
pub(super) async fn work(ground: Arc<Ground>) {
    let mut random = Random::new(ground.seed, 101);
    let bus = ground.connect("worker").await;
    let mut membership = 0;
    let mut syncs = JoinSet::new();
    while !ground.readers_stop() {
        let Ok(mut consumer) = join(&bus).await else {
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        membership += 1;
        ground
            .history
            .note("joined", &json!({ "consumer": CONSUMER, "stream": CONSUMED, "membership": membership }));
        let stay = random.between(20, 3_000);
        for _ in 0..stay {
            let Some(message) = next(&ground, &mut consumer).await else { break };
            ground.history.received(Reading::Consumed { consumer: CONSUMER, membership }, &message);
            let treatment = match ground.producers_stop() {
                true => random.weighted(&[(9, Treatment::Ack), (1, Treatment::AckSync)]),
                false => random.weighted(&[
                    (880, Treatment::Ack),
                    (80, Treatment::AckSync),
                    (20, Treatment::Nack),
                    (20, Treatment::Forget),
                ]),
            };
            treat(&ground.history, message, treatment, &mut random, &mut syncs).await;
        }
        // What came late belongs to the membership that ends.
        while syncs.join_next().await.is_some() {}
    }
}

/// Joins once more when everything has been acknowledged, and tells the history what comes all the same.
pub(super) async fn look_for_rest(ground: &Ground) {
    let bus = ground.connect("worker").await;
    let mut consumer =
        join(&bus).await.unwrap_or_else(|error| panic!("the consumer cannot be joined: {error}"));
    let membership = u64::MAX;
    ground
        .history
        .note("joined", &json!({ "consumer": CONSUMER, "stream": CONSUMED, "membership": membership }));
    while let Ok(Some(Ok(message))) = tokio::time::timeout(REST, consumer.next()).await {
        ground.history.received(Reading::Consumed { consumer: CONSUMER, membership }, &message);
    }
}

async fn join(bus: &Bus) -> Result<Consumer, sealbus_client::SubscribeError> {
    bus.consume(CONSUMED, CONSUMER).ack_wait(ACK_WAIT).max_deliver(0).await
}

/// The next message; none when readers stop.
async fn next(ground: &Ground, consumer: &mut Consumer) -> Option<Message> {
    while !ground.readers_stop() {
        let Ok(next) = tokio::time::timeout(PATIENCE, consumer.next()).await else { continue };
        match next.expect("a consumer does not end by itself") {
            Ok(message) => return Some(message),
            Err(error @ DeliveryError::Closed(_)) => panic!("the consumer cannot go on: {error}"),
            Err(error) => {
                ground.history.note("rejected", &json!({ "who": "worker", "why": error.to_string() }));
            }
        }
    }
    None
}

async fn treat(
    history: &Arc<History>,
    message: Message,
    treatment: Treatment,
    random: &mut Random,
    syncs: &mut JoinSet<()>,
) {
    let offset = message.offset();
    let note =
        |op: &str| history.note(op, &json!({ "consumer": CONSUMER, "stream": CONSUMED, "offset": offset }));
    match treatment {
        Treatment::Ack => {
            note("ack");
            unless_closed(message.ack().await);
        }
        Treatment::AckSync => {
            note("ack");
            while syncs.len() >= SYNCS_MAX {
                syncs.join_next().await;
            }
            let history = Arc::clone(history);
            syncs.spawn(async move {
                if unless_closed(message.ack_sync().await) {
                    history.note(
                        "ack-durable",
                        &json!({ "consumer": CONSUMER, "stream": CONSUMED, "offset": message.offset() }),
                    );
                }
            });
        }
        Treatment::Nack => {
            unless_closed(message.nack(Duration::from_millis(random.between(0, 50))).await);
        }
        Treatment::Forget => {}
    }
}

/// Whether it was done. That it was not in time is the consumer's loss: the message comes again.
fn unless_closed(settled: Result<(), SettleError>) -> bool {
    match settled {
        Ok(()) => true,
        Err(SettleError::Timeout { .. } | SettleError::Refused(_)) => false,
        Err(error @ (SettleError::Closed(_) | SettleError::NotConsumed)) => {
            panic!("an acknowledgement cannot be given: {error}")
        }
    }
}
