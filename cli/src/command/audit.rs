//! `sealbus audit tail`: the last lines of the audit log, and those that come.

use std::time::Duration;

use clap::{Args, Subcommand};
use sealbus_client::{AuditPage, Bus, Code, RequestError};

use crate::arguments::ConnectionArguments;
use crate::audit_line::{AuditLine, HEADS};
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::signals::Signals;
use crate::table::Table;
use crate::text::visible;

/// Lines that are asked for at a time; fewer come when they do not fit a frame.
const LINES_MAX: u32 = 512;

/// How often a log that is followed is asked for more.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Read the audit log (verb `audit`).
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the last lines.
    Tail(TailArguments),
}

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealbus audit tail -n 50\n  sealbus audit tail -f -o jsonl | jq .unmapped"
)]
pub(crate) struct TailArguments {
    /// How many lines.
    #[arg(short = 'n', long = "lines", default_value_t = 20)]
    lines: u64,
    /// Go on with the lines that come.
    #[arg(short, long)]
    follow: bool,
    /// How: `jsonl` prints the lines as they are in the log.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

pub(crate) async fn run(
    command: &AuditCommand,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let AuditCommand::Tail(TailArguments { lines, follow, output }) = command;
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let log = Log { bus: &bus, server: &context.server };
    let mut from = log.end().await?.saturating_sub(*lines);
    let mut shown = log.read_from(&mut from).await?;
    // The log may have grown since its end was asked for, by this very session among others.
    let more = shown.len().saturating_sub(usize::try_from(*lines).unwrap_or(usize::MAX));
    shown.drain(..more);
    print(&shown, *output, Heads::Shown)?;
    if *follow {
        let mut signals = Signals::listen()?;
        loop {
            tokio::select! {
                biased;
                () = signals.stop() => break,
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
            let more = log.read_from(&mut from).await?;
            if !more.is_empty() {
                print(&more, *output, Heads::Left)?;
            }
        }
    }
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    Ok(Verdict::Done)
}

/// The broker's audit log, as far as it is durable.
pub(crate) struct Log<'b> {
    pub(crate) bus: &'b Bus,
    pub(crate) server: &'b str,
}

impl Log<'_> {
    /// How many lines there are: asked for a line that cannot be there, the broker says where the log ends.
    async fn end(&self) -> Result<u64, Failure> {
        self.bus.read_audit(u64::MAX, 0).await.map(|page| page.next).map_err(|error| self.failed(&error))
    }

    /// Every line from this index on, and moves it behind them.
    pub(crate) async fn read_from(&self, from: &mut u64) -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        loop {
            let page = self.bus.read_audit(*from, LINES_MAX).await.map_err(|error| self.failed(&error))?;
            let AuditPage { next, lines, .. } = page;
            if lines.is_empty() || next <= *from {
                return Ok(all);
            }
            *from = next;
            all.extend(lines);
        }
    }

    fn failed(&self, error: &RequestError) -> Failure {
        let attempted = format!("read the audit log of {} as {}", self.server, self.bus.principal());
        let failure = Failure::new(attempted, error);
        match error.code() {
            Some(Code::Denied) => failure.advising("a rule must give this principal the verb `audit`"),
            Some(_) | None => failure,
        }
    }
}

/// Whether a table begins with its heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heads {
    Shown,
    Left,
}

fn print(lines: &[String], format: Format, heads: Heads) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let mut table = Table::new(HEADS);
            for line in lines {
                match AuditLine::parse(line) {
                    Some(line) => table.row(line.cells()),
                    None => table.row([line.as_str()]),
                }
            }
            let text = table.render();
            let shown = match heads {
                Heads::Shown => text.as_str(),
                Heads::Left => text.split_once('\n').map_or("", |(_, rows)| rows),
            };
            output::print(shown)
        }
        // Each line is a JSON object already, and stays as it is. One that could drive a terminal is none of ours: the
        // broker escapes such characters.
        Format::Json => {
            let lines: Vec<_> = lines.iter().map(|line| visible(line)).collect();
            output::print(&format!("[{}]\n", lines.join(",\n ")))
        }
        Format::Jsonl => {
            output::print(&lines.iter().map(|line| format!("{}\n", visible(line))).collect::<String>())
        }
    }
}
