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
