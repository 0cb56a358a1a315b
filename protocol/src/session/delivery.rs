//! What a broker delivers, and the aliases that stand for its topics.

use std::collections::HashMap;

use bytes::Bytes;

use crate::frame::{Alias, RecordRange, StoredAt, StreamTopic, SubscriptionId};
use crate::ids::StreamId;
use crate::limits::DELIVERY_ALIASES_MAX;
use crate::topic::Topic;

/// A batch on its way to a subscription.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its topic.
    pub topic: &'a Topic,
    /// The stream that its producer signed it for; zero when the topic is live only.
    pub stream: StreamId,
    /// Offset of its first message in its stream; none when it is live only.
    pub offset: Option<u64>,
    /// The broker's clock when it was accepted, milliseconds since 1970.
    pub broker_ms: u64,
    /// What its leaf says of it; none when it is live only. What is stored has an offset.
    pub stored: Option<StoredAt>,
    /// The records to hand out, in order, from 1 to [`RANGES_MAX`](crate::limits::RANGES_MAX) ranges of what is stored; none for all of them.
    pub ranges: Option<&'a [RecordRange]>,
    /// The batch, as its producer sent it.
    pub batch: &'a Bytes,
}

/// The aliases of delivered topics on one connection. When all are in use the next one in turn is given anew.
#[derive(Debug, Default)]
pub(super) struct DeliveryAliases {
    aliases: HashMap<StreamTopic, Alias>,
    /// What each alias stands for; the alias is the index.
    given: Vec<StreamTopic>,
    next: usize,
}

impl DeliveryAliases {
    /// The alias of a delivered topic, with the topic when the alias is given now.
    pub(super) fn alias_of(&mut self, topic: &Topic, stream: StreamId) -> (Alias, Option<StreamTopic>) {
        let named = StreamTopic { topic: topic.clone(), stream };
        if let Some(alias) = self.aliases.get(&named) {
            return (*alias, None);
        }
        let index = self.next;
        let alias = Alias(u32::try_from(index).expect("aliases are bounded by their limit"));
        self.next = (index + 1) % DELIVERY_ALIASES_MAX as usize;
        match self.given.get_mut(index) {
            Some(previous) => {
                self.aliases.remove(&std::mem::replace(previous, named.clone()));
            }
            None => self.given.push(named.clone()),
        }
        self.aliases.insert(named.clone(), alias);
        (alias, Some(named))
    }

    /// Topics that have an alias now.
    pub(super) fn len(&self) -> usize {
        self.aliases.len()
    }
}
