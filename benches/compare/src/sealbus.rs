//! Sealbus: how its bus is made and its broker started, and how one talks to it: through `sealbus_client` alone, with
//! its defaults.
//!
//! The bus is what `sealbus init` makes, the broker what `sealbus serve` runs: both are this program once more, which
//! has the whole of `sealbus` in it. The load uses the identity that `init` has made.

use std::collections::VecDeque;
use std::fs;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};

use sealbus::pki::Authority;
use sealbus_client::{
    Bus, DeliveryError, Durability, EnqueueError, Identity, PendingReceipt, Principal, PublishError,
    Publisher, Receipt, Subscription, Trust,
};

use crate::conversation::{Conversation, Talk};
use crate::failure::Failure;
use crate::subject::{Facts, Profile, Running, Setting, Subject};
use crate::wire::DURABLE_TOPIC;

/// The bus, in the subject's folder.
const BUS: &str = "bus";

const TRUST_DOMAIN: &str = "compare.local";

/// The identity of all clients: the one that `init` makes.
const IDENTITY: &str = "operator";

/// Where identities are, in the bus's folder.
const IDENTITIES: &str = "identities";

/// What the load may do, and nothing else.
const POLICY: &str = r#"version = 1

[[allow]]
id = "load-publishes"
who = ["spiffe://compare.local/operator"]
verbs = ["publish"]
topics = ["load/#"]

[[allow]]
id = "load-subscribes"
who = ["spiffe://compare.local/operator"]
verbs = ["subscribe"]
topics = ["load/#"]
"#;

/// The subject.
#[derive(Debug, Clone, Copy)]
pub struct Sealbus;

impl Subject for Sealbus {
    fn name(&self) -> &'static str {
        "sealbus"
    }

    fn version(&self) -> Result<String, Failure> {
        // It is this program, and all members of the workspace have one version.
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn facts(&self) -> Facts {
        Facts {
            signatures: "Ed25519 by the producer, verified by broker and consumer",
            access: "principal, verb and topic, by rule",
        }
    }

    fn durable_profiles(&self) -> &'static [Profile] {
        &[Profile::Durable]
    }

    fn acknowledged_means(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Live => "verified and routed",
            Profile::Durable | Profile::DurableEverySecond => "after fdatasync",
        }
    }

    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure> {
        make(setting, &policy(setting.profile))?;
        serve(setting)
    }
}

/// Makes a bus with this policy in the setting's folder.
pub(crate) fn make(setting: &Setting<'_>, policy: &str) -> Result<(), Failure> {
    let bus = setting.folder.join(BUS);
    let failed = |found: String| Failure::new(format!("make a bus in {}", bus.display()), found);
    let made = Command::new(setting.own_program)
        .arg("init")
        .arg(&bus)
        .args(["--trust-domain", TRUST_DOMAIN, "--address", &format!("127.0.0.1:{}", setting.port)])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !made.status.success() {
        return Err(failed(String::from_utf8_lossy(&made.stderr).into_owned()));
    }
    setting.write(&format!("{BUS}/policy.toml"), policy).map(drop)
}

/// Starts the broker of the bus that [`make`] has made in the setting's folder.
pub(crate) fn serve(setting: &Setting<'_>) -> Result<Running, Failure> {
    let config = setting.folder.join(BUS).join("sealbus.toml");
    setting.run(setting.own_program, ["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
}

/// Issues an identity to a principal, by the authority of the bus that [`make`] has made in this folder; it goes by this
/// name in [`SealbusTalk::as_identity`].
pub(crate) fn issue(folder: &Path, name: &str, principal: &str) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(format!("issue an identity to {principal}"), error);
    let bus = folder.join(BUS);
    let read = |file: &str| fs::read_to_string(bus.join("ca").join(file)).map_err(|error| failed(&error));
    let authority =
        Authority::from_pem(&read("ca.pem")?, &read("ca.key")?).map_err(|error| failed(&error))?;
    let parsed = Principal::parse(principal).map_err(|error| failed(&error))?;
    let issued = authority.issue_client(&parsed, &[]).map_err(|error| failed(&error))?;
    let identity = bus.join(IDENTITIES).join(name);
    fs::create_dir(&identity).map_err(|error| failed(&error))?;
    issued.write_to(&identity).map_err(|error| failed(&error))
}

fn policy(profile: Profile) -> String {
    let durability = match profile {
        Profile::Live => return POLICY.to_owned(),
        Profile::Durable => "fsync",
        Profile::DurableEverySecond => "interval",
    };
    // The bus is a fresh one, so that any id will do.
    let id = "be".repeat(16);
    format!(
        "{POLICY}\n[[stream]]\nname = \"load\"\nid = \"{id}\"\ntopics = [\"{DURABLE_TOPIC}\"]\n\
         durability = \"{durability}\"\n"
    )
}

/// A way to talk to Sealbus: its client.
#[derive(Debug, Clone)]
pub struct SealbusTalk {
    server: String,
    identity: Identity,
    trust: Trust,
}

impl SealbusTalk {
    /// To the broker that was started in this folder and listens there.
    ///
    /// # Errors
    /// [`Failure`] when identity or trust cannot be read.
    pub fn new(folder: &Path, address: SocketAddr) -> Result<Self, Failure> {
        Self::as_identity(folder, address, IDENTITY)
    }

    /// The same, as another identity of the bus than the one that `init` has made.
    pub(crate) fn as_identity(folder: &Path, address: SocketAddr, identity: &str) -> Result<Self, Failure> {
        let bus: PathBuf = folder.join(BUS);
        let failed =
            |error: &dyn std::fmt::Display| Failure::new(format!("use the bus in {}", bus.display()), error);
        Ok(Self {
            server: address.to_string(),
            identity: Identity::from_dir(bus.join(IDENTITIES).join(identity))
                .map_err(|error| failed(&error))?,
            trust: Trust::from_file(bus.join("trust.toml")).map_err(|error| failed(&error))?,
        })
    }

    /// A connection to be made, with the client's defaults.
    pub(crate) fn builder(&self) -> sealbus_client::Builder {
        let Self { server, identity, trust } = self;
        sealbus_client::builder().server(server).identity(identity.clone()).trust(trust.clone())
    }
}

impl Talk for SealbusTalk {
    type Conversation = SealbusConversation;

    async fn connect(&self) -> Result<SealbusConversation, Failure> {
        let bus =
            self.builder().connect().await.map_err(|error| Failure::new("connect to sealbus", error))?;
        Ok(SealbusConversation { bus, publisher: None, subscription: None, receipts: VecDeque::new() })
    }
}

/// One connection of the client.
#[derive(Debug)]
pub struct SealbusConversation {
    bus: Bus,
    publisher: Option<Publisher>,
    subscription: Option<Subscription>,
    /// Of durable messages whose acknowledgement was not told yet.
    receipts: VecDeque<PendingReceipt>,
}

impl SealbusConversation {
    /// The publisher of a topic, opened when it is first used.
    async fn publisher(&mut self, topic: &str) -> Result<Publisher, Failure> {
        match &self.publisher {
            Some(publisher) if publisher.topic().as_str() == topic => Ok(publisher.clone()),
            Some(_) | None => {
                let opened = self.bus.publisher(topic).await;
                let publisher = opened.map_err(|error| not_published(topic, &error))?;
                self.publisher = Some(publisher.clone());
                Ok(publisher)
            }
        }
    }
}

impl Conversation for SealbusConversation {
    async fn subscribe(&mut self, topic: &str) -> Result<(), Failure> {
        let subscribed = self.bus.subscribe(topic).await;
        let subscription =
            subscribed.map_err(|error| Failure::new(format!("subscribe to {topic} at sealbus"), error))?;
        self.subscription = Some(subscription);
        Ok(())
    }

    /// The connection's own task sends what is queued, without being asked; when the queue is full, this waits. Nobody
    /// waits for the receipts here: closing does.
    async fn publish(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Failure> {
        let publisher = self.publisher(topic).await?;
        let queued = publisher.enqueue_all(std::iter::repeat_n(payload, copies as usize)).await;
        queued.map(drop).map_err(|error| not_published(topic, &error))
    }

    async fn publish_durable(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Failure> {
        let publisher = self.publisher(topic).await?;
        for _ in 0..copies {
            let receipt = enqueue(&publisher, payload).await?;
            self.receipts.push_back(receipt);
        }
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u32, Failure> {
        let receipts = &mut self.receipts;
        poll_fn(|cx| poll_receipts(receipts, cx)).await
    }

    async fn receive(&mut self, mut sink: impl FnMut(&[u8]) + Send) -> Result<(), Failure> {
        let Some(subscription) = &mut self.subscription else {
            return Err(Failure::new("receive from sealbus", "nothing is subscribed"));
        };
        match subscription.next_batch().await {
            Some(Ok(mut batch)) => {
                while let Some(message) = batch.next_message() {
                    sink(message.payload());
                }
                Ok(())
            }
            Some(Err(error)) => missed(error),
            None => Err(Failure::new("receive from sealbus", "the subscription has ended")),
        }
    }

    async fn close(self) -> Result<(), Failure> {
        self.bus.close().await.map_err(|error| Failure::new("close the connection to sealbus", error))
    }
}

pub(crate) async fn enqueue(publisher: &Publisher, payload: &[u8]) -> Result<PendingReceipt, Failure> {
    let failed = |error: &dyn std::fmt::Display| not_published(publisher.topic().as_str(), error);
    match publisher.enqueue(payload) {
        Ok(receipt) => Ok(receipt),
        Err(EnqueueError::Full { .. }) => {
            publisher.enqueue_when_ready(payload).await.map_err(|error| failed(&error))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// What is lost is counted by what was sent, as with every subject; what does not prove itself ends the measurement.
fn missed(error: DeliveryError) -> Result<(), Failure> {
    match error {
        DeliveryError::Lagged { .. } | DeliveryError::Gap { .. } | DeliveryError::Skipped { .. } => Ok(()),
        DeliveryError::Rejected(_) | DeliveryError::Closed(_) => {
            Err(Failure::new("receive from sealbus", error))
        }
    }
}

/// Takes the receipts that have come, in the order of their messages. Ready when at least one has.
fn poll_receipts(
    receipts: &mut VecDeque<PendingReceipt>,
    cx: &mut Context<'_>,
) -> Poll<Result<u32, Failure>> {
    let mut come = 0_u32;
    while let Some(receipt) = receipts.front_mut() {
        match pin!(receipt).poll(cx) {
            Poll::Ready(receipt) => {
                kept(receipt)?;
                receipts.pop_front();
                come = come.saturating_add(1);
            }
            Poll::Pending if come == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    if come == 0 {
        return Poll::Ready(Err(Failure::new("wait for an acknowledgement", "nothing is unacknowledged")));
    }
    Poll::Ready(Ok(come))
}

/// An acknowledgement that means less than it should is none.
fn kept(receipt: Result<Receipt, PublishError>) -> Result<(), Failure> {
    let receipt = receipt.map_err(|error| not_published(DURABLE_TOPIC, &error))?;
    match receipt.durability() {
        Durability::Fsync => Ok(()),
        other => Err(not_published(
            DURABLE_TOPIC,
            &format!("it was acknowledged as {}, not as fsync", other.as_str()),
        )),
    }
}

fn not_published(topic: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("publish to {topic} at sealbus"), error)
}
