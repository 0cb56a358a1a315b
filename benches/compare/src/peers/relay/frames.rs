//! What is said to the relay and by it: frames with their length in front.

use crate::wire::{Received, Wire, WireError};

/// Bytes of a message, as far as this comparison sends any.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a length.
pub(super) const LENGTH_BYTES: usize = 4;

/// Bytes of the frame that says what a connection is.
pub(super) const ROLE_BYTES_MAX: usize = 256;

/// What a publisher's frame begins with.
pub(super) const PUBLISHER: &str = "publisher ";

/// What a subscriber's frame begins with.
pub(super) const SUBSCRIBER: &str = "subscriber ";

/// The frame that asks, and the one that answers.
pub(super) const EMPTY_FRAME: [u8; LENGTH_BYTES] = [0; LENGTH_BYTES];

/// The protocol, for one connection: frames, each of 4 bytes that say how many follow, and those. A connection is a
/// publisher or a subscriber, of one topic, and a topic has one publisher at a time.
///
/// ```text
///   0000                                  0000                       Ready
///   len "publisher TOPIC"                 (nothing)
///   len payload                           (nothing)
///
///   0000                                  0000                       Ready
///   len "subscriber TOPIC"                0000                       Ready
///                                         len payload                Message
/// ```
#[derive(Debug, Default)]
pub struct RelayWire {
    ready_awaited: u8,
    topic: Option<String>,
}

impl Wire for RelayWire {
    const GREETS_IN_PLAINTEXT: bool = false;

    fn login(&mut self, out: &mut Vec<u8>) {
        self.ready_awaited += 1;
        out.extend_from_slice(&EMPTY_FRAME);
    }

    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>) {
        self.ready_awaited += 1;
        frame(out, &[SUBSCRIBER.as_bytes(), topic.as_bytes()]);
    }

    /// # Panics
    /// When a second topic is published to: the relay cannot.
    fn publish(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        if self.topic.is_none() {
            self.topic = Some(topic.to_owned());
            frame(out, &[PUBLISHER.as_bytes(), topic.as_bytes()]);
        }
        assert_eq!(self.topic.as_deref(), Some(topic), "a connection to the relay publishes to one topic");
        frame(out, &[payload]);
    }

    /// As a live one, which nobody acknowledges: the relay has no durable profile.
    fn publish_durable(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        self.publish(topic, payload, out);
    }

    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        _out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<usize, WireError> {
        let mut rest = input;
        while let Some((len, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let len = length(*len)?;
            let Some((payload, behind)) = behind.split_at_checked(len) else { break };
            if self.ready_awaited > 0 {
                if !payload.is_empty() {
                    return Err(WireError::malformed("an empty frame", payload));
                }
                self.ready_awaited -= 1;
                sink(Received::Ready);
            } else {
                sink(Received::Message(payload));
            }
            rest = behind;
        }
        Ok(input.len() - rest.len())
    }
}

fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
    usize::try_from(u32::from_be_bytes(bytes))
        .ok()
        .filter(|len| *len <= MESSAGE_BYTES_MAX)
        .ok_or_else(|| WireError::malformed("a message of at most 1 MiB", &bytes))
}

fn frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).expect("no message of this comparison has 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Came, assert_same_however_split, come};
    use super::*;

    fn subscribed() -> RelayWire {
        let mut wire = RelayWire::default();
        let mut out = Vec::new();
        wire.login(&mut out);
        wire.subscribe("a/b", &mut out);
        assert_eq!(out, b"\0\0\0\0\0\0\0\x0esubscriber a/b");
        wire
    }

    #[test]
    fn frames_are_the_same_however_they_are_split() {
        let input = b"\0\0\0\0\0\0\0\0\0\0\0\x03one\0\0\0\x03two\0\0\0\0";
        let message = |text: &str| Came::Message(text.into());
        let expected = [Came::Ready, Came::Ready, message("one"), message("two"), message("")];
        assert_same_however_split(subscribed, input, &expected, b"");
    }

    #[test]
    fn only_the_first_publish_says_more_than_the_others() {
        let mut wire = RelayWire::default();
        let mut out = Vec::new();
        wire.publish("a/b", b"hi", &mut out);
        assert_eq!(out, b"\0\0\0\x0dpublisher a/b\0\0\0\x02hi");
        for _ in 0..2 {
            out.clear();
            wire.publish("a/b", b"hi", &mut out);
            assert_eq!(out, b"\0\0\0\x02hi");
        }
    }

    #[test]
    fn what_is_not_the_protocol_ends_the_conversation() {
        for input in [b"\xff\xff\xff\xff".as_slice(), b"\0\x10\0\x01", b"\0\0\0\x01x"] {
            let found = come(&mut subscribed(), input);
            assert!(matches!(found, Err(WireError::Malformed { .. })), "{found:?}");
        }
    }
}
