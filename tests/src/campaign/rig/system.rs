//! What is done to the broker's own logs.

use std::ops::Range;

use bytes::Bytes;
use sealbus_broker::storage::log::{Log, NewFrame};
use sealbus_broker::storage::system::keys::{KEY_FRAME, encode_key};
use sealbus_broker::storage::system::policies::{POLICY_FRAME, encode_policy};
use sealbus_broker::storage::system::{
    AskedSettings, ConsumerKey, ConsumerSettings, Cursor, CursorAppendError, CursorChange, KeptConsumer,
    SystemFrame, SystemLog,
};
use sealbus_protocol::ids::{PolicyHash, StreamId};
use sealbus_protocol::policy::Name;
use sha2::{Digest as _, Sha256};

use super::driver::Rig;
use super::part::{Part, Refused};
use super::producers::AUTHORS;
use crate::campaign::author::principal;
use crate::campaign::history::{Consumer, PlainHistory, When};
use crate::campaign::place::stream_id;

/// The consumers.
const CONSUMERS: [(usize, &str); 3] = [(0, "billing"), (0, "audit"), (1, "mail")];

impl Rig {
    pub(super) fn bind_key(&mut self) -> Result<(), Refused> {
        let record = self.history.keys.entries.len() as u64;
        let author = usize::try_from(record).unwrap_or_default() % AUTHORS.len();
        let Some(kid) = self.producers.0.get(author).map(|producer| producer.author.identity().kid()) else {
            return Ok(());
        };
        let binding_len = self.random.between(150, 700) as usize;
        let payload = encode_key(&kid, &principal(), &self.random.bytes(binding_len));
        let begun = self.now();
        self.history.keys.hand_over(&payload, begun);
        self.write_plain(SystemLog::Keys, KEY_FRAME, &[payload])?;
        self.history.keys.acknowledge(self.now());
        self.did("keys");
        // Only now may the producer publish under it.
        if let Some(producer) = self.producers.0.get_mut(author) {
            producer.key_record = record;
        }
        Ok(())
    }

    pub(super) fn change_policy(&mut self) -> Result<(), Refused> {
        let version = self.policy_version + 1;
        let document_len = self.random.between(100, 2_000) as usize;
        let document = self.random.bytes(document_len);
        let hash = PolicyHash::new(Sha256::digest(&document).into());
        let frames = encode_policy(version, hash, self.now_ms, &document);
        let begun = self.now();
        frames.iter().for_each(|payload| self.history.policies.hand_over(payload, begun));
        self.write_plain(SystemLog::Policy, POLICY_FRAME, &frames)?;
        self.history.policies.acknowledge(self.now());
        self.did("policies");
        self.policy_version = version;
        Ok(())
    }

    pub(super) fn move_consumer(&mut self) -> Result<(), Refused> {
        let (stream, name) = *self.random.pick(&CONSUMERS);
        let consumer: Consumer = (stream, name.to_owned());
        let end = self.history.streams.get(stream).map_or(0, |history| history.acked_end());
        let places = self.history.cursors.get(&consumer);
        let last = places.and_then(|places| places.last()).and_then(|(position, _)| *position).unwrap_or(0);
        let position = self.random.between(last, end.max(last));
        let settled = (1..).map(|number| position + 2 * number..position + 2 * number + 1);
        let most = self.random.between(0, 120) as usize;
        let settled: Vec<Range<u64>> = settled.take_while(|range| range.end <= end).take(most).collect();
        self.change_consumer(&consumer, Some((position, settled)))
    }

    pub(super) fn remove_consumer(&mut self) -> Result<(), Refused> {
        let (stream, name) = *self.random.pick(&CONSUMERS);
        self.change_consumer(&(stream, name.to_owned()), None)
    }

    pub(super) fn change_consumer(
        &mut self,
        consumer: &Consumer,
        to: Option<(u64, Vec<Range<u64>>)>,
    ) -> Result<(), Refused> {
        let part = Part::System(SystemLog::Cursors);
        self.check_running(part)?;
        let (stream, name) = consumer;
        let position = to.as_ref().map(|(position, _)| *position);
        let frame = match to {
            Some((position, settled)) => cursor_of(name, *stream, position, settled).0,
            None => CursorChange::Removed(consumer_key(name, *stream)).encode(),
        };
        self.history.stand(consumer, position, (self.operations)());
        match self.cursors.append(&[frame], self.now_ms) {
            Ok(_) => Ok(()),
            Err(CursorAppendError::Log(error)) => {
                if error.is_usable()
                    && let Some((_, when)) =
                        self.history.cursors.get_mut(consumer).and_then(|places| places.last_mut())
                {
                    *when = When::refused(when.begun);
                }
                Err(self.refused(part, &error))
            }
            Err(CursorAppendError::Record(error)) => {
                self.wrong.push(format!("a cursor is refused: {error}"));
                Ok(())
            }
        }
    }

    pub(super) fn sync_cursors(&mut self) -> Result<(), Refused> {
        let part = Part::System(SystemLog::Cursors);
        self.check_running(part)?;
        let (now_ms, began) = (self.now_ms, self.cursors.log().first_offset());
        self.cursors.sync(now_ms).map_err(|error| self.refused(part, &error))?;
        self.did("cursor_commits");
        if self.cursors.log().first_offset() > began {
            self.did("cursor_logs_shortened");
        }
        self.history.acknowledge_cursors((self.operations)());
        Ok(())
    }

    pub(super) fn write_system_watermarks(&mut self) -> Result<(), Refused> {
        for which in [SystemLog::Keys, SystemLog::Policy, SystemLog::Producers, SystemLog::Cursors] {
            let part = Part::System(which);
            if self.stopped.contains_key(&part) {
                continue;
            }
            let written = self.plain(which).write_watermark();
            written.map_err(|error| self.refused(part, &error))?;
        }
        Ok(())
    }

    pub(super) fn write_plain(
        &mut self,
        which: SystemLog,
        kind: u8,
        payloads: &[Bytes],
    ) -> Result<(), Refused> {
        let part = Part::System(which);
        let (before, begun) = (self.plain(which).end_record(), self.now());
        let time_ms = self.now_ms;
        let parts: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [&payload[..]]).collect();
        let frames: Vec<NewFrame<'_>> =
            parts.iter().map(|payload| NewFrame { kind, flags: 0, count: 1, time_ms, payload }).collect();
        let written = match self.check_running(part) {
            Err(refused) => Err((refused, true)),
            Ok(()) => match self.plain(which).append(&frames) {
                Err(error) => Err((self.refused(part, &error), error.is_usable())),
                Ok(_) => self.plain(which).sync().map_err(|error| (self.refused(part, &error), false)),
            },
        };
        written.map_err(|(refused, is_as_before)| {
            if is_as_before {
                let after = usize::try_from(before).unwrap_or(usize::MAX);
                self.plain_history(which).take_back(after, begun);
            }
            refused
        })
    }

    pub(super) const fn plain(&mut self, which: SystemLog) -> &mut Log {
        match which {
            SystemLog::Keys => &mut self.keys,
            SystemLog::Policy => &mut self.policies,
            SystemLog::Producers => &mut self.kept_producers,
            SystemLog::Cursors => self.cursors.log(),
        }
    }

    pub(super) const fn plain_history(&mut self, which: SystemLog) -> &mut PlainHistory {
        match which {
            SystemLog::Keys => &mut self.history.keys,
            SystemLog::Policy => &mut self.history.policies,
            SystemLog::Producers | SystemLog::Cursors => &mut self.history.producers,
        }
    }
}

fn consumer_key(name: &str, stream: usize) -> ConsumerKey {
    let name = Name::parse(name).expect("the campaign's names are names");
    ConsumerKey { stream: stream_id(stream), name }
}

/// A record of `$cursors`, and whose it is.
///
/// # Panics
/// When the name or the cursor is none.
#[must_use]
pub fn cursor_of(
    name: &str,
    stream: usize,
    position: u64,
    settled: Vec<Range<u64>>,
) -> (SystemFrame, (StreamId, String)) {
    let key = consumer_key(name, stream);
    let settings = ConsumerSettings::new(AskedSettings::default()).expect("the defaults are allowed");
    let cursor = Cursor::new(position, settled, Vec::new()).expect("the campaign's cursors are cursors");
    let whose = (key.stream, key.name.to_string());
    (CursorChange::Stands(KeptConsumer { key, settings, cursor }).encode(), whose)
}
