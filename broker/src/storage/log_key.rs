//! The key that signs checkpoints, read from its file.
//!
//! ```text
//!   PRIVATE+KEY+name+hex8+base64(01 seed)      hex8: the first four bytes of SHA-256(name 0a 01 public key)
//! ```
//!
//! The form is the one of Go's signed notes. A file that others may read is refused: whoever has the key can rewrite
//! history and sign it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sealbus_protocol::tlog::{LogKey, NoteName, base64};
use zeroize::{Zeroize as _, Zeroizing};

use crate::vfs::Vfs;

/// Bytes of a key file. One has about a hundred.
const FILE_BYTES_MAX: u64 = 4_096;

/// The type byte of Ed25519.
const ED25519: u8 = 1;

/// Reads the key.
///
/// # Errors
/// [`LogKeyError`] names the file and what is wrong with it, and never what is in it.
pub fn load(vfs: &dyn Vfs, path: &Path) -> Result<LogKey, LogKeyError> {
    let refuse = |fault| LogKeyError { path: path.to_owned(), fault };
    let mode = vfs.mode(path).map_err(|error| refuse(Fault::Read(error)))?;
    if mode & 0o077 != 0 {
        return Err(refuse(Fault::Readable { mode }));
    }
    let bytes = Zeroizing::new(vfs.read(path, FILE_BYTES_MAX).map_err(|error| refuse(Fault::Read(error)))?);
    parse(&bytes).ok_or_else(|| refuse(Fault::Form))
}

fn parse(bytes: &[u8]) -> Option<LogKey> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    // Neither a name nor a key id has a plus sign in it; the base64 at the end may.
    let mut parts = text.strip_prefix("PRIVATE+KEY+")?.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let mut typed = base64::decode(key).ok()?;
    let seed = match typed.split_first() {
        Some((&ED25519, seed)) => <[u8; 32]>::try_from(seed).ok().map(Zeroizing::new),
        Some(_) | None => None,
    };
    typed.zeroize();
    let key = LogKey::from_seed(&seed?);
    let verifier = key.signer(NoteName::parse(name).ok()?).verifier();
    (verifier.id().to_string() == id).then_some(key)
}

/// Why there is no key.
#[derive(Debug)]
pub struct LogKeyError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Readable { mode: u32 },
    Form,
}

impl fmt::Display for LogKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log key {}: ", self.path.display())?;
        match &self.fault {
            Fault::Read(error) => write!(f, "cannot be read: {error}"),
            Fault::Readable { mode } => {
                write!(f, "its mode is {mode:03o}, and nobody but its owner may read it: chmod 600")
            }
            Fault::Form => f.write_str(
                "it is not a line PRIVATE+KEY+name+id+key of an Ed25519 key, as `sealbus init` makes it",
            ),
        }
    }
}

impl std::error::Error for LogKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Read(error) => Some(error),
            Fault::Readable { .. } | Fault::Form => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::vfs::OsVfs;

    const LINE: &str =
        "PRIVATE+KEY+broker.example/audit+ba46f2a9+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n";

    fn load_text(text: &str, mode: u32) -> Result<LogKey, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        load(&OsVfs, &path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_file_gives_its_key() {
        let key = load_text(LINE, 0o600).unwrap();
        assert_eq!(base64::encode(&key.public()), "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
    }

    #[test]
    fn what_others_may_read_or_is_no_key_is_refused_without_being_shown() {
        assert!(load_text(LINE, 0o640).unwrap_err().contains("its mode is 640"));
        for text in [
            "",
            "PRIVATE+KEY+",
            &LINE.replace("ba46f2a9", "ba46f2a8"),
            &LINE.replace("AQAB", "AgAB"),
            &LINE[..60],
        ] {
            let error = load_text(text, 0o600).unwrap_err();
            assert!(error.contains("is not a line") && !error.contains("AQABAg"), "{error}");
        }
        assert!(load(&OsVfs, Path::new("no/such/log.key")).is_err());
    }
}
