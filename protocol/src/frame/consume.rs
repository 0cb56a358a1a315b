//! CONSUME: how a durable consumer is created and joined.

use std::fmt;
use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use crate::limits::{
    ACK_WAIT_MS_DEFAULT, BACKOFF_STEPS_MAX, DELIVERIES_DEFAULT, POLICY_NAME_BYTES_MAX,
    UNACKNOWLEDGED_DEFAULT, UNACKNOWLEDGED_MAX,
};
use crate::policy::Name;
use crate::topic::TopicFilter;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, decode_count, no_flags};
use super::header::FrameType;
use super::names::{RequestId, SubscriptionId};
use super::replay::{Start, decode_filter, encode_filter};

/// On the wire, "without limit"; zero is "the default".
const NO_LIMIT: u32 = u32::MAX;

/// How often a message is delivered before it becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxDeliver {
    /// So many times.
    Times(NonZeroU32),
    /// Until it is acknowledged. So many times as a u32 holds are as good as that, and written so.
    NoLimit,
}

/// What a consumer's creator chose, before it has been looked at; what is left out has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerChoices {
    /// Milliseconds until an unacknowledged delivery is given out again.
    pub ack_wait_ms: Option<NonZeroU32>,
    /// Deliveries of one message before it becomes a dead letter.
    pub max_deliver: Option<MaxDeliver>,
    /// Messages that may be unacknowledged at a time, in the whole group.
    pub unacknowledged_max: Option<NonZeroU32>,
    /// Milliseconds before the second, third, .. delivery; the last one is used again. Empty: `ack_wait_ms` alone.
    pub backoff_ms: Vec<u32>,
}

/// How a durable consumer treats what is not acknowledged. Within its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerSettings(ConsumerChoices);

impl ConsumerSettings {
    /// Checks choices against the limits.
    ///
    /// # Errors
    /// [`SettingsError`] names the limit that is exceeded.
    pub fn new(choices: ConsumerChoices) -> Result<Self, SettingsError> {
        if choices.backoff_ms.len() > BACKOFF_STEPS_MAX {
            return Err(SettingsError::BackoffSteps { found: choices.backoff_ms.len() });
        }
        match choices.unacknowledged_max {
            Some(found) if found.get() > UNACKNOWLEDGED_MAX => Err(SettingsError::Unacknowledged { found }),
            Some(_) | None => Ok(Self(choices)),
        }
    }

    /// What was chosen and what was left out: who joins a consumer without choosing takes it as it is.
    #[must_use]
    pub const fn choices(&self) -> &ConsumerChoices {
        &self.0
    }

    /// Milliseconds until an unacknowledged delivery is given out again.
    #[must_use]
    pub fn ack_wait_ms(&self) -> u32 {
        self.0.ack_wait_ms.map_or(ACK_WAIT_MS_DEFAULT, NonZeroU32::get)
    }

    /// Deliveries of one message before it becomes a dead letter; none without a limit.
    #[must_use]
    pub fn max_deliver(&self) -> Option<u32> {
        match self.0.max_deliver {
            None => Some(DELIVERIES_DEFAULT),
            Some(MaxDeliver::Times(times)) => Some(times.get()),
            Some(MaxDeliver::NoLimit) => None,
        }
    }

    /// Messages that may be unacknowledged at a time.
    #[must_use]
    pub fn unacknowledged_max(&self) -> u32 {
        self.0.unacknowledged_max.map_or(UNACKNOWLEDGED_DEFAULT, NonZeroU32::get)
    }

    /// Milliseconds before the second, third, .. delivery.
    #[must_use]
    pub fn backoff_ms(&self) -> &[u32] {
        &self.0.backoff_ms
    }
}

/// Why choices are no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsError {
    /// More steps than [`BACKOFF_STEPS_MAX`].
    BackoffSteps {
        /// How many.
        found: usize,
    },
    /// More unacknowledged messages than [`UNACKNOWLEDGED_MAX`].
    Unacknowledged {
        /// How many.
        found: NonZeroU32,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackoffSteps { found } => {
                write!(f, "a consumer has at most {BACKOFF_STEPS_MAX} backoff steps, found {found}")
            }
            Self::Unacknowledged { found } => {
                write!(
                    f,
                    "a consumer has at most {UNACKNOWLEDGED_MAX} unacknowledged messages, found {found}"
                )
            }
        }
    }
}

impl std::error::Error for SettingsError {}

/// Creates a durable consumer, or joins one that is there.
///
/// ```text
///   0            4                 8               16     17     18          20      28            32
///   +------------+-----------------+---------------+------+------+-----------+-------+-------------+-------------+
///   | request id | subscription id | credit, bytes | from | zero | n backoff | value | ack_wait_ms | max_deliver |
///   +------------+-----------------+---------------+------+------+-----------+-------+-------------+-------------+
///  36                   40
///   +--------------------+----------------+-----------------+-------------------+-----------------+
///   | unacknowledged_max | n x backoff_ms | u16 len, stream | u16 len, consumer | u16 len, filter |
///   +--------------------+----------------+-----------------+-------------------+-----------------+
///     0 is the default of ack_wait_ms, max_deliver and unacknowledged_max; all ones: max_deliver has no limit
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consume {
    /// Names this request.
    pub request: RequestId,
    /// Names the subscription, from here to CLOSED.
    pub subscription: SubscriptionId,
    /// Bytes of batches that may be delivered before more credit comes.
    pub credit_bytes: u64,
    /// Where the consumer begins when it is created; where it stands counts when it is there already.
    pub from: Start,
    /// How it treats what is not acknowledged.
    pub settings: ConsumerSettings,
    /// The stream.
    pub stream: Name,
    /// The consumer.
    pub consumer: Name,
    /// What is wanted of the stream; none for everything. Fixed when the consumer is created.
    pub filter: Option<TopicFilter>,
}

impl Frame for Consume {
    const KIND: FrameType = FrameType::Consume;

    fn encode_payload(&self, out: &mut BytesMut) {
        let (from, value) = self.from.wire();
        let ConsumerChoices { ack_wait_ms, max_deliver, unacknowledged_max, backoff_ms } =
            self.settings.choices();
        out.u32(self.request.0);
        out.u32(self.subscription.0);
        out.u64(self.credit_bytes);
        out.u8(from);
        out.u8(0);
        out.u16(u16::try_from(backoff_ms.len()).expect("settings are within their limits"));
        out.u64(value);
        out.u32(ack_wait_ms.map_or(0, NonZeroU32::get));
        out.u32(match max_deliver {
            None => 0,
            Some(MaxDeliver::Times(times)) => times.get(),
            Some(MaxDeliver::NoLimit) => NO_LIMIT,
        });
        out.u32(unacknowledged_max.map_or(0, NonZeroU32::get));
        backoff_ms.iter().for_each(|step_ms| out.u32(*step_ms));
        out.bytes16(self.stream.as_str().as_bytes());
        out.bytes16(self.consumer.as_str().as_bytes());
        encode_filter(self.filter.as_ref(), out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let credit_bytes = reader.u64("credit")?;
        let from = reader.u8("from")?;
        reader.zeros("zero", 1)?;
        let steps = decode_count(&mut reader, "backoff", BACKOFF_STEPS_MAX)?;
        let from = Start::from_wire(from, reader.u64("value")?)?;
        let mut choices = ConsumerChoices {
            ack_wait_ms: NonZeroU32::new(reader.u32("ack_wait_ms")?),
            max_deliver: match reader.u32("max_deliver")? {
                NO_LIMIT => Some(MaxDeliver::NoLimit),
                times => NonZeroU32::new(times).map(MaxDeliver::Times),
            },
            unacknowledged_max: NonZeroU32::new(reader.u32("unacknowledged_max")?),
            backoff_ms: Vec::with_capacity(steps),
        };
        for _ in 0..steps {
            choices.backoff_ms.push(reader.u32("backoff_ms")?);
        }
        let settings = ConsumerSettings::new(choices)
            .map_err(|_| PayloadError::Field(DecodeError::Value { field: "unacknowledged_max" }))?;
        let stream = decode_name(&mut reader, "stream")?;
        let consumer = decode_name(&mut reader, "consumer")?;
        let filter = decode_filter(&mut reader)?;
        reader.finish()?;
        Ok(Self { request, subscription, credit_bytes, from, settings, stream, consumer, filter })
    }
}

/// A name behind its length.
pub(super) fn decode_name(reader: &mut Reader<'_>, field: &'static str) -> Result<Name, PayloadError> {
    Name::parse(reader.text16(field, POLICY_NAME_BYTES_MAX)?).map_err(|_| PayloadError::Name(field))
}
