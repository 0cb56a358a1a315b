//! Making and verifying batches.
//!
//! Expected: one Ed25519 signature (26 us to make, 52 us to verify strictly) and one BLAKE3 pass over the body (about
//! 0.2 us per KiB) for each batch, whatever it holds. So 33 / 66 us for one message of 128 B, and well under 1 us a
//! message in batches of 512. Adding a message to an open batch is a bounds check and a copy: tens of nanoseconds.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealbus_benches::{Producer, SHAPES, open_batch};
use sealbus_protocol::batch::Batch;

fn collect(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch/collect");
    for (messages, payload_bytes) in SHAPES {
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new(messages.to_string(), payload_bytes), |b| {
            b.iter(|| open_batch(black_box(messages), payload_bytes));
        });
    }
}

fn sign(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch/sign");
    for (messages, payload_bytes) in SHAPES {
        let open = open_batch(messages, payload_bytes);
        let mut producer = Producer::new();
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new(messages.to_string(), payload_bytes), |b| {
            b.iter_batched(|| open.clone(), |open| producer.signed(open), BatchSize::LargeInput);
        });
    }
}

/// What a broker and each consumer do: parse, check the records, hash, verify.
fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch/verify");
    for (messages, payload_bytes) in SHAPES {
        let mut producer = Producer::new();
        let bytes = producer.signed(open_batch(messages, payload_bytes));
        let key = producer.key.verifying_key();
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new(messages.to_string(), payload_bytes), |b| {
            b.iter(|| decode(bytes.clone()).verify(&key).expect("the batch is good"));
        });
    }
}

/// The share of that which is not cryptography.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch/parse");
    for (messages, payload_bytes) in SHAPES {
        let bytes = Producer::new().signed(open_batch(messages, payload_bytes));
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new(messages.to_string(), payload_bytes), |b| {
            b.iter(|| decode(bytes.clone()));
        });
    }
}

fn decode(bytes: Bytes) -> Batch {
    Batch::decode(bytes).expect("the batch is well formed")
}

criterion_group!(benches, collect, sign, verify, parse);
criterion_main!(benches);
