//! `sealbus sub`: verified messages, as they come.

use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use sealbus_client::{DeliveryError, Message};

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::message_text::{JsonLine, pretty};
use crate::signals::Signals;
use crate::style::Style;
use crate::talk;
use crate::text::visible;

/// Bytes of stdout's buffer. It is flushed whenever the stream pauses.
const STDOUT_BUFFER_BYTES: usize = 256 * 1_024;

/// Receive messages, each verified up to the roots in trust.toml.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SubscribeArguments {
    /// Which topics: `+` is one level, a trailing `#` everything below.
    filter: String,
    /// How messages are printed.
    #[arg(short, long, default_value = "pretty")]
    output: MessageFormat,
    /// Print payloads alone, each followed by a line end.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  sealbus sub 'flights/#'
  sealbus sub 'flights/JFK/+' -o jsonl --count 100 > jfk.jsonl

stderr says READY when the subscription is in effect; lag, gaps and refused batches as they happen; and at the end
how many messages were received and missed. The exit code is 1 if anything was refused as not proven.";

/// How messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MessageFormat {
    /// For people; control characters are left out.
    Pretty,
    /// One JSON object to a line: topic, producer, sequence, offset, key, headers, time, and the payload as `json`,
    /// `text` or `payload_base64`.
    Jsonl,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Pretty(Style),
    Jsonl,
    Raw,
}

/// What came, and what did not.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    lagged: u64,
    gaps: u64,
    rejected: u64,
}

/// What the loop woke up for.
enum Woken {
    Stop,
    Delivery(Option<Result<Message, DeliveryError>>),
    Pause,
}

pub(crate) async fn run(
    arguments: &SubscribeArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let form = match (arguments.raw, arguments.output) {
        (true, _) => Form::Raw,
        (false, MessageFormat::Pretty) => Form::Pretty(Style::of(&io::stdout())),
        (false, MessageFormat::Jsonl) => Form::Jsonl,
    };
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let talk = talk::follow(bus.events());
    let filter = &arguments.filter;
    let mut subscription = bus.subscribe(filter).await.map_err(|error| {
        Failure::new(format!("subscribe to {filter} as {}", bus.principal()), error)
            .advising("`sealbus policy can-i subscribe TOPIC` names the rule")
    })?;
    let mut signals = Signals::listen()?;
    eprintln!("READY {}", visible(filter));
    let deadline =
        arguments.seconds.map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
    let stop = async {
        match deadline {
            Some(deadline) => tokio::select! {
                () = signals.stop() => {}
                () = tokio::time::sleep_until(deadline) => {}
            },
            None => signals.stop().await,
        }
    };
    let mut stop = std::pin::pin!(stop);
    let mut printer = Printer::new(form);
    let mut tally = Tally::default();
    let mut outcome = Ok(());
    while arguments.count.is_none_or(|count| tally.received < count) {
        // The last branch is always ready: it makes a pause in the stream visible, once, and then sleeps.
        let woken = tokio::select! {
            biased;
            () = &mut stop => Woken::Stop,
            delivery = subscription.next() => Woken::Delivery(delivery),
            () = std::future::ready(()), if printer.is_dirty => Woken::Pause,
        };
        let printed = match woken {
            Woken::Stop | Woken::Delivery(None) => break,
            Woken::Pause => printer.flush(),
            Woken::Delivery(Some(Ok(message))) => {
                tally.received = tally.received.saturating_add(1);
                printer.print(&message)
            }
            Woken::Delivery(Some(Err(error))) => {
                if let Err(failure) = tally.note(&error, filter) {
                    outcome = Err(failure);
                    break;
                }
                Ok(())
            }
        };
        if let Err(failure) = printed {
            outcome = Err(failure);
            break;
        }
    }
    outcome = outcome.and_then(|()| printer.flush());
    drop(subscription);
    talk.abort();
    eprintln!("{}", tally.summary());
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    outcome.map(|()| tally.verdict())
}

impl Tally {
    /// Tells and counts what came in place of a message.
    fn note(&mut self, error: &DeliveryError, filter: &str) -> Result<(), Failure> {
        match error {
            DeliveryError::Lagged { missed } => {
                self.lagged = self.lagged.saturating_add(*missed);
                eprintln!("lag: {error}");
            }
            DeliveryError::Gap { missed, .. } => {
                self.gaps = self.gaps.saturating_add(*missed);
                eprintln!("gap: {}", visible(&error.to_string()));
            }
            DeliveryError::Rejected(rejection) => {
                self.rejected = self.rejected.saturating_add(1);
                eprintln!("rejected: {}", visible(&rejection.to_string()));
            }
            DeliveryError::Closed(reason) => {
                return Err(Failure::new(format!("go on receiving {filter}"), reason));
            }
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let Self { received, lagged, gaps, rejected } = self;
        format!("received {received}, missed by lag {lagged}, gaps {gaps}, rejected {rejected}")
    }

    /// Lag and gaps are told, and nobody's fault; something that does not prove itself is not to pass as success.
    fn verdict(&self) -> Verdict {
        if self.rejected == 0 { Verdict::Done } else { Verdict::Refused }
    }
}

/// Stdout, buffered.
struct Printer {
    form: Form,
    stdout: BufWriter<StdoutLock<'static>>,
    line: JsonLine,
    is_dirty: bool,
}

impl Printer {
    fn new(form: Form) -> Self {
        let stdout = BufWriter::with_capacity(STDOUT_BUFFER_BYTES, io::stdout().lock());
        Self { form, stdout, line: JsonLine::default(), is_dirty: false }
    }

    fn print(&mut self, message: &Message) -> Result<(), Failure> {
        self.is_dirty = true;
        let written = match self.form {
            Form::Pretty(style) => self.stdout.write_all(pretty(message, style).as_bytes()),
            Form::Jsonl => self.stdout.write_all(self.line.of(message)),
            Form::Raw => self.stdout.write_all(message.payload()).and_then(|()| self.stdout.write_all(b"\n")),
        };
        written.map_err(|error| Failure::stdout(&error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.is_dirty = false;
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }
}
