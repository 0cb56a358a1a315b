//! Who publishes, and what they send.

use std::collections::VecDeque;

use bytes::Bytes;
use sealbus_protocol::batch::accept::{SequenceState, Verdict};

use crate::campaign::author::{Author, Identity};
use crate::campaign::place::stream_id;

/// The producers: on which stream, and on which topic. Two of them share one.
pub(super) const AUTHORS: [(usize, &str); 5] =
    [(0, "orders/eu"), (0, "orders/us"), (0, "orders/eu"), (1, "bills/eu"), (1, "bills/us")];

/// What a producer sends.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// So many messages of so many bytes.
    Messages(u32, usize),
    /// A sign of life.
    Heartbeat,
}

/// A producer, and how far the broker is with it.
pub(super) struct Producer {
    pub(super) author: Author,
    pub(super) stream: usize,
    pub(super) sequence: SequenceState,
    /// Signed, and not taken yet.
    pub(super) to_send: VecDeque<Bytes>,
    pub(super) key_record: u64,
}

/// The producers, who live longer than the broker.
pub struct Producers(pub(super) Vec<Producer>);

impl Producers {
    /// New ones.
    #[must_use]
    pub fn new() -> Self {
        let author = |(number, (stream, topic)): (usize, &(usize, &str))| Producer {
            author: Author::new(number as u8 + 1, topic, stream_id(*stream)),
            stream: *stream,
            sequence: SequenceState::from_start(),
            to_send: VecDeque::new(),
            key_record: 0,
        };
        Self(AUTHORS.iter().enumerate().map(author).collect())
    }

    /// Who they are.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        self.0.iter().map(|producer| producer.author.identity().clone()).collect()
    }
}

impl Default for Producers {
    fn default() -> Self {
        Self::new()
    }
}

/// What a broker says of a batch, in words.
pub(super) fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept(_) => "is accepted as a new one".to_owned(),
        Verdict::Duplicate(receipt) => format!("is a duplicate of the one at {:?}", receipt.offset),
        Verdict::Refuse(refusal) => format!("is refused: {refusal:?}"),
        Verdict::Equivocate(_) => "is another one in its place".to_owned(),
    }
}
