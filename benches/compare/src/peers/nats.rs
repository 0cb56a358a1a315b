//! How nats-server is started, and its protocol: a line of text for each operation, and the payload behind it.
//!
//! Live messages are plain `PUB`. For durable ones the server gets JetStream with file storage; the login makes the
//! stream, and each `PUB` names an inbox to which the stream answers.

use std::ffi::OsStr;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::codec::{Cut, decimal};
use crate::failure::Failure;
use crate::subject::{Facts, Peer, Profile, Running, Setting, Subject, first_line_of, program};
use crate::wire::{DURABLE_TOPIC, Received, Wire, WireError};

/// Bytes of a line. The server's own limit for what clients send is 4 KiB; an `INFO` may be longer than that, in clusters.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a payload: the server's own limit by default.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// The subscription that takes the answers of JetStream; topics are numbered from the next on.
const INBOX_ID: u64 = 1;

/// The name of the stream.
const STREAM: &str = "LOAD";

/// The subject.
#[derive(Debug, Clone, Copy)]
pub struct Nats;

impl Subject for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn version(&self) -> Result<String, Failure> {
        let line = first_line_of("nats-server", "--version")?;
        Ok(line.rsplit([' ', 'v']).next().unwrap_or(&line).to_owned())
    }

    fn facts(&self) -> Facts {
        Facts { signatures: "none", access: "any certificate of the authority" }
    }

    fn durable_profiles(&self) -> &'static [Profile] {
        &[Profile::Durable]
    }

    fn acknowledged_means(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Live => "nothing is acknowledged",
            // JetStream of this age has no setting for it.
            Profile::Durable | Profile::DurableEverySecond => "after write, synced later",
        }
    }

    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure> {
        let config = setting.write("nats.conf", &config(setting))?;
        setting.run(&program("nats-server")?, [OsStr::new("-c"), config.as_os_str()])
    }
}

impl Peer for Nats {
    type Wire = NatsWire;

    fn wire(&self, profile: Profile) -> NatsWire {
        // Connections of several processes may share a server, and an inbox must not.
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        NatsWire::new(profile, format!("_INBOX.{}.{connection}", std::process::id()))
    }
}

/// This release cannot be told to speak TLS 1.3 only; it does so with a client that speaks nothing else, as ours.
fn config(setting: &Setting<'_>) -> String {
    let jetstream = match setting.profile {
        Profile::Live => String::new(),
        Profile::Durable | Profile::DurableEverySecond => {
            format!("jetstream {{ store_dir: \"{}\" }}\n", setting.folder.join("jetstream").display())
        }
    };
    format!(
        "listen: \"127.0.0.1:{port}\"\n\
         tls {{\n  cert_file: \"{certificate}\"\n  key_file: \"{key}\"\n  ca_file: \"{authority}\"\n  verify: true\n}}\n\
         {jetstream}",
        port = setting.port,
        certificate = setting.pki.server_certificate().display(),
        key = setting.pki.server_key().display(),
        authority = setting.pki.authority().display(),
    )
}

/// The protocol, for one connection.
///
/// ```text
///   CONNECT {json}            \r\n            INFO {json}               \r\n
///   PING                      \r\n            PONG                      \r\n
///   PONG                      \r\n            PING                      \r\n
///   SUB subject id            \r\n            -ERR 'text'               \r\n
///   PUB subject [inbox] bytes \r\n            MSG subject id [inbox] bytes \r\n
///   payload                   \r\n            payload                      \r\n
///                                             HMSG subject id [inbox] header-bytes bytes \r\n
///                                             headers payload                            \r\n
/// ```
#[derive(Debug)]
pub struct NatsWire {
    profile: Profile,
    inbox: String,
    subscriptions: u64,
    pongs_awaited: u32,
    stream_awaited: bool,
    /// The line of the last message with its end, and what it says: the next one is nearly always the same.
    known_line: Vec<u8>,
    known: Arrival,
}

/// What a line announces.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    payload_bytes: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A message for a subscription to a topic.
    Message,
    /// An answer of JetStream.
    Answer,
    /// Something with headers. Nobody here sends any, but the server itself does when no stream takes a message.
    Headed,
}

impl NatsWire {
    fn new(profile: Profile, inbox: String) -> Self {
        Self {
            profile,
            inbox,
            subscriptions: INBOX_ID,
            pongs_awaited: 0,
            stream_awaited: false,
            known_line: Vec::new(),
            known: Arrival { payload_bytes: 0, kind: Kind::Message },
        }
    }

    /// The next item of `input`: how many bytes it has, when all of it is there.
    fn item<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<Option<usize>, WireError> {
        if !self.known_line.is_empty()
            && let Some(behind) = input.strip_prefix(self.known_line.as_slice())
        {
            return self.payload(self.known, self.known_line.len(), behind, sink);
        }
        let Some(Cut { item: line, behind }) = Cut::line(input, LINE_BYTES_MAX)? else { return Ok(None) };
        let line_bytes = input.len() - behind.len();
        if let Some(arrival) = self.arrival(line)? {
            self.known_line.clear();
            self.known_line.extend_from_slice(input.get(..line_bytes).unwrap_or_default());
            self.known = arrival;
            return self.payload(arrival, line_bytes, behind, sink);
        }
        match line {
            b"PING" => out.extend_from_slice(b"PONG\r\n"),
            b"PONG" => {
                self.pongs_awaited = self
                    .pongs_awaited
                    .checked_sub(1)
                    .ok_or_else(|| WireError::malformed("no PONG that nobody asked for", line))?;
                sink(Received::Ready);
            }
            _ if line.starts_with(b"-ERR ") => return Err(WireError::refused(line)),
            // The server tells about itself again whenever that changes.
            _ if line.starts_with(b"INFO ") => {}
            _ => return Err(WireError::malformed("a line of NATS", line)),
        }
        Ok(Some(line_bytes))
    }

    /// What the line of a message announces; nothing for any other line.
    fn arrival(&self, line: &[u8]) -> Result<Option<Arrival>, WireError> {
        let malformed = || WireError::malformed("MSG subject id [inbox] bytes", line);
        let (fields, headed) = if let Some(fields) = line.strip_prefix(b"MSG ") {
            (fields, false)
        } else if let Some(fields) = line.strip_prefix(b"HMSG ") {
            (fields, true)
        } else {
            return Ok(None);
        };
        // The server puts two spaces where it leaves out an inbox.
        let mut fields = fields.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let (_subject, id) = (fields.next(), fields.next().and_then(decimal).ok_or_else(malformed)?);
        let payload_bytes = fields.next_back().and_then(decimal).ok_or_else(malformed)?;
        // An inbox may be between, and with headers their length.
        let between_max = if headed { 2 } else { 1 };
        if fields.count() > between_max || !(INBOX_ID..=self.subscriptions).contains(&id) {
            return Err(malformed());
        }
        let payload_bytes = usize::try_from(payload_bytes)
            .ok()
            .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
            .ok_or_else(|| WireError::malformed("a payload of at most 1 MiB", line))?;
        let kind = match (headed, id) {
            (true, _) => Kind::Headed,
            (false, INBOX_ID) => Kind::Answer,
            (false, _) => Kind::Message,
        };
        Ok(Some(Arrival { payload_bytes, kind }))
    }

    /// The payload behind a line, when all of it is there.
    fn payload<'a>(
        &mut self,
        arrival: Arrival,
        line_bytes: usize,
        behind: &'a [u8],
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<Option<usize>, WireError> {
        let Some(Cut { item: payload, .. }) = Cut::bytes_and_end(behind, arrival.payload_bytes)? else {
            return Ok(None);
        };
        sink(match arrival.kind {
            Kind::Message => Received::Message(payload),
            Kind::Answer if self.stream_awaited => {
                stream_answer(payload)?;
                self.stream_awaited = false;
                Received::Ready
            }
            Kind::Answer => publish_answer(payload)?,
            Kind::Headed => return Err(WireError::refused(payload)),
        });
        // Both terms are bounded: a line and a payload have their limits.
        Ok(Some(line_bytes + arrival.payload_bytes + b"\r\n".len()))
    }
}

impl Wire for NatsWire {
    const GREETS_IN_PLAINTEXT: bool = true;

    fn login(&mut self, out: &mut Vec<u8>) {
        // With `no_responders` the server says so when no stream takes a message, and it says that in headers.
        out.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"name\":\"compare\",\
              \"lang\":\"rust\",\"version\":\"0\",\"protocol\":1,\"headers\":true,\"no_responders\":true}\r\n",
        );
        match self.profile {
            Profile::Live => {
                self.pongs_awaited += 1;
                out.extend_from_slice(b"PING\r\n");
            }
            Profile::Durable | Profile::DurableEverySecond => {
                // To make a stream that is there already, and is the same, is no error.
                let stream = format!(
                    "{{\"name\":\"{STREAM}\",\"subjects\":[\"{DURABLE_TOPIC}\"],\"storage\":\"file\",\
                     \"retention\":\"limits\",\"discard\":\"old\",\"max_consumers\":-1,\"max_msgs\":-1,\
                     \"max_bytes\":-1,\"max_age\":0,\"max_msg_size\":-1,\"num_replicas\":1}}"
                );
                self.stream_awaited = true;
                append(out, format_args!("SUB {} {INBOX_ID}\r\n", self.inbox), b"");
                append(
                    out,
                    format_args!("PUB $JS.API.STREAM.CREATE.{STREAM} {} {}\r\n", self.inbox, stream.len()),
                    stream.as_bytes(),
                );
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>) {
        self.subscriptions += 1;
        self.pongs_awaited += 1;
        append(out, format_args!("SUB {topic} {}\r\nPING\r\n", self.subscriptions), b"");
    }

    fn publish(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        append(out, format_args!("PUB {topic} {}\r\n", payload.len()), payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Only with the wire of a durable profile: nobody hears the answers otherwise.
    fn publish_durable(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        append(out, format_args!("PUB {topic} {} {}\r\n", self.inbox, payload.len()), payload);
        out.extend_from_slice(b"\r\n");
    }

    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<usize, WireError> {
        let mut taken = 0;
        while let Some(item_bytes) = self.item(input.get(taken..).unwrap_or_default(), out, sink)? {
            taken += item_bytes;
        }
        Ok(taken)
    }
}

/// JetStream on the stream that the login has asked for.
fn stream_answer(answer: &[u8]) -> Result<(), WireError> {
    let made = answer.strip_prefix(b"{\"type\":\"io.nats.jetstream.api.v1.stream_create_response\",");
    match made {
        Some(made) if made.starts_with(b"\"config\":") => Ok(()),
        Some(error) => Err(WireError::refused(error)),
        None => Err(WireError::malformed("an answer of JetStream about a stream", answer)),
    }
}

/// JetStream on one message: `{"stream":"LOAD", "seq":7}`, or an error in its place.
fn publish_answer<'a>(answer: &[u8]) -> Result<Received<'a>, WireError> {
    let kept = answer.strip_prefix(b"{\"stream\":\"").and_then(|rest| rest.strip_prefix(STREAM.as_bytes()));
    let sequence = kept
        .and_then(|rest| rest.strip_prefix(b"\", \"seq\":"))
        .and_then(|rest| rest.strip_suffix(b"}"))
        .and_then(decimal);
    match sequence {
        Some(1..) => Ok(Received::Acknowledged(1)),
        _ if answer.starts_with(b"{\"error\":") => Err(WireError::refused(answer)),
        _ => Err(WireError::malformed("an answer of JetStream about a message", answer)),
    }
}

/// A line and what belongs behind it.
fn append(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>, behind: &[u8]) {
    out.write_fmt(line).expect("a vector takes whatever it is given");
    out.extend_from_slice(behind);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Came, assert_same_however_split, come};
    use super::*;

    const INFO: &[u8] = b"INFO {\"server_id\":\"N\",\"version\":\"2.9.10\",\"max_payload\":1048576} \r\n";
    const STREAM_MADE: &[u8] =
        b"{\"type\":\"io.nats.jetstream.api.v1.stream_create_response\",\"config\":{}}";

    /// Logged in and subscribed once, as far as this side knows.
    fn subscribed() -> NatsWire {
        let mut wire = NatsWire::new(Profile::Live, "_INBOX.1.0".to_owned());
        let mut out = Vec::new();
        wire.login(&mut out);
        assert!(out.starts_with(b"CONNECT {") && out.ends_with(b"}\r\nPING\r\n"));
        out.clear();
        wire.subscribe("a/b", &mut out);
        assert_eq!(out, b"SUB a/b 2\r\nPING\r\n");
        wire
    }

    fn durable() -> NatsWire {
        let mut wire = NatsWire::new(Profile::Durable, "_INBOX.1.0".to_owned());
        wire.login(&mut Vec::new());
        wire
    }

    fn answer(payload: &[u8]) -> Vec<u8> {
        let line = format!("MSG _INBOX.1.0 1 {}\r\n", payload.len());
        [line.as_bytes(), payload, b"\r\n"].concat()
    }

    #[test]
    fn items_are_the_same_however_they_are_split() {
        let message = b"MSG a/b 2 6\r\none\r\nt\r\n".as_slice();
        let asked = b"MSG a/b 2 inbox 0\r\n\r\n".as_slice();
        let input = [INFO, b"PONG\r\nPONG\r\n", message, message, b"PING\r\n", message, asked].concat();
        let one = Came::Message(b"one\r\nt".to_vec());
        let expected = [Came::Ready, Came::Ready, one.clone(), one.clone(), one, Came::Message(Vec::new())];
        assert_same_however_split(subscribed, &input, &expected, b"PONG\r\n");
    }

    #[test]
    fn the_stream_answers_the_login_and_then_each_message() {
        let kept = [b"{\"stream\":\"LOAD\", \"seq\":1}".as_slice(), b"{\"stream\":\"LOAD\", \"seq\":2}"];
        let input = [INFO, &answer(STREAM_MADE), &answer(kept[0]), &answer(kept[1])].concat();
        let expected = [Came::Ready, Came::Acknowledged(1), Came::Acknowledged(1)];
        assert_same_however_split(durable, &input, &expected, b"");
    }

    #[test]
    fn a_durable_publish_names_its_inbox() {
        let mut out = Vec::new();
        durable().publish_durable("load/durable", b"hi", &mut out);
        assert_eq!(out, b"PUB load/durable _INBOX.1.0 2\r\nhi\r\n");
    }

    #[test]
    fn the_same_call_appends_the_same_bytes() {
        let mut wire = subscribed();
        for _ in 0..2 {
            let mut out = Vec::new();
            wire.publish("a/b", b"hi", &mut out);
            assert_eq!(out, b"PUB a/b 2\r\nhi\r\n");
        }
    }

    #[test]
    fn what_is_not_the_protocol_ends_the_conversation() {
        for input in [
            b"HELLO\r\n".as_slice(),
            b"\r\n",
            b"MSG\r\n",
            b"MSG a/b\r\n",
            b"MSG a/b 2\r\n",
            b"MSG a/b 2 x\r\n",
            b"MSG a/b 2 1 2 3\r\n",
            b"MSG a/b 0 1\r\n",
            b"MSG a/b 3 1\r\n",
            b"MSG a/b 2 1048577\r\n",
            b"MSG a/b 2 2\r\nabc",
            b"MSG a/b 2 2\r\nab\rc",
            b"PING\rx",
            b"PONG\r\nPONG\r\nPONG\r\n",
        ] {
            let found = come(&mut subscribed(), input);
            assert!(
                matches!(found, Err(WireError::Malformed { .. })),
                "{found:?} for {}",
                input.escape_ascii()
            );
        }
        let line = vec![b'I'; LINE_BYTES_MAX];
        assert!(matches!(come(&mut subscribed(), &line), Err(WireError::Malformed { .. })));
    }

    #[test]
    fn a_message_that_no_stream_keeps_is_a_refusal() {
        let error = b"{\"error\":{\"code\":503,\"description\":\"insufficient resources\"}}";
        let no_responders = b"HMSG _INBOX.1.0 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n".to_vec();
        let inputs = [
            b"-ERR 'Authorization Violation'\r\n".to_vec(),
            [answer(STREAM_MADE), answer(error)].concat(),
            answer(&[&STREAM_MADE[..STREAM_MADE.len() - 12], b"\"error\":{\"code\":400}}"].concat()),
            no_responders,
        ];
        for input in inputs {
            let found = come(&mut durable(), &input);
            assert!(
                matches!(found, Err(WireError::Refused { .. })),
                "{found:?} for {}",
                input.escape_ascii()
            );
        }
    }
}
