//! Who may do what: the rules, the document that holds them, and the decision.
//!
//! ```text
//!  text --Policy::parse--> Policy --CompiledPolicy::compile--> CompiledPolicy --subject--> Subject --decide--> Permit
//!       document             rule    index, check                compile                  decide            or Denial
//! ```
//!
//! All of it is pure: the text, the principal, the place and the time come in, a value goes out. Nothing is allowed
//! that no rule allows, any matching deny beats every allow, and there is no document that turns this off: an empty
//! one is refused, and one without rules denies everything. Principals are compared as they are and never put into a
//! pattern. Read `rule` first, then `decide`. `document` alone knows TOML.

mod advice;
mod capture;
mod check;
mod compile;
mod decide;
mod document;
mod expectation;
mod index;
mod name;
mod permit;
mod quantity;
mod reach;
mod rule;
mod stream;
mod verb;
mod when;

#[cfg(test)]
mod tests;

pub use advice::Advice;
pub use check::{Finding, PlaceMatters, TestFailure};
pub use compile::{CompiledPolicy, PolicyError, decide, decide_filter};
pub use decide::{Act, Subject};
pub use document::{DocumentError, DocumentFault};
pub use expectation::{Expectation, ExpectedAct, Outcome, PolicyTest};
pub use name::{Name, NameError};
pub use permit::{Denial, DenialRule, FilterPermit, Narrowed, Permit, StreamPermit};
pub use quantity::{QuantityError, parse_bytes, parse_duration_ms};
pub use rule::{Effect, Member, Policy, PrincipalPrefix, Revocation, Role, Rule, RuleId, Summary, Who};
pub use stream::{Durability, Retention, Stream};
pub use verb::{StreamVerb, Verb, VerbObject};
pub use when::{Context, Network, NetworkError, When};
