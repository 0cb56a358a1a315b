//! `sealbus pub`: messages from an argument, a file, lines or JSON objects.
//!
//! ```text
//!   reader thread --(bounded channel)--> publishers, one for each topic --> receipts, in order, counted
//! ```
//!
//! A line is looked at as a whole before anything of it is published. Many messages are in flight at a time, within
//! two bounds: the bytes that a publisher holds, and [`RECEIPTS_MAX`].

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sealbus_client::{Bus, Outgoing, PendingReceipt, PublishError, Publisher};
use sealbus_protocol::limits::TOPICS_PER_CONNECTION_MAX;
use sealbus_protocol::topic::Topic;

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::signals::Signals;
use crate::talk;
use crate::text::thousands;

mod source;

use source::{Input, Item, Source, Templates};

/// Receipts that are awaited at a time. Each is a few words; together with the bytes that publishers may hold they
/// bound what a slow broker makes us keep.
const RECEIPTS_MAX: usize = 32_768;

/// Publish messages; ends when each is acknowledged.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").args(["payload", "file", "lines", "jsonl"]))]
pub(crate) struct PublishArguments {
    /// The topic; with --jsonl the template says it.
    #[arg(required_unless_present = "jsonl", conflicts_with = "jsonl")]
    topic: Option<String>,
    /// The payload of one message; without it and its alternatives, stdin is one message.
    payload: Option<String>,
    /// One message with the bytes of this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One message for each line of stdin.
    #[arg(long)]
    lines: bool,
    /// One message for each line of this file, which are JSON objects; `-` is stdin.
    #[arg(long, value_name = "FILE", requires = "topic_template")]
    jsonl: Option<PathBuf>,
    /// The topic of a JSON object, from its fields: 'flights/{origin}/{carrier}'.
    #[arg(long, value_name = "TEMPLATE", requires = "jsonl")]
    topic_template: Option<String>,
    /// The key of a JSON object, from its fields: '{tailnum}'.
    #[arg(long, value_name = "TEMPLATE", requires = "jsonl", conflicts_with = "key")]
    key_template: Option<String>,
    /// With --jsonl: leave out lines that are no object or do not fill the templates, and count them.
    #[arg(long, requires = "jsonl")]
    skip_bad: bool,
    /// A key for every message.
    #[arg(long)]
    key: Option<String>,
    /// A header for every message; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// How long a message may wait for its acknowledgement, reconnects included.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

const EXAMPLES: &str = "\
Examples:
  sealbus pub orders/eu/created '{\"id\":17}'
  sealbus pub logs/web --lines < access.log
  sealbus pub --jsonl flights.jsonl --topic-template 'flights/{origin}/{carrier}' --key-template '{tailnum}'

The last line on stderr is the exact number of acknowledged messages; the exit code is 0 only when that is all of them.";

pub(crate) async fn run(
    arguments: &PublishArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let source = source(arguments)?;
    let context = Context::resolve(connection)?;
    let (identity, trust) = context.load()?;
    let bus = sealbus_client::builder()
        .server(&context.server)
        .identity(identity)
        .trust(trust)
        .publish_timeout(Duration::from_secs(arguments.timeout.max(1)))
        .connect()
        .await
        .map_err(|error| context.not_connected(&error))?;
    let talk = talk::follow(bus.events());
    let mut run = Run::new(&bus, source.bytes_len());
    let ended = run.publish_all(source).await;
    run.finish().await;
    talk.abort();
    let verdict = run.tell(ended);
    // Everything was acknowledged or given up above; closing politely is worth a moment and no error.
    let _ = bus.close().await;
    verdict
}

fn source(arguments: &PublishArguments) -> Result<Source, Failure> {
    let topic = arguments.topic.as_deref().map(|topic| {
        Topic::parse(topic).map_err(|error| {
            Failure::usage(format!("publish to {topic}"), error)
                .advising("a topic is levels split by `/`, without `+` and `#`")
        })
    });
    let topic = topic.transpose()?;
    let headers = arguments.headers.iter().map(|header| {
        let pair = header.split_once('=').filter(|(name, _)| !name.is_empty());
        pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| {
            Failure::usage(format!("publish with the header {header}"), "it has no NAME=VALUE")
        })
    });
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let PublishArguments { payload, file, lines, jsonl, .. } = arguments;
    let input = match (topic, payload, file, lines, jsonl) {
        (None, _, _, _, Some(path)) => Input::Objects {
            path: path.clone(),
            templates: Templates::parse(
                arguments.topic_template.as_deref().unwrap_or_default(),
                arguments.key_template.as_deref(),
            )?,
            skip_bad: arguments.skip_bad,
        },
        (Some(topic), Some(payload), ..) => Input::Payload { topic, payload: payload.clone() },
        (Some(topic), None, Some(file), ..) => Input::File { topic, path: file.clone() },
        (Some(topic), None, None, true, _) => Input::Lines { topic },
        (Some(topic), None, None, false, _) => Input::Whole { topic },
        (None, _, _, _, None) => {
            return Err(Failure::usage("publish", "neither a topic nor --jsonl is given"));
        }
    };
    Source::open(input, arguments.key.clone(), headers)
}

/// How reading the source ended.
enum Ended {
    /// There is no more.
    All,
    /// A signal came.
    Interrupted,
    /// A line or message was not good, or the source could not be read.
    Bad(Failure),
}

/// A run over a source.
struct Run<'b> {
    bus: &'b Bus,
    publishers: HashMap<Topic, Publisher>,
    receipts: VecDeque<PendingReceipt>,
    acknowledged: u64,
    sent: u64,
    skipped: u64,
    unacknowledged: Option<PublishError>,
    bar: ProgressBar,
}

impl<'b> Run<'b> {
    fn new(bus: &'b Bus, bytes_len: Option<u64>) -> Self {
        // Hidden by itself when stderr is not a terminal.
        let bar = bytes_len.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match bytes_len {
            Some(_) => "{bar:32} {percent:>3}%  {msg}",
            None => "{spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bus,
            publishers: HashMap::new(),
            receipts: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            skipped: 0,
            unacknowledged: None,
            bar,
        }
    }

    async fn publish_all(&mut self, mut source: Source) -> Ended {
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(failure) => return Ended::Bad(failure),
        };
        while self.unacknowledged.is_none() {
            let item = tokio::select! {
                biased;
                () = signals.stop() => return Ended::Interrupted,
                item = source.next() => item,
            };
            match item {
                None => return Ended::All,
                Some(Item::Message { topic, message, read_bytes }) => {
                    if let Err(failure) = self.publish(topic, message).await {
                        return Ended::Bad(failure);
                    }
                    self.bar.set_position(read_bytes);
                }
                Some(Item::Skipped) => self.skipped = self.skipped.saturating_add(1),
                Some(Item::Failed(failure)) => return Ended::Bad(failure),
            }
        }
        Ended::All
    }

    async fn publish(&mut self, topic: Topic, message: Outgoing) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("publish to {topic} as {}", self.bus.principal()), error)
                .advising(format!("`sealbus policy can-i publish {topic}` names the rule"))
        };
        if !self.publishers.contains_key(&topic) {
            if self.publishers.len() >= TOPICS_PER_CONNECTION_MAX {
                self.settle_to(0).await;
                self.publishers.clear();
            }
            let publisher = self.bus.publisher(topic.as_str()).await.map_err(|error| failed(&error))?;
            self.publishers.insert(topic.clone(), publisher);
        }
        let publisher = self.publishers.get(&topic).expect("the publisher was just made sure of");
        let receipt = publisher.enqueue_when_ready(message).await.map_err(|error| failed(&error))?;
        self.sent = self.sent.saturating_add(1);
        self.receipts.push_back(receipt);
        self.settle_to(RECEIPTS_MAX).await;
        Ok(())
    }

    /// Awaits the oldest receipts until at most `left` are open.
    async fn settle_to(&mut self, left: usize) {
        while self.receipts.len() > left {
            let Some(receipt) = self.receipts.pop_front() else { return };
            match receipt.await {
                Ok(_) => {
                    self.acknowledged = self.acknowledged.saturating_add(1);
                    if self.acknowledged.is_multiple_of(256) {
                        self.show();
                    }
                }
                Err(error) => {
                    self.unacknowledged.get_or_insert(error);
                }
            }
        }
    }

    /// Awaits every receipt; each has a deadline of its own.
    async fn finish(&mut self) {
        self.settle_to(0).await;
        self.show();
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let position = HumanBytes(self.bar.position());
        self.bar.set_message(format!("{} acknowledged, {position} read", thousands(self.acknowledged)));
    }

    fn tell(&self, ended: Ended) -> Result<Verdict, Failure> {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {} lines skipped", thousands(skipped)),
        };
        let unacknowledged = match self.sent.saturating_sub(self.acknowledged) {
            0 => String::new(),
            missing => format!(", {} not acknowledged", thousands(missing)),
        };
        eprintln!("{} acknowledged{unacknowledged}{skipped}", self.acknowledged);
        match (ended, &self.unacknowledged) {
            (Ended::Bad(failure), _) => Err(failure),
            (Ended::All | Ended::Interrupted, Some(error)) => Err(Failure::new("publish everything", error)
                .advising("what was acknowledged is delivered; publish the rest again")),
            (Ended::Interrupted, None) => {
                eprintln!("interrupted: the rest of the input was not read");
                Ok(Verdict::Refused)
            }
            (Ended::All, None) => Ok(Verdict::Done),
        }
    }
}
