//! As many live messages as go through, counted where they arrive.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::conversation::{Conversation, Talk};
use crate::failure::Failure;
use crate::outcome::Rate;
use crate::workload::Spread;

use super::course::{Course, Turn};
use super::payload::payload;
use super::timing::{Timing, lost};

pub(super) async fn measure<T: Talk>(talk: &T, spread: Spread, timing: &Timing) -> Result<Rate, Failure> {
    let payload: Arc<[u8]> = payload(spread.size_bytes).into();
    let mut receiving = JoinSet::new();
    let mut courses = Vec::new();
    for index in 0..spread.topics {
        let topic = format!("load/{index}");
        let course = Arc::new(Course::new(spread.size_bytes, spread.subscribers_each));
        for subscriber in 0..spread.subscribers_each as usize {
            let mut conversation = talk.connect().await?;
            conversation.subscribe(&topic).await?;
            receiving.spawn(receive(conversation, Arc::clone(&course), subscriber, Arc::clone(&payload)));
        }
        courses.push((topic, course));
    }
    let mut connected = Vec::new();
    for (topic, course) in &courses {
        connected.push((talk.connect().await?, topic.clone(), Arc::clone(course)));
    }
    let mut sending = JoinSet::new();
    for (conversation, topic, course) in connected {
        sending.spawn(send(conversation, topic, course, Arc::clone(&payload)));
    }

    let received = || courses.iter().map(|(_, course)| course.received()).sum();
    // A publisher that fails is seen below: until then nothing comes, and that is what is counted.
    let mut rate = timing.count(&mut receiving, received).await?;
    courses.iter().for_each(|(_, course)| course.stop());
    let mut finished = Vec::new();
    while let Some(ended) = sending.join_next().await {
        finished.push(ended.map_err(|error| Failure::new("publish", error))??);
    }
    let due = courses.iter().map(|(_, course)| course.due()).sum();
    rate.lost = lost(&mut receiving, due, received).await?;
    for conversation in finished {
        conversation.close().await?;
    }
    Ok(rate)
}

async fn send<C: Conversation>(
    mut conversation: C,
    topic: String,
    course: Arc<Course>,
    payload: Arc<[u8]>,
) -> Result<C, Failure> {
    while let Turn::Publish(copies) = course.turn().await {
        conversation.publish(&topic, &payload, copies).await?;
        course.handle_sent(copies);
    }
    Ok(conversation)
}

/// Receives for ever.
pub(crate) async fn receive<C: Conversation>(
    mut conversation: C,
    course: Arc<Course>,
    subscriber: usize,
    expected: Arc<[u8]>,
) -> Result<(), Failure> {
    loop {
        let (mut messages, mut damaged) = (0_u64, false);
        conversation
            .receive(|payload| {
                // The first of several is read whole, of the others the length: what a client pays to read messages is
                // not what is compared, but nothing is counted that is not there.
                damaged |=
                    if messages == 0 { *payload != *expected } else { payload.len() != expected.len() };
                messages = messages.saturating_add(1);
            })
            .await?;
        if damaged {
            return Err(Failure::new("receive", "a message came that nobody has sent"));
        }
        course.handle_received(subscriber, messages);
    }
}
