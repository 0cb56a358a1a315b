//! Topics and topic filters, exactly as MQTT 5 section 4.7 has them, and within bounds.
//!
//! A [`Topic`] names one thing (`orders/eu/created`); a [`TopicFilter`] names many (`orders/+/created`, `orders/#`).
//! Both can only be made by their check. Names are compared byte for byte: no case folding, no normalisation, no
//! trimming, and an empty level (`a//b`) is a level. Names that begin with `$` are the bus's own: they parse, since
//! the bus must name them, and [`Topic::is_reserved`] tells; the policy's decision refuses them to every client.
//!
//! MQTT 5 lets a server refuse control characters in names, and this one does: a topic is written to logs, to
//! terminals and to other protocols, where a line break or an escape sequence would forge what the reader sees.

mod filter;
mod name;

pub use filter::TopicFilter;
pub use name::{Topic, TopicError};
