//! The stage: a PKI, a policy, a broker, and who connects to it.

use std::path::{Path, PathBuf};

use sealbus_broker::config::Config;
use sealbus_broker::vfs::OsVfs;
use sealbus_broker::{Broker, Parts};
use sealbus_client::{Bus, BusId, Principal, StreamId};

use crate::broker_process::free_address;
use crate::bus_folder::{BusFolder, NewBus, OPERATOR};
use crate::context::{Context, FILE_NAME};
use crate::failure::Failure;
use crate::pki::Authority;

use super::teller::Teller;

/// The trust domain of the demo's principals.
const DOMAIN: &str = "airport.example";

/// Publishes departures.
pub(super) const BOARD: &str = "board";
/// May see every departure.
pub(super) const CONTROL: &str = "control";
/// May see departures from JFK.
pub(super) const DISPLAY: &str = "jfk-display";
/// Has a certificate, and no grant.
pub(super) const KIOSK: &str = "kiosk";

/// The rule that lets the display see anything, which is withdrawn later.
const DISPLAY_RULE: &str = r#"
[[allow]]
id = "display-reads-jfk"
who = ["spiffe://airport.example/jfk-display"]
verbs = ["subscribe"]
topics = ["flights/JFK/+"]

[[test]]
who = "spiffe://airport.example/jfk-display"
can = { subscribe = ["flights/JFK/B6"] }
cannot = { subscribe = ["flights/EWR/UA"], publish = ["flights/JFK/B6"] }
"#;

/// Everything else that the policy says.
const RULES: &str = r##"
[[allow]]
id = "operator"
who = ["spiffe://airport.example/operator"]
verbs = ["admin", "audit"]

[[allow]]
id = "board-publishes-flights"
who = ["spiffe://airport.example/board"]
verbs = ["publish"]
topics = ["flights/+/+"]

[[allow]]
id = "control-reads-flights"
who = ["spiffe://airport.example/control"]
verbs = ["subscribe"]
topics = ["flights/#"]

[[deny]]
id = "kiosks-never-publish"
who = ["spiffe://airport.example/kiosk"]
verbs = ["publish"]
topics = ["#"]

[[test]]
who = "spiffe://airport.example/kiosk"
cannot = { publish = ["flights/JFK/B6"], subscribe = ["flights/JFK/B6"], admin = true, audit = true }
"##;

/// The stream that keeps the flights, once the broker is a process of its own.
pub(super) const STREAM: &str = "flights";

/// Who may read what the stream keeps.
const STREAM_RULES: &str = r#"
[[allow]]
id = "control-reads-the-history"
who = ["spiffe://airport.example/control"]
verbs = ["replay", "consume", "describe"]
streams = ["flights"]

[[test]]
who = "spiffe://airport.example/control"
can = { replay = ["flights"], consume = ["flights"] }

[[test]]
who = "spiffe://airport.example/kiosk"
cannot = { replay = ["flights"], consume = ["flights"] }
"#;

/// Whether the display has its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisplayGrant {
    Given,
    Withdrawn,
}

/// A bus with its broker running.
pub(super) struct Stage {
    folder: BusFolder,
    scratch: PathBuf,
    broker: Broker,
    address: std::net::SocketAddr,
    bus_id: BusId,
}

impl Stage {
    /// Makes the PKI, writes the policy, starts the broker.
    pub(super) async fn set(folder: &Path, scratch: &Path, teller: &Teller) -> Result<Self, Failure> {
        teller.chapter("A bus", "making certificates")?;
        let new = NewBus { trust_domain: DOMAIN.to_owned(), hosts: Vec::new(), address: free_address()? };
        let (folder, made) = BusFolder::create(folder, &new)?;
        for name in [BOARD, CONTROL, DISPLAY, KIOSK] {
            folder.issue(name, &[])?;
        }
        write_policy(&folder, 1, DisplayGrant::Given)?;
        let config_path = folder.path("sealbus.toml");
        let attempted = "start the broker";
        let config = Config::load(&OsVfs, &config_path).map_err(|error| Failure::new(attempted, error))?;
        let broker =
            Broker::start(config, Parts::system()).await.map_err(|error| Failure::new(attempted, error))?;
        let address = broker.addresses().first().copied().unwrap_or(new.address);
        teller.say(&format!(
            "A certificate authority, the broker's certificate, and identities for {OPERATOR}, {BOARD}, {CONTROL}, \
             {DISPLAY} and {KIOSK}, all P-256, in {}.",
            folder.root().display()
        ))?;
        teller.holds(&format!(
            "The broker listens on {address}: TLS 1.3 only, client certificates required, nothing allowed that no rule \
             allows."
        ))?;
        Ok(Self { folder, scratch: scratch.to_owned(), broker, address, bus_id: made.bus_id })
    }

    /// Connects as one of the identities.
    pub(super) async fn connect(&self, name: &str) -> Result<Bus, Failure> {
        self.context(name)?.connect().await
    }

    /// The context of one of the identities.
    pub(super) fn context(&self, name: &str) -> Result<Context, Failure> {
        context(&self.folder, name)
    }

    /// The principal of one of the identities.
    pub(super) fn principal(name: &str) -> Result<Principal, Failure> {
        Principal::parse(&format!("spiffe://{DOMAIN}/{name}"))
            .map_err(|error| Failure::new(format!("name the principal {name}"), error))
    }

    pub(super) const fn folder(&self) -> &BusFolder {
        &self.folder
    }

    pub(super) const fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub(super) const fn bus_id(&self) -> BusId {
        self.bus_id
    }

    /// A certificate for the board's own name, from an authority that nobody here knows.
    pub(super) fn forge_identity(&self) -> Result<PathBuf, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::new("make a certificate of a foreign authority", error);
        let folder = self.scratch.join("forged");
        std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let authority = Authority::new("another development CA").map_err(|error| failed(&error))?;
        let issued = authority.issue_client(&Self::principal(BOARD)?, &[]).map_err(|error| failed(&error))?;
        issued.write_to(&folder).map_err(|error| failed(&error))?;
        Ok(folder)
    }

    /// Rewrites the policy file. It has no effect until the broker is told.
    pub(super) fn write_policy(&self, version: u64, grant: DisplayGrant) -> Result<(), Failure> {
        write_policy(&self.folder, version, grant)
    }

    /// Shuts the broker down: what it accepted is finished and its audit log is closed.
    pub(super) async fn strike(self) -> Result<Closed, Failure> {
        let data = self.folder.path("flights-2013-01-01.jsonl");
        let flights = super::flights::text();
        std::fs::write(&data, flights)
            .map_err(|error| Failure::new(format!("write {}", data.display()), error))?;
        self.broker.shutdown().await.map_err(|error| Failure::new("shut the broker down", error))?;
        Ok(Closed { folder: self.folder })
    }
}

/// The bus without its broker.
pub(super) struct Closed {
    folder: BusFolder,
}

impl Closed {
    pub(super) const fn folder(&self) -> &BusFolder {
        &self.folder
    }

    /// The context of one of the identities.
    pub(super) fn context(&self, name: &str) -> Result<Context, Failure> {
        context(&self.folder, name)
    }

    /// Writes the last policy: with a stream. The display has its grant again, so that the commands which are printed
    /// with --keep show something.
    pub(super) fn write_stream_policy(&self) -> Result<(), Failure> {
        let mut id = [0; StreamId::LEN];
        getrandom::fill(&mut id).map_err(|error| Failure::new("draw the id of a stream", error))?;
        let rules = format!("{RULES}{DISPLAY_RULE}{}{STREAM_RULES}", stream_entry(StreamId::new(id)));
        replace_policy(&self.folder, &format!("# The policy of `sealbus demo`.\nversion = 3\n{rules}"))
    }
}

fn stream_entry(id: StreamId) -> String {
    format!(
        "\n[[stream]]\nname = \"{STREAM}\"\nid = \"{id}\"\ntopics = [\"flights/#\"]\ndurability = \"fsync\"\n"
    )
}

fn context(folder: &BusFolder, name: &str) -> Result<Context, Failure> {
    Context::read(&folder.identity(name).join(FILE_NAME))
}

fn write_policy(folder: &BusFolder, version: u64, grant: DisplayGrant) -> Result<(), Failure> {
    let display = match grant {
        DisplayGrant::Given => DISPLAY_RULE,
        DisplayGrant::Withdrawn => "",
    };
    replace_policy(folder, &format!("# The policy of `sealbus demo`.\nversion = {version}\n{RULES}{display}"))
}

/// Replaced as a whole: whoever reads the file finds the old policy or the new one.
fn replace_policy(folder: &BusFolder, text: &str) -> Result<(), Failure> {
    let (path, new) = (folder.path("policy.toml"), folder.path("policy.toml.new"));
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
    written.map_err(|error| Failure::new(format!("write {}", path.display()), error))
}

/// Says how to explore the bus that was kept.
pub(super) fn invite(folder: &Path, teller: &Teller) -> Result<(), Failure> {
    let program = std::env::args().next().unwrap_or_else(|| "sealbus".to_owned());
    let folder = folder.display();
    teller.say(&format!("The bus is in {folder}. Start its broker, and then, in other terminals:"))?;
    let commands = [
        format!("{program} serve --config {folder}/sealbus.toml"),
        format!("{program} --context {folder}/identities/{CONTROL} sub 'flights/#'"),
        format!("{program} --context {folder}/identities/{DISPLAY} sub 'flights/#' -o jsonl"),
        format!(
            "{program} --context {folder}/identities/{BOARD} pub --jsonl {folder}/flights-2013-01-01.jsonl \
             --topic-template 'flights/{{origin}}/{{carrier}}'"
        ),
        format!("{program} --context {folder}/identities/{CONTROL} replay {STREAM} --from last:5"),
        format!(
            "{program} --context {folder}/identities/{CONTROL} consume {STREAM} --name screens --no-wait"
        ),
        format!("{program} --context {folder}/identities/{CONTROL} stream verify {STREAM}"),
        format!("{program} --context {folder}/identities/{OPERATOR} stats"),
        format!("{program} --context {folder}/identities/{OPERATOR} audit tail -f"),
        format!("{program} --context {folder}/identities/{KIOSK} policy can-i publish flights/JFK/B6"),
        format!("{program} --context {folder}/identities/{OPERATOR} policy reload"),
    ];
    teller.table(&format!("\n{}\n", commands.join("\n")))
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::policy::{CompiledPolicy, Policy};

    use super::*;

    #[test]
    fn every_policy_of_the_demo_passes_its_own_tests() {
        let with_stream = format!("{DISPLAY_RULE}{}{STREAM_RULES}", stream_entry(StreamId::new([7; 16])));
        for more in [DISPLAY_RULE, "", &with_stream] {
            let policy = Policy::parse(&format!("version = 1\n{RULES}{more}")).unwrap();
            CompiledPolicy::compile(policy, 0).unwrap();
        }
    }
}
