//! The words between a group and whoever drives it.

use super::delivery::HandedOut;
use super::member::MemberId;

/// What a group needs to know of a batch that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMeta {
    /// Offset of its first record.
    pub offset: u64,
    /// Its records; none in a heartbeat.
    pub records: u32,
    /// Its bytes, which handing it out takes of a member's credit.
    pub bytes: u32,
    /// Whether it is for this consumer.
    pub matches: Matches,
}

/// Whether a batch is for a consumer. All records of a batch have one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matches {
    /// All of its records are.
    Whole,
    /// None is: its topic is outside the filter, or may not be read. It is settled without being handed out.
    None,
}

/// The right to bring a group what follows in its stream. There is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(pub(super) u64);

/// Something to do for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// For whom.
    pub member: MemberId,
    /// What.
    pub what: What,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Read the stream from this offset on, on behalf of the group, and bring what is there.
    NewFrom {
        /// Where to read.
        from: u64,
        /// To be shown with each batch, and given back with [`Group::finish_read`](super::group::Group::finish_read).
        lease: Lease,
    },
    /// Read this batch again, and deliver these records of it.
    Redeliver(HandedOut),
}

/// What becomes of a batch that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// Deliver these records of it to this member, who need not be the one that read it.
    Assigned(MemberId, HandedOut),
    /// Nothing of it is to be delivered now: read on.
    Nothing,
    /// It cannot be taken before something is settled or credit is given. The lease is over; the batch is read again.
    Blocked,
    /// The lease was over already. Whatever was read must be dropped.
    Stale,
    /// It does not follow: what lies between must be skipped, with its reason, or brought first.
    Gap {
        /// What must come next.
        expected: u64,
    },
}

/// Why somebody cannot become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberError {
    /// There are as many as there may be.
    Full,
    /// It is one already.
    Already,
}

/// What has happened to a consumer's records since it was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Handed out, each time counted.
    pub delivered: u64,
    /// Settled by an acknowledgement.
    pub acknowledged: u64,
    /// Settled by a dead letter.
    pub dead: u64,
}
