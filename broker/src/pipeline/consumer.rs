//! Durable consumers as sessions and administrators see them: found or created, moved, and told of.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;

use sealbus_protocol::frame::admin::ConsumerKey as WireKey;
use sealbus_protocol::frame::{ConsumerInfo, ConsumerSettings, MaxDeliver as WireMaxDeliver, Outcome, Start};
use sealbus_protocol::policy::{Name, Stream};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::topic::TopicFilter;

use super::client::Client;
use crate::bus::Bus;
use crate::consumers::registry::{Consumer, JoinError};
use crate::storage::page::Source;
use crate::storage::stream::store::Bounds;
use crate::storage::system::{AskedSettings, ConsumerKey, MaxDeliver};

impl Client {
    /// All consumers of streams that the policy has and that are asked for.
    pub(super) fn consumer_infos(&self, is_wanted: impl Fn(&Name) -> bool) -> Vec<ConsumerInfo> {
        let of = |stream: &Stream| {
            let end = self.bus.storage.stream(stream.id()).map_or(0, |store| store.bounds().end);
            let consumers = self.bus.consumers.list(Some(stream.id()));
            consumers.iter().map(|consumer| info_of(stream.name().clone(), consumer, end)).collect::<Vec<_>>()
        };
        let streams = self.decisions.policy().compiled.policy().streams().iter();
        // Asked before they are counted, so that who may know of none costs nothing.
        streams.filter(|stream| is_wanted(stream.name())).flat_map(of).collect()
    }

    /// Moves a consumer. Decided before, by the verb `admin`.
    pub(super) fn reset_consumer(
        &self,
        key: &WireKey,
        from: Start,
    ) -> impl Future<Output = Result<Outcome, Refusal>> + Send + use<> {
        let bus = Arc::clone(&self.bus);
        let stream = self.decisions.policy().compiled.stream(key.stream.as_str()).map(Stream::id);
        let (name, shown) = (key.consumer.clone(), format!("{} of {}", key.consumer, key.stream));
        async move {
            let missing =
                || Refusal::new(Code::Limit, format!("consumer reset: there is no consumer {shown}"));
            let stream = stream.ok_or_else(missing)?;
            let consumer = bus.consumers.find(&ConsumerKey { stream, name }).ok_or_else(missing)?;
            let source = bus.storage.source(stream).ok_or_else(missing)?;
            let position = position_of(source, from).await?;
            consumer.act(|group| group.reset(position));
            consumer.wake();
            durable(&bus).await?;
            Ok(Outcome::ConsumerReset { position })
        }
    }
}

/// Finds or creates a consumer, and returns when it is durable.
pub(super) async fn find_or_create(
    bus: &Arc<Bus>,
    source: Source,
    key: ConsumerKey,
    asked: AskedSettings,
    from: Start,
) -> Result<Arc<Consumer>, Refusal> {
    let position = match bus.consumers.find(&key) {
        Some(_) => 0,
        None => position_of(source, from).await?,
    };
    let refuse = |error| join_refusal(&key.name, &error);
    let (consumer, _) = bus.consumers.find_or_create(&key, asked, position).map_err(refuse)?;
    // Also one that was found: who created it may be waiting for the disk at this moment.
    durable(bus).await?;
    Ok(consumer)
}

/// Returns when all that was settled, created or reset until now is durable.
async fn durable(bus: &Bus) -> Result<(), Refusal> {
    let (done, kept) = tokio::sync::oneshot::channel();
    bus.consumers.when_durable(Box::new(move |outcome| {
        // Whoever asked may have gone.
        let _ = done.send(outcome);
    }));
    let refuse =
        |reason: String| Refusal::new(Code::Internal, format!("consumer: it is not durable: {reason}"));
    match kept.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refuse(error.to_string())),
        Err(_) => Err(refuse("the broker is stopping".to_owned())),
    }
}

/// The offset at which reading begins. Within what is kept.
async fn position_of(source: Source, from: Start) -> Result<u64, Refusal> {
    let Bounds { first, end } = source.bounds();
    let position = match from {
        Start::Earliest => first,
        Start::Offset(offset) => offset,
        Start::Last(messages) => end.saturating_sub(messages),
        Start::End => end,
        Start::Time(time_ms) => {
            let looked = tokio::task::spawn_blocking(move || source.store().offset_at(time_ms)).await;
            let refuse = |reason: String| Refusal::new(Code::Internal, format!("consumer: {reason}"));
            looked
                .map_err(|_| refuse("looking for its beginning failed".to_owned()))?
                .map_err(|error| refuse(error.to_string()))?
        }
    };
    if position > end {
        let reason = format!("consumer: offset {position} is beyond the stream's end, {end}");
        return Err(Refusal::new(Code::Limit, reason));
    }
    Ok(position.max(first))
}

/// What a member asks of the consumer, as it is kept.
pub(super) fn asked_of(settings: &ConsumerSettings, filter: Option<TopicFilter>) -> AskedSettings {
    let choices = settings.choices();
    AskedSettings {
        filter,
        ack_wait_ms: choices.ack_wait_ms.map(NonZeroU32::get),
        max_deliver: choices.max_deliver.map(|max_deliver| match max_deliver {
            WireMaxDeliver::Times(times) => MaxDeliver::Times(times),
            WireMaxDeliver::NoLimit => MaxDeliver::Unlimited,
        }),
        backoff_ms: (!choices.backoff_ms.is_empty()).then(|| choices.backoff_ms.clone()),
        unacknowledged_max: choices.unacknowledged_max.map(NonZeroU32::get),
    }
}

/// What a client is told that cannot consume.
pub(super) fn join_refusal(on: &Name, error: &JoinError) -> Refusal {
    let code = match error {
        JoinError::Conflict(_) => Code::Conflict,
        JoinError::Settings(_) => Code::Format,
        JoinError::TooManyConsumers | JoinError::TooManyMembers | JoinError::Removed => Code::Limit,
        JoinError::AlreadyMember => Code::Internal,
    };
    let reason = match error {
        // What the setting is stays with those who may describe the stream: it may name topics that others must not know.
        JoinError::Conflict(conflict) => {
            format!(
                "consume {on}: it exists with another {}; asked for was {}",
                conflict.setting, conflict.asked
            )
        }
        _ => format!("consume {on}: {error}"),
    };
    Refusal::new(code, reason)
}

fn info_of(stream: Name, consumer: &Consumer, end: u64) -> ConsumerInfo {
    let info = consumer.info(end);
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    ConsumerInfo {
        stream,
        name: info.key.name.clone(),
        filter: info.settings.filter().cloned(),
        position: info.position,
        end,
        unacknowledged: number(info.unacknowledged),
        redelivering: number(info.redelivering),
        members: number(info.members as u64),
        lag: info.lag,
        delivered: info.totals.delivered,
        acknowledged: info.totals.acknowledged,
        dead: info.totals.dead,
        ack_wait_ms: info.settings.ack_wait_ms(),
        max_deliver: match info.settings.max_deliver() {
            MaxDeliver::Unlimited => 0,
            MaxDeliver::Times(times) => times.get(),
        },
        unacknowledged_max: info.settings.unacknowledged_max(),
    }
}
