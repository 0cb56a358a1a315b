//! As `build`, for the frames of streams.

use std::num::{NonZeroU32, NonZeroU64};

use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::frame::{
    BrokerStats, CheckpointGet, CheckpointReply, Consume, ConsumerChoices, ConsumerInfo, ConsumerKey,
    ConsumerSettings, MaxDeliver, More, Operation, Outcome, RecordRange, Replay, RetentionInfo, Settle,
    SettleItem, Settlement, Skipped, SkippedWhy, Start, StoredAt, StreamHealth, StreamInfo, StreamStart,
    Sync, Until,
};
use sealbus_protocol::policy::Name;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::TopicFilter;
use serde_json::Value;

use crate::build::{array, filter, id, list, number, number32, request, subscription, text};

fn some32(value: &Value) -> NonZeroU32 {
    NonZeroU32::new(number32(value)).expect("not zero")
}

/// What is null has its default.
fn chosen32(value: &Value) -> Option<NonZeroU32> {
    value.is_u64().then(|| some32(value))
}

pub(crate) fn name(value: &Value) -> Name {
    Name::parse(text(value)).expect("a name")
}

pub(crate) fn stream(value: &Value) -> StreamName {
    StreamName::parse(text(value)).expect("the name of a stream")
}

/// Null for everything.
pub(crate) fn filter_or_all(value: &Value) -> Option<TopicFilter> {
    value.is_string().then(|| filter(value))
}

pub(crate) fn start(value: &Value) -> Start {
    match value.as_str() {
        Some("earliest") => Start::Earliest,
        Some(word) => {
            assert_eq!(word, "end");
            Start::End
        }
        None if value["offset"].is_u64() => Start::Offset(number(&value["offset"])),
        None if value["time_ms"].is_u64() => Start::Time(number(&value["time_ms"])),
        None => Start::Last(number(&value["last"])),
    }
}

pub(crate) fn until(fields: &Value) -> Until {
    match text(&fields["until"]) {
        "live" => Until::Live,
        word => {
            assert_eq!(word, "end");
            Until::End
        }
    }
}

pub(crate) fn replay(fields: &Value) -> Replay {
    Replay {
        request: request(fields),
        subscription: subscription(fields),
        credit_bytes: number(&fields["credit_bytes"]),
        from: start(&fields["from"]),
        until: until(fields),
        stream: stream(&fields["stream"]),
        filter: filter_or_all(&fields["filter"]),
    }
}

pub(crate) fn settings(fields: &Value) -> ConsumerSettings {
    let max_deliver = &fields["max_deliver"];
    let choices = ConsumerChoices {
        ack_wait_ms: chosen32(&fields["ack_wait_ms"]),
        max_deliver: match max_deliver.as_str() {
            Some(word) => {
                assert_eq!(word, "no-limit");
                Some(MaxDeliver::NoLimit)
            }
            None => chosen32(max_deliver).map(MaxDeliver::Times),
        },
        unacknowledged_max: chosen32(&fields["unacknowledged_max"]),
        backoff_ms: list(&fields["backoff_ms"]).iter().map(number32).collect(),
    };
    ConsumerSettings::new(choices).expect("settings within their limits")
}

pub(crate) fn consumer(fields: &Value) -> ConsumerKey {
    ConsumerKey { stream: name(&fields["stream"]), consumer: name(&fields["consumer"]) }
}

pub(crate) fn consume(fields: &Value) -> Consume {
    let ConsumerKey { stream, consumer } = consumer(fields);
    Consume {
        request: request(fields),
        subscription: subscription(fields),
        credit_bytes: number(&fields["credit_bytes"]),
        from: start(&fields["from"]),
        settings: settings(fields),
        stream,
        consumer,
        filter: filter_or_all(&fields["filter"]),
    }
}

pub(crate) fn sync(fields: &Value) -> Sync {
    if fields["sync"].as_bool().expect("true or false") { Sync::Yes } else { Sync::No }
}

pub(crate) fn items(fields: &Value) -> Vec<SettleItem> {
    let item = |item: &Value| SettleItem {
        offset: number(&item["offset"]),
        count: some32(&item["count"]),
        settlement: match text(&item["verdict"]) {
            "ack" => Settlement::Ack,
            word => {
                assert_eq!(word, "nack");
                Settlement::Nack { delay_ms: number32(&item["delay_ms"]) }
            }
        },
    };
    list(&fields["items"]).iter().map(item).collect()
}

pub(crate) fn settle(fields: &Value) -> Settle {
    Settle {
        request: request(fields),
        subscription: subscription(fields),
        sync: sync(fields),
        items: items(fields),
    }
}

pub(crate) fn checkpoint_get(fields: &Value) -> CheckpointGet {
    CheckpointGet {
        request: request(fields),
        old_size: number(&fields["old_size"]),
        leaf_index: fields["leaf_index"].as_u64(),
        stream: stream(&fields["stream"]),
    }
}

pub(crate) fn checkpoint(fields: &Value) -> CheckpointReply {
    let hashes = |field: &str| list(&fields[field]).iter().map(array).collect();
    CheckpointReply {
        request: request(fields),
        size: number(&fields["size"]),
        prefix: hashes("prefix"),
        consistency: hashes("consistency"),
        inclusion: hashes("inclusion"),
        note: text(&fields["note"]).to_owned(),
    }
}

/// Where a stream begins; null when READY is of none.
pub(crate) fn stream_start(fields: &Value) -> Option<StreamStart> {
    let start = fields["start"].as_object()?;
    Some(StreamStart {
        stream_id: id(&start["stream_id"]),
        offset: number(&start["offset"]),
        end: number(&start["end"]),
    })
}

pub(crate) fn stored(fields: &Value) -> Option<StoredAt> {
    let stored = fields["stored"].as_object()?;
    Some(StoredAt {
        policy_version: number(&stored["policy_version"]),
        leaf_index: number(&stored["leaf_index"]),
    })
}

pub(crate) fn ranges(fields: &Value) -> Option<Vec<RecordRange>> {
    let range = |range: &Value| RecordRange {
        first: number32(&range["first"]),
        count: some32(&range["count"]),
        deliveries: some32(&range["deliveries"]),
    };
    Some(fields["ranges"].as_array()?.iter().map(range).collect())
}

pub(crate) fn skipped(fields: &Value) -> Skipped {
    Skipped {
        subscription: subscription(fields),
        why: match text(&fields["why"]) {
            "trimmed" => SkippedWhy::Trimmed,
            "withdrawn" => SkippedWhy::Withdrawn,
            word => {
                assert_eq!(word, "damaged");
                SkippedWhy::Damaged
            }
        },
        from: number(&fields["from"]),
        to: number(&fields["to"]),
    }
}

/// The operations of ADMIN that are about streams.
pub(crate) fn operation(fields: &Value) -> Operation {
    match text(&fields["operation"]) {
        "streams" => Operation::Streams {
            name: fields["name"].is_string().then(|| stream(&fields["name"])),
            after: fields["after"].is_string().then(|| stream(&fields["after"])),
        },
        "consumers" => Operation::Consumers {
            stream: fields["stream"].is_string().then(|| name(&fields["stream"])),
            after: fields["after"].is_object().then(|| consumer(&fields["after"])),
        },
        "consumer-reset" => {
            Operation::ConsumerReset { consumer: consumer(fields), from: start(&fields["from"]) }
        }
        word => {
            assert_eq!(word, "stats");
            Operation::Stats
        }
    }
}

fn more(fields: &Value) -> More {
    if fields["more"].as_bool().expect("true or false") { More::Yes } else { More::No }
}

pub(crate) fn outcome(fields: &Value) -> Outcome {
    match text(&fields["operation"]) {
        "streams" => Outcome::Streams {
            streams: list(&fields["streams"]).iter().map(stream_info).collect(),
            more: more(fields),
        },
        "consumers" => Outcome::Consumers {
            consumers: list(&fields["consumers"]).iter().map(consumer_info).collect(),
            more: more(fields),
        },
        "consumer-reset" => Outcome::ConsumerReset { position: number(&fields["position"]) },
        word => {
            assert_eq!(word, "stats");
            Outcome::Stats(Box::new(stats(fields)))
        }
    }
}

fn stream_info(fields: &Value) -> StreamInfo {
    let levels = (1..=4).filter_map(Durability::from_wire);
    let level = text(&fields["durability"]);
    let limit = |field: &str| fields["retention"][field].as_u64().and_then(NonZeroU64::new);
    StreamInfo {
        name: stream(&fields["name"]),
        id: id(&fields["stream_id"]),
        topics: list(&fields["topics"]).iter().map(filter).collect(),
        durability: levels.into_iter().find(|word| word.as_str() == level).expect("a durability"),
        health: match text(&fields["state"]) {
            "open" => StreamHealth::Open,
            "full" => StreamHealth::Full,
            word => {
                assert_eq!(word, "stopped");
                StreamHealth::Stopped
            }
        },
        reason: text(&fields["reason"]).to_owned(),
        first: number(&fields["first"]),
        end: number(&fields["end"]),
        records: number(&fields["records"]),
        bytes: number(&fields["bytes"]),
        segments: number32(&fields["segments"]),
        damaged: number32(&fields["damaged"]),
        checkpoint_size: number(&fields["checkpoint_size"]),
        checkpoint_root: array(&fields["checkpoint_root"]),
        retention: RetentionInfo {
            age_ms: limit("age_ms"),
            bytes: limit("bytes"),
            messages: limit("messages"),
        },
        consumers: number32(&fields["consumers"]),
    }
}

fn consumer_info(fields: &Value) -> ConsumerInfo {
    ConsumerInfo {
        stream: name(&fields["stream"]),
        name: name(&fields["consumer"]),
        filter: filter_or_all(&fields["filter"]),
        position: number(&fields["position"]),
        end: number(&fields["end"]),
        unacknowledged: number32(&fields["unacknowledged"]),
        redelivering: number32(&fields["redelivering"]),
        members: number32(&fields["members"]),
        lag: number(&fields["lag"]),
        delivered: number(&fields["delivered"]),
        acknowledged: number(&fields["acknowledged"]),
        dead: number(&fields["dead"]),
        ack_wait_ms: number32(&fields["ack_wait_ms"]),
        max_deliver: number32(&fields["max_deliver"]),
        unacknowledged_max: number32(&fields["unacknowledged_max"]),
    }
}

fn stats(fields: &Value) -> BrokerStats {
    BrokerStats {
        uptime_ms: number(&fields["uptime_ms"]),
        sessions: number32(&fields["sessions"]),
        subscriptions: number32(&fields["subscriptions"]),
        streams: number32(&fields["streams"]),
        consumers: number32(&fields["consumers"]),
        published: number(&fields["published"]),
        published_bytes: number(&fields["published_bytes"]),
        delivered: number(&fields["delivered"]),
        acknowledged_batches: number(&fields["acknowledged_batches"]),
        refused: number(&fields["refused"]),
        disk_free: number(&fields["disk_free"]),
        disk_reserve: number(&fields["disk_reserve"]),
        data_bytes: number(&fields["data_bytes"]),
        audit_lines: number(&fields["audit_lines"]),
    }
}
