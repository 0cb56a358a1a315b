//! Clients that say what a test wants said: over TLS with any certificate or none, in frames or in bytes.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use sealbus_protocol::frame::{
    Ack, AdminResult, Alias, CheckpointReply, ConsumerKey, ConsumerSettings, Hello, Opened, Operation,
    Outcome, Ready, Refused, SettleItem, Start, SubscriptionId, Sync, Until, Welcome,
};
use sealbus_protocol::policy::Name;
use sealbus_protocol::proof::{self, EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::{ALPN, ClientEvent, ClientSession, SessionError, Tick};
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bus::TestBus;
use crate::pki::Credential;
use crate::producer::Producer;
use crate::wait::{DEADLINE, within};

/// How a client speaks TLS.
#[derive(Clone)]
pub struct TlsOptions {
    /// Who it shows itself as.
    pub credential: Option<Credential>,
    /// The protocols that it asks for.
    pub protocols: Vec<Vec<u8>>,
    /// Whether it keeps tickets.
    pub resumption: Resumption,
    /// The address that it comes from.
    pub source: Option<IpAddr>,
}

impl TlsOptions {
    /// As a good client with this certificate would.
    #[must_use]
    pub fn of(credential: &Credential) -> Self {
        Self { credential: Some(credential.clone()), ..Self::anonymous() }
    }

    /// Without a certificate.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            credential: None,
            protocols: vec![ALPN.to_vec()],
            resumption: Resumption::disabled(),
            source: None,
        }
    }

    /// The configuration, to be kept when connections shall share tickets.
    #[must_use]
    pub fn config(&self, bus: &TestBus) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in bus.authority().own_credential().chain() {
            roots.add(root).expect("the authority is a root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is supported")
            .with_root_certificates(roots);
        let mut config = match &self.credential {
            None => builder.with_no_client_auth(),
            Some(credential) => builder
                .with_client_auth_cert(credential.chain(), credential.key())
                .expect("the certificate belongs to the key"),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.resumption = self.resumption.clone();
        Arc::new(config)
    }
}

/// A TLS connection, and nothing on it yet.
pub struct RawClient {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
}

/// How a peer ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By a TLS alert.
    Alert(AlertDescription),
    /// By closing it.
    Closed,
}

impl RawClient {
    /// A connection with these options.
    ///
    /// # Errors
    /// What TLS says.
    pub async fn connect(bus: &TestBus, address: SocketAddr, options: &TlsOptions) -> io::Result<Self> {
        Self::connect_with(address, options.config(bus), options.source).await
    }

    /// A connection with this configuration.
    ///
    /// # Errors
    /// What TLS says.
    pub async fn connect_with(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        source: Option<IpAddr>,
    ) -> io::Result<Self> {
        let stream = tcp(address, source).await?;
        let name = ServerName::from(address.ip());
        let stream = timeout(DEADLINE, TlsConnector::from(config).connect(name, stream)).await;
        Ok(Self { stream: stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads until the broker ends the connection; what it sent before is in the first place.
    ///
    /// # Panics
    /// When it does not end it.
    pub async fn ending(&mut self) -> (Vec<u8>, Ending) {
        let mut received = Vec::new();
        let give_up = tokio::time::Instant::now() + DEADLINE;
        loop {
            match timeout_at(give_up, self.stream.read_buf(&mut received)).await {
                Err(_) => panic!("the broker has not ended the connection within {DEADLINE:?}"),
                Ok(Ok(0)) => return (received, Ending::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return (received, ending_of(&error)),
            }
        }
    }
}

/// One attempt to get in, from TCP to its end: the port that it came from, what the broker sent, and how it ended.
pub async fn attempt(bus: &TestBus, address: SocketAddr, options: &TlsOptions) -> (u16, Vec<u8>, Ending) {
    let stream = tcp(address, options.source).await.expect("the broker accepts connections");
    let port = stream.local_addr().expect("a connection has an address").port();
    let name = ServerName::from(address.ip());
    let connector = TlsConnector::from(options.config(bus));
    match within("a handshake", connector.connect(name, stream)).await {
        Ok(stream) => {
            let (received, ending) = RawClient { stream }.ending().await;
            (port, received, ending)
        }
        Err(error) => (port, Vec::new(), ending_of(&error)),
    }
}

/// Bytes on a bare TCP connection: the port that they came from, and what came back until the broker closed it.
pub async fn speak_plainly(address: SocketAddr, bytes: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = tcp(address, None).await.expect("the broker accepts connections");
    let port = stream.local_addr().expect("a connection has an address").port();
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let _ = within("the broker closes a plain connection", stream.read_to_end(&mut received)).await;
    (port, received)
}

/// A TCP connection, from a certain address if it matters.
///
/// # Errors
/// What the system says.
pub async fn tcp(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = timeout(DEADLINE, socket.connect(address)).await;
    let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// How the error of a connection says that it was ended.
#[must_use]
pub fn ending_of(error: &io::Error) -> Ending {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Ending::Alert(*alert),
        Some(_) | None => Ending::Closed,
    }
}

/// Why a raw session goes no further.
#[derive(Debug)]
pub enum RawEnd {
    /// The broker said why.
    Refused(Refusal),
    /// It broke the protocol.
    Protocol(SessionError),
    /// The connection ended.
    Ended(Ending),
}

impl fmt::Display for RawEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Protocol(error) => error.fmt(f),
            Self::Ended(ending) => write!(f, "{ending:?}"),
        }
    }
}

/// Protocol's client half on a TLS connection, one event at a time.
pub struct RawSession {
    /// The connection.
    pub client: RawClient,
    /// The client's half.
    pub session: ClientSession,
    started: Instant,
}

impl RawSession {
    /// A session that has not said HELLO.
    #[must_use]
    pub fn new(client: RawClient) -> Self {
        Self { client, session: ClientSession::new_at(Tick(0)), started: Instant::now() }
    }

    /// Connects with this certificate and says HELLO as this producer.
    ///
    /// # Errors
    /// [`RawEnd`] when there is no WELCOME.
    pub async fn open(
        bus: &TestBus,
        address: SocketAddr,
        credential: &Credential,
        producer: &Producer,
    ) -> Result<(Self, Box<Welcome>), RawEnd> {
        Self::open_with(bus, address, &TlsOptions::of(credential), producer, producer.hello()).await
    }

    /// The same, with another HELLO. The proof is made over it.
    ///
    /// # Errors
    /// [`RawEnd`] when there is no WELCOME.
    pub async fn open_with(
        bus: &TestBus,
        address: SocketAddr,
        options: &TlsOptions,
        producer: &Producer,
        mut hello: Hello,
    ) -> Result<(Self, Box<Welcome>), RawEnd> {
        let client = RawClient::connect(bus, address, options).await;
        let client = client.map_err(|error| RawEnd::Ended(ending_of(&error)))?;
        let mut session = Self::new(client);
        session.prove(&mut hello, producer);
        session.session.hello(&hello);
        match session.next().await? {
            ClientEvent::Welcome(welcome) => Ok((session, welcome)),
            other => panic!("the broker answers HELLO with {other:?}"),
        }
    }

    /// Puts the proof for this connection into a HELLO.
    pub fn prove(&self, hello: &mut Hello, producer: &Producer) {
        hello.proof = proof::sign(producer.key(), &self.exporter(), &hello.bus_id, &hello.fields());
    }

    /// What this connection exports.
    #[must_use]
    pub fn exporter(&self) -> Exporter {
        let (_, connection) = self.client.stream.get_ref();
        let exported = connection.export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None);
        Exporter::new(exported.expect("the handshake is complete"))
    }

    /// Sends what waits to be sent.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.session.outgoing().has_remaining() {
            let written = self.client.stream.write(self.session.outgoing().chunk()).await?;
            self.session.outgoing().advance(written);
        }
        self.client.stream.flush().await
    }

    /// The next thing that the broker says.
    ///
    /// # Errors
    /// [`RawEnd`] when the session ends.
    pub async fn next(&mut self) -> Result<ClientEvent, RawEnd> {
        // For the whole of it: a broker's PINGs are no answer.
        let give_up = tokio::time::Instant::now() + DEADLINE;
        loop {
            match self.session.poll_event() {
                Ok(Some(ClientEvent::Failed(refusal))) => return Err(RawEnd::Refused(refusal)),
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => return Err(RawEnd::Protocol(error)),
            }
            // A broker that has gone cannot take what we say, but may have said something before.
            let _ = self.flush().await;
            let room = self.session.space_len();
            let mut space = self.session.space().limit(room);
            match timeout_at(give_up, self.client.stream.read_buf(&mut space)).await {
                Err(_) => panic!("the broker has said nothing within {DEADLINE:?}"),
                Ok(Ok(0)) => return Err(RawEnd::Ended(Ending::Closed)),
                Ok(Ok(_)) => self.session.handle_input_at(self.now()),
                Ok(Err(error)) => return Err(RawEnd::Ended(ending_of(&error))),
            }
        }
    }

    /// Opens a topic.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn open_topic(&mut self, topic: &str) -> Result<Alias, Refusal> {
        self.open_for(topic).await.map(|opened| opened.alias)
    }

    /// Opens a topic; says also which stream captures it, and where the incarnation goes on.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn open_for(&mut self, topic: &str) -> Result<Opened, Refusal> {
        let topic = Topic::parse(topic).expect("tests name good topics");
        self.session.open(topic).expect("few requests are open");
        match self.answer().await {
            ClientEvent::Opened(opened) => Ok(opened),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers OPEN with {other:?}"),
        }
    }

    /// Publishes a batch and awaits its answer.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn publish(&mut self, alias: Alias, batch: Bytes) -> Result<(), Refusal> {
        self.publish_for_ack(alias, batch).await.map(drop)
    }

    /// Publishes a batch and gives what is said of it.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn publish_for_ack(&mut self, alias: Alias, batch: Bytes) -> Result<Ack, Refusal> {
        self.session.publish(alias, batch).expect("few requests are open");
        match self.answer().await {
            ClientEvent::Ack(ack) => Ok(ack),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers PUBLISH with {other:?}"),
        }
    }

    /// Subscribes and awaits READY.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn subscribe(&mut self, filter: &str, credit_bytes: u64) -> Result<SubscriptionId, Refusal> {
        let filter = TopicFilter::parse(filter).expect("tests name good filters");
        let (_, subscription) = self.session.subscribe(filter, credit_bytes).expect("few requests are open");
        match self.answer().await {
            ClientEvent::Ready(_) => Ok(subscription),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers SUBSCRIBE with {other:?}"),
        }
    }

    /// Begins a replay and awaits READY.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn replay(
        &mut self,
        stream: &str,
        from: Start,
        until: Until,
        filter: Option<&str>,
        credit_bytes: u64,
    ) -> Result<Ready, Refusal> {
        let stream = StreamName::parse(stream).expect("tests name good streams");
        let filter = filter.map(|filter| TopicFilter::parse(filter).expect("tests name good filters"));
        self.session.replay(stream, from, until, filter, credit_bytes).expect("few requests are open");
        self.ready("REPLAY").await
    }

    /// Creates or joins a durable consumer and awaits READY.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn consume(
        &mut self,
        (stream, consumer): (&str, &str),
        settings: ConsumerSettings,
        filter: Option<&str>,
        credit_bytes: u64,
    ) -> Result<Ready, Refusal> {
        let name = |name: &str| Name::parse(name).expect("tests name good consumers");
        let key = ConsumerKey { stream: name(stream), consumer: name(consumer) };
        let filter = filter.map(|filter| TopicFilter::parse(filter).expect("tests name good filters"));
        self.session
            .consume(key, Start::Earliest, settings, filter, credit_bytes)
            .expect("few requests are open");
        self.ready("CONSUME").await
    }

    /// Settles, and returns when it is durable. Deliveries that come meanwhile are dropped.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn settle(
        &mut self,
        subscription: SubscriptionId,
        items: Vec<SettleItem>,
    ) -> Result<(), Refusal> {
        let sent = self.session.settle(subscription, items, Sync::Yes).expect("few requests are open");
        assert!(sent.is_some(), "the subscription is open");
        match self.answer_past_deliveries().await {
            ClientEvent::Settled(_) => Ok(()),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers SETTLE with {other:?}"),
        }
    }

    /// Asks for a checkpoint and proofs.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn checkpoint(
        &mut self,
        stream: &str,
        old_size: u64,
        leaf_index: Option<u64>,
    ) -> Result<CheckpointReply, Refusal> {
        let stream = StreamName::parse(stream).expect("tests name good streams");
        self.session.checkpoint_get(stream, old_size, leaf_index).expect("few requests are open");
        match self.answer_past_deliveries().await {
            ClientEvent::Checkpoint(reply) => Ok(*reply),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers CHECKPOINT_GET with {other:?}"),
        }
    }

    /// Asks as an administrator.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn administer(&mut self, operation: Operation) -> Result<Outcome, Refusal> {
        self.session.admin(operation).expect("few requests are open");
        match self.answer_past_deliveries().await {
            ClientEvent::AdminResult(AdminResult { outcome, .. }) => Ok(outcome),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers ADMIN with {other:?}"),
        }
    }

    /// Sends bytes of frames past the session, which would not write them.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn send_past(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush().await?;
        self.client.send(bytes).await
    }

    async fn ready(&mut self, asked: &str) -> Result<Ready, Refusal> {
        match self.answer_past_deliveries().await {
            ClientEvent::Ready(ready) => Ok(ready),
            ClientEvent::Refused(Refused { refusal, .. }) => Err(refusal),
            other => panic!("the broker answers {asked} with {other:?}"),
        }
    }

    async fn answer_past_deliveries(&mut self) -> ClientEvent {
        loop {
            match self.answer().await {
                ClientEvent::Deliver(_) | ClientEvent::Skipped(_) | ClientEvent::Lagged(_) => {}
                event => return event,
            }
        }
    }

    /// The next event that answers a request: not news of the policy, of a key, or that something is closed.
    async fn answer(&mut self) -> ClientEvent {
        loop {
            match self.next().await {
                Ok(ClientEvent::Generation(_) | ClientEvent::Binding(_) | ClientEvent::Closed(_)) => {}
                Ok(event) => return event,
                Err(end) => panic!("the session ended in place of an answer: {end}"),
            }
        }
    }

    /// Why the broker ends the session; whatever it says before is dropped.
    pub async fn ended(&mut self) -> RawEnd {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(Duration::as_millis(&self.started.elapsed())).unwrap_or(u64::MAX))
    }
}
