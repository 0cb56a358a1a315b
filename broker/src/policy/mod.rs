//! The policy in force: read from its file, checked by its own tests, counted by generation.
//!
//! A file that is missing, empty, unreadable or wrong is an error, and the caller keeps what it has: no fault of a
//! file ever means "allow" (FAILURES T26, T27). Nor does a slip of the pen: a rule for a place or a trust domain that
//! no listener has (`served`) would never speak, and the one that was meant to forbid would allow.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::ids::PolicyHash;
use sealbus_protocol::limits::POLICY_BYTES_MAX;
use sealbus_protocol::policy::{CompiledPolicy, DocumentError, Name, Policy, PolicyError};
use sha2::{Digest, Sha256};

use crate::config::{Config, ListenerConfig};
use crate::vfs::Vfs;

mod served;

pub use served::{NotServed, Unserved};

/// A policy that decides, and what peers are told about it.
#[derive(Debug)]
pub struct PolicyInForce {
    /// Counts the policies of this broker's life, from 1.
    pub generation: u64,
    /// SHA-256 of the document.
    pub hash: PolicyHash,
    /// The rules, ready for decisions.
    pub compiled: CompiledPolicy,
    /// The document that they were read from.
    pub document: Arc<[u8]>,
}

/// Reads the policy of a configuration, as [`load`] does, and sees that its streams can be kept.
///
/// # Errors
/// [`PolicyLoadError`] names the file and, where there is one, the line and column.
pub fn load_for(
    vfs: &dyn Vfs,
    config: &Config,
    generation: u64,
    now_ms: u64,
) -> Result<PolicyInForce, PolicyLoadError> {
    let loaded = load(vfs, &config.policy, &config.listeners, generation, now_ms)?;
    match (loaded.compiled.streams().first(), &config.storage.log_key) {
        (Some(stream), None) => {
            let fault = PolicyFault::NoLogKey { stream: stream.name().clone() };
            Err(PolicyLoadError { path: config.policy.clone(), fault })
        }
        (Some(_), Some(_)) | (None, _) => Ok(loaded),
    }
}

/// Reads a policy for these listeners from its file and runs its tests, those without a time of their own at `now_ms`.
///
/// # Errors
/// [`PolicyLoadError`] names the file and, where there is one, the line and column.
pub fn load(
    vfs: &dyn Vfs,
    path: &Path,
    listeners: &[ListenerConfig],
    generation: u64,
    now_ms: u64,
) -> Result<PolicyInForce, PolicyLoadError> {
    let refuse = |fault| PolicyLoadError { path: path.to_owned(), fault };
    let bytes = vfs.read(path, POLICY_BYTES_MAX as u64).map_err(|error| refuse(PolicyFault::Read(error)))?;
    parse(&bytes, listeners, generation, now_ms).map_err(refuse)
}

fn parse(
    bytes: &[u8],
    listeners: &[ListenerConfig],
    generation: u64,
    now_ms: u64,
) -> Result<PolicyInForce, PolicyFault> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| PolicyFault::NotUtf8 { at: error.valid_up_to() })?;
    if text.trim().is_empty() {
        return Err(PolicyFault::Empty);
    }
    let policy = Policy::parse(text).map_err(PolicyFault::Document)?;
    served::check(&policy, listeners).map_err(PolicyFault::NotServed)?;
    let compiled = CompiledPolicy::compile(policy, now_ms).map_err(PolicyFault::Policy)?;
    Ok(PolicyInForce {
        generation,
        hash: PolicyHash::new(Sha256::digest(bytes).into()),
        compiled,
        document: bytes.into(),
    })
}

/// Why a file is not a policy that could be in force.
#[derive(Debug)]
pub struct PolicyLoadError {
    path: PathBuf,
    fault: PolicyFault,
}

impl PolicyLoadError {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn fault(&self) -> &PolicyFault {
        &self.fault
    }
}

/// What is wrong with a policy file.
#[derive(Debug)]
pub enum PolicyFault {
    /// It cannot be read.
    Read(io::Error),
    /// It holds nothing.
    Empty,
    /// It is not UTF-8 from this byte on.
    NotUtf8 {
        /// The byte's offset.
        at: usize,
    },
    /// It is not a policy document; the error has line and column.
    Document(DocumentError),
    /// It is one that speaks of what no listener of the broker serves.
    NotServed(NotServed),
    /// It is one that contradicts its own tests.
    Policy(PolicyError),
    /// It has streams, and the configuration names no key that could sign their checkpoints.
    NoLogKey {
        /// The first of them.
        stream: Name,
    },
}

impl fmt::Display for PolicyLoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}: {}", self.path.display(), self.fault)
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Empty => f.write_str("the file is empty, and an empty policy is refused"),
            Self::NotUtf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::Document(error) => error.fmt(f),
            Self::NotServed(error) => error.fmt(f),
            Self::Policy(error) => error.fmt(f),
            Self::NoLogKey { stream } => write!(
                f,
                "it has the stream \"{stream}\", and no `log_key` under [storage] in the configuration, which is to sign \
                 the checkpoints of streams: `sealbus init` makes one and puts its public half into trust.toml"
            ),
        }
    }
}

impl std::error::Error for PolicyLoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            PolicyFault::Read(error) => Some(error),
            PolicyFault::Document(error) => Some(error),
            PolicyFault::NotServed(error) => Some(error),
            PolicyFault::Policy(error) => Some(error),
            PolicyFault::Empty | PolicyFault::NotUtf8 { .. } | PolicyFault::NoLogKey { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    const AT_MS: u64 = 1_767_225_600_000;

    fn load_bytes(bytes: &[u8]) -> Result<PolicyInForce, PolicyLoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, bytes).unwrap();
        load(&OsVfs, &path, &[], 3, AT_MS)
    }

    /// FAILURES T26.
    #[test]
    fn no_fault_of_the_file_means_allow() {
        let missing = load(&OsVfs, Path::new("no/such/policy.toml"), &[], 1, AT_MS).unwrap_err();
        assert!(matches!(missing.fault(), PolicyFault::Read(_)));
        assert!(missing.to_string().starts_with("policy no/such/policy.toml: cannot be read: "));
        for (bytes, expected) in [
            (&b""[..], "the file is empty"),
            (b" \n\t\n", "the file is empty"),
            (b"# only a comment\n", "version is missing"),
            (b"version = 1\n\xff", "not UTF-8 at byte 12"),
            (b"version = 1\nallow = 3\n", "line 2, column"),
            (b"version = 1\n[[allow]]\nid = \"a\"\n", "line 2"),
        ] {
            let error = load_bytes(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("policy.toml: "), "{error}");
        }
        assert!(load_bytes(&vec![b' '; POLICY_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_policy_that_fails_its_tests_is_refused() {
        let error = load_bytes(b"version = 1\n[[test]]\nwho = \"cn:eve\"\ncan = { publish = [\"a\"] }\n")
            .unwrap_err();
        assert!(matches!(error.fault(), PolicyFault::Policy(_)));
        assert!(error.to_string().contains("line 2: test[0] expects that cn:eve"), "{error}");
    }

    #[test]
    fn a_policy_for_what_no_listener_serves_is_refused() {
        let error =
            load_bytes(b"version = 1\n[[revoke]]\nprincipal = \"spiffe://acme.example/eve\"\n").unwrap_err();
        assert!(matches!(error.fault(), PolicyFault::NotServed(_)));
        assert!(error.to_string().contains("policy.toml: revoke[0] "), "{error}");
    }

    /// A stream whose history nobody could prove is none that is kept.
    #[test]
    fn a_policy_with_streams_needs_the_key_that_signs_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let configured = |storage: &str| {
            let text = format!(
                "bus_id = \"5f1c0e0f9a3b4c5d6e7f809102132435\"\ndata_dir = \"data\"\npolicy = \"policy.toml\"\n\
                 [[listener]]\naddress = \"127.0.0.1:7433\"\nzone = \"a\"\nprincipal = \"spiffe\"\n\
                 trust_domain = \"acme.example\"\ncertificate = \"a\"\nkey = \"a\"\nclient_ca = \"a\"\n\
                 revocation = \"short-lived\"\n{storage}"
            );
            Config::parse(&text, dir.path()).unwrap()
        };
        let (without, with) = (configured(""), configured("[storage]\nlog_key = \"log.key\"\n"));
        let policy = |streams: &str| {
            std::fs::write(dir.path().join("policy.toml"), format!("version = 1\n{streams}")).unwrap();
        };
        policy("");
        assert!(load_for(&OsVfs, &without, 1, AT_MS).is_ok());
        policy(
            "[[stream]]\nname = \"orders\"\nid = \"7b0c1d2e3f405162738495a6b7c8d9ea\"\ntopics = [\"orders/#\"]\n",
        );
        let error = load_for(&OsVfs, &without, 1, AT_MS).unwrap_err();
        assert!(matches!(error.fault(), PolicyFault::NoLogKey { stream } if stream.as_str() == "orders"));
        assert!(
            error.to_string().contains("policy.toml: it has the stream \"orders\", and no `log_key`"),
            "{error}"
        );
        let loaded = load_for(&OsVfs, &with, 1, AT_MS).unwrap();
        assert_eq!(loaded.compiled.streams().len(), 1);
    }

    #[test]
    fn the_hash_is_sha256_of_the_document() {
        let loaded = load_bytes(b"version = 7\n").unwrap();
        assert_eq!((loaded.generation, loaded.compiled.version(), loaded.compiled.rule_count()), (3, 7, 0));
        // printf 'version = 7\n' | sha256sum
        assert_eq!(
            loaded.hash.to_string(),
            "8e7423074b68d8504aaa62986b8d6499a216f7c144b401fadc5106c2a6faeac8"
        );
    }
}
