//! `sealbus init`: a bus in a folder.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::bus_folder::{BusFolder, NewBus, OPERATOR};
use crate::failure::{Failure, Verdict};
use crate::output;
use crate::table::fields;

/// Make a bus in a folder: CA, broker certificate, operator identity, configuration, policy, trust.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealbus init bus --host bus.example --address 0.0.0.0:7433\n\n\
                        The CA is for development. With your own PKI, put its files where sealbus.toml and trust.toml \
                        point.")]
pub(crate) struct InitArguments {
    /// The folder, which must not exist or be empty.
    dir: PathBuf,
    /// The SPIFFE trust domain of the bus's principals.
    #[arg(long, default_value = "bus.local", value_name = "NAME")]
    trust_domain: String,
    /// A further DNS name or IP address of the broker; may be given several times.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:7433", value_name = "IP:PORT")]
    address: SocketAddr,
}

pub(crate) fn run(arguments: &InitArguments) -> Result<Verdict, Failure> {
    let InitArguments { dir, trust_domain, hosts, address } = arguments;
    let new = NewBus { trust_domain: trust_domain.clone(), hosts: hosts.clone(), address: *address };
    let (folder, made) = BusFolder::create(dir, &new)?;
    let shown = |part: &str| folder.path(part).display().to_string();
    let made = fields([
        ("bus id", made.bus_id.to_string()),
        ("authority", format!("{} (its key beside it: keep it safe)", shown("ca/ca.pem"))),
        ("revocation", shown("ca/crl.pem")),
        ("broker", format!("{} for {}", shown("broker/tls.crt"), made.broker_names.join(", "))),
        ("operator", format!("{} as {}", folder.identity(OPERATOR).display(), made.operator)),
        ("signing key", format!("{} is {}", shown("operator/signing.key"), made.operator_key)),
        ("checkpoints", format!("signed with {}, key {}", shown("broker/log.key"), made.log_key)),
        ("broker config", shown("sealbus.toml")),
        ("policy", format!("{} (only the operator may do anything yet)", shown("policy.toml"))),
        ("trust", shown("trust.toml")),
    ]);
    let operator = folder.identity(OPERATOR);
    let next = format!(
        "\nNext:\n  sealbus serve --config {}\n  sealbus identity issue billing --dir {}\n  sealbus --context {} \
         audit tail -f\n",
        shown("sealbus.toml"),
        dir.display(),
        operator.display(),
    );
    output::print(&(made + &next))?;
    Ok(Verdict::Done)
}
