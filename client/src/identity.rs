//! Who this client is: a certificate chain and its private key, read from files and read again when they change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus_protocol::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use zeroize::Zeroizing;

/// Bytes of a PEM file: a chain of the longest certificates in base64, with room for comments.
const PEM_BYTES_MAX: u64 = (CHAIN_CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX * 2) as u64;

/// A certificate chain and its private key. The key never leaves this process, and nothing prints it.
#[derive(Debug, Clone)]
pub struct Identity {
    files: Files,
    loaded: Loaded,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
}

/// What tells that files have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    certificate: (Option<SystemTime>, u64),
    key: (Option<SystemTime>, u64),
}

impl Identity {
    /// Reads `tls.crt` and `tls.key` in a directory.
    ///
    /// # Errors
    /// As [`Identity::from_files`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let dir = dir.as_ref();
        Self::from_files(dir.join("tls.crt"), dir.join("tls.key"))
    }

    /// Reads a PEM certificate chain, leaf first, and the leaf's PEM private key.
    ///
    /// # Errors
    /// [`IdentityError`] when one cannot be read, when they do not belong together, and when the key file can be read
    /// by others than its owner.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, IdentityError> {
        let files = Files { certificate: certificate.into(), key: key.into() };
        let loaded = files.load()?;
        Ok(Self { files, loaded })
    }

    /// The certificate chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.loaded.key.cert
    }

    /// The identity as it is on the disk now, when it is another than this one.
    pub(crate) fn reload(&self) -> Result<Option<Self>, IdentityError> {
        if self.files.stamp()? == self.loaded.stamp {
            return Ok(None);
        }
        let loaded = self.files.load()?;
        Ok(Some(Self { files: self.files.clone(), loaded }))
    }

    pub(crate) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.loaded.key
    }
}

impl Files {
    /// The stamp is taken first: a change while the files are read is seen the next time.
    fn load(&self) -> Result<Loaded, IdentityError> {
        let stamp = self.stamp()?;
        let chain = self.load_chain()?;
        let key = self.load_key()?;
        let signing_key =
            any_supported_type(&key).map_err(|_| IdentityError::Key { path: self.key.clone() })?;
        let certified = CertifiedKey::new(chain, signing_key);
        certified.keys_match().map_err(|error| IdentityError::Mismatch {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            error,
        })?;
        Ok(Loaded { key: Arc::new(certified), stamp })
    }

    fn load_chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let pem = read(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) | Err(_) => Err(IdentityError::Certificate { path: self.certificate.clone() }),
        }
    }

    fn load_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        check_private(&self.key)?;
        let pem = read(&self.key)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| IdentityError::Key { path: self.key.clone() })
    }

    fn stamp(&self) -> Result<Stamp, IdentityError> {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
            Ok((metadata.modified().ok(), metadata.len()))
        };
        Ok(Stamp { certificate: stamp(&self.certificate)?, key: stamp(&self.key)? })
    }
}

/// Reads a file that may hold a secret, up to its limit.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    // All the memory at once: a vector that grows leaves copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PEM_BYTES_MAX as usize + 1));
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(IdentityError::TooLong { path: path.into() });
    }
    Ok(bytes)
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.into(), mode });
    }
    Ok(())
}

/// Where files have no mode, the system's own rights protect them.
#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), IdentityError> {
    Ok(())
}

fn unreadable(path: &Path, error: io::Error) -> IdentityError {
    IdentityError::Read { path: path.into(), error }
}

/// Why an identity cannot be used.
#[derive(Debug)]
pub enum IdentityError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is far longer than such a file is.
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no PEM certificate, or a broken one.
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no PEM private key of a kind that TLS 1.3 uses.
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The key file can be read by others than its owner.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is not the certificate's.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What was found.
        error: rustls::Error,
    },
    /// TLS cannot use it.
    Tls(rustls::Error),
    /// The leaf certificate names nobody that the trust file has a domain for.
    Nobody {
        /// What was found.
        reason: String,
    },
    /// The key cannot sign in a way that a key binding allows.
    Scheme,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::TooLong { path } => write!(f, "{} is longer than {PEM_BYTES_MAX} bytes", path.display()),
            Self::Certificate { path } => write!(f, "{} holds no PEM certificate", path.display()),
            Self::Key { path } => write!(f, "{} holds no PEM private key that TLS 1.3 can use", path.display()),
            Self::Exposed { path, mode } => write!(
                f,
                "{} can be read by others than its owner (mode {mode:04o}, 0600 was expected)",
                path.display()
            ),
            Self::Mismatch { certificate, key, error } => {
                write!(f, "the key in {} is not that of {}: {error}", key.display(), certificate.display())
            }
            Self::Tls(error) => write!(f, "tls cannot use the certificate: {error}"),
            Self::Nobody { reason } => {
                write!(f, "the certificate names nobody that a trust domain of the trust file is for: {reason}")
            }
            Self::Scheme => f.write_str(
                "the private key signs in no way that a key binding allows (ECDSA P-256 or P-384, Ed25519, RSA-PSS)",
            ),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Mismatch { error, .. } | Self::Tls(error) => Some(error),
            Self::TooLong { .. }
            | Self::Certificate { .. }
            | Self::Key { .. }
            | Self::Exposed { .. }
            | Self::Nobody { .. }
            | Self::Scheme => None,
        }
    }
}
