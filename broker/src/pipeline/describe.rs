//! ADMIN's questions about streams, consumers and the broker: what there is, as far as the asker may know of it.
//!
//! A stream is listed for who has the verb `describe` on it, or `admin`. One that is not listed looks like one that does
//! not exist.

use std::num::NonZeroU64;

use sealbus_protocol::frame::admin::ConsumerKey;
use sealbus_protocol::frame::{
    AdminResult, BrokerStats, ConsumerInfo, Outcome, RequestId, RetentionInfo, StreamHealth, StreamInfo,
};
use sealbus_protocol::policy::{Act, Name, Retention, Stream};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::stream_name::StreamName;

use super::client::Client;
use crate::storage::stream::Level;
use crate::storage::stream::store::{StreamState, StreamStore};

impl Client {
    /// Lists the streams that the session may know of, in the order of their names: all, or those after one.
    pub(super) fn list_streams(
        &self,
        wire: &mut BrokerSession,
        request: RequestId,
        name: Option<&StreamName>,
        after: Option<&StreamName>,
    ) {
        let wanted = |stream: &&Stream| match (name, after) {
            (Some(StreamName::Plain(name)), _) => stream.name() == name,
            // Dead letters are told of with their consumer.
            (Some(StreamName::DeadLetters { .. }), _) => false,
            (None, Some(after)) => StreamName::Plain(stream.name().clone()) > *after,
            (None, None) => true,
        };
        let policy = self.decisions.policy();
        let mut streams: Vec<&Stream> = policy.compiled.policy().streams().iter().filter(wanted).collect();
        streams.sort_by(|one, other| one.name().cmp(other.name()));
        let infos =
            streams.into_iter().filter(|stream| self.may_describe(stream.name())).filter_map(|stream| {
                match self.bus.storage.stream(stream.id()) {
                    Some(store) => Some(self.stream_info(stream, &*store)),
                    // Between the policy and its streams there is a moment without either.
                    None => Some(self.shut_stream_info(stream, &self.bus.storage.why_shut(stream.id())?)),
                }
            });
        wire.admin_result(&AdminResult { request, outcome: Outcome::streams(infos) });
    }

    /// Lists the durable consumers of streams that the session may know of.
    pub(super) fn list_consumers(
        &self,
        wire: &mut BrokerSession,
        request: RequestId,
        stream: Option<&Name>,
        after: Option<&ConsumerKey>,
    ) {
        let mut infos: Vec<ConsumerInfo> = self
            .consumer_infos(|name| stream.is_none_or(|stream| name == stream) && self.may_describe(name))
            .into_iter()
            .filter(|info| {
                after.is_none_or(|after| (&info.stream, &info.name) > (&after.stream, &after.consumer))
            })
            .collect();
        infos.sort_by(|one, other| (&one.stream, &one.name).cmp(&(&other.stream, &other.name)));
        wire.admin_result(&AdminResult { request, outcome: Outcome::consumers(infos) });
    }

    /// Counts what the broker does.
    pub(super) fn count(&self, wire: &mut BrokerSession, request: RequestId) {
        let counted = self.bus.counts.now();
        let stats = BrokerStats {
            uptime_ms: self.bus.clock.tick().since(self.bus.started),
            sessions: number(self.bus.sessions.len()),
            subscriptions: number(self.bus.quotas.subscriptions()),
            streams: number(self.bus.storage.len()),
            consumers: number(self.bus.consumers.list(None).len()),
            published: counted.published,
            published_bytes: counted.published_bytes,
            delivered: counted.delivered,
            acknowledged_batches: counted.batches,
            refused: counted.refused,
            disk_free: self.bus.storage.free_bytes().unwrap_or(0),
            disk_reserve: self.bus.storage.reserve_bytes(),
            data_bytes: self.bus.storage.bytes(),
            audit_lines: self.bus.audit.durable_lines(),
        };
        wire.admin_result(&AdminResult { request, outcome: Outcome::Stats(Box::new(stats)) });
    }

    fn may_describe(&self, stream: &Name) -> bool {
        let now_ms = self.bus.clock.now_ms();
        self.decisions.on_bus(Act::Describe(stream), now_ms).is_ok()
            || self.decisions.on_bus(Act::Admin, now_ms).is_ok()
    }

    fn stream_info(&self, stream: &Stream, store: &dyn StreamStore) -> StreamInfo {
        let stats = store.stats();
        let (health, reason) = match &stats.state {
            StreamState::Open | StreamState::Closed => (StreamHealth::Open, String::new()),
            StreamState::Full => (StreamHealth::Full, "the disk has no room above the reserve".to_owned()),
            StreamState::Stopped(reason) => (StreamHealth::Stopped, reason.to_string()),
        };
        StreamInfo {
            durability: store.durability(),
            health,
            reason,
            first: stats.bounds.first,
            end: stats.bounds.end,
            records: stats.records,
            bytes: stats.bytes,
            segments: stats.segments,
            damaged: stats.damaged,
            checkpoint_size: stats.checkpoint_size,
            checkpoint_root: match stats.checkpoint_size {
                // The root of an empty tree is a hash too; whoever looks at it should see that there is no checkpoint.
                0 => [0; 32],
                _ => *stats.checkpoint_root.as_bytes(),
            },
            ..self.shut_stream_info(stream, "")
        }
    }

    /// Of a stream that cannot be opened nothing is known but what the policy says, and why.
    fn shut_stream_info(&self, stream: &Stream, reason: &str) -> StreamInfo {
        let Retention { age_ms, bytes, messages } = stream.retention();
        let limit = |limit: Option<u64>| limit.and_then(NonZeroU64::new);
        StreamInfo {
            name: StreamName::Plain(stream.name().clone()),
            id: stream.id(),
            topics: stream.topics().to_vec(),
            durability: Level::asked(stream.durability()).durability(),
            health: StreamHealth::Stopped,
            reason: reason.to_owned(),
            first: 0,
            end: 0,
            records: 0,
            bytes: 0,
            segments: 0,
            damaged: 0,
            checkpoint_size: 0,
            checkpoint_root: [0; 32],
            retention: RetentionInfo {
                age_ms: limit(age_ms),
                bytes: limit(bytes),
                messages: limit(messages),
            },
            consumers: number(self.bus.consumers.list(Some(stream.id())).len()),
        }
    }
}

/// As the wire has it. There are never so many.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
