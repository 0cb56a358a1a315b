//! `sealbus stream list|show`: streams, as the broker has them.

use clap::Args;
use sealbus_client::{Code, RequestError, StreamHealth, StreamInfo};
use serde_json::{Value, json};

use crate::arguments::ConnectionArguments;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::table::{Table, fields};
use crate::text::{binary_bytes, count, hex, span, thousands};

/// Arguments of `stream list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealbus stream list -o jsonl | jq .name")]
pub(crate) struct ListArguments {
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Arguments of `stream show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealbus stream show flights\n\n\
                        Offsets count messages, batches are the leaves of the stream's Merkle log. The checkpoint is the \
                        newest that the broker has signed, not yet verified: `sealbus stream verify` does that.")]
pub(crate) struct ShowArguments {
    /// The stream.
    name: String,
    /// How.
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Lists what there is.
pub(super) async fn list(
    arguments: &ListArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let who = bus.principal();
    let streams = bus.streams(None).await;
    let streams = streams.map_err(|error| failed(format!("list the streams as {who}"), &error))?;
    if streams.is_empty() {
        eprintln!("none that {who} may see");
    }
    match arguments.output {
        Format::Table => output::print(&table(&streams))?,
        Format::Json => output::print_json(&objects(&streams), output::JsonForm::Document)?,
        Format::Jsonl => output::print_json(&objects(&streams), output::JsonForm::Lines)?,
    }
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    Ok(Verdict::Done)
}

/// Shows one.
pub(super) async fn show(
    arguments: &ShowArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let ShowArguments { name, output } = arguments;
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let attempted = format!("show the stream {name} as {}", bus.principal());
    let streams = bus.streams(Some(name)).await.map_err(|error| failed(attempted.clone(), &error))?;
    let stream = streams.first().ok_or_else(|| {
        Failure::new(attempted, "there is none that this principal may see")
            .advising("`sealbus stream list` shows those that there are")
    })?;
    match output {
        Format::Table => output::print(&fields(rows(stream)))?,
        Format::Json => output::print(&format!("{:#}\n", object(stream)))?,
        Format::Jsonl => output::print(&format!("{}\n", object(stream)))?,
    }
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    Ok(Verdict::Done)
}

fn failed(attempted: String, error: &RequestError) -> Failure {
    let failure = match error {
        RequestError::Stream(_) => Failure::usage(attempted, error),
        _ => Failure::new(attempted, error),
    };
    match error.code() {
        Some(Code::Denied) => {
            failure.advising("a rule must give this principal the verb `describe` on the stream")
        }
        Some(_) | None => failure,
    }
}

fn table(streams: &[StreamInfo]) -> String {
    let mut table =
        Table::new(["stream", "state", "topics", "messages", "offsets", "size", "durability", "consumers"]);
    for stream in streams {
        table.row([
            stream.name.to_string(),
            health(stream).to_owned(),
            topics(stream),
            thousands(stream.end.saturating_sub(stream.first)),
            format!("{}..{}", stream.first, stream.end),
            binary_bytes(stream.bytes),
            stream.durability.as_str().to_owned(),
            stream.consumers.to_string(),
        ]);
    }
    table.render()
}

fn rows(stream: &StreamInfo) -> Vec<(&'static str, String)> {
    let reason = if stream.reason.is_empty() { String::new() } else { format!(": {}", stream.reason) };
    let checkpoint = match stream.checkpoint_size {
        0 => "none yet".to_owned(),
        size => format!("{}, root {}", count(size, "batch", "batches"), hex(&stream.checkpoint_root)),
    };
    let damaged = match stream.damaged {
        0 => String::new(),
        ranges => format!(", {} damaged", count(u64::from(ranges), "range", "ranges")),
    };
    vec![
        ("stream", stream.name.to_string()),
        ("id", stream.id.to_string()),
        ("state", format!("{}{reason}", health(stream))),
        ("topics", topics(stream)),
        ("durability", stream.durability.as_str().to_owned()),
        ("retention", retention(stream)),
        (
            "messages",
            format!(
                "{}, offsets {} to {}",
                thousands(stream.end.saturating_sub(stream.first)),
                stream.first,
                stream.end
            ),
        ),
        ("batches", thousands(stream.records)),
        ("size", {
            let segments = count(u64::from(stream.segments), "segment", "segments");
            format!("{} in {segments}{damaged}", binary_bytes(stream.bytes))
        }),
        ("checkpoint", checkpoint),
        ("consumers", stream.consumers.to_string()),
    ]
}

fn retention(stream: &StreamInfo) -> String {
    let retention = &stream.retention;
    let bounds = [
        retention.age_ms.map(|age_ms| span(age_ms.get())),
        retention.bytes.map(|bytes| binary_bytes(bytes.get())),
        retention.messages.map(|messages| format!("{} messages", thousands(messages.get()))),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() { "for ever".to_owned() } else { bounds.join(", ") }
}

fn topics(stream: &StreamInfo) -> String {
    stream.topics.iter().map(|filter| filter.as_str()).collect::<Vec<_>>().join(" ")
}

/// The state in a word.
pub(crate) const fn health(stream: &StreamInfo) -> &'static str {
    match stream.health {
        StreamHealth::Open => "open",
        StreamHealth::Full => "full",
        StreamHealth::Stopped => "stopped",
    }
}

fn objects(streams: &[StreamInfo]) -> Vec<Value> {
    streams.iter().map(object).collect()
}

/// A stream as JSON. What there is none of is null.
pub(crate) fn object(stream: &StreamInfo) -> Value {
    let retention = &stream.retention;
    let checkpoint = match stream.checkpoint_size {
        0 => Value::Null,
        size => json!({"batches": size, "root": hex(&stream.checkpoint_root)}),
    };
    json!({
        "name": stream.name.to_string(),
        "id": stream.id.to_string(),
        "topics": stream.topics.iter().map(|filter| filter.as_str()).collect::<Vec<_>>(),
        "durability": stream.durability.as_str(),
        "state": health(stream),
        "reason": Some(&stream.reason).filter(|reason| !reason.is_empty()),
        "first": stream.first,
        "end": stream.end,
        "batches": stream.records,
        "bytes": stream.bytes,
        "segments": stream.segments,
        "damaged_ranges": stream.damaged,
        "checkpoint": checkpoint,
        "retention": {
            "age_ms": retention.age_ms,
            "bytes": retention.bytes,
            "messages": retention.messages,
        },
        "consumers": stream.consumers,
    })
}
