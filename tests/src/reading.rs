//! Publishing to streams and reading them again, with the real client.

use std::ops::Range;

use sealbus_client::{Bus, Checkpoint, Consumer, Message, Replay, Start};

use crate::wait::{eventually_async, within};

/// The id of the stream that most tests have.
pub const ORDERS: &str = "00112233445566778899aabbccddeeff";

/// Publishes these numbers to a topic, one after the other, and gives their offsets.
pub async fn publish(bus: &Bus, topic: &str, numbers: Range<u64>) -> Vec<u64> {
    let publisher = bus.publisher(topic).await.expect("the topic opens");
    let mut offsets = Vec::new();
    for number in numbers {
        let receipt = within("publishing", publisher.publish(number.to_string())).await.expect("it is kept");
        offsets.push(receipt.offset().expect("a stream gives offsets"));
    }
    offsets
}

/// The next message of a replay; none at its end.
pub async fn next_replayed(replay: &mut Replay) -> Option<Message> {
    within("a replayed message", replay.try_next()).await.unwrap_or_else(|error| panic!("replay: {error}"))
}

/// The next message of a durable consumer.
pub async fn next_consumed(consumer: &mut Consumer) -> Message {
    let next = within("a consumed message", consumer.try_next()).await;
    next.unwrap_or_else(|error| panic!("consume: {error}")).expect("a consumer has no end")
}

/// All of a stream, as offsets and payloads.
pub async fn replayed(bus: &Bus, stream: &str) -> Vec<(u64, String)> {
    let mut replay = bus.replay(stream).from(Start::Earliest).until_end().await.expect("it may be read");
    let mut found = Vec::new();
    while let Some(message) = next_replayed(&mut replay).await {
        found.push((message.offset().expect("what is stored has an offset"), text(&message)));
    }
    found
}

/// The payload, as text.
#[must_use]
pub fn text(message: &Message) -> String {
    String::from_utf8(message.payload().to_vec()).expect("the payload is text")
}

/// What [`replayed`] gives when the messages are the numbers of these offsets.
#[must_use]
pub fn numbered(numbers: Range<u64>) -> Vec<(u64, String)> {
    numbers.map(|number| (number, number.to_string())).collect()
}

/// A checkpoint of a stream that holds at least so many batches.
pub async fn checkpoint_of(bus: &Bus, stream: &str, batches_min: u64) -> Checkpoint {
    eventually_async("a checkpoint", async || {
        let found = bus.checkpoint(stream).await;
        found.ok().filter(|checkpoint| checkpoint.size() >= batches_min)
    })
    .await
}
