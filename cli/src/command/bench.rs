//! `sealbus bench pubsub|latency`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::bench::{self, Amount, Durable, Latency, Pubsub};
use crate::command::block_on;
use crate::failure::{Failure, Verdict};
use crate::output;

/// Measure: broker in a process of its own, publishers and subscribers over mutual TLS, in a temporary folder.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// How many messages go through. Publishers stay at most a few MiB ahead of the slowest subscriber, so that none
    /// is lost; the latency is that of a busy bus. With --durable: how many are acknowledged once they are on the disk.
    Pubsub(PubsubArguments),
    /// How long a message takes at a given rate, from the moment it was meant to be sent.
    Latency(LatencyArguments),
}

/// Arguments of `bench pubsub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealbus bench pubsub --size 1024 --json\n  sealbus bench pubsub --durable --size 1024 \
                        --json --dir /var/lib\n\n\
                        With --durable the broker's groups are read from its log afterwards, and a bare loop writes and \
                        syncs the same sizes on the same disk: the ratio is what the bus costs beside the disk."
)]
pub(crate) struct PubsubArguments {
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    size: u32,
    /// How long to publish.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How many messages to publish in all, instead of --seconds.
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Publishers, each with its own connection and topic: 1, but with --durable 1 and then 8.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    publishers: Option<u32>,
    /// Subscribers, each with its own connection; each receives everything.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    subscribers: u32,
    /// Publish to a stream, without subscribers, and count what is acknowledged after fdatasync.
    #[arg(long, conflicts_with = "subscribers")]
    durable: bool,
    /// Where the temporary folder is made, which says which disk is measured.
    #[arg(long, value_name = "DIR", requires = "durable")]
    dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench latency`.
#[derive(Debug, Args)]
pub(crate) struct LatencyArguments {
    /// Messages per second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    size: u32,
    /// How long to publish.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &BenchCommand) -> Result<Verdict, Failure> {
    match command {
        BenchCommand::Pubsub(arguments) => block_on(pubsub(arguments)),
        BenchCommand::Latency(arguments) => block_on(latency(arguments)),
    }
}

async fn pubsub(arguments: &PubsubArguments) -> Result<Verdict, Failure> {
    let amount = match arguments.messages {
        Some(messages) => Amount::Messages(messages),
        None => Amount::Seconds(arguments.seconds),
    };
    if arguments.durable {
        return durable(arguments, amount).await;
    }
    let measured = Pubsub {
        size_bytes: arguments.size,
        amount,
        publishers: arguments.publishers.unwrap_or(1),
        subscribers: arguments.subscribers,
    };
    tell(&bench::pubsub(&measured).await?, arguments.json)
}

async fn durable(arguments: &PubsubArguments, amount: Amount) -> Result<Verdict, Failure> {
    let measured = Durable {
        size_bytes: arguments.size,
        amount,
        publishers: arguments.publishers.map_or_else(|| vec![1, 8], |publishers| vec![publishers]),
        dir: arguments.dir.clone(),
    };
    let report = bench::durable(&measured).await?;
    let text = if arguments.json { format!("{}\n", report.json()) } else { report.table() };
    output::print(&text)?;
    Ok(report.verdict())
}

async fn latency(arguments: &LatencyArguments) -> Result<Verdict, Failure> {
    let LatencyArguments { rate, size, seconds, json } = arguments;
    let report =
        bench::latency(&Latency { messages_per_second: *rate, size_bytes: *size, seconds: *seconds }).await?;
    tell(&report, *json)
}

fn tell(report: &bench::Report, as_json: bool) -> Result<Verdict, Failure> {
    if as_json {
        output::print(&format!("{}\n", report.json()))?;
    } else {
        output::print(&report.table())?;
    }
    Ok(report.verdict())
}
