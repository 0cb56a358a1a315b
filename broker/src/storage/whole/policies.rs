//! Policies in `$policy`, each before its streams are opened under it.

use sealbus_protocol::ids::PolicyHash;

use super::storage::Storage;
use crate::storage::system::policies::{POLICY_FRAME, decode_policy, encode_policy};
use crate::storage::system::{SystemError, SystemFrame, SystemLog};

impl Storage {
    /// Keeps a policy, and says when it is durable. One that is the newest there already is not kept again.
    pub fn record_policy(
        &self,
        version: u64,
        hash: PolicyHash,
        document: &[u8],
        done: impl FnOnce(Result<(), SystemError>) + Send + 'static,
    ) {
        if self.newest_policy() == Some(hash) {
            return done(Ok(()));
        }
        let at_ms = self.clock.now_ms();
        let frames = encode_policy(version, hash, at_ms, document)
            .into_iter()
            .map(|payload| SystemFrame { kind: POLICY_FRAME, flags: 0, payload })
            .collect();
        self.system.append(SystemLog::Policy, frames, Box::new(move |kept| done(kept.map(drop))));
    }

    fn newest_policy(&self) -> Option<PolicyHash> {
        let reader = self.system.reader(SystemLog::Policy);
        let last = reader.offset_of_last(1);
        let page = reader.read(last, 1).ok()?;
        let frame = page.frames.last().filter(|frame| frame.kind == POLICY_FRAME)?;
        decode_policy(&frame.payload).ok().filter(|part| part.part + 1 == part.parts).map(|part| part.hash)
    }
}
