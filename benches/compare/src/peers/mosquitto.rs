//! How mosquitto is started, and its protocol: MQTT 3.1.1.
//!
//! Live messages are of quality 0. Durable ones are of quality 1, which promises delivery to the subscribers that have a
//! session: without any, a broker acknowledges and forgets. So the durable profile begins with a subscriber that comes,
//! subscribes and leaves, and for whom the broker keeps every message, in memory.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::failure::Failure;
use crate::subject::{Facts, Peer, Profile, Running, Setting, Subject, first_line_of, program};
use crate::wire::{DURABLE_TOPIC, Received, Wire, WireError};

/// Bytes of a packet behind its first two fields, as far as this comparison sends any.
const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that a length may have.
const LENGTH_BYTES_MAX: usize = 4;

/// How long the subscriber that leaves again waits for an answer.
const ABSENT_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
/// Of quality 0, neither retained nor a duplicate.
const PUBLISH: u8 = 0x30;
/// Of quality 1.
const PUBLISH_DURABLE: u8 = 0x32;
const PUBACK: u8 = 0x40;
/// With the bits that the standard demands.
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The subject.
#[derive(Debug, Clone, Copy)]
pub struct Mosquitto;

impl Subject for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn version(&self) -> Result<String, Failure> {
        // mosquitto version 2.0.11
        let line = first_line_of("mosquitto", "-h")?;
        Ok(line.rsplit(' ').next().unwrap_or(&line).to_owned())
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
            Profile::Durable | Profile::DurableEverySecond => "in memory, for an absent subscriber",
        }
    }

    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure> {
        let config = setting.write("mosquitto.conf", &config(setting))?;
        let arguments = ["-c".as_ref(), config.as_os_str()];
        let running = setting.run(&program("mosquitto")?, arguments)?;
        match setting.profile {
            Profile::Live => {}
            Profile::Durable | Profile::DurableEverySecond => subscribe_and_leave(setting)?,
        }
        Ok(running)
    }
}

impl Peer for Mosquitto {
    type Wire = MqttWire;

    fn wire(&self, _profile: Profile) -> MqttWire {
        // Connections of several processes may share a broker, which ends the older of two with one name.
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        MqttWire::new(format!("compare-{}-{connection}", std::process::id()), Session::Clean)
    }
}

/// No limits on what is queued: nothing is dropped unseen. Without Nagle's algorithm, which is the default and would
/// cost it latency, and without a line in the log for each connection, which the other peers do not write either. A
/// `user` matters only to those who run it as root: it would become another, who cannot read the folder of the run.
fn config(setting: &Setting<'_>) -> String {
    format!(
        "listener {port} 127.0.0.1\n\
         cafile {authority}\ncertfile {certificate}\nkeyfile {key}\n\
         require_certificate true\ntls_version tlsv1.3\nallow_anonymous true\n\
         max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n\
         persistence false\nuser root\nlog_dest stderr\nconnection_messages false\n",
        port = setting.port,
        authority = setting.pki.authority().display(),
        certificate = setting.pki.server_certificate().display(),
        key = setting.pki.server_key().display(),
    )
}

/// Comes, subscribes to the durable topic in a session that outlives the connection, and leaves.
fn subscribe_and_leave(setting: &Setting<'_>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new("make mosquitto keep messages for an absent subscriber", error)
    };
    let name = ServerName::try_from("localhost").expect("the constant is a name");
    let tls = ClientConnection::new(setting.pki.client_config()?, name).map_err(|error| failed(&error))?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, setting.port)).map_err(|error| failed(&error))?;
    stream.set_read_timeout(Some(ABSENT_TIMEOUT)).map_err(|error| failed(&error))?;
    let mut stream = StreamOwned::new(tls, stream);

    let mut wire = MqttWire::new("compare-absent".to_owned(), Session::Kept);
    let mut out = Vec::new();
    wire.login(&mut out);
    wire.ask_for(DURABLE_TOPIC, Quality::AtLeastOnce, &mut out);
    stream.write_all(&out).map_err(|error| failed(&error))?;
    let (mut answers, mut answered) = (Vec::new(), 0);
    while answered < 2 {
        let mut piece = [0; 64];
        let count = stream.read(&mut piece).map_err(|error| failed(&error))?;
        if count == 0 {
            return Err(failed(&"it has closed the connection"));
        }
        answers.extend_from_slice(piece.get(..count).unwrap_or_default());
        let taken = wire
            .receive(&answers, &mut Vec::new(), &mut |received| match received {
                Received::Ready => answered += 1,
                Received::Message(_) | Received::Acknowledged(_) => {}
            })
            .map_err(|error| failed(&error))?;
        answers.drain(..taken.min(answers.len()));
    }
    stream.write_all(&DISCONNECT).and_then(|()| stream.flush()).map_err(|error| failed(&error))?;
    stream.conn.send_close_notify();
    stream.flush().map_err(|error| failed(&error))
}

/// Whether the broker forgets a client that has left.
#[derive(Debug, Clone, Copy)]
enum Session {
    Clean,
    Kept,
}

/// What a subscriber asks for.
#[derive(Debug, Clone, Copy)]
enum Quality {
    AtMostOnce = 0,
    AtLeastOnce = 1,
}

/// The protocol, for one connection.
///
/// ```text
///   CONNECT   10 len 0004 "MQTT" 04 flags 0000 client   CONNACK   20 02 00 code               Ready
///   SUBSCRIBE 82 len id topic quality                   SUBACK    90 03 id quality-or-80      Ready
///   PUBLISH   30 len topic payload                      PUBLISH   30 len topic payload
///   PUBLISH   32 len topic id payload                   PUBACK    40 02 id                    Acknowledged
///
///   len: 7 bits to a byte, the lowest first, the top bit set on all but the last; at most 4 bytes
///   topic, client: their length in 2 bytes in front; id: 2 bytes, not 0
/// ```
#[derive(Debug)]
pub struct MqttWire {
    client: String,
    session: Session,
    connack_awaited: bool,
    last_id: u16,
    /// The head of the last message, up to its payload, and the payload's length: the next one is nearly always the same.
    known_head: Vec<u8>,
    known_payload_bytes: usize,
}

impl MqttWire {
    const fn new(client: String, session: Session) -> Self {
        Self {
            client,
            session,
            connack_awaited: false,
            last_id: 0,
            known_head: Vec::new(),
            known_payload_bytes: 0,
        }
    }

    /// The id of the next packet that is answered. There are 65,535, far more than anybody here has unanswered.
    const fn next_id(&mut self) -> [u8; 2] {
        self.last_id = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
        self.last_id.to_be_bytes()
    }

    fn ask_for(&mut self, topic: &str, quality: Quality, out: &mut Vec<u8>) {
        let id = self.next_id();
        packet(out, SUBSCRIBE, &[&id, &text_len(topic), topic.as_bytes(), &[quality as u8]]);
    }

    /// The next packet of `input`: how many bytes it has, when all of it is there.
    fn packet<'a>(
        &mut self,
        input: &'a [u8],
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<Option<usize>, WireError> {
        if !self.known_head.is_empty()
            && let Some(behind) = input.strip_prefix(self.known_head.as_slice())
            && let Some(payload) = behind.get(..self.known_payload_bytes)
        {
            sink(Received::Message(payload));
            // Both terms are within the longest packet.
            return Ok(Some(self.known_head.len() + self.known_payload_bytes));
        }
        let Some((head_bytes, body_bytes)) = head(input)? else { return Ok(None) };
        let packet_bytes = head_bytes + body_bytes;
        let Some(body) = input.get(head_bytes..packet_bytes) else { return Ok(None) };
        let malformed = || WireError::malformed("an answer to what was asked", input);
        match (input.first().copied().unwrap_or_default(), body) {
            (CONNACK, [_, 0]) if self.connack_awaited => {
                self.connack_awaited = false;
                sink(Received::Ready);
            }
            (CONNACK, [_, code]) if *code != 0 => return Err(WireError::refused(input)),
            (SUBACK, [_, _, 0 | 1]) => sink(Received::Ready),
            (SUBACK, [_, _, 0x80]) => return Err(WireError::refused(input)),
            (PUBACK, [_, _]) => sink(Received::Acknowledged(1)),
            (PUBLISH, [high, low, behind @ ..]) => {
                let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
                let payload = behind.get(topic_bytes..).ok_or_else(malformed)?;
                self.known_head.clear();
                let head_bytes = packet_bytes - payload.len();
                self.known_head.extend_from_slice(input.get(..head_bytes).unwrap_or_default());
                self.known_payload_bytes = payload.len();
                sink(Received::Message(payload));
            }
            _ => return Err(malformed()),
        }
        Ok(Some(packet_bytes))
    }
}

impl Wire for MqttWire {
    const GREETS_IN_PLAINTEXT: bool = false;

    fn login(&mut self, out: &mut Vec<u8>) {
        self.connack_awaited = true;
        let flags = match self.session {
            Session::Clean => 0b10,
            Session::Kept => 0,
        };
        // The last two bytes: no keep-alive, so that nobody has to look at the time.
        let head = [0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
        packet(out, CONNECT, &[&head, &text_len(&self.client), self.client.as_bytes()]);
    }

    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>) {
        self.ask_for(topic, Quality::AtMostOnce, out);
    }

    fn publish(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        packet(out, PUBLISH, &[&text_len(topic), topic.as_bytes(), payload]);
    }

    fn publish_durable(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        let id = self.next_id();
        packet(out, PUBLISH_DURABLE, &[&text_len(topic), topic.as_bytes(), &id, payload]);
    }

    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        _out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<usize, WireError> {
        let mut taken = 0;
        while let Some(packet_bytes) = self.packet(input.get(taken..).unwrap_or_default(), sink)? {
            taken += packet_bytes;
        }
        Ok(taken)
    }
}

/// How many bytes the first two fields have, and how many are behind them; nothing when they are not all there.
fn head(input: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut body_bytes = 0_usize;
    for (at, byte) in input.iter().skip(1).take(LENGTH_BYTES_MAX).enumerate() {
        body_bytes |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return if body_bytes <= PACKET_BYTES_MAX {
                // The type, and the bytes of the length up to this one.
                Ok(Some((at + 2, body_bytes)))
            } else {
                Err(WireError::malformed("a packet of at most 1 MiB", input))
            };
        }
    }
    if input.len() > LENGTH_BYTES_MAX {
        return Err(WireError::malformed("a length of at most 4 bytes", input));
    }
    Ok(None)
}

/// The two bytes in front of a text. Topics and names here are constants of this crate, and short.
fn text_len(text: &str) -> [u8; 2] {
    u16::try_from(text.len()).expect("topics and names are shorter than 64 KiB").to_be_bytes()
}

fn packet(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let low = u8::try_from(left & 0x7f).expect("it has seven bits");
        left >>= 7;
        if left == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Came, assert_same_however_split, come};
    use super::*;

    fn logged_in() -> MqttWire {
        let mut wire = MqttWire::new("c".to_owned(), Session::Clean);
        let mut out = Vec::new();
        wire.login(&mut out);
        assert_eq!(out, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c");
        wire
    }

    #[test]
    fn packets_are_the_same_however_they_are_split() {
        // Long enough for a length of two bytes.
        let long = vec![b'x'; 200];
        let mut long_packet = Vec::new();
        logged_in().publish("a/b", &long, &mut long_packet);
        assert_eq!(long_packet[..3], [0x30, 0xcd, 0x01]);
        let message = b"\x30\x08\x00\x03a/bone".as_slice();
        let empty = b"\x30\x05\x00\x03a/b".as_slice();
        let input = [
            b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".as_slice(),
            message,
            message,
            &long_packet,
            &long_packet,
            empty,
            b"\x40\x02\x00\x01",
            message,
        ]
        .concat();
        let one = Came::Message(b"one".to_vec());
        let expected = [
            Came::Ready,
            Came::Ready,
            one.clone(),
            one.clone(),
            Came::Message(long.clone()),
            Came::Message(long),
            Came::Message(Vec::new()),
            Came::Acknowledged(1),
            one,
        ];
        assert_same_however_split(logged_in, &input, &expected, b"");
    }

    #[test]
    fn what_is_sent_is_as_the_standard_has_it() {
        let mut wire = logged_in();
        let mut out = Vec::new();
        wire.subscribe("a/b", &mut out);
        assert_eq!(out, b"\x82\x08\x00\x01\x00\x03a/b\x00");
        for _ in 0..2 {
            out.clear();
            wire.publish("a/b", b"hi", &mut out);
            assert_eq!(out, b"\x30\x07\x00\x03a/bhi");
        }
        out.clear();
        wire.publish_durable("a/b", b"hi", &mut out);
        assert_eq!(out, b"\x32\x09\x00\x03a/b\x00\x02hi");
    }

    #[test]
    fn an_id_is_never_zero() {
        let mut wire = logged_in();
        for id in (1..=u16::MAX).chain(1..=2) {
            assert_eq!(wire.next_id(), id.to_be_bytes());
        }
    }

    #[test]
    fn what_is_not_the_protocol_ends_the_conversation() {
        for input in [
            b"\x30\xff\xff\xff\xff".as_slice(),
            b"\x30\xff\xff\xff\x7f",
            b"\x30\x81\x80\xc0\x00",
            b"\x30\x00",
            b"\x30\x01\x00",
            b"\x30\x04\x00\x03a/",
            b"\x32\x05\x00\x01a\x00\x01",
            b"\x20\x00",
            b"\x20\x02\x00\x00\x20\x02\x00\x00",
            b"\x90\x02\x00\x01",
            b"\x90\x03\x00\x01\x02",
            b"\x40\x00",
            b"\xd0\x00",
            b"\x00\x00",
        ] {
            let found = come(&mut logged_in(), input);
            assert!(
                matches!(found, Err(WireError::Malformed { .. })),
                "{found:?} for {}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn a_refusal_is_told() {
        for input in [b"\x20\x02\x00\x05".as_slice(), b"\x90\x03\x00\x01\x80"] {
            let found = come(&mut logged_in(), input);
            assert!(matches!(found, Err(WireError::Refused { .. })), "{found:?}");
        }
    }
}
