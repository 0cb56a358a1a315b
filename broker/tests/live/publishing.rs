//! From a producer to its consumers.

use bytes::Bytes;
use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::{Batch, Headers};
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::frame::{Freshness, IncarnationState, Narrowed};
use sealbus_protocol::identity::{PrincipalSource, TrustDomain, TrustStore};
use sealbus_protocol::ids::{IncarnationId, Kid, StreamId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ClientEvent;

use crate::harness::{
    Bus, Client, Incarnation, allow, deny, now_ms, payloads_of, policy, principal, random, topic,
};

fn open_policy() -> String {
    policy(
        3,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/#"]),
        ],
    )
}

#[test]
fn a_batch_comes_out_as_it_went_in_behind_the_binding_that_proves_it() {
    let bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    let ready = ben.subscribe("t/+").unwrap();
    assert_eq!((ready.narrowed, ready.generation), (Narrowed::No, 1));
    let mut anna = bus.client("anna");
    let opened = anna.open("t/1").unwrap();
    assert_eq!((opened.stream, opened.resume), (StreamId::ZERO, None));
    let mut publisher = anna.publisher("t/1");
    let signed = anna.sign(&mut publisher, &[b"one", b"two"]);
    let request = anna.send(&publisher, signed.bytes().clone());
    let ack = anna.answer(request).unwrap();
    assert_eq!((ack.receipt.durability, ack.freshness), (Durability::Live, Freshness::New));

    let ClientEvent::Binding(binding) = ben.event() else {
        panic!("BINDING comes before a key's first delivery")
    };
    let binding = KeyBinding::decode(binding.binding).unwrap();
    assert_eq!(*binding.principal(), principal("anna"));
    let ClientEvent::Deliver(delivered) = ben.event() else { panic!("then DELIVER") };
    assert_eq!((delivered.topic.as_str(), delivered.subscription), ("t/1", ready.subscription));
    assert_eq!(delivered.batch, *signed.bytes());
    let trust = TrustStore::new(vec![
        TrustDomain::new("acme.example", PrincipalSource::Spiffe, &[bus.ca.der().clone()]).unwrap(),
    ])
    .unwrap();
    let proven = binding.verify_at(&trust, now_ms()).unwrap();
    Batch::decode(delivered.batch).unwrap().verify(proven.key()).unwrap();

    // The second batch needs no binding.
    anna.publish(&mut publisher, &[b"three"]).unwrap();
    let ClientEvent::Deliver(delivered) = ben.event() else { panic!("the binding is sent once") };
    assert_eq!(payloads_of(&delivered.batch), [b"three"]);
    bus.audit_has(&["300201", "spiffe://acme.example/anna"]);
}

#[test]
fn batches_of_every_size_arrive_in_order() {
    let bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    ben.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/big");
    let sizes = [0, 1, 4_000, 16_000, 17_000, 100_000, 900_000, 3, 1_000_000, 50];
    for (index, size) in sizes.into_iter().enumerate() {
        let payload = vec![index as u8; size];
        anna.publish(&mut publisher, &[&payload]).unwrap();
    }
    for (index, size) in sizes.into_iter().enumerate() {
        let (_, payloads) = ben.payloads();
        assert_eq!(payloads, [vec![index as u8; size]]);
    }
}

#[test]
fn a_denied_publish_names_the_rule() {
    let bus = Bus::start(&policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            deny("not-the-secrets", "anna", "publish", &["t/secret/#"]),
        ],
    ));
    let mut anna = bus.client("anna");
    anna.open("t/1").unwrap();
    let refusal = anna.open("t/secret/1").unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    assert!(
        refusal.reason().contains("not-the-secrets") && refusal.reason().contains("t/secret/1"),
        "{refusal}"
    );
    let refusal = anna.open("u/1").unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    assert!(refusal.reason().contains("no rule allows it"), "{refusal}");
    let refusal = anna.open("$sys/x").unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    bus.audit_has(&["not-the-secrets", "t/secret/1", "spiffe://acme.example/anna"]);
}

#[test]
fn a_grant_withdrawn_refuses_the_next_batch_on_an_open_topic() {
    let bus = Bus::start(&open_policy());
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    anna.publish(&mut publisher, &[b"one"]).unwrap();
    bus.reload_policy(&policy(4, &[deny("no-more", "anna", "publish", &["#"])]));
    let ClientEvent::Generation(generation) = anna.event() else { panic!("the marker comes") };
    assert_eq!((generation.generation, generation.policy_version), (2, 4));
    let refusal = anna.publish(&mut publisher, &[b"two"]).unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    assert!(refusal.reason().contains("no-more"), "{refusal}");
}

#[test]
fn a_narrowed_subscription_receives_what_the_grant_covers() {
    let bus = Bus::start(&policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/a/+"]),
            deny("but-not", "ben", "subscribe", &["t/a/secret"]),
        ],
    ));
    let mut ben = bus.client("ben");
    assert_eq!(ben.subscribe("t/#").unwrap().narrowed, Narrowed::Yes);
    let refusal = ben.subscribe("u/#").unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    assert_eq!(ben.subscribe("t/a/secret").unwrap_err().code(), Code::Denied);
    assert_eq!(ben.subscribe("$sys/#").unwrap_err().code(), Code::Denied);
    let mut anna = bus.client("anna");
    for name in ["t/a/1", "t/b/1", "t/a/secret", "t/a/2"] {
        let mut publisher = anna.publisher(name);
        anna.publish(&mut publisher, &[name.as_bytes()]).unwrap();
    }
    assert_eq!(ben.payloads().0, "t/a/1");
    assert_eq!(ben.payloads().0, "t/a/2");
    ben.expect_silence();
    bus.audit_has(&["t/#", "ben-reads"]);
}

#[test]
fn an_ended_subscription_receives_nothing() {
    let bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    let first = ben.subscribe_with("t/1", 0).unwrap();
    let mut anna = bus.client("anna");
    let mut one = anna.publisher("t/1");
    let mut two = anna.publisher("t/2");
    anna.publish(&mut one, &[b"waits for credit"]).unwrap();
    ben.close_subscription(first.subscription);
    assert!(matches!(ben.event(), ClientEvent::Closed(_)));
    ben.subscribe("t/2").unwrap();
    anna.publish(&mut one, &[b"nobody wants it"]).unwrap();
    anna.publish(&mut two, &[b"this one"]).unwrap();
    assert_eq!(ben.payloads(), ("t/2".to_owned(), vec![b"this one".to_vec()]));
}

#[test]
fn credit_is_in_bytes_and_overdrawn_by_one_batch() {
    let bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    let starved = ben.subscribe_with("t/1", 1).unwrap();
    ben.subscribe("t/2").unwrap();
    let mut anna = bus.client("anna");
    let mut one = anna.publisher("t/1");
    let mut two = anna.publisher("t/2");
    for _ in 0..3 {
        anna.publish(&mut one, &[&[1; 100]]).unwrap();
        anna.publish(&mut two, &[&[2; 100]]).unwrap();
    }
    let mut found: Vec<String> = (0..4).map(|_| ben.payloads().0).collect();
    found.sort();
    assert_eq!(found, ["t/1", "t/2", "t/2", "t/2"]);
    ben.expect_silence();
    ben.session.credit(starved.subscription, 1_000_000);
    ben.flush();
    assert_eq!((ben.payloads().0, ben.payloads().0), ("t/1".to_owned(), "t/1".to_owned()));
}

#[test]
fn each_fault_of_a_batch_has_its_code_and_costs_nothing_else() {
    let bus = Bus::start(&open_policy());
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    let other = anna.publisher("t/2");
    let first = anna.sign(&mut publisher, &[b"first"]);
    let request = anna.send(&publisher, first.bytes().clone());
    anna.answer(request).unwrap();

    let mut code = |alias, batch: Bytes| {
        let request = anna.session.publish(alias, batch).unwrap();
        anna.flush();
        anna.answer(request).map(|ack| ack.freshness).map_err(|refusal| refusal.code())
    };
    assert_eq!(code(publisher.alias, first.bytes().clone()), Ok(Freshness::Duplicate));
    assert_eq!(code(publisher.alias, Bytes::from_static(b"no batch")), Err(Code::Format));
    assert_eq!(code(other.alias, first.bytes().clone()), Err(Code::Binding));

    let second = anna.sign(&mut publisher, &[b"second"]);
    let third = anna.sign(&mut publisher, &[b"third"]);
    let mut code = |alias, batch: Bytes| {
        let request = anna.session.publish(alias, batch).unwrap();
        anna.flush();
        anna.answer(request).map(|ack| ack.freshness).map_err(|refusal| refusal.code())
    };
    assert_eq!(code(publisher.alias, third.bytes().clone()), Err(Code::Gap));
    let mut forged = second.bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(code(publisher.alias, forged.into()), Err(Code::Signature));
    assert_eq!(code(publisher.alias, second.bytes().clone()), Ok(Freshness::New));
    assert_eq!(code(publisher.alias, third.bytes().clone()), Ok(Freshness::New));

    // Two batches under one number, both signed.
    let mut twin = Twin::of(&anna);
    let one = twin.sign("t/2", b"one");
    let two = twin.sign("t/2", b"two");
    let request = anna.send(&other, one);
    anna.answer(request).unwrap();
    let request = anna.send(&other, two);
    assert_eq!(anna.answer(request).unwrap_err().code(), Code::Equivocation);
    let line = bus.audit_has(&["200401"]);
    assert!(line.contains("t/2"), "{line}");
    bus.audit_has(&["BINDING", "another topic"]);
}

/// Signs the first batch of a topic's chain, again and again.
struct Twin {
    context: ProducerContext,
    key: SigningKey,
}

impl Twin {
    fn of(client: &Client) -> Self {
        Self { context: client.context.clone().unwrap(), key: client.signing_key_again() }
    }

    fn sign(&mut self, name: &str, payload: &[u8]) -> Bytes {
        let mut chain = ProducerChain::new(topic(name).digest(&StreamId::ZERO));
        let mut open = OpenBatch::new(now_ms());
        open.push(now_ms(), b"", Headers::NONE, payload).unwrap();
        chain.sign(open, &self.context, &self.key).bytes().clone()
    }
}

#[test]
fn a_batch_of_another_session_s_key_or_incarnation_is_refused() {
    let bus = Bus::start(&open_policy());
    let mine = Incarnation::new(bus.identity("anna"));
    let mut anna = bus.client_as(&mine);
    let mut publisher = anna.publisher("t/1");
    let honest = anna.context.clone().unwrap();
    let other_key = ProducerContext { kid: Kid::new(random()), ..honest };
    let other_life = ProducerContext { incarnation_id: IncarnationId::new(random()), ..honest };
    for spoiled in [other_key, other_life] {
        anna.context = Some(spoiled);
        let batch = anna.sign(&mut publisher, &[b"x"]);
        let request = anna.send(&publisher, batch.bytes().clone());
        assert_eq!(anna.answer(request).unwrap_err().code(), Code::Session);
    }
}

#[test]
fn a_producer_resumes_where_it_was() {
    let bus = Bus::start(&open_policy());
    let incarnation = Incarnation::new(bus.identity("anna"));
    let mut anna = bus.client_as(&incarnation);
    let mut publisher = anna.publisher("t/1");
    let first = anna.sign(&mut publisher, &[b"one", b"two"]);
    let request = anna.send(&publisher, first.bytes().clone());
    anna.answer(request).unwrap();
    drop(anna);

    let mut anna = bus.connect(&incarnation);
    anna.greet(&incarnation);
    let welcome = anna.expect_welcome();
    assert_eq!(welcome.incarnation, IncarnationState::Resumed);
    let opened = anna.open("t/1").unwrap();
    let resume = opened.resume.unwrap();
    assert_eq!((resume.next_seq, resume.last), (2, first.digest()));
    publisher.alias = opened.alias;
    let request = anna.send(&publisher, first.bytes().clone());
    assert_eq!(anna.answer(request).unwrap().freshness, Freshness::Duplicate);
    anna.publish(&mut publisher, &[b"three"]).unwrap();
}

#[test]
fn a_binding_can_be_asked_for() {
    let bus = Bus::start(&open_policy());
    let incarnation = Incarnation::new(bus.identity("anna"));
    let _anna = bus.client_as(&incarnation);
    let mut ben = bus.client("ben");
    ben.session.binding_get(incarnation.context.kid).unwrap();
    ben.session.binding_get(Kid::new([7; 32])).unwrap();
    ben.flush();
    let ClientEvent::Binding(reply) = ben.event() else { panic!("the binding is known") };
    assert_eq!(reply.binding, incarnation.binding);
    let ClientEvent::Refused(refused) = ben.event() else { panic!("this one is not") };
    assert_eq!(refused.refusal.code(), Code::Binding);
}
