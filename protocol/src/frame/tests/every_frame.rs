//! Every frame: there and back, cut at every byte, lengthened, changed in every bit, in the wrong direction.

use bytes::Bytes;

use super::samples::{broker_frames, client_frames, hello, raw};
use crate::frame::{BrokerFrame, ClientFrame, Frame as _, FrameType, HEADER_LEN};

#[test]
fn frames_come_back_as_they_were() {
    for (bytes, frame) in client_frames() {
        assert_eq!(ClientFrame::decode(&raw(&bytes)).as_ref(), Ok(&frame));
        assert_eq!(raw(&bytes).header.kind, frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert_eq!(BrokerFrame::decode(&raw(&bytes)).as_ref(), Ok(&frame));
        assert_eq!(raw(&bytes).header.kind, frame.kind());
    }
}

#[test]
fn frames_do_not_parse_in_the_other_direction() {
    let both_ways = |kind| matches!(kind, FrameType::Ping | FrameType::Pong | FrameType::Error);
    for (bytes, frame) in client_frames() {
        assert_eq!(BrokerFrame::decode(&raw(&bytes)).is_ok(), both_ways(frame.kind()), "{}", frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert_eq!(ClientFrame::decode(&raw(&bytes)).is_ok(), both_ways(frame.kind()), "{}", frame.kind());
    }
}

#[test]
fn cut_payloads_are_refused() {
    let carries_batch = |kind| matches!(kind, FrameType::Publish | FrameType::Deliver);
    let cut = |bytes: &Bytes, len| {
        let mut cut = raw(bytes);
        cut.payload.truncate(len);
        cut
    };
    for (bytes, frame) in client_frames() {
        let fixed = bytes.len() - HEADER_LEN - if carries_batch(frame.kind()) { "batch".len() } else { 0 };
        for len in 0..fixed {
            assert!(ClientFrame::decode(&cut(&bytes, len)).is_err(), "{} cut at {len}", frame.kind());
        }
    }
    for (bytes, frame) in broker_frames() {
        let fixed = bytes.len() - HEADER_LEN - if carries_batch(frame.kind()) { "batch".len() } else { 0 };
        for len in 0..fixed {
            assert!(BrokerFrame::decode(&cut(&bytes, len)).is_err(), "{} cut at {len}", frame.kind());
        }
    }
}

#[test]
fn bytes_behind_the_end_and_unknown_flags_are_refused() {
    let longer = |bytes: &Bytes| {
        let mut longer = raw(bytes);
        longer.payload = [&longer.payload[..], &[0]].concat().into();
        longer
    };
    let flagged = |bytes: &Bytes| {
        let mut flagged = raw(bytes);
        flagged.header.flags |= 0x80;
        flagged
    };
    for (bytes, frame) in client_frames() {
        assert!(frame.kind() == FrameType::Publish || ClientFrame::decode(&longer(&bytes)).is_err());
        assert!(ClientFrame::decode(&flagged(&bytes)).is_err(), "{}", frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert!(frame.kind() == FrameType::Deliver || BrokerFrame::decode(&longer(&bytes)).is_err());
        assert!(BrokerFrame::decode(&flagged(&bytes)).is_err(), "{}", frame.kind());
    }
}

/// With another bit a frame is another frame, or none: no byte of it is without meaning.
#[test]
fn every_bit_counts() {
    fn flips(bytes: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
        // The ends of the longest frames are like their beginnings.
        (8 * HEADER_LEN..8 * bytes.len().min(512)).map(|bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            (bit, flipped.into())
        })
    }
    for (bytes, frame) in client_frames() {
        for (bit, flipped) in flips(&bytes) {
            assert_ne!(
                ClientFrame::decode(&raw(&flipped)).as_ref(),
                Ok(&frame),
                "{} bit {bit}",
                frame.kind()
            );
        }
    }
    for (bytes, frame) in broker_frames() {
        for (bit, flipped) in flips(&bytes) {
            assert_ne!(
                BrokerFrame::decode(&raw(&flipped)).as_ref(),
                Ok(&frame),
                "{} bit {bit}",
                frame.kind()
            );
        }
    }
}

#[test]
fn the_proof_covers_every_field_of_hello_but_the_bus_which_stands_before_them() {
    let payload = raw(&hello().encode()).payload;
    let covered = [hello().bus_id.as_bytes(), &hello().fields()[..]].concat();
    assert_eq!(payload[..payload.len() - 64], covered);
}
