//! How a judged batch is handed out, message by message.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use sealbus_protocol::batch::RecordSpan;
use sealbus_protocol::frame::RecordRange;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::topic::Topic;

use crate::message::{Delivery, Message, RecordPlace};

/// The messages of one batch, or what is left of them: of one topic and one producer, in the order in which they were
/// published.
///
/// Each is lent until the next is asked for; [`Clone`] keeps it longer, without copying its bytes. What is not taken
/// before this is dropped comes next from where it came.
///
/// ```no_run
/// # async fn example(mut created: sealbus_client::Subscription) -> Result<(), sealbus_client::DeliveryError> {
/// while let Some(batch) = created.next_batch().await {
///     let mut batch = batch?;
///     while let Some(message) = batch.next_message() {
///         println!("{} bytes from {}", message.payload().len(), message.producer());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct MessageBatch<'r> {
    reading: &'r mut Reading,
}

impl<'r> MessageBatch<'r> {
    pub(super) const fn new(reading: &'r mut Reading) -> Self {
        Self { reading }
    }

    /// The next message; none when all have been handed out.
    pub fn next_message(&mut self) -> Option<&Message> {
        self.reading.next()
    }

    /// The topic of all of them.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.reading.message.topic()
    }

    /// The producer of all of them, proven.
    #[must_use]
    pub fn producer(&self) -> &Principal {
        self.reading.message.producer()
    }
}

impl fmt::Debug for MessageBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBatch")
            .field("topic", self.topic())
            .field("producer", self.producer())
            .finish_non_exhaustive()
    }
}

/// How far a batch has been handed out.
pub(super) struct Reading {
    /// The message that was reached last; moved from record to record, so that what is only lent costs no `Arc`.
    message: Message,
    /// Whether that message is still to be handed out.
    is_due: bool,
    /// Where the record lies that was looked at last.
    before: Option<RecordSpan>,
    index: u32,
    handed_out: u32,
    /// The records to hand out; none for all.
    ranges: Option<VecDeque<RecordRange>>,
    /// The first offset to hand out.
    first: u64,
    counting: Counting,
}

/// What takes an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// Every record of the batch.
    Records,
    /// Only those that the ranges name: dead letters leave out what was dealt with.
    HandedOut,
}

impl Reading {
    pub(super) fn new(
        delivery: Arc<Delivery>,
        ranges: Option<Vec<RecordRange>>,
        first: u64,
        counting: Counting,
    ) -> Self {
        Self {
            message: Message::new(delivery, RecordPlace::default()),
            is_due: false,
            before: None,
            index: 0,
            handed_out: 0,
            ranges: ranges.map(VecDeque::from),
            first,
            counting,
        }
    }

    /// Whether there is another message; it stays due.
    pub(super) fn has_next(&mut self) -> bool {
        self.is_due = self.is_due || self.advance().is_some();
        self.is_due
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<&Message> {
        if !std::mem::take(&mut self.is_due) {
            self.advance()?;
        }
        Some(&self.message)
    }

    /// Moves to the next record that is to be handed out: a few numbers, no copy.
    fn advance(&mut self) -> Option<()> {
        loop {
            let delivery = self.message.delivery();
            let span = delivery.batch.span_after(self.before.as_ref())?;
            let index = self.index;
            self.before = Some(span);
            self.index += 1;
            let Some(deliveries) = self.deliveries_of(index)? else { continue };
            let place = match self.counting {
                Counting::Records => index,
                Counting::HandedOut => self.handed_out,
            };
            self.handed_out += 1;
            let offset = self.message.delivery().offset.map(|offset| offset.saturating_add(u64::from(place)));
            if offset.is_some_and(|offset| offset < self.first) {
                continue;
            }
            self.message.move_to(RecordPlace { index, offset, deliveries, span });
            return Some(());
        }
    }

    /// How often a record has been delivered, when it is to be handed out; none at all behind the last of those.
    fn deliveries_of(&mut self, index: u32) -> Option<Option<u32>> {
        let Some(ranges) = &mut self.ranges else { return Some(Some(1)) };
        while let Some(range) = ranges.front() {
            if index < range.first {
                return Some(None);
            }
            if index - range.first < range.count.get() {
                return Some(Some(range.deliveries.get()));
            }
            ranges.pop_front();
        }
        None
    }
}
