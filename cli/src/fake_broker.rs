//! A broker that has been taken over, for the demo and the tests.
//!
//! It has everything that the thief of a broker has: a listener whose certificate is the broker's own, the protocol's
//! server half, and batches that went through. It plays a [`Step`] list to whoever subscribes, and believes everybody.
//! What a consumer makes of it is the consumer's own work, which is the point.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, BufMut as _, Bytes};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus_protocol::batch::accept::{Durability, Receipt};
use sealbus_protocol::frame::{
    Ack, Freshness, Generation, Hello, IncarnationState, Limits, Narrowed, Subscribe, Welcome,
};
use sealbus_protocol::identity::{Principal, PrincipalSource, principal_of};
use sealbus_protocol::ids::{PolicyHash, StreamId};
use sealbus_protocol::limits::{
    BATCH_BYTES_MAX, FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
    TOPICS_PER_CONNECTION_MAX,
};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{ALPN, BrokerEvent, BrokerSession, Delivery, MINOR, SessionError, Tick};
use sealbus_protocol::topic::Topic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::text::now_ms;

/// The policy generation that it pretends.
const GENERATION: u64 = 1;

/// What is done to a subscription, in order, as soon as it is READY.
#[derive(Debug, Clone)]
pub enum Step {
    /// A key binding is sent, as brokers do before a key's first delivery.
    Binding(Bytes),
    /// A batch is delivered, whether it was published there or not.
    Deliver {
        /// The topic that the broker names.
        topic: Topic,
        /// The batch's bytes, whatever they are.
        batch: Bytes,
    },
    /// Messages are said to have been lost.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// Another policy is said to hold.
    Generation {
        /// Its number.
        generation: u64,
    },
}

/// What it shows in TLS, all PEM: in the demo, the files of the real broker.
#[derive(Clone, Copy)]
pub struct Disguise<'p> {
    /// The broker's certificate.
    pub certificate_pem: &'p str,
    /// The broker's key.
    pub key_pem: &'p str,
    /// Whose clients it takes.
    pub client_ca_pem: &'p str,
}

impl fmt::Debug for Disguise<'_> {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disguise").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// A fake broker that listens. It ends when it is dropped.
#[derive(Debug)]
pub struct FakeBroker {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeBroker {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`FakeBrokerError`] when the disguise cannot be used or no port is free.
    pub async fn start(disguise: &Disguise<'_>, steps: Vec<Step>) -> Result<Self, FakeBrokerError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(disguise)?));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(FakeBrokerError::Listen)?;
        let address = listener.local_addr().map_err(FakeBrokerError::Listen)?;
        let steps: Arc<[Step]> = steps.into();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A victim that leaves, or breaks the protocol, ends its own connection and nothing else.
                connections.spawn(serve(acceptor.clone(), stream, Arc::clone(&steps)));
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a fake broker does not listen.
#[derive(Debug)]
pub enum FakeBrokerError {
    /// Certificate, key or CA cannot be used.
    Disguise {
        /// What was found.
        found: String,
    },
    /// The system gives no port.
    Listen(io::Error),
}

impl fmt::Display for FakeBrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disguise { found } => write!(f, "the fake broker cannot show that certificate: {found}"),
            Self::Listen(error) => write!(f, "the fake broker cannot listen: {error}"),
        }
    }
}

impl std::error::Error for FakeBrokerError {}

fn tls_config(disguise: &Disguise<'_>) -> Result<ServerConfig, FakeBrokerError> {
    fn unusable(error: impl fmt::Display) -> FakeBrokerError {
        FakeBrokerError::Disguise { found: error.to_string() }
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(disguise.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(unusable)?;
    let key = PrivateKeyDer::from_pem_slice(disguise.key_pem.as_bytes()).map_err(unusable)?;
    let root = CertificateDer::from_pem_slice(disguise.client_ca_pem.as_bytes()).map_err(unusable)?;
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(unusable)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Serves one victim until it leaves.
async fn serve(acceptor: TlsAcceptor, stream: TcpStream, steps: Arc<[Step]>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let start = Instant::now();
    let mut victim = Victim { session: BrokerSession::new_at(Tick(0)), stream, steps };
    loop {
        while let Some(event) = victim.session.poll_event().map_err(broken)? {
            victim.answer(event)?;
        }
        victim.write().await?;
        let room = victim.session.space_len();
        let mut space = victim.session.space().limit(room);
        if victim.stream.read_buf(&mut space).await? == 0 {
            return Ok(());
        }
        let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        victim.session.handle_input_at(Tick(elapsed_ms));
    }
}

fn broken(error: SessionError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

struct Victim {
    session: BrokerSession,
    stream: TlsStream<TcpStream>,
    steps: Arc<[Step]>,
}

impl Victim {
    fn answer(&mut self, event: BrokerEvent) -> io::Result<()> {
        let unsupported = || Refusal::new(Code::Unsupported, "a fake broker does not do that");
        match event {
            BrokerEvent::Hello(hello) => self.welcome(&hello)?,
            BrokerEvent::Subscribe(subscribe) => self.play(&subscribe),
            BrokerEvent::Open { request, .. } => {
                self.session.opened(request, StreamId::ZERO, None).map_err(broken)?;
            }
            BrokerEvent::Publish { request, .. } => self.session.ack(&Ack {
                request,
                receipt: Receipt { durability: Durability::Live, offset: None },
                freshness: Freshness::New,
                broker_ms: now_ms(),
            }),
            BrokerEvent::Replay(replay) => {
                self.session.refuse_subscription(replay.request, replay.subscription, unsupported());
            }
            BrokerEvent::Consume(consume) => {
                self.session.refuse_subscription(consume.request, consume.subscription, unsupported());
            }
            BrokerEvent::Settle(settle) => self.session.refuse(settle.request, unsupported()),
            BrokerEvent::CheckpointGet(get) => self.session.refuse(get.request, unsupported()),
            BrokerEvent::BindingGet(get) => self.session.refuse(get.request, unsupported()),
            BrokerEvent::Admin(admin) => self.session.refuse(admin.request, unsupported()),
            BrokerEvent::Close(_) | BrokerEvent::Credit(_) | BrokerEvent::Failed(_) => {}
        }
        Ok(())
    }

    /// Whoever the certificate names is welcome.
    fn welcome(&mut self, hello: &Hello) -> io::Result<()> {
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        self.session.welcome(&Welcome {
            minor: MINOR.clamp(hello.minor_min, hello.minor_max),
            incarnation: IncarnationState::New,
            features: 0,
            limits: Limits {
                frame_bytes_max: number(FRAME_BYTES_MAX),
                batch_bytes_max: number(BATCH_BYTES_MAX),
                payload_bytes_max: number(PAYLOAD_BYTES_MAX),
                topics_max: number(TOPICS_PER_CONNECTION_MAX),
                subscriptions_max: number(SUBSCRIPTIONS_PER_CONNECTION_MAX),
            },
            session_id: 1,
            broker_ms: now_ms(),
            generation: GENERATION,
            policy_version: 1,
            policy_hash: PolicyHash::ZERO,
            principal: self.principal()?,
        });
        Ok(())
    }

    fn principal(&self) -> io::Result<Principal> {
        let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        let (_, tls) = self.stream.get_ref();
        let chain = tls.peer_certificates().unwrap_or_default();
        let leaf = chain.first().ok_or_else(|| invalid("no client certificate".to_owned()))?;
        principal_of(leaf, PrincipalSource::Spiffe).map_err(|error| invalid(error.to_string()))
    }

    fn play(&mut self, subscribe: &Subscribe) {
        let subscription = subscribe.subscription;
        self.session.ready(subscribe.request, subscription, Narrowed::No, GENERATION, None);
        for step in self.steps.iter() {
            match step {
                Step::Binding(binding) => self.session.announce_binding(binding.clone()),
                Step::Deliver { topic, batch } => self.session.deliver(&Delivery {
                    subscription,
                    topic,
                    stream: StreamId::ZERO,
                    offset: None,
                    broker_ms: now_ms(),
                    stored: None,
                    ranges: None,
                    batch,
                }),
                Step::Lagged { missed } => self.session.lagged(subscription, *missed),
                Step::Generation { generation } => self.session.generation(&Generation {
                    generation: *generation,
                    policy_version: *generation,
                    policy_hash: PolicyHash::ZERO,
                }),
            }
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        while self.session.outgoing().has_remaining() {
            self.stream.write_buf(self.session.outgoing()).await?;
        }
        self.stream.flush().await
    }
}
