//! Where dead letters are kept: one stream of them for each consumer that has some.
//!
//! A stream of dead letters is a stream like others, with records of kind 2 (`storage::stream::record`): the original
//! batch whole, so that its signature still verifies, and which of its records were not settled. What is here is only
//! which stream that is.

use sealbus_protocol::ids::StreamId;
use sha2::{Digest as _, Sha256};

use super::consumer::ConsumerKey;

/// The id of the stream that keeps a consumer's dead letters. The same at every start, and another for each consumer.
#[must_use]
pub fn dead_letters_id(key: &ConsumerKey) -> StreamId {
    let mut hash = Sha256::new();
    hash.update(b"sealbus/1 dead letters\0");
    hash.update(key.stream.as_bytes());
    hash.update(key.name.as_str().as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let (id, _) = digest.split_first_chunk().expect("a SHA-256 digest has more than 16 bytes");
    StreamId::new(*id)
}

/// The name of that stream, as people and requests say it. No stream of a policy begins with `$`.
#[must_use]
pub fn dead_letters_name(stream: &str, consumer: &str) -> String {
    format!("$dead/{stream}/{consumer}")
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::policy::Name;

    use super::*;

    fn key(stream: u8, name: &str) -> ConsumerKey {
        ConsumerKey { stream: StreamId::new([stream; 16]), name: Name::parse(name).unwrap() }
    }

    #[test]
    fn each_consumer_has_its_own_and_keeps_it() {
        let id = dead_letters_id(&key(1, "billing"));
        assert_eq!(id, dead_letters_id(&key(1, "billing")));
        assert_ne!(id, dead_letters_id(&key(2, "billing")));
        assert_ne!(id, dead_letters_id(&key(1, "billing2")));
    }
}
