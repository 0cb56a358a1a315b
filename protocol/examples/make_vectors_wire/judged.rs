//! Batches in a row, as a broker and a consumer judge them.

use sealbus_protocol::batch::preamble::Sealing;
use sealbus_protocol::batch::produce::SignedBatch;
use sealbus_protocol::batch::{Batch, HEAD_LEN, PREAMBLE_LEN, Preamble, Seal};
use sealbus_protocol::ids::{ContentHash, StreamId};
use sealbus_protocol::keys::Purpose;
use serde_json::{Value, json};

use crate::batches::{self, CREATED_MS, ONE, key, signed};
use crate::hex;

/// A batch that is re-signed after some bytes of its preamble were replaced: only its place is wrong.
fn displaced(batch: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let signature = key().sign(Purpose::Batch, &[&batch[..PREAMBLE_LEN]]);
    batch[PREAMBLE_LEN..HEAD_LEN].copy_from_slice(&signature);
    batch
}

/// A sealed batch in the place of `batch`.
fn sealed(batch: &[u8]) -> Vec<u8> {
    let body = [0x5e; 40];
    let preamble = Preamble {
        seal: Seal::ChaCha20Poly1305 {
            with: Sealing { key_epoch: 1, salt: [0x5a; 32], sender_key: [0x5b; 32] },
        },
        body_len: 40,
        content_hash: ContentHash::new(*blake3::hash(&body).as_bytes()),
        ..Batch::decode(batch.to_vec().into()).expect("a well-formed batch").preamble().clone()
    };
    let encoded = preamble.encode();
    [&encoded[..], &key().sign(Purpose::Batch, &[&encoded]), &body].concat()
}

pub(crate) fn broker() -> Value {
    let now_ms = CREATED_MS + 500;
    let mut chain = batches::chain(StreamId::ZERO);
    let mut twin = batches::chain(StreamId::ZERO);
    let first = signed(&mut chain, &[ONE, ONE]);
    let second = signed(&mut chain, &[ONE]);
    let third = signed(&mut chain, &[ONE]);
    let rival = signed(&mut twin, &[ONE]);
    let (first, second, third) = (first.bytes(), second.bytes(), third.bytes());
    let ahead_ms = now_ms + 5 * 60 * 1_000;
    let behind_ms = now_ms - 24 * 60 * 60 * 1_000;
    let at = |created_ms: u64| displaced(third, 160, &created_ms.to_be_bytes());
    let flipped = |at: usize| {
        let mut batch = third.to_vec();
        batch[at] ^= 1;
        batch
    };
    let step = |name: &str, batch: &[u8], decision: &str, fence: &str, expect: &str| {
        json!({
            "name": name, "batch": hex(batch), "decision": decision, "fence": fence, "expect": expect,
            "now_ms": now_ms, "policy_version": 7,
        })
    };
    let plain = |name: &str, batch: &[u8], expect: &str| step(name, batch, "permitted", "open", expect);
    json!([
        plain("the first batch sets the sequence", first, "ACCEPTED"),
        plain("the same again", first, "DUPLICATE"),
        step("the same again, without the right and fenced", first, "denied", "superseded", "DUPLICATE"),
        plain("the third before the second", third, "GAP"),
        step("without the right", second, "denied", "open", "DENIED"),
        step("without the right, fenced, and ahead", third, "denied", "superseded", "DENIED"),
        step("fenced", second, "permitted", "superseded", "FENCED"),
        plain("the second", second, "ACCEPTED"),
        plain("for another bus", &displaced(third, 8, &[0]), "BINDING"),
        plain("for another topic", &displaced(third, 24, &[0]), "BINDING"),
        plain("with a policy version of the future", &displaced(third, 56, &8_u64.to_be_bytes()), "BINDING"),
        plain(
            "with an older policy version, not chained",
            &displaced(&displaced(third, 56, &[0; 8]), 232, &[1]),
            "CHAIN"
        ),
        plain("of another key", &displaced(third, 64, &[0]), "SESSION"),
        plain("of another instance", &displaced(third, 96, &[0]), "SESSION"),
        plain("of another start", &displaced(third, 119, &[1]), "SESSION"),
        plain("of another incarnation", &displaced(third, 120, &[0]), "SESSION"),
        plain("beginning inside the first", &displaced(third, 136, &1_u64.to_be_bytes()), "STALE"),
        plain("sealed", &sealed(third), "SEAL"),
        plain("5 minutes and 1 ms ahead", &at(ahead_ms + 1), "TIME"),
        plain("24 hours and 1 ms behind", &at(behind_ms - 1), "TIME"),
        plain("5 minutes ahead, not chained", &displaced(&at(ahead_ms), 232, &[1]), "CHAIN"),
        plain("24 hours behind, not chained", &displaced(&at(behind_ms), 232, &[1]), "CHAIN"),
        plain("one payload byte changed", &flipped(third.len() - 1), "SIGNATURE"),
        plain("the signature changed", &flipped(PREAMBLE_LEN), "SIGNATURE"),
        plain("a rival of the first, properly signed", rival.bytes(), "EQUIVOCATION"),
        plain(
            "a rival of the first, not properly signed",
            &{
                let mut batch = rival.bytes().to_vec();
                batch[PREAMBLE_LEN] ^= 1;
                batch
            },
            "SIGNATURE"
        ),
        plain("the third: nothing that was refused took its number", third, "ACCEPTED"),
    ])
}

pub(crate) fn consumer() -> Value {
    let mut chain = batches::chain(StreamId::ZERO);
    let mut twin = batches::chain(StreamId::ZERO);
    let batches: Vec<SignedBatch> = (0..6).map(|_| signed(&mut chain, &[ONE, ONE])).collect();
    let rivals: Vec<SignedBatch> =
        (0..6).map(|_| signed(&mut twin, &[ONE, (CREATED_MS, b"", &[], b"two")])).collect();
    let step = |name: &str, batch: &SignedBatch, expect: &str| json!({ "name": name, "batch": hex(batch.bytes()), "expect": expect });
    json!([
        step("the first that is seen", &batches[1], "joined"),
        step("the one after it", &batches[2], "next"),
        step("the same again", &batches[2], "REPLAY"),
        step("one from before the beginning", &batches[0], "REPLAY"),
        step("another for the same place", &rivals[2], "EQUIVOCATION"),
        step("the next by number, after another history", &rivals[3], "CHAIN"),
        step("one after two messages that are missing", &batches[4], "gap of 2"),
        step("the one after it", &batches[5], "next"),
        step("one of those that were missing, too late", &batches[3], "REPLAY"),
    ])
}
