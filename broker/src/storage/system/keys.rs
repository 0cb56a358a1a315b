//! `$keys`: the key bindings of those who publish to streams, for as long as anything names them.
//!
//! ```text
//!   frame of kind 32, one item each
//!   0          32
//!   +----------+-------------------+---------------------+
//!   | kid (32) | u16 len, principal | the binding's bytes |
//!   +----------+-------------------+---------------------+
//! ```
//!
//! A batch in a stream holds the number of the record, so that a key which is bound anew with every certificate is
//! found as it was when the batch was appended. The record is durable before the batch is taken.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::Kid;
use sealbus_protocol::limits::{BINDING_BYTES_MAX, PRINCIPAL_BYTES_MAX};
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};
use sha2::{Digest as _, Sha256};

use crate::locks::lock;
use crate::storage::log::{LogReader, ReadError};

/// The kind of a frame that holds a binding.
pub const KEY_FRAME: u8 = 32;

/// Records that are kept in memory. One has a kilobyte or two.
const CACHED_MAX: usize = 4_096;

/// Bindings whose records are known without looking: 40 bytes each. One that is forgotten is written once more.
const KNOWN_MAX: usize = 65_536;

/// A binding as `$keys` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The number of its record.
    pub record: u64,
    /// The id of the bound key.
    pub kid: Kid,
    /// Whose key it is.
    pub principal: Principal,
    /// The binding.
    pub bytes: Bytes,
}

/// The payload of a record.
#[must_use]
pub fn encode_key(kid: &Kid, principal: &Principal, binding: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + principal.as_str().len() + binding.len());
    out.raw(kid.as_bytes());
    out.bytes16(principal.as_str().as_bytes());
    out.raw(binding);
    out.freeze()
}

fn decode_key(record: u64, payload: &Bytes) -> Result<StoredKey, DecodeError> {
    let mut reader = Reader::new(payload);
    let kid = Kid::new(reader.array("kid")?);
    let principal = reader.text16("principal", PRINCIPAL_BYTES_MAX)?;
    let principal = Principal::parse(principal).map_err(|_| DecodeError::Value { field: "principal" })?;
    let bytes = payload.slice_ref(reader.rest());
    if bytes.is_empty() || bytes.len() > BINDING_BYTES_MAX {
        return Err(DecodeError::Value { field: "binding" });
    }
    Ok(StoredKey { record, kid, principal, bytes })
}

/// The bindings of `$keys`, the recently used ones in memory.
pub struct KeyDirectory {
    reader: LogReader,
    state: Mutex<State>,
}

struct State {
    cached: Lru<u64, Arc<StoredKey>>,
    known: Lru<[u8; 32], u64>,
}

impl KeyDirectory {
    /// The directory of a log.
    #[must_use]
    pub fn new(reader: LogReader) -> Self {
        let state = State { cached: Lru::new(CACHED_MAX), known: Lru::new(KNOWN_MAX) };
        Self { reader, state: Mutex::new(state) }
    }

    /// The record that holds these bytes, when that is known without looking.
    #[must_use]
    pub fn known(&self, binding: &[u8]) -> Option<u64> {
        lock(&self.state).known.get(&digest(binding)).copied()
    }

    /// A record has become durable.
    pub fn note(&self, key: StoredKey) {
        let mut state = lock(&self.state);
        state.known.insert(digest(&key.bytes), key.record);
        state.cached.insert(key.record, Arc::new(key));
    }

    /// A record, when it is in memory.
    #[must_use]
    pub fn cached(&self, record: u64) -> Option<Arc<StoredKey>> {
        lock(&self.state).cached.get(&record).map(Arc::clone)
    }

    /// A record, from memory or the disk. May block.
    ///
    /// # Errors
    /// [`KeyError`] when it is not there, or not what was written.
    pub fn load(&self, record: u64) -> Result<Arc<StoredKey>, KeyError> {
        if let Some(key) = self.cached(record) {
            return Ok(key);
        }
        let page = self.reader.read(record, 1).map_err(|error| KeyError::Read { record, error })?;
        let frame = page.frames.first().filter(|frame| frame.offset == record && frame.kind == KEY_FRAME);
        let frame = frame.ok_or(KeyError::Missing { record })?;
        let key =
            decode_key(record, &frame.payload).map_err(|error| KeyError::Malformed { record, error })?;
        self.note(key.clone());
        Ok(Arc::new(key))
    }
}

fn digest(binding: &[u8]) -> [u8; 32] {
    Sha256::digest(binding).into()
}

impl fmt::Debug for KeyDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDirectory")
    }
}

/// Why a key record cannot be had.
#[derive(Debug)]
pub enum KeyError {
    /// The disk cannot be read.
    Read {
        /// The record.
        record: u64,
        /// What the log says.
        error: ReadError,
    },
    /// It is not there, or damaged.
    Missing {
        /// The record.
        record: u64,
    },
    /// It does not hold a binding.
    Malformed {
        /// The record.
        record: u64,
        /// What is wrong with it.
        error: DecodeError,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { record, error } => write!(f, "record {record} of $keys cannot be read: {error}"),
            Self::Missing { record } => write!(f, "record {record} of $keys is missing or damaged"),
            Self::Malformed { record, error } => write!(f, "record {record} of $keys: {error}"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Missing { .. } => None,
            Self::Malformed { error, .. } => Some(error),
        }
    }
}

/// Values by key, of which the least recently used goes when there are too many.
struct Lru<K, V> {
    values: HashMap<K, (u64, V)>,
    used: BTreeMap<u64, K>,
    clock: u64,
    values_max: usize,
}

impl<K: Eq + Hash + Clone, V> Lru<K, V> {
    fn new(values_max: usize) -> Self {
        Self { values: HashMap::new(), used: BTreeMap::new(), clock: 0, values_max }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        let (used, value) = self.values.get_mut(key)?;
        self.clock += 1;
        self.used.remove(used);
        *used = self.clock;
        self.used.insert(self.clock, key.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        if let Some((before, _)) = self.values.insert(key.clone(), (self.clock, value)) {
            self.used.remove(&before);
        }
        self.used.insert(self.clock, key);
        if self.values.len() > self.values_max
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_what_was_bound() {
        let principal = Principal::parse("spiffe://a.example/anna").unwrap();
        let kid = Kid::new([7; 32]);
        let payload = encode_key(&kid, &principal, b"binding");
        let bytes = Bytes::from_static(b"binding");
        assert_eq!(decode_key(9, &payload).unwrap(), StoredKey { record: 9, kid, principal, bytes });
        for cut in 0..payload.len() - 6 {
            assert!(decode_key(9, &payload.slice(..cut)).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = Lru::new(2);
        lru.insert(1, 'a');
        lru.insert(2, 'b');
        lru.get(&1);
        lru.insert(3, 'c');
        assert_eq!([1, 2, 3].map(|key| lru.get(&key).copied()), [Some('a'), None, Some('c')]);
        lru.insert(3, 'd');
        assert_eq!((lru.values.len(), lru.used.len()), (2, 2));
        assert_eq!(lru.get(&3), Some(&'d'));
    }
}
