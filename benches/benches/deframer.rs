//! Cutting a stream into frames.
//!
//! Expected: small frames cost an allocation and a copy of their payload each, about 50 ns; a large one costs one
//! copy of its bytes, which a socket would have made anyway: memory speed, 5 GB/s and more.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sealbus_protocol::frame::{Alias, Deframer, Frame, Publish, RequestId};

/// A megabyte or more of PUBLISH frames with batches of this size.
fn stream(batch_bytes: usize) -> Vec<u8> {
    let frame =
        Publish { request: RequestId(1), alias: Alias(0), batch: vec![7; batch_bytes].into() }.encode();
    frame.repeat((1 << 20) / frame.len() + 1)
}

fn deframe(stream: &[u8], read_bytes: usize) -> usize {
    let mut deframer = Deframer::unauthenticated();
    deframer.authenticate();
    let mut rest = stream;
    let mut frames = 0;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(read_bytes.min(deframer.space_len()).min(rest.len()));
        deframer.space().extend_from_slice(now);
        rest = later;
        while deframer.poll_frame().expect("the stream is good").is_some() {
            frames += 1;
        }
    }
    frames
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("deframer");
    for batch_bytes in [500, 4_096, 65_536, 262_144] {
        let stream = stream(batch_bytes);
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(batch_bytes), &stream, |b, stream| {
            b.iter(|| deframe(stream, 128 * 1_024));
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
