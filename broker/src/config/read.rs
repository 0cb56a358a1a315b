//! What may stand in the configuration, key by key, and what the whole must agree with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sealbus_protocol::identity::{PrincipalSource, check_trust_domain};
use sealbus_protocol::ids::BusId;
use sealbus_protocol::limits::{BATCH_BYTES_MAX, POLICY_NAME_BYTES_MAX};
use sealbus_protocol::policy::Name;

use super::document::{Source, Table};
use super::error::{ConfigError, ConfigFault, Section};
use super::limits::{AuditConfig, CONFIG_BYTES_MAX, LISTENERS_MAX, LimitsConfig, StorageConfig};
use super::settings::{Config, ListenerConfig, LogConfig, LogFormat, Revocation};
use crate::vfs::Vfs;

impl Config {
    /// Reads a configuration from its file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the column.
    pub fn load(vfs: &dyn Vfs, path: &Path) -> Result<Self, ConfigError> {
        let bytes = vfs
            .read(path, CONFIG_BYTES_MAX)
            .map_err(|error| ConfigError::of_file(ConfigFault::Read(error)).in_file(path))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            ConfigError::of_file(ConfigFault::NotUtf8 { at: error.valid_up_to() }).in_file(path)
        })?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(text, base).map_err(|error| error.in_file(path))
    }

    /// Reads a configuration whose relative paths are relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first fault that a reader meets, its line and its column.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        config(text, base)
    }
}

/// Reads the whole file.
fn config(text: &str, base: &Path) -> Result<Config, ConfigError> {
    let source = Source::new(text);
    let document = source.parse()?;
    let top = Table::new(document.get_ref(), 0, Section::Top, &source);
    top.allow_only(
        &["bus_id", "data_dir", "policy", "listener", "limits", "storage", "audit", "log"],
        &["operators"],
    )?;
    let path = |key| Ok::<PathBuf, ConfigError>(base.join(top.required(key)?.text()?));
    Ok(Config {
        bus_id: bus_id(&top)?,
        data_dir: path("data_dir")?,
        policy: path("policy")?,
        listeners: listeners(&top, base)?,
        limits: optional_section(&top, "limits", "[limits]", limits)?,
        storage: optional_section(&top, "storage", "[storage]", |table| storage(table, base))?,
        audit: optional_section(&top, "audit", "[audit]", audit)?,
        log: optional_section(&top, "log", "[log]", log)?,
    })
}

fn optional_section<T: Default>(
    top: &Table<'_>,
    key: &'static str,
    heading: &'static str,
    read: impl FnOnce(&Table<'_>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    match top.optional(key) {
        Some(section) => read(&section.table(heading)?),
        None => Ok(T::default()),
    }
}

/// The formats use the all-zero bus for "none", so that it names no bus.
fn bus_id(top: &Table<'_>) -> Result<BusId, ConfigError> {
    let expected = "32 lower-case hex digits, not all of them zero, as `sealbus init` draws them";
    let value = top.required("bus_id")?;
    let bus_id: BusId = value.parsed(expected)?;
    if bus_id.is_zero() {
        return Err(value.unexpected(expected));
    }
    Ok(bus_id)
}

fn listeners(top: &Table<'_>, base: &Path) -> Result<Vec<ListenerConfig>, ConfigError> {
    let value = top.required("listener")?;
    let tables = value.tables("[[listener]]")?;
    if !(1..=LISTENERS_MAX).contains(&tables.len()) {
        return Err(value.unexpected(format_args!("at least one section and at most {LISTENERS_MAX}")));
    }
    let mut listeners: Vec<ListenerConfig> = Vec::with_capacity(tables.len());
    for table in &tables {
        let listener = self::listener(table, base)?;
        if let Some(message) = listeners.iter().find_map(|other| conflict(other, &listener)) {
            return Err(table.error(ConfigFault::Conflict { message }));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Every key is required of every listener, so that a key which is forgotten never opens a listener of another kind.
fn listener(table: &Table<'_>, base: &Path) -> Result<ListenerConfig, ConfigError> {
    table.allow_only(
        &[
            "address",
            "zone",
            "principal",
            "trust_domain",
            "certificate",
            "key",
            "client_ca",
            "revocation",
            "crl",
        ],
        &[],
    )?;
    let path = |key| Ok::<PathBuf, ConfigError>(base.join(table.required(key)?.text()?));
    Ok(ListenerConfig {
        address: table
            .required("address")?
            .parsed::<SocketAddr>("an IP address and a port, as in \"127.0.0.1:7433\" or \"[::1]:7433\"")?,
        zone: zone(table)?,
        principal: table.required("principal")?.word(&[
            ("spiffe", PrincipalSource::Spiffe),
            ("dns", PrincipalSource::Dns),
            ("cn", PrincipalSource::CommonName),
        ])?,
        trust_domain: trust_domain(table)?,
        certificate: path("certificate")?,
        key: path("key")?,
        client_ca: path("client_ca")?,
        revocation: revocation(table, base)?,
    })
}

/// The names that a policy can say, and no others, since a zone that no rule can name would be a trap.
fn zone(table: &Table<'_>) -> Result<String, ConfigError> {
    let value = table.required("zone")?;
    let zone = value.text()?;
    Name::parse(zone).map_err(|_| {
        value.unexpected(format_args!(
            "a name of at most {POLICY_NAME_BYTES_MAX} letters, digits, '.', '_' and '-'"
        ))
    })?;
    Ok(zone.to_owned())
}

fn trust_domain(table: &Table<'_>) -> Result<String, ConfigError> {
    let value = table.required("trust_domain")?;
    let domain = value.text()?;
    check_trust_domain(domain)
        .map_err(|_| value.unexpected("a trust domain, made of a-z, 0-9, '.', '_' and '-'"))?;
    Ok(domain.to_owned())
}

/// How revocation is known.
#[derive(Clone, Copy)]
enum RevocationWord {
    Crl,
    ShortLived,
}

fn revocation(table: &Table<'_>, base: &Path) -> Result<Revocation, ConfigError> {
    let words = [("crl", RevocationWord::Crl), ("short-lived", RevocationWord::ShortLived)];
    match (table.required("revocation")?.word(&words)?, table.optional("crl")) {
        (RevocationWord::Crl, _) => Ok(Revocation::Crl(base.join(table.required("crl")?.text()?))),
        (RevocationWord::ShortLived, None) => Ok(Revocation::ShortLived),
        (RevocationWord::ShortLived, Some(crl)) => Err(crl.error(ConfigFault::Conflict {
            message: "`crl` is given, and `revocation = \"short-lived\"` would not read it".to_owned(),
        })),
    }
}

/// Why two listeners cannot both be.
fn conflict(one: &ListenerConfig, other: &ListenerConfig) -> Option<String> {
    if one.address == other.address && one.address.port() != 0 {
        return Some(format!("another listener has the address {}", one.address));
    }
    let same_names = match (one.principal, other.principal) {
        (PrincipalSource::Dns, PrincipalSource::Dns)
        | (PrincipalSource::CommonName, PrincipalSource::CommonName) => true,
        // A SPIFFE ID holds its trust domain, and names of two sources are never equal.
        (PrincipalSource::Spiffe | PrincipalSource::Dns | PrincipalSource::CommonName, _) => false,
    };
    (same_names && one.trust_domain != other.trust_domain).then(|| {
        format!(
            "principals of source \"{}\" are of trust domain {} on one listener and of {} on another, and one name \
             would stand for two",
            one.principal, one.trust_domain, other.trust_domain
        )
    })
}

fn limits(table: &Table<'_>) -> Result<LimitsConfig, ConfigError> {
    table.allow_only(
        &[
            "connections_max",
            "handshakes_max",
            "handshakes_per_source_max",
            "handshake_timeout_ms",
            "outbox_bytes_max",
            "subscriptions_max",
            "marker_timeout_ms",
            "drain_timeout_ms",
        ],
        &[],
    )?;
    let default = LimitsConfig::default();
    let count = |key, range, default| match table.optional(key) {
        Some(value) => value.number::<usize>(range),
        None => Ok(default),
    };
    let time = |key, range, default| match table.optional(key) {
        Some(value) => value.number::<u64>(range),
        None => Ok(default),
    };
    let handshakes_max = count("handshakes_max", 1..=10_000, default.handshakes_max)?;
    Ok(LimitsConfig {
        connections_max: count("connections_max", 1..=1_000_000, default.connections_max)?,
        handshakes_max,
        handshakes_per_source_max: count(
            "handshakes_per_source_max",
            1..=handshakes_max,
            default.handshakes_per_source_max.min(handshakes_max),
        )?,
        handshake_timeout_ms: time("handshake_timeout_ms", 100..=60_000, default.handshake_timeout_ms)?,
        outbox_bytes_max: count(
            "outbox_bytes_max",
            2 * BATCH_BYTES_MAX..=1_024 * 1_024 * 1_024,
            default.outbox_bytes_max,
        )?,
        subscriptions_max: count("subscriptions_max", 1..=10_000_000, default.subscriptions_max)?,
        marker_timeout_ms: time("marker_timeout_ms", 10..=10_000, default.marker_timeout_ms)?,
        drain_timeout_ms: time("drain_timeout_ms", 0..=600_000, default.drain_timeout_ms)?,
    })
}

fn storage(table: &Table<'_>, base: &Path) -> Result<StorageConfig, ConfigError> {
    table.allow_only(&["log_key", "segment_bytes", "reserve", "interval_ms", "writers"], &[])?;
    let mut storage = StorageConfig::default();
    if let Some(value) = table.optional("log_key") {
        storage.log_key = Some(base.join(value.text()?));
    }
    if let Some(value) = table.optional("segment_bytes") {
        storage.segment_bytes = value.bytes(64 * 1_024..=1_024 * 1_024 * 1_024)?;
    }
    if let Some(value) = table.optional("reserve") {
        storage.reserve_bytes = value.bytes(1_024 * 1_024..=1_024 * 1_024 * 1_024 * 1_024)?;
    }
    if let Some(value) = table.optional("interval_ms") {
        storage.interval_ms = value.number(10..=60_000)?;
    }
    if let Some(value) = table.optional("writers") {
        storage.writers = value.number(1..=8)?;
    }
    Ok(storage)
}

fn audit(table: &Table<'_>) -> Result<AuditConfig, ConfigError> {
    table.allow_only(&["queue_events_max", "sync_within_ms", "singles_per_second_max"], &[])?;
    let mut audit = AuditConfig::default();
    if let Some(value) = table.optional("queue_events_max") {
        audit.queue_events_max = value.number(64..=1_000_000)?;
    }
    if let Some(value) = table.optional("sync_within_ms") {
        audit.sync_within_ms = value.number(1..=900)?;
    }
    if let Some(value) = table.optional("singles_per_second_max") {
        audit.singles_per_second_max = value.number(1..=1_000)?;
    }
    Ok(audit)
}

fn log(table: &Table<'_>) -> Result<LogConfig, ConfigError> {
    table.allow_only(&["format", "filter"], &[])?;
    let mut log = LogConfig::default();
    if let Some(value) = table.optional("format") {
        log.format = value.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
    }
    if let Some(value) = table.optional("filter") {
        log.filter = value.text()?.to_owned();
    }
    Ok(log)
}
