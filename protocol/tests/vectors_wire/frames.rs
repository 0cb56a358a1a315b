//! `frames.json`.

use bytes::Bytes;
use sealbus_protocol::frame::{BrokerFrame, ClientFrame, Deframer, FrameError, FrameType, RawFrame};
use sealbus_protocol::session::SessionError;
use serde_json::Value;

use crate::build::{broker_frame, bytes, client_frame, list, text};

pub(crate) const FILE: &str = include_str!("../../vectors/frames.json");

/// Cuts one frame from the bytes, on a connection past WELCOME.
fn deframe(mut bytes: &[u8]) -> Result<Option<RawFrame>, FrameError> {
    let mut deframer = Deframer::unauthenticated();
    deframer.authenticate();
    loop {
        if let Some(frame) = deframer.poll_frame()? {
            return Ok(Some(frame));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let (now, later) = bytes.split_at(deframer.space_len().min(bytes.len()));
        deframer.space().extend_from_slice(now);
        bytes = later;
    }
}

/// What the peer of `from` reads; none when the frame is not whole.
fn read(from: &str, bytes: &[u8]) -> Result<Option<FrameType>, FrameError> {
    let Some(raw) = deframe(bytes)? else { return Ok(None) };
    if from == "client" {
        ClientFrame::decode(&raw).map(|frame| Some(frame.kind()))
    } else {
        BrokerFrame::decode(&raw).map(|frame| Some(frame.kind()))
    }
}

fn frames(file: &Value) -> &[Value] {
    let cases = list(&file["frames"]);
    assert_eq!(cases.len(), 88);
    cases
}

#[test]
fn frames_are_written_and_read_byte_for_byte() {
    let file = crate::parse(FILE);
    for case in frames(&file) {
        let (name, frame) = (text(&case["name"]), text(&case["frame"]));
        let expected = bytes(&case["bytes"]);
        let raw = deframe(&expected).expect(name).expect(name);
        assert_eq!(raw.header.kind.as_str(), frame, "{name}");
        if text(&case["from"]) == "client" {
            let (written, frame) = client_frame(frame, &case["fields"]);
            assert_eq!(written, expected, "{name}");
            assert_eq!(ClientFrame::decode(&raw), Ok(frame), "{name}");
        } else {
            let (written, frame) = broker_frame(frame, &case["fields"]);
            assert_eq!(written, expected, "{name}");
            assert_eq!(BrokerFrame::decode(&raw), Ok(frame), "{name}");
        }
    }
}

#[test]
fn every_type_of_frame_has_a_vector() {
    let file = crate::parse(FILE);
    let kinds = (0..=u8::MAX).filter_map(FrameType::from_wire);
    for kind in kinds {
        assert!(frames(&file).iter().any(|case| text(&case["frame"]) == kind.as_str()), "{kind}");
    }
}

/// No byte of a frame is without meaning: with another bit it is another frame, or none.
#[test]
fn every_bit_of_a_frame_counts() {
    let file = crate::parse(FILE);
    for case in frames(&file) {
        let whole = bytes(&case["bytes"]);
        let from = text(&case["from"]);
        let client =
            |bytes: &[u8]| deframe(bytes).and_then(|raw| raw.as_ref().map(ClientFrame::decode).transpose());
        let broker =
            |bytes: &[u8]| deframe(bytes).and_then(|raw| raw.as_ref().map(BrokerFrame::decode).transpose());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.to_vec();
                flipped[at] ^= 1 << bit;
                let differs = if from == "client" {
                    client(&flipped) != client(&whole)
                } else {
                    broker(&flipped) != broker(&whole)
                };
                assert!(differs, "{}: byte {at} bit {bit}", text(&case["name"]));
            }
        }
    }
}

#[test]
fn frames_are_refused_with_this_code() {
    let file = crate::parse(FILE);
    let cases = list(&file["refuse"]);
    assert_eq!(cases.len(), 611);
    for case in cases {
        let name = text(&case["name"]);
        let error = read(text(&case["from"]), &bytes(&case["bytes"])).expect_err(name);
        assert_eq!(SessionError::Frame(error).refusal().code().as_str(), text(&case["code"]), "{name}");
    }
}

#[test]
fn a_frame_is_read_when_it_is_whole() {
    let file = crate::parse(FILE);
    let cases = list(&file["incomplete"]);
    assert_eq!(cases.len(), 5);
    let starts = frames(&file).iter().map(|case| {
        let whole = bytes(&case["bytes"]);
        (case, whole.slice(..whole.len() - 1))
    });
    let starts: Vec<(&Value, Bytes)> =
        starts.chain(cases.iter().map(|case| (case, bytes(&case["bytes"])))).collect();
    for (case, start) in starts {
        assert_eq!(read(text(&case["from"]), &start), Ok(None), "{}", text(&case["name"]));
    }
}
