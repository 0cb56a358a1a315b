//! `sealbus consume`: a share of a durable consumer's work.
//!
//! ```text
//!   message ──> written to stdout and flushed ──> ack
//!           └─> --exec: a command of its own ──exit 0──> ack
//!                                            └─otherwise─> nack, and again after the backoff
//! ```
//!
//! One message is dealt with at a time, so that their order is kept within what this member gets.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use sealbus_client::{Bus, Code, Consumer, DeliveryError, Message, SettleError, Start, SubscribeError};
use sealbus_protocol::policy::parse_duration_ms;

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::receiving::{Form, MessageFormat, Printer, Tally};
use crate::signals::Signals;
use crate::start;
use crate::talk;
use crate::text::visible;

mod handler;

use handler::{Handled, Handler};

/// How long nothing may come before there is nothing more, with --no-wait.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes of batches that are sent ahead of who takes few: the least that can be asked for.
const FEW_BYTES: u64 = 4_096;

/// Messages that are printed before they are acknowledged together, when they come faster than they are written.
const UNACKNOWLEDGED_HERE_MAX: usize = 256;

/// Take messages from a durable consumer and acknowledge them (verb `consume`).
///
/// The consumer is made when it is not there, and remembered by the broker: what is not acknowledged is delivered
/// again, to this member or another of the same name, at least once each.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArguments {
    /// The stream.
    stream: String,
    /// The consumer; members that give the same name share its work.
    #[arg(long)]
    name: String,
    /// Only topics that match; fixed when the consumer is made.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Where a new consumer begins: earliest, end, offset:N, last:N, a moment, or how long ago, like 2h.
    #[arg(long, value_name = "START", default_value = "earliest", value_parser = start::parse)]
    from: Start,
    /// How long a message may be unacknowledged before it is delivered again, like 30s.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    ack_wait: Option<Duration>,
    /// How often a message is delivered before it becomes a dead letter; 0 is without limit.
    #[arg(long, value_name = "N")]
    max_deliver: Option<u32>,
    /// The pauses before the second, third and further deliveries; the last is used again.
    #[arg(long, value_name = "SPAN,..", value_parser = span, value_delimiter = ',')]
    backoff: Vec<Duration>,
    /// How many messages the group may have unacknowledged at a time.
    #[arg(long, value_name = "N")]
    unacknowledged_max: Option<NonZeroU32>,
    /// Run this with `sh -c` for each message: exit 0 acknowledges it, anything else has it delivered again.
    #[arg(long, value_name = "CMD", conflicts_with_all = ["output", "raw"])]
    exec: Option<String>,
    /// How messages are printed.
    #[arg(short, long, default_value = "pretty")]
    output: MessageFormat,
    /// Print payloads alone, each followed by a line end.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing has come for a second.
    #[arg(long)]
    no_wait: bool,
}

const EXAMPLES: &str = "\
Examples:
  sealbus consume flights --name billing
  sealbus consume flights --name billing --no-wait -o jsonl > new.jsonl
  sealbus consume flights --name mailer --backoff 1s,10s,1m --max-deliver 8 --exec ./send-mail

With --exec the command gets the payload on stdin, and in its environment SEALBUS_STREAM, SEALBUS_TOPIC,
SEALBUS_OFFSET, SEALBUS_PRODUCER, SEALBUS_SEQUENCE, SEALBUS_KEY (when it is text), SEALBUS_STORED, SEALBUS_DELIVERIES
and SEALBUS_CONSUMER. Nothing of a message ever becomes part of the command line. Its stdout and stderr are ours. One
command runs at a time; messages that wait longer than --ack-wait for theirs are delivered again, so that a slow
command wants a longer one or a smaller --unacknowledged-max.

Settings count when the consumer is made; one that is there with others is refused with CONFLICT.
Exit codes:
  0  every message that came was acknowledged
  1  something was refused as not proven, a command did not end with 0, or consuming failed";

fn span(text: &str) -> Result<Duration, String> {
    parse_duration_ms(text).map(Duration::from_millis).map_err(|error| error.to_string())
}

pub(crate) async fn run(
    arguments: &ConsumeArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let ConsumeArguments { stream, name, .. } = arguments;
    let bus = connect(arguments, &Context::resolve(connection)?).await?;
    let talk = talk::follow(bus.events());
    let consumer = join(arguments, &bus).await?;
    eprintln!("READY {} as {}", visible(stream), visible(name));
    if consumer.narrowed() {
        eprintln!("narrowed: the policy grants only some of it");
    }
    let from = format!("{stream} as {name}");
    let mut run = Run { consumer, from, tally: Tally::default(), settled: Settled::default() };
    let ended = match &arguments.exec {
        Some(command) => run.execute(&Handler::new(command, name), arguments).await,
        None => {
            let form = Form::of(arguments.output, arguments.raw.into());
            run.print(Printer::new(form), arguments).await
        }
    };
    let Run { consumer, tally, settled, .. } = run;
    drop(consumer);
    talk.abort();
    eprintln!(
        "{}, acknowledged {}, given back {}",
        tally.of_kept(),
        settled.acknowledged,
        settled.given_back
    );
    // What was queued is sent before it closes; whether everything is durable was asked before.
    let closed = bus.close().await;
    ended?;
    closed.map_err(|error| Failure::new(format!("send the last acknowledgements of {name}"), error))?;
    Ok(if settled.given_back == 0 { tally.verdict() } else { Verdict::Refused })
}

/// Connects. Who deals with messages slowly, or will leave some, has few sent ahead: each of those counts as delivered,
/// and others of the group wait for them.
async fn connect(arguments: &ConsumeArguments, context: &Context) -> Result<Bus, Failure> {
    let (identity, trust) = context.load()?;
    let mut builder = sealbus_client::builder().server(&context.server).identity(identity).trust(trust);
    if arguments.exec.is_some() || arguments.count.is_some() {
        builder = builder.credit_bytes(FEW_BYTES);
    }
    builder.connect().await.map_err(|error| context.not_connected(&error))
}

async fn join(arguments: &ConsumeArguments, bus: &Bus) -> Result<Consumer, Failure> {
    let ConsumeArguments { stream, name, filter, from, .. } = arguments;
    let mut consume = bus.consume(stream, name).from(*from).backoff(arguments.backoff.iter().copied());
    if let Some(filter) = filter {
        consume = consume.filter(filter);
    }
    if let Some(wait) = arguments.ack_wait {
        consume = consume.ack_wait(wait);
    }
    if let Some(times) = arguments.max_deliver {
        consume = consume.max_deliver(times);
    }
    if let Some(messages) = arguments.unacknowledged_max {
        consume = consume.unacknowledged_max(messages);
    }
    consume.await.map_err(|error| {
        let advice = match error.code() {
            Some(Code::Conflict) => format!(
                "`sealbus consumer show {stream} {name}` shows the settings that it has; leave out what is to stay"
            ),
            Some(_) | None => format!(
                "`sealbus policy can-i consume {stream}` names the rule; a stream that is not there is denied too"
            ),
        };
        let attempted = format!("consume {stream} as {name} with the identity {}", bus.principal());
        match error {
            SubscribeError::Settings(_) => Failure::usage(attempted, error),
            error => Failure::new(attempted, error).advising(advice),
        }
    })
}

/// A run over what comes.
struct Run {
    consumer: Consumer,
    /// What is consumed, in words.
    from: String,
    tally: Tally,
    settled: Settled,
}

/// What became of the messages.
#[derive(Debug, Default)]
struct Settled {
    acknowledged: u64,
    given_back: u64,
}

/// What to do next.
enum Woken {
    Stop,
    Idle,
    Delivery(Option<Result<Message, DeliveryError>>),
    Pause,
}

impl Run {
    /// Prints what comes, and acknowledges what has been written.
    async fn print(&mut self, mut printer: Printer, arguments: &ConsumeArguments) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let mut written: Vec<Message> = Vec::new();
        while arguments.count.is_none_or(|count| self.tally.received < count) {
            let woken = tokio::select! {
                biased;
                () = signals.stop() => Woken::Stop,
                delivery = self.consumer.next(), if written.len() < UNACKNOWLEDGED_HERE_MAX => Woken::Delivery(delivery),
                () = std::future::ready(()), if !written.is_empty() => Woken::Pause,
                () = tokio::time::sleep(IDLE), if arguments.no_wait => Woken::Idle,
            };
            match woken {
                Woken::Stop | Woken::Idle | Woken::Delivery(None) => break,
                Woken::Pause => self.acknowledge(&mut printer, &mut written, Last::No).await?,
                Woken::Delivery(Some(Ok(message))) => {
                    self.tally.received = self.tally.received.saturating_add(1);
                    printer.print(&message)?;
                    written.push(message);
                }
                Woken::Delivery(Some(Err(error))) => self.tally.note(&error, &self.from)?,
            }
        }
        self.acknowledge(&mut printer, &mut written, Last::Yes).await
    }

    /// Only what has left this process is acknowledged. The last one is waited for: acknowledgements are dealt with in
    /// their order, so that those before it are durable then, too.
    async fn acknowledge(
        &mut self,
        printer: &mut Printer,
        written: &mut Vec<Message>,
        last: Last,
    ) -> Result<(), Failure> {
        printer.flush()?;
        let newest = written.len().saturating_sub(1);
        for (index, message) in written.drain(..).enumerate() {
            let settled = match last {
                Last::Yes if index == newest => message.ack_sync().await,
                Last::Yes | Last::No => message.ack().await,
            };
            settled.map_err(|error| not_settled(&message, &error))?;
            self.settled.acknowledged = self.settled.acknowledged.saturating_add(1);
        }
        Ok(())
    }

    /// Runs a command for each message, one at a time.
    async fn execute(&mut self, handler: &Handler, arguments: &ConsumeArguments) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        while arguments.count.is_none_or(|count| self.tally.received < count) {
            let woken = tokio::select! {
                biased;
                () = signals.stop() => Woken::Stop,
                delivery = self.consumer.next() => Woken::Delivery(delivery),
                () = tokio::time::sleep(IDLE), if arguments.no_wait => Woken::Idle,
            };
            let message = match woken {
                Woken::Stop | Woken::Idle | Woken::Pause | Woken::Delivery(None) => break,
                Woken::Delivery(Some(Err(error))) => {
                    self.tally.note(&error, &self.from)?;
                    continue;
                }
                Woken::Delivery(Some(Ok(message))) => message,
            };
            self.tally.received = self.tally.received.saturating_add(1);
            // A command that has begun is waited for: a signal to the terminal's group reaches it as well as us.
            match handler.handle(&message).await? {
                Handled::Done => {
                    message.ack_sync().await.map_err(|error| not_settled(&message, &error))?;
                    self.settled.acknowledged = self.settled.acknowledged.saturating_add(1);
                }
                Handled::Failed(how) => {
                    let place = place(&message);
                    eprintln!("given back: {place}, delivery {}: the command {how}", message.deliveries());
                    // No delay of our own: the consumer's backoff counts.
                    let back = message.nack(Duration::ZERO).await;
                    back.map_err(|error| not_settled(&message, &error))?;
                    self.settled.given_back = self.settled.given_back.saturating_add(1);
                }
            }
        }
        Ok(())
    }
}

/// Whether more will be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

fn place(message: &Message) -> String {
    let offset = message.offset().map_or_else(|| "no offset".to_owned(), |offset| format!("offset {offset}"));
    visible(&format!("{offset} on {}", message.topic())).into_owned()
}

fn not_settled(message: &Message, error: &SettleError) -> Failure {
    Failure::new(format!("acknowledge the message at {}", place(message)), error)
        .advising("it will be delivered again: consume once more")
}
