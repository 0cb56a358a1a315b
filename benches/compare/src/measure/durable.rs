//! How many messages are acknowledged that the subject must keep, with a fixed number of them in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::conversation::{Conversation, Talk};
use crate::failure::Failure;
use crate::outcome::Rate;
use crate::wire::DURABLE_TOPIC;

use super::payload::payload;
use super::timing::Timing;

#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    stopped: AtomicBool,
}

pub(super) async fn measure<T: Talk>(
    talk: &T,
    size_bytes: usize,
    in_flight: u32,
    timing: &Timing,
) -> Result<Rate, Failure> {
    let progress = Arc::new(Progress::default());
    let mut publishing = JoinSet::new();
    publishing.spawn(publish(talk.connect().await?, payload(size_bytes), in_flight, Arc::clone(&progress)));
    let rate = timing.count(&mut publishing, || progress.acknowledged.load(Ordering::Relaxed)).await?;
    progress.stopped.store(true, Ordering::Relaxed);
    while let Some(ended) = publishing.join_next().await {
        ended.map_err(|error| Failure::new("publish", error))??;
    }
    // Whoever publishes ends when everything is acknowledged, so that nothing is left to be lost.
    Ok(rate)
}

/// Publishes one for each acknowledgement, and waits for what is unacknowledged in the end.
async fn publish<C: Conversation>(
    mut conversation: C,
    payload: Vec<u8>,
    in_flight: u32,
    progress: Arc<Progress>,
) -> Result<(), Failure> {
    let (mut unacknowledged, mut free) = (0_u32, in_flight);
    loop {
        let is_stopped = progress.stopped.load(Ordering::Relaxed);
        if free > 0 && !is_stopped {
            conversation.publish_durable(DURABLE_TOPIC, &payload, free).await?;
            unacknowledged = unacknowledged.saturating_add(free);
        }
        if unacknowledged == 0 {
            return conversation.close().await;
        }
        free = conversation.acknowledged().await?;
        unacknowledged = unacknowledged.checked_sub(free).ok_or_else(|| {
            Failure::new("count acknowledgements", "more came than there were messages in flight")
        })?;
        progress.acknowledged.fetch_add(free.into(), Ordering::Relaxed);
    }
}
