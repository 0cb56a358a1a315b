//! What a check is told, and what it asks.

use sealbus_protocol::ids::{BusId, Kid, StreamId};
use sealbus_protocol::keys::{PUBLIC_KEY_LEN, VerifyingKey};
use sealbus_protocol::topic::Topic;

/// Which stream is to be checked, and by which key its checkpoints are signed.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// The bus.
    pub bus_id: BusId,
    /// The stream.
    pub stream_id: StreamId,
    /// The public half of the broker's log key; without it the checkpoint's signature is not judged.
    pub log_key: Option<[u8; PUBLIC_KEY_LEN]>,
}

/// The question whose key signed a batch, and whether it was allowed to at that time.
#[derive(Debug, Clone, Copy)]
pub struct KeyQuestion<'a> {
    /// The record of `$keys` that the stream names.
    pub key_record: u64,
    /// The key that the batch names.
    pub kid: Kid,
    /// The batch's topic.
    pub topic: &'a Topic,
    /// When it was appended: the moment as of which certificates are judged.
    pub append_ms: u64,
    /// The policy in force then.
    pub policy_version: u64,
}

/// Who answers: the key, or why the batch must not be believed. Called once for each batch.
pub type KeyJudge<'a> = dyn FnMut(&KeyQuestion<'_>) -> Result<VerifyingKey, String> + 'a;

/// How far the check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Records that were looked at.
    pub records: u64,
    /// Records of the stream.
    pub end_record: u64,
}
