//! Taking a share of a durable consumer's work.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use sealbus_protocol::frame::{ConsumerChoices, ConsumerSettings, MaxDeliver, Narrowed, Start, StreamStart};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::TopicFilter;

use crate::bus::Bus;
use crate::error::SubscribeError;

use super::methods::stream_of_messages;
use super::reader::Reader;
use super::want::{ConsumeWant, Want};

/// A durable consumer that is being put together; it is created or joined when this is awaited. [`Bus::consume`] makes
/// one.
///
/// What is left out has its default when the consumer is created, and is as it is when it is joined. A consumer that is
/// there with other settings is refused ([`crate::Code::Conflict`]).
#[derive(Debug, Clone)]
#[must_use = "a consumer is joined when this is awaited"]
pub struct ConsumeBuilder {
    bus: Bus,
    stream: String,
    name: String,
    filter: Option<String>,
    from: Start,
    ack_wait: Option<Duration>,
    max_deliver: Option<MaxDeliver>,
    unacknowledged_max: Option<NonZeroU32>,
    backoff: Vec<Duration>,
}

impl ConsumeBuilder {
    pub(crate) fn new(bus: Bus, stream: &str, name: &str) -> Self {
        Self {
            bus,
            stream: stream.to_owned(),
            name: name.to_owned(),
            filter: None,
            from: Start::Earliest,
            ack_wait: None,
            max_deliver: None,
            unacknowledged_max: None,
            backoff: Vec::new(),
        }
    }

    /// Where it begins when it is created, by default with the oldest message that is kept. One that is there already
    /// goes on where it stands.
    pub const fn from(mut self, start: Start) -> Self {
        self.from = start;
        self
    }

    /// Only messages whose topic matches. Fixed when the consumer is created.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// How long a message may be unacknowledged before it is delivered again: from 100 ms to a day, default 30 s.
    pub const fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = Some(wait);
        self
    }

    /// How often a message is delivered before it becomes a dead letter; 0 is without limit. Default 5.
    pub const fn max_deliver(mut self, times: u32) -> Self {
        self.max_deliver = Some(match NonZeroU32::new(times) {
            Some(times) => MaxDeliver::Times(times),
            None => MaxDeliver::NoLimit,
        });
        self
    }

    /// How many messages the whole group may have unacknowledged at a time: at most 65,536, default 1,000.
    pub const fn unacknowledged_max(mut self, messages: NonZeroU32) -> Self {
        self.unacknowledged_max = Some(messages);
        self
    }

    /// The pauses before the second, third and further deliveries; the last is used again. At most 16. Without them a
    /// message is delivered again as soon as it was refused, or its wait is over.
    pub fn backoff(mut self, pauses: impl IntoIterator<Item = Duration>) -> Self {
        self.backoff = pauses.into_iter().collect();
        self
    }

    /// Creates or joins it. When it returns, this program is a member of the group.
    ///
    /// Cancel-safe: a membership that is made for nobody is closed again. The consumer stays.
    ///
    /// # Errors
    /// [`SubscribeError`] when the broker refuses it, or says nothing within the request deadline. A stream that is
    /// unknown and one that may not be consumed are refused alike.
    pub async fn start(self) -> Result<Consumer, SubscribeError> {
        let settings = self.settings()?;
        let stream = Name::parse(&self.stream).map_err(SubscribeError::Name)?;
        let name = Name::parse(&self.name).map_err(SubscribeError::Name)?;
        let filter = self.filter.as_deref().map(TopicFilter::parse).transpose();
        let filter = filter.map_err(SubscribeError::Filter)?;
        let want = ConsumeWant { stream, consumer: name.clone(), filter, from: self.from, settings };
        let stream = want.stream.clone();
        let (guard, begun) = self.bus.read_stream(Want::Consume(want)).await?;
        let reader = Reader::new(guard, self.bus.shared());
        Ok(Consumer { reader, narrowed: begun.narrowed, stream, name, start: begun.start })
    }

    fn settings(&self) -> Result<ConsumerSettings, SubscribeError> {
        let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let choices = ConsumerChoices {
            // A wait that is no whole millisecond is one.
            ack_wait_ms: self
                .ack_wait
                .map(|wait| NonZeroU32::new(milliseconds(wait)).unwrap_or(NonZeroU32::MIN)),
            max_deliver: self.max_deliver,
            unacknowledged_max: self.unacknowledged_max,
            backoff_ms: self.backoff.iter().copied().map(milliseconds).collect(),
        };
        ConsumerSettings::new(choices).map_err(SubscribeError::Settings)
    }
}

impl IntoFuture for ConsumeBuilder {
    type Output = Result<Consumer, SubscribeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// A member of a durable consumer's group: verified messages that are to be acknowledged.
///
/// At least once: what is not acknowledged is delivered again, to whichever member, until it becomes a dead letter. It
/// survives reconnects; acknowledgements of messages that came before one are sent after it. It ends after
/// [`crate::DeliveryError::Closed`], or when this program closes the bus. Dropping it leaves the group without blocking;
/// acknowledgements that are queued are still sent.
pub struct Consumer {
    reader: Reader,
    narrowed: Narrowed,
    stream: Name,
    name: Name,
    start: StreamStart,
}

stream_of_messages!(Consumer);

impl Consumer {
    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> &Name {
        &self.stream
    }

    /// The consumer.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The stream's id: what is signed together with the topic.
    #[must_use]
    pub const fn stream_id(&self) -> StreamId {
        self.start.stream_id
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("stream", &self.stream)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
