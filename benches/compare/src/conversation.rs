//! One connection to a subject, as the measurements see it: raw bytes for the peers, the client crate for Sealbus.

use std::future::Future;

use crate::failure::Failure;

/// A way to talk to a subject that runs.
pub trait Talk: Clone + Send + Sync + 'static {
    /// One connection.
    type Conversation: Conversation;

    /// Connects, with a certificate, and logs in: done when the subject has answered.
    ///
    /// # Errors
    /// [`Failure`] when it refuses or does not answer.
    fn connect(&self) -> impl Future<Output = Result<Self::Conversation, Failure>> + Send;
}

/// One connection, owned by one task.
pub trait Conversation: Send + 'static {
    /// Subscribes; done when the subscription is in force.
    ///
    /// # Errors
    /// [`Failure`] when it is refused.
    fn subscribe(&mut self, topic: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Publishes `copies` of one message, at most once; done when they are on their way, be it that the client has them in
    /// its own queue: how much may be there is bounded by the measurement, for everybody alike.
    ///
    /// # Errors
    /// [`Failure`] when the connection ends.
    fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        copies: u32,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Hands over `copies` of one message that the subject must keep, without waiting for their acknowledgement; at once
    /// on their way.
    ///
    /// # Errors
    /// [`Failure`] when the connection ends.
    fn publish_durable(
        &mut self,
        topic: &str,
        payload: &[u8],
        copies: u32,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Waits until at least one durable message more is acknowledged, and returns how many were.
    ///
    /// # Errors
    /// [`Failure`] when one is refused or the connection ends.
    fn acknowledged(&mut self) -> impl Future<Output = Result<u32, Failure>> + Send;

    /// Waits until at least one message is there, and shows all that are there.
    ///
    /// # Errors
    /// [`Failure`] when the connection ends.
    fn receive(&mut self, sink: impl FnMut(&[u8]) + Send)
    -> impl Future<Output = Result<(), Failure>> + Send;

    /// Ends the connection in order.
    ///
    /// # Errors
    /// [`Failure`] when what was handed over is not on its way.
    fn close(self) -> impl Future<Output = Result<(), Failure>> + Send;
}
