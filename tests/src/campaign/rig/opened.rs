//! Opens everything as the broker does, in its order.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealbus_broker::storage::log::Log;
use sealbus_broker::storage::stream::StreamCore;
use sealbus_broker::storage::system::{CursorLog, SystemLog};
use sealbus_broker::vfs::Vfs;
use sealbus_protocol::ids::StreamId;

use super::part::{Part, Refused};
use crate::campaign::place::{Plan, STREAMS, stream_dir, stream_id, system_dir, system_options};
use crate::campaign::seen::read_snapshots;

/// What opening gives.
pub(super) struct Opened {
    pub(super) streams: Vec<StreamCore>,
    pub(super) keys: Log,
    pub(super) policies: Log,
    pub(super) kept_producers: Log,
    pub(super) cursors: CursorLog,
    pub(super) positions: BTreeMap<(StreamId, String), u64>,
    pub(super) damage: Vec<String>,
}

impl Opened {
    pub(super) fn of(vfs: &Arc<dyn Vfs>, plan: &Plan) -> Result<Self, Refused> {
        let other = |part: Part, text: String| Refused { part, text, is_full: false, is_usable: false };
        let mut damage = Vec::new();
        let mut open = |which: SystemLog| {
            let (log, recovery) = Log::open(Arc::clone(vfs), &system_dir(which), system_options(which))
                .map_err(|error| Refused::by(Part::System(which), &error))?;
            damage.extend(recovery.damage.iter().map(|damage| format!("{which}: {damage:?}")));
            Ok(log)
        };
        let (policies, keys, kept_producers) =
            (open(SystemLog::Policy)?, open(SystemLog::Keys)?, open(SystemLog::Producers)?);
        let which = SystemLog::Cursors;
        let (cursors, recovered) =
            CursorLog::open(Arc::clone(vfs), &system_dir(which), system_options(which))
                .map_err(|error| other(Part::System(which), error.to_string()))?;
        damage.extend(recovered.recovery.damage.iter().map(|damage| format!("{which}: {damage:?}")));
        damage.extend(recovered.refused.iter().map(ToString::to_string));
        let positions = recovered.consumers.iter();
        let positions = positions
            .map(|kept| ((kept.key.stream, kept.key.name.to_string()), kept.cursor.position()))
            .collect();
        let producers = Part::System(SystemLog::Producers);
        let mut snapshots =
            read_snapshots(&kept_producers.reader()).map_err(|error| other(producers, error))?;
        let mut streams = Vec::new();
        for stream in 0..STREAMS.len() {
            let snapshot = snapshots.take(stream_id(stream));
            let record = snapshot.record;
            let (dir, options) = (stream_dir(stream), plan.stream(stream));
            let (mut core, opened) = StreamCore::open(Arc::clone(vfs), &dir, options, Some(snapshot))
                .map_err(|error| other(Part::Stream(stream), error.to_string()))?;
            core.set_snapshot_record(record);
            damage.extend(opened.events.iter().map(|event| format!("stream {stream}: {event:?}")));
            streams.push(core);
        }
        Ok(Self { streams, keys, policies, kept_producers, cursors, positions, damage })
    }
}
