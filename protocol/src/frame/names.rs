//! The small numbers that name things on one connection.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Chosen by the client; names a request until it is answered.
    RequestId
);
number!(
    /// Stands for a topic name on one connection, in one direction.
    Alias
);
number!(
    /// Chosen by the client; names a subscription until it is closed.
    SubscriptionId
);

impl RequestId {
    /// Marks the ids of requests that await no answer: SETTLE without its flag. They have numbers of their own, so that
    /// a refusal of one is told from a refusal of nothing without remembering each.
    pub const UNAWAITED: u32 = 1 << 31;

    /// Whether the request is answered. One that is not can still be refused.
    #[must_use]
    pub const fn is_awaited(self) -> bool {
        self.0 & Self::UNAWAITED == 0
    }
}
