//! A port: a place where connections arrive, and what tells friend from stranger there.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::tls::TlsMaterial;

/// A listener's place, shared with the sessions that came in through it.
#[derive(Debug)]
pub(crate) struct Port {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What policies call it.
    pub(crate) zone: Arc<str>,
    /// Certificates, roots and revocation lists. They are replaced as a whole; connections that come after that, and
    /// all that are there, are judged by the new ones.
    pub(crate) tls: ArcSwap<TlsMaterial>,
}
