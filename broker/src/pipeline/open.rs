//! OPEN and its end: the topics that a session publishes on, and where the batches of each go.

use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::SequenceState;
use sealbus_protocol::frame::{Alias, RequestId};
use sealbus_protocol::ids::{StreamId, TopicDigest};
use sealbus_protocol::policy::Verb;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::Topic;

use super::capture::Capture;
use super::client::Client;
use super::decide::Want;
use super::refuse::denied;
use super::route::Route;
use crate::audit::{Actor, Event, PublishTraffic, Target};
use crate::locks::lock;
use crate::producers::SequenceKey;

/// A topic that the session publishes on.
#[derive(Debug)]
pub(super) struct OpenTopic {
    pub(super) key: SequenceKey,
    /// Of topic and stream: computed once, not for each batch.
    pub(super) digest: TopicDigest,
    /// Shared with other connections of the same incarnation.
    pub(super) state: Arc<Mutex<SequenceState>>,
    pub(super) destination: Destination,
    /// What was published and refused since the last summary.
    pub(super) traffic: PublishTraffic,
}

/// Where the batches of a topic go.
#[derive(Debug)]
pub(super) enum Destination {
    /// To those who listen, and nowhere else.
    Live(Route),
    /// Into a stream, and from there to those who listen.
    Stream(Capture),
}

impl Destination {
    /// The stream that goes into the topic's digest; zero when nothing keeps the batches.
    const fn stream(&self) -> StreamId {
        match self {
            Self::Live(_) => StreamId::ZERO,
            Self::Stream(capture) => capture.stream,
        }
    }
}

impl OpenTopic {
    pub(super) const fn topic(&self) -> &Topic {
        &self.key.topic
    }

    /// Whether anything was published since the last summary.
    pub(super) fn has_traffic(&self) -> bool {
        self.traffic != PublishTraffic::default()
    }

    /// What was published since the last summary; none when nothing was.
    pub(super) fn summary(&self, actor: Actor) -> Option<Event> {
        let Self { key, traffic, .. } = self;
        self.has_traffic().then(|| Event::PublishSummary {
            actor,
            topic: key.topic.clone(),
            traffic: *traffic,
        })
    }
}

impl Client {
    pub(super) fn open(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        topic: Topic,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.closed_to_requests() {
            self.refuse(wire, request, refusal);
            return Ok(());
        }
        let now_ms = self.bus.clock.now_ms();
        let rule = match self.decisions.on_topic(Want::Publish, &topic, now_ms) {
            Ok(permit) => permit.rule().clone(),
            Err(denial) => {
                let (rule, refusal) = (denial.rule().clone(), denied("publish on", &topic, denial));
                let target = Target::Topic(topic);
                return self.refuse_denied(wire, request, target, (Verb::Publish, rule), refusal);
            }
        };
        let destination = match self.capture(&topic) {
            Ok(None) => Destination::Live(Route::default()),
            Ok(Some(captured)) => match self.with_key_record(request, &topic, captured) {
                Some(capture) => Destination::Stream(capture),
                // The answer comes once the producer's key binding is durable.
                None => return Ok(()),
            },
            Err(refusal) => {
                self.refuse(wire, request, refusal);
                return Ok(());
            }
        };
        let stream = destination.stream();
        let key = SequenceKey { stream, topic };
        let opened = lock(&self.bus.producers).open(self.producer.incarnation_id, &key);
        let Ok(state) = opened else {
            let reason = "all sequence states of the principal are in use; close topics that are not";
            self.refuse(wire, request, Refusal::new(Code::Limit, reason));
            return Ok(());
        };
        self.record_act(Event::Opened { actor: self.actor(), topic: key.topic.clone(), rule })?;
        let resume = lock(&state).resume_point();
        match wire.opened(request, stream, resume) {
            Ok(alias) => {
                let digest = key.topic.digest(&stream);
                let traffic = PublishTraffic::default();
                self.place_topic(alias, OpenTopic { key, digest, state, destination, traffic });
            }
            Err(error) => {
                lock(&self.bus.producers).close(self.producer.incarnation_id, &key);
                self.refuse(wire, request, error.refusal());
            }
        }
        Ok(())
    }

    fn place_topic(&mut self, alias: Alias, open: OpenTopic) {
        let place = place_of(alias);
        if self.topics.len() <= place {
            // Aliases are small numbers that the session's own half gives out, one after the other.
            self.topics.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.topics.get_mut(place) {
            *slot = Some(open);
        }
    }

    pub(super) fn close_topic(&mut self, alias: Alias) -> Result<(), Refusal> {
        let Some(open) = self.topics.get_mut(place_of(alias)).and_then(Option::take) else { return Ok(()) };
        lock(&self.bus.producers).close(self.producer.incarnation_id, &open.key);
        match open.summary(self.actor()) {
            Some(summary) => self.record_act(summary),
            None => Ok(()),
        }
    }

    /// Whether the policy has another stream capture one of the open topics, or none any more.
    pub(super) fn streams_have_changed(&self) -> bool {
        let policy = &self.decisions.policy().compiled;
        self.topics.iter().flatten().any(|open| {
            let stream = policy.stream_of(open.topic());
            stream.map_or(StreamId::ZERO, |stream| stream.id()) != open.key.stream
        })
    }
}

/// Where the topic of an alias stands among the open ones.
pub(super) fn place_of(alias: Alias) -> usize {
    usize::try_from(alias.0).unwrap_or(usize::MAX)
}
