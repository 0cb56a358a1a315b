//! The clients of one measurement: a publisher, subscribers, and whoever is idle.
//!
//! ```text
//!   idle/0 ... idle/n                 connected and subscribed, silent
//!   publisher: topic 0, 1, 2 ... n, 0, 1 ...   over as many connections as the topics need
//!   subscribers: load/topic/#         each counts what comes; the publisher waits for the slowest
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealbus_client::{BrokerStats, Bus, Publisher};
use tokio::task::JoinSet;

use crate::conversation::{Conversation as _, Talk as _};
use crate::failure::Failure;
use crate::measure::{Course, Timing, Turn, lost, payload, receive, run_until};
use crate::outcome::{Rate, ratio};
use crate::sealbus::{SealbusConversation, SealbusTalk, enqueue};
use crate::workload::CONNECTS_AT_ONCE;

use super::rows::Sample;
use super::series::{
    IDLE_PER_PRINCIPAL, PUBLISHING_SESSIONS_PER_PRINCIPAL, Scene, Series, TOPICS_PER_SESSION,
};

/// Messages that a publisher is ahead at most when it has many topics. Each may be a batch of its own, with 256 bytes of
/// book-keeping and as many of header and signature: so many fit what a session's outbox holds.
const AHEAD_OF_TOPICS_MAX: u64 = 8_192;

/// Messages that a publisher is ahead at most at all: of the smallest, 4 MiB of payload are more than an outbox holds.
const AHEAD_MAX: u64 = 131_072;

/// Deliveries that are under way at most, of all subscribers together: a fraction of a second's. With more, those whose
/// turn comes last wait for so long that the publisher takes them for lost.
const UNDER_WAY_MAX: u64 = 1_000_000;

/// How often it is looked whether every topic has had its first message.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a broker has to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(500);

/// Connections from which on it is told what each holds: with fewer, what the broker sets aside once is most of it.
const TOLD_FROM: u32 = 100;

/// The broker that is measured.
pub(super) struct Target<'t> {
    /// The subject's folder.
    pub(super) folder: &'t Path,
    pub(super) port: u16,
    /// From its start until it accepted connections.
    pub(super) start_ms: f64,
}

/// What an identity of the load is called.
pub(super) fn identity(principal: u32) -> String {
    format!("load-{principal}")
}

/// Connects everybody, measures, and leaves.
pub(super) async fn measure(
    target: &Target<'_>,
    series: Series,
    scene: &Scene,
    timing: &Timing,
) -> Result<Sample, Failure> {
    let talks = (0..scene.principals()).map(|principal| target.talk(&identity(principal)));
    let talks: Vec<SealbusTalk> = talks.collect::<Result<_, _>>()?;
    let (idle, bytes_per_connection) = connect_idle(&talks, scene.idle, timing).await?;
    let payload: Arc<[u8]> = payload(scene.size_bytes).into();
    let ahead_max = match series {
        Series::Topics => AHEAD_OF_TOPICS_MAX,
        Series::Subscribers | Series::Rules | Series::Connections | Series::Size | Series::Batch => AHEAD_MAX,
    };
    let ahead_max = ahead_max.min(UNDER_WAY_MAX / u64::from(scene.subscribers.max(1)));
    let course = Arc::new(Course::new(scene.size_bytes, scene.subscribers).at_most_ahead(ahead_max));

    let mut receiving = JoinSet::new();
    let subscribers =
        connect_all(scene.subscribers, |_| talks.first().cloned(), |_| "load/topic/#".to_owned());
    for (index, subscriber) in subscribers.await?.into_iter().enumerate() {
        receiving.spawn(receive(subscriber, Arc::clone(&course), index, Arc::clone(&payload)));
    }
    let (buses, publishers) = open(&talks, scene).await?;
    let mut sending = JoinSet::new();
    sending.spawn(send(publishers, Arc::clone(&course), Arc::clone(&payload)));

    // The first message of a topic costs more than those after it: what it takes to find its subscribers is kept.
    while course.received() < u64::from(scene.topics) {
        run_until(&mut receiving, tokio::time::Instant::now() + LOOK_EVERY).await?;
        if let Some(ended) = sending.try_join_next() {
            return Err(early(ended));
        }
    }
    // A publisher that fails is seen below: until then nothing comes, and that is what is counted.
    let Rate { counted, seconds, broker_cpu_seconds, .. } =
        timing.count(&mut receiving, || course.received()).await?;
    let resident_bytes = timing.usage()?.resident_bytes;
    course.stop();
    while let Some(ended) = sending.join_next().await {
        ended.map_err(|error| Failure::new("publish", error))??;
    }
    let lost = lost(&mut receiving, course.due(), || course.received()).await?;
    let (stats, reload_ms) = ask(target).await?;
    for bus in buses {
        bus.close().await.map_err(|error| Failure::new("close a publisher's connection", error))?;
    }
    drop(idle);
    let figure =
        |figure: Option<f64>| figure.ok_or_else(|| Failure::new("measure", "nothing came in the window"));
    Ok(Sample {
        deliveries_per_second: figure(ratio(counted as f64, seconds))?,
        cpu_us: figure(ratio(broker_cpu_seconds * 1e6, counted as f64))?,
        messages_per_batch: figure(ratio(stats.published as f64, stats.acknowledged_batches as f64))?,
        resident_bytes,
        bytes_per_connection,
        start_ms: target.start_ms,
        reload_ms,
        lost,
    })
}

impl Target<'_> {
    fn talk(&self, identity: &str) -> Result<SealbusTalk, Failure> {
        SealbusTalk::as_identity(self.folder, SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), identity)
    }
}

/// Connects whoever is idle; what each of them costs the broker in memory.
async fn connect_idle(
    talks: &[SealbusTalk],
    idle: u32,
    timing: &Timing,
) -> Result<(Vec<SealbusConversation>, Option<f64>), Failure> {
    if idle == 0 {
        return Ok((Vec::new(), None));
    }
    tokio::time::sleep(REST).await;
    let alone = timing.usage()?.resident_bytes;
    let talk_of = |index: u32| talks.get((index / IDLE_PER_PRINCIPAL) as usize).cloned();
    let connected = connect_all(idle, talk_of, |index| format!("load/idle/{index}")).await?;
    tokio::time::sleep(REST).await;
    let more = timing.usage()?.resident_bytes.saturating_sub(alone);
    let each = if idle < TOLD_FROM { None } else { ratio(more as f64, f64::from(idle)) };
    Ok((connected, each))
}

/// Makes connections with a subscription each, a few at once: a broker turns away a host that opens hundreds.
async fn connect_all(
    number: u32,
    talk_of: impl Fn(u32) -> Option<SealbusTalk>,
    filter_of: impl Fn(u32) -> String,
) -> Result<Vec<SealbusConversation>, Failure> {
    let mut connecting = JoinSet::new();
    let mut connected = Vec::new();
    for index in 0..number {
        let Some(talk) = talk_of(index) else {
            return Err(Failure::new("connect", "there are too few principals"));
        };
        let filter = filter_of(index);
        connecting.spawn(async move {
            let mut conversation = talk.connect().await?;
            conversation.subscribe(&filter).await?;
            Ok(conversation)
        });
        if connecting.len() >= CONNECTS_AT_ONCE {
            connected.extend(next(&mut connecting).await?);
        }
    }
    while let Some(conversation) = next(&mut connecting).await? {
        connected.push(conversation);
    }
    Ok(connected)
}

/// What the next of these tasks has made, while there are any.
async fn next<T: 'static>(tasks: &mut JoinSet<Result<T, Failure>>) -> Result<Option<T>, Failure> {
    match tasks.join_next().await {
        Some(ended) => ended.map_err(|error| Failure::new("connect", error))?.map(Some),
        None => Ok(None),
    }
}

/// Opens all topics, each connection one after the other of its own.
async fn open(talks: &[SealbusTalk], scene: &Scene) -> Result<(Vec<Bus>, Vec<Publisher>), Failure> {
    let mut opening = JoinSet::new();
    let (mut buses, mut publishers) = (Vec::new(), Vec::new());
    for session in 0..scene.publishing_sessions() {
        let principal = (session / PUBLISHING_SESSIONS_PER_PRINCIPAL) as usize;
        let Some(talk) = talks.get(principal) else {
            return Err(Failure::new("publish", "there are too few principals"));
        };
        let mut builder = talk.builder();
        if let Some(bytes) = scene.batch_bytes_max {
            builder = builder.batch_bytes_max(bytes);
        }
        let first = session.saturating_mul(TOPICS_PER_SESSION);
        let topics = first..first.saturating_add(TOPICS_PER_SESSION).min(scene.topics);
        opening.spawn(async move {
            let bus = builder.connect().await.map_err(|error| Failure::new("connect a publisher", error))?;
            let mut opened = Vec::new();
            for topic in topics {
                let topic = format!("load/topic/{topic}");
                let publisher = bus.publisher(&topic).await;
                opened.push(publisher.map_err(|error| Failure::new(format!("publish to {topic}"), error))?);
            }
            Ok((bus, opened))
        });
        if opening.len() >= CONNECTS_AT_ONCE
            && let Some((bus, opened)) = next(&mut opening).await?
        {
            buses.push(bus);
            publishers.extend(opened);
        }
    }
    while let Some((bus, opened)) = next(&mut opening).await? {
        buses.push(bus);
        publishers.extend(opened);
    }
    Ok((buses, publishers))
}

/// One message to each topic in turn, until told to stop.
async fn send(publishers: Vec<Publisher>, course: Arc<Course>, payload: Arc<[u8]>) -> Result<(), Failure> {
    let mut topics = publishers.iter().cycle();
    while let Turn::Publish(messages) = course.turn().await {
        for publisher in topics.by_ref().take(messages as usize) {
            // The receipt is not waited for: closing does.
            drop(enqueue(publisher, &payload).await?);
        }
        course.handle_sent(messages);
    }
    for publisher in &publishers {
        let flushed = publisher.flush().await;
        flushed.map_err(|error| Failure::new(format!("publish to {}", publisher.topic()), error))?;
    }
    Ok(())
}

/// Why a publisher has ended that was not told to.
fn early(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::new("publish", "the publisher ended before it was told to"),
        Ok(Err(failure)) => failure,
        Err(error) => Failure::new("publish", error),
    }
}

/// What the broker has counted, and how long it takes to put its policy in force again.
async fn ask(target: &Target<'_>) -> Result<(BrokerStats, f64), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("ask the broker", error);
    let bus = target.talk("operator")?.builder().connect().await.map_err(|error| failed(&error))?;
    let stats = bus.stats().await.map_err(|error| failed(&error))?;
    let asked = Instant::now();
    bus.reload_policy().await.map_err(|error| failed(&error))?;
    let reload_ms = asked.elapsed().as_secs_f64() * 1e3;
    bus.close().await.map_err(|error| failed(&error))?;
    Ok((stats, reload_ms))
}
