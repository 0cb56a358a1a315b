//! Every frame in every form, and frames that are refused.

use sealbus_protocol::frame::{FrameHeader, FrameType, HEADER_LEN};
use serde_json::{Value, json};

use crate::build::{broker_frame, client_frame};
use crate::{hex, streams};

pub(crate) fn vectors() -> Value {
    let frames: Vec<Value> = frames()
        .into_iter()
        .map(|(name, from, frame, fields)| {
            let bytes = encode(from, frame, &fields);
            json!({ "name": name, "from": from, "frame": frame, "fields": fields, "bytes": hex(&bytes) })
        })
        .collect();
    json!({
        "about": "Frames, as SPEC.md describes them: eight bytes of header and the payload. 'frames': from these fields \
                  these bytes, and back. 'refuse': bytes that the other side of 'from' refuses, on a connection past \
                  WELCOME, and the code of its ERROR. 'incomplete': bytes that are no frame yet.",
        "frames": frames,
        "refuse": refuse(),
        "incomplete": incomplete(),
    })
}

fn encode(from: &str, frame: &str, fields: &Value) -> Vec<u8> {
    match from {
        "client" => client_frame(frame, fields).0.to_vec(),
        _ => broker_frame(frame, fields).0.to_vec(),
    }
}

pub(crate) fn hello() -> Value {
    json!({
        "bus_id": "b5".repeat(16), "minor_min": 0, "minor_max": 1, "instance_kind": "configured", "features": 3,
        "frame_bytes_max": 1_064_960, "instance_id": "15".repeat(16), "started_ms": 1_767_225_600_000_u64,
        "incarnation_id": "1c".repeat(16), "kid": "4b".repeat(32), "binding": "53424b31", "agent": "sealbus/0.1.0",
        "proof": "9f".repeat(64),
    })
}

pub(crate) fn welcome() -> Value {
    json!({
        "minor": 0, "incarnation": "new", "features": 0, "frame_bytes_max": 1_064_960, "batch_bytes_max": 1_048_576,
        "payload_bytes_max": 1_000_000, "topics_max": 1_024, "subscriptions_max": 1_024, "session_id": 17,
        "broker_ms": 1_767_225_601_000_u64, "generation": 2, "policy_version": 7, "policy_hash": "a7".repeat(32),
        "principal": "spiffe://a.example/orders",
    })
}

/// `fields` with some of them replaced.
pub(crate) fn with(mut fields: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { return fields };
    for (name, value) in changes {
        fields[name] = value;
    }
    fields
}

/// A name, who sends it, what it is, and what is in it.
pub(crate) type Vector = (&'static str, &'static str, &'static str, Value);

fn frames() -> Vec<Vector> {
    let now = 1_767_225_601_500_u64;
    let denied =
        json!({ "request": 7, "code": "DENIED", "reason": "publish on flights/JFK/AA: no rule allows it" });
    let ack = json!({ "request": 7, "level": "live", "fresh": "new", "offset": null, "broker_ms": now });
    let opened = json!({ "request": 7, "alias": 1, "stream_id": "00".repeat(16), "resume": null });
    let deliver = json!({
        "subscription": 4, "alias": 2, "offset": null, "broker_ms": now, "topic": "flights/JFK/AA",
        "stream_id": "00".repeat(16), "stored": null, "ranges": null, "batch": "62617463",
    });
    let can_i =
        json!({ "request": 7, "operation": "can-i", "principal": null, "verb": "publish", "topic": "a/b" });
    vec![
        ("HELLO", "client", "HELLO", hello()),
        (
            "HELLO, nothing optional",
            "client",
            "HELLO",
            with(
                hello(),
                json!({
                    "minor_max": 0, "instance_kind": "random", "features": 0, "binding": "", "agent": "",
                }),
            ),
        ),
        ("WELCOME", "broker", "WELCOME", welcome()),
        (
            "WELCOME, resumed",
            "broker",
            "WELCOME",
            with(welcome(), json!({ "incarnation": "resumed", "principal": "cn:Zoë" })),
        ),
        ("OPEN", "client", "OPEN", json!({ "request": 7, "topic": "flights/JFK/AA" })),
        ("OPENED, nothing known", "broker", "OPENED", opened.clone()),
        (
            "OPENED, resumed",
            "broker",
            "OPENED",
            with(
                opened,
                json!({
                    "stream_id": "5e".repeat(16), "resume": { "next_seq": 9, "last": "d1".repeat(32) },
                }),
            ),
        ),
        ("PUBLISH", "client", "PUBLISH", json!({ "request": 7, "alias": 1, "batch": "62617463" })),
        ("PUBLISH, no batch", "client", "PUBLISH", json!({ "request": 7, "alias": 1, "batch": "" })),
        ("ACK, live", "broker", "ACK", ack.clone()),
        (
            "ACK, offset 0",
            "broker",
            "ACK",
            with(ack.clone(), json!({ "level": "fsync", "fresh": "duplicate", "offset": 0 })),
        ),
        ("ACK, memory", "broker", "ACK", with(ack.clone(), json!({ "level": "memory", "offset": 16 }))),
        ("ACK, interval", "broker", "ACK", with(ack, json!({ "level": "interval", "offset": 17 }))),
        ("REFUSED", "broker", "REFUSED", denied.clone()),
        (
            "REFUSED, retry",
            "broker",
            "REFUSED",
            with(denied.clone(), json!({ "code": "LIMIT", "reason": "" })),
        ),
        ("REFUSED, refresh", "broker", "REFUSED", with(denied, json!({ "code": "TIME", "reason": "é" }))),
        (
            "SUBSCRIBE",
            "client",
            "SUBSCRIBE",
            json!({
                "request": 7, "subscription": 4, "credit_bytes": 1_048_576, "filter": "flights/+/AA",
            }),
        ),
        (
            "READY",
            "broker",
            "READY",
            json!({ "request": 7, "subscription": 4, "narrowed": false, "generation": 2, "start": null }),
        ),
        (
            "READY, narrowed",
            "broker",
            "READY",
            json!({ "request": 7, "subscription": 4, "narrowed": true, "generation": 2, "start": null }),
        ),
        ("CLOSE an alias", "client", "CLOSE", json!({ "what": "alias", "id": 1 })),
        ("CLOSE a subscription", "client", "CLOSE", json!({ "what": "subscription", "id": 4 })),
        ("CLOSED, an alias", "broker", "CLOSED", json!({ "what": "alias", "id": 1 })),
        ("CLOSED, a subscription", "broker", "CLOSED", json!({ "what": "subscription", "id": 4 })),
        ("DELIVER, naming the topic", "broker", "DELIVER", deliver.clone()),
        ("DELIVER, by alias", "broker", "DELIVER", with(deliver, json!({ "topic": null, "stream_id": null, "offset": 17 }))),
        ("CREDIT", "client", "CREDIT", json!({ "subscription": 4, "bytes": 65_536 })),
        ("LAGGED", "broker", "LAGGED", json!({ "subscription": 4, "missed": 842 })),
        (
            "GENERATION",
            "broker",
            "GENERATION",
            json!({ "generation": 3, "policy_version": 8, "policy_hash": "a8".repeat(32) }),
        ),
        ("BINDING_GET", "client", "BINDING_GET", json!({ "request": 7, "kid": "4b".repeat(32) })),
        ("BINDING, asked for", "broker", "BINDING", json!({ "request": 7, "binding": "53424b31" })),
        (
            "BINDING, ahead of a delivery",
            "broker",
            "BINDING",
            json!({ "request": null, "binding": "53424b31" }),
        ),
        ("ADMIN policy reload", "client", "ADMIN", json!({ "request": 7, "operation": "policy-reload" })),
        ("ADMIN can I publish", "client", "ADMIN", can_i.clone()),
        (
            "ADMIN can somebody subscribe",
            "client",
            "ADMIN",
            with(
                can_i.clone(),
                json!({
                    "verb": "subscribe", "principal": "spiffe://a.example/billing",
                }),
            ),
        ),
        (
            "ADMIN can I administer",
            "client",
            "ADMIN",
            with(can_i.clone(), json!({ "verb": "admin", "topic": null })),
        ),
        (
            "ADMIN can somebody read the audit log",
            "client",
            "ADMIN",
            with(
                can_i,
                json!({
                    "verb": "audit", "topic": null, "principal": "dns:orders.a.example",
                }),
            ),
        ),
        (
            "ADMIN audit read",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "audit-read", "from": 5, "lines_max": 100 }),
        ),
        (
            "RESULT of a policy reload",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "policy-reload", "generation": 3, "version": 8, "hash": "a8".repeat(32),
                "rules_before": 5, "rules_after": 6, "sessions_cut": 1,
            }),
        ),
        (
            "RESULT permitted",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "can-i", "decision": "permitted", "why": "allowed by rule \"orders-send\"",
            }),
        ),
        (
            "RESULT denied",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "can-i", "decision": "denied", "why": "no rule allows it",
            }),
        ),
        (
            "RESULT of an audit read",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "audit-read", "from": 5, "next": 7, "lines": hex(b"{}\n{}\n"),
            }),
        ),
        ("PING of a client", "client", "PING", json!({ "nonce": "0123456789abcdef" })),
        ("PONG of a client", "client", "PONG", json!({ "nonce": "0123456789abcdef" })),
        ("PING of a broker", "broker", "PING", json!({ "nonce": "ffffffffffffffff" })),
        ("PONG of a broker", "broker", "PONG", json!({ "nonce": "ffffffffffffffff" })),
        ("DRAIN", "broker", "DRAIN", json!({ "deadline_ms": 10_000 })),
        (
            "ERROR of a client",
            "client",
            "ERROR",
            json!({ "code": "SIGNATURE", "reason": "the signature does not verify" }),
        ),
        ("ERROR of a broker", "broker", "ERROR", json!({ "code": "DRAINING", "reason": "shutting down" })),
    ]
    .into_iter()
    .chain(streams::frames())
    .collect()
}

/// A frame whose header tells its true length.
pub(crate) fn framed(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[kind, flags, 0, 0], &len[..], payload].concat()
}

/// The bytes of a frame of [`frames`].
fn named(name: &str) -> Vec<u8> {
    let found = frames().into_iter().find(|(candidate, ..)| *candidate == name);
    let (_, from, frame, fields) = found.expect("the name of a frame");
    encode(from, frame, &fields)
}

/// The frame with one byte of its payload replaced.
pub(crate) fn edited(name: &str, at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = named(name);
    bytes[HEADER_LEN + at] = byte;
    bytes
}

/// The frame with its payload cut to `len` bytes, and a header that says so.
pub(crate) fn cut(name: &str, len: usize) -> Vec<u8> {
    let bytes = named(name);
    framed(bytes[0], bytes[1], &bytes[HEADER_LEN..HEADER_LEN + len])
}

/// The frame with a payload one byte longer, and a header that says so.
fn longer(name: &str) -> Vec<u8> {
    let bytes = named(name);
    framed(bytes[0], bytes[1], &[&bytes[HEADER_LEN..], &[0]].concat())
}

pub(crate) fn flagged(name: &str, flags: u8) -> Vec<u8> {
    let mut bytes = named(name);
    bytes[1] = flags;
    bytes
}

fn refuse() -> Value {
    let case = |name: String, from: &str, bytes: &[u8], code: &str| json!({ "name": name, "from": from, "bytes": hex(bytes), "code": code });
    let mut cases = Vec::new();
    for (name, from, frame, _) in frames() {
        let whole = named(name);
        let fixed = whole.len() - HEADER_LEN;
        let (opaque, batch) = match frame {
            "PUBLISH" => (true, fixed - 8),
            "DELIVER" => (true, 4),
            _ => (false, 0),
        };
        for (word, len) in
            [("empty", 0), ("cut in the middle", (fixed - batch) / 2), ("cut by one byte", fixed - batch - 1)]
        {
            cases.push(case(format!("{name}: {word}"), from, &cut(name, len), "FORMAT"));
        }
        if !opaque {
            cases.push(case(format!("{name}: one byte more"), from, &longer(name), "FORMAT"));
        }
        cases.push(case(format!("{name}: unknown flag"), from, &flagged(name, whole[1] | 8), "FORMAT"));
        if !matches!(frame, "PING" | "PONG" | "ERROR") {
            let other = if from == "client" { "broker" } else { "client" };
            cases.push(case(format!("{name}: in the other direction"), other, &whole, "FORMAT"));
        }
    }
    for (name, from, bytes) in [
        ("type 0", "client", framed(0, 0, b"")),
        ("type 0x1f", "client", framed(0x1f, 0, b"")),
        ("type 0xff", "broker", framed(0xff, 0, b"")),
        ("a TLS record", "client", vec![0x16, 3, 1, 2, 0, 1, 0, 1]),
        ("an HTTP request", "client", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("reserved byte 2", "client", vec![0x17, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("reserved byte 3", "broker", vec![0x17, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("HELLO: instance kind 2", "client", edited("HELLO", 19, 2)),
        ("HELLO: a binding of 14,337 bytes", "client", {
            let mut bytes = edited("HELLO", 104, 0x38);
            bytes[HEADER_LEN + 105] = 1;
            bytes
        }),
        ("HELLO: an agent that is not UTF-8", "client", edited("HELLO", 113, 0xff)),
        ("WELCOME: incarnation 2", "broker", edited("WELCOME", 1, 2)),
        ("WELCOME: reserved", "broker", edited("WELCOME", 3, 1)),
        ("WELCOME: not a principal", "broker", edited("WELCOME", 98, b'S')),
        ("OPEN: a wildcard", "client", edited("OPEN", 6, b'+')),
        ("OPEN: a control character", "client", edited("OPEN", 6, 0x1b)),
        ("OPEN: not UTF-8", "client", edited("OPEN", 6, 0xff)),
        ("OPENED: known 2", "broker", edited("OPENED, resumed", 27, 2)),
        ("OPENED: known without a place", "broker", edited("OPENED, nothing known", 27, 1)),
        ("OPENED: a place, but not known", "broker", edited("OPENED, resumed", 27, 0)),
        ("ACK: level 0", "broker", edited("ACK, live", 4, 0)),
        ("ACK: level 5", "broker", edited("ACK, live", 4, 5)),
        ("ACK: fresh 2", "broker", edited("ACK, live", 5, 2)),
        ("ACK: reserved", "broker", edited("ACK, live", 7, 1)),
        ("REFUSED: code 0", "broker", edited("REFUSED", 5, 0)),
        ("REFUSED: code 21", "broker", edited("REFUSED", 5, 21)),
        ("REFUSED: an action that is not the code's", "broker", edited("REFUSED", 6, 1)),
        ("REFUSED: action 0", "broker", edited("REFUSED", 6, 0)),
        ("REFUSED: reserved", "broker", edited("REFUSED", 7, 1)),
        ("REFUSED: a reason of 1,025 bytes", "broker", {
            let reason = [&[4, 1][..], &[b'a'; 1_025]].concat();
            framed(7, 0, &[&[0, 0, 0, 7, 0, 5, 3, 0][..], &reason].concat())
        }),
        ("SUBSCRIBE: a wildcard beside text", "client", edited("SUBSCRIBE", 27, b'a')),
        ("READY: narrowed 2", "broker", edited("READY", 11, 2)),
        ("CLOSE: neither alias nor subscription", "client", edited("CLOSE an alias", 3, 2)),
        ("CLOSED: neither alias nor subscription", "broker", edited("CLOSED, an alias", 3, 2)),
        ("DELIVER: flag 1 without a topic", "broker", flagged("DELIVER, by alias", 1)),
        ("DELIVER: a topic with a wildcard", "broker", edited("DELIVER, naming the topic", 26, b'#')),
        ("LAGGED: nothing missed", "broker", framed(0x11, 0, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("ADMIN: operation 8", "client", edited("ADMIN policy reload", 7, 8)),
        ("ADMIN: verb 8", "client", edited("ADMIN can I publish", 11, 8)),
        ("ADMIN: replay of what is no stream", "client", edited("ADMIN can I publish", 11, 5)),
        ("ADMIN: publish without a topic", "client", edited("ADMIN can I administer", 11, 1)),
        ("ADMIN: administer with a topic", "client", edited("ADMIN can I publish", 11, 3)),
        ("RESULT: operation 0", "broker", edited("RESULT denied", 7, 0)),
        ("RESULT: decision 2", "broker", edited("RESULT denied", 11, 2)),
        ("ERROR: an action that is not the code's", "broker", edited("ERROR of a broker", 2, 3)),
    ]
    .into_iter()
    .chain(streams::refuse())
    {
        cases.push(case(name.to_owned(), from, &bytes, "FORMAT"));
    }
    for (name, from, bytes) in [
        ("PUBLISH of 4 GiB", "client", vec![0x05, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ("PUBLISH of 1,064,961 bytes", "client", vec![0x05, 0, 0, 0, 0, 0x10, 0x40, 1]),
        ("DELIVER of 1,064,961 bytes", "broker", vec![0x0e, 0, 0, 0, 0, 0x10, 0x40, 1]),
        ("PING of 131,073 bytes", "client", vec![0x17, 0, 0, 0, 0, 2, 0, 1]),
        ("RESULT of 131,073 bytes", "broker", vec![0x16, 0, 0, 0, 0, 2, 0, 1]),
    ] {
        cases.push(case(name.to_owned(), from, &bytes, "LIMIT"));
    }
    Value::Array(cases)
}

fn incomplete() -> Value {
    let whole = named("PUBLISH");
    let largest = FrameHeader { kind: FrameType::Publish, flags: 0, payload_len: 1_064_960 }.encode();
    json!([
        { "name": "nothing", "from": "client", "bytes": "" },
        { "name": "seven bytes of a header", "from": "client", "bytes": hex(&whole[..7]) },
        { "name": "a header", "from": "client", "bytes": hex(&whole[..8]) },
        { "name": "all but the last byte", "from": "client", "bytes": hex(&whole[..whole.len() - 1]) },
        { "name": "the header of the largest frame", "from": "client", "bytes": hex(&largest) },
    ])
}
