//! What happened, as those outside the broker saw it: one JSON object to a line, in the order of their telling.
//!
//! A line about an intention (`sent`, `replay`, `ack`) is written before the act, one about an answer after it. So whoever reads
//! them in order knows what must have been true between the two. `tests/checker/check.py` says what each line means.

use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Output;
use sealbus_client::{Message, PublishError, Receipt};
use serde_json::Value;

/// Bytes of a history that wait to be written.
const BUFFER_BYTES: usize = 256 * 1_024;

/// A message, as those who publish and those who read it name it: the `n`-th of its producer on its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) producer: u64,
    pub(super) topic: &'static str,
    pub(super) n: u64,
}

impl Name {
    /// What travels with the message, in its key: payloads are too short to say it.
    pub(super) fn key(&self) -> Vec<u8> {
        self.n.to_string().into_bytes()
    }
}

/// What became of a message that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is known not to have been accepted.
    Failed,
    /// Nobody knows.
    Indeterminate,
}

/// Where a reader got a message from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading<'a> {
    Live,
    Replayed { pass: u64 },
    Consumed { consumer: &'a str, membership: u64 },
}

/// The lines of one campaign.
#[derive(Debug)]
pub(super) struct History {
    begun: Instant,
    out: Mutex<BufWriter<File>>,
    acknowledged: AtomicU64,
}

impl History {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out = Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?));
        Ok(Self { begun: Instant::now(), out, acknowledged: AtomicU64::new(0) })
    }

    /// Messages that were acknowledged so far.
    pub(super) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self, name: &Name, payload: &[u8]) {
        let (sha256, bytes) = (sha256(payload), payload.len());
        self.write(format_args!(
            "\"op\":\"sent\",{},\"sha256\":\"{}\",\"bytes\":{bytes}",
            Named(name),
            Hex(sha256.as_ref())
        ));
    }

    pub(super) fn answered(&self, name: &Name, answer: &Result<Receipt, PublishError>) {
        let (fate, why) = match answer {
            Ok(receipt) => return self.acknowledged(name, receipt),
            Err(error) => (Fate::of(error), error.to_string()),
        };
        let op = match fate {
            Fate::Failed => "\"op\":\"failed\"",
            Fate::Indeterminate => "\"op\":\"indeterminate\",\"asked\":true",
        };
        let why = Value::from(why);
        self.write(format_args!("{op},{},\"why\":{why}", Named(name)));
    }

    /// Its answer was not asked for any more, because of another message's.
    pub(super) fn not_asked(&self, name: &Name) {
        self.write(format_args!("\"op\":\"indeterminate\",\"asked\":false,{},\"why\":\"\"", Named(name)));
    }

    fn acknowledged(&self, name: &Name, receipt: &Receipt) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let offset = receipt.offset().map_or(Value::Null, Value::from);
        let (stream, level) = (stream_of(name.topic), receipt.durability().as_str());
        self.write(format_args!(
            "\"op\":\"acknowledged\",{},\"stream\":\"{stream}\",\"offset\":{offset},\"level\":\"{level}\"",
            Named(name)
        ));
    }

    /// Somebody got a message.
    pub(super) fn received(&self, reading: Reading<'_>, message: &Message) {
        let op = match reading {
            Reading::Live => "\"op\":\"live\"".to_owned(),
            Reading::Replayed { pass } => format!("\"op\":\"replayed\",\"pass\":{pass}"),
            Reading::Consumed { consumer, membership } => {
                let deliveries = message.deliveries();
                format!(
                    "\"op\":\"consumed\",\"consumer\":\"{consumer}\",\"membership\":{membership},\"deliveries\":{deliveries}"
                )
            }
        };
        let producer =
            message.producer().as_str().rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
        let n = std::str::from_utf8(message.key()).ok().and_then(|key| key.parse::<u64>().ok());
        let number = |number: Option<u64>| number.map_or(Value::Null, Value::from);
        let topic = message.topic().as_str();
        self.write(format_args!(
            "{op},\"producer\":{},\"topic\":{},\"n\":{},\"stream\":{},\"offset\":{},\"sha256\":\"{}\"",
            number(producer),
            Value::from(topic),
            number(n),
            Value::from(stream_of(topic)),
            number(message.offset()),
            Hex(sha256(message.payload()).as_ref())
        ));
    }

    /// Anything that is told rarely. `fields` is a JSON object.
    pub(super) fn note(&self, op: &str, fields: &Value) {
        let fields = fields.to_string();
        let fields = fields.trim_start_matches('{').trim_end_matches('}');
        let comma = if fields.is_empty() { "" } else { "," };
        self.write(format_args!("\"op\":\"{op}\"{comma}{fields}"));
    }

    /// Everything is in the file.
    pub(super) fn flush(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.flush().expect("a history can be written");
    }

    fn write(&self, fields: fmt::Arguments<'_>) {
        let mut line = String::with_capacity(256);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is taken under the lock, so that it grows from line to line.
        let at_us = self.begun.elapsed().as_micros();
        writeln!(line, "{{\"t\":{at_us},{fields}}}").expect("a string takes everything");
        out.write_all(line.as_bytes()).expect("a history can be written");
    }
}

impl Fate {
    /// What the client's error proves.
    fn of(error: &PublishError) -> Self {
        match error {
            PublishError::Message(_) | PublishError::Refused(_) | PublishError::NotSent { .. } => {
                Self::Failed
            }
            PublishError::Unanswered { .. } | PublishError::Lost | PublishError::Closed(_) => {
                Self::Indeterminate
            }
        }
    }
}

/// The stream that keeps a topic: they are called like the first level of their topics.
fn stream_of(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
}

/// SHA-256, from the library that does TLS, so that the histories owe nothing to the code that they judge.
fn sha256(payload: &[u8]) -> Output {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("the suite is one of TLS 1.3");
    suite.common.hash_provider.hash(payload)
}

struct Named<'a>(&'a Name);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { producer, topic, n } = self.0;
        write!(f, "\"producer\":{producer},\"topic\":\"{topic}\",\"n\":{n}")
    }
}

struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
