//! Signed notes (C2SP signed-note, v1.0.0): a text and who vouches for it.
//!
//! ```text
//!   text, one or more lines, each ending in LF      <- the signatures cover this, its last LF included
//!   LF                                              <- the last empty line of the note parts the two
//!   — name base64(u32 key id || signature) LF       <- U+2014, a space; one line for each signature
//! ```
//!
//! A key is known by its name *and* its id, `SHA-256(name || LF || type || public key)[..4]`. Lines of keys that the
//! reader does not know are ignored, whatever their kind: so cosignatures and new algorithms can be added. A line of a
//! known key that does not verify refuses the note: somebody changed it. Only type 0x01, Ed25519, is made and known here.

use std::fmt;

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::base64;
use super::limits::{NOTE_BYTES_MAX, NOTE_NAME_BYTES_MAX, NOTE_SIGNATURES_MAX};
use crate::keys::{self, KeyError, PUBLIC_KEY_LEN, SIGNATURE_LEN};

/// The kind of signature that is made here: Ed25519 over the text.
const ED25519: u8 = 0x01;

/// A key's name: not empty, no white space, no plus sign, no control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoteName(String);

impl NoteName {
    /// Checks a text.
    ///
    /// # Errors
    /// [`NoteError::Name`] when it is no such name or longer than [`NOTE_NAME_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let allowed = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '+';
        if text.is_empty() || text.len() > NOTE_NAME_BYTES_MAX || !text.chars().all(allowed) {
            return Err(NoteError::Name);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What tells keys of one name apart. Four bytes: a hint for whoever verifies, not a proof of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u32);

impl KeyId {
    fn of(name: &NoteName, key: &[u8; PUBLIC_KEY_LEN]) -> Self {
        let hash = Sha256::new()
            .chain_update(name.as_str())
            .chain_update([b'\n', ED25519])
            .chain_update(key)
            .finalize();
        let (id, _) = hash.as_slice().split_first_chunk().expect("a hash has four bytes");
        Self(u32::from_be_bytes(*id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A key whose signatures are believed under one name. Its text form is the *vkey*:
/// `name+hex8(key id)+base64(0x01 || public key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: NoteName,
    id: KeyId,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// The key with these bytes, under this name.
    ///
    /// # Errors
    /// [`KeyError`] when they are not a point of the curve, or a weak one.
    pub fn new(name: NoteName, key: &[u8; PUBLIC_KEY_LEN]) -> Result<Self, KeyError> {
        keys::VerifyingKey::parse(key)?;
        let parsed = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| KeyError::NotAPoint)?;
        Ok(Self { id: KeyId::of(&name, key), name, key: parsed })
    }

    /// Reads a vkey.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] when the text is not one of an Ed25519 key, or its id is not that of its key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        // The name has no plus sign, base64 may have some.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        if key.len() != (1 + PUBLIC_KEY_LEN).div_ceil(3) * 4 {
            return Err(NoteError::VerifierKey);
        }
        let bytes = base64::decode(key).map_err(|_| NoteError::VerifierKey)?;
        let key = match bytes.split_first() {
            Some((&ED25519, key)) => key.try_into().map_err(|_| NoteError::VerifierKey)?,
            _ => return Err(NoteError::VerifierKey),
        };
        let parsed = Self::new(NoteName::parse(name)?, key).map_err(|_| NoteError::VerifierKey)?;
        if parsed.id.to_string() != id {
            return Err(NoteError::VerifierKey);
        }
        Ok(parsed)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &NoteName {
        &self.name
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The Ed25519 key itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        self.key.as_bytes()
    }

    /// Whether a signature line says that it is of this key.
    fn made(&self, line: &SignatureLine) -> bool {
        self.name == line.name && self.id == line.id
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = Vec::with_capacity(1 + PUBLIC_KEY_LEN);
        key.push(ED25519);
        key.extend_from_slice(self.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id, base64::encode(&key))
    }
}

/// A log's private key. It signs nothing but notes: they have no domain label, so a key with any other use would be
/// unsafe here. Wiped when dropped; prints nothing of itself.
#[derive(Clone)]
pub struct LogKey(ed25519_dalek::SigningKey);

impl LogKey {
    /// The key with this 32-byte seed, which must come from the system's random generator.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Its public half, as `trust.toml` has it.
    #[must_use]
    pub fn public(&self) -> [u8; PUBLIC_KEY_LEN] {
        self.0.verifying_key().to_bytes()
    }

    /// This key under a name. One key may have many: each stream's checkpoints are signed under the stream's origin.
    #[must_use]
    pub fn signer(&self, name: NoteName) -> NoteSigner {
        let id = KeyId::of(&name, &self.public());
        NoteSigner { name, id, key: self.clone() }
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(..)")
    }
}

/// A private key and the name under which it signs.
#[derive(Debug, Clone)]
pub struct NoteSigner {
    name: NoteName,
    id: KeyId,
    key: LogKey,
}

impl NoteSigner {
    /// The name under which it signs.
    #[must_use]
    pub const fn name(&self) -> &NoteName {
        &self.name
    }

    /// The key that verifies what it signs.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), id: self.id, key: self.key.0.verifying_key() }
    }

    /// Signs a text.
    ///
    /// # Errors
    /// [`NoteError`] when the text cannot be that of a note: not ending in a newline, with a control character, too
    /// long.
    pub fn sign(&self, text: &str) -> Result<SignedNote, NoteError> {
        check_text(text)?;
        let line = SignatureLine {
            name: self.name.clone(),
            id: self.id,
            signature: self.key.0.sign(text.as_bytes()).to_bytes().to_vec(),
        };
        let note = SignedNote { text: text.to_owned(), signatures: vec![line] };
        // What is signed must be readable by those it is meant for.
        match note.to_string().len() {
            len if len > NOTE_BYTES_MAX => Err(NoteError::TooLong { found: len }),
            _ => Ok(note),
        }
    }
}

/// A note that is well formed. Who signed it, [`SignedNote::open`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<SignatureLine>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine {
    name: NoteName,
    id: KeyId,
    /// Of whatever kind the key is; at least one byte.
    signature: Vec<u8>,
}

impl SignedNote {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`] when the bytes are not a note, or one larger than anybody needs.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { found: bytes.len() });
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Character)?;
        let (before, lines) = note.rsplit_once("\n\n").ok_or(NoteError::NoEmptyLine)?;
        let text = note.get(..=before.len()).ok_or(NoteError::NoEmptyLine)?;
        check_text(text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoFinalNewline)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == NOTE_SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(SignatureLine::parse(line)?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, once a known key has been found to vouch for it.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when a line of a known key does not verify; [`NoteError::NotSigned`] when no line is
    /// of a known key.
    pub fn open(&self, known: &[VerifierKey]) -> Result<&str, NoteError> {
        let mut verified = false;
        for line in &self.signatures {
            for key in known.iter().filter(|key| key.made(line)) {
                if !key.verify(&self.text, &line.signature) {
                    return Err(NoteError::BadSignature { name: key.name.clone() });
                }
                verified = true;
            }
        }
        if verified { Ok(&self.text) } else { Err(NoteError::NotSigned) }
    }

    /// The text, whoever signed it or nobody: for printing, never for believing.
    #[must_use]
    pub fn text_unverified(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl SignatureLine {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let (name, signature) = line
            .strip_prefix("\u{2014} ")
            .and_then(|line| line.split_once(' '))
            .ok_or(NoteError::SignatureLine)?;
        let bytes = base64::decode(signature).map_err(|_| NoteError::SignatureLine)?;
        let (id, signature) = bytes.split_first_chunk().ok_or(NoteError::SignatureLine)?;
        if signature.is_empty() {
            return Err(NoteError::SignatureLine);
        }
        Ok(Self {
            name: NoteName::parse(name)?,
            id: KeyId(u32::from_be_bytes(*id)),
            signature: signature.to_vec(),
        })
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(4 + SIGNATURE_LEN);
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        write!(f, "\u{2014} {} {}", self.name, base64::encode(&bytes))
    }
}

/// Why something is not a note, or not one that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteError {
    /// The note is longer than [`NOTE_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// It has more signature lines than [`NOTE_SIGNATURES_MAX`].
    TooManySignatures,
    /// It is not UTF-8, or has a control character other than the newline.
    Character,
    /// No empty line parts the text from the signatures.
    NoEmptyLine,
    /// The text or the note does not end in a newline.
    NoFinalNewline,
    /// A line below the text is not a signature line.
    SignatureLine,
    /// A key's name is empty, too long, or has white space, a plus sign or a control character.
    Name,
    /// A text is not a vkey.
    VerifierKey,
    /// A line of a known key does not verify.
    BadSignature {
        /// The key's name.
        name: NoteName,
    },
    /// No line is of a known key.
    NotSigned,
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { found } => {
                write!(f, "the note has {found} bytes, the limit is {NOTE_BYTES_MAX}")
            }
            Self::TooManySignatures => {
                write!(f, "the note has more than {NOTE_SIGNATURES_MAX} signatures")
            }
            Self::Character => f.write_str("the note has a character that no note may have"),
            Self::NoEmptyLine => f.write_str("no empty line parts the note's text from its signatures"),
            Self::NoFinalNewline => f.write_str("the note does not end in a newline"),
            Self::SignatureLine => f.write_str("a line below the note's text is not a signature"),
            Self::Name => {
                f.write_str("a key's name is empty, too long, or has a character that no name may have")
            }
            Self::VerifierKey => f.write_str("the text is not the vkey of an Ed25519 key"),
            Self::BadSignature { name } => write!(f, "the note's signature of {name} does not verify"),
            Self::NotSigned => f.write_str("the note is not signed by any key that is known here"),
        }
    }
}

impl std::error::Error for NoteError {}

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.chars().any(|letter| letter < ' ' && letter != '\n') {
        return Err(NoteError::Character);
    }
    if !text.ends_with('\n') {
        return Err(NoteError::NoFinalNewline);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer(seed: u8, name: &str) -> NoteSigner {
        LogKey::from_seed(&Zeroizing::new([seed; 32])).signer(NoteName::parse(name).unwrap())
    }

    /// A note that carries the signatures of several.
    fn signed_by(text: &str, signers: &[&NoteSigner]) -> SignedNote {
        let mut notes = signers.iter().map(|signer| signer.sign(text).unwrap());
        let mut note = notes.next().unwrap();
        notes.for_each(|other| note.signatures.extend(other.signatures));
        note
    }

    #[test]
    fn a_note_round_trips_and_opens_for_whoever_knows_one_of_its_keys() {
        let (ours, theirs) = (signer(1, "log.example"), signer(2, "witness.example"));
        let note = signed_by("text\n\nwith an empty line\n", &[&ours, &theirs]);
        let read = SignedNote::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(read, note);
        for known in
            [vec![ours.verifier()], vec![theirs.verifier()], vec![theirs.verifier(), ours.verifier()]]
        {
            assert_eq!(read.open(&known), Ok("text\n\nwith an empty line\n"));
        }
        assert_eq!(read.open(&[signer(3, "log.example").verifier()]), Err(NoteError::NotSigned));
        assert_eq!(read.open(&[signer(1, "other.example").verifier()]), Err(NoteError::NotSigned));
        assert_eq!(read.open(&[]), Err(NoteError::NotSigned));
    }

    #[test]
    fn one_bad_signature_of_a_known_key_refuses_the_note() {
        let (ours, theirs) = (signer(1, "log.example"), signer(2, "witness.example"));
        let mut note = signed_by("text\n", &[&ours, &theirs]);
        note.signatures[1].signature[5] ^= 1;
        let bad = NoteError::BadSignature { name: theirs.name().clone() };
        assert_eq!(note.open(&[ours.verifier(), theirs.verifier()]), Err(bad));
        assert_eq!(note.open(&[ours.verifier()]), Ok("text\n"));
        // A second line of a known key counts as the first does.
        let mut twice = signed_by("text\n", &[&ours, &ours]);
        assert!(twice.open(&[ours.verifier()]).is_ok());
        twice.signatures[1].signature.truncate(63);
        assert!(twice.open(&[ours.verifier()]).is_err());
    }

    #[test]
    fn every_truncation_and_every_other_byte_is_refused() {
        let ours = signer(1, "log.example");
        let bytes = ours.sign("two\nlines\n").unwrap().to_string().into_bytes();
        let open = |bytes: &[u8]| SignedNote::parse(bytes)?.open(&[ours.verifier()]).map(str::to_owned);
        assert!(open(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&other).is_err(), "bit {bit}");
        }
        for extra in ["\n", " ", "x", "\u{2014} a b"] {
            assert!(open(&[&bytes, extra.as_bytes()].concat()).is_err(), "{extra:?}");
        }
    }

    #[test]
    fn limits_are_kept() {
        let ours = signer(1, "log.example");
        let many = signed_by("text\n", &[&ours; NOTE_SIGNATURES_MAX]);
        assert!(SignedNote::parse(many.to_string().as_bytes()).is_ok());
        let more = signed_by("text\n", &[&ours; NOTE_SIGNATURES_MAX + 1]);
        assert_eq!(SignedNote::parse(more.to_string().as_bytes()), Err(NoteError::TooManySignatures));
        let long = "x".repeat(NOTE_BYTES_MAX) + "\n";
        assert!(matches!(ours.sign(&long), Err(NoteError::TooLong { .. })));
        assert!(matches!(SignedNote::parse(long.as_bytes()), Err(NoteError::TooLong { .. })));
        assert_eq!(ours.sign("no newline"), Err(NoteError::NoFinalNewline));
        assert_eq!(ours.sign("bell\u{7}\n"), Err(NoteError::Character));
        assert_eq!(ours.sign(""), Err(NoteError::NoFinalNewline));
    }

    #[test]
    fn names_that_would_break_a_line_or_a_vkey_are_refused() {
        let long = "n".repeat(NOTE_NAME_BYTES_MAX + 1);
        for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{2003}b", "a\u{0}", "a\u{85}b", &long] {
            assert_eq!(NoteName::parse(name), Err(NoteError::Name), "{name:?}");
        }
        for name in ["a", "log.example/audit", "größe", &long[1..]] {
            assert_eq!(NoteName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_vkey_round_trips_and_no_other_text_is_taken() {
        let key = signer(1, "log.example").verifier();
        let text = key.to_string();
        assert_eq!(VerifierKey::parse(&text), Ok(key));
        for len in 0..text.len() {
            assert!(VerifierKey::parse(&text[..len]).is_err(), "{len} bytes");
        }
        for place in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[place] ^= 1;
            assert!(VerifierKey::parse(&String::from_utf8(other).unwrap()).is_err(), "byte {place}");
        }
        assert!(VerifierKey::parse(&(text.clone() + "=")).is_err());
        assert!(VerifierKey::parse(&text.to_uppercase()).is_err());
        let weak = VerifierKey::new(NoteName::parse("log").unwrap(), &[0; 32]);
        assert_eq!(weak, Err(KeyError::Weak));
    }

    #[test]
    fn a_private_key_prints_nothing() {
        let printed = format!("{:?}", signer(7, "log.example"));
        assert!(printed.contains("LogKey(..)") && !printed.contains("7, 7"), "{printed}");
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(note) = SignedNote::parse(&bytes) {
                prop_assert_eq!(note.to_string().into_bytes(), bytes);
            }
        }

        #[test]
        fn whatever_parses_prints_as_it_was_near_the_format(
            note in "[a\n]{0,4}\n\n(\u{2014} [ab+ ]{1,2} [A-D=]{4,12}\n){0,3}",
        ) {
            if let Ok(parsed) = SignedNote::parse(note.as_bytes()) {
                prop_assert_eq!(parsed.to_string(), note);
            }
        }
    }
}
