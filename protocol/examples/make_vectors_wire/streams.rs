//! The frames of streams, and what is refused of them.

use serde_json::{Value, json};

use crate::frames::{Vector, edited, flagged, with};

fn replay() -> Value {
    json!({
        "request": 7, "subscription": 4, "credit_bytes": 1_048_576, "from": "earliest", "until": "live", "stream": "orders",
        "filter": null,
    })
}

fn consume() -> Value {
    json!({
        "request": 7, "subscription": 4, "credit_bytes": 1_048_576, "from": "end", "ack_wait_ms": null, "max_deliver": null,
        "unacknowledged_max": null, "backoff_ms": [], "stream": "orders", "consumer": "billing", "filter": null,
    })
}

pub(crate) fn stream_info() -> Value {
    json!({
        "name": "orders", "stream_id": "5e".repeat(16), "topics": ["orders/#", "invoices/+"], "durability": "fsync",
        "state": "open", "reason": "", "first": 100, "end": 27_104, "records": 431, "bytes": 9_000_000, "segments": 3,
        "damaged": 0, "checkpoint_size": 430, "checkpoint_root": "c0".repeat(32),
        "retention": { "age_ms": 604_800_000, "bytes": null, "messages": 1_000_000 }, "consumers": 1,
    })
}

fn consumer_info() -> Value {
    json!({
        "stream": "orders", "consumer": "billing", "filter": "orders/eu/#", "position": 26_000, "end": 27_104,
        "unacknowledged": 7, "redelivering": 2, "members": 3, "lag": 1_090, "delivered": 26_100, "acknowledged": 26_014,
        "dead": 1, "ack_wait_ms": 30_000, "max_deliver": 5, "unacknowledged_max": 1_000,
    })
}

pub(crate) fn frames() -> Vec<Vector> {
    [reading(), settling(), proving(), administering()].concat()
}

fn reading() -> Vec<Vector> {
    let begun = |from: Value| with(replay(), json!({ "from": from }));
    let range = |first: u32, count: u32, deliveries: u32| json!({ "first": first, "count": count, "deliveries": deliveries });
    let stored = json!({
        "subscription": 4, "alias": 2, "offset": 17, "broker_ms": 1_767_225_601_500_u64, "topic": "orders/eu",
        "stream_id": "5e".repeat(16), "stored": { "policy_version": 7, "leaf_index": 3 }, "ranges": null, "batch": "62617463",
    });
    let ranges = json!([range(0, 2, 1), range(2, 1, 3), range(9, 1, 1)]);
    vec![
        ("REPLAY from the beginning", "client", "REPLAY", replay()),
        ("REPLAY from an offset", "client", "REPLAY", begun(json!({ "offset": 100 }))),
        ("REPLAY from a time", "client", "REPLAY", begun(json!({ "time_ms": 1_767_225_600_000_u64 }))),
        ("REPLAY of the last", "client", "REPLAY", begun(json!({ "last": 10 }))),
        ("REPLAY from the end", "client", "REPLAY", begun("end".into())),
        (
            "REPLAY of some topics, to the end",
            "client",
            "REPLAY",
            with(replay(), json!({ "until": "end", "filter": "orders/eu/#" })),
        ),
        (
            "REPLAY of dead letters",
            "client",
            "REPLAY",
            with(replay(), json!({ "stream": "$dead/orders/billing", "until": "end" })),
        ),
        (
            "READY, a stream",
            "broker",
            "READY",
            json!({
                "request": 7, "subscription": 4, "narrowed": false, "generation": 2,
                "start": { "stream_id": "5e".repeat(16), "offset": 100, "end": 27_104 },
            }),
        ),
        ("DELIVER, stored", "broker", "DELIVER", stored.clone()),
        (
            "DELIVER, stored, by alias",
            "broker",
            "DELIVER",
            with(stored.clone(), json!({ "topic": null, "stream_id": null, "offset": 0 })),
        ),
        ("DELIVER, some records", "broker", "DELIVER", with(stored, json!({ "ranges": ranges }))),
        (
            "SKIPPED, trimmed",
            "broker",
            "SKIPPED",
            json!({ "subscription": 4, "why": "trimmed", "from": 0, "to": 100 }),
        ),
        (
            "SKIPPED, damaged",
            "broker",
            "SKIPPED",
            json!({ "subscription": 4, "why": "damaged", "from": 170, "to": 171 }),
        ),
        (
            "SKIPPED, withdrawn",
            "broker",
            "SKIPPED",
            json!({ "subscription": 4, "why": "withdrawn", "from": 171, "to": 300 }),
        ),
    ]
}

fn settling() -> Vec<Vector> {
    let ack = json!({ "offset": 17, "count": 2, "verdict": "ack" });
    let nack = json!({ "offset": 19, "count": 1, "verdict": "nack", "delay_ms": 5_000 });
    let settle = json!({ "request": 7, "subscription": 4, "sync": true, "items": [ack, nack] });
    vec![
        ("CONSUME", "client", "CONSUME", consume()),
        (
            "CONSUME, all of it chosen",
            "client",
            "CONSUME",
            with(
                consume(),
                json!({
                    "from": { "last": 10 }, "ack_wait_ms": 60_000, "max_deliver": 3, "unacknowledged_max": 65_536,
                    "backoff_ms": [1_000, 10_000, 60_000], "filter": "orders/eu/#",
                }),
            ),
        ),
        (
            "CONSUME, delivered without limit",
            "client",
            "CONSUME",
            with(consume(), json!({ "max_deliver": "no-limit" })),
        ),
        ("SETTLE", "client", "SETTLE", settle.clone()),
        (
            "SETTLE, without an answer",
            "client",
            "SETTLE",
            with(settle, json!({ "request": 2_147_483_648_u32, "sync": false })),
        ),
        ("SETTLED", "broker", "SETTLED", json!({ "request": 7 })),
        (
            "REFUSED, another consumer of this name",
            "broker",
            "REFUSED",
            json!({ "request": 7, "code": "CONFLICT", "reason": "consume orders as billing: its filter is orders/#" }),
        ),
    ]
}

fn proving() -> Vec<Vector> {
    let get = json!({ "request": 7, "old_size": 0, "leaf_index": null, "stream": "orders" });
    vec![
        ("CHECKPOINT_GET", "client", "CHECKPOINT_GET", get.clone()),
        (
            "CHECKPOINT_GET with proofs",
            "client",
            "CHECKPOINT_GET",
            with(get, json!({ "old_size": 3, "leaf_index": 0 })),
        ),
        (
            "CHECKPOINT",
            "broker",
            "CHECKPOINT",
            json!({
                "request": 7, "size": 5, "prefix": [], "consistency": [], "inclusion": [], "note": "a note\n",
            }),
        ),
        (
            "CHECKPOINT with proofs",
            "broker",
            "CHECKPOINT",
            json!({
                "request": 7, "size": 5, "prefix": ["a1".repeat(32), "a2".repeat(32)], "consistency": ["b1".repeat(32)],
                "inclusion": ["c1".repeat(32), "c2".repeat(32), "c3".repeat(32)], "note": "a note\n",
            }),
        ),
    ]
}

fn administering() -> Vec<Vector> {
    let can_i = |verb: &str| json!({ "request": 7, "operation": "can-i", "principal": null, "verb": verb, "stream": "orders" });
    let full = with(
        stream_info(),
        json!({
            "name": "$dead/orders/billing", "topics": [], "durability": "interval", "state": "full",
            "reason": "the disk is full", "retention": { "age_ms": null, "bytes": null, "messages": null },
        }),
    );
    let stopped =
        with(stream_info(), json!({ "durability": "memory", "state": "stopped", "reason": "sync failed" }));
    let everything = with(consumer_info(), json!({ "consumer": "audit", "filter": null, "max_deliver": 0 }));
    let consumer = json!({ "stream": "orders", "consumer": "billing" });
    vec![
        ("ADMIN can I replay", "client", "ADMIN", can_i("replay")),
        (
            "ADMIN can somebody consume",
            "client",
            "ADMIN",
            with(can_i("consume"), json!({ "principal": "spiffe://a.example/billing" })),
        ),
        ("ADMIN can I describe", "client", "ADMIN", can_i("describe")),
        (
            "ADMIN streams",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "streams", "name": null, "after": null }),
        ),
        (
            "ADMIN one stream",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "streams", "name": "$dead/orders/billing", "after": null }),
        ),
        (
            "ADMIN further streams",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "streams", "name": null, "after": "orders" }),
        ),
        (
            "ADMIN consumers",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "consumers", "stream": null, "after": null }),
        ),
        (
            "ADMIN further consumers of a stream",
            "client",
            "ADMIN",
            json!({ "request": 7, "operation": "consumers", "stream": "orders", "after": consumer }),
        ),
        (
            "ADMIN consumer reset",
            "client",
            "ADMIN",
            with(consumer, json!({ "request": 7, "operation": "consumer-reset", "from": { "offset": 9 } })),
        ),
        ("ADMIN stats", "client", "ADMIN", json!({ "request": 7, "operation": "stats" })),
        (
            "RESULT of streams",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "streams", "more": true, "streams": [full, stream_info(), stopped],
            }),
        ),
        (
            "RESULT of no streams",
            "broker",
            "RESULT",
            json!({ "request": 7, "operation": "streams", "more": false, "streams": [] }),
        ),
        (
            "RESULT of consumers",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "consumers", "more": false, "consumers": [everything, consumer_info()],
            }),
        ),
        (
            "RESULT of a consumer reset",
            "broker",
            "RESULT",
            json!({ "request": 7, "operation": "consumer-reset", "position": 9 }),
        ),
        (
            "RESULT of stats",
            "broker",
            "RESULT",
            json!({
                "request": 7, "operation": "stats", "uptime_ms": 1_000, "sessions": 2, "subscriptions": 3, "streams": 4,
                "consumers": 5, "published": 6, "published_bytes": 7, "delivered": 8, "acknowledged_batches": 9,
                "refused": 10, "disk_free": 11, "disk_reserve": 12, "data_bytes": 13, "audit_lines": 14,
            }),
        ),
    ]
}

/// What is wrong with it, who sends it, and its bytes.
pub(crate) fn refuse() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    // DELIVER with ranges: 24 bytes, the topic's 2 + 9, stream_id 16, stored 16.
    let ranges = 67;
    vec![
        ("REPLAY: from 0", "client", edited("REPLAY from the beginning", 16, 0)),
        ("REPLAY: from 6", "client", edited("REPLAY from the beginning", 16, 6)),
        ("REPLAY: a value without a meaning", "client", edited("REPLAY from the beginning", 27, 1)),
        ("REPLAY: until 2", "client", edited("REPLAY from the beginning", 17, 2)),
        ("REPLAY: reserved", "client", edited("REPLAY from the beginning", 19, 1)),
        ("REPLAY: not a stream", "client", edited("REPLAY from the beginning", 30, b'$')),
        ("REPLAY: dead letters of no stream", "client", edited("REPLAY of dead letters", 36, b'/')),
        ("REPLAY: not a filter", "client", edited("REPLAY of some topics, to the end", 38, b'#')),
        ("READY: live, from an offset", "broker", edited("READY", 36, 0)),
        ("READY: live, to an end", "broker", edited("READY", 44, 0)),
        ("READY: a stream without a place", "broker", edited("READY", 20, 1)),
        ("DELIVER: stored without an offset", "broker", edited("DELIVER, stored, by alias", 15, 0)),
        ("DELIVER: ranges of what is not stored", "broker", flagged("DELIVER, some records", 5)),
        ("DELIVER: no ranges", "broker", edited("DELIVER, some records", ranges + 1, 0)),
        ("DELIVER: 1,025 ranges", "broker", {
            let mut bytes = edited("DELIVER, some records", ranges, 4);
            bytes[8 + ranges + 1] = 1;
            bytes
        }),
        ("DELIVER: a range of no records", "broker", edited("DELIVER, some records", ranges + 9, 0)),
        (
            "DELIVER: records that were never delivered",
            "broker",
            edited("DELIVER, some records", ranges + 13, 0),
        ),
        ("DELIVER: ranges that overlap", "broker", edited("DELIVER, some records", ranges + 17, 1)),
        ("DELIVER: ranges out of order", "broker", edited("DELIVER, some records", ranges + 29, 1)),
        ("DELIVER: a range beyond every batch", "broker", edited("DELIVER, some records", ranges + 27, 1)),
        ("SKIPPED: why 0", "broker", edited("SKIPPED, trimmed", 7, 0)),
        ("SKIPPED: why 4", "broker", edited("SKIPPED, trimmed", 7, 4)),
        ("SKIPPED: nothing", "broker", edited("SKIPPED, damaged", 23, 170)),
        ("CONSUME: from 6", "client", edited("CONSUME", 16, 6)),
        ("CONSUME: reserved", "client", edited("CONSUME", 17, 1)),
        ("CONSUME: 17 steps of backoff", "client", edited("CONSUME", 19, 17)),
        ("CONSUME: 65,537 unacknowledged", "client", edited("CONSUME, all of it chosen", 39, 1)),
        ("CONSUME: dead letters", "client", edited("CONSUME", 42, b'$')),
        ("CONSUME: not a consumer", "client", edited("CONSUME", 50, b'/')),
        ("SETTLE: nothing", "client", edited("SETTLE", 9, 0)),
        ("SETTLE: 1,025 items", "client", {
            let mut bytes = edited("SETTLE", 8, 4);
            bytes[8 + 9] = 1;
            bytes
        }),
        ("SETTLE: no messages", "client", edited("SETTLE", 21, 0)),
        ("SETTLE: verdict 0", "client", edited("SETTLE", 22, 0)),
        ("SETTLE: verdict 3", "client", edited("SETTLE", 22, 3)),
        ("SETTLE: reserved", "client", edited("SETTLE", 25, 1)),
        ("SETTLE: acknowledged with a delay", "client", edited("SETTLE", 29, 1)),
        ("SETTLE: offsets beyond the last", "client", {
            let mut bytes = edited("SETTLE", 10, 0xff);
            bytes[8 + 11..8 + 18].fill(0xff);
            bytes
        }),
        ("CHECKPOINT_GET: not a stream", "client", edited("CHECKPOINT_GET", 22, b'/')),
        ("CHECKPOINT: 65 hashes", "broker", edited("CHECKPOINT", 13, 65)),
        ("CHECKPOINT: a note of 4,103 bytes", "broker", edited("CHECKPOINT", 18, 0x10)),
        ("CHECKPOINT: a note that is not UTF-8", "broker", edited("CHECKPOINT", 20, 0xff)),
        ("ADMIN: half of a consumer's name", "client", edited("ADMIN further consumers of a stream", 25, 0)),
        ("ADMIN: a reset to nowhere", "client", edited("ADMIN consumer reset", 25, 0)),
        ("ADMIN: a reset, reserved", "client", edited("ADMIN consumer reset", 32, 1)),
        ("RESULT: more, or less", "broker", edited("RESULT of streams", 8, 2)),
        ("RESULT: reserved", "broker", edited("RESULT of streams", 9, 1)),
        ("RESULT: more streams than are there", "broker", edited("RESULT of no streams", 11, 1)),
    ]
}
