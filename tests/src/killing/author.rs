//! A producer: publishes in every manner that there is, goes on through reconnects, and now and then begins a new life.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_client::{Bus, Outgoing, PublishAllError, PublishError, Publisher};

use super::ground::{Ground, PATIENCE, STREAMS, producer_name};
use super::history::{History, Name};
use super::random::Random;

/// How messages are published.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Each awaited before the next.
    OneByOne,
    /// `publish_all`.
    Together,
    /// Queued one after the other, then awaited.
    Queued,
}

/// How large payloads are.
#[derive(Debug, Clone, Copy)]
enum Size {
    Small,
    Medium,
    Large,
}

/// A message that is about to be published.
struct Draft {
    name: Name,
    payload: Bytes,
}

/// What is published in one go on one topic.
struct Work {
    publisher: Publisher,
    manner: Manner,
    drafts: Vec<Draft>,
}

struct Author {
    ground: Arc<Ground>,
    producer: u64,
    random: Random,
    bus: Bus,
    publishers: HashMap<&'static str, Publisher>,
    published: HashMap<&'static str, u64>,
}

/// Publishes until producers stop.
pub(super) async fn publish(ground: Arc<Ground>, producer: u64) {
    let random = Random::new(ground.seed, producer);
    let bus = ground.connect(&producer_name(producer)).await;
    let (publishers, published) = (HashMap::new(), HashMap::new());
    let mut author = Author { ground, producer, random, bus, publishers, published };
    while !author.ground.producers_stop() {
        let (manner, messages) = author.choose();
        if !author.ground.burn(messages) {
            tokio::time::sleep(PATIENCE).await;
            continue;
        }
        author.work(manner, messages).await;
        if author.random.one_in(200) {
            author = author.reborn().await;
        }
    }
}

impl Author {
    fn choose(&mut self) -> (Manner, u64) {
        let manner =
            self.random.weighted(&[(5, Manner::OneByOne), (3, Manner::Together), (2, Manner::Queued)]);
        let messages = match manner {
            Manner::OneByOne => self.random.between(1, 12),
            Manner::Together | Manner::Queued if self.random.one_in(4) => self.random.between(100, 300),
            Manner::Together | Manner::Queued => self.random.between(10, 80),
        };
        (manner, messages)
    }

    /// Publishes on one topic, or on two at once.
    async fn work(&mut self, manner: Manner, messages: u64) {
        let first = self.topic();
        let second = self.topic();
        let Some(work) = self.prepare(first, manner, messages).await else { return };
        let is_double = second != first && self.random.one_in(4);
        let other = match is_double {
            true => self.prepare(second, Manner::Together, messages / 2).await,
            false => None,
        };
        let history = &self.ground.history;
        match other {
            Some(other) => {
                tokio::join!(send(history, work), send(history, other));
            }
            None => send(history, work).await,
        }
    }

    fn topic(&mut self) -> &'static str {
        let streams = STREAMS.each_ref().map(|stream| (stream.weight, stream.topics));
        let topics = self.random.weighted(&streams);
        let topics: Vec<_> = topics.iter().map(|topic| (1, *topic)).collect();
        self.random.weighted(&topics)
    }

    async fn prepare(&mut self, topic: &'static str, manner: Manner, messages: u64) -> Option<Work> {
        let publisher = self.publisher(topic).await?;
        let drafts = (0..messages).map(|_| self.draft(topic, messages)).collect();
        Some(Work { publisher, manner, drafts })
    }

    /// Opens the topic, unless producers stop first.
    async fn publisher(&mut self, topic: &'static str) -> Option<Publisher> {
        loop {
            if let Some(publisher) = self.publishers.get(topic) {
                return Some(publisher.clone());
            }
            if let Ok(publisher) = self.bus.publisher(topic).await {
                self.publishers.insert(topic, publisher);
            } else if self.ground.producers_stop() {
                return None;
            }
        }
    }

    fn draft(&mut self, topic: &'static str, messages: u64) -> Draft {
        let published = self.published.entry(topic).or_default();
        let name = Name { producer: self.producer, topic, n: *published };
        *published += 1;
        let size = match messages {
            0..=12 => self.random.weighted(&[(80, Size::Small), (18, Size::Medium), (2, Size::Large)]),
            _ => self.random.weighted(&[(98, Size::Small), (2, Size::Medium)]),
        };
        let bytes = match size {
            Size::Small => self.random.between(1, 200),
            Size::Medium => self.random.between(200, 4_096),
            Size::Large => self.random.between(4_096, 64 * 1_024),
        };
        let payload = self.random.bytes(usize::try_from(bytes).expect("payloads are small")).into();
        Draft { name, payload }
    }

    /// A new process would have a new connection, key and incarnation. Everything has its answer by now.
    async fn reborn(self) -> Self {
        let Self { ground, producer, random, bus, publishers, published } = self;
        drop(publishers);
        // What is not acknowledged was told to those who published it.
        let _ = bus.close().await;
        let bus = ground.connect(&producer_name(producer)).await;
        Self { ground, producer, random, bus, publishers: HashMap::new(), published }
    }
}

/// Publishes, and tells the history what it was told.
async fn send(history: &History, work: Work) {
    let Work { publisher, manner, drafts } = work;
    match manner {
        Manner::OneByOne => {
            for draft in drafts {
                history.sent(&draft.name, &draft.payload);
                answered(history, &draft.name, publisher.publish(draft.outgoing()).await);
            }
        }
        Manner::Together => {
            drafts.iter().for_each(|draft| history.sent(&draft.name, &draft.payload));
            let accepted = match publisher.publish_all(drafts.iter().map(Draft::outgoing)).await {
                Ok(accepted) => accepted,
                Err(PublishAllError { accepted, index, error }) => {
                    if let Some(failed) = drafts.get(index) {
                        answered(history, &failed.name, Err(error));
                    }
                    drafts.iter().skip(index + 1).for_each(|draft| history.not_asked(&draft.name));
                    accepted
                }
            };
            for (draft, receipt) in drafts.iter().zip(accepted) {
                answered(history, &draft.name, Ok(receipt));
            }
        }
        Manner::Queued => {
            let mut queued = Vec::with_capacity(drafts.len());
            for draft in drafts {
                history.sent(&draft.name, &draft.payload);
                match publisher.enqueue_when_ready(draft.outgoing()).await {
                    Ok(pending) => queued.push((draft.name, pending)),
                    Err(error) => answered(history, &draft.name, Err(error)),
                }
            }
            for (name, pending) in queued {
                answered(history, &name, pending.await);
            }
        }
    }
}

fn answered(history: &History, name: &Name, answer: Result<sealbus_client::Receipt, PublishError>) {
    history.answered(name, &answer);
    if let Err(error @ (PublishError::Closed(_) | PublishError::Message(_))) = answer {
        panic!("a producer cannot go on: {error}");
    }
}

impl Draft {
    fn outgoing(&self) -> Outgoing<Bytes> {
        Outgoing::new(self.payload.clone()).key(self.name.key())
    }
}
