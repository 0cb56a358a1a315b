//! Stdout: data, and nothing else.

use std::io::Write as _;

use clap::ValueEnum;

use crate::failure::Failure;

/// How something that is listed is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object to a line.
    Jsonl,
}

/// Writes to stdout at once. A reader that has gone ends the command quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
}

/// Prints a list of JSON objects in one of the two JSON forms.
pub(crate) fn print_json(objects: &[serde_json::Value], lines: JsonForm) -> Result<(), Failure> {
    match lines {
        JsonForm::Document => print(&format!("{:#}\n", serde_json::Value::from(objects.to_vec()))),
        JsonForm::Lines => print(&objects.iter().map(|object| format!("{object}\n")).collect::<String>()),
    }
}

/// The two JSON forms of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonForm {
    /// One array.
    Document,
    /// One object to a line.
    Lines,
}
