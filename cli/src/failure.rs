//! How a command ends.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::text::visible;

/// What a command came to when it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything was done, or the answer is yes.
    Done,
    /// The answer is no, or something did not hold; the command has said what.
    Refused,
    /// What was checked is not what was signed, or cannot be read any more.
    Tampered,
    /// What was checked is older than a checkpoint of it.
    RolledBack,
    /// What was checked is good, but not everything is there.
    Incomplete,
}

impl Verdict {
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Refused => ExitCode::from(1),
            Self::Tampered => ExitCode::from(2),
            Self::RolledBack => ExitCode::from(3),
            Self::Incomplete => ExitCode::from(4),
        }
    }
}

/// Why a command could not do its work: what was attempted, on what, what was found, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    // Boxed, so that the many functions that return one stay cheap when there is none.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    fault: Fault,
    attempted: String,
    found: String,
    advice: Option<String>,
}

/// Whose fault it is; the exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Failed,
    Usage,
    /// Whoever read our output has gone. That is their right and no error.
    ReaderGone,
}

impl Failure {
    /// Could not `attempted`, because of `found`.
    pub(crate) fn new(attempted: impl Into<String>, found: impl fmt::Display) -> Self {
        Self::of(Fault::Failed, attempted.into(), found.to_string())
    }

    /// The arguments cannot be obeyed.
    pub(crate) fn usage(attempted: impl Into<String>, found: impl fmt::Display) -> Self {
        Self::of(Fault::Usage, attempted.into(), found.to_string())
    }

    /// Could not write to stdout.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        let fault = match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::ReaderGone,
            _ => Fault::Failed,
        };
        Self::of(fault, "write to stdout".to_owned(), error.to_string())
    }

    fn of(fault: Fault, attempted: String, found: String) -> Self {
        Self { inner: Box::new(Inner { fault, attempted, found, advice: None }) }
    }

    /// The same failure, with a word on what to do.
    pub(crate) fn advising(mut self, advice: impl Into<String>) -> Self {
        self.inner.advice = Some(advice.into());
        self
    }

    /// Tells the person, and what the process ends with.
    pub(crate) fn report(&self) -> ExitCode {
        match self.inner.fault {
            Fault::Failed => {
                eprintln!("{self}");
                ExitCode::from(1)
            }
            Fault::Usage => {
                eprintln!("{self}");
                ExitCode::from(2)
            }
            Fault::ReaderGone => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { attempted, found, advice, fault: _ } = &*self.inner;
        write!(f, "error: cannot {}\n  found: {}", visible(attempted), indented(found))?;
        match advice {
            Some(advice) => write!(f, "\n  try:   {}", indented(advice)),
            None => Ok(()),
        }
    }
}

/// Several lines stay several, each made harmless and set under the first.
fn indented(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n         ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_attempted_what_was_found_and_what_to_do() {
        let failure = Failure::new("read x", "no such file").advising("make one");
        assert_eq!(failure.to_string(), "error: cannot read x\n  found: no such file\n  try:   make one");
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        let failure = Failure::new("read \u{1b}[2J", "one\ntwo\u{9b}31m");
        assert_eq!(failure.to_string(), "error: cannot read [2J\n  found: one\n         two31m");
    }
}
