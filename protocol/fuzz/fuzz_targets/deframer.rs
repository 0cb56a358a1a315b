//! Any bytes, cut anywhere: the same frames and the same error as when they come at once, and never more held than one
//! frame and the staging buffer.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealbus_protocol::frame::deframer::STAGING_BYTES;
use sealbus_protocol::frame::{
    BrokerFrame, ClientFrame, Deframer, FrameError, FrameHeader, FrameType, RawFrame,
};
use sealbus_protocol::limits::{FRAME_BYTES_MAX, UNAUTHENTICATED_BYTES_MAX};

#[derive(Debug, Arbitrary)]
struct Input {
    authenticated: bool,
    pieces: Vec<Piece>,
    cuts: Vec<u16>,
}

/// A part of the stream: a well-formed frame around any payload, or anything at all.
#[derive(Debug, Arbitrary)]
enum Piece {
    Frame { kind: u8, flags: u8, payload: Vec<u8>, repeated: u16 },
    Bytes(Vec<u8>),
}

/// Frames up to the error, if there is one.
type Outcome = (Vec<RawFrame>, Option<FrameError>);

fuzz_target!(|input: Input| {
    let stream: Vec<u8> = input.pieces.iter().flat_map(bytes_of).collect();
    let whole = feed(input.authenticated, &stream, std::iter::repeat(usize::MAX));
    let cuts = input.cuts.iter().map(|cut| usize::from(*cut).max(1));
    let cut = feed(input.authenticated, &stream, cuts.chain(std::iter::repeat(1_021)));
    assert_eq!(whole, cut);
    for frame in whole.0 {
        let (client, broker) = (ClientFrame::decode(&frame), BrokerFrame::decode(&frame));
        match frame.header.kind {
            FrameType::Ping | FrameType::Pong | FrameType::Error => {
                assert_eq!(client.is_ok(), broker.is_ok(), "both directions share these");
            }
            kind => assert!(client.is_err() || broker.is_err(), "{kind} goes one way"),
        }
        if let Ok(frame) = client {
            assert!(!format!("{frame:?}").is_empty());
        }
        if let Ok(frame) = broker {
            assert!(!format!("{frame:?}").is_empty());
        }
    }
});

fn bytes_of(piece: &Piece) -> Vec<u8> {
    match piece {
        Piece::Bytes(bytes) => bytes.clone(),
        Piece::Frame { kind, flags, payload, repeated } => {
            let kind = FrameType::from_wire(kind % 26 + 1).expect("26 types from 1 on");
            let payload = payload.repeat(1 + usize::from(repeated % 4_096));
            let payload = payload.get(..kind.payload_bytes_max()).unwrap_or(&payload);
            let header = FrameHeader { kind, flags: *flags, payload_len: payload.len() };
            [&header.encode()[..], payload].concat()
        }
    }
}

fn feed(authenticated: bool, mut stream: &[u8], mut steps: impl Iterator<Item = usize>) -> Outcome {
    let mut deframer = Deframer::unauthenticated();
    if authenticated {
        deframer.authenticate();
    }
    let frame_max = if authenticated { FRAME_BYTES_MAX } else { UNAUTHENTICATED_BYTES_MAX };
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let step = steps.next().expect("the steps are endless");
        let take = step.min(deframer.space_len()).min(stream.len());
        assert!(take > 0, "there is always room");
        let (now, later) = stream.split_at(take);
        deframer.space().extend_from_slice(now);
        stream = later;
        assert!(deframer.buffered() <= frame_max + STAGING_BYTES);
        loop {
            match deframer.poll_frame() {
                Ok(Some(frame)) => {
                    assert_eq!(frame.payload.len(), frame.header.payload_len);
                    assert!(frame.payload.len() <= frame_max);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
