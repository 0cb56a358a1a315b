//! `sealbus stream new|list|show|verify`.

use clap::{Args, Subcommand};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::{Durability, Policy, QuantityError, parse_bytes, parse_duration_ms};

use crate::arguments::ConnectionArguments;
use crate::command::block_on;
use crate::failure::{Failure, Verdict};
use crate::output;

pub(crate) mod list;
mod verify;

use list::{ListArguments, ShowArguments};
use verify::VerifyArguments;

/// Streams: topics whose messages are kept.
#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Print an entry for the policy, with a fresh id. Asks no broker and changes no file.
    New(NewArguments),
    /// List the streams (verb `describe` or `admin`).
    List(ListArguments),
    /// Show what a stream keeps, for how long, and its newest checkpoint (verb `describe` or `admin`).
    Show(ShowArguments),
    /// Check a stream whole: signatures, certificates as of then, offsets, and the root against the checkpoint.
    Verify(VerifyArguments),
}

/// Arguments of `stream new`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sealbus stream new orders --topics 'orders/#' --retention-age 7d --retention-bytes \
                        20GiB >> bus/policy.toml"
)]
pub(crate) struct NewArguments {
    /// The stream's name.
    name: String,
    /// A topic filter whose messages are kept; may be given several times.
    #[arg(long = "topics", value_name = "FILTER", required = true)]
    topics: Vec<String>,
    /// Drop what is older: 45s, 30m, 12h, 7d.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    retention_age: Option<String>,
    /// Drop the oldest beyond so many bytes: 512KiB, 64MiB, 20GiB.
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    retention_bytes: Option<String>,
    /// Drop the oldest beyond so many messages.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    retention_messages: Option<u64>,
    /// When a message is acknowledged: when the disk has it (fsync), or sooner, when it is written and the disk is to
    /// have it a moment later (interval) or when it likes (memory).
    #[arg(long, value_name = "LEVEL", default_value = "fsync", value_parser = Durability::ALL.map(Durability::as_str))]
    durability: String,
}

pub(crate) fn run(command: &StreamCommand, connection: &ConnectionArguments) -> Result<Verdict, Failure> {
    match command {
        StreamCommand::New(arguments) => new(arguments),
        StreamCommand::List(arguments) => block_on(list::list(arguments, connection)),
        StreamCommand::Show(arguments) => block_on(list::show(arguments, connection)),
        StreamCommand::Verify(arguments) => verify::run(arguments, connection),
    }
}

fn new(arguments: &NewArguments) -> Result<Verdict, Failure> {
    let attempted = || format!("make an entry for the stream {}", arguments.name);
    let mut id = [0; StreamId::LEN];
    getrandom::fill(&mut id).map_err(|error| Failure::new(attempted(), error))?;
    let entry = entry(arguments, StreamId::new(id));
    // The document's reader knows what a stream may be, and says it better than we could.
    Policy::parse(&format!("version = 1\n{entry}")).map_err(|error| {
        let failure = Failure::usage(attempted(), error.fault());
        match error.hint() {
            Some(hint) => failure.advising(hint),
            None => failure,
        }
    })?;
    output::print(&entry)?;
    eprintln!("{}", next(&arguments.name));
    Ok(Verdict::Done)
}

fn entry(arguments: &NewArguments, id: StreamId) -> String {
    let NewArguments { name, topics, retention_age, retention_bytes, retention_messages, durability } =
        arguments;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let topics: Vec<String> = topics.iter().map(|topic| quoted(topic)).collect();
    let bounds = [
        retention_age.as_ref().map(|age| format!("age = {}", quoted(age))),
        retention_bytes.as_ref().map(|bytes| format!("bytes = {}", quoted(bytes))),
        retention_messages.map(|messages| format!("messages = {messages}")),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    let retention = match bounds.as_slice() {
        [] => "# retention = { age = \"7d\" }          # without it messages are kept for ever\n".to_owned(),
        bounds => format!("retention = {{ {} }}\n", bounds.join(", ")),
    };
    format!(
        "\n[[stream]]\nname = {}\nid = \"{id}\"\ntopics = [{}]\n{retention}durability = {}\n",
        quoted(name),
        topics.join(", "),
        quoted(durability)
    )
}

/// What to do with the entry.
fn next(name: &str) -> String {
    let name = crate::text::visible(name);
    format!(
        "Put it into the policy and raise its `version`. A rule gives the right to read it:\n  [[allow]]\n  id = \"...\"\n  \
         who = [\"...\"]\n  verbs = [\"replay\", \"consume\", \"describe\"]\n  streams = [\"{name}\"]\n\
         Then: sealbus policy check FILE, sealbus policy reload."
    )
}

fn span(text: &str) -> Result<String, String> {
    checked(text, parse_duration_ms(text))
}

fn amount(text: &str) -> Result<String, String> {
    checked(text, parse_bytes(text))
}

/// The text, which goes into the policy as it is.
fn checked(text: &str, parsed: Result<u64, QuantityError>) -> Result<String, String> {
    match parsed {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(match error.meant(text) {
            Some(meant) => format!("{error}; did you mean {meant}?"),
            None => error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::policy::Retention;

    use super::*;

    fn arguments(topics: &[&str]) -> NewArguments {
        NewArguments {
            name: "orders".to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            retention_age: None,
            retention_bytes: None,
            retention_messages: None,
            durability: "fsync".to_owned(),
        }
    }

    #[test]
    fn the_entry_says_what_was_asked_for() {
        let id = StreamId::new([7; 16]);
        let plain = entry(&arguments(&["orders/#"]), id);
        let whole = entry(
            &NewArguments {
                retention_age: Some("7d".to_owned()),
                retention_bytes: Some("20GiB".to_owned()),
                retention_messages: Some(5),
                durability: "memory".to_owned(),
                ..arguments(&["orders/#", "a\"b\\c/+"])
            },
            id,
        );
        assert_eq!(
            whole,
            "\n[[stream]]\nname = \"orders\"\nid = \"07070707070707070707070707070707\"\ntopics = [\"orders/#\", \
             'a\"b\\c/+']\nretention = { age = \"7d\", bytes = \"20GiB\", messages = 5 }\ndurability = \"memory\"\n"
        );
        let read =
            |entry: &str| Policy::parse(&format!("version = 1\n{entry}")).unwrap().streams()[0].clone();
        let (plain, whole) = (read(&plain), read(&whole));
        assert_eq!(
            (plain.id(), plain.retention(), plain.durability()),
            (id, Retention::default(), Durability::Fsync)
        );
        assert_eq!(whole.topics()[1].as_str(), "a\"b\\c/+");
        assert_eq!(
            whole.retention(),
            Retention { age_ms: Some(604_800_000), bytes: Some(21_474_836_480), messages: Some(5) }
        );
        assert_eq!(whole.durability(), Durability::Memory);
    }
}
