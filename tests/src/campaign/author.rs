//! A producer that signs real batches, and what a broker must know to judge them. Nothing of it is the broker's code.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use sealbus_protocol::batch::accept::{Circumstances, Fence, ProvenProducer, SequenceState, Verdict};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::{Batch, Headers};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid, StreamId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Permit, Policy, decide};
use sealbus_protocol::topic::Topic;

use super::random::Random;

/// The bus of all campaigns.
pub const BUS: BusId = BusId::new([0xb5; 16]);

/// When a campaign begins, milliseconds since 1970.
pub const START_MS: u64 = 1_700_000_000_000;

/// The first policy. Producers keep naming it, which they may.
pub const POLICY_VERSION: u64 = 1;

const PRINCIPAL: &str = "spiffe://campaign.example/anna";

/// A producer with one topic of one stream.
pub struct Author {
    identity: Identity,
    key: SigningKey,
    context: ProducerContext,
    chain: ProducerChain,
}

/// What a broker knows of an [`Author`].
#[derive(Clone)]
pub struct Identity {
    topic: Topic,
    stream_id: StreamId,
    proven: ProvenProducer,
    permit: Permit,
}

/// Who the authors are.
///
/// # Panics
/// Never: it is a principal.
#[must_use]
pub fn principal() -> Principal {
    Principal::parse(PRINCIPAL).expect("the campaign's principal is one")
}

impl Author {
    /// An author of its own for each number.
    ///
    /// # Panics
    /// When the topic is none.
    #[must_use]
    pub fn new(number: u8, topic: &str, stream_id: StreamId) -> Self {
        let (principal, topic) =
            (principal(), Topic::parse(topic).expect("the campaign's topics are topics"));
        let key = SigningKey::from_seed(&[number; 32].into());
        let context = ProducerContext {
            bus_id: BUS,
            kid: key.verifying_key().kid(&principal),
            instance_id: InstanceId::new([number; 16]),
            started_ms: START_MS,
            incarnation_id: IncarnationId::new([number; 16]),
            policy_version: POLICY_VERSION,
        };
        let proven = ProvenProducer {
            kid: context.kid,
            key: key.verifying_key(),
            instance_id: context.instance_id,
            started_ms: context.started_ms,
            incarnation_id: context.incarnation_id,
        };
        let permit = permit(&principal, &topic);
        let chain = ProducerChain::new(topic.digest(&stream_id));
        Self { identity: Identity { topic, stream_id, proven, permit }, key, context, chain }
    }

    /// What a broker knows of it.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Signs the next batch: so many messages of so many bytes each.
    ///
    /// # Panics
    /// When they do not fit into one.
    pub fn sign(&mut self, messages: u32, bytes: usize, random: &mut Random) -> Bytes {
        let mut open = OpenBatch::new(START_MS);
        for _ in 0..messages {
            open.push(START_MS, b"", Headers::NONE, &random.bytes(bytes))
                .expect("campaigns have small batches");
        }
        self.chain.sign(open, &self.context, &self.key).bytes().clone()
    }

    /// Bytes that a batch of one message of so many bytes has.
    ///
    /// # Panics
    /// When it does not fit into one.
    #[must_use]
    pub fn len_of(bytes: usize) -> usize {
        let mut open = OpenBatch::new(START_MS);
        open.push(START_MS, b"", Headers::NONE, &vec![0; bytes]).expect("campaigns have small batches");
        open.bytes_len()
    }

    /// Signs a sign of life.
    pub fn sign_heartbeat(&mut self) -> Bytes {
        self.chain.sign_heartbeat(START_MS, &self.context, &self.key).bytes().clone()
    }
}

impl Identity {
    /// Its topic.
    #[must_use]
    pub const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Its incarnation.
    #[must_use]
    pub const fn incarnation_id(&self) -> IncarnationId {
        self.proven.incarnation_id
    }

    /// The id of its key.
    #[must_use]
    pub const fn kid(&self) -> Kid {
        self.proven.kid
    }

    /// What a broker says of a batch.
    ///
    /// # Panics
    /// When the bytes are no batch.
    #[must_use]
    pub fn judge(&self, state: &SequenceState, batch: Bytes) -> Verdict {
        let circumstances = Circumstances {
            bus_id: BUS,
            topic: &self.topic,
            topic_digest: self.topic.digest(&self.stream_id),
            producer: &self.proven,
            policy_version: POLICY_VERSION,
            decision: Ok(&self.permit),
            fence: Fence::Open,
            now_ms: START_MS,
        };
        state.judge(Batch::decode(batch).expect("an author's batch is well formed"), &circumstances)
    }
}

fn permit(principal: &Principal, topic: &Topic) -> Permit {
    let document = format!(
        "version = 1\n[[allow]]\nid = \"anna\"\nwho = [\"{PRINCIPAL}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\n"
    );
    let policy = Policy::parse(&document).expect("the campaign's policy parses");
    let policy = CompiledPolicy::compile(policy, START_MS).expect("the campaign's policy compiles");
    let context = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms: START_MS };
    decide(&policy, principal, Act::Publish(topic), &context).expect("the campaign's policy permits it")
}
