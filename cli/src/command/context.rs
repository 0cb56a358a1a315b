//! `sealbus context add|list|show`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use crate::arguments::ConnectionArguments;
use crate::context::{self, Context, ContextFile};
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format, JsonForm};
use crate::pki;
use crate::table::{Table, fields};

/// Keep server, identity and trust under a name.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Keep --server, --identity and --trust under a name.
    #[command(after_help = "Example:\n  sealbus context add local --server 127.0.0.1:7433 \
                            --identity bus/identities/operator --trust bus/trust.toml")]
    Add {
        /// The name.
        name: String,
    },
    /// List the contexts that have a name.
    List {
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
    /// Show the context that commands would use now.
    Show {
        /// How.
        #[arg(short, long, default_value = "table")]
        output: Format,
    },
}

pub(crate) fn run(command: &ContextCommand, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    match command {
        ContextCommand::Add { name } => add(name, connection),
        ContextCommand::List { output } => list(*output),
        ContextCommand::Show { output } => show(connection, *output),
    }
}

/// Paths are kept absolute: a named context is used from any folder.
fn add(name: &str, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    let file = context::named_file(name)?;
    let attempted = || format!("add the context {name}");
    let context = Context::resolve(connection)?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Failure::new(attempted(), error));
    let kept = ContextFile {
        server: context.server.clone(),
        identity: absolute(&context.identity)?,
        trust: absolute(&context.trust)?,
    };
    context.load()?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(context::folder()?)
        .map_err(|error| Failure::new(attempted(), error))?;
    pki::write_new(&file, kept.to_text()?.as_bytes()).map_err(|error| {
        Failure::new(attempted(), error).advising("remove that file first, or choose another name")
    })?;
    eprintln!("context {name} added; use it with --context {name} or SEALBUS_CONTEXT={name}");
    Ok(Verdict::Done)
}

fn list(format: Format) -> Result<Verdict, Failure> {
    let folder = context::folder()?;
    let attempted = || format!("list the contexts in {}", folder.display());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => {
            entries.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::new(attempted(), error))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(attempted(), error)),
    };
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();
    let mut table = Table::new(["name", "server", "identity", "trust"]);
    let mut objects = Vec::new();
    for name in &names {
        let Context { server, identity, trust } = Context::read(&context::named_file(name)?)?;
        let [identity, trust] = [identity, trust].map(|path| path.display().to_string());
        table.row([name, &server, &identity, &trust]);
        objects.push(json!({"name": name, "server": server, "identity": identity, "trust": trust}));
    }
    match format {
        Format::Table => output::print(&table.render())?,
        Format::Json => output::print_json(&objects, JsonForm::Document)?,
        Format::Jsonl => output::print_json(&objects, JsonForm::Lines)?,
    }
    Ok(Verdict::Done)
}

fn show(connection: &ConnectionArguments, format: Format) -> Result<Verdict, Failure> {
    let Context { server, identity, trust } = Context::resolve(connection)?;
    let [identity, trust] = [identity, trust].map(|path| path.display().to_string());
    match format {
        Format::Table => {
            output::print(&fields([("server", server), ("identity", identity), ("trust", trust)]))?;
        }
        Format::Json => {
            let object = json!({"server": server, "identity": identity, "trust": trust});
            output::print(&format!("{object:#}\n"))?;
        }
        Format::Jsonl => {
            output::print(&format!("{}\n", json!({"server": server, "identity": identity, "trust": trust})))?;
        }
    }
    Ok(Verdict::Done)
}
