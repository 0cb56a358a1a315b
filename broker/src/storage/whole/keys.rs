//! Key bindings in `$keys`, each before the first batch that it signs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::Kid;

use super::storage::Storage;
use crate::locks::lock;
use crate::storage::index::LogEnd;
use crate::storage::system::keys::{KEY_FRAME, KeyError, StoredKey, encode_key};
use crate::storage::system::{SystemError, SystemFrame, SystemLog};

/// Keys that the index is told of at a time when it has to learn all of them.
const KEYS_AT_ONCE: usize = 1_024;

impl Storage {
    /// The record of `$keys` that holds this binding, when that is known without looking.
    #[must_use]
    pub fn known_key(&self, binding: &[u8]) -> Option<u64> {
        self.keys.known(binding)
    }

    /// Writes a binding to `$keys`, and says when it is durable.
    pub fn record_key(
        &self,
        kid: Kid,
        principal: &Principal,
        binding: Bytes,
        done: impl FnOnce(Result<u64, String>) + Send + 'static,
    ) {
        let frame = SystemFrame { kind: KEY_FRAME, flags: 0, payload: encode_key(&kid, principal, &binding) };
        let (keys, principal) = (Arc::clone(&self.keys), principal.clone());
        let to_index = Arc::clone(&self.keys_noted);
        let noted = move |kept: Result<Range<u64>, SystemError>| {
            done(match kept {
                Ok(records) => {
                    let record = records.start;
                    let key = StoredKey { record, kid, principal, bytes: binding };
                    lock(&to_index).push(key.clone());
                    keys.note(key);
                    Ok(record)
                }
                Err(error) => Err(error.to_string()),
            });
        };
        self.system.append(SystemLog::Keys, vec![frame], Box::new(noted));
    }

    /// The newest binding of a key that ever published to a stream. Blocks.
    #[must_use]
    pub fn find_key(&self, kid: &Kid) -> Option<Arc<StoredKey>> {
        let noted = lock(&self.keys_noted).iter().rev().find(|key| key.kid == *kid).map(|key| key.record);
        let record = noted.or_else(|| self.indexing.key_record(SystemLog::Keys.log_id(), kid))?;
        self.keys.load(record).ok()
    }

    /// Has the index follow what has been kept since it was last asked to. Blocks.
    pub fn follow_with_index(&self) {
        for stream in self.captured() {
            let Ok(snapshot) = stream.producers() else { continue };
            if let Ok(Some((end_offset, digest))) = stream.place_of(snapshot.record) {
                self.indexing.follow(stream.id(), end_offset, digest, &snapshot);
            }
        }
        let mut noted = lock(&self.keys_noted);
        noted.sort_by_key(|key| key.record);
        self.indexing.note_keys(&noted);
        noted.clear();
        drop(noted);
        self.indexing.flush();
    }

    /// Tells the index of the keys that it does not know.
    pub(super) fn follow_keys(&self) {
        let reader = self.system.reader(SystemLog::Keys);
        let end = LogEnd { record: reader.end_record(), offset: reader.end_offset() };
        let from = self.indexing.keys_from(end, |record| self.keys.load(record).ok());
        let mut unknown = Vec::new();
        for record in from..end.record {
            match self.keys.load(record) {
                Ok(key) => unknown.push(Arc::unwrap_or_clone(key)),
                Err(KeyError::Missing { .. } | KeyError::Malformed { .. }) => {}
                // The index follows no further than was read: the next start goes on from there.
                Err(KeyError::Read { .. }) => break,
            }
            if unknown.len() >= KEYS_AT_ONCE {
                self.indexing.note_keys(&unknown);
                unknown.clear();
            }
        }
        self.indexing.note_keys(&unknown);
    }
}
