//! The trait that the owners of logs see.

use bytes::Bytes;
use sealbus_protocol::ids::{Kid, StreamId};

use super::error::IndexError;
use super::types::{CursorKey, KeyEntry, KeyPlace, ProducerEntry, ProducerKey, Update};
use super::watermark::Watermark;

/// An index over the records of logs. All calls may block on the disk. After an error the index is of no more use in
/// this process: go on without it, and let the next start rebuild it.
pub trait Index: Send + Sync {
    /// The logs of which something is kept.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn logs(&self) -> Result<Vec<StreamId>, IndexError>;

    /// How far this log was followed; none when nothing is kept of it.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn watermark(&self, log: &StreamId) -> Result<Option<Watermark>, IndexError>;

    /// The bindings of this log, by key and then by record.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn load_keys(&self, log: &StreamId) -> Result<Vec<(KeyPlace, KeyEntry)>, IndexError>;

    /// The bindings of one key, by record.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn load_key(&self, log: &StreamId, kid: &Kid) -> Result<Vec<(u64, KeyEntry)>, IndexError>;

    /// The cursors of this log.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn load_cursors(&self, log: &StreamId) -> Result<Vec<(CursorKey, Bytes)>, IndexError>;

    /// The producers' sequences of this log.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn load_producers(&self, log: &StreamId) -> Result<Vec<(ProducerKey, ProducerEntry)>, IndexError>;

    /// The minutes of this log in which something was appended, and the first offset of each, in order.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn load_times(&self, log: &StreamId) -> Result<Vec<(u64, u64)>, IndexError>;

    /// The last minute up to this one in which something was appended, and its first offset: where to begin to look
    /// for the first batch of a moment.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn offset_by(&self, log: &StreamId, minute: u64) -> Result<Option<(u64, u64)>, IndexError>;

    /// Changes the rows of one log and how far it was followed: all of it, or after a crash perhaps nothing of it.
    ///
    /// # Errors
    /// [`IndexError::Backwards`] and [`IndexError::TooLarge`], after which nothing has changed and the index still
    /// works; otherwise it does not.
    fn apply(&self, log: &StreamId, updates: &[Update], watermark: &Watermark) -> Result<(), IndexError>;

    /// Forgets everything of one log.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn clear(&self, log: &StreamId) -> Result<(), IndexError>;

    /// Asks for what was applied to be kept. What a power cut leaves of it is for the watermark to say.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not work.
    fn flush(&self) -> Result<(), IndexError>;
}
