//! Why a connection ended before its peer was known, for the person who reads the log.

use std::fmt;
use std::io;

use rustls::{CertificateError, Error as TlsStackError, InvalidMessage, PeerIncompatible};

/// Characters that a failure repeats of what a library says.
pub const DETAIL_CHARACTERS_MAX: usize = 160;

/// Why a handshake failed, as seen by the broker. The peer learns less: a TLS alert, at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client has shown no certificate.
    NoCertificate,
    /// The client's certificate does not lead to a root of this listener.
    UnknownIssuer,
    /// A certificate of the client has ended.
    Expired,
    /// A certificate of the client has not begun.
    NotYetValid,
    /// A certificate of the client was revoked.
    Revoked,
    /// No revocation list speaks for a certificate of the client.
    RevocationUnknown,
    /// The revocation list that speaks for a certificate of the client has run out.
    RevocationListExpired,
    /// A certificate of the client is otherwise not accepted.
    BadCertificate(String),
    /// The client does not speak TLS 1.3.
    ProtocolVersion,
    /// What came is not TLS.
    NotTls,
    /// The client did not ask for `sealbus/1`.
    Alpn,
    /// The client closed the connection.
    Closed,
    /// The handshake took too long.
    Timeout,
    /// Another reason.
    Other(String),
}

/// Why this handshake failed. For a deadline of our own use [`HandshakeFailure::Timeout`], and for a client that
/// asked for no protocol at all, which rustls accepts, [`HandshakeFailure::Alpn`].
#[must_use]
pub fn describe_handshake_error(error: &io::Error) -> HandshakeFailure {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsStackError>()) {
        return HandshakeFailure::from_tls(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => HandshakeFailure::Closed,
        io::ErrorKind::TimedOut => HandshakeFailure::Timeout,
        _ => HandshakeFailure::Other(bounded(error)),
    }
}

impl HandshakeFailure {
    /// One word for the failure, the same in every version: for audit records and for counting.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::RevocationListExpired => "revocation-list-expired",
            Self::BadCertificate(_) => "bad-certificate",
            Self::ProtocolVersion => "protocol-version",
            Self::NotTls => "not-tls",
            Self::Alpn => "alpn",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Other(_) => "other",
        }
    }

    /// What an error of the TLS stack means.
    pub(super) fn from_tls(error: &TlsStackError) -> Self {
        match error {
            TlsStackError::NoCertificatesPresented => Self::NoCertificate,
            TlsStackError::InvalidCertificate(error) => Self::from_certificate(error),
            TlsStackError::InvalidCertRevocationList(_) => Self::BadCertificate(bounded(error)),
            TlsStackError::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls13RequiredForQuic,
            ) => Self::ProtocolVersion,
            TlsStackError::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            TlsStackError::NoApplicationProtocol => Self::Alpn,
            TlsStackError::AlertReceived(_) => {
                Self::Other(bounded(format_args!("the client refuses the broker, {error}")))
            }
            other => Self::Other(bounded(other)),
        }
    }

    fn from_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::RevocationListExpired,
            CertificateError::BadSignature => {
                Self::BadCertificate("a signature in the chain does not verify".to_owned())
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::BadCertificate("it is not for use by tls clients".to_owned())
            }
            other => Self::BadCertificate(bounded(other)),
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the client has shown no certificate"),
            Self::UnknownIssuer => {
                f.write_str("the client's certificate does not lead to a root of this listener")
            }
            Self::Expired => f.write_str("a certificate of the client has ended"),
            Self::NotYetValid => f.write_str("a certificate of the client has not begun"),
            Self::Revoked => f.write_str("a certificate of the client was revoked"),
            Self::RevocationUnknown => {
                f.write_str("no revocation list speaks for a certificate of the client")
            }
            Self::RevocationListExpired => {
                f.write_str("the revocation list for a certificate of the client has run out")
            }
            Self::BadCertificate(detail) => write!(f, "a certificate of the client is refused: {detail}"),
            Self::ProtocolVersion => f.write_str("the client does not speak tls 1.3"),
            Self::NotTls => f.write_str("what came is not tls"),
            Self::Alpn => f.write_str("the client did not ask for the protocol sealbus/1"),
            Self::Closed => f.write_str("the client closed the connection"),
            Self::Timeout => f.write_str("the handshake took too long"),
            Self::Other(detail) => write!(f, "the handshake failed: {detail}"),
        }
    }
}

impl std::error::Error for HandshakeFailure {}

/// What a library says, on one line and not for ever: it may repeat what a peer sent.
fn bounded(said: impl fmt::Display) -> String {
    said.to_string()
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(DETAIL_CHARACTERS_MAX)
        .collect()
}
