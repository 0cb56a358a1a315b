//! A broker that was taken over: it has the real certificate and real batches, and still cannot lie.

use std::time::Duration;

use bytes::Bytes;
use sealbus_client::{DeliveryError, Rejection, RejectionCode};

use crate::context::Context;
use crate::failure::Failure;
use crate::fake_broker::{Disguise, FakeBroker, Step};

use super::ensure;
use super::stage::{CONTROL, Stage};
use super::tap::Kept;
use super::teller::Teller;

const CHAPTER: &str = "that a broker that was taken over is caught";

/// How long the lies may take to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the consumer is watched for more after that.
const WATCH: Duration = Duration::from_millis(50);

/// What the thief changes, in the payload of one message.
const ORIGINAL: &[u8] = b"\"dest\":\"";

/// What a consumer made of a broker.
#[derive(Debug, Default)]
struct Heard {
    accepted: usize,
    rejected: Vec<Rejection>,
}

/// The same broker, honest, then altering, then replaying.
pub(super) async fn tell(
    stage: &Stage,
    captured: &[Kept],
    messages: usize,
    teller: &Teller,
) -> Result<(), Failure> {
    teller.chapter("A broker that was taken over", "listening to a fake broker")?;
    let honest: Vec<Step> = captured.iter().map(step).collect();

    let heard = listen(stage, honest.clone(), messages).await?;
    ensure(heard.accepted == messages && heard.rejected.is_empty(), CHAPTER, || {
        format!("without tampering {} of {messages} were accepted: {:?}", heard.accepted, heard.rejected)
    })?;
    teller.say(
        "A fake broker listens with the real broker's certificate and key, and plays the batches that went through the \
         real one to control, which cannot tell the two apart.",
    )?;
    teller.holds(&format!(
        "Untouched batches prove themselves wherever they come from: {} accepted.",
        heard.accepted
    ))?;

    let (altered, lost, what) = alter(captured)?;
    let heard = listen(stage, altered, messages).await?;
    let rejection = only(&heard, RejectionCode::Signature)?;
    ensure(heard.accepted == messages - lost, CHAPTER, || format!("{} were accepted", heard.accepted))?;
    teller.say(&format!("Now it alters one byte of one payload: {what}."))?;
    teller.quote(&rejection.to_string())?;
    teller.holds(&format!(
        "Caught with {}: nothing of that batch was handed out, and the other {} messages were.",
        rejection.code, heard.accepted
    ))?;

    let mut replayed = honest.clone();
    replayed.extend(honest.iter().find(|step| matches!(step, Step::Deliver { .. })).cloned());
    let heard = listen(stage, replayed, messages).await?;
    let rejection = only(&heard, RejectionCode::Replay)?;
    ensure(heard.accepted == messages, CHAPTER, || format!("{} were accepted", heard.accepted))?;
    teller.say("Now it plays every batch untouched, and the first of them once more:")?;
    teller.quote(&rejection.to_string())?;
    teller.holds(&format!("Caught with {}: each message was handed out once.", rejection.code))
}

fn step(kept: &Kept) -> Step {
    match kept {
        Kept::Binding(binding) => Step::Binding(binding.clone()),
        Kept::Batch(topic, batch) => Step::Deliver { topic: topic.clone(), batch: batch.clone() },
    }
}

/// The steps with one byte of the last batch's payload altered; how many messages that batch has, and what was done.
fn alter(captured: &[Kept]) -> Result<(Vec<Step>, usize, String), Failure> {
    let failed = |found: &str| Failure::new(format!("show {CHAPTER}"), found);
    let (head, batch) = captured
        .split_last()
        .and_then(|(last, head)| match last {
            Kept::Batch(topic, batch) => Some((head, (topic, batch))),
            Kept::Binding(_) => None,
        })
        .ok_or_else(|| failed("nothing was captured"))?;
    let (topic, batch) = batch;
    let messages = sealbus_protocol::batch::Batch::decode(batch.clone())
        .map_err(|error| failed(&error.to_string()))?
        .preamble()
        .content
        .messages() as usize;
    let mut bytes = batch.to_vec();
    let at = bytes.windows(ORIGINAL.len()).position(|window| window == ORIGINAL);
    let at = at.ok_or_else(|| failed("no payload has a destination"))?.saturating_add(ORIGINAL.len());
    let code = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.get(at..at.saturating_add(3)).unwrap_or_default()).into_owned()
    };
    let before = code(&bytes);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = if *byte == b'X' { b'Y' } else { b'X' };
    }
    let what = format!("a flight to {before} now goes to {}", code(&bytes));
    let mut steps: Vec<Step> = head.iter().map(step).collect();
    steps.push(Step::Deliver { topic: topic.clone(), batch: Bytes::from(bytes) });
    Ok((steps, messages, what))
}

/// The one rejection that there must be.
fn only(heard: &Heard, code: RejectionCode) -> Result<&Rejection, Failure> {
    match heard.rejected.as_slice() {
        [rejection] if rejection.code == code => Ok(rejection),
        others => Err(Failure::new(
            format!("show {CHAPTER}"),
            format!("{code} was expected once, found {others:?}"),
        )),
    }
}

/// Control listens to a fake broker until it has heard everything that the steps deliver.
async fn listen(stage: &Stage, steps: Vec<Step>, messages: usize) -> Result<Heard, Failure> {
    let failed = |found: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), found);
    let read = |part: &str| {
        let path = stage.folder().path(part);
        std::fs::read_to_string(&path).map_err(|error| failed(&format!("{}: {error}", path.display())))
    };
    let (certificate, key, ca) = (read("broker/tls.crt")?, read("broker/tls.key")?, read("ca/ca.pem")?);
    let disguise = Disguise { certificate_pem: &certificate, key_pem: &key, client_ca_pem: &ca };
    let fake = FakeBroker::start(&disguise, steps).await.map_err(|error| failed(&error))?;
    let context = Context { server: fake.address().to_string(), ..stage.context(CONTROL)? };
    let bus = context.connect().await?;
    let mut subscription = bus.subscribe("flights/#").await.map_err(|error| failed(&error))?;
    let mut heard = Heard::default();
    let deadline = tokio::time::Instant::now() + ARRIVAL_TIMEOUT;
    loop {
        // Everything came when all messages did, or when one batch was rejected and nothing follows.
        let is_all = heard.accepted == messages || !heard.rejected.is_empty();
        let until = if is_all { tokio::time::Instant::now() + WATCH } else { deadline };
        match tokio::time::timeout_at(until, subscription.next()).await {
            Err(_) if is_all => break,
            Err(_) => return Err(failed(&format!("only {} of {messages} messages came", heard.accepted))),
            Ok(None) => return Err(failed(&"the subscription ended")),
            Ok(Some(Ok(_))) => heard.accepted = heard.accepted.saturating_add(1),
            Ok(Some(Err(DeliveryError::Rejected(rejection)))) => heard.rejected.push(rejection),
            Ok(Some(Err(error))) => return Err(failed(&error)),
        }
    }
    drop(subscription);
    // A courtesy to a fake.
    let _ = bus.close().await;
    Ok(heard)
}
