//! `sealbus consumer list|show|reset`: durable consumers, as the broker remembers them.

use clap::{Args, Subcommand};
use sealbus_client::{Code, ConsumerInfo, RequestError, Start};
use serde_json::{Value, json};

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::start;
use crate::table::{Table, fields};
use crate::text::{count, span, thousands};

/// Durable consumers of streams (verb `describe` or `admin`).
#[derive(Debug, Subcommand)]
pub(crate) enum ConsumerCommand {
    /// List the consumers, all or those of one stream.
    List(ListArguments),
    /// Show where a consumer stands, and its settings.
    Show(ShowArguments),
    /// Let a consumer go on from another place (verb `admin`).
    Reset(ResetArguments),
}

/// Arguments of `consumer list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealbus consumer list\n  sealbus consumer list flights -o json")]
pub(crate) struct ListArguments {
    /// Only those of this stream.
    stream: Option<String>,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Arguments of `consumer show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealbus consumer show flights billing\n\n\
                        Lag is the number of messages that are not settled: those that nobody has got yet, and those \
                        that are unacknowledged.")]
pub(crate) struct ShowArguments {
    /// The stream.
    stream: String,
    /// The consumer.
    name: String,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Arguments of `consumer reset`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealbus consumer reset flights billing --to earliest   everything once more\n  \
                        sealbus consumer reset flights billing --to end        nothing that is there now\n  \
                        sealbus consumer reset flights billing --to time:2h"
)]
pub(crate) struct ResetArguments {
    /// The stream.
    stream: String,
    /// The consumer.
    name: String,
    /// From where on it is to go: earliest, end, offset:N, last:N, time:MOMENT or time:AGO.
    #[arg(long, value_name = "START", value_parser = start::parse)]
    to: Start,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub(crate) async fn run(
    command: &ConsumerCommand,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let who = bus.principal().to_string();
    match command {
        ConsumerCommand::List(ListArguments { stream, output }) => {
            let attempted = || match stream {
                Some(stream) => format!("list the consumers of {stream} as {who}"),
                None => format!("list the consumers as {who}"),
            };
            let consumers = bus.consumers(stream.as_deref()).await;
            let consumers = consumers.map_err(|error| failed(attempted(), &error))?;
            if consumers.is_empty() {
                eprintln!("none that {who} may see");
            }
            list(&consumers, *output)?;
        }
        ConsumerCommand::Show(ShowArguments { stream, name, output }) => {
            let attempted = || format!("show the consumer {name} of {stream} as {who}");
            let consumers = bus.consumers(Some(stream)).await;
            let consumers = consumers.map_err(|error| failed(attempted(), &error))?;
            let consumer = consumers.iter().find(|consumer| consumer.name.as_str() == name);
            let consumer = consumer.ok_or_else(|| {
                Failure::new(attempted(), "there is none that this principal may see")
                    .advising("`sealbus consumer list` shows those that there are")
            })?;
            show(consumer, *output)?;
        }
        ConsumerCommand::Reset(ResetArguments { stream, name, to, output }) => {
            let position = bus.reset_consumer(stream, name, *to).await;
            let attempted = || format!("reset the consumer {name} of {stream} as {who}");
            let position = position.map_err(|error| failed(attempted(), &error))?;
            let object = || json!({"stream": stream, "consumer": name, "position": position});
            match output {
                Format::Table => output::print(&fields([
                    ("stream", stream.clone()),
                    ("consumer", name.clone()),
                    ("goes on from", format!("offset {position}")),
                ]))?,
                Format::Json => output::print(&format!("{:#}\n", object()))?,
                Format::Jsonl => output::print(&format!("{}\n", object()))?,
            }
        }
    }
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    Ok(Verdict::Done)
}

fn failed(attempted: String, error: &RequestError) -> Failure {
    let failure = match error {
        RequestError::Name(_) => Failure::usage(attempted, error),
        _ => Failure::new(attempted, error),
    };
    match error.code() {
        Some(Code::Denied) => failure
            .advising("a rule must give this principal the verb `describe` on the stream; to reset, `admin`"),
        Some(_) | None => failure,
    }
}

fn list(consumers: &[ConsumerInfo], format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let heads =
                ["stream", "consumer", "filter", "position", "lag", "unacked", "again", "dead", "members"];
            let mut table = Table::new(heads);
            for consumer in consumers {
                table.row([
                    consumer.stream.to_string(),
                    consumer.name.to_string(),
                    filter(consumer),
                    consumer.position.to_string(),
                    thousands(consumer.lag),
                    consumer.unacknowledged.to_string(),
                    consumer.redelivering.to_string(),
                    thousands(consumer.dead),
                    consumer.members.to_string(),
                ]);
            }
            output::print(&table.render())
        }
        Format::Json => output::print_json(&objects(consumers), output::JsonForm::Document),
        Format::Jsonl => output::print_json(&objects(consumers), output::JsonForm::Lines),
    }
}

fn show(consumer: &ConsumerInfo, format: Format) -> Result<(), Failure> {
    let limit = |number: u32| match number {
        0 => "without limit".to_owned(),
        number => number.to_string(),
    };
    match format {
        Format::Table => output::print(&fields([
            ("stream", consumer.stream.to_string()),
            ("consumer", consumer.name.to_string()),
            ("filter", filter(consumer)),
            ("position", format!("{} of {}: everything below is settled", consumer.position, consumer.end)),
            ("lag", count(consumer.lag, "message", "messages")),
            (
                "unacknowledged",
                format!(
                    "{} of at most {}, of which {} wait to be delivered again",
                    consumer.unacknowledged, consumer.unacknowledged_max, consumer.redelivering
                ),
            ),
            ("members", consumer.members.to_string()),
            (
                "so far",
                format!(
                    "{} delivered, {} acknowledged, {} dead letters",
                    thousands(consumer.delivered),
                    thousands(consumer.acknowledged),
                    thousands(consumer.dead)
                ),
            ),
            ("ack wait", span(u64::from(consumer.ack_wait_ms))),
            ("deliveries", limit(consumer.max_deliver)),
        ])),
        Format::Json => output::print(&format!("{:#}\n", object(consumer))),
        Format::Jsonl => output::print(&format!("{}\n", object(consumer))),
    }
}

fn filter(consumer: &ConsumerInfo) -> String {
    consumer.filter.as_ref().map_or_else(|| "#".to_owned(), |filter| filter.as_str().to_owned())
}

fn objects(consumers: &[ConsumerInfo]) -> Vec<Value> {
    consumers.iter().map(object).collect()
}

/// A consumer as JSON. A filter that is not there, and a limit that is none, are null.
pub(crate) fn object(consumer: &ConsumerInfo) -> Value {
    json!({
        "stream": consumer.stream.as_str(),
        "consumer": consumer.name.as_str(),
        "filter": consumer.filter.as_ref().map(|filter| filter.as_str()),
        "position": consumer.position,
        "end": consumer.end,
        "lag": consumer.lag,
        "unacknowledged": consumer.unacknowledged,
        "redelivering": consumer.redelivering,
        "members": consumer.members,
        "delivered": consumer.delivered,
        "acknowledged": consumer.acknowledged,
        "dead_letters": consumer.dead,
        "ack_wait_ms": consumer.ack_wait_ms,
        "max_deliver": Some(consumer.max_deliver).filter(|times| *times != 0),
        "unacknowledged_max": consumer.unacknowledged_max,
    })
}
