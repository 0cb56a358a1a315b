//! Options, each with its default and its reason, and the way to the first connection.

use std::time::Duration;

use sealbus_protocol::frame::handshake::AGENT_BYTES_MAX;
use sealbus_protocol::ids::InstanceId;
use sealbus_protocol::limits::BATCH_BYTES_MAX;

use crate::bus::Bus;
use crate::connection;
use crate::error::ConnectError;
use crate::identity::Identity;
use crate::trust::Trust;

/// When and how often a broken connection is made anew.
///
/// The pause before an attempt doubles from `initial` to `max`, and a random part of up to a half is taken off it, so
/// that clients that lost the same broker do not come back at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// The pause before the first attempt.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Attempts in a row before the bus gives up; none never gives up.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(10), attempts: None }
    }
}

/// What a connection is made with. [`crate::builder`] makes one.
///
/// ```no_run
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sealbus_client::{Identity, Trust};
///
/// let bus = sealbus_client::builder()
///     .server("bus.acme.example:7433")
///     .identity(Identity::from_dir("/etc/orders")?)
///     .trust(Trust::from_file("/etc/orders/trust.toml")?)
///     .publish_timeout(Duration::from_secs(5))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    server: Option<String>,
    identity: Option<Identity>,
    trust: Option<Trust>,
    options: Options,
}

/// Everything that has a default.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) batch_bytes_max: usize,
    pub(crate) pending_bytes_max: usize,
    pub(crate) credit_bytes: u64,
    pub(crate) reconnect: Reconnect,
    pub(crate) agent: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance_id: None,
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            batch_bytes_max: 512 * 1_024,
            pending_bytes_max: 8 * 1_024 * 1_024,
            credit_bytes: 4 * 1_024 * 1_024,
            reconnect: Reconnect::default(),
            agent: concat!("sealbus-client/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { server: None, identity: None, trust: None, options: Options::default() }
    }

    /// The broker, as `host:port`. Its certificate must name the host, on every connection.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Who this client is.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Which bus, whose broker, and whose producers are believed.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Configures the instance, which then fences: a newer process with this id ends the older one. Without it, the
    /// id is random and nobody is fenced.
    pub const fn instance_id(mut self, instance_id: InstanceId) -> Self {
        self.options.instance_id = Some(instance_id);
        self
    }

    /// How long one attempt to connect may take, from name resolution to WELCOME. Default 10 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a message may wait for its acknowledgement, reconnects included. Default 10 s.
    pub const fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.options.publish_timeout = timeout;
        self
    }

    /// How long any other request may wait for its answer. Default 10 s.
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// The size at which a batch is sent even if the connection is busy: 4 KiB to 1 MiB, default 512 KiB.
    pub const fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.options.batch_bytes_max = bytes;
        self
    }

    /// Bytes of messages that one publisher may hold unacknowledged: at least 64 KiB, default 8 MiB.
    pub const fn pending_bytes_max(mut self, bytes: usize) -> Self {
        self.options.pending_bytes_max = bytes;
        self
    }

    /// Bytes of batches that the broker may send ahead of one subscription's consumer: at least 4 KiB, default 4 MiB.
    pub const fn credit_bytes(mut self, bytes: u64) -> Self {
        self.options.credit_bytes = bytes;
        self
    }

    /// When and how often a broken connection is made anew.
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.options.reconnect = reconnect;
        self
    }

    /// What the broker's logs call this client; at most 128 bytes. Default this crate and its version.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.options.agent = agent.into();
        self
    }

    /// Connects. When it returns, the first connection has been made, or refused.
    ///
    /// Cancel-safe: dropped before it returns, nothing is left behind.
    ///
    /// # Errors
    /// [`ConnectError`] says which step failed, and on what.
    pub async fn connect(self) -> Result<Bus, ConnectError> {
        let missing = |what| ConnectError::Missing { what };
        let server = self.server.ok_or_else(|| missing("server"))?;
        let identity = self.identity.ok_or_else(|| missing("identity"))?;
        let trust = self.trust.ok_or_else(|| missing("trust"))?;
        self.options.check()?;
        connection::connect(server, identity, trust, self.options).await
    }
}

impl Options {
    fn check(&self) -> Result<(), ConnectError> {
        let check = |holds: bool, name, allowed| {
            if holds { Ok(()) } else { Err(ConnectError::Option { name, allowed }) }
        };
        let timeout = Duration::from_millis(1)..=Duration::from_secs(3_600);
        check(timeout.contains(&self.connect_timeout), "connect_timeout", "1 ms to 1 h")?;
        check(timeout.contains(&self.publish_timeout), "publish_timeout", "1 ms to 1 h")?;
        check(timeout.contains(&self.request_timeout), "request_timeout", "1 ms to 1 h")?;
        check(
            (4_096..=BATCH_BYTES_MAX).contains(&self.batch_bytes_max),
            "batch_bytes_max",
            "4 KiB to 1 MiB",
        )?;
        check(self.pending_bytes_max >= 64 * 1_024, "pending_bytes_max", "at least 64 KiB")?;
        check(self.credit_bytes >= 4_096, "credit_bytes", "at least 4 KiB")?;
        check(self.agent.len() <= AGENT_BYTES_MAX, "agent", "at most 128 bytes")
    }
}
