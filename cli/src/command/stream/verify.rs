//! `sealbus stream verify`: a stream is checked whole.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sealbus_client::Trust;

use crate::arguments::ConnectionArguments;
use crate::command::block_on;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::style::Style;
use crate::table::Table;
use crate::text::{thousands, visible};
use crate::verify::{self, Findings, Folder, Judgement};

/// Arguments of `stream verify`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct VerifyArguments {
    /// The stream; with --dir also its id, or `'$dead/STREAM/CONSUMER'`.
    name: String,
    /// Check the files of a bus folder or a broker's data directory, without a broker. Nothing is changed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A checkpoint that was kept since it was seen: the stream must lead from it. JSON output has one as
    /// `checkpoint.note`.
    #[arg(long, value_name = "FILE", requires = "dir")]
    checkpoint: Option<PathBuf>,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

const HELP: &str = "\
Examples:
  sealbus stream verify flights                         over the network: everything is read and proven here
  sealbus stream verify flights --dir bus               the files, while the broker does not run
  sealbus stream verify flights --dir bus -o json | jq -r .checkpoint.note > seen-today
  sealbus stream verify flights --dir bus --checkpoint seen-last-year

What is checked: each record's frame and checksum, each batch's signature, its producer's certificate as of when it was
stored by the roots in trust.toml, offsets and producers' chains without a gap, and that all of it is what the broker's
log key has signed a checkpoint over. With --dir, trust.toml is the one in the bus folder unless --trust names another.

Exit codes:
  0  whole: every batch that was ever stored is there, as it was signed
  1  it could not be checked; stderr says why
  2  tampered with or damaged (or the arguments cannot be obeyed, and then stdout is empty)
  3  rolled back: a checkpoint is over more than there is
  4  incomplete: retention has removed some, or no checkpoint vouches for it; what is there is good";

pub(super) fn run(arguments: &VerifyArguments, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    match &arguments.dir {
        Some(dir) => {
            let folder = Folder::find(dir)?;
            let trust = trust(&folder, connection)?;
            let bar = bar("records");
            let held = arguments.checkpoint.as_deref();
            let findings = verify::offline(&folder, &trust, &arguments.name, held, &bar);
            bar.finish_and_clear();
            tell(&findings?, arguments.output)
        }
        None => block_on(async {
            let context = Context::resolve(connection)?;
            let bus = context.connect().await?;
            let bar = bar("messages");
            let findings = verify::online(&bus, &arguments.name, &bar).await;
            bar.finish_and_clear();
            // A courtesy to the broker; its failure is none of ours.
            let _ = bus.close().await;
            tell(&findings?, arguments.output)
        }),
    }
}

/// Whom to believe: as --trust says, or else the bus folder, or else the context.
fn trust(folder: &Folder, connection: &ConnectionArguments) -> Result<Trust, Failure> {
    let path = match (&connection.trust, &folder.trust) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => path.clone(),
        (None, None) => Context::resolve(connection)?.trust,
    };
    Trust::from_file(&path).map_err(|error| Failure::new(format!("read {}", path.display()), error))
}

/// Hidden by itself when stderr is no terminal.
fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:32}} {{percent:>3}}%  {{pos}} {what}")) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn tell(findings: &Findings, format: Format) -> Result<Verdict, Failure> {
    match format {
        Format::Table => output::print(&text(findings, Style::of(&std::io::stdout())))?,
        Format::Json => output::print(&format!("{:#}\n", findings.json()))?,
        Format::Jsonl => output::print(&format!("{}\n", findings.json()))?,
    }
    Ok(findings.judgement().verdict())
}

fn text(findings: &Findings, style: Style) -> String {
    let mut table = Table::new(["check", "result", "found"]);
    table.row(["read", "", &findings.extent()]);
    for row in &findings.rows {
        table.row([row.what, verify::result(row.judgement), &row.found]);
    }
    let mut text = table.render();
    for problem in &findings.problems {
        text.push_str(&format!("  - {}\n", visible(problem)));
    }
    let more = findings.problem_count.saturating_sub(findings.problems.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {} more\n", thousands(more)));
    }
    let sentence = visible(&findings.sentence()).into_owned();
    let painted = match findings.judgement() {
        Judgement::Whole => style.green(&sentence),
        Judgement::Incomplete => style.bold(&sentence),
        Judgement::RolledBack | Judgement::Tampered => style.red(&sentence),
    };
    text.push_str(&painted);
    text.push('\n');
    text
}
