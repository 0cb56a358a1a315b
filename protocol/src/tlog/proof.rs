//! One leaf's proof as a text that can be handed to anybody (C2SP tlog-proof, v1): the place, the path, the checkpoint.
//!
//! ```text
//!   c2sp.org/tlog-proof@v1 LF
//!   extra base64 LF               <- may be missing: whatever the application adds; we add nothing
//!   index 4 LF
//!   base64(hash) LF               <- one line for each sibling, from the leaf to the root
//!   LF
//!   the signed checkpoint, as it is
//! ```

use std::fmt;

use super::base64;
use super::checkpoint::{Checkpoint, CheckpointError, parse_decimal, parse_hash};
use super::limits::{INCLUSION_HASHES_MAX, PROOF_BYTES_MAX, PROOF_EXTRA_BYTES_MAX};
use super::note::{NoteError, SignedNote, VerifierKey};
use super::path::{VerifyError, verify_inclusion};
use super::tree::Hash;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The proof that a log has a leaf. Well formed; whether it holds, [`TlogProof::verify`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Hash>,
    checkpoint: SignedNote,
}

impl TlogProof {
    /// The proof of the leaf `index` by its path to the root of a signed checkpoint.
    ///
    /// # Errors
    /// [`ProofError::Path`] when the path is longer than that of any tree.
    pub fn new(index: u64, path: Vec<Hash>, checkpoint: SignedNote) -> Result<Self, ProofError> {
        if path.len() > INCLUSION_HASHES_MAX {
            return Err(ProofError::Path);
        }
        Ok(Self { extra: None, index, path, checkpoint })
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofError`] when the bytes are not one.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProofError::TooLong { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ProofError::Utf8)?;
        // The first empty line, since the note behind it has one too.
        let (head, note) = text.split_once("\n\n").ok_or(ProofError::Lines)?;
        let checkpoint = SignedNote::parse(note.as_bytes()).map_err(ProofError::Note)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(ProofError::Header);
        }
        let mut line = lines.next().ok_or(ProofError::Lines)?;
        let mut extra = None;
        if let Some(text) = line.strip_prefix("extra ") {
            extra = Some(parse_extra(text)?);
            line = lines.next().ok_or(ProofError::Lines)?;
        }
        let index = line.strip_prefix("index ").and_then(parse_decimal).ok_or(ProofError::Index)?;
        let mut path = Vec::new();
        for line in lines {
            if path.len() == INCLUSION_HASHES_MAX {
                return Err(ProofError::Path);
            }
            path.push(parse_hash(line).ok_or(ProofError::Path)?);
        }
        Ok(Self { extra, index, path, checkpoint })
    }

    /// Verifies that the log of `key` has this leaf at the proof's place, and says in which state of the log.
    ///
    /// # Errors
    /// [`ProofError`] when the checkpoint is not the log's, or the path does not lead from the leaf to its root.
    pub fn verify(&self, leaf: &Hash, key: &VerifierKey) -> Result<Checkpoint, ProofError> {
        let note = self.checkpoint.to_string();
        let checkpoint = Checkpoint::open(note.as_bytes(), key).map_err(ProofError::Checkpoint)?;
        verify_inclusion(self.index, checkpoint.size(), leaf, checkpoint.root(), &self.path)
            .map_err(ProofError::Verify)?;
        Ok(checkpoint)
    }

    /// The leaf's place.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The siblings from the leaf to the root.
    #[must_use]
    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    /// The signed checkpoint, not verified.
    #[must_use]
    pub const fn checkpoint_unverified(&self) -> &SignedNote {
        &self.checkpoint
    }

    /// What an application added. No signature covers it.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", base64::encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", base64::encode(hash.as_bytes())))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why something is not a proof, or does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofError {
    /// It is longer than [`PROOF_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// It is not UTF-8.
    Utf8,
    /// Its first line is not that of a proof of this version.
    Header,
    /// Lines are missing.
    Lines,
    /// What the application added is not base64, or too much.
    Extra,
    /// Its place is not a plain decimal number.
    Index,
    /// A line of its path is not a hash, or there are more than any tree has levels.
    Path,
    /// Its checkpoint is not a note.
    Note(NoteError),
    /// Its checkpoint is not the log's.
    Checkpoint(CheckpointError),
    /// Its path does not lead from the leaf to the root.
    Verify(VerifyError),
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { found } => {
                write!(f, "the proof has {found} bytes, the limit is {PROOF_BYTES_MAX}")
            }
            Self::Utf8 => f.write_str("the proof is not UTF-8"),
            Self::Header => write!(f, "the proof does not begin with the line {HEADER}"),
            Self::Lines => f.write_str("lines of the proof are missing"),
            Self::Extra => {
                write!(f, "the proof's extra is not base64 of at most {PROOF_EXTRA_BYTES_MAX} bytes")
            }
            Self::Index => f.write_str("the proof's index is not a plain decimal number"),
            Self::Path => write!(f, "the proof's path is not made of at most {INCLUSION_HASHES_MAX} hashes"),
            Self::Note(error) => write!(f, "the proof's checkpoint is malformed: {error}"),
            Self::Checkpoint(error) => write!(f, "the proof is refused: {error}"),
            Self::Verify(error) => write!(f, "the proof does not hold: {error}"),
        }
    }
}

impl std::error::Error for ProofError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Note(error) => Some(error),
            Self::Checkpoint(error) => Some(error),
            Self::Verify(error) => Some(error),
            Self::TooLong { .. }
            | Self::Utf8
            | Self::Header
            | Self::Lines
            | Self::Extra
            | Self::Index
            | Self::Path => None,
        }
    }
}

fn parse_extra(text: &str) -> Result<Vec<u8>, ProofError> {
    let bytes = base64::decode(text).map_err(|_| ProofError::Extra)?;
    if bytes.len() > PROOF_EXTRA_BYTES_MAX {
        return Err(ProofError::Extra);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::note::{LogKey, NoteName};
    use crate::tlog::tree::{leaf_hash, node_hash};
    use zeroize::Zeroizing;

    fn leaves() -> [Hash; 2] {
        [leaf_hash(b"first"), leaf_hash(b"second")]
    }

    fn proof() -> (TlogProof, VerifierKey) {
        let name = NoteName::parse("log.example").unwrap();
        let signer = LogKey::from_seed(&Zeroizing::new([5; 32])).signer(name.clone());
        let [first, second] = leaves();
        let checkpoint = Checkpoint::new(name, 2, node_hash(&first, &second)).unwrap();
        let note = checkpoint.sign(&signer).unwrap();
        (TlogProof::new(1, vec![first], note).unwrap(), signer.verifier())
    }

    #[test]
    fn a_proof_round_trips_and_holds_for_its_leaf() {
        let (proof, key) = proof();
        let text = proof.to_string();
        assert_eq!(TlogProof::parse(text.as_bytes()).as_ref(), Ok(&proof));
        let [first, second] = leaves();
        assert_eq!(proof.verify(&second, &key).map(|checkpoint| checkpoint.size()), Ok(2));
        assert_eq!(proof.verify(&first, &key), Err(ProofError::Verify(VerifyError::Root)));
        let with_extra = text.replacen("index", "extra Zm9v\nindex", 1);
        let read = TlogProof::parse(with_extra.as_bytes()).unwrap();
        assert_eq!(read.extra(), Some(&b"foo"[..]));
        assert_eq!(read.to_string(), with_extra);
        assert!(read.verify(&second, &key).is_ok());
    }

    #[test]
    fn any_other_byte_is_refused() {
        let (proof, key) = proof();
        let [_, second] = leaves();
        let bytes = proof.to_string().into_bytes();
        let verify = |bytes: &[u8]| TlogProof::parse(bytes)?.verify(&second, &key);
        assert!(verify(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&other).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(verify(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(verify(&[&bytes, &b"\n"[..]].concat()).is_err());
    }

    #[test]
    fn malformed_proofs_are_named() {
        let (proof, _) = proof();
        let text = proof.to_string();
        let hash = base64::encode(leaves()[0].as_bytes());
        let path = format!("{hash}\n").repeat(INCLUSION_HASHES_MAX);
        for (other, error) in [
            (text.replace("@v1", "@v2"), ProofError::Header),
            (text.replace("index 1", "index 01"), ProofError::Index),
            (text.replace("index 1", "index -1"), ProofError::Index),
            (text.replace("index 1", "index"), ProofError::Index),
            (text.replace("index 1\n", ""), ProofError::Index),
            (text.replace("index", "extra !\nindex"), ProofError::Extra),
            (text.replace("index", "extra \nextra \nindex"), ProofError::Index),
            (text.replacen(&hash, &hash[4..], 1), ProofError::Path),
            (text.replacen(&hash, &(path + &hash), 1), ProofError::Path),
            (text.replacen("\n\n", "\n", 1), ProofError::Note(NoteError::NoEmptyLine)),
            ("c2sp.org/tlog-proof@v1\n\n".to_owned(), ProofError::Note(NoteError::NoEmptyLine)),
            (" ".repeat(PROOF_BYTES_MAX + 1), ProofError::TooLong { found: PROOF_BYTES_MAX + 1 }),
        ] {
            assert_eq!(TlogProof::parse(other.as_bytes()), Err(error), "{other:.80}");
        }
        assert_eq!(
            TlogProof::new(0, vec![leaves()[0]; INCLUSION_HASHES_MAX + 1], proof.checkpoint),
            Err(ProofError::Path)
        );
    }
}
