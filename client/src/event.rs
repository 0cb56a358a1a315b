//! What happens to a bus beside its messages: a bounded stream of events for whoever wants to know.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{IncarnationId, PolicyHash};
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::{Topic, TopicFilter};

use crate::rejection::{Missing, Rejection};
use crate::sync::locked;

/// Events that one listener may leave unread before the oldest are dropped.
const EVENTS_HELD_MAX: usize = 256;

/// Something that happened to a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session serves.
    Connected {
        /// Its name in the broker's logs.
        session: u64,
        /// The policy generation in force.
        generation: u64,
    },
    /// The connection ended. Unless the bus was closed it is made anew.
    Disconnected {
        /// Why, in words.
        reason: String,
    },
    /// A connection is about to be attempted.
    Reconnecting {
        /// Which attempt since the last connection, from 1.
        attempt: u32,
        /// In how many milliseconds.
        in_ms: u64,
    },
    /// Another policy holds from here on.
    PolicyChanged {
        /// Its generation.
        generation: u64,
        /// Its version.
        version: u64,
        /// SHA-256 of its document.
        hash: PolicyHash,
    },
    /// The broker is shutting down; publishing goes on after the reconnect.
    Draining {
        /// Milliseconds until the broker closes the connection.
        deadline_ms: u32,
    },
    /// A subscription was too slow, and lost messages.
    Lagged {
        /// Its filter.
        filter: TopicFilter,
        /// How many.
        missed: u64,
    },
    /// Sequence numbers are missing that no lag explains.
    Gap {
        /// The topic.
        topic: Topic,
        /// Its producer.
        producer: Principal,
        /// How many.
        missed: u64,
    },
    /// Offsets of a stream did not come to one of its readers.
    Skipped {
        /// The stream.
        stream: StreamName,
        /// The first offset.
        from: u64,
        /// The offset after the last.
        to: u64,
        /// Why, as far as it is known.
        why: Missing,
    },
    /// The broker refused acknowledgements that nobody waits for. Their messages are delivered again.
    SettleRefused {
        /// Why.
        refusal: Refusal,
    },
    /// A stream's history is not the one that was seen before: it was rewritten or cut. The two notes are the evidence,
    /// each signed by the broker's log key.
    CheckpointInconsistent {
        /// The stream.
        stream: StreamName,
        /// The checkpoint that was seen first.
        older: String,
        /// The one that does not continue it.
        newer: String,
    },
    /// A subscription gets less than its filter asks for, since the grant is smaller.
    Narrowed {
        /// Its filter.
        filter: TopicFilter,
    },
    /// Something was delivered that does not prove itself.
    Rejected(Rejection),
    /// Publishing goes on under a new incarnation.
    NewIncarnation {
        /// The incarnation.
        incarnation_id: IncarnationId,
        /// Why the one before it could not go on.
        because: Refusal,
    },
    /// Whether these messages were accepted cannot be known any more.
    Lost {
        /// The topic.
        topic: Topic,
        /// The first sequence number, in the incarnation that ended.
        from: u64,
        /// The last sequence number.
        to: u64,
    },
    /// The certificate and its key were read anew.
    IdentityReloaded,
    /// Events were dropped here because they were not read.
    EventsLost {
        /// How many.
        count: u64,
    },
}

/// A stream of the events of one bus, from the moment it was asked for. It ends when the bus does.
///
/// At most 256 unread events are held; then the oldest are dropped and counted in [`Event::EventsLost`].
#[derive(Debug)]
pub struct Events {
    queue: Arc<Mutex<EventQueue>>,
}

impl Events {
    /// The next event; none when the bus has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = locked(&self.queue);
        if queue.lost > 0 {
            let count = std::mem::take(&mut queue.lost);
            return Poll::Ready(Some(Event::EventsLost { count }));
        }
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

#[derive(Debug, Default)]
struct EventQueue {
    events: VecDeque<Event>,
    lost: u64,
    ended: bool,
    waker: Option<Waker>,
}

/// Where events come from: it hands each to every listener, and never waits for one.
#[derive(Debug, Default)]
pub(crate) struct EventHub {
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    queues: Vec<Weak<Mutex<EventQueue>>>,
    ended: bool,
}

impl EventHub {
    pub(crate) fn listen(&self) -> Events {
        let mut listeners = locked(&self.listeners);
        let queue = Arc::new(Mutex::new(EventQueue { ended: listeners.ended, ..EventQueue::default() }));
        listeners.queues.retain(|queue| queue.strong_count() > 0);
        listeners.queues.push(Arc::downgrade(&queue));
        Events { queue }
    }

    pub(crate) fn tell(&self, event: &Event) {
        for queue in locked(&self.listeners).queues.iter().filter_map(Weak::upgrade) {
            let mut queue = locked(&queue);
            if queue.events.len() == EVENTS_HELD_MAX {
                queue.events.pop_front();
                queue.lost = queue.lost.saturating_add(1);
            }
            queue.events.push_back(event.clone());
            wake(&mut queue);
        }
    }

    pub(crate) fn end(&self) {
        let mut listeners = locked(&self.listeners);
        listeners.ended = true;
        for queue in listeners.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            let mut queue = locked(&queue);
            queue.ended = true;
            wake(&mut queue);
        }
    }
}

fn wake(queue: &mut EventQueue) {
    if let Some(waker) = queue.waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_events_are_dropped_and_counted() {
        let hub = EventHub::default();
        let mut events = hub.listen();
        for deadline_ms in 0..300 {
            hub.tell(&Event::Draining { deadline_ms });
        }
        assert_eq!(events.next().await, Some(Event::EventsLost { count: 44 }));
        assert_eq!(events.next().await, Some(Event::Draining { deadline_ms: 44 }));
    }

    #[tokio::test]
    async fn the_stream_ends_after_what_was_told() {
        let hub = EventHub::default();
        let mut events = hub.listen();
        hub.tell(&Event::IdentityReloaded);
        hub.end();
        assert_eq!(events.next().await, Some(Event::IdentityReloaded));
        assert_eq!(events.next().await, None);
        assert_eq!(hub.listen().next().await, None);
    }
}
