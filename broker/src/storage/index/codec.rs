//! The values of rows, as bincode. The only place that names it.
//!
//! bincode is never on the wire and never signed: a value is read by the version that wrote it, or the index is moved
//! aside. Every value is decoded within a limit, must use all of its bytes, and is then parsed into the types that can
//! only be made by their check.

use ::bincode::{Decode, Encode, config};
use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::{Principal, Validity};
use sealbus_protocol::ids::{BusId, InstanceId, Kid, PreambleDigest, StreamId};
use sealbus_protocol::limits::{PRINCIPAL_BYTES_MAX, UNACKNOWLEDGED_BATCHES_MAX};

use super::error::{Damage, IndexError};
use super::rows::Table;
use super::tally::Tally;
use super::types::{CURSOR_BYTES_MAX, KeyEntry, ProducerEntry};
use super::watermark::Watermark;

/// The version of keys and values. Another one is moved aside and built anew.
pub const SCHEMA_VERSION: u32 = 1;

/// Bytes that decoding one value may claim. A producer's full window needs five kilobytes, a key entry half of that.
const VALUE_BYTES_MAX: usize = 16 * 1_024;

const _: () = assert!(UNACKNOWLEDGED_BATCHES_MAX * 96 + 256 <= VALUE_BYTES_MAX);
const _: () = assert!(PRINCIPAL_BYTES_MAX + 64 <= VALUE_BYTES_MAX);

#[derive(Encode, Decode)]
struct SchemaValue {
    version: u32,
    bus_id: [u8; 16],
}

#[derive(Encode, Decode)]
struct WatermarkValue {
    end_record: u64,
    end_offset: u64,
    digest: [u8; 32],
    rows: u64,
    sum: u128,
}

#[derive(Encode, Decode)]
struct KeyValue {
    principal: String,
    not_before_ms: u64,
    not_after_ms: u64,
}

#[derive(Encode, Decode)]
struct ProducerValue {
    kid: [u8; 32],
    instance_id: [u8; 16],
    configured: bool,
    started_ms: u64,
    key_record: u64,
    last_used_ms: u64,
    window: Vec<BatchValue>,
}

#[derive(Encode, Decode)]
struct BatchValue {
    first_seq: u64,
    next_seq: u64,
    digest: [u8; 32],
    durability: u8,
    offset: Option<u64>,
}

/// The value of the schema row.
pub(super) fn encode_schema(bus_id: &BusId) -> Vec<u8> {
    encode(SchemaValue { version: SCHEMA_VERSION, bus_id: *bus_id.as_bytes() })
}

/// Whether an index is one of this version and this bus.
pub(super) fn check_schema(value: &[u8], bus_id: &BusId) -> Result<(), Damage> {
    let schema: SchemaValue = decode(value).ok_or(Damage::NoSchema)?;
    if schema.version != SCHEMA_VERSION {
        return Err(Damage::Version { found: schema.version });
    }
    if schema.bus_id != *bus_id.as_bytes() {
        return Err(Damage::OtherBus);
    }
    Ok(())
}

/// The watermark of a log beside the tally of its rows. What is written is the tally of the rows *and* of the watermark,
/// so that a watermark which was changed is noticed as a changed row is.
pub(super) fn encode_watermark(log: &StreamId, watermark: &Watermark, tally: Tally) -> Vec<u8> {
    let Watermark { end_record, end_offset, digest } = *watermark;
    let mut sealed = tally;
    sealed.add(log.as_bytes(), &encode((end_record, end_offset, digest)));
    encode(WatermarkValue { end_record, end_offset, digest, rows: sealed.rows, sum: sealed.sum })
}

pub(super) fn decode_watermark(log: &StreamId, value: &[u8]) -> Result<(Watermark, Tally), Damage> {
    let value: WatermarkValue = decode(value).ok_or(damaged(Table::Watermark))?;
    let WatermarkValue { end_record, end_offset, digest, rows, sum } = value;
    let mut tally = Tally { rows, sum };
    tally.remove(log.as_bytes(), &encode((end_record, end_offset, digest)));
    Ok((Watermark { end_record, end_offset, digest }, tally))
}

pub(super) fn encode_key(entry: &KeyEntry) -> Vec<u8> {
    encode(KeyValue {
        principal: entry.principal.as_str().to_owned(),
        not_before_ms: entry.validity.not_before_ms,
        not_after_ms: entry.validity.not_after_ms,
    })
}

pub(super) fn decode_key(value: &[u8]) -> Result<KeyEntry, Damage> {
    let value: KeyValue = decode(value).ok_or(damaged(Table::Keys))?;
    let KeyValue { principal, not_before_ms, not_after_ms } = value;
    let principal = Principal::parse(&principal).map_err(|_| damaged(Table::Keys))?;
    Ok(KeyEntry { principal, validity: Validity { not_before_ms, not_after_ms } })
}

/// A cursor is its owner's bytes, which stay as they are.
pub(super) fn encode_cursor(cursor: &[u8]) -> Result<Vec<u8>, IndexError> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(IndexError::TooLarge { what: "cursors", max: CURSOR_BYTES_MAX, found: cursor.len() });
    }
    Ok(cursor.to_vec())
}

pub(super) fn decode_cursor(value: &[u8]) -> Result<&[u8], Damage> {
    if value.len() > CURSOR_BYTES_MAX {
        return Err(damaged(Table::Cursors));
    }
    Ok(value)
}

pub(super) fn encode_producer(entry: &ProducerEntry) -> Result<Vec<u8>, IndexError> {
    if entry.window.len() > UNACKNOWLEDGED_BATCHES_MAX {
        return Err(IndexError::TooLarge {
            what: "windows",
            max: UNACKNOWLEDGED_BATCHES_MAX,
            found: entry.window.len(),
        });
    }
    let window = entry.window.iter().map(|batch| BatchValue {
        first_seq: batch.first_seq,
        next_seq: batch.next_seq,
        digest: *batch.digest.as_bytes(),
        durability: batch.receipt.durability as u8,
        offset: batch.receipt.offset,
    });
    Ok(encode(ProducerValue {
        kid: *entry.kid.as_bytes(),
        instance_id: *entry.instance_id.as_bytes(),
        configured: match entry.instance_kind {
            InstanceKind::Random => false,
            InstanceKind::Configured => true,
        },
        started_ms: entry.started_ms,
        key_record: entry.key_record,
        last_used_ms: entry.last_used_ms,
        window: window.collect(),
    }))
}

pub(super) fn decode_producer(value: &[u8]) -> Result<ProducerEntry, Damage> {
    let value: ProducerValue = decode(value).ok_or(damaged(Table::Producers))?;
    if value.window.len() > UNACKNOWLEDGED_BATCHES_MAX {
        return Err(damaged(Table::Producers));
    }
    let window = value.window.into_iter().map(|batch| {
        let durability = Durability::from_wire(batch.durability).ok_or(damaged(Table::Producers))?;
        Ok(RememberedBatch {
            first_seq: batch.first_seq,
            next_seq: batch.next_seq,
            digest: PreambleDigest::new(batch.digest),
            receipt: Receipt { durability, offset: batch.offset },
        })
    });
    Ok(ProducerEntry {
        kid: Kid::new(value.kid),
        instance_id: InstanceId::new(value.instance_id),
        instance_kind: if value.configured { InstanceKind::Configured } else { InstanceKind::Random },
        started_ms: value.started_ms,
        key_record: value.key_record,
        window: window.collect::<Result<_, Damage>>()?,
        last_used_ms: value.last_used_ms,
    })
}

pub(super) fn encode_offset(offset: u64) -> Vec<u8> {
    encode(offset)
}

pub(super) fn decode_offset(value: &[u8]) -> Result<u64, Damage> {
    decode(value).ok_or(damaged(Table::Times))
}

const fn damaged(table: Table) -> Damage {
    Damage::Value { table: table.name() }
}

fn encode(value: impl Encode) -> Vec<u8> {
    let config = config::standard().with_limit::<VALUE_BYTES_MAX>();
    ::bincode::encode_to_vec(value, config).expect("numbers and bounded texts are always encoded")
}

fn decode<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    let config = config::standard().with_limit::<VALUE_BYTES_MAX>();
    let (value, used) = ::bincode::decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producer(batches: u64) -> ProducerEntry {
        let window = (0..batches).map(|number| RememberedBatch {
            first_seq: u64::MAX - number - 1,
            next_seq: u64::MAX - number,
            digest: PreambleDigest::new([7; 32]),
            receipt: Receipt { durability: Durability::Fsync, offset: Some(u64::MAX) },
        });
        ProducerEntry {
            kid: Kid::new([1; 32]),
            instance_id: InstanceId::new([2; 16]),
            instance_kind: InstanceKind::Configured,
            started_ms: u64::MAX,
            key_record: 3,
            window: window.collect(),
            last_used_ms: 4,
        }
    }

    fn key(principal: &str) -> KeyEntry {
        KeyEntry {
            principal: Principal::parse(principal).unwrap(),
            validity: Validity { not_before_ms: 0, not_after_ms: u64::MAX },
        }
    }

    #[test]
    fn values_round_trip_at_their_largest() {
        for batches in [0, 1, UNACKNOWLEDGED_BATCHES_MAX as u64] {
            let entry = producer(batches);
            assert_eq!(decode_producer(&encode_producer(&entry).unwrap()), Ok(entry));
        }
        assert!(matches!(
            encode_producer(&producer(UNACKNOWLEDGED_BATCHES_MAX as u64 + 1)),
            Err(IndexError::TooLarge { .. })
        ));
        let path = "spiffe://acme.example/".to_owned();
        let longest = path.clone() + &"a".repeat(PRINCIPAL_BYTES_MAX - path.len());
        for principal in ["spiffe://acme.example/billing", &longest] {
            assert_eq!(decode_key(&encode_key(&key(principal))), Ok(key(principal)));
        }
        let watermark = Watermark { end_record: u64::MAX, end_offset: 1, digest: [9; 32] };
        let tally = Tally { rows: u64::MAX, sum: u128::MAX };
        let log = StreamId::new([6; 16]);
        assert_eq!(
            decode_watermark(&log, &encode_watermark(&log, &watermark, tally)),
            Ok((watermark, tally))
        );
        let other = decode_watermark(&StreamId::new([7; 16]), &encode_watermark(&log, &watermark, tally));
        assert_ne!(other, Ok((watermark, tally)));
        assert_eq!(decode_offset(&encode_offset(u64::MAX)), Ok(u64::MAX));
        assert!(encode_cursor(&[0; CURSOR_BYTES_MAX]).is_ok());
        assert!(matches!(encode_cursor(&[0; CURSOR_BYTES_MAX + 1]), Err(IndexError::TooLarge { .. })));
        assert!(decode_cursor(&[0; CURSOR_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn every_truncation_and_every_addition_is_refused() {
        fn refuses<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Damage>) {
            assert!(decode(bytes).is_ok());
            assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_err()));
            assert!(decode(&[bytes, &[0]].concat()).is_err());
        }
        let tally = Tally { rows: 3, sum: u128::MAX };
        let watermark = Watermark { end_record: 300, end_offset: 70_000, digest: [9; 32] };
        let log = StreamId::new([6; 16]);
        refuses(&encode_watermark(&log, &watermark, tally), |bytes| decode_watermark(&log, bytes));
        refuses(&encode_key(&key("spiffe://acme.example/billing")), decode_key);
        refuses(&encode_producer(&producer(3)).unwrap(), decode_producer);
        refuses(&encode_offset(70_000), decode_offset);
        let bus_id = BusId::new([5; 16]);
        refuses(&encode_schema(&bus_id), |bytes| check_schema(bytes, &bus_id));
    }

    #[test]
    fn another_version_and_another_bus_are_named() {
        let bus_id = BusId::new([5; 16]);
        assert_eq!(check_schema(&encode_schema(&bus_id), &BusId::new([6; 16])), Err(Damage::OtherBus));
        let next = encode(SchemaValue { version: SCHEMA_VERSION + 1, bus_id: [5; 16] });
        assert_eq!(check_schema(&next, &bus_id), Err(Damage::Version { found: SCHEMA_VERSION + 1 }));
        assert_eq!(check_schema(b"", &bus_id), Err(Damage::NoSchema));
    }

    #[test]
    fn a_declared_length_sets_no_memory_aside() {
        // A window of 2^60 batches, in bincode's largest spelling of a length.
        let mut bytes = encode_producer(&producer(0)).unwrap();
        bytes.pop();
        bytes.push(253);
        bytes.extend_from_slice(&(1_u64 << 60).to_le_bytes());
        assert_eq!(decode_producer(&bytes), Err(Damage::Value { table: "producers" }));
        let mut text = vec![253];
        text.extend_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode_key(&text), Err(Damage::Value { table: "key directory" }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_watermark(&StreamId::ZERO, &bytes);
            let _ = decode_key(&bytes);
            let _ = decode_offset(&bytes);
            if let Ok(entry) = decode_producer(&bytes) {
                prop_assert!(entry.window.len() <= UNACKNOWLEDGED_BATCHES_MAX);
            }
        }
    }
}
