//! A producer without a client: it signs what a test wants signed.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::{HEAD_LEN, Headers, PREAMBLE_LEN, Preamble};
use sealbus_protocol::binding::BindingRequest;
use sealbus_protocol::frame::{Hello, InstanceKind};
use sealbus_protocol::identity::{CertificateFacts, Principal, Validity};
use sealbus_protocol::ids::{BusId, ContentHash, IncarnationId, InstanceId, StreamId};
use sealbus_protocol::keys::{Purpose, SIGNATURE_LEN, SigningKey};
use sealbus_protocol::limits::FRAME_BYTES_MAX;
use sealbus_protocol::session::MINOR;
use sealbus_protocol::topic::Topic;
use zeroize::Zeroizing;

use crate::pki::Credential;

/// One incarnation of a client, with its signing key.
pub struct Producer {
    /// Whom it says that it is.
    pub principal: Principal,
    /// What all of its batches have in common. A test may change it.
    pub context: ProducerContext,
    key: SigningKey,
    binding: Bytes,
    chains: HashMap<(StreamId, Topic), ProducerChain>,
}

impl Producer {
    /// A new incarnation of the principal that the certificate is for, on this bus.
    #[must_use]
    pub fn new(bus_id: BusId, principal: &Principal, credential: &Credential) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the system gives randomness");
        let key = SigningKey::from_seed(&seed);
        let context = ProducerContext {
            bus_id,
            kid: key.verifying_key().kid(principal),
            instance_id: InstanceId::new(random()),
            started_ms: now_ms(),
            incarnation_id: IncarnationId::new(random()),
            policy_version: 0,
        };
        let binding = bind(principal, &key, credential);
        Self { principal: principal.clone(), context, key, binding, chains: HashMap::new() }
    }

    /// What binds its signing key to its certificate.
    #[must_use]
    pub const fn binding(&self) -> &Bytes {
        &self.binding
    }

    /// Its signing key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// HELLO, without its proof.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            bus_id: self.context.bus_id,
            minor_min: MINOR,
            minor_max: MINOR,
            instance_kind: InstanceKind::Random,
            features: 0,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).expect("a frame's limit fits"),
            instance_id: self.context.instance_id,
            started_ms: self.context.started_ms,
            incarnation_id: self.context.incarnation_id,
            kid: self.context.kid,
            binding: self.binding.clone(),
            agent: "sealbus-tests".to_owned(),
            proof: [0; SIGNATURE_LEN],
        }
    }

    /// Signs the next batch of a topic that no stream captures.
    #[must_use]
    pub fn batch(&mut self, topic: &str, payloads: &[&[u8]]) -> Bytes {
        self.batch_in(StreamId::ZERO, topic, payloads)
    }

    /// Signs the next batch of a topic for the stream that captures it.
    #[must_use]
    pub fn batch_in(&mut self, stream: StreamId, topic: &str, payloads: &[&[u8]]) -> Bytes {
        let now_ms = now_ms();
        let mut open = OpenBatch::new(now_ms);
        for payload in payloads {
            open.push(now_ms, b"", Headers::NONE, payload).expect("messages of tests are small");
        }
        let topic = Topic::parse(topic).expect("tests name good topics");
        let digest = topic.digest(&stream);
        let chain = self.chains.entry((stream, topic)).or_insert_with(|| ProducerChain::new(digest));
        chain.sign(open, &self.context, &self.key).bytes().clone()
    }

    /// Signs a batch once more after its preamble and body were changed: a lie with a good signature.
    #[must_use]
    pub fn resign(&self, batch: &[u8], body: &[u8], change: impl FnOnce(&mut Preamble)) -> Bytes {
        let head = batch.first_chunk::<PREAMBLE_LEN>().expect("a batch has a preamble");
        let mut preamble = Preamble::decode(head).expect("the batch was good");
        preamble.body_len = u32::try_from(body.len()).expect("bodies of tests are small");
        preamble.content_hash = content_hash(body);
        change(&mut preamble);
        let encoded = preamble.encode();
        let mut bytes = BytesMut::with_capacity(HEAD_LEN + body.len());
        bytes.extend_from_slice(&encoded);
        bytes.extend_from_slice(&self.key.sign(Purpose::Batch, &[&encoded]));
        bytes.extend_from_slice(body);
        bytes.freeze()
    }
}

/// One record as it is in a body, with headers that no library would write.
#[must_use]
pub fn record(headers: &[(&[u8], &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).expect("names of tests are short"));
        encoded.extend_from_slice(name);
        encoded
            .extend_from_slice(&u16::try_from(value.len()).expect("values of tests are short").to_be_bytes());
        encoded.extend_from_slice(value);
    }
    let mut record = Vec::new();
    record
        .extend_from_slice(&u32::try_from(payload.len()).expect("payloads of tests are short").to_be_bytes());
    record.extend_from_slice(&0_u16.to_be_bytes());
    record
        .extend_from_slice(&u16::try_from(encoded.len()).expect("headers of tests are short").to_be_bytes());
    record.extend_from_slice(&0_i32.to_be_bytes());
    record.extend_from_slice(&encoded);
    record.extend_from_slice(payload);
    record
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("it is after 1970").as_millis()).expect("it is before the end of time")
}

/// Random bytes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    bytes
}

/// A key binding that states this principal, whomever the certificate names.
#[must_use]
pub fn bind(principal: &Principal, key: &SigningKey, credential: &Credential) -> Bytes {
    let chain = credential.chain();
    // A certificate that cannot be read has no dates; its binding gets some all the same.
    let now_ms = now_ms();
    let today = Validity { not_before_ms: now_ms - 1_000, not_after_ms: now_ms + 3_600_000 };
    let validity = CertificateFacts::parse(&chain[0]).map_or(today, |facts| facts.validity);
    let request = BindingRequest::new(principal, key, validity, &chain).expect("the binding can be made");
    let (scheme, signature) = credential.sign(&request.tls_message());
    request.finish(scheme, &signature).expect("the binding can be finished")
}

/// The content hash of a body, computed as anybody would: it is in a batch that we sign.
fn content_hash(body: &[u8]) -> ContentHash {
    ContentHash::new(*blake3::hash(body).as_bytes())
}
