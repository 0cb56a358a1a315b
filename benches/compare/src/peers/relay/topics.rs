//! Who is subscribed to what at the relay, and who publishes there.
//!
//! ```text
//!   publisher ──> chunk ──┬──> outbox of a subscriber, bounded: a publisher waits for the slowest
//!                         └──> outbox of another; the chunk is shared, not copied
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, Receiver, Sender};

/// Chunks that wait for a subscriber: with 64 KiB each as much as the load is ahead of its subscribers at most, so that
/// the relay is no narrower than a broker's queue.
const OUTBOX_CHUNKS: usize = 64;

/// Bytes as a publisher's connection brought them: messages begin and end anywhere.
pub(super) type Chunk = Arc<Vec<u8>>;

/// The outboxes of a topic. Publishers hold what was there when they looked.
type Outboxes = Arc<Vec<Sender<Chunk>>>;

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Mutex<HashMap<String, Topic>>,
}

#[derive(Debug, Default)]
struct Topic {
    outboxes: Outboxes,
    has_publisher: bool,
}

/// The one publisher of a topic, as long as this lives.
#[derive(Debug)]
pub(super) struct Publishing<'t> {
    topics: &'t Topics,
    name: String,
}

impl Topics {
    /// A new subscriber: what is published from now on comes out here.
    pub(super) fn subscribe(&self, name: &str) -> Receiver<Chunk> {
        let (sender, receiver) = mpsc::channel(OUTBOX_CHUNKS);
        let mut topics = self.lock();
        let topic = topics.entry(name.to_owned()).or_default();
        let outboxes = Arc::make_mut(&mut topic.outboxes);
        // Those who have left are taken out by those who come.
        outboxes.retain(|outbox| !outbox.is_closed());
        outboxes.push(sender);
        receiver
    }

    /// A new publisher; none when there is one. Chunks of two would be mixed in the middle of messages.
    pub(super) fn publish(&self, name: &str) -> Option<Publishing<'_>> {
        let mut topics = self.lock();
        let topic = topics.entry(name.to_owned()).or_default();
        if topic.has_publisher {
            return None;
        }
        topic.has_publisher = true;
        Some(Publishing { topics: self, name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        // Nothing that is done under it can be left half done.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publishing<'_> {
    /// Gives a chunk to each subscriber, and waits for the slowest.
    pub(super) async fn send(&self, chunk: &Chunk) {
        let outboxes = self.topics.lock().get(&self.name).map(|topic| Arc::clone(&topic.outboxes));
        for outbox in outboxes.iter().flat_map(|outboxes| outboxes.iter()) {
            // One that has left misses it.
            let _ = outbox.send(Arc::clone(chunk)).await;
        }
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        if let Some(topic) = self.topics.lock().get_mut(&self.name) {
            topic.has_publisher = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_subscriber_of_a_topic_gets_each_chunk() {
        let topics = Topics::default();
        let (mut one, mut two, mut other) =
            (topics.subscribe("t"), topics.subscribe("t"), topics.subscribe("u"));
        let publishing = topics.publish("t").unwrap();
        let chunk = Arc::new(b"chunk".to_vec());
        publishing.send(&chunk).await;
        drop(two.try_recv().unwrap());
        assert_eq!(one.try_recv().unwrap(), chunk);
        assert!(other.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_publisher_waits_for_the_slowest_subscriber() {
        let topics = Topics::default();
        let mut slow = topics.subscribe("t");
        let publishing = topics.publish("t").unwrap();
        let chunk = Arc::new(Vec::new());
        for _ in 0..OUTBOX_CHUNKS {
            publishing.send(&chunk).await;
        }
        let mut sending = Box::pin(publishing.send(&chunk));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        slow.recv().await.unwrap();
        sending.await;
    }

    #[test]
    fn a_topic_has_one_publisher_at_a_time() {
        let topics = Topics::default();
        let first = topics.publish("t").unwrap();
        assert!(topics.publish("t").is_none());
        assert!(topics.publish("u").is_some());
        drop(first);
        assert!(topics.publish("t").is_some());
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let topics = Topics::default();
        for _ in 0..100 {
            drop(topics.subscribe("t"));
        }
        assert_eq!(topics.lock().get("t").unwrap().outboxes.len(), 1);
    }
}
