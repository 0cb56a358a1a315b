//! Names that operators give.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::POLICY_NAME_BYTES_MAX;

/// A name that operators give: of a rule, a role, a zone, a stream. Letters, digits, `.`, `_` and `-`, so that it can stand in
/// any log line. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub(super) Arc<str>);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, or has another character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=POLICY_NAME_BYTES_MAX).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(NameError);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// A text that is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name has 1 to {POLICY_NAME_BYTES_MAX} letters, digits, '.', '_' and '-'")
    }
}

impl std::error::Error for NameError {}

/// Hash, order and equality are those of the text, so that a map of names can be asked with a `&str`.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}
