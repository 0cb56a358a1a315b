//! Who reads what is kept: parts of it all the time, everything at the end.

use std::sync::Arc;
use std::time::Duration;

use sealbus_client::{Bus, CheckpointError, DeliveryError, Start};
use serde_json::json;

use crate::wait::within;

use super::ground::{Ground, KeptStream, PATIENCE, STREAMS};
use super::history::Reading;
use super::random::Random;

/// Messages of one part: several batches, and seldom everything.
const PART_MESSAGES: usize = 250;

/// How long a whole replay of a campaign may take.
const WHOLE_DEADLINE: Duration = Duration::from_secs(600);

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// At most so many messages.
    Part(usize),
    /// To the end of this moment.
    Whole,
}

/// Numbers the replays of a campaign.
#[derive(Debug, Default)]
pub(super) struct Passes(u64);

impl Passes {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Reads parts, one stream after the other, until readers stop.
pub(super) async fn read_parts(ground: Arc<Ground>) -> Passes {
    let (mut random, mut passes) = (Random::new(ground.seed, 100), Passes::default());
    let bus = ground.connect("auditor").await;
    let mut end = 0;
    for stream in STREAMS.iter().cycle() {
        if ground.readers_stop() {
            break;
        }
        let (from, extent) = match random.between(0, 9) {
            0 => (Start::Earliest, Extent::Part(PART_MESSAGES)),
            1..=4 => (Start::Offset(random.between(0, end)), Extent::Part(PART_MESSAGES)),
            _ => (Start::Last(random.between(1, 400)), Extent::Whole),
        };
        end = end.max(read(&ground, &bus, stream, from, extent, passes.next()).await.unwrap_or(end));
        checkpoint(&ground, &bus, stream).await;
        tokio::time::sleep(Duration::from_millis(random.between(20, 250))).await;
    }
    passes
}

/// Reads every stream from its first message to its last.
pub(super) async fn read_everything(ground: &Ground, passes: &mut Passes) {
    let bus = ground.connect("auditor").await;
    for stream in &STREAMS {
        let reading = read(ground, &bus, stream, Start::Earliest, Extent::Whole, passes.next());
        let end = tokio::time::timeout(WHOLE_DEADLINE, reading).await;
        assert!(matches!(end, Ok(Some(_))), "{} cannot be read whole", stream.name);
    }
}

/// Reads, and tells the history; gives where the stream ended. None when the broker did not answer.
async fn read(
    ground: &Ground,
    bus: &Bus,
    stream: &KeptStream,
    from: Start,
    extent: Extent,
    pass: u64,
) -> Option<u64> {
    let history = &ground.history;
    let whole = extent == Extent::Whole && from == Start::Earliest;
    history.note(
        "replay",
        &json!({ "pass": pass, "stream": stream.name, "from": format!("{from:?}"), "whole": whole }),
    );
    let asked = bus.replay(stream.name).from(from);
    let asked = match extent {
        Extent::Part(_) => asked,
        Extent::Whole => asked.until_end(),
    };
    let Ok(mut replay) = asked.await else {
        history.note("replay-refused", &json!({ "pass": pass }));
        return None;
    };
    let range = replay.range();
    history.note("replay-began", &json!({ "pass": pass, "first": range.start, "end": range.end }));
    let (mut count, mut next) = (0, range.start);
    while !extent.is_read(count, next, range.end) {
        match within("a replay goes on", replay.next()).await {
            Some(Ok(message)) => {
                count += 1;
                next = message.offset().map_or(next, |offset| offset + 1);
                history.received(Reading::Replayed { pass }, &message);
            }
            Some(Err(DeliveryError::Skipped { from, to, why })) => {
                next = to;
                history
                    .note("skipped", &json!({ "pass": pass, "from": from, "to": to, "why": why.as_str() }));
            }
            Some(Err(error @ DeliveryError::Closed(_))) => panic!("the auditor cannot go on: {error}"),
            Some(Err(error)) => {
                history
                    .note("rejected", &json!({ "who": "auditor", "pass": pass, "why": error.to_string() }));
            }
            None => {
                history.note("replay-ended", &json!({ "pass": pass }));
                return Some(range.end);
            }
        }
    }
    history.note("replay-left", &json!({ "pass": pass }));
    Some(range.end)
}

impl Extent {
    /// Whether enough has been read. A whole replay says itself when it has ended.
    const fn is_read(self, count: usize, next: u64, end: u64) -> bool {
        match self {
            Self::Part(messages) => count >= messages || next >= end,
            Self::Whole => false,
        }
    }
}

/// The newest checkpoint must continue every one that was seen before; the client tells when it does not.
async fn checkpoint(ground: &Ground, bus: &Bus, stream: &KeptStream) {
    match bus.checkpoint(stream.name).await {
        Ok(checkpoint) => {
            ground.history.note("checkpoint", &json!({ "stream": stream.name, "size": checkpoint.size() }));
        }
        // There is none yet, or the broker is being killed.
        Err(CheckpointError::Request(_)) => tokio::time::sleep(PATIENCE).await,
        Err(error) => {
            ground.history.note("inconsistent", &json!({ "who": "auditor", "why": error.to_string() }));
        }
    }
}
