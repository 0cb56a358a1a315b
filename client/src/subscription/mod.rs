//! Receiving: a stream of verified messages.
//!
//! Read [`feed`] for how batches come from the connection, [`bindings`] for whose keys are believed, and [`verify`]
//! for the order in which a batch is judged. All judging happens in the consumer's task.

pub(crate) mod bindings;
pub(crate) mod feed;
mod lag;
mod verify;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use sealbus_protocol::batch::preamble::{HEAD_LEN, RECORD_HEAD_LEN};
use sealbus_protocol::batch::read::{Place, SequenceReader};
use sealbus_protocol::batch::{Batch, Record, Records};
use sealbus_protocol::frame::Narrowed;
use sealbus_protocol::topic::TopicFilter;

use crate::bus::BusShared;
use crate::clock;
use crate::error::CloseReason;
use crate::event::Event;
use crate::message::{Delivery, DeliveryError, Message, RecordPlace};

use self::feed::{Feed, Item, Unverified};
use self::lag::LagAccount;
use self::verify::{Judge, Judged};

/// A stream of messages whose producers are proven.
///
/// It survives reconnects: what was published meanwhile shows as [`DeliveryError::Gap`]. It ends after
/// [`DeliveryError::Closed`], or at once when this program closes the bus. Dropping it ends the subscription without
/// blocking.
pub struct Subscription {
    guard: FeedGuard,
    bus: Arc<BusShared>,
    narrowed: Narrowed,
    sequences: SequenceReader,
    /// The connection that the sequences have come to.
    connection: u64,
    lag: LagAccount,
    reading: Option<Reading>,
    /// A batch whose key binding is being asked for.
    awaiting: Option<Unverified>,
    ended: bool,
}

/// Tells the connection when the consumer is gone.
#[derive(Debug)]
pub(crate) struct FeedGuard(pub(crate) Arc<Feed>);

impl Drop for FeedGuard {
    fn drop(&mut self) {
        self.0.consumer_dropped();
    }
}

/// How far a batch has been handed out.
struct Reading {
    delivery: Arc<Delivery>,
    /// Where the next record begins in the batch's bytes.
    at: usize,
    index: u32,
}

impl Subscription {
    pub(crate) fn new(guard: FeedGuard, bus: Arc<BusShared>, narrowed: Narrowed) -> Self {
        Self {
            guard,
            bus,
            narrowed,
            sequences: SequenceReader::new(),
            connection: 0,
            lag: LagAccount::default(),
            reading: None,
            awaiting: None,
            ended: false,
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn filter(&self) -> &TopicFilter {
        &self.guard.0.filter
    }

    /// Whether the grant was smaller than the filter when the subscription was made, so that only the topics that
    /// it covers are delivered. For later changes see [`Event::Narrowed`].
    #[must_use]
    pub const fn narrowed(&self) -> bool {
        matches!(self.narrowed, Narrowed::Yes)
    }

    /// The next message, or what stands in its place; none at the end. Cancel-safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Message, DeliveryError>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The next message; none at the end. Cancel-safe: nothing is lost.
    ///
    /// # Errors
    /// [`DeliveryError`]; the stream goes on after every one but [`DeliveryError::Closed`].
    pub async fn try_next(&mut self) -> Result<Option<Message>, DeliveryError> {
        self.next().await.transpose()
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, DeliveryError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                if let Some(message) = reading.next_message() {
                    return Poll::Ready(Some(Ok(message)));
                }
                self.reading = None;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let item = match self.awaiting.take() {
                Some(unverified) => Item::Batch(unverified),
                None => std::task::ready!(self.guard.0.poll_pop(cx)),
            };
            match item {
                Item::Batch(unverified) => match self.poll_judge(&unverified, cx) {
                    Poll::Pending => {
                        self.awaiting = Some(unverified);
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(error)) => return Poll::Ready(Some(Err(error))),
                },
                Item::Lagged(missed) => {
                    self.lag.handle_lagged(missed);
                    return Poll::Ready(Some(Err(DeliveryError::Lagged { missed })));
                }
                Item::Closed(reason) => {
                    self.ended = true;
                    return Poll::Ready(match reason {
                        CloseReason::ByCaller => None,
                        reason @ (CloseReason::Refused(_)
                        | CloseReason::ByBroker
                        | CloseReason::GaveUp { .. }) => Some(Err(DeliveryError::Closed(reason))),
                    });
                }
            }
        }
    }

    /// Judges a batch and begins to hand it out; yields what must be said before its messages, or in their place.
    fn poll_judge(&mut self, unverified: &Unverified, cx: &mut Context<'_>) -> Poll<Option<DeliveryError>> {
        if unverified.connection != self.connection {
            self.connection = unverified.connection;
            self.sequences.handle_reconnected();
        }
        let mut judge = Judge {
            bus_id: self.bus.bus_id,
            filter: &self.guard.0.filter,
            keyring: &self.bus.keyring,
            sequences: &mut self.sequences,
        };
        let judged = std::task::ready!(judge.poll_judge_at(unverified, clock::now_ms(), cx));
        let Judged { delivery, place } = match judged {
            Ok(judged) => judged,
            Err(rejection) => {
                tracing::warn!(
                    code = rejection.code.as_str(),
                    topic = %rejection.topic,
                    kid = verify::kid_text(rejection.kid),
                    "a delivered batch was refused"
                );
                self.bus.events.tell(&Event::Rejected(rejection.clone()));
                return Poll::Ready(Some(DeliveryError::Rejected(rejection)));
            }
        };
        let missed = match place {
            Place::Next | Place::Joined => 0,
            Place::AfterGap { missed } => self.lag.handle_gap(missed),
            Place::Again => {
                tracing::debug!(topic = %delivery.topic, "a batch came again after a reconnect and is passed over");
                return Poll::Ready(None);
            }
        };
        let (topic, producer) = (delivery.topic.clone(), delivery.producer.clone());
        self.reading = Some(Reading { delivery: Arc::new(delivery), at: HEAD_LEN, index: 0 });
        if missed == 0 {
            return Poll::Ready(None);
        }
        self.bus.events.tell(&Event::Gap { topic: topic.clone(), producer: producer.clone(), missed });
        Poll::Ready(Some(DeliveryError::Gap { topic, producer, missed }))
    }
}

impl Reading {
    /// The next record as a message: an `Arc` more and three ranges, no copy.
    fn next_message(&mut self) -> Option<Message> {
        let record = record_at(self.delivery.batch.batch(), self.at)?;
        let key = self.at + RECORD_HEAD_LEN;
        let headers = key + record.key.len();
        let payload = headers + record.headers.encoded().len();
        let end = payload + record.payload.len();
        let place = RecordPlace {
            index: self.index,
            time_delta_ms: record.time_delta_ms,
            key: key..headers,
            headers: headers..payload,
            payload: payload..end,
        };
        self.at = end;
        self.index += 1;
        Some(Message::new(Arc::clone(&self.delivery), place))
    }
}

/// The record that begins there; none at the end. The batch was decoded, so every record parses.
fn record_at(batch: &Batch, at: usize) -> Option<Record<'_>> {
    Records::new(batch.bytes().get(at..)?).next()?.ok()
}

impl Stream for Subscription {
    type Item = Result<Message, DeliveryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("filter", self.filter()).finish_non_exhaustive()
    }
}
