//! `sealbus replay`: what a stream has kept, verified message by message.

use clap::Args;
use sealbus_client::Start;

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::receiving::{Course, Enough, Form, MessageFormat, Tally, print_all};
use crate::start;
use crate::talk;
use crate::text::visible;

/// Read what a stream has kept, each message verified up to the roots in trust.toml (verb `replay`).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReplayArguments {
    /// The stream; `'$dead/STREAM/CONSUMER'` is what a durable consumer gave up on.
    stream: String,
    /// Where to begin: earliest, end (or latest), offset:N, last:N, a moment like 2026-01-31T08:00:00Z, or how long
    /// ago, like 2h.
    #[arg(long, value_name = "START", default_value = "earliest", value_parser = start::parse)]
    from: Start,
    /// Only topics that match: `+` is one level, a trailing `#` everything below.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Go on with what is published; otherwise it ends where the stream ends now.
    #[arg(short, long)]
    follow: bool,
    /// How messages are printed.
    #[arg(short, long, default_value = "pretty")]
    output: MessageFormat,
    /// Print payloads alone, each followed by a line end.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  sealbus replay flights --from earliest -o jsonl > all.jsonl
  sealbus replay flights --from 2h --filter 'flights/JFK/+'
  sealbus replay flights --from last:10 --follow
  sealbus replay '$dead/flights/billing'          what the consumer `billing` gave up on

stderr says READY with the offsets that are read, what was skipped and why, and at the end how many messages there were.
Exit codes:
  0  everything that is kept was received and proven; what retention has removed is told
  1  something was refused as not proven, could not be read on the broker's disk, or the replay failed";

pub(crate) async fn run(
    arguments: &ReplayArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let ReplayArguments { stream, from, filter, follow, output, raw, count } = arguments;
    let form = Form::of(*output, (*raw).into());
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let talk = talk::follow(bus.events());
    let mut replay = bus.replay(stream).from(*from);
    if let Some(filter) = filter {
        replay = replay.filter(filter);
    }
    if !follow {
        replay = replay.until_end();
    }
    let mut replay = replay.await.map_err(|error| {
        Failure::new(format!("replay {stream} as {}", bus.principal()), error).advising(format!(
            "`sealbus policy can-i replay {stream}` names the rule; a stream that is not there is denied too"
        ))
    })?;
    let range = replay.range();
    eprintln!("READY {} {} to {}", visible(stream), range.start, range.end);
    if replay.narrowed() {
        eprintln!("narrowed: the policy grants only some of it");
    }
    let course = if *follow { Course::hidden() } else { Course::through(&range) };
    let (mut tally, enough) = (Tally::default(), Enough { count: *count, after: None });
    let ended = print_all(&mut replay, stream, form, enough, &course, &mut tally).await;
    drop((replay, course));
    talk.abort();
    eprintln!("{}", tally.of_kept());
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    ended.map(|()| tally.verdict())
}
