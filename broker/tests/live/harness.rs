//! A bus in a temporary folder, and clients that can do right and wrong.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, Bytes};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, SigningKey as _, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus_broker::clock::Clock;
use sealbus_broker::config::Config;
use sealbus_broker::vfs::{FaultyVfs, OsVfs, Synced};
use sealbus_broker::{Broker, Parts, ReloadError, ReloadReport};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext, SignedBatch};
use sealbus_protocol::batch::{Batch, Headers};
use sealbus_protocol::binding::{BindingRequest, TlsScheme};
use sealbus_protocol::frame::{
    Ack, Alias, Hello, InstanceKind, Opened, Ready, RequestId, SubscriptionId, Welcome,
};
use sealbus_protocol::identity::{Principal, Validity};
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid, StreamId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::limits::FRAME_BYTES_MAX;
use sealbus_protocol::proof::{self, EXPORTER_LABEL, Exporter};
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::{ALPN, ClientEvent, ClientSession, Delivered, Tick};
use sealbus_protocol::topic::{Topic, TopicFilter};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const BUS_ID: &str = "5f1c0e0f9a3b4c5d6e7f809102132435";

/// Longer than anything that goes well takes, so that a test which hangs says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// 1 January 2020 and 2040: all certificates live so long.
const NOT_BEFORE_MS: u64 = 1_577_836_800_000;
const NOT_AFTER_MS: u64 = 2_208_988_800_000;

pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(crate) struct Bus {
    pub(crate) dir: TempDir,
    pub(crate) ca: Ca,
    pub(crate) runtime: Runtime,
    broker: Option<Broker>,
    vfs: FaultyVfs,
}

pub(crate) fn principal(name: &str) -> Principal {
    Principal::parse(&format!("spiffe://acme.example/{name}")).unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A rule of a policy.
pub(crate) fn allow(id: &str, who: &str, verb: &str, topics: &[&str]) -> String {
    rule("allow", id, who, verb, topics)
}

pub(crate) fn deny(id: &str, who: &str, verb: &str, topics: &[&str]) -> String {
    rule("deny", id, who, verb, topics)
}

fn rule(effect: &str, id: &str, who: &str, verb: &str, topics: &[&str]) -> String {
    let topics = if topics.is_empty() { String::new() } else { format!("topics = {topics:?}\n") };
    format!(
        "[[{effect}]]\nid = \"{id}\"\nwho = [\"spiffe://acme.example/{who}\"]\nverbs = [\"{verb}\"]\n{topics}\n"
    )
}

pub(crate) fn policy(version: u64, rules: &[String]) -> String {
    format!("version = {version}\n\n{}", rules.concat())
}

pub(crate) fn ca(name: &str) -> Ca {
    let mut params = params();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params
}

impl Bus {
    pub(crate) fn start(policy: &str) -> Self {
        Self::start_with(policy, |_| {})
    }

    pub(crate) fn start_with(policy: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(Parts::system().clock, policy, adjust)
    }

    /// A bus whose time is this clock's.
    pub(crate) fn start_at(clock: Arc<dyn Clock>, policy: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Without faults; it says when the audit log has grown.
        let vfs = FaultyVfs::new(OsVfs, []);
        let dir = tempfile::tempdir().unwrap();
        let mut bus = Self { dir, ca: ca("Acme CA"), runtime, broker: None, vfs };
        let mut server = params();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        bus.write("broker.pem", &server.signed_by(&key, &bus.ca).unwrap().pem());
        bus.write("broker.key", &key.serialize_pem());
        fs::set_permissions(bus.path("broker.key"), fs::Permissions::from_mode(0o600)).unwrap();
        bus.write("ca.pem", &bus.ca.pem());
        bus.revoke(&[]);
        bus.write("policy.toml", policy);
        let text = format!(
            r#"
bus_id = "{BUS_ID}"
data_dir = "data"
policy = "policy.toml"

[[listener]]
address = "127.0.0.1:0"
zone = "internal"
principal = "spiffe"
trust_domain = "acme.example"
certificate = "broker.pem"
key = "broker.key"
client_ca = "ca.pem"
revocation = "crl"
crl = "ca.crl"
"#
        );
        let mut config = Config::parse(&text, bus.dir.path()).unwrap();
        adjust(&mut config);
        let parts = Parts { clock, vfs: Arc::new(bus.vfs.clone()) };
        bus.broker = Some(bus.runtime.block_on(Broker::start(config, parts)).unwrap());
        bus
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2039, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("ca.crl", &list.signed_by(&self.ca).unwrap().pem().unwrap());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.as_ref().unwrap().addresses()[0]
    }

    pub(crate) fn reload(&self) -> Result<ReloadReport, ReloadError> {
        self.runtime.block_on(self.broker.as_ref().unwrap().reload())
    }

    pub(crate) fn reload_policy(&self, policy: &str) -> ReloadReport {
        self.write("policy.toml", policy);
        self.reload().unwrap()
    }

    pub(crate) fn shutdown(&mut self) {
        let broker = self.broker.take().unwrap();
        self.runtime.block_on(broker.shutdown()).unwrap();
    }

    /// The audit log, a line to an event, when an event with all these words is in it.
    pub(crate) fn audit_has(&self, words: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let seen = self.vfs.synced();
            let log = fs::read_to_string(self.path("data/audit/audit.jsonl")).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            let left = PATIENCE.saturating_sub(began.elapsed());
            let synced = self.vfs.await_synced(seen, left);
            assert_eq!(synced, Synced::More, "no event with {words:?} in\n{log}");
        }
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        Identity::issue(&self.ca, name, 1)
    }

    /// A welcomed client.
    pub(crate) fn client(&self, name: &str) -> Client {
        self.client_as(&Incarnation::new(self.identity(name)))
    }

    pub(crate) fn client_as(&self, incarnation: &Incarnation) -> Client {
        let mut client = self.connect(incarnation);
        client.greet(incarnation);
        client.expect_welcome();
        client
    }

    /// A client that has passed TLS and said nothing yet.
    pub(crate) fn connect(&self, incarnation: &Incarnation) -> Client {
        Client::connect(self.address(), &self.ca, Some(&incarnation.identity), &[ALPN]).unwrap()
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) principal: Principal,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<KeyPair>,
}

impl Identity {
    pub(crate) fn issue(ca: &Ca, name: &str, serial: u64) -> Self {
        let principal = principal(name);
        let mut params = params();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(SanType::URI(principal.as_str().try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, ca).unwrap().der().clone()];
        Self { principal, chain, key: Arc::new(key) }
    }

    pub(crate) fn bind(&self, signing_key: &SigningKey) -> Bytes {
        let validity = Validity { not_before_ms: NOT_BEFORE_MS, not_after_ms: NOT_AFTER_MS };
        let request = BindingRequest::new(&self.principal, signing_key, validity, &self.chain).unwrap();
        let signature = self.key.sign(&request.tls_message()).unwrap();
        request.finish(TlsScheme::EcdsaP256, &signature).unwrap()
    }
}

/// One life of a client process.
pub(crate) struct Incarnation {
    pub(crate) identity: Identity,
    seed: [u8; 32],
    pub(crate) signing_key: SigningKey,
    pub(crate) context: ProducerContext,
    pub(crate) kind: InstanceKind,
    pub(crate) binding: Bytes,
}

impl Incarnation {
    pub(crate) fn new(identity: Identity) -> Self {
        let seed = random();
        let signing_key = SigningKey::from_seed(&seed.into());
        let context = ProducerContext {
            bus_id: BUS_ID.parse().unwrap(),
            kid: signing_key.verifying_key().kid(&identity.principal),
            instance_id: InstanceId::new(random()),
            started_ms: now_ms(),
            incarnation_id: IncarnationId::new(random()),
            policy_version: 0,
        };
        let binding = identity.bind(&signing_key);
        Self { identity, seed, signing_key, context, kind: InstanceKind::Random, binding }
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// A producer's chain on one topic, and the alias of it.
pub(crate) struct Publisher {
    pub(crate) alias: Alias,
    pub(crate) chain: ProducerChain,
}

pub(crate) struct Client {
    tcp: TcpStream,
    tls: ClientConnection,
    pub(crate) session: ClientSession,
    events: VecDeque<ClientEvent>,
    began: Instant,
    pub(crate) context: Option<ProducerContext>,
    seed: [u8; 32],
}

impl Client {
    pub(crate) fn connect(
        address: SocketAddr,
        broker_ca: &Ca,
        identity: Option<&Identity>,
        protocols: &[&[u8]],
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(broker_ca.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(Identity { chain, key, .. }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(chain.clone(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        tls.set_buffer_limit(None);
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        let began = Instant::now();
        let session = ClientSession::new_at(Tick(0));
        Ok(Self { tcp, tls, session, events: VecDeque::new(), began, context: None, seed: [0; 32] })
    }

    pub(crate) fn exporter(&self) -> Exporter {
        Exporter::new(self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap())
    }

    /// An honest HELLO, whose proof a caller may spoil.
    pub(crate) fn hello(&self, incarnation: &Incarnation) -> Hello {
        let mut hello = Hello {
            bus_id: BUS_ID.parse().unwrap(),
            minor_min: 0,
            minor_max: 0,
            instance_kind: incarnation.kind,
            features: 0,
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).unwrap(),
            instance_id: incarnation.context.instance_id,
            started_ms: incarnation.context.started_ms,
            incarnation_id: incarnation.context.incarnation_id,
            kid: incarnation.context.kid,
            binding: incarnation.binding.clone(),
            agent: "harness/0".to_owned(),
            proof: [0; 64],
        };
        self.prove(&mut hello, &incarnation.signing_key);
        hello
    }

    pub(crate) fn prove(&self, hello: &mut Hello, key: &SigningKey) {
        let bus_id: BusId = hello.bus_id;
        hello.proof = proof::sign(key, &self.exporter(), &bus_id, &hello.fields());
    }

    pub(crate) fn greet(&mut self, incarnation: &Incarnation) {
        let hello = self.hello(incarnation);
        self.context = Some(incarnation.context.clone());
        self.seed = incarnation.seed;
        self.session.hello(&hello);
        self.flush();
    }

    /// Writes what the session wants to send.
    pub(crate) fn flush(&mut self) {
        self.try_flush().unwrap();
    }

    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        let outgoing = self.session.outgoing();
        while outgoing.has_remaining() {
            let len = outgoing.chunk().len();
            self.tls.writer().write_all(outgoing.chunk())?;
            outgoing.advance(len);
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }

    /// Sends bytes that need not be frames.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.flush();
    }

    /// The next event within this time; none when it is over. An error when the connection is.
    pub(crate) fn event_within(&mut self, timeout: Duration) -> io::Result<Option<ClientEvent>> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.tcp.set_read_timeout(Some(left))?;
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            let now = Tick(u64::try_from(self.began.elapsed().as_millis()).unwrap());
            while left > 0 {
                let mut room = vec![0; self.session.space_len().min(left)];
                let len = self.tls.reader().read(&mut room)?;
                left -= len;
                self.session.space().extend_from_slice(&room[..len]);
                self.session.handle_input_at(now);
                while let Some(event) = self.session.poll_event().unwrap() {
                    self.events.push_back(event);
                }
            }
            self.try_flush()?;
        }
    }

    pub(crate) fn event(&mut self) -> ClientEvent {
        self.event_within(PATIENCE).unwrap().expect("an event comes in time")
    }

    pub(crate) fn expect_welcome(&mut self) -> Welcome {
        match self.event() {
            ClientEvent::Welcome(welcome) => *welcome,
            other => panic!("WELCOME was expected, found {other:?}"),
        }
    }

    /// The reason for which the broker ends the session.
    pub(crate) fn expect_failure(&mut self) -> Refusal {
        loop {
            match self.event() {
                ClientEvent::Failed(refusal) => {
                    let end = self.event_within(PATIENCE);
                    assert!(end.is_err(), "the connection ends after ERROR, found {end:?}");
                    return refusal;
                }
                ClientEvent::Deliver(_) | ClientEvent::Generation(_) | ClientEvent::Binding(_) => {}
                other => panic!("ERROR was expected, found {other:?}"),
            }
        }
    }

    pub(crate) fn open(&mut self, name: &str) -> Result<Opened, Refusal> {
        let request = self.session.open(topic(name)).unwrap();
        self.flush();
        match self.event() {
            ClientEvent::Opened(opened) if opened.request == request => Ok(opened),
            ClientEvent::Refused(refused) if refused.request == request => Err(refused.refusal),
            other => panic!("OPENED or REFUSED was expected, found {other:?}"),
        }
    }

    /// A signing key like the client's own.
    pub(crate) fn signing_key_again(&self) -> SigningKey {
        SigningKey::from_seed(&self.seed.into())
    }

    pub(crate) fn publisher(&mut self, name: &str) -> Publisher {
        let alias = self.open(name).unwrap().alias;
        Publisher { alias, chain: ProducerChain::new(topic(name).digest(&StreamId::ZERO)) }
    }

    pub(crate) fn sign(&self, publisher: &mut Publisher, payloads: &[&[u8]]) -> SignedBatch {
        let mut open = OpenBatch::new(now_ms());
        for payload in payloads {
            open.push(now_ms(), b"", Headers::NONE, payload).unwrap();
        }
        publisher.chain.sign(open, self.context.as_ref().unwrap(), &self.signing_key_again())
    }

    pub(crate) fn send(&mut self, publisher: &Publisher, batch: Bytes) -> RequestId {
        let request = self.session.publish(publisher.alias, batch).unwrap();
        self.flush();
        request
    }

    pub(crate) fn answer(&mut self, request: RequestId) -> Result<Ack, Refusal> {
        match self.event() {
            ClientEvent::Ack(ack) if ack.request == request => Ok(ack),
            ClientEvent::Refused(refused) if refused.request == request => Err(refused.refusal),
            other => panic!("ACK or REFUSED was expected, found {other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, publisher: &mut Publisher, payloads: &[&[u8]]) -> Result<Ack, Refusal> {
        let batch = self.sign(publisher, payloads);
        let request = self.send(publisher, batch.bytes().clone());
        self.answer(request)
    }

    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<Ready, Refusal> {
        self.subscribe_with(filter, u64::from(u32::MAX))
    }

    pub(crate) fn subscribe_with(&mut self, filter: &str, credit: u64) -> Result<Ready, Refusal> {
        let filter = TopicFilter::parse(filter).unwrap();
        let (request, _) = self.session.subscribe(filter, credit).unwrap();
        self.flush();
        match self.event() {
            ClientEvent::Ready(ready) if ready.request == request => Ok(ready),
            ClientEvent::Refused(refused) if refused.request == request => Err(refused.refusal),
            other => panic!("READY or REFUSED was expected, found {other:?}"),
        }
    }

    /// The next delivery, over the bindings that come before it.
    pub(crate) fn delivery(&mut self) -> Delivered {
        loop {
            match self.event() {
                ClientEvent::Deliver(delivered) => return delivered,
                ClientEvent::Binding(_) => {}
                other => panic!("DELIVER was expected, found {other:?}"),
            }
        }
    }

    /// The payloads of the next delivery.
    pub(crate) fn payloads(&mut self) -> (String, Vec<Vec<u8>>) {
        let delivered = self.delivery();
        (delivered.topic.to_string(), payloads_of(&delivered.batch))
    }

    /// Nothing more is on its way. The broker answers what it is asked before it looks into the outbox, and looks into
    /// it before it is asked again: what waited there would come before the second answer.
    pub(crate) fn expect_silence(&mut self) {
        for _ in 0..2 {
            let request = self.session.binding_get(Kid::new(random())).unwrap();
            self.flush();
            match self.event() {
                ClientEvent::Refused(refused) if refused.request == request => {}
                other => panic!("nothing was expected, found {other:?}"),
            }
        }
    }

    pub(crate) fn close_subscription(&mut self, id: SubscriptionId) {
        self.session.close_subscription(id);
        self.flush();
    }
}

/// The messages of a batch, which is not verified here.
pub(crate) fn payloads_of(batch: &Bytes) -> Vec<Vec<u8>> {
    let batch = Batch::decode(batch.clone()).unwrap();
    sealbus_protocol::batch::Records::new(batch.body())
        .map(|record| record.unwrap().payload.to_vec())
        .collect()
}
