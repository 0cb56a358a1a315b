//! A producer and somebody who waits: what the suite publishes with.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sealbus_protocol::batch::accept::{
    Accepted, Circumstances, Fence, ProvenProducer, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::{Batch, Headers};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, StreamId};
use sealbus_protocol::keys::{SigningKey, VerifyingKey};
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Permit, Policy, decide};
use sealbus_protocol::topic::Topic;

use crate::locks::lock;
use crate::storage::stream::store::{AppendError, Fate, NewBatch, StreamStore, Ticket, Waiter};

/// The bus of the suite.
pub const BUS: BusId = BusId::new([0xb5; 16]);

/// When everything happens, unless a check says otherwise.
pub const NOW_MS: u64 = 1_700_000_000_000;

/// The policy in force.
pub const POLICY_VERSION: u64 = 7;

/// How long a check waits for what must happen. It never takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A producer on one topic of one stream, and the broker's view of its sequence.
pub struct Author {
    key: SigningKey,
    context: ProducerContext,
    chain: ProducerChain,
    topic: Topic,
    stream_id: StreamId,
    proven: ProvenProducer,
    permit: Permit,
    /// Where the broker thinks that it stands.
    pub sequence: Arc<Mutex<SequenceState>>,
}

impl Author {
    /// A producer of its own for each number.
    #[must_use]
    pub fn new(number: u8, topic: &str, stream_id: StreamId) -> Self {
        let principal = Principal::parse("spiffe://a.example/anna").expect("a principal");
        let topic = Topic::parse(topic).expect("a topic");
        let key = SigningKey::from_seed(&[number; 32].into());
        let context = ProducerContext {
            bus_id: BUS,
            kid: key.verifying_key().kid(&principal),
            instance_id: InstanceId::new([number; 16]),
            started_ms: NOW_MS,
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
        let sequence = Arc::new(Mutex::new(SequenceState::from_start()));
        Self { key, context, chain, topic, stream_id, proven, permit, sequence }
    }

    /// Its key.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Its topic.
    #[must_use]
    pub const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Its incarnation.
    #[must_use]
    pub const fn incarnation_id(&self) -> IncarnationId {
        self.context.incarnation_id
    }

    /// Signs the next batch, of this many messages with this many bytes each.
    pub fn sign(&mut self, messages: u32, bytes: usize) -> Bytes {
        let mut open = OpenBatch::new(NOW_MS);
        for number in 0..messages {
            let mut payload = vec![0; bytes];
            let seq = self.chain.next_seq().saturating_add(u64::from(number));
            for (place, byte) in payload.iter_mut().zip(seq.to_be_bytes()) {
                *place = byte;
            }
            open.push(NOW_MS, b"", Headers::NONE, &payload).expect("the suite's batches fit");
        }
        self.chain.sign(open, &self.context, &self.key).bytes().clone()
    }

    /// Signs a sign of life.
    pub fn sign_heartbeat(&mut self) -> Bytes {
        self.chain.sign_heartbeat(NOW_MS, &self.context, &self.key).bytes().clone()
    }

    /// What the broker says of a batch.
    #[must_use]
    pub fn judge(&self, state: &SequenceState, batch: Bytes) -> Verdict {
        let batch = Batch::decode(batch).expect("an author's batch is well formed");
        state.judge(
            batch,
            &Circumstances {
                bus_id: BUS,
                topic: &self.topic,
                topic_digest: self.topic.digest(&self.stream_id),
                producer: &self.proven,
                policy_version: POLICY_VERSION,
                decision: Ok(&self.permit),
                fence: Fence::Open,
                now_ms: NOW_MS,
            },
        )
    }

    /// Brings a batch into the stream as the pipeline does: judged, appended and committed under the sequence's lock.
    ///
    /// # Errors
    /// What the store says; the sequence has not moved.
    pub fn offer(
        &self,
        store: &dyn StreamStore,
        batch: Bytes,
        waiter: Arc<dyn Waiter>,
        now_ms: u64,
    ) -> Result<Ticket, AppendError> {
        let mut state = lock(&self.sequence);
        let accepted = match self.judge(&state, batch) {
            Verdict::Accept(accepted) => accepted,
            Verdict::Duplicate(receipt) => {
                let offset = receipt.offset.expect("a stored batch has an offset");
                return store.again(offset, waiter);
            }
            other => unreachable!("an author's batch is judged {other:?}"),
        };
        let ticket = store.append(self.new_batch(accepted.clone(), waiter), now_ms)?;
        let receipt = Receipt { durability: store.durability(), offset: Some(ticket.offset()) };
        state.commit(&accepted, receipt);
        Ok(ticket)
    }

    /// Publishes and waits for what becomes of it.
    ///
    /// # Errors
    /// What the store says at once.
    pub fn publish(&mut self, store: &dyn StreamStore, messages: u32) -> Result<(Ticket, Fate), AppendError> {
        let batch = self.sign(messages, 100);
        self.publish_bytes(store, batch)
    }

    /// Publishes these bytes and waits for what becomes of them.
    ///
    /// # Errors
    /// What the store says at once.
    pub fn publish_bytes(
        &self,
        store: &dyn StreamStore,
        batch: Bytes,
    ) -> Result<(Ticket, Fate), AppendError> {
        let bell = Bell::new();
        let ticket = self.offer(store, batch, Arc::clone(&bell) as _, NOW_MS)?;
        let fate = bell.await_some(|| match store.fate(&ticket) {
            Fate::Pending => None,
            fate => Some(fate),
        });
        Ok((ticket, fate))
    }

    fn new_batch(&self, accepted: Accepted, waiter: Arc<dyn Waiter>) -> NewBatch {
        NewBatch {
            accepted,
            topic: self.topic.clone(),
            key_record: 3,
            instance_kind: InstanceKind::Random,
            policy_version: POLICY_VERSION,
            context: Arc::new(()),
            sequence: Arc::clone(&self.sequence),
            waiter,
        }
    }
}

fn permit(principal: &Principal, topic: &Topic) -> Permit {
    let document = "version = 1\n[[allow]]\nid = \"anna\"\nwho = [\"spiffe://a.example/anna\"]\n\
                    verbs = [\"publish\"]\ntopics = [\"#\"]\n";
    let policy = Policy::parse(document).expect("the suite's policy parses");
    let policy = CompiledPolicy::compile(policy, NOW_MS).expect("the suite's policy compiles");
    let source = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let context = Context { source, zone: None, now_ms: NOW_MS };
    decide(&policy, principal, Act::Publish(topic), &context).expect("the suite's policy permits it")
}

/// Somebody who waits to be told.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    /// A bell that nobody has rung.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How often it was rung.
    #[must_use]
    pub fn rung(&self) -> u64 {
        *lock(&self.rung)
    }

    /// Looks again each time it is rung, until there is something.
    ///
    /// # Panics
    /// When it takes so long that it will never be.
    pub fn await_some<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut rung = lock(&self.rung);
        loop {
            let seen = *rung;
            drop(rung);
            if let Some(found) = look() {
                return found;
            }
            rung = lock(&self.rung);
            if *rung == seen {
                let waited = self.changed.wait_timeout_while(rung, PATIENCE, |rung| *rung == seen);
                let (after, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                assert!(!outcome.timed_out(), "whoever waits is told in time");
                rung = after;
            }
        }
    }
}

impl Waiter for Bell {
    fn committed(&self) {
        let mut rung = lock(&self.rung);
        *rung = rung.saturating_add(1);
        self.changed.notify_all();
    }
}
