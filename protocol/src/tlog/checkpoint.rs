//! Checkpoints (C2SP tlog-checkpoint, v1.0.0): how many leaves a log has and what their root is, as a note's text.
//!
//! ```text
//!   origin LF
//!   size, decimal LF
//!   base64(root) LF
//! ```
//!
//! The format allows more lines; we neither write nor accept any, so that a checkpoint says nothing that we do not read.

use std::fmt;

use super::base64;
use super::limits::TREE_SIZE_MAX;
use super::note::{NoteError, NoteName, NoteSigner, SignedNote, VerifierKey};
use super::tree::Hash;
use crate::ids::{BusId, StreamId};

/// Base64 letters of a root.
const ROOT_LETTERS: usize = Hash::LEN.div_ceil(3) * 4;

/// The state of a log: which one, how many leaves, and their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: NoteName,
    size: u64,
    root: Hash,
}

impl Checkpoint {
    /// The checkpoint of a log.
    ///
    /// # Errors
    /// [`CheckpointError`] when no tree has this size, or the empty one has another root.
    pub fn new(origin: NoteName, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        if size > TREE_SIZE_MAX {
            return Err(CheckpointError::Size);
        }
        if size == 0 && root != Hash::empty_root() {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Self { origin, size, root })
    }

    /// Reads a checkpoint's text: what a signature covers, not the note around it. It vouches for nothing by itself.
    ///
    /// # Errors
    /// [`CheckpointError`] when the text is not exactly a checkpoint's.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        let origin = NoteName::parse(origin).map_err(|_| CheckpointError::Origin)?;
        let size = parse_decimal(size).ok_or(CheckpointError::Size)?;
        let root = parse_hash(root).ok_or(CheckpointError::Root)?;
        Self::new(origin, size, root)
    }

    /// Reads a signed checkpoint, and believes it only when `key` signed it under the name that is its origin. Lines of
    /// other keys do not count.
    ///
    /// # Errors
    /// [`CheckpointError`] when the note or its text is malformed, not signed by the key, or of another log.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = SignedNote::parse(note).map_err(CheckpointError::Note)?;
        let text = note.open(std::slice::from_ref(key)).map_err(CheckpointError::Note)?;
        let checkpoint = Self::parse(text)?;
        if checkpoint.origin != *key.name() {
            return Err(CheckpointError::OtherLog { found: checkpoint.origin });
        }
        Ok(checkpoint)
    }

    /// Signs it. The signer's name is the log's: it signs no other log's checkpoints.
    ///
    /// # Errors
    /// [`CheckpointError::OtherLog`] when the signer's name is not the origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, CheckpointError> {
        if self.origin != *signer.name() {
            return Err(CheckpointError::OtherLog { found: self.origin.clone() });
        }
        signer.sign(&self.to_string()).map_err(CheckpointError::Note)
    }

    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &NoteName {
        &self.origin
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Their root.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, base64::encode(self.root.as_bytes()))
    }
}

/// The origin of a stream's checkpoints, which is the name of the key that signs them: `<bus id>/stream/<stream id>`.
#[must_use]
pub fn stream_origin(bus_id: &BusId, stream_id: &StreamId) -> NoteName {
    NoteName::parse(&format!("{bus_id}/stream/{stream_id}")).expect("hex digits and slashes make a name")
}

/// Why something is not a checkpoint that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointError {
    /// The note around it is malformed or not signed as it must be.
    Note(NoteError),
    /// It does not have exactly three lines.
    Lines,
    /// Its origin is no name that a key can have.
    Origin,
    /// Its size is not a plain decimal number, or larger than any tree's.
    Size,
    /// Its root is not the base64 of 32 bytes.
    Root,
    /// It has no leaves, and a root that is not the empty tree's.
    EmptyRoot,
    /// It is of another log than the key's.
    OtherLog {
        /// Its origin.
        found: NoteName,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(error) => write!(f, "the checkpoint is refused: {error}"),
            Self::Lines => {
                f.write_str("the checkpoint does not have the three lines of origin, size and root")
            }
            Self::Origin => f.write_str("the checkpoint's origin is no name that a key can have"),
            Self::Size => {
                f.write_str("the checkpoint's size is not a plain decimal number within a tree's size")
            }
            Self::Root => f.write_str("the checkpoint's root is not the base64 of 32 bytes"),
            Self::EmptyRoot => {
                f.write_str("the checkpoint has no leaves and yet another root than the empty tree")
            }
            Self::OtherLog { found } => write!(f, "the checkpoint is of another log, {found}"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Note(error) => Some(error),
            Self::Lines
            | Self::Origin
            | Self::Size
            | Self::Root
            | Self::EmptyRoot
            | Self::OtherLog { .. } => None,
        }
    }
}

/// A number as checkpoints and proofs spell it: decimal digits, no sign, no leading zero.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A hash as checkpoints and proofs spell it.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() != ROOT_LETTERS {
        return None;
    }
    Some(Hash::new(base64::decode(text).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::note::LogKey;
    use crate::tlog::tree::leaf_hash;
    use zeroize::Zeroizing;

    fn origin() -> NoteName {
        stream_origin(&BusId::new([0xb5; 16]), &StreamId::new([0x57; 16]))
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint::new(origin(), size, leaf_hash(b"root")).unwrap()
    }

    fn log_key() -> LogKey {
        LogKey::from_seed(&Zeroizing::new([3; 32]))
    }

    #[test]
    fn a_stream_has_its_own_origin() {
        assert_eq!(
            origin().as_str(),
            "b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5/stream/57575757575757575757575757575757"
        );
    }

    #[test]
    fn a_signed_checkpoint_opens_under_its_own_origin_only() {
        let signer = log_key().signer(origin());
        let note = checkpoint(7).sign(&signer).unwrap().to_string();
        assert_eq!(Checkpoint::open(note.as_bytes(), &signer.verifier()), Ok(checkpoint(7)));
        let other = stream_origin(&BusId::new([0xb5; 16]), &StreamId::new([0x58; 16]));
        let other_signer = log_key().signer(other);
        assert_eq!(
            Checkpoint::open(note.as_bytes(), &other_signer.verifier()),
            Err(CheckpointError::Note(NoteError::NotSigned))
        );
        assert!(matches!(checkpoint(7).sign(&other_signer), Err(CheckpointError::OtherLog { .. })));
        // The other stream's key signed this stream's text, as a careless log might.
        let crossed = other_signer.sign(&checkpoint(7).to_string()).unwrap().to_string();
        assert_eq!(
            Checkpoint::open(crossed.as_bytes(), &other_signer.verifier()),
            Err(CheckpointError::OtherLog { found: origin() })
        );
    }

    #[test]
    fn any_other_bit_is_refused() {
        let signer = log_key().signer(origin());
        let note = checkpoint(7).sign(&signer).unwrap().to_string().into_bytes();
        for bit in 0..note.len() * 8 {
            let mut other = note.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::open(&other, &signer.verifier()).is_err(), "bit {bit}");
        }
        for len in 0..note.len() {
            assert!(Checkpoint::open(&note[..len], &signer.verifier()).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn sizes_are_plain_numbers_up_to_the_largest_tree() {
        for size in [1, 10, u64::from(u32::MAX), TREE_SIZE_MAX - 1, TREE_SIZE_MAX] {
            assert_eq!(Checkpoint::parse(&checkpoint(size).to_string()), Ok(checkpoint(size)));
        }
        let text = checkpoint(7).to_string();
        for size in ["", "07", "+7", "-7", "7 ", "0x7", "9223372036854775809", "18446744073709551616", "٧"] {
            let other = text.replace("\n7\n", &format!("\n{size}\n"));
            assert_eq!(Checkpoint::parse(&other), Err(CheckpointError::Size), "{size:?}");
        }
    }

    #[test]
    fn the_empty_tree_has_one_root() {
        assert_eq!(Checkpoint::new(origin(), 0, leaf_hash(b"")), Err(CheckpointError::EmptyRoot));
        let empty = Checkpoint::new(origin(), 0, Hash::empty_root()).unwrap();
        assert_eq!(Checkpoint::parse(&empty.to_string()), Ok(empty));
    }

    #[test]
    fn more_lines_are_refused() {
        let text = checkpoint(7).to_string();
        for extension in ["extension\n", "\n", " \n"] {
            assert_eq!(Checkpoint::parse(&(text.clone() + extension)), Err(CheckpointError::Lines));
        }
    }
}
