//! `sealbus stats`: what the broker counts, its streams, and how far its consumers are behind.

use clap::{Args, ValueEnum};
use sealbus_client::{BrokerStats, Code, ConsumerInfo, RequestError, StreamInfo};
use serde_json::{Value, json};

use crate::arguments::ConnectionArguments;
use crate::command::consumer;
use crate::command::stream::list as stream;
use crate::context::Context;
use crate::failure::{Failure, Verdict};
use crate::output;
use crate::prometheus::{Exposition, Kind, Sample};
use crate::table::{Table, fields};
use crate::text::{binary_bytes, count, span, thousands};

/// Show what the broker counts, its streams, and its consumers with their lag (verb `admin`).
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealbus stats\n  sealbus stats -o prom > sealbus.prom    for a textfile collector\n\n\
                  Counters begin at 0 when the broker starts."
)]
pub(crate) struct StatsArguments {
    /// How.
    #[arg(short, long, default_value = "table")]
    output: StatsFormat,
}

/// How statistics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    /// Aligned columns, for people.
    Table,
    /// One JSON document: broker, streams, consumers.
    Json,
    /// One JSON object to a line, each with its `kind`: broker, stream or consumer.
    Jsonl,
    /// The Prometheus text format.
    Prom,
}

/// Everything at a moment, or nearly: the three answers come one after the other.
struct Stats {
    broker: BrokerStats,
    streams: Vec<StreamInfo>,
    consumers: Vec<ConsumerInfo>,
}

pub(crate) async fn run(
    arguments: &StatsArguments,
    connection: &ConnectionArguments,
) -> Result<Verdict, Failure> {
    let context = Context::resolve(connection)?;
    let bus = context.connect().await?;
    let failed = |error: RequestError| {
        let attempted = format!("read the statistics of {} as {}", context.server, bus.principal());
        let failure = Failure::new(attempted, &error);
        match error.code() {
            Some(Code::Denied) => failure.advising("a rule must give this principal the verb `admin`"),
            Some(_) | None => failure,
        }
    };
    let stats = Stats {
        broker: bus.stats().await.map_err(failed)?,
        streams: bus.streams(None).await.map_err(failed)?,
        consumers: bus.consumers(None).await.map_err(failed)?,
    };
    output::print(&match arguments.output {
        StatsFormat::Table => table(&stats),
        StatsFormat::Json => format!("{:#}\n", document(&stats)),
        StatsFormat::Jsonl => lines(&stats),
        StatsFormat::Prom => exposition(&stats),
    })?;
    // A courtesy to the broker; its failure is none of ours.
    let _ = bus.close().await;
    Ok(Verdict::Done)
}

fn table(stats: &Stats) -> String {
    let Stats { broker, streams, consumers } = stats;
    let mut text = fields([
        ("up for", span(broker.uptime_ms / 1_000 * 1_000)),
        (
            "sessions",
            format!(
                "{}, with {}",
                broker.sessions,
                count(u64::from(broker.subscriptions), "subscription", "subscriptions")
            ),
        ),
        (
            "published",
            format!(
                "{}, {} in {}",
                count(broker.published, "message", "messages"),
                binary_bytes(broker.published_bytes),
                count(broker.acknowledged_batches, "batch", "batches")
            ),
        ),
        ("delivered", count(broker.delivered, "message", "messages")),
        ("refused", count(broker.refused, "request", "requests")),
        (
            "disk",
            format!(
                "{} in streams, {} free, of which {} are kept in reserve",
                binary_bytes(broker.data_bytes),
                binary_bytes(broker.disk_free),
                binary_bytes(broker.disk_reserve)
            ),
        ),
        ("audit log", count(broker.audit_lines, "line", "lines")),
    ]);
    if !streams.is_empty() {
        let mut table = Table::new(["stream", "state", "messages", "size", "damaged", "consumers"]);
        for info in streams {
            table.row([
                info.name.to_string(),
                stream::health(info).to_owned(),
                thousands(info.end.saturating_sub(info.first)),
                binary_bytes(info.bytes),
                info.damaged.to_string(),
                info.consumers.to_string(),
            ]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    if !consumers.is_empty() {
        let mut table = Table::new(["stream", "consumer", "lag", "unacked", "again", "dead", "members"]);
        for info in consumers {
            table.row([
                info.stream.to_string(),
                info.name.to_string(),
                thousands(info.lag),
                info.unacknowledged.to_string(),
                info.redelivering.to_string(),
                thousands(info.dead),
                info.members.to_string(),
            ]);
        }
        text.push_str(&format!("\n{}", table.render()));
    }
    text
}

fn broker_object(broker: &BrokerStats) -> Value {
    json!({
        "uptime_ms": broker.uptime_ms,
        "sessions": broker.sessions,
        "subscriptions": broker.subscriptions,
        "streams": broker.streams,
        "consumers": broker.consumers,
        "published": broker.published,
        "published_bytes": broker.published_bytes,
        "delivered": broker.delivered,
        "acknowledged_batches": broker.acknowledged_batches,
        "refused": broker.refused,
        "disk_free_bytes": broker.disk_free,
        "disk_reserve_bytes": broker.disk_reserve,
        "data_bytes": broker.data_bytes,
        "audit_lines": broker.audit_lines,
    })
}

fn document(stats: &Stats) -> Value {
    json!({
        "broker": broker_object(&stats.broker),
        "streams": stats.streams.iter().map(stream::object).collect::<Vec<_>>(),
        "consumers": stats.consumers.iter().map(consumer::object).collect::<Vec<_>>(),
    })
}

fn lines(stats: &Stats) -> String {
    let line = |kind: &str, mut object: Value| {
        if let Value::Object(members) = &mut object {
            members.insert("kind".to_owned(), kind.into());
        }
        format!("{object}\n")
    };
    let mut text = line("broker", broker_object(&stats.broker));
    text.extend(stats.streams.iter().map(|info| line("stream", stream::object(info))));
    text.extend(stats.consumers.iter().map(|info| line("consumer", consumer::object(info))));
    text
}

fn exposition(stats: &Stats) -> String {
    use Kind::{Counter, Gauge};
    let broker = &stats.broker;
    let mut all = Exposition::default();
    for (name, kind, help, value) in [
        ("uptime_seconds", Gauge, "Seconds since the broker was started.", broker.uptime_ms as f64 / 1e3),
        ("sessions", Gauge, "Connections that are served.", f64::from(broker.sessions)),
        (
            "subscriptions",
            Gauge,
            "Subscriptions, replays and members of consumers.",
            f64::from(broker.subscriptions),
        ),
        ("streams", Gauge, "Streams that are open.", f64::from(broker.streams)),
        ("consumers", Gauge, "Durable consumers.", f64::from(broker.consumers)),
        ("published_messages_total", Counter, "Messages accepted.", broker.published as f64),
        ("published_bytes_total", Counter, "Bytes of the batches accepted.", broker.published_bytes as f64),
        ("delivered_messages_total", Counter, "Messages delivered.", broker.delivered as f64),
        (
            "acknowledged_batches_total",
            Counter,
            "Batches acknowledged to their producers.",
            broker.acknowledged_batches as f64,
        ),
        ("refused_requests_total", Counter, "Requests refused.", broker.refused as f64),
        ("disk_free_bytes", Gauge, "Bytes that the disk has left for the broker.", broker.disk_free as f64),
        (
            "disk_reserve_bytes",
            Gauge,
            "Free bytes below which publishers get STORAGE_FULL.",
            broker.disk_reserve as f64,
        ),
        ("data_bytes", Gauge, "Bytes of all streams.", broker.data_bytes as f64),
        ("audit_lines", Gauge, "Lines of the audit log.", broker.audit_lines as f64),
    ] {
        all.single(&format!("sealbus_{name}"), kind, help, value);
    }
    expose_streams(&mut all, &stats.streams);
    expose_consumers(&mut all, &stats.consumers);
    all.into_text()
}

fn expose_streams(all: &mut Exposition, streams: &[StreamInfo]) {
    type Value = fn(&StreamInfo) -> f64;
    let names: Vec<String> = streams.iter().map(|info| info.name.to_string()).collect();
    let families: [(&str, Kind, &str, Value); 8] = [
        ("first_offset", Kind::Gauge, "The oldest offset that is kept.", |info| info.first as f64),
        ("end_offset", Kind::Gauge, "The offset of the next message.", |info| info.end as f64),
        ("batches", Kind::Gauge, "Batches that were ever stored.", |info| info.records as f64),
        ("bytes", Kind::Gauge, "Bytes on the disk.", |info| info.bytes as f64),
        ("segments", Kind::Gauge, "Files.", |info| f64::from(info.segments)),
        ("damaged_ranges", Kind::Gauge, "Ranges of offsets that cannot be read any more.", |info| {
            f64::from(info.damaged)
        }),
        ("checkpoint_batches", Kind::Gauge, "Batches under the newest signed checkpoint.", |info| {
            info.checkpoint_size as f64
        }),
        ("consumers", Kind::Gauge, "Durable consumers that read it.", |info| f64::from(info.consumers)),
    ];
    for (name, kind, help, value) in families {
        let samples = streams
            .iter()
            .zip(&names)
            .map(|(info, stream)| -> Sample<'_> { (vec![("stream", stream.as_str())], value(info)) });
        all.family(&format!("sealbus_stream_{name}"), kind, help, samples);
    }
    let states = streams.iter().zip(&names).flat_map(|(info, stream)| {
        ["open", "full", "stopped"].map(|state| -> Sample<'_> {
            let is_so = state == stream::health(info);
            (vec![("stream", stream.as_str()), ("state", state)], f64::from(u8::from(is_so)))
        })
    });
    let help = "1 for the state that the stream is in: open, full (STORAGE_FULL), stopped (a disk failed).";
    all.family("sealbus_stream_state", Kind::Gauge, help, states);
}

fn expose_consumers(all: &mut Exposition, consumers: &[ConsumerInfo]) {
    type Value = fn(&ConsumerInfo) -> f64;
    let families: [(&str, Kind, &str, Value); 8] = [
        ("lag_messages", Kind::Gauge, "Messages that are not settled.", |info| info.lag as f64),
        ("position_offset", Kind::Gauge, "Everything below this offset is settled.", |info| {
            info.position as f64
        }),
        ("unacknowledged_messages", Kind::Gauge, "Messages given out and not settled.", |info| {
            f64::from(info.unacknowledged)
        }),
        ("redelivering_messages", Kind::Gauge, "Messages that wait to be given out again.", |info| {
            f64::from(info.redelivering)
        }),
        ("members", Kind::Gauge, "Sessions that share the work.", |info| f64::from(info.members)),
        ("delivered_messages_total", Kind::Counter, "Messages given out, each time counted.", |info| {
            info.delivered as f64
        }),
        ("acknowledged_messages_total", Kind::Counter, "Messages acknowledged.", |info| {
            info.acknowledged as f64
        }),
        ("dead_letters_total", Kind::Counter, "Messages given up on.", |info| info.dead as f64),
    ];
    for (name, kind, help, value) in families {
        let samples = consumers.iter().map(|info| -> Sample<'_> {
            (vec![("stream", info.stream.as_str()), ("consumer", info.name.as_str())], value(info))
        });
        all.family(&format!("sealbus_consumer_{name}"), kind, help, samples);
    }
}
