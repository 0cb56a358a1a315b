//! Certificates that end: what was signed under them is believed for the time at which it was kept.

use std::num::NonZeroU32;

use bytes::Bytes;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::SignatureScheme;
use rustls_pki_types::PrivateKeyDer;
use sealbus_client::{Bus, Dated, DeliveryError, Principal, RejectionCode, Replay, Topic};
use sealbus_protocol::batch::Headers;
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::binding::{BindingRequest, TlsScheme};
use sealbus_protocol::frame::{BindingReply, Frame as _, RecordRange, StoredAt};
use sealbus_protocol::identity::CertificateFacts;
use sealbus_protocol::ids::{IncarnationId, InstanceId};
use sealbus_protocol::keys::SigningKey;
use zeroize::Zeroizing;

use crate::fake::{Fake, Say, now_ms};
use crate::fake_stream::{Kept, ORDERS, POLICY_VERSION, Stream};
use crate::pki::{BUS_ID, Pki};
use crate::{PATIENCE, client};

/// In the year 2020.
const LONG_AGO_MS: u64 = 1_590_000_000_000;

/// A producer as it was, and its broker of today.
struct Scene {
    pki: Pki,
    fake: Fake,
    bus: Bus,
    key: SigningKey,
    principal: Principal,
    chain: ProducerChain,
    kept: u64,
}

impl Scene {
    async fn new() -> Self {
        let pki = Pki::new();
        let fake = Fake::start(&pki).await;
        fake.state(|state| {
            state.streams.insert("orders".into(), Stream::new("a/#"));
            state.streams.insert("$dead/orders/billing".into(), Stream::new("nothing"));
            state.script.withhold = true;
        });
        let bus = client(&pki, &fake, "consumer").connect().await.unwrap();
        let topic = Topic::parse("a/b").unwrap();
        Self {
            key: SigningKey::from_seed(&Zeroizing::new([5; 32])),
            principal: Principal::parse("spiffe://bus.example/producer").unwrap(),
            chain: ProducerChain::new(topic.digest(&ORDERS)),
            kept: 0,
            pki,
            fake,
            bus,
        }
    }

    /// Binds the key to a certificate of these years, and announces that.
    fn bind(&self, from_year: i32, to_year: i32) {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(from_year, 1, 1);
        params.not_after = date_time_ymd(to_year, 1, 1);
        params.subject_alt_names = vec![SanType::URI(self.principal.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let tls_key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&tls_key, &self.pki.ca).unwrap();
        let chain = [certificate.der().clone()];
        let validity = CertificateFacts::parse(&chain[0]).unwrap().validity;
        let request = BindingRequest::new(&self.principal, &self.key, validity, &chain).unwrap();
        let tls_key = PrivateKeyDer::try_from(tls_key.serialize_der()).unwrap();
        let tls_key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&tls_key).unwrap();
        let offered = TlsScheme::ALL.map(|scheme| SignatureScheme::from(scheme.code()));
        let signer = tls_key.choose_scheme(&offered).unwrap();
        let scheme = TlsScheme::from_code(u16::from(signer.scheme())).unwrap();
        let signature = signer.sign(&request.tls_message()).unwrap();
        let binding = request.finish(scheme, &signature).unwrap();
        self.fake.say(&Say::Raw(BindingReply { request: None, binding }.encode().to_vec()));
    }

    /// A batch of these messages, kept at that time.
    fn keep(&mut self, append_ms: u64, messages: &[&str]) -> Kept {
        let context = ProducerContext {
            bus_id: BUS_ID,
            kid: self.key.verifying_key().kid(&self.principal),
            instance_id: InstanceId::new([6; 16]),
            started_ms: LONG_AGO_MS,
            incarnation_id: IncarnationId::new([8; 16]),
            policy_version: 0,
        };
        let mut open = OpenBatch::new(append_ms);
        for message in messages {
            open.push(append_ms, &[], Headers::NONE, message.as_bytes()).unwrap();
        }
        let offset = self.kept;
        self.kept += messages.len() as u64;
        let batch: Bytes = self.chain.sign(open, &context, &self.key).bytes().clone();
        let at = StoredAt { policy_version: POLICY_VERSION, leaf_index: offset };
        let topic = Topic::parse("a/b").unwrap();
        Kept { topic, stream_id: ORDERS, offset, append_ms, at, ranges: None, batch }
    }

    fn say(&self, kept: Kept) {
        self.fake.say(&Say::Stored(kept));
    }
}

async fn dated(replay: &mut Replay) -> Result<(u64, Dated), RejectionCode> {
    match tokio::time::timeout(PATIENCE, replay.next()).await.unwrap().unwrap() {
        Ok(message) => Ok((message.offset().unwrap(), message.dated())),
        Err(DeliveryError::Rejected(rejection)) => Err(rejection.code),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_signed_under_a_certificate_that_has_ended_is_dated_by_the_broker() {
    let mut scene = Scene::new().await;
    let mut replay = scene.bus.replay("orders").await.unwrap();
    scene.bind(2_020, 2_021);
    let kept = scene.keep(LONG_AGO_MS, &["then"]);
    scene.say(kept.clone());
    assert_eq!(dated(&mut replay).await, Ok((0, Dated::BrokerDated)));
    // Under the same certificate, as if it were of today.
    let today = scene.keep(now_ms(), &["now"]);
    scene.say(today);
    assert_eq!(dated(&mut replay).await, Err(RejectionCode::Binding));
    // Live, there is no append time that could make it true.
    let mut live = scene.bus.subscribe("a/b").await.unwrap();
    scene.fake.say(&Say::Deliver { topic: kept.topic, batch: kept.batch });
    let told = tokio::time::timeout(PATIENCE, live.next()).await.unwrap().unwrap();
    assert!(matches!(told, Err(DeliveryError::Rejected(_))));
}

/// The key lives longer than its certificates: each batch is judged by the binding of its time.
#[tokio::test]
async fn a_key_has_a_binding_for_each_of_its_certificates() {
    let mut scene = Scene::new().await;
    let mut replay = scene.bus.replay("orders").await.unwrap();
    scene.bind(2_022, 2_040);
    scene.bind(2_020, 2_021);
    let (then, today) = (scene.keep(LONG_AGO_MS, &["then"]), scene.keep(now_ms(), &["now"]));
    scene.say(then);
    scene.say(today);
    assert_eq!(dated(&mut replay).await, Ok((0, Dated::BrokerDated)));
    assert_eq!(dated(&mut replay).await, Ok((1, Dated::Current)));
    // Both are known now, and a second reader needs no announcement.
    let mut second = scene.bus.replay("orders").await.unwrap();
    let between = scene.keep(LONG_AGO_MS + 40_000_000_000, &["between two certificates"]);
    scene.say(Kept { offset: 0, ..between });
    assert_eq!(dated(&mut second).await, Err(RejectionCode::Binding));
}

#[tokio::test]
async fn dead_letters_are_counted_by_what_was_given_up() {
    let mut scene = Scene::new().await;
    scene.bind(2_020, 2_040);
    let batch = scene.keep(now_ms(), &["0", "1", "2", "3", "4"]);
    let mut dead = scene.bus.replay("$dead/orders/billing").await.unwrap();
    let letters = |offset, ranges: &[(u32, u32, u32)]| {
        let number = |number| NonZeroU32::new(number).unwrap();
        let range = |&(first, count, deliveries): &(u32, u32, u32)| RecordRange {
            first,
            count: number(count),
            deliveries: number(deliveries),
        };
        Kept { offset, ranges: Some(ranges.iter().map(range).collect()), ..batch.clone() }
    };
    scene.say(letters(0, &[(1, 1, 5), (3, 2, 6)]));
    scene.say(letters(3, &[(0, 1, 5)]));
    let mut found = Vec::new();
    for _ in 0..4 {
        let message = tokio::time::timeout(PATIENCE, dead.next()).await.unwrap().unwrap().unwrap();
        let payload = String::from_utf8(message.payload().to_vec()).unwrap();
        found.push((message.offset().unwrap(), payload, message.deliveries()));
        assert!(matches!(scene.bus.prove(&message).await, Err(sealbus_client::ProveError::NoPlace)));
    }
    let expected = [(0, "1", 5), (1, "3", 6), (2, "4", 6), (3, "0", 5)];
    assert_eq!(found, expected.map(|(offset, payload, times)| (offset, payload.to_owned(), times)));
    scene.say(letters(2, &[(2, 1, 5)]));
    let told = tokio::time::timeout(PATIENCE, dead.next()).await.unwrap().unwrap();
    assert!(
        matches!(&told, Err(DeliveryError::Rejected(rejection)) if rejection.code == RejectionCode::Rewrite)
    );
}
