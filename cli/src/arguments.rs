//! What can be said on the command line. Each command's own arguments stand in its file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    audit, bench, completions, consume, consumer, context, demo, identity, init, policy, publish, replay,
    serve, stats, stream, subscribe,
};

const AFTER_HELP: &str = "\
Exit codes:
  0  done, or the answer is yes
  1  refused, denied or failed; stderr says what was attempted, what was found and what to do
  2  the arguments cannot be obeyed
`stream verify` has some of its own; its help lists them.

Start here:
  sealbus demo                                  everything at once on real data
  sealbus init bus                              a bus in a folder
  sealbus serve --config bus/sealbus.toml       its broker
  sealbus --context bus/identities/operator audit tail -f";

/// Sealbus: a message bus for services that trust neither the network, nor the disks, nor the bus.
#[derive(Debug, Parser)]
#[command(name = "sealbus", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which bus, and as whom. A context says all three at once; the others replace what it says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArguments {
    /// A context: a folder with context.toml, such a file, or a name given by `context add`.
    #[arg(long, global = true, env = "SEALBUS_CONTEXT", value_name = "PATH_OR_NAME")]
    pub(crate) context: Option<String>,
    /// The broker's address.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// The folder with tls.crt and tls.key.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// The trust.toml that says who is believed.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArguments),
    Init(init::InitArguments),
    Serve(serve::ServeArguments),
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    #[command(subcommand)]
    Context(context::ContextCommand),
    #[command(name = "pub")]
    Publish(publish::PublishArguments),
    #[command(name = "sub")]
    Subscribe(subscribe::SubscribeArguments),
    Replay(replay::ReplayArguments),
    Consume(consume::ConsumeArguments),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    #[command(subcommand)]
    Consumer(consumer::ConsumerCommand),
    Stats(stats::StatsArguments),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Completions(completions::CompletionsArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
