//! Questions that are answered once: administration and checkpoints.

use std::collections::VecDeque;

use crate::error::RequestError;

use super::command::{CheckpointWant, Inquiry};
use super::core::{Asked, Core};

/// Questions that wait for a connection.
const WAITING_MAX: usize = 64;

/// What waits for a connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    waiting: VecDeque<Inquiry>,
}

impl Core {
    /// Asks, or keeps the question until there is a connection.
    pub(super) fn inquire(&mut self, inquiry: Inquiry) {
        let Some(session) = &mut self.session else {
            if self.inquiries.waiting.len() < WAITING_MAX {
                self.inquiries.waiting.push_back(inquiry);
            } else {
                inquiry.refuse(RequestError::TooMany);
            }
            return;
        };
        let (request, asked) = match inquiry {
            Inquiry::Administer { operation, reply } => (session.admin(operation), Asked::Administer(reply)),
            Inquiry::Checkpoint { want, reply } => {
                let CheckpointWant { stream, old_size, leaf_index } = want;
                (session.checkpoint_get(stream, old_size, leaf_index), Asked::Checkpoint(reply))
            }
        };
        match request {
            Ok(request) => drop(self.requests.insert(request, asked)),
            Err(_) => asked.refuse(RequestError::TooMany),
        }
    }

    /// Asks what has waited for a connection.
    pub(super) fn inquire_waiting(&mut self) {
        for inquiry in std::mem::take(&mut self.inquiries.waiting) {
            self.inquire(inquiry);
        }
    }
}

impl Inquiry {
    fn refuse(self, error: RequestError) {
        match self {
            Self::Administer { reply, .. } => drop(reply.send(Err(error))),
            Self::Checkpoint { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl Asked {
    /// Tells whoever waits for an answer that none comes. Topics and readers are asked for anew by themselves.
    pub(super) fn refuse(self, error: RequestError) {
        match self {
            Self::Administer(reply) => drop(reply.send(Err(error))),
            Self::Checkpoint(reply) => drop(reply.send(Err(error))),
            Self::Settle { settler, settling } => settler.give_back(settling),
            Self::Open(_) | Self::Publish { .. } | Self::Read(_) | Self::Binding(_) => {}
        }
    }
}
