//! A tap: a certified subscriber that keeps what the broker sends as it came, bytes and all.
//!
//! It is a client without the client crate, since the client crate hands out what is verified and nothing else. What
//! it keeps is what the thief of a broker would find in its memory: batches, and the key bindings that prove them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sealbus_protocol::binding::{BindingRequest, TlsScheme};
use sealbus_protocol::frame::{Hello, InstanceKind, SubscriptionId};
use sealbus_protocol::identity::{CertificateFacts, PrincipalSource};
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::limits::FRAME_BYTES_MAX;
use sealbus_protocol::proof::{self, EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::session::{ALPN, ClientEvent, ClientSession, MINOR, Tick};
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::text::now_ms;

/// More than the demo ever sends: a tap gives its credit once.
const CREDIT_BYTES: u64 = 256 * 1_024 * 1_024;

/// What was kept, in the order in which it came.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// What binds a signing key to a certificate.
    Binding(Bytes),
    /// A batch and its topic.
    Batch(Topic, Bytes),
}

/// A tap whose subscription is in effect.
pub(super) struct Tap {
    session: ClientSession,
    stream: TlsStream<TcpStream>,
    subscription: SubscriptionId,
    kept: Vec<Kept>,
}

/// Why a tap keeps nothing.
#[derive(Debug)]
pub(super) struct TapError(String);

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tap failed: {}", self.0)
    }
}

fn failed(error: impl fmt::Display) -> TapError {
    TapError(error.to_string())
}

impl Tap {
    /// Connects with the identity in a folder, and subscribes to everything below `flights`.
    pub(super) async fn open(
        address: SocketAddr,
        bus_id: BusId,
        identity: &Path,
        ca: &Path,
    ) -> Result<Self, TapError> {
        let certificate = read(&identity.join("tls.crt"))?;
        let chain = vec![CertificateDer::from_pem_slice(&certificate).map_err(failed)?.into_owned()];
        let key = PrivateKeyDer::from_pem_slice(&read(&identity.join("tls.key"))?).map_err(failed)?;
        let root = CertificateDer::from_pem_slice(&read(ca)?).map_err(failed)?.into_owned();
        let stream = dial(address, root, chain.clone(), key.clone_key()).await?;
        let hello = hello(&stream, bus_id, &chain, &key)?;
        let mut session = ClientSession::new_at(Tick(0));
        session.hello(&hello);
        let filter = TopicFilter::parse("flights/#").map_err(failed)?;
        let mut tap = Self { session, stream, subscription: SubscriptionId(0), kept: Vec::new() };
        loop {
            match tap.next().await? {
                ClientEvent::Welcome(_) => {
                    (_, tap.subscription) =
                        tap.session.subscribe(filter.clone(), CREDIT_BYTES).map_err(failed)?;
                }
                ClientEvent::Ready(_) => return Ok(tap),
                ClientEvent::Failed(refusal) => return Err(failed(refusal)),
                ClientEvent::Refused(refused) => return Err(failed(refused.refusal)),
                other => tap.keep(other),
            }
        }
    }

    /// Keeps what comes until there are so many messages.
    pub(super) async fn keep_messages(mut self, messages: usize) -> Result<Vec<Kept>, TapError> {
        while self.messages() < messages {
            match self.next().await? {
                ClientEvent::Failed(refusal) => return Err(failed(refusal)),
                other => self.keep(other),
            }
        }
        Ok(self.kept)
    }

    fn messages(&self) -> usize {
        let count = |kept: &Kept| match kept {
            Kept::Batch(_, batch) => {
                let batch = sealbus_protocol::batch::Batch::decode(batch.clone());
                batch.map_or(0, |batch| batch.preamble().content.messages() as usize)
            }
            Kept::Binding(_) => 0,
        };
        self.kept.iter().map(count).sum()
    }

    fn keep(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Binding(reply) => self.kept.push(Kept::Binding(reply.binding)),
            ClientEvent::Deliver(delivered) if delivered.subscription == self.subscription => {
                self.kept.push(Kept::Batch(delivered.topic, delivered.batch));
            }
            _ => {}
        }
    }

    async fn next(&mut self) -> Result<ClientEvent, TapError> {
        loop {
            while self.session.outgoing().has_remaining() {
                self.stream.write_buf(self.session.outgoing()).await.map_err(failed)?;
            }
            self.stream.flush().await.map_err(failed)?;
            if let Some(event) = self.session.poll_event().map_err(failed)? {
                return Ok(event);
            }
            let room = self.session.space_len();
            let mut space = self.session.space().limit(room);
            if self.stream.read_buf(&mut space).await.map_err(failed)? == 0 {
                return Err(failed(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            self.session.handle_input_at(Tick(0));
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TapError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| failed(format!("{}: {error}", path.display())))
}

async fn dial(
    address: SocketAddr,
    root: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsStream<TcpStream>, TapError> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(failed)?;
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await.map_err(failed)
}

/// A fresh signing key, bound to the certificate, and the proof that it speaks on this connection.
fn hello(
    stream: &TlsStream<TcpStream>,
    bus_id: BusId,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Hello, TapError> {
    let leaf = chain.first().ok_or_else(|| failed("no certificate"))?;
    let facts = CertificateFacts::parse(leaf).map_err(failed)?;
    let principal = facts.principal(PrincipalSource::Spiffe).map_err(failed)?;
    let signing_key = SigningKey::from_seed(&Zeroizing::new(random()?));
    let request = BindingRequest::new(&principal, &signing_key, facts.validity, chain).map_err(failed)?;
    let tls_key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key).map_err(failed)?;
    let signer = tls_key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .ok_or_else(|| failed("the certificate's key is not P-256"))?;
    let tls_signature = signer.sign(&request.tls_message()).map_err(failed)?;
    let binding = request.finish(TlsScheme::EcdsaP256, &tls_signature).map_err(failed)?;
    let (_, tls) = stream.get_ref();
    let exported = tls.export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None).map_err(failed)?;
    let mut hello = Hello {
        bus_id,
        minor_min: MINOR,
        minor_max: MINOR,
        instance_kind: InstanceKind::Random,
        features: 0,
        frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX),
        instance_id: InstanceId::new(random()?),
        started_ms: now_ms(),
        incarnation_id: IncarnationId::new(random()?),
        kid: signing_key.verifying_key().kid(&principal),
        binding,
        agent: "sealbus-demo-tap".to_owned(),
        proof: [0; sealbus_protocol::keys::SIGNATURE_LEN],
    };
    hello.proof = proof::sign(&signing_key, &Exporter::new(exported), &bus_id, &hello.fields());
    Ok(hello)
}

fn random<const N: usize>() -> Result<[u8; N], TapError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
