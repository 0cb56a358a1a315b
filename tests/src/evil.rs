//! A broker that was taken over: protocol's server half behind the real broker's own certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sealbus_protocol::frame::{
    Consume, Hello, IncarnationState, Limits, Narrowed, Replay, RequestId, StreamStart, Subscribe,
    SubscriptionId, Welcome,
};
use sealbus_protocol::identity::{PrincipalSource, principal_of};
use sealbus_protocol::ids::{PolicyHash, StreamId};
use sealbus_protocol::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{ALPN, BrokerEvent, BrokerSession, Delivery, Tick};
use sealbus_protocol::topic::Topic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::bus::TestBus;
use crate::pki::Credential;
use crate::producer::now_ms;
use crate::wait::{DEADLINE, within};

/// A broker that does what a test tells it to do.
pub struct EvilBroker {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    address: SocketAddr,
}

impl EvilBroker {
    /// One that holds the bus's own broker certificate.
    pub async fn start(bus: &TestBus) -> Self {
        Self::start_as(bus, bus.broker_credential()).await
    }

    /// One that holds this certificate.
    pub async fn start_as(bus: &TestBus, credential: &Credential) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        Self { listener, acceptor: acceptor(bus, credential), address }
    }

    /// Shows another certificate from now on.
    pub fn show(&mut self, bus: &TestBus, credential: &Credential) {
        self.acceptor = acceptor(bus, credential);
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, up to TLS.
    ///
    /// # Errors
    /// What TLS says.
    pub async fn accept_tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let (stream, _) = within("a client connects to the evil broker", self.listener.accept()).await?;
        stream.set_nodelay(true)?;
        within("a client shakes hands with the evil broker", self.acceptor.accept(stream)).await
    }

    /// The next session, welcomed as whoever its certificate says.
    pub async fn accept(&self) -> EvilSession {
        let mut session =
            EvilSession::new(self.accept_tls().await.expect("the client trusts the certificate"));
        let hello = session.hello().await;
        session.welcome(&hello).await;
        session
    }
}

fn acceptor(bus: &TestBus, credential: &Credential) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    for root in bus.authority().own_credential().chain() {
        roots.add(root).expect("the authority is a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is supported")
        .with_client_cert_verifier(verifier.expect("the authority is a root"))
        .with_single_cert(credential.chain(), credential.key())
        .expect("the certificate belongs to the key");
    config.alpn_protocols = vec![ALPN.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A session of an evil broker.
pub struct EvilSession {
    stream: TlsStream<TcpStream>,
    session: BrokerSession,
}

impl EvilSession {
    /// A session on a connection that has just passed TLS.
    #[must_use]
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, session: BrokerSession::new_at(Tick(0)) }
    }

    /// The client's HELLO.
    pub async fn hello(&mut self) -> Box<Hello> {
        match self.next().await.expect("the client says HELLO") {
            BrokerEvent::Hello(hello) => hello,
            other => panic!("the client begins with {other:?}"),
        }
    }

    /// A proper WELCOME.
    pub async fn welcome(&mut self, _hello: &Hello) {
        let (_, connection) = self.stream.get_ref();
        let leaf =
            connection.peer_certificates().and_then(<[_]>::first).expect("the client has a certificate");
        let principal = principal_of(leaf, PrincipalSource::Spiffe).expect("the client is a principal");
        let bytes = |limit: usize| u32::try_from(limit).expect("limits of the protocol are small");
        self.session.welcome(&Welcome {
            minor: 0,
            incarnation: IncarnationState::New,
            features: 0,
            limits: Limits {
                frame_bytes_max: bytes(FRAME_BYTES_MAX),
                batch_bytes_max: bytes(BATCH_BYTES_MAX),
                payload_bytes_max: bytes(PAYLOAD_BYTES_MAX),
                topics_max: 1_024,
                subscriptions_max: 1_024,
            },
            session_id: 1,
            broker_ms: now_ms(),
            generation: 1,
            policy_version: 1,
            policy_hash: PolicyHash::new([7; 32]),
            principal,
        });
        self.flush().await.expect("the client listens");
    }

    /// The next thing that the client asks; none when it has gone.
    pub async fn next(&mut self) -> Option<BrokerEvent> {
        let give_up = Instant::now() + DEADLINE;
        loop {
            if let Some(event) = self.session.poll_event().expect("the client keeps to the protocol") {
                return Some(event);
            }
            if self.flush().await.is_err() {
                return None;
            }
            let room = self.session.space_len();
            let mut space = self.session.space().limit(room);
            match timeout_at(give_up, self.stream.read_buf(&mut space)).await {
                Err(_) => panic!("the client has said nothing within {DEADLINE:?}"),
                Ok(Ok(1..)) => self.session.handle_input_at(Tick(0)),
                Ok(Ok(0) | Err(_)) => return None,
            }
        }
    }

    /// Grants the next subscription.
    pub async fn subscribed(&mut self) -> SubscriptionId {
        loop {
            match self.next().await.expect("the client subscribes") {
                BrokerEvent::Subscribe(Subscribe { request, subscription, .. }) => {
                    self.ready(request, subscription).await;
                    return subscription;
                }
                BrokerEvent::Credit(_) => {}
                other => panic!("the client says {other:?} in place of SUBSCRIBE"),
            }
        }
    }

    /// Grants the next replay or durable consumer, and says that it begins there.
    pub async fn began(&mut self, start: StreamStart) -> SubscriptionId {
        loop {
            let event = self.next().await.expect("the client reads a stream");
            if let BrokerEvent::Replay(Replay { request, subscription, .. })
            | BrokerEvent::Consume(Consume { request, subscription, .. }) = event
            {
                self.session.ready(request, subscription, Narrowed::No, 1, Some(start));
                self.flush().await.expect("the client listens");
                return subscription;
            }
        }
    }

    /// Says whatever protocol's half can say.
    pub async fn say(&mut self, say: impl FnOnce(&mut BrokerSession)) {
        say(&mut self.session);
        let _ = self.flush().await;
    }

    async fn ready(&mut self, request: RequestId, subscription: SubscriptionId) {
        self.session.ready(request, subscription, Narrowed::No, 1, None);
        self.flush().await.expect("the client listens");
    }

    /// Sends a key binding.
    pub async fn announce(&mut self, binding: &Bytes) {
        self.session.announce_binding(binding.clone());
        let _ = self.flush().await;
    }

    /// Delivers bytes as a batch of a topic.
    pub async fn deliver(&mut self, subscription: SubscriptionId, topic: &str, batch: &Bytes) {
        let topic = Topic::parse(topic).expect("tests name good topics");
        self.session.deliver(&Delivery {
            subscription,
            topic: &topic,
            stream: StreamId::ZERO,
            offset: None,
            broker_ms: now_ms(),
            stored: None,
            ranges: None,
            batch,
        });
        let _ = self.flush().await;
    }

    /// Says that messages were dropped.
    pub async fn lagged(&mut self, subscription: SubscriptionId, missed: u64) {
        self.session.lagged(subscription, missed);
        let _ = self.flush().await;
    }

    /// Answers the client for as long as this is polled: every key that it asks for is unknown. Cancel-safe.
    pub async fn know_no_keys(&mut self) {
        loop {
            match self.next().await {
                Some(BrokerEvent::BindingGet(get)) => {
                    let refusal = Refusal::new(Code::Binding, format!("nothing binds {}", get.kid));
                    self.session.refuse(get.request, refusal);
                    let _ = self.flush().await;
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Sends bytes that need not be frames.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Waits until the client has gone.
    pub async fn gone(&mut self) {
        let mut bytes = [0; 4_096];
        let give_up = Instant::now() + DEADLINE;
        loop {
            match timeout_at(give_up, self.stream.read(&mut bytes)).await {
                Err(_) => panic!("the client has not gone within {DEADLINE:?}"),
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return,
            }
        }
    }

    /// Cancel-safe: what was written is known.
    async fn flush(&mut self) -> io::Result<()> {
        while self.session.outgoing().has_remaining() {
            let written = self.stream.write(self.session.outgoing().chunk()).await?;
            self.session.outgoing().advance(written);
        }
        self.stream.flush().await
    }
}
