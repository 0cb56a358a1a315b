//! Reading a stream's history.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Range;
use std::pin::Pin;

use sealbus_protocol::frame::{Narrowed, Start, StreamStart, Until};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::TopicFilter;

use crate::bus::Bus;
use crate::error::SubscribeError;

use super::methods::stream_of_messages;
use super::reader::Reader;
use super::want::{ReplayWant, Want};

/// A replay that is being put together; it begins when it is awaited. [`Bus::replay`] makes one.
#[derive(Debug, Clone)]
#[must_use = "a replay begins when it is awaited"]
pub struct ReplayBuilder {
    bus: Bus,
    stream: String,
    filter: Option<String>,
    from: Start,
    until: Until,
}

impl ReplayBuilder {
    pub(crate) fn new(bus: Bus, stream: &str) -> Self {
        Self { bus, stream: stream.to_owned(), filter: None, from: Start::Earliest, until: Until::Live }
    }

    /// Where it begins; the oldest message that is kept, unless this says otherwise.
    pub const fn from(mut self, start: Start) -> Self {
        self.from = start;
        self
    }

    /// Only messages whose topic matches.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// Ends where the stream ends when the replay begins, instead of going on with what is stored later.
    pub const fn until_end(mut self) -> Self {
        self.until = Until::End;
        self
    }

    /// Begins it. When it returns, the replay is in effect.
    ///
    /// Cancel-safe: a replay that is made for nobody is closed again.
    ///
    /// # Errors
    /// [`SubscribeError`] when the broker refuses it, or says nothing within the request deadline. A stream that is
    /// unknown and one that may not be read are refused alike.
    pub async fn start(self) -> Result<Replay, SubscribeError> {
        let stream = StreamName::parse(&self.stream).map_err(SubscribeError::Stream)?;
        let filter = self.filter.as_deref().map(TopicFilter::parse).transpose();
        let filter = filter.map_err(SubscribeError::Filter)?;
        let want = ReplayWant { stream: stream.clone(), filter, from: self.from, until: self.until };
        let (guard, begun) = self.bus.read_stream(Want::Replay(want)).await?;
        let reader = Reader::new(guard, self.bus.shared());
        Ok(Replay { reader, narrowed: begun.narrowed, stream, start: begun.start })
    }
}

impl IntoFuture for ReplayBuilder {
    type Output = Result<Replay, SubscribeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// A stream's history, and then what follows it: verified messages in the order of their offsets.
///
/// It survives reconnects, and goes on exactly where it was: no message is left out and none comes twice. What cannot
/// come shows as [`crate::DeliveryError::Skipped`]; a history that goes back, or is another than it was, as
/// [`crate::DeliveryError::Rejected`]. It ends after [`crate::DeliveryError::Closed`], when this program closes the
/// bus, or with [`ReplayBuilder::until_end`] where the stream ended. Dropping it ends it without blocking.
pub struct Replay {
    reader: Reader,
    narrowed: Narrowed,
    stream: StreamName,
    start: StreamStart,
}

stream_of_messages!(Replay);

impl Replay {
    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// The stream's id: what is signed together with the topic.
    #[must_use]
    pub const fn stream_id(&self) -> StreamId {
        self.start.stream_id
    }

    /// The offsets from which on it reads, and up to where the stream went when it began.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        self.start.offset..self.start.end
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("stream", &self.stream)
            .field("filter", self.filter())
            .finish_non_exhaustive()
    }
}
