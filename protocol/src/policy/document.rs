//! The policy document: text in, [`Policy`] out, or one error with its place.
//!
//! This file knows TOML and nothing of policies: it hands the document to `grammar` as tables, lists and texts that
//! know where they stand. `grammar`, with `streams`, `expectations`, `verbs` and `values` under it, knows what may stand
//! in a policy and nothing of TOML. Keys that do not belong are
//! looked for before values are read, and in the order of the document: a misspelt key explains what seems missing.

mod error;
mod expectations;
mod grammar;
mod streams;
mod tree;
mod values;
mod verbs;

use toml::de::DeTable;

pub use error::{DocumentError, DocumentFault};

use self::tree::{Source, Table};
use super::rule::Policy;
use crate::limits::POLICY_BYTES_MAX;

impl Policy {
    /// Reads a policy document. The whole of it is understood, or it is refused: there is no partly read policy.
    ///
    /// # Errors
    /// [`DocumentError`] with line, column, what was found and, where one can be given, a hint.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let source = Source::new(text);
        if text.len() > POLICY_BYTES_MAX {
            return Err(source.error(0, "", DocumentFault::TooLarge { found: text.len() }));
        }
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            source.error(at, "", DocumentFault::Syntax { message: one_line(error.message()) })
        })?;
        grammar::policy(&Table::new(document.get_ref(), 0, String::new(), &source))
    }
}

/// The parser's messages may span lines and quote the document; ours neither end a log line nor drive a terminal.
fn one_line(message: &str) -> String {
    let visible = |character: &char| !character.is_control();
    message.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(visible).collect()
}
