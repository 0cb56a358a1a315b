//! Compares what is found with what was handed over. Each sentence that it returns is a violation.
//!
//! I1 nothing acknowledged is lost, I2 nothing is altered, I3 offsets are dense and stay, I4 each producer's order stays,
//! I5 what is sent again is known. Nothing may be reported as damaged, since nothing is: a power loss is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealbus_protocol::ids::{IncarnationId, StreamId};
use sealbus_protocol::topic::Topic;

use super::author::Identity;
use super::history::{
    BatchEntry, Consumer, Fingerprint, Ghost, History, PlainHistory, Position, StreamHistory, When,
};
use super::place::stream_id;
use super::seen::{CursorsSeen, PlainSeen, Remembered, StreamSeen};

/// Batches of a producer that a broker remembers.
const WINDOW: usize = 64;

/// Everything that is found in one state; an error says why something could not be opened.
#[derive(Clone)]
pub struct Seen {
    /// The streams.
    pub streams: [Arc<Result<StreamSeen, String>>; 2],
    /// `$keys`.
    pub keys: Arc<Result<PlainSeen, String>>,
    /// `$policy`.
    pub policies: Arc<Result<PlainSeen, String>>,
    /// `$producers`.
    pub producers: Arc<Result<PlainSeen, String>>,
    /// `$cursors`.
    pub cursors: Arc<Result<CursorsSeen, String>>,
}

/// Judges the states of one run.
pub struct Judge<'a> {
    history: &'a History,
    identities: &'a [Identity],
    roots: [Vec<Fingerprint>; 2],
}

impl<'a> Judge<'a> {
    /// A judge with everything that was handed over.
    #[must_use]
    pub fn new(history: &'a History, identities: &'a [Identity]) -> Self {
        let roots = [0, 1]
            .map(|stream: usize| history.streams.get(stream).map_or_else(Vec::new, StreamHistory::roots));
        Self { history, identities, roots }
    }

    /// What is wrong with what is found when the power was lost after so many operations.
    #[must_use]
    pub fn judge(&self, seen: &Seen, operations: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, (history, found)) in self.history.streams.iter().zip(&seen.streams).enumerate() {
            let mut found_wrong = |text: String| wrong.push(format!("stream {number}: {text}"));
            match &**found {
                Err(error) => found_wrong(error.clone()),
                Ok(found) => self.haunted_stream(number, history, found, operations, &mut found_wrong),
            }
        }
        let plain = [
            ("$keys", &self.history.keys, &seen.keys),
            ("$policy", &self.history.policies, &seen.policies),
            ("$producers", &self.history.producers, &seen.producers),
        ];
        for (name, history, found) in plain {
            let mut found_wrong = |text: String| wrong.push(format!("{name}: {text}"));
            match &**found {
                Err(error) => found_wrong(error.clone()),
                Ok(found) => judge_haunted_plain(history, found, operations, &mut found_wrong),
            }
        }
        match &*seen.cursors {
            Err(error) => wrong.push(format!("$cursors: {error}")),
            Ok(found) => self.cursors(found, seen, operations, &mut wrong),
        }
        wrong
    }

    /// As it was handed over, or with what was refused behind it.
    fn haunted_stream(
        &self,
        number: usize,
        history: &StreamHistory,
        seen: &StreamSeen,
        operations: usize,
        wrong: &mut dyn FnMut(String),
    ) {
        let mut found = Vec::new();
        let roots = self.roots.get(number).map(Vec::as_slice).unwrap_or_default();
        self.stream(roots, history, seen, operations, &mut |text| found.push(text));
        let is_ghost = |ghost: &Ghost<BatchEntry>| {
            let haunted = history.haunted_by(ghost);
            let mut is_right = true;
            self.stream(&haunted.roots(), &haunted, seen, operations, &mut |_| is_right = false);
            is_right
        };
        let mut ghosts = history.ghosts.iter().filter(|ghost| ghost.may_be_there(operations));
        if !found.is_empty() && !ghosts.any(is_ghost) {
            found.into_iter().for_each(wrong);
        }
    }

    fn stream(
        &self,
        roots: &[Fingerprint],
        history: &StreamHistory,
        seen: &StreamSeen,
        operations: usize,
        wrong: &mut dyn FnMut(String),
    ) {
        seen.wrong.iter().for_each(|text| wrong(text.clone()));
        seen.damage.iter().for_each(|text| wrong(format!("a power loss is reported as damage: {text}")));
        if let Some(reason) = &seen.stopped {
            wrong(format!("nothing may be appended: {reason}"));
        }
        let entries = &history.entries;
        let must = entries.iter().take_while(|entry| entry.when.must_be_there(operations)).count() as u64;
        let may = entries.iter().take_while(|entry| entry.when.may_be_there(operations)).count() as u64;
        if seen.end_record < must {
            wrong(format!("I1: {must} batches were acknowledged, {} are there", seen.end_record));
        }
        if seen.end_record > may {
            wrong(format!("I3: {} batches are there, {may} were handed over", seen.end_record));
        }
        let kept = entries.get(..usize::try_from(seen.end_record).unwrap_or(usize::MAX)).unwrap_or(entries);
        let end = kept.last().map_or(0, |last| last.offset + u64::from(last.messages));
        if seen.end != end {
            wrong(format!("I3: it ends at offset {}, not at {end}", seen.end));
        }
        judge_beginning(history, seen, operations, wrong);
        let mut next = seen.records.first().map_or(seen.end_record, |first| first.record);
        let trimmed = kept.get(..usize::try_from(next).unwrap_or(usize::MAX)).unwrap_or(kept);
        if trimmed.last().is_some_and(|last| last.offset + u64::from(last.messages) > seen.first) {
            wrong(format!("I1: it begins at offset {}, and its first record is {next}", seen.first));
        }
        for record in &seen.records {
            let entry = usize::try_from(record.record).ok().and_then(|record| kept.get(record));
            if record.record != next {
                wrong(format!("I1: record {} follows {next}", record.record));
            }
            match entry {
                Some(entry) if entry.fingerprint == record.fingerprint => {}
                Some(_) => {
                    wrong(format!("I2: record {} at offset {} is altered", record.record, record.offset))
                }
                None => wrong(format!("I2: record {} was never handed over", record.record)),
            }
            next = record.record + 1;
        }
        if next != seen.end_record {
            wrong(format!(
                "I1: the last record that comes is before {next}, the stream ends at {}",
                seen.end_record
            ));
        }
        tree(roots, history, seen, operations, wrong);
        let windows = windows_of(self.identities, kept);
        for (whose, expected) in &windows {
            let found = seen.windows.get(whose);
            if found != Some(expected) {
                let ends = |window: &Vec<Remembered>| window.last().map(|(_, next_seq, ..)| *next_seq);
                let (found, expected) = (found.map(ends), ends(expected));
                wrong(format!("I5: producer {} stands at {found:?}, not at {expected:?}", whose.0));
            }
        }
        if let Some(unknown) = seen.windows.keys().find(|whose| !windows.contains_key(*whose)) {
            wrong(format!("I5: a producer {} is known that has published nothing", unknown.0));
        }
    }

    fn cursors(&self, found: &CursorsSeen, seen: &Seen, operations: usize, wrong: &mut Vec<String>) {
        let mut found_wrong = |text: String| wrong.push(format!("$cursors: {text}"));
        found.wrong.iter().for_each(|text| found_wrong(text.clone()));
        found
            .damage
            .iter()
            .for_each(|text| found_wrong(format!("a power loss is reported as damage: {text}")));
        let mut known = 0;
        for (consumer, places) in &self.history.cursors {
            let position = found.positions.get(&key_of(consumer)).copied();
            known += usize::from(position.is_some());
            if let Some(text) = judge_position(places, position, operations) {
                found_wrong(format!("{} of stream {} {text}", consumer.1, consumer.0));
            }
            let end = seen.streams.get(consumer.0).and_then(|stream| stream.as_ref().as_ref().ok());
            if let (Some(position), Some(stream)) = (position, end)
                && position > stream.end
            {
                found_wrong(format!(
                    "{} stands at {position}, the stream ends at {}",
                    consumer.1, stream.end
                ));
            }
        }
        if known != found.positions.len() {
            found_wrong(format!("there are consumers that nobody made: {:?}", found.positions));
        }
    }
}

fn tree(
    roots: &[Fingerprint],
    history: &StreamHistory,
    seen: &StreamSeen,
    operations: usize,
    wrong: &mut dyn FnMut(String),
) {
    let root_of = |size: u64| roots.get(usize::try_from(size).ok()?);
    if root_of(seen.end_record) != Some(&seen.root) {
        wrong(format!("the tree over {} batches has another root", seen.end_record));
    }
    let must = largest(&history.checkpoints, |signed| (signed.size, signed.when.must_be_there(operations)));
    let may = largest(&history.checkpoints, |signed| (signed.size, signed.when.may_be_there(operations)));
    match seen.checkpoint {
        None if must.is_none() => {}
        None => wrong(format!("the checkpoint over {must:?} batches is gone")),
        Some((size, root)) => {
            if Some(size) < must || Some(size) > may {
                wrong(format!("a checkpoint over {size} batches, {must:?} was signed, {may:?} may be"));
            }
            if size > seen.end_record {
                wrong(format!("a checkpoint over {size} batches, of which {} are there", seen.end_record));
            }
            if root_of(size) != Some(&root) {
                wrong(format!("the checkpoint over {size} batches has another root"));
            }
        }
    }
}

/// Where producers must stand when these batches are kept.
fn windows_of(
    identities: &[Identity],
    kept: &[BatchEntry],
) -> BTreeMap<(IncarnationId, Topic), Vec<Remembered>> {
    let mut windows: BTreeMap<(IncarnationId, Topic), Vec<Remembered>> = BTreeMap::new();
    for entry in kept {
        let Some(identity) = identities.get(entry.author) else { continue };
        let window = windows.entry((identity.incarnation_id(), identity.topic().clone())).or_default();
        let (first_seq, next_seq, digest) = entry.place;
        window.push((first_seq, next_seq, digest, Some(entry.offset)));
        if window.len() > WINDOW {
            window.remove(0);
        }
    }
    windows
}

fn key_of((stream, name): &Consumer) -> (StreamId, String) {
    (stream_id(*stream), name.clone())
}

/// The first offset is one that a removal had made it, and every removal that was done is still done.
fn judge_beginning(
    history: &StreamHistory,
    seen: &StreamSeen,
    operations: usize,
    wrong: &mut dyn FnMut(String),
) {
    let must = largest(&history.trims, |trim| (trim.first, trim.when.must_be_there(operations))).unwrap_or(0);
    let may = largest(&history.trims, |trim| (trim.first, trim.when.may_be_there(operations))).unwrap_or(0);
    if seen.first < must {
        wrong(format!("what was removed below {must} is back from {} on", seen.first));
    }
    if seen.first > may {
        wrong(format!("I1: it begins at {}, and may only be trimmed below {may}", seen.first));
    }
    let expected: Vec<(u64, u64, bool)> =
        (seen.first > 0).then_some((0, seen.first, true)).into_iter().collect();
    if seen.skipped != expected {
        wrong(format!("a reader is told to skip {:?}, not {expected:?}", seen.skipped));
    }
}

/// As it was handed over, or with what was refused behind it.
fn judge_haunted_plain(
    history: &PlainHistory,
    seen: &PlainSeen,
    operations: usize,
    wrong: &mut dyn FnMut(String),
) {
    let mut found = Vec::new();
    judge_plain(history, seen, operations, &mut |text| found.push(text));
    let mut ghosts = history.ghosts.iter().filter(|ghost| ghost.may_be_there(operations));
    let is_ghost = ghosts.any(|ghost| {
        let mut is_right = true;
        judge_plain(&history.haunted_by(ghost), seen, operations, &mut |_| is_right = false);
        is_right
    });
    if !is_ghost {
        found.into_iter().for_each(wrong);
    }
}

fn judge_plain(history: &PlainHistory, seen: &PlainSeen, operations: usize, wrong: &mut dyn FnMut(String)) {
    seen.wrong.iter().for_each(|text| wrong(text.clone()));
    seen.damage.iter().for_each(|text| wrong(format!("a power loss is reported as damage: {text}")));
    let must = history.entries.iter().take_while(|(_, when)| when.must_be_there(operations)).count();
    let may = history.entries.iter().take_while(|(_, when)| when.may_be_there(operations)).count();
    let found = seen.records.len();
    if found < must || found > may {
        wrong(format!("I1: {found} records are there, {must} were acknowledged, {may} handed over"));
    }
    for (record, (found, (expected, _))) in seen.records.iter().zip(&history.entries).enumerate() {
        if found != expected {
            wrong(format!("I2: record {record} is altered"));
        }
    }
}

/// A consumer stands where it was last acknowledged to stand, or at a later place that was asked for.
fn judge_position(places: &[(Position, When)], found: Position, operations: usize) -> Option<String> {
    let from = places.iter().rposition(|(_, when)| when.must_be_there(operations));
    let may = places.iter().take_while(|(_, when)| when.may_be_there(operations)).count();
    let allowed = places.get(from.unwrap_or(0)..may).unwrap_or_default();
    let is_new = from.is_none() && found.is_none();
    let is_one = allowed.iter().any(|(position, _)| *position == found);
    (!is_new && !is_one).then(|| format!("stands at {found:?}, not at one of {allowed:?}"))
}

fn largest<T>(of: &[T], look: impl Fn(&T) -> (u64, bool)) -> Option<u64> {
    of.iter().map(look).filter(|(_, counts)| *counts).map(|(value, _)| value).max()
}
