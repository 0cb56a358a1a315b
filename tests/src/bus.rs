//! A bus in a temporary folder, as an operator would have it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::SerialNumber;
use sealbus_client::{Bus, ConnectError, Identity, Trust};
use sealbus_protocol::identity::{Principal, PrincipalSource, TrustDomain, TrustStore};
use sealbus_protocol::ids::BusId;
use sealbus_protocol::tlog::{LogKey, NoteName, base64};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::audit::AuditLog;
use crate::pki::{Authority, Credential};
use crate::process::{BrokerProcess, Process};
use crate::wait::within;

/// The trust domain of every test bus.
pub const TRUST_DOMAIN: &str = "bus.test";

/// The identity with the verbs `admin` and `audit`, which every policy of the harness grants.
pub const OPERATOR: &str = "operator";

/// A bus: its files, and who may use it.
pub struct TestBus {
    folder: TempDir,
    bus_id: BusId,
    authority: Authority,
    broker: Credential,
    listeners: Vec<PrincipalSource>,
    settings: String,
    storage: String,
    log_key: LogKey,
    versions: AtomicU64,
    crl_numbers: AtomicU64,
    revoked: Mutex<Vec<SerialNumber>>,
}

impl TestBus {
    /// A bus with one listener for SPIFFE ids and the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with("")
    }

    /// The same, with more settings: sections of `sealbus.toml`.
    #[must_use]
    pub fn with(settings: &str) -> Self {
        Self::with_listeners(&[PrincipalSource::Spiffe], settings)
    }

    /// A bus with more settings of `[storage]`.
    #[must_use]
    pub fn with_storage(storage: &str) -> Self {
        let mut bus = Self::new();
        storage.clone_into(&mut bus.storage);
        bus.listen_on(0);
        bus
    }

    /// A bus with a listener for each of these sources.
    #[must_use]
    pub fn with_listeners(listeners: &[PrincipalSource], settings: &str) -> Self {
        let mut bus_id = [0; BusId::LEN];
        getrandom::fill(&mut bus_id).expect("the system gives randomness");
        let authority = Authority::new("authority of the bus under test");
        let broker = authority.broker(&["localhost", "127.0.0.1"]);
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the system gives randomness");
        let log_key = LogKey::from_seed(&seed);
        let bus = Self {
            folder: TempDir::with_prefix("sealbus-test-").expect("a temporary folder can be made"),
            bus_id: BusId::new(bus_id),
            authority,
            broker,
            listeners: listeners.to_vec(),
            settings: settings.to_owned(),
            storage: String::new(),
            log_key,
            versions: AtomicU64::new(1),
            crl_numbers: AtomicU64::new(1),
            revoked: Mutex::new(Vec::new()),
        };
        bus.write("ca.pem", bus.authority.pem());
        bus.broker.write_to(&bus.path("broker"));
        bus.write_revocation_list();
        let trust = format!(
            "bus_id = \"{}\"\nbroker_roots = \"ca.pem\"\n\n[[trust_domain]]\nname = \"{TRUST_DOMAIN}\"\nprincipal = \
             \"spiffe\"\nroots = \"ca.pem\"\n\n[log]\nkey = \"{}\"\n",
            bus.bus_id,
            base64::encode(&bus.log_key.public())
        );
        bus.write_log_key(&seed);
        bus.write("trust.toml", &trust);
        bus.listen_on(0);
        bus.write_policy("");
        bus
    }

    /// The key that signs checkpoints, in the form that the broker reads.
    fn write_log_key(&self, seed: &[u8; 32]) {
        let name = NoteName::parse("bus.test/log").expect("the name is good");
        let id = self.log_key.signer(name.clone()).verifier().id();
        let typed = [&[1][..], seed].concat();
        let path = self.path("log.key");
        fs::write(&path, format!("PRIVATE+KEY+{name}+{id}+{}\n", base64::encode(&typed)))
            .expect("the file can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the mode can be set");
    }

    /// The public half of the key that signs checkpoints.
    #[must_use]
    pub fn log_key(&self) -> [u8; 32] {
        self.log_key.public()
    }

    /// Where the files of a stream are.
    #[must_use]
    pub fn stream_dir(&self, id: &str) -> PathBuf {
        self.path("data/streams").join(id)
    }

    /// The folder of the bus.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Something in the folder.
    #[must_use]
    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    /// Replaces a file of the folder as a whole.
    pub fn write(&self, part: &str, text: &str) {
        let (path, new) = (self.path(part), self.path(&format!("{part}.new")));
        fs::write(&new, text).expect("the file can be written");
        fs::rename(new, path).expect("the file can be replaced");
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("sealbus.toml")
    }

    /// The bus's own name.
    #[must_use]
    pub const fn bus_id(&self) -> BusId {
        self.bus_id
    }

    /// Who issues its certificates.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The broker's own certificate and key.
    #[must_use]
    pub const fn broker_credential(&self) -> &Credential {
        &self.broker
    }

    /// The roots that its members believe, for producers.
    #[must_use]
    pub fn trust_store(&self) -> TrustStore {
        let roots = self.authority.own_credential().chain();
        let domain =
            TrustDomain::new(TRUST_DOMAIN, PrincipalSource::Spiffe, &roots).expect("the domain is good");
        TrustStore::new(vec![domain]).expect("the store is good")
    }

    /// Writes the configuration anew, with this port for the first listener; 0 lets the system choose.
    pub fn listen_on(&self, port: u16) {
        let mut text =
            format!("bus_id = \"{}\"\ndata_dir = \"data\"\npolicy = \"policy.toml\"\n", self.bus_id);
        for (index, source) in self.listeners.iter().enumerate() {
            let port = if index == 0 { port } else { 0 };
            write!(
                text,
                "\n[[listener]]\naddress = \"127.0.0.1:{port}\"\nzone = \"zone-{index}\"\nprincipal = \
                 \"{source}\"\ntrust_domain = \"{TRUST_DOMAIN}\"\ncertificate = \"broker/tls.crt\"\nkey = \
                 \"broker/tls.key\"\nclient_ca = \"ca.pem\"\nrevocation = \"crl\"\ncrl = \"crl.pem\"\n"
            )
            .expect("a string takes everything");
        }
        write!(text, "\n[storage]\nlog_key = \"log.key\"\n{}\n", self.storage)
            .expect("a string takes everything");
        text.push_str(&self.settings);
        self.write("sealbus.toml", &text);
    }

    /// Writes a policy of the next version: these rules, and the operator's. Returns the version.
    pub fn write_policy(&self, rules: &str) -> u64 {
        let version = self.versions.fetch_add(1, Ordering::SeqCst);
        let operator = allow("operator", OPERATOR, "admin\", \"audit", "");
        self.write("policy.toml", &format!("version = {version}\n{operator}{rules}"));
        version
    }

    /// Writes this as the policy, whatever it is.
    pub fn write_policy_text(&self, text: &str) {
        self.write("policy.toml", text);
    }

    /// The principal that an identity of the bus has.
    #[must_use]
    pub fn principal(&self, name: &str) -> Principal {
        Principal::parse(&spiffe(name)).expect("names of identities are path segments")
    }

    /// A new certificate for an identity.
    #[must_use]
    pub fn credential(&self, name: &str) -> Credential {
        self.authority.client(&self.principal(name))
    }

    /// The folder of an identity, which is issued when it is first asked for.
    #[must_use]
    pub fn identity(&self, name: &str) -> PathBuf {
        let folder = self.path("identities").join(name);
        if !folder.is_dir() {
            self.credential(name).write_to(&folder);
        }
        folder
    }

    /// Revokes a certificate. The broker knows it after a reload.
    pub fn revoke(&self, serial: SerialNumber) {
        self.revoked.lock().expect("no test panics while it revokes").push(serial);
        self.write_revocation_list();
    }

    fn write_revocation_list(&self) {
        let number = self.crl_numbers.fetch_add(1, Ordering::SeqCst);
        let revoked = self.revoked.lock().expect("no test panics while it revokes");
        self.write("crl.pem", &self.authority.revocation_list(number, &revoked));
    }

    /// Starts its broker.
    pub async fn serve(&self, program: &Path) -> BrokerProcess {
        BrokerProcess::start(program, &self.config()).await
    }

    /// Writes these rules and starts its broker, which takes the same port again when it is started anew.
    pub async fn serve_with(&self, program: &Path, rules: &str) -> BrokerProcess {
        self.write_policy(rules);
        let broker = self.serve(program).await;
        self.listen_on(broker.address().port());
        broker
    }

    /// Puts these rules into force.
    pub async fn reload(&self, operator: &Bus, rules: &str) {
        self.write_policy(rules);
        within("the reload", operator.reload_policy()).await.expect("the policy is good");
    }

    /// Its audit log.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::at(self.path("data/audit/audit.jsonl"))
    }

    /// What its members believe.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::from_file(self.path("trust.toml")).expect("the harness writes a good trust.toml")
    }

    /// An identity of the bus, for the client.
    #[must_use]
    pub fn client_identity(&self, name: &str) -> Identity {
        Identity::from_dir(self.identity(name)).expect("the harness writes good identities")
    }

    /// Connects as an identity of the bus.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> Bus {
        let connected = self.try_connect(address, name).await;
        connected.unwrap_or_else(|error| panic!("{name} cannot connect: {error}"))
    }

    /// The same, when it may fail.
    ///
    /// # Errors
    /// What the client says.
    pub async fn try_connect(&self, address: SocketAddr, name: &str) -> Result<Bus, ConnectError> {
        let (identity, trust) = (self.client_identity(name), self.trust());
        within("connecting", sealbus_client::connect(&address.to_string(), identity, trust)).await
    }

    /// A command of the program, as an identity of the bus.
    #[must_use]
    pub fn command(&self, program: &Path, address: SocketAddr, name: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--server")
            .arg(address.to_string())
            .arg("--identity")
            .arg(self.identity(name))
            .arg("--trust")
            .arg(self.path("trust.toml"))
            .env_remove("SEALBUS_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// The same, running.
    #[must_use]
    pub fn run(&self, program: &Path, address: SocketAddr, name: &str, arguments: &[&str]) -> Process {
        let title = format!("sealbus {} of {name}", arguments.first().unwrap_or(&""));
        Process::start(&title, self.command(program, address, name).args(arguments))
    }
}

impl Default for TestBus {
    fn default() -> Self {
        Self::new()
    }
}

/// A rule that allows. `who` is the name of an identity, or whatever a policy may say there.
#[must_use]
pub fn allow(id: &str, who: &str, verb: &str, topic: &str) -> String {
    rule("allow", id, who, verb, topic)
}

/// A rule that forbids.
#[must_use]
pub fn deny(id: &str, who: &str, verb: &str, topic: &str) -> String {
    rule("deny", id, who, verb, topic)
}

/// A stream of the policy. `settings` are more keys of it.
#[must_use]
pub fn stream(name: &str, id: &str, filter: &str, settings: &str) -> String {
    format!("\n[[stream]]\nname = \"{name}\"\nid = \"{id}\"\ntopics = [\"{filter}\"]\n{settings}\n")
}

/// A rule that allows to read a stream. `verbs` as in `replay", "consume`.
#[must_use]
pub fn allow_stream(id: &str, who: &str, verbs: &str, stream: &str) -> String {
    let who = if who.contains(':') { who.to_owned() } else { spiffe(who) };
    format!(
        "\n[[allow]]\nid = \"{id}\"\nwho = [\"{who}\"]\nverbs = [\"{verbs}\"]\nstreams = [\"{stream}\"]\n"
    )
}

fn rule(kind: &str, id: &str, who: &str, verb: &str, topic: &str) -> String {
    let who = if who.contains(':') { who.to_owned() } else { spiffe(who) };
    let topics = if topic.is_empty() { String::new() } else { format!("topics = [\"{topic}\"]\n") };
    format!("\n[[{kind}]]\nid = \"{id}\"\nwho = [\"{who}\"]\nverbs = [\"{verb}\"]\n{topics}")
}

fn spiffe(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{name}")
}
