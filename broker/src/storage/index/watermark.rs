//! How far the index has followed a log, and whether it was this log.

use std::fmt;

/// What the index has followed of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Records that were followed: the number of the first one that was not.
    pub end_record: u64,
    /// The offset at which that one begins.
    pub end_offset: u64,
    /// The digest of the last record that was followed, as its log computes it; zero when there is none.
    pub digest: [u8; 32],
}

/// Where a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The number of the next record.
    pub record: u64,
    /// The offset of the next item.
    pub offset: u64,
}

/// What the index is worth for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has followed this log: go on with this record.
    Follow {
        /// The first that it does not know.
        from_record: u64,
    },
    /// It has followed something else: clear what it has of this log, and follow it from its beginning.
    Rebuild {
        /// How that shows.
        why: Disagreement,
    },
}

/// Why the index cannot have followed a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disagreement {
    /// The index has followed more records than the log has.
    Ahead {
        /// Records that the index has followed.
        index: u64,
        /// Records of the log.
        log: u64,
    },
    /// The last record that it followed is another in the log.
    OtherRecord {
        /// Its number.
        record: u64,
    },
    /// The log does not know any more what that record was.
    UnknownRecord {
        /// Its number.
        record: u64,
    },
    /// Both end at one record, at different offsets.
    OtherOffset {
        /// Where the index has it.
        index: u64,
        /// Where the log ends.
        log: u64,
    },
}

impl Watermark {
    /// Judges the kept watermark against the log as it was recovered. `digest_of` gives the digest of one record of the
    /// log.
    pub fn judge(
        kept: Option<&Self>,
        end: LogEnd,
        digest_of: impl FnOnce(u64) -> Option<[u8; 32]>,
    ) -> Standing {
        let Some(kept) = kept else { return Standing::Follow { from_record: 0 } };
        let rebuild = |why| Standing::Rebuild { why };
        if kept.end_record > end.record {
            return rebuild(Disagreement::Ahead { index: kept.end_record, log: end.record });
        }
        if kept.end_record == end.record && kept.end_offset != end.offset {
            return rebuild(Disagreement::OtherOffset { index: kept.end_offset, log: end.offset });
        }
        if let Some(record) = kept.end_record.checked_sub(1) {
            match digest_of(record) {
                Some(digest) if digest == kept.digest => {}
                Some(_) => return rebuild(Disagreement::OtherRecord { record }),
                None => return rebuild(Disagreement::UnknownRecord { record }),
            }
        }
        Standing::Follow { from_record: kept.end_record }
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead { index, log } => {
                write!(f, "the index has followed {index} records, the log has {log}")
            }
            Self::OtherRecord { record } => {
                write!(f, "record {record} is another than the index has followed")
            }
            Self::UnknownRecord { record } => {
                write!(f, "the log does not know record {record}, up to which the index has followed it")
            }
            Self::OtherOffset { index, log } => {
                write!(f, "the index ends at offset {index}, the log at {log}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Watermark = Watermark { end_record: 5, end_offset: 50, digest: [4; 32] };

    fn judge(end: (u64, u64), digest: Option<[u8; 32]>) -> Standing {
        Watermark::judge(Some(&KEPT), LogEnd { record: end.0, offset: end.1 }, |record| {
            assert_eq!(record, 4);
            digest
        })
    }

    #[test]
    fn only_the_log_that_was_followed_is_followed_further() {
        let follow = Standing::Follow { from_record: 5 };
        let rebuild = |why| Standing::Rebuild { why };
        assert_eq!(judge((5, 50), Some([4; 32])), follow);
        assert_eq!(judge((9, 70), Some([4; 32])), follow);
        assert_eq!(judge((9, 70), Some([5; 32])), rebuild(Disagreement::OtherRecord { record: 4 }));
        assert_eq!(judge((9, 70), None), rebuild(Disagreement::UnknownRecord { record: 4 }));
        assert_eq!(judge((4, 40), None), rebuild(Disagreement::Ahead { index: 5, log: 4 }));
        assert_eq!(judge((5, 51), Some([4; 32])), rebuild(Disagreement::OtherOffset { index: 50, log: 51 }));
    }

    #[test]
    fn a_log_that_is_not_known_is_followed_from_its_beginning() {
        let end = LogEnd { record: 9, offset: 90 };
        assert_eq!(Watermark::judge(None, end, |_| None), Standing::Follow { from_record: 0 });
        let empty = Watermark { end_record: 0, end_offset: 0, digest: [0; 32] };
        assert_eq!(Watermark::judge(Some(&empty), end, |_| None), Standing::Follow { from_record: 0 });
    }
}
