//! `sealbus identity issue|show`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealbus_protocol::identity::{CertificateFacts, ClientAuth, PrincipalSource};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::arguments::ConnectionArguments;
use crate::bus_folder::BusFolder;
use crate::context::{Context, read_bounded};
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::table::fields;
use crate::text;

/// Bytes of a certificate file; a chain has a few thousand.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// Issue and show certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Issue a certificate for a service, from the development CA of a bus's folder.
    #[command(after_help = "Example:\n  sealbus identity issue billing --dir bus\n\n\
                            The policy decides what the new principal may do: nothing, until a rule allows it.")]
    Issue {
        /// The service's name; its principal is spiffe://TRUST-DOMAIN/NAME.
        name: String,
        /// The folder that `sealbus init` made.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// A host name or IP address, for a service that serves TLS with this certificate too; may be given
        /// several times.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
    },
    /// Show whose certificate it is, and until when.
    Show {
        /// A folder with tls.crt, or a certificate file; the context's identity when left out.
        #[arg(value_name = "DIR|FILE")]
        path: Option<PathBuf>,
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
}

pub(crate) fn run(command: &IdentityCommand, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    match command {
        IdentityCommand::Issue { name, dir, hosts } => issue(name, dir, hosts),
        IdentityCommand::Show { path: Some(path), output } => show(path, *output),
        IdentityCommand::Show { path: None, output } => {
            show(&Context::resolve(connection)?.identity, *output)
        }
    }
}

fn issue(name: &str, dir: &Path, hosts: &[String]) -> Result<Verdict, Failure> {
    let folder = BusFolder::at(dir);
    let principal = folder.issue(name, hosts)?;
    let identity = folder.identity(name);
    let made = fields([
        ("principal", principal.to_string()),
        ("identity", identity.display().to_string()),
        ("context", format!("--context {}", identity.display())),
    ]);
    let next = format!(
        "\nIt may do nothing until a rule in {} allows it; then `sealbus policy reload`.\n",
        folder.path("policy.toml").display()
    );
    output::print(&(made + &next))?;
    Ok(Verdict::Done)
}

fn show(path: &Path, format: Format) -> Result<Verdict, Failure> {
    let file = if path.is_dir() { path.join("tls.crt") } else { path.to_owned() };
    let attempted = || format!("show the certificate in {}", file.display());
    let failed = |found: &dyn std::fmt::Display| Failure::new(attempted(), found);
    let pem = read_bounded(&file, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| failed(&format!("no certificate in PEM: {error}")))?;
    let facts = CertificateFacts::parse(&der).map_err(|error| failed(&error))?;
    let shown = Shown::new(&facts, &Sha256::digest(&der));
    match format {
        Format::Table => output::print(&shown.table())?,
        Format::Json => output::print(&format!("{:#}\n", shown.json()))?,
        Format::Jsonl => output::print(&format!("{}\n", shown.json()))?,
    }
    Ok(Verdict::Done)
}

/// What is shown of a certificate.
struct Shown {
    /// What each source would take as the principal; one that finds none is left out.
    principals: Vec<String>,
    serial: String,
    issuer: String,
    not_before_ms: u64,
    not_after_ms: u64,
    client_auth: ClientAuth,
    fingerprint: String,
}

impl Shown {
    fn new(facts: &CertificateFacts<'_>, sha256: &[u8]) -> Self {
        let sources = [PrincipalSource::Spiffe, PrincipalSource::Dns, PrincipalSource::CommonName];
        let found = sources.into_iter().filter_map(|source| facts.principal(source).ok());
        Self {
            principals: found.map(|principal| principal.to_string()).collect(),
            serial: facts.serial.to_string(),
            issuer: facts.issuer.to_string(),
            not_before_ms: facts.validity.not_before_ms,
            not_after_ms: facts.validity.not_after_ms,
            client_auth: facts.client_auth,
            fingerprint: text::hex(sha256),
        }
    }

    fn table(&self) -> String {
        let (first, others) = match self.principals.split_first() {
            Some((first, others)) => (first.clone(), others.join(", ")),
            None => ("none: no bus takes this certificate".to_owned(), String::new()),
        };
        let mut rows = vec![("principal", first)];
        if !others.is_empty() {
            rows.push(("also as", others));
        }
        rows.extend([
            ("serial", self.serial.clone()),
            ("issuer", self.issuer.clone()),
            ("valid from", text::rfc3339(self.not_before_ms)),
            ("valid until", format!("{} ({})", text::rfc3339(self.not_after_ms), self.time_left())),
            ("for clients", for_clients(self.client_auth).to_owned()),
            ("fingerprint", format!("SHA-256 {}", self.fingerprint)),
        ]);
        fields(rows)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "principal": self.principals.first(),
            "principals": self.principals,
            "serial": self.serial,
            "issuer": self.issuer,
            "valid_from": text::rfc3339(self.not_before_ms),
            "valid_until": text::rfc3339(self.not_after_ms),
            "client_auth": self.client_auth == ClientAuth::Named,
            "sha256": self.fingerprint,
        })
    }

    fn time_left(&self) -> String {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        match self.not_after_ms.checked_sub(text::now_ms()) {
            None => "expired".to_owned(),
            Some(left_ms) if left_ms < DAY_MS => format!("{} more hours", left_ms / (DAY_MS / 24)),
            Some(left_ms) => format!("{} more days", left_ms / DAY_MS),
        }
    }
}

fn for_clients(client_auth: ClientAuth) -> &'static str {
    match client_auth {
        ClientAuth::Named => "yes",
        ClientAuth::Absent => "no: its extended key usage does not name client authentication",
    }
}
