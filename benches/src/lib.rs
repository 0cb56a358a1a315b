//! What the micro-benchmarks share: a producer with fixed keys, and policies of any size.
//!
//! Run them with `cargo bench -p sealbus-benches`, on a machine that does nothing else. Each file begins with the
//! figure that we expect and why; `benches/RESULTS.md` has what was measured. The comparison with other brokers is a
//! program of its own.

use std::fmt::Write as _;

use bytes::Bytes;
use sealbus_protocol::batch::Headers;
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, StreamId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::policy::{CompiledPolicy, Policy};
use sealbus_protocol::topic::Topic;
use zeroize::Zeroizing;

/// Milliseconds since 1970 at which everything here happens.
pub const NOW_MS: u64 = 1_800_000_000_000;

/// Shapes of batches that the benchmarks go through: messages, and bytes of each payload.
pub const SHAPES: [(usize, usize); 6] =
    [(1, 128), (64, 128), (512, 128), (1, 1_024), (64, 1_024), (512, 1_024)];

/// A producer with fixed keys.
pub struct Producer {
    /// Its signing key.
    pub key: SigningKey,
    /// What its batches have in common.
    pub context: ProducerContext,
    /// The chain of its one topic.
    pub chain: ProducerChain,
}

impl Default for Producer {
    fn default() -> Self {
        Self::new()
    }
}

impl Producer {
    /// A producer at the start of its chain.
    ///
    /// # Panics
    /// Never: its names are valid.
    #[must_use]
    pub fn new() -> Self {
        let key = SigningKey::from_seed(&Zeroizing::new([1; 32]));
        let principal = Principal::parse("spiffe://bench.example/producer").expect("a valid principal");
        let topic = Topic::parse("bench/topic").expect("a valid topic");
        let context = ProducerContext {
            bus_id: BusId::new([2; 16]),
            kid: key.verifying_key().kid(&principal),
            instance_id: InstanceId::new([3; 16]),
            started_ms: NOW_MS,
            incarnation_id: IncarnationId::new([4; 16]),
            policy_version: 1,
        };
        Self { key, context, chain: ProducerChain::new(topic.digest(&StreamId::ZERO)) }
    }

    /// The next batch of the chain, signed.
    pub fn signed(&mut self, open: OpenBatch) -> Bytes {
        self.chain.sign(open, &self.context, &self.key).bytes().clone()
    }
}

/// An open batch with this many messages of this size.
///
/// # Panics
/// When they do not fit a batch.
#[must_use]
pub fn open_batch(messages: usize, payload_bytes: usize) -> OpenBatch {
    let payload = vec![7; payload_bytes];
    let mut open = OpenBatch::new(NOW_MS);
    for _ in 0..messages {
        open.push(NOW_MS, b"", Headers::NONE, &payload).expect("the shapes fit a batch");
    }
    open
}

/// A policy with this many rules, one principal to each; the last of them is denied a part of its topics.
///
/// # Panics
/// Never: the document is valid.
#[must_use]
pub fn policy(rules: usize) -> CompiledPolicy {
    let mut document = String::from("version = 1\n");
    for number in 0..rules {
        write!(
            document,
            "[[allow]]\nid = \"rule-{number}\"\nwho = [\"spiffe://bench.example/service-{number}\"]\n\
             verbs = [\"publish\", \"subscribe\"]\ntopics = [\"area-{number}/+/created\", \"shared/#\"]\n"
        )
        .expect("a string takes all that is written");
    }
    let policy = Policy::parse(&document).expect("a valid document");
    CompiledPolicy::compile(policy, NOW_MS).expect("a policy without tests compiles")
}
