//! `sealbus serve`: the broker.

use std::fmt;
use std::hint::black_box;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use sealbus_broker::clock::{Clock, SystemClock};
use sealbus_broker::config::{Config, ListenerConfig, LogConfig, LogFormat, Revocation};
use sealbus_broker::vfs::OsVfs;
use sealbus_broker::{Broker, Parts, policy, tls};
use tracing_subscriber::EnvFilter;

use crate::command::block_on;
use crate::failure::{Failure, Verdict};
use crate::output;
use crate::style::Style;
use crate::table::{Table, fields};

/// Run a broker until SIGTERM or SIGINT; SIGHUP reloads policy, certificates, CAs and CRLs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealbus serve --config bus/sealbus.toml\n  sealbus serve --config \
                        bus/sealbus.toml --check")]
pub(crate) struct ServeArguments {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read configuration, certificates and policy, run the policy's tests, and exit.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &ServeArguments) -> Result<Verdict, Failure> {
    let path = &arguments.config;
    let attempted = || format!("read the configuration {}", path.display());
    let config = Config::load(&OsVfs, path).map_err(|error| {
        Failure::new(attempted(), error).advising("`sealbus init DIR` writes a configuration that works")
    })?;
    if arguments.check { check(&config) } else { serve(config, path) }
}

/// Everything that start-up reads is read as start-up reads it.
fn check(config: &Config) -> Result<Verdict, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let policy = policy::load_for(&OsVfs, config, 1, clock.now_ms())
        .map_err(|error| Failure::new(format!("use the policy {}", config.policy.display()), error))?;
    let mut listeners = Table::new(["listener", "zone", "principals", "revocation"]);
    for listener in &config.listeners {
        tls::load(&OsVfs, listener, Arc::clone(&clock)).map_err(|error| {
            Failure::new(format!("use the TLS files of the listener {}", listener.address), error)
        })?;
        let ListenerConfig { address, zone, principal, trust_domain, revocation, .. } = listener;
        let revocation = match revocation {
            Revocation::Crl(path) => format!("CRL {}", path.display()),
            Revocation::ShortLived => "short-lived certificates".to_owned(),
        };
        listeners.row([
            address.to_string(),
            zone.clone(),
            format!("{} of {trust_domain}", principal.as_str()),
            revocation,
        ]);
    }
    let summary = fields([
        ("bus id", config.bus_id.to_string()),
        ("data", config.data_dir.display().to_string()),
        ("policy", format!("{}: {}", config.policy.display(), policy.compiled.summary())),
        ("connections", format!("at most {}", config.limits.connections_max)),
    ]);
    let good = Style::of(&std::io::stdout()).green("good");
    output::print(&format!(
        "{summary}\n{}\nconfiguration, certificates and policy are {good}\n",
        listeners.render()
    ))?;
    Ok(Verdict::Done)
}

/// Bytes of the largest piece that the C library's allocator counts as worth keeping once it has seen it freed
/// (mallopt(3), `M_MMAP_THRESHOLD`: 32 MiB on 64-bit systems), less what it adds of its own.
const SEEN_FREED_BYTES: usize = 31 * 1_024 * 1_024;

/// Has the allocator keep what a busy connection frees, and not give it back to the system to ask for it again a moment
/// later: with the library's first guess, 128 KiB, that was a tenth of a busy broker's CPU time. It learns from the largest
/// piece that it sees freed; this one is never touched and takes no memory. An allocator that does not learn ignores it.
fn let_the_allocator_learn() {
    drop(black_box(Vec::<u8>::with_capacity(SEEN_FREED_BYTES)));
}

fn serve(config: Config, path: &Path) -> Result<Verdict, Failure> {
    // Private keys are in memory: no core dumps, and no other process of this user may attach.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::new("forbid core dumps of the broker", error))?;
    // The broker's own files have their modes whatever the mask is; the index's engine makes its files by the mask.
    umask(Mode::RWXG | Mode::RWXO);
    let_the_allocator_learn();
    start_log(&config.log)?;
    let attempted = format!("serve the bus of {}", path.display());
    block_on(async move {
        let broker =
            Broker::start(config, Parts::system()).await.map_err(|error| failed(&attempted, &error))?;
        let addresses: Vec<String> = broker.addresses().iter().map(ToString::to_string).collect();
        // Whoever reads this line may send a signal at once: it is said when the first poll has taken them over.
        let ready = async { eprintln!("listening on {}", addresses.join(", ")) };
        let (ended, ()) = tokio::join!(biased; broker.run_until_signalled(), ready);
        ended.map_err(|error| failed(&attempted, &error))?;
        Ok(Verdict::Done)
    })
}

fn failed(attempted: &str, error: &dyn fmt::Display) -> Failure {
    Failure::new(attempted, error)
        .advising("`sealbus serve --config FILE --check` reads everything and says what it is")
}

fn start_log(config: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| Failure::new(format!("log with the filter \"{}\"", config.filter), error))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => log
            .with_ansi(Style::of(&std::io::stderr()) == Style::Coloured && std::io::stderr().is_terminal())
            .init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
