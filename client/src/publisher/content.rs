//! What can be published: bytes, texts, JSON values, and messages with a key and headers.

use std::fmt;

use bytes::Bytes;
use sealbus_protocol::batch::{HeadersBuf, RecordError};
use serde::Serialize;

use super::queue::NewMessage;

/// A message on its way out.
///
/// ```
/// use sealbus_client::Outgoing;
///
/// let message = Outgoing::new("{\"id\":17}").key("17").header("content-type", "application/json");
/// ```
#[derive(Debug, Clone)]
pub struct Outgoing<P = Bytes> {
    payload: P,
    key: Bytes,
    headers: Vec<(String, Bytes)>,
}

impl<P: AsRef<[u8]>> Outgoing<P> {
    /// A message with this payload.
    pub const fn new(payload: P) -> Self {
        Self { payload, key: Bytes::new(), headers: Vec::new() }
    }

    /// Gives it a key: what messages of one kind share.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = key.into();
        self
    }

    /// Adds a header. Names are lower case; each may be given once.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The parts as the batch takes them. Without headers nothing is allocated.
    #[inline]
    pub(crate) fn into_parts(self) -> Result<Parts<P>, MessageError> {
        let headers = if self.headers.is_empty() {
            HeadersBuf::default()
        } else {
            HeadersBuf::new(self.headers.iter().map(|(name, value)| (name.as_str(), &value[..])))?
        };
        Ok(Parts { payload: self.payload, key: self.key, headers })
    }
}

/// A message whose headers have been put into the wire's form.
pub(crate) struct Parts<P> {
    pub(crate) payload: P,
    pub(crate) key: Bytes,
    pub(crate) headers: HeadersBuf,
}

impl<P: AsRef<[u8]>> Parts<P> {
    /// The message, published at this moment.
    pub(super) fn as_message(&self, published_ms: u64) -> NewMessage<'_> {
        NewMessage {
            published_ms,
            key: &self.key,
            headers: self.headers.headers(),
            payload: self.payload.as_ref(),
        }
    }
}

/// What can be published as it is.
pub trait IntoMessage {
    /// What holds the payload until it has been copied into a batch.
    type Payload: AsRef<[u8]> + Send;

    /// The message.
    ///
    /// # Errors
    /// [`MessageError`] when there is no message in it.
    fn into_message(self) -> Result<Outgoing<Self::Payload>, MessageError>;
}

impl<P: AsRef<[u8]> + Send> IntoMessage for Outgoing<P> {
    type Payload = P;

    fn into_message(self) -> Result<Self, MessageError> {
        Ok(self)
    }
}

macro_rules! payload {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generics)*> IntoMessage for $type {
            type Payload = Self;

            fn into_message(self) -> Result<Outgoing<Self>, MessageError> {
                Ok(Outgoing::new(self))
            }
        }
    )*};
}

payload!(['a] &'a [u8], ['a, const N: usize] &'a [u8; N], [] Vec<u8>, [] Bytes, ['a] &'a str, [] String);

/// A value that is published as JSON.
///
/// ```no_run
/// # async fn publish(orders: sealbus_client::Publisher) -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(serde::Serialize)]
/// struct Order { id: u64 }
///
/// orders.publish(sealbus_client::Json(&Order { id: 17 })).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Json<'a, T: ?Sized>(pub &'a T);

impl<T: Serialize + ?Sized> IntoMessage for Json<'_, T> {
    type Payload = Vec<u8>;

    fn into_message(self) -> Result<Outgoing<Vec<u8>>, MessageError> {
        let payload = serde_json::to_vec(self.0).map_err(|error| MessageError::Json(error.to_string()))?;
        Ok(Outgoing::new(payload))
    }
}

/// Why something is not a message that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageError {
    /// A part exceeds its limit, or a header's name is not allowed.
    Record(RecordError),
    /// The value cannot be written as JSON.
    Json(String),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => write!(f, "the message cannot be sent: {error}"),
            Self::Json(error) => write!(f, "the value cannot be written as json: {error}"),
        }
    }
}

impl std::error::Error for MessageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_bytes_is_a_message() {
        fn payload(message: impl IntoMessage) -> Vec<u8> {
            message.into_message().unwrap().into_parts().map(|parts| parts.payload.as_ref().to_vec()).unwrap()
        }
        assert_eq!(payload("text"), b"text");
        assert_eq!(payload(b"bytes"), b"bytes");
        assert_eq!(payload(&b"bytes"[..]), b"bytes");
        assert_eq!(payload(String::from("text")), b"text");
        assert_eq!(payload(vec![1, 2]), [1, 2]);
        assert_eq!(payload(Bytes::from_static(b"b")), b"b");
        assert_eq!(payload(Json(&[1, 2])), b"[1,2]");
    }

    #[test]
    fn a_header_name_in_capitals_is_refused() {
        let parts = Outgoing::new("x").header("Content-Type", "text/plain").into_parts();
        assert!(matches!(parts, Err(MessageError::Record(RecordError::HeaderName))));
    }

    #[test]
    fn a_header_given_twice_is_refused() {
        let parts = Outgoing::new("x").header("a", "1").header("a", "2").into_parts();
        assert!(matches!(parts, Err(MessageError::Record(RecordError::HeaderOrder))));
    }
}
