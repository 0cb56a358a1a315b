//! `[[stream]]`: what is kept, and the names by which rules and tests speak of it.

use super::error::{DocumentError, DocumentFault};
use super::tree::{Table, Value};
use super::values::{name, open_filters};
use crate::ids::StreamId;
use crate::limits::{STREAM_FILTERS_MAX, STREAMS_MAX};
use crate::policy::capture::FilterTable;
use crate::policy::name::Name;
use crate::policy::quantity::{QuantityError, parse_bytes, parse_duration_ms};
use crate::policy::stream::{Durability, Retention, Stream};
use crate::topic::TopicFilter;

/// What may stand under `seal`; all but the first belong to later versions.
const SEALS: [&str; 3] = ["off", "optional", "required"];

/// Reads every stream, and refuses those that get into each other's way.
pub(super) fn streams(value: &Value<'_>) -> Result<Vec<Stream>, DocumentError> {
    let tables = value.list("tables under [[stream]]")?;
    refuse_more(value, "streams", STREAMS_MAX, tables.len())?;
    let mut streams: Vec<Stream> = Vec::with_capacity(tables.len());
    let mut captured = FilterTable::default();
    for value in &tables {
        let table = value.table()?;
        let stream = stream(&table)?;
        refuse_twin(&table, &streams, &stream)?;
        refuse_overlap(&table, &streams, &captured, &stream)?;
        stream.topics.iter().for_each(|filter| captured.add(filter, streams.len()));
        streams.push(stream);
    }
    Ok(streams)
}

/// The streams that a list names, each once. The document must have them.
pub(super) fn stream_names(value: &Value<'_>, streams: &[Stream]) -> Result<Vec<Name>, DocumentError> {
    let mut names = Vec::new();
    for item in value.list("a list of streams")? {
        let found = item.text("the name of a stream")?;
        let known = || streams.iter().map(|stream| stream.name.as_str());
        let Some(stream) = streams.iter().find(|stream| stream.name.as_str() == found) else {
            let error = item.error(DocumentFault::UnknownStream { found: found.to_owned() });
            return Err(error.suggesting(found, known()));
        };
        if !names.contains(&stream.name) {
            names.push(stream.name.clone());
        }
    }
    Ok(names)
}

fn stream(table: &Table<'_>) -> Result<Stream, DocumentError> {
    table.allow_only(&["name", "id", "topics", "retention", "durability", "seal"], &[])?;
    let name = stream_name(table.required("name")?)?;
    let fresh =
        |error: DocumentError| error.with_hint("`sealbus stream new NAME` prints an entry with a fresh id");
    let id = table.required("id").and_then(stream_id).map_err(fresh)?;
    let topics = table.required("topics")?;
    let filters = open_filters(topics)?;
    refuse_more(topics, "topic filters of one stream", STREAM_FILTERS_MAX, filters.len())?;
    table.optional("seal").map_or(Ok(()), seal)?;
    Ok(Stream {
        line: table.line(),
        name,
        id,
        topics: filters,
        retention: table.optional("retention").map_or(Ok(Retention::default()), retention)?,
        durability: table.optional("durability").map_or(Ok(Durability::default()), durability)?,
    })
}

fn stream_name(value: &Value<'_>) -> Result<Name, DocumentError> {
    name(value, "a name for the stream").map_err(|error| match error.fault() {
        DocumentFault::Name { found } if found.starts_with('$') => {
            error.with_hint("streams that begin with $ are the bus's own")
        }
        _ => error,
    })
}

/// The all-zero id stands for "live only" on the wire.
fn stream_id(value: &Value<'_>) -> Result<StreamId, DocumentError> {
    let found = value.text("the id of the stream, in quotes")?;
    let id = found.parse::<StreamId>().ok().filter(|id| !id.is_zero());
    id.ok_or_else(|| value.error(DocumentFault::StreamId { found: found.to_owned() }))
}

fn retention(value: &Value<'_>) -> Result<Retention, DocumentError> {
    let table = value.table()?;
    table.allow_only(&["age", "bytes", "messages"], &[])?;
    if table.entries().is_empty() {
        let hint = "leave it out for a stream that is kept for ever";
        return Err(value.error(DocumentFault::NoBound).with_hint(hint));
    }
    let age = |value: &Value<'_>| {
        let found = value.text("a span of time in quotes")?;
        parse_duration_ms(found).map_err(|cause| quantity_error(value, found, cause))
    };
    let bytes = |value: &Value<'_>| {
        let found = value.amount("an amount of bytes")?;
        parse_bytes(&found).map_err(|cause| quantity_error(value, &found, cause))
    };
    let messages = |value: &Value<'_>| match value.unsigned("a whole number")? {
        Some(messages @ 1..) => Ok(messages),
        Some(0) | None => Err(value.error(DocumentFault::Count)),
    };
    Ok(Retention {
        age_ms: table.optional("age").map(age).transpose()?,
        bytes: table.optional("bytes").map(bytes).transpose()?,
        messages: table.optional("messages").map(messages).transpose()?,
    })
}

fn quantity_error(value: &Value<'_>, found: &str, cause: QuantityError) -> DocumentError {
    let error = value.error(DocumentFault::Quantity { found: found.to_owned(), cause });
    match cause.meant(found) {
        Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
        None => error,
    }
}

fn durability(value: &Value<'_>) -> Result<Durability, DocumentError> {
    let found = value.text("a level of durability")?;
    Durability::ALL.into_iter().find(|level| level.as_str() == found).ok_or_else(|| {
        let fault = DocumentFault::Word { expected: "fsync, interval or memory", found: found.to_owned() };
        value.error(fault).suggesting(found, Durability::ALL.iter().map(|level| level.as_str()))
    })
}

fn seal(value: &Value<'_>) -> Result<(), DocumentError> {
    match value.text("off, optional or required")? {
        "off" => Ok(()),
        found if SEALS.contains(&found) => {
            Err(value.error(DocumentFault::NotInThisVersion { found: format!("seal = {found}") }))
        }
        found => {
            let fault =
                DocumentFault::Word { expected: "off, optional or required", found: found.to_owned() };
            Err(value.error(fault).suggesting(found, SEALS.into_iter()))
        }
    }
}

fn refuse_more(value: &Value<'_>, what: &'static str, max: usize, found: usize) -> Result<(), DocumentError> {
    if found > max { Err(value.error(DocumentFault::TooMany { what, max, found })) } else { Ok(()) }
}

fn refuse_twin(table: &Table<'_>, earlier: &[Stream], stream: &Stream) -> Result<(), DocumentError> {
    let twin = |key: &'static str, found: String, first: &Stream| {
        let fault = DocumentFault::DuplicateStream { key, found, first_line: first.line };
        table.required(key).map(|value| value.error(fault))
    };
    if let Some(first) = earlier.iter().find(|first| first.name == stream.name) {
        return Err(twin("name", stream.name.to_string(), first)?);
    }
    if let Some(first) = earlier.iter().find(|first| first.id == stream.id) {
        let hint = "one id is one history: `sealbus stream new NAME` draws another";
        return Err(twin("id", stream.id.to_string(), first)?.with_hint(hint));
    }
    Ok(())
}

/// Every filter is looked up in what the earlier streams capture: a document may have more filters than could be
/// compared in pairs.
fn refuse_overlap(
    table: &Table<'_>,
    earlier: &[Stream],
    captured: &FilterTable,
    stream: &Stream,
) -> Result<(), DocumentError> {
    let items = table.required("topics")?.list("a list of topic filters")?;
    for (filter, item) in stream.topics.iter().zip(items) {
        let Some(other) = captured.overlapping(filter).and_then(|number| earlier.get(number)) else {
            continue;
        };
        let shares = |theirs: &&TopicFilter| theirs.overlaps(filter);
        return Err(item.error(DocumentFault::StreamsOverlap {
            found: filter.as_str().to_owned(),
            other: other.name.to_string(),
            other_line: other.line,
            other_filter: other.topics.iter().find(shares).map(ToString::to_string).unwrap_or_default(),
        }));
    }
    Ok(())
}
