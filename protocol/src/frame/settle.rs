//! SETTLE and SETTLED: what became of the deliveries of a durable consumer.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use crate::limits::SETTLE_ITEMS_MAX;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, decode_count, no_flags};
use super::header::FrameType;
use super::names::{RequestId, SubscriptionId};

const FLAG_SYNC: u8 = 1;

/// Whether an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Not: the broker keeps it, and has it on the disk within its interval.
    No,
    /// SETTLED comes once it is on the disk.
    Yes,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It was dealt with and is not delivered again.
    Ack,
    /// It was not, and is delivered again.
    Nack {
        /// Not before so many milliseconds have passed.
        delay_ms: u32,
    },
}

/// Messages that follow each other, and what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleItem {
    /// Offset of the first.
    pub offset: u64,
    /// How many.
    pub count: NonZeroU32,
    /// What became of them.
    pub settlement: Settlement,
}

/// Settles deliveries of a durable consumer. What is settled already, or was given to another member meanwhile, is
/// passed over.
///
/// ```text
///   0            4                 8     10
///   +------------+-----------------+-----+----------------------------------------------------------------------+
///   | request id | subscription id | n   | n x: offset u64 | count u32 | verdict u8 | zero (3) | delay_ms u32    |
///   +------------+-----------------+-----+----------------------------------------------------------------------+
///                                    u16    verdict: 1 acknowledged, delay_ms zero; 2 to be delivered again
/// ```
///
/// Flag 1: answered once it is on the disk. Without it the id has its highest bit set, and there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Names this request.
    pub request: RequestId,
    /// The subscription of the consumer.
    pub subscription: SubscriptionId,
    /// Whether an answer is wanted.
    pub sync: Sync,
    /// From 1 to [`SETTLE_ITEMS_MAX`].
    pub items: Vec<SettleItem>,
}

impl Frame for Settle {
    const KIND: FrameType = FrameType::Settle;

    fn flags(&self) -> u8 {
        match self.sync {
            Sync::No => 0,
            Sync::Yes => FLAG_SYNC,
        }
    }

    fn encode_payload(&self, out: &mut BytesMut) {
        assert!((1..=SETTLE_ITEMS_MAX).contains(&self.items.len()), "SETTLE is built within its limit");
        out.u32(self.request.0);
        out.u32(self.subscription.0);
        out.u16(u16::try_from(self.items.len()).expect("items are within their limit"));
        for item in &self.items {
            let (verdict, delay_ms) = match item.settlement {
                Settlement::Ack => (1, 0),
                Settlement::Nack { delay_ms } => (2, delay_ms),
            };
            out.u64(item.offset);
            out.u32(item.count.get());
            out.u8(verdict);
            out.raw(&[0; 3]);
            out.u32(delay_ms);
        }
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        let sync = match flags {
            0 => Sync::No,
            FLAG_SYNC => Sync::Yes,
            _ => return Err(PayloadError::Flags),
        };
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let count = decode_count(&mut reader, "items", SETTLE_ITEMS_MAX)?;
        if count == 0 {
            return Err(DecodeError::Value { field: "items" }.into());
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(decode_item(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { request, subscription, sync, items })
    }
}

fn decode_item(reader: &mut Reader<'_>) -> Result<SettleItem, DecodeError> {
    let offset = reader.u64("offset")?;
    let count = NonZeroU32::new(reader.u32("count")?).ok_or(DecodeError::Value { field: "count" })?;
    let verdict = reader.u8("verdict")?;
    reader.zeros("zero", 3)?;
    let settlement = match (verdict, reader.u32("delay_ms")?) {
        (1, 0) => Settlement::Ack,
        (2, delay_ms) => Settlement::Nack { delay_ms },
        _ => return Err(DecodeError::Value { field: "verdict" }),
    };
    if offset.checked_add(u64::from(count.get())).is_none() {
        return Err(DecodeError::Value { field: "offset" });
    }
    Ok(SettleItem { offset, count, settlement })
}

/// Says that a SETTLE with flag 1 is on the disk.
///
/// ```text
///   0
///   +------------+
///   | request id |
///   +------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The request that this answers.
    pub request: RequestId,
}

impl Frame for Settled {
    const KIND: FrameType = FrameType::Settled;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        reader.finish()?;
        Ok(Self { request })
    }
}
