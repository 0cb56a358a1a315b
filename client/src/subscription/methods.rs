//! What every kind of reader offers, in the same words.

/// Gives a type with a `reader` the methods and the `Stream` of one.
macro_rules! stream_of_messages {
    ($type:ty) => {
        impl $type {
            /// The next message, or what stands in its place; none at the end. Cancel-safe: nothing is lost.
            pub async fn next(&mut self) -> Option<Result<$crate::Message, $crate::DeliveryError>> {
                std::future::poll_fn(|cx| self.reader.poll_message(cx)).await
            }

            /// The next message; none at the end. Cancel-safe: nothing is lost.
            ///
            /// # Errors
            /// [`crate::DeliveryError`]; the stream goes on after every one but [`crate::DeliveryError::Closed`].
            pub async fn try_next(&mut self) -> Result<Option<$crate::Message>, $crate::DeliveryError> {
                self.next().await.transpose()
            }

            /// What is left of the batch that messages are being taken from, or the next one: it has at least one
            /// message. None at the end. Where many messages come, cheaper than taking each by `next`; both ways may be
            /// mixed. Cancel-safe: nothing is lost.
            ///
            /// An error stands in the place of what it tells of, as with `next`.
            pub async fn next_batch(
                &mut self,
            ) -> Option<Result<$crate::MessageBatch<'_>, $crate::DeliveryError>> {
                self.reader.next_batch().await
            }

            /// What was asked for; `#` for everything.
            #[must_use]
            pub fn filter(&self) -> &$crate::TopicFilter {
                &self.reader.feed().filter
            }

            /// Whether the grant was smaller than the filter when reading began, so that only the topics that it covers
            /// are delivered. For later changes see [`crate::Event::Narrowed`].
            #[must_use]
            pub const fn narrowed(&self) -> bool {
                matches!(self.narrowed, sealbus_protocol::frame::Narrowed::Yes)
            }
        }

        impl futures_core::Stream for $type {
            type Item = Result<$crate::Message, $crate::DeliveryError>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.reader.poll_message(cx)
            }
        }
    };
}

pub(super) use stream_of_messages;
