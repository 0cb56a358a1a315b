//! `session.json`.

use bytes::{Buf as _, Bytes};
use sealbus_protocol::frame::AdminResult;
use sealbus_protocol::keys::{SigningKey, VerifyingKey};
use sealbus_protocol::proof::{self, Exporter};
use sealbus_protocol::session::{
    BrokerEvent, BrokerSession, ClientEvent, ClientSession, Delivery, Outgoing, SessionError, Tick,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::build::{array, bytes, list, number, text};
use crate::{build, stream_build};

pub(crate) const FILE: &str = include_str!("../../vectors/session.json");

/// Silence after which a side pings; the PINGs of the conversation carry it.
const PING_AT: Tick = Tick(15_000);

struct Pair {
    client: ClientSession,
    broker: BrokerSession,
}

impl Pair {
    fn new() -> Self {
        Self { client: ClientSession::new_at(Tick(0)), broker: BrokerSession::new_at(Tick(0)) }
    }

    /// Lets the client send this frame.
    fn client_sends(&mut self, frame: &str, fields: &Value) -> Result<(), SessionError> {
        match frame {
            "HELLO" => self.client.hello(&build::hello(fields)),
            "OPEN" => {
                self.client.open(build::topic(&fields["topic"]))?;
            }
            "PUBLISH" => {
                self.client.publish(build::alias(fields), bytes(&fields["batch"]))?;
            }
            "SUBSCRIBE" => {
                let filter = build::filter(&fields["filter"]);
                self.client.subscribe(filter, number(&fields["credit_bytes"]))?;
            }
            "REPLAY" => {
                let replay = stream_build::replay(fields);
                let (stream, filter) = (replay.stream, replay.filter);
                self.client.replay(stream, replay.from, replay.until, filter, replay.credit_bytes)?;
            }
            "CONSUME" => {
                let consume = stream_build::consume(fields);
                let key = stream_build::consumer(fields);
                let (settings, filter) = (consume.settings, consume.filter);
                self.client.consume(key, consume.from, settings, filter, consume.credit_bytes)?;
            }
            "SETTLE" => {
                let id = build::subscription(fields);
                self.client.settle(id, stream_build::items(fields), stream_build::sync(fields))?;
            }
            "CHECKPOINT_GET" => {
                let get = stream_build::checkpoint_get(fields);
                self.client.checkpoint_get(get.stream, get.old_size, get.leaf_index)?;
            }
            "CREDIT" => self.client.credit(build::subscription(fields), number(&fields["bytes"])),
            "BINDING_GET" => {
                self.client.binding_get(build::id(&fields["kid"]))?;
            }
            "ADMIN" => {
                self.client.admin(build::operation(fields))?;
            }
            "PING" => self.client.handle_timeout_at(PING_AT)?,
            other => {
                assert_eq!(other, "CLOSE");
                match build::what(fields) {
                    sealbus_protocol::frame::What::Alias(alias) => self.client.close_alias(alias),
                    sealbus_protocol::frame::What::Subscription(id) => self.client.close_subscription(id),
                }
            }
        }
        Ok(())
    }

    /// Lets the broker send this frame.
    fn broker_sends(&mut self, frame: &str, fields: &Value) -> Result<(), SessionError> {
        match frame {
            "WELCOME" => self.broker.welcome(&build::welcome(fields)),
            "OPENED" => {
                let stream = build::id(&fields["stream_id"]);
                self.broker.opened(build::request(fields), stream, build::resume(fields))?;
            }
            "ACK" => self.broker.ack(&build::ack(fields)),
            "READY" => {
                let narrowed = build::narrowed(fields);
                let id = build::subscription(fields);
                let start = stream_build::stream_start(fields);
                self.broker.ready(build::request(fields), id, narrowed, number(&fields["generation"]), start);
            }
            "SKIPPED" => self.broker.skipped(&stream_build::skipped(fields)),
            "SETTLED" => self.broker.settled(build::request(fields)),
            "CHECKPOINT" => self.broker.checkpoint(&stream_build::checkpoint(fields)),
            "CLOSED" => self.broker.close_subscription(build::subscription_of(fields)),
            "REFUSED" if !build::request(fields).is_awaited() => {
                self.broker.refuse(build::request(fields), build::refusal(fields));
            }
            "REFUSED" => {
                let id = sealbus_protocol::frame::SubscriptionId(2);
                self.broker.refuse_subscription(build::request(fields), id, build::refusal(fields));
            }
            "DELIVER" => {
                let topic = build::topic(&json!("orders/eu/created"));
                let batch = bytes(&fields["batch"]);
                self.broker.deliver(&Delivery {
                    subscription: build::subscription(fields),
                    topic: &topic,
                    stream: build::id(&fields["stream_id"]),
                    offset: build::offset(fields),
                    broker_ms: number(&fields["broker_ms"]),
                    stored: stream_build::stored(fields),
                    ranges: stream_build::ranges(fields).as_deref(),
                    batch: &batch,
                });
            }
            "LAGGED" => self.broker.lagged(build::subscription(fields), number(&fields["missed"])),
            "GENERATION" => self.broker.generation(&build::generation(fields)),
            "BINDING" if fields["request"].is_null() => {
                self.broker.announce_binding(bytes(&fields["binding"]));
            }
            "BINDING" => self.broker.binding(build::request(fields), bytes(&fields["binding"])),
            "RESULT" => self.broker.admin_result(&AdminResult {
                request: build::request(fields),
                outcome: build::outcome(fields),
            }),
            "PING" => self.broker.handle_timeout_at(PING_AT)?,
            "DRAIN" => {
                self.broker.drain(u32::try_from(number(&fields["deadline_ms"])).expect("a deadline"));
            }
            other => {
                assert_eq!(other, "ERROR");
                self.broker.fail(build::refusal(fields));
            }
        }
        Ok(())
    }

    /// Gives the broker bytes, and tells the last event that they made.
    fn broker_reads(&mut self, mut bytes: &[u8]) -> Result<Option<BrokerEvent>, SessionError> {
        let mut last = None;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.broker.space_len().min(bytes.len()));
            self.broker.space().extend_from_slice(now);
            self.broker.handle_input_at(Tick(0));
            bytes = later;
            while let Some(event) = self.broker.poll_event()? {
                last = Some(event);
            }
        }
        Ok(last)
    }

    fn client_reads(&mut self, mut bytes: &[u8]) -> Result<Option<ClientEvent>, SessionError> {
        let mut last = None;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.client.space_len().min(bytes.len()));
            self.client.space().extend_from_slice(now);
            self.client.handle_input_at(Tick(0));
            bytes = later;
            while let Some(event) = self.client.poll_event()? {
                last = Some(event);
            }
        }
        Ok(last)
    }
}

fn drain(outgoing: &mut Outgoing) -> Bytes {
    outgoing.copy_to_bytes(outgoing.remaining())
}

/// The frame that an event stands for. DELIVER's alias has been resolved by then.
fn client_event_name(event: &ClientEvent) -> &'static str {
    match event {
        ClientEvent::Welcome(_) => "WELCOME",
        ClientEvent::Opened(_) => "OPENED",
        ClientEvent::Ack(_) => "ACK",
        ClientEvent::Refused(_) => "REFUSED",
        ClientEvent::Ready(_) => "READY",
        ClientEvent::Closed(_) => "CLOSED",
        ClientEvent::Deliver(delivered) => {
            assert_eq!(delivered.topic.as_str(), "orders/eu/created");
            "DELIVER"
        }
        ClientEvent::Lagged(_) => "LAGGED",
        ClientEvent::Skipped(_) => "SKIPPED",
        ClientEvent::Settled(_) => "SETTLED",
        ClientEvent::Checkpoint(_) => "CHECKPOINT",
        ClientEvent::Generation(_) => "GENERATION",
        ClientEvent::Binding(_) => "BINDING",
        ClientEvent::AdminResult(_) => "RESULT",
        ClientEvent::Drain(_) => "DRAIN",
        ClientEvent::Failed(_) => "ERROR",
    }
}

fn broker_event_name(event: &BrokerEvent) -> &'static str {
    match event {
        BrokerEvent::Hello(_) => "HELLO",
        BrokerEvent::Open { .. } => "OPEN",
        BrokerEvent::Publish { .. } => "PUBLISH",
        BrokerEvent::Subscribe(_) => "SUBSCRIBE",
        BrokerEvent::Replay(_) => "REPLAY",
        BrokerEvent::Consume(_) => "CONSUME",
        BrokerEvent::Settle(_) => "SETTLE",
        BrokerEvent::CheckpointGet(_) => "CHECKPOINT_GET",
        BrokerEvent::Close(_) => "CLOSE",
        BrokerEvent::Credit(_) => "CREDIT",
        BrokerEvent::BindingGet(_) => "BINDING_GET",
        BrokerEvent::Admin(_) => "ADMIN",
        BrokerEvent::Failed(_) => "ERROR",
    }
}

#[test]
fn a_conversation_is_held_byte_for_byte() {
    let file = crate::parse(FILE);
    let mut pair = Pair::new();
    let steps = list(&file["conversation"]);
    assert_eq!(steps.len(), 47);
    for (number, step) in steps.iter().enumerate() {
        let frame = text(&step["frame"]);
        let of_client = text(&step["from"]) == "client";
        if step["automatic"] == false {
            let sent = if of_client {
                pair.client_sends(frame, &step["fields"])
            } else {
                pair.broker_sends(frame, &step["fields"])
            };
            assert_eq!(sent, Ok(()), "step {number}: {frame}");
        }
        // PING and PONG end in the sessions.
        let expected = (!matches!(frame, "PING" | "PONG")).then_some(frame);
        let (sent, found) = if of_client {
            let sent = drain(pair.client.outgoing());
            let event = pair.broker_reads(&sent).expect("the broker takes it");
            (sent, event.as_ref().map(broker_event_name))
        } else {
            let sent = drain(pair.broker.outgoing());
            let event = pair.client_reads(&sent).expect("the client takes it");
            (sent, event.as_ref().map(client_event_name))
        };
        assert_eq!(sent, bytes(&step["bytes"]), "step {number}: {frame}");
        assert_eq!(found, expected, "step {number}");
    }
    assert!(pair.client.is_ended() && pair.broker.is_ended());
    assert_eq!(pair.broker.unanswered(), 0);
}

#[test]
fn the_hello_of_the_conversation_is_proven() {
    let file = crate::parse(FILE);
    let fields = &list(&file["conversation"])[0]["fields"];
    let hello = build::hello(fields);
    let exporter = Exporter::new(array(&file["exporter"]));
    let key = SigningKey::from_seed(&Zeroizing::new(array(&file["signing_seed"])));
    let public: VerifyingKey = key.verifying_key();
    assert_eq!(proof::sign(&key, &exporter, &hello.bus_id, &hello.fields()), hello.proof);
    assert_eq!(proof::verify(&public, &exporter, &hello.bus_id, &hello.fields(), &hello.proof), Ok(()));
}

/// A pair in the state of this name, seen from `by`.
fn pair_in(state: &str, steps: &[Value]) -> Pair {
    let mut pair = Pair::new();
    pair.client_sends("HELLO", &steps[0]["fields"]).expect("HELLO comes first");
    let hello = drain(pair.client.outgoing());
    if state == "first" {
        return pair;
    }
    pair.broker_reads(&hello).expect("HELLO comes first");
    pair.broker_sends("WELCOME", &steps[1]["fields"]).expect("WELCOME answers it");
    let welcome = drain(pair.broker.outgoing());
    pair.client_reads(&welcome).expect("WELCOME answers it");
    if state == "subscribed" {
        pair.client_sends("SUBSCRIBE", &json!({ "filter": "#", "credit_bytes": 1 })).expect("room for one");
        let subscribe = drain(pair.client.outgoing());
        pair.broker_reads(&subscribe).expect("a first subscription");
        let ready = json!({ "request": 1, "subscription": 1, "narrowed": false, "generation": 1 });
        pair.broker_sends("READY", &ready).expect("READY answers it");
        let ready = drain(pair.broker.outgoing());
        pair.client_reads(&ready).expect("READY answers it");
    }
    pair
}

#[test]
fn a_session_refuses_with_this_code() {
    let file = crate::parse(FILE);
    let cases = list(&file["refuse"]);
    assert_eq!(cases.len(), 33);
    for case in cases {
        let name = text(&case["name"]);
        let mut pair = pair_in(text(&case["state"]), list(&file["conversation"]));
        let bytes = bytes(&case["bytes"]);
        let error = match text(&case["by"]) {
            "broker" => pair.broker_reads(&bytes).expect_err(name),
            _ => pair.client_reads(&bytes).expect_err(name),
        };
        assert_eq!(error.refusal().code().as_str(), text(&case["code"]), "{name}: {error}");
    }
}
