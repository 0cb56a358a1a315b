//! `sealbus sub`: verified messages, as they come.

use std::time::Duration;

use clap::Args;

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::receiving::{Course, Enough, Form, MessageFormat, Tally, print_all};
use crate::talk;
use crate::text::visible;

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

pub(crate) async fn run(
    arguments: &SubscribeArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let form = Form::of(arguments.output, arguments.raw.into());
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let talk = talk::follow(bus.events());
    let filter = &arguments.filter;
    let mut subscription = bus.subscribe(filter).await.map_err(|error| {
        Failure::new(format!("subscribe to {filter} as {}", bus.principal()), error)
            .advising("`sealbus policy can-i subscribe TOPIC` names the rule")
    })?;
    eprintln!("READY {}", visible(filter));
    let enough = Enough { count: arguments.count, after: arguments.seconds.map(Duration::from_secs) };
    let mut tally = Tally::default();
    let ended = print_all(&mut subscription, filter, form, enough, &Course::hidden(), &mut tally).await;
    drop(subscription);
    talk.abort();
    eprintln!("{}", tally.of_live());
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    ended.map(|()| tally.verdict())
}
