//! What tasks and threads bring back to a session that asked for something which takes time.
//!
//! ```text
//!   session --asks--> a thread that may block: key record, page of a stream, proof
//!           <--Letter-- Handle::post, which wakes the session's task
//! ```
//!
//! A session's task never waits for a disk. It notes what it awaits, and goes on with other things until a letter comes.

use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::frame::{BindingGet, CheckpointReply, RequestId};
use sealbus_protocol::refusal::Refusal;

use crate::consumers::driver::HandedBatch;
use crate::consumers::registry::Consumer;
use crate::outbox::LaneId;
use crate::storage::page::Page;
use crate::storage::stream::store::SkippedOffsets;

/// A letter to a session.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The session's key binding is durable, as this record of `$keys`; or why it is not.
    KeyRecorded(Result<u64, String>),
    /// The binding that was asked for, when the disk has it.
    Key(BindingGet, Option<Bytes>),
    /// Where a reading begins that asked for a moment; or why that is not known.
    Begin(LaneId, Result<u64, String>),
    /// A page of the stream that a subscription reads; or why it cannot be read.
    Page(LaneId, Result<Page, String>),
    /// The durable consumer that a lane wants to join is there; or why not.
    Joined(LaneId, Result<Arc<Consumer>, Refusal>),
    /// Records that a durable consumer gives a lane.
    Handed(LaneId, Box<HandedBatch>),
    /// Offsets of a durable consumer that nobody gets.
    Skipped(LaneId, SkippedOffsets),
    /// The acknowledgements of this request are durable, or why they are not.
    Settled(RequestId, Result<(), String>),
    /// The answer to a request for a checkpoint.
    Checkpoint(RequestId, Result<Box<CheckpointReply>, Refusal>),
}
