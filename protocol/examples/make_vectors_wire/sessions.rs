//! One whole conversation, byte for byte, and what a session refuses.

use sealbus_protocol::ids::BusId;
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::proof::{self, Exporter};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::batches;
use crate::build::{broker_frame, client_frame, hello};
use crate::frames;
use crate::hex;

/// The replay of the conversation, which has an end: CLOSED of others answers CLOSE.
const ENDED_BY_BROKER: u32 = 3;

const EXPORTER: [u8; 32] = [0xe1; 32];

pub(crate) fn vectors() -> Value {
    json!({
        "about": "Sessions, as SPEC.md describes them. 'conversation': the frames of one connection in their order; \
                  those marked 'automatic' a side sends of itself. The proof in HELLO is by signing_seed, for this \
                  exporter. 'refuse': bytes that end the session, 'by' the side that refuses them, in a state: 'first' \
                  (TLS is done, and a client has sent HELLO), 'serving' (past WELCOME), 'subscribed' (the client's \
                  subscription 1 is READY, its request 1 answered); and the code of the ERROR.",
        "signing_seed": hex(&[3; 32]),
        "exporter": hex(&EXPORTER),
        "conversation": conversation(),
        "refuse": refuse(),
    })
}

fn proven_hello() -> Value {
    let context = batches::context();
    let mut fields = frames::hello();
    fields["kid"] = context.kid.to_string().into();
    fields["minor_max"] = 0.into();
    fields["features"] = 0.into();
    let signed = hello(&fields).fields();
    let key = SigningKey::from_seed(&Zeroizing::new([3; 32]));
    let proof = proof::sign(&key, &Exporter::new(EXPORTER), &BusId::new([0xb5; 16]), &signed);
    fields["proof"] = hex(&proof).into();
    fields
}

fn conversation() -> Value {
    let now = 1_767_225_601_500_u64;
    let batch = hex(&batches::first_batch());
    let deliver = |topic: Value| {
        json!({
            "subscription": 1, "alias": 0, "offset": null, "broker_ms": now, "topic": topic, "stream_id": "00".repeat(16),
            "stored": null, "ranges": null, "batch": batch,
        })
    };
    let stream_id = "5e".repeat(16);
    let stored = json!({
        "subscription": 3, "alias": 1, "offset": 5, "broker_ms": now, "topic": "orders/eu/created", "stream_id": stream_id,
        "stored": { "policy_version": 8, "leaf_index": 2 }, "ranges": null, "batch": batch,
    });
    let ranges = json!([{ "first": 0, "count": 1, "deliveries": 1 }]);
    let some_of_it = json!({ "subscription": 4, "topic": null, "ranges": ranges });
    let begin = json!({ "stream_id": stream_id, "offset": 3, "end": 7 });
    let ready = |request: u64, subscription: u64| {
        json!({
            "request": request, "subscription": subscription, "narrowed": false, "generation": 4, "start": begin,
        })
    };
    let replay = json!({
        "request": 8, "subscription": 3, "credit_bytes": 1_000, "from": { "offset": 3 }, "until": "end", "stream": "orders",
        "filter": null,
    });
    let consume = json!({
        "request": 9, "subscription": 4, "credit_bytes": 1_000, "from": "earliest", "ack_wait_ms": 5_000,
        "max_deliver": null, "unacknowledged_max": null, "backoff_ms": [], "stream": "orders", "consumer": "billing",
        "filter": null,
    });
    let unanswered = 2_147_483_648_u32;
    let settle = |request: u32, sync: bool| {
        json!({
            "request": request, "subscription": 4, "sync": sync, "items": [{ "offset": 5, "count": 1, "verdict": "ack" }],
        })
    };
    let publish = json!({ "request": 2, "alias": 0, "batch": batch });
    let hash = "a8".repeat(32);
    [
        ("client", "HELLO", proven_hello()),
        ("broker", "WELCOME", frames::welcome()),
        ("client", "OPEN", json!({ "request": 1, "topic": "orders/eu/created" })),
        ("broker", "OPENED", json!({ "request": 1, "alias": 0, "stream_id": "00".repeat(16), "resume": null })),
        ("client", "PUBLISH", publish),
        ("broker", "ACK", json!({ "request": 2, "level": "live", "fresh": "new", "offset": null, "broker_ms": now })),
        ("client", "PUBLISH", json!({ "request": 3, "alias": 0, "batch": batch })),
        ("broker", "ACK", json!({ "request": 3, "level": "live", "fresh": "duplicate", "offset": null, "broker_ms": now })),
        ("client", "SUBSCRIBE", json!({ "request": 4, "subscription": 1, "credit_bytes": 1_000, "filter": "orders/#" })),
        ("broker", "READY", json!({ "request": 4, "subscription": 1, "narrowed": true, "generation": 2, "start": null })),
        ("client", "SUBSCRIBE", json!({ "request": 5, "subscription": 2, "credit_bytes": 1_000, "filter": "secret/#" })),
        ("broker", "REFUSED", json!({ "request": 5, "code": "DENIED", "reason": "subscribe to secret/#: no rule allows it" })),
        ("broker", "BINDING", json!({ "request": null, "binding": "53424b31" })),
        ("broker", "DELIVER", deliver("orders/eu/created".into())),
        ("broker", "DELIVER", deliver(Value::Null)),
        ("broker", "LAGGED", json!({ "subscription": 1, "missed": 3 })),
        ("client", "CREDIT", json!({ "subscription": 1, "bytes": 750 })),
        ("broker", "GENERATION", json!({ "generation": 3, "policy_version": 8, "policy_hash": hash })),
        ("client", "BINDING_GET", json!({ "request": 6, "kid": "4b".repeat(32) })),
        ("broker", "BINDING", json!({ "request": 6, "binding": "53424b31" })),
        ("client", "ADMIN", json!({ "request": 7, "operation": "policy-reload" })),
        ("broker", "RESULT", json!({
            "request": 7, "operation": "policy-reload", "generation": 4, "version": 9, "hash": hash, "rules_before": 5,
            "rules_after": 6, "sessions_cut": 0,
        })),
        ("client", "REPLAY", replay),
        ("broker", "READY", ready(8, 3)),
        ("broker", "SKIPPED", json!({ "subscription": 3, "why": "damaged", "from": 3, "to": 5 })),
        ("broker", "DELIVER", stored.clone()),
        ("broker", "CLOSED", json!({ "what": "subscription", "id": ENDED_BY_BROKER })),
        ("client", "CONSUME", consume),
        ("broker", "READY", ready(9, 4)),
        ("broker", "DELIVER", frames::with(stored, some_of_it)),
        ("client", "SETTLE", settle(unanswered, false)),
        ("client", "SETTLE", settle(10, true)),
        ("broker", "SETTLED", json!({ "request": 10 })),
        ("client", "SETTLE", settle(unanswered + 1, false)),
        ("broker", "REFUSED", json!({ "request": unanswered + 1, "code": "DRAINING", "reason": "shutting down" })),
        ("client", "CHECKPOINT_GET", json!({ "request": 11, "old_size": 2, "leaf_index": 2, "stream": "orders" })),
        ("broker", "CHECKPOINT", json!({
            "request": 11, "size": 3, "prefix": ["a1".repeat(32)], "consistency": ["b1".repeat(32)],
            "inclusion": ["a1".repeat(32)], "note": "a note\n",
        })),
        ("broker", "PING", json!({ "nonce": "0000000000003a98" })),
        ("client", "PONG", json!({ "nonce": "0000000000003a98" })),
        ("client", "PING", json!({ "nonce": "0000000000003a98" })),
        ("broker", "PONG", json!({ "nonce": "0000000000003a98" })),
        ("client", "CLOSE", json!({ "what": "subscription", "id": 1 })),
        ("broker", "CLOSED", json!({ "what": "subscription", "id": 1 })),
        ("client", "CLOSE", json!({ "what": "alias", "id": 0 })),
        ("broker", "CLOSED", json!({ "what": "alias", "id": 0 })),
        ("broker", "DRAIN", json!({ "deadline_ms": 10_000 })),
        ("broker", "ERROR", json!({ "code": "DRAINING", "reason": "shutting down" })),
    ]
    .into_iter()
    .map(|(from, frame, fields)| {
        let bytes = if from == "client" { client_frame(frame, &fields).0 } else { broker_frame(frame, &fields).0 };
        let automatic = frame == "PONG" || frame == "CLOSED" && fields["id"] != ENDED_BY_BROKER;
        json!({ "from": from, "frame": frame, "fields": fields, "automatic": automatic, "bytes": hex(&bytes) })
    })
    .collect()
}

fn refuse() -> Value {
    let client = |frame: &str, fields: Value| client_frame(frame, &fields).0.to_vec();
    let broker = |frame: &str, fields: Value| broker_frame(frame, &fields).0.to_vec();
    let subscribe = |request: u64, id: u64| {
        client(
            "SUBSCRIBE",
            json!({ "request": request, "subscription": id, "credit_bytes": 0, "filter": "#" }),
        )
    };
    let deliver = |subscription: u64, alias: u64, topic: Value| {
        broker(
            "DELIVER",
            json!({
                "subscription": subscription, "alias": alias, "offset": null, "broker_ms": 0, "topic": topic,
                "stream_id": "00".repeat(16), "stored": null, "ranges": null, "batch": "00",
            }),
        )
    };
    let settle = |request: u64, id: u64, sync: bool| {
        let items = json!([{ "offset": 0, "count": 1, "verdict": "ack" }]);
        client("SETTLE", json!({ "request": request, "subscription": id, "sync": sync, "items": items }))
    };
    let ping = json!({ "nonce": "0000000000000000" });
    [
        ("OPEN before HELLO", "broker", "first", client("OPEN", json!({ "request": 1, "topic": "a" })), "SESSION"),
        ("PING before HELLO", "broker", "first", client("PING", ping.clone()), "SESSION"),
        ("a HELLO of 16,377 bytes", "broker", "first", vec![1, 0, 0, 0, 0, 0, 0x3f, 0xf9], "LIMIT"),
        ("bytes that are no frame", "broker", "first", vec![0; 8], "FORMAT"),
        ("a second HELLO", "broker", "serving", client("HELLO", frames::hello()), "SESSION"),
        ("PUBLISH on an alias that is not open", "broker", "serving", client("PUBLISH", json!({ "request": 1, "alias": 0, "batch": "00" })), "SESSION"),
        ("CLOSE of an alias that is not open", "broker", "serving", client("CLOSE", json!({ "what": "alias", "id": 5 })), "SESSION"),
        ("a subscription id in use", "broker", "serving", [subscribe(1, 1), subscribe(2, 1)].concat(), "SESSION"),
        ("a subscription id in use, by a replay", "broker", "subscribed", client("REPLAY", json!({
            "request": 2, "subscription": 1, "credit_bytes": 0, "from": "end", "until": "live", "stream": "orders", "filter": null,
        })), "SESSION"),
        ("SETTLE on a live subscription", "broker", "subscribed", settle(2, 1, true), "SESSION"),
        ("SETTLE with flag 1 and the id of one without", "broker", "serving", settle(2_147_483_648, 1, true), "SESSION"),
        ("SETTLE without flag 1 and the id of one with it", "broker", "serving", settle(2, 1, false), "SESSION"),
        ("a request with the id of one that is not answered", "broker", "serving", client("BINDING_GET", json!({ "request": 2_147_483_648_u32, "kid": "4b".repeat(32) })), "SESSION"),
        ("a request with id 0", "broker", "serving", client("BINDING_GET", json!({ "request": 0, "kid": "4b".repeat(32) })), "SESSION"),
        ("WELCOME at a broker", "broker", "serving", broker("WELCOME", frames::welcome()), "FORMAT"),
        ("READY before WELCOME", "client", "first", broker("READY", json!({ "request": 1, "subscription": 1, "narrowed": false, "generation": 1, "start": null })), "SESSION"),
        ("PING before WELCOME", "client", "first", broker("PING", ping), "SESSION"),
        ("a WELCOME of 16,377 bytes", "client", "first", vec![2, 0, 0, 0, 0, 0, 0x3f, 0xf9], "LIMIT"),
        ("a second WELCOME", "client", "serving", broker("WELCOME", frames::welcome()), "SESSION"),
        ("ACK of nothing", "client", "serving", broker("ACK", json!({ "request": 9, "level": "live", "fresh": "new", "offset": null, "broker_ms": 0 })), "SESSION"),
        ("REFUSED of nothing", "client", "serving", broker("REFUSED", json!({ "request": 9, "code": "DENIED", "reason": "" })), "SESSION"),
        ("REFUSED of a SETTLE that was not sent", "client", "serving", broker("REFUSED", json!({ "request": 2_147_483_648_u32, "code": "DENIED", "reason": "" })), "SESSION"),
        ("SETTLED of nothing", "client", "serving", broker("SETTLED", json!({ "request": 9 })), "SESSION"),
        ("CHECKPOINT of nothing", "client", "serving", broker("CHECKPOINT", json!({ "request": 9, "size": 0, "prefix": [], "consistency": [], "inclusion": [], "note": "" })), "SESSION"),
        ("SKIPPED of no subscription", "client", "serving", broker("SKIPPED", json!({ "subscription": 1, "why": "trimmed", "from": 0, "to": 1 })), "SESSION"),
        ("BINDING that answers nothing", "client", "serving", broker("BINDING", json!({ "request": 9, "binding": "" })), "SESSION"),
        ("DELIVER for no subscription", "client", "serving", deliver(1, 0, "a".into()), "SESSION"),
        ("LAGGED of no subscription", "client", "serving", broker("LAGGED", json!({ "subscription": 1, "missed": 1 })), "SESSION"),
        ("CLOSED of no subscription", "client", "serving", broker("CLOSED", json!({ "what": "subscription", "id": 1 })), "SESSION"),
        ("DELIVER by an alias without a topic", "client", "subscribed", deliver(1, 0, Value::Null), "SESSION"),
        ("DELIVER that names topic alias 4,096", "client", "subscribed", deliver(1, 4_096, "a".into()), "SESSION"),
        ("READY a second time", "client", "subscribed", broker("READY", json!({ "request": 1, "subscription": 1, "narrowed": false, "generation": 1, "start": null })), "SESSION"),
        ("DELIVER after CLOSED", "client", "subscribed", [
            broker("CLOSED", json!({ "what": "subscription", "id": 1 })),
            deliver(1, 0, "a".into()),
        ].concat(), "SESSION"),
    ]
    .into_iter()
    .map(|(name, by, state, bytes, code)| json!({ "name": name, "by": by, "state": state, "bytes": hex(&bytes), "code": code }))
    .collect()
}
