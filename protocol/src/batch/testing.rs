//! A producer for the tests of this crate.

use zeroize::Zeroizing;

use super::produce::{OpenBatch, ProducerChain, ProducerContext};
use super::*;
use crate::identity::Principal;
use crate::ids::{BusId, IncarnationId, InstanceId, StreamId};
use crate::keys::SigningKey;
use crate::topic::Topic;

pub(crate) struct Producer {
    pub(crate) key: SigningKey,
    pub(crate) context: ProducerContext,
    pub(crate) chain: ProducerChain,
}

impl Producer {
    pub(crate) fn new(topic: &str) -> Self {
        let key = SigningKey::from_seed(&Zeroizing::new([1; 32]));
        let principal = Principal::parse("spiffe://a.example/anna").unwrap();
        let topic = Topic::parse(topic).unwrap();
        let context = ProducerContext {
            bus_id: BusId::new([2; 16]),
            kid: key.verifying_key().kid(&principal),
            instance_id: InstanceId::new([3; 16]),
            started_ms: 1_000_000,
            incarnation_id: IncarnationId::new([4; 16]),
            policy_version: 1,
        };
        Self { key, context, chain: ProducerChain::new(topic.digest(&StreamId::ZERO)) }
    }

    pub(crate) fn batch(&mut self, payloads: &[&[u8]]) -> Batch {
        let mut open = OpenBatch::new(1_000_100);
        for payload in payloads {
            open.push(1_000_100, b"", Headers::NONE, payload).unwrap();
        }
        let signed = self.chain.sign(open, &self.context, &self.key);
        Batch::decode(signed.bytes().clone()).unwrap()
    }
}
