//! Why the comparison cannot go on: what was attempted, and what was found.

use std::fmt;

/// What was attempted, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    attempted: String,
    found: String,
}

impl Failure {
    /// Could not `attempted`, because of `found`.
    pub fn new(attempted: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { attempted: attempted.into(), found: found.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempted, self.found)
    }
}

impl std::error::Error for Failure {}
