//! How redis-server is started, and its protocol: RESP, in its third version.
//!
//! Live messages are `PUBLISH`, whose replies are switched off: nobody needs them, and the server is faster without.
//! Durable ones are `XADD`, each answered with the entry's id. With version 3 a connection may publish and subscribe.

use std::io::Write as _;

use super::codec::{Cut, decimal};
use crate::failure::Failure;
use crate::subject::{Facts, Peer, Profile, Running, Setting, Subject, first_line_of, program};
use crate::wire::{Received, Wire, WireError};

/// Bytes of a line between two items: a type, a number, an error's words.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a string, as far as this comparison sends any.
const STRING_BYTES_MAX: u64 = 1024 * 1024;

/// Elements of an answer. The greeting has the most, 14 and those of the modules.
const ELEMENTS_MAX: u64 = 256;

/// Answers within answers: the greeting has lists of maps of lists.
const DEPTH_MAX: u8 = 6;

/// The subject.
#[derive(Debug, Clone, Copy)]
pub struct Redis;

impl Subject for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn version(&self) -> Result<String, Failure> {
        // Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=...
        let line = first_line_of("redis-server", "--version")?;
        let version = line.split(' ').find_map(|word| word.strip_prefix("v="));
        Ok(version.unwrap_or(&line).to_owned())
    }

    fn facts(&self) -> Facts {
        Facts { signatures: "none", access: "any certificate of the authority" }
    }

    fn durable_profiles(&self) -> &'static [Profile] {
        &[Profile::Durable, Profile::DurableEverySecond]
    }

    fn acknowledged_means(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Live => "nothing is acknowledged",
            // One fdatasync for all commands of one turn of its loop, before any of them is answered.
            Profile::Durable => "after fdatasync, plain",
            // It puts off even the write while the last second's sync goes on.
            Profile::DurableEverySecond => "in memory, synced each second, plain",
        }
    }

    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure> {
        let config = setting.write("redis.conf", &config(setting))?;
        setting.run(&program("redis-server")?, [config])
    }
}

impl Peer for Redis {
    type Wire = RedisWire;

    fn wire(&self, profile: Profile) -> RedisWire {
        RedisWire::new(profile)
    }
}

fn config(setting: &Setting<'_>) -> String {
    let durability = match setting.profile {
        Profile::Live => "appendonly no",
        Profile::Durable => "appendonly yes\nappendfsync always",
        Profile::DurableEverySecond => "appendonly yes\nappendfsync everysec",
    };
    // Rewriting the file in a second process, which it would begin at 64 MiB, is work that no other subject does in so
    // short a time. Subscribers are not cut off when they lag: nobody lags for long, and losses are counted.
    format!(
        "bind 127.0.0.1\nport 0\ntls-port {port}\n\
         tls-cert-file \"{certificate}\"\ntls-key-file \"{key}\"\ntls-ca-cert-file \"{authority}\"\n\
         tls-auth-clients yes\ntls-protocols \"TLSv1.3\"\n\
         dir \"{folder}\"\nsave \"\"\nauto-aof-rewrite-percentage 0\n\
         client-output-buffer-limit pubsub 0 0 0\n{durability}\n",
        port = setting.port,
        certificate = setting.pki.server_certificate().display(),
        key = setting.pki.server_key().display(),
        authority = setting.pki.authority().display(),
        folder = setting.folder.display(),
    )
}

/// The protocol, for one connection. Each `|` is `\r\n`; a string has its length in front of it.
///
/// ```text
///   *2|$5|HELLO|$1|3|                                     %7|$6|server|...            Ready
///   *2|$9|SUBSCRIBE|$1|t|                                 >3|$9|subscribe|$1|t|:1|    Ready
///   *3|$6|CLIENT|$5|REPLY|$3|OFF|                         (nothing, and so on from here)
///   *3|$7|PUBLISH|$1|t|$7|payload|                        >3|$7|message|$1|t|$7|payload|
///   *5|$4|XADD|$1|t|$1|*|$1|p|$7|payload|                 $15|1700000000000-0|        Acknowledged
///                                                         -ERR in words|
/// ```
#[derive(Debug)]
pub struct RedisWire {
    profile: Profile,
    hello_awaited: bool,
    is_silenced: bool,
    /// The head of the last message, up to its payload, and the payload's length: the next one is nearly always the same.
    known_head: Vec<u8>,
    known_payload_bytes: usize,
}

/// An item of the protocol, as far as anybody here looks into it.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Simple,
    Number,
    String(&'a [u8]),
    Null,
    Map,
    Array,
    /// What comes without having been asked for: its first element, and the last when that is another.
    Push(&'a [u8], Option<&'a [u8]>),
}

impl RedisWire {
    const fn new(profile: Profile) -> Self {
        Self {
            profile,
            hello_awaited: false,
            is_silenced: false,
            known_head: Vec::new(),
            known_payload_bytes: 0,
        }
    }

    /// The next item of `input`: how many bytes it has, when all of it is there.
    fn item<'a>(
        &mut self,
        input: &'a [u8],
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<Option<usize>, WireError> {
        if !self.known_head.is_empty()
            && let Some(behind) = input.strip_prefix(self.known_head.as_slice())
            && let Some((payload, [b'\r', b'\n', ..])) = behind.split_at_checked(self.known_payload_bytes)
        {
            sink(Received::Message(payload));
            // Both terms are bounded: the head is within the longest line, the payload within the longest string.
            return Ok(Some(self.known_head.len() + self.known_payload_bytes + b"\r\n".len()));
        }
        let mut rest = input;
        let Some(item) = parse(&mut rest, DEPTH_MAX)? else { return Ok(None) };
        let item_bytes = input.len() - rest.len();
        let unexpected = || WireError::malformed("an answer to what was asked", input);
        match item {
            Item::Map if self.hello_awaited => {
                self.hello_awaited = false;
                sink(Received::Ready);
            }
            Item::Push(b"subscribe", _) => sink(Received::Ready),
            Item::Push(b"message", Some(payload)) => {
                self.know(input.get(..item_bytes).unwrap_or_default(), payload.len());
                sink(Received::Message(payload));
            }
            // The answer to XADD.
            Item::String(_) => match self.profile {
                Profile::Durable | Profile::DurableEverySecond => sink(Received::Acknowledged(1)),
                Profile::Live => return Err(unexpected()),
            },
            Item::Simple | Item::Number | Item::Null | Item::Map | Item::Array | Item::Push(..) => {
                return Err(unexpected());
            }
        }
        Ok(Some(item_bytes))
    }

    /// Remembers the head of a message.
    fn know(&mut self, message: &[u8], payload_bytes: usize) {
        let head_bytes = message.len().saturating_sub(payload_bytes.saturating_add(b"\r\n".len()));
        self.known_head.clear();
        self.known_head.extend_from_slice(message.get(..head_bytes).unwrap_or_default());
        self.known_payload_bytes = payload_bytes;
    }
}

impl Wire for RedisWire {
    const GREETS_IN_PLAINTEXT: bool = false;

    fn login(&mut self, out: &mut Vec<u8>) {
        self.hello_awaited = true;
        command(out, &[b"HELLO", b"3"]);
    }

    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>) {
        command(out, &[b"SUBSCRIBE", topic.as_bytes()]);
    }

    fn publish(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        if !self.is_silenced {
            self.is_silenced = true;
            command(out, &[b"CLIENT", b"REPLY", b"OFF"]);
        }
        command(out, &[b"PUBLISH", topic.as_bytes(), payload]);
    }

    /// Only with the wire of a durable profile, and not on a connection that has published live: its answers are off.
    fn publish_durable(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        command(out, &[b"XADD", topic.as_bytes(), b"*", b"p", payload]);
    }

    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        _out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<usize, WireError> {
        let mut taken = 0;
        while let Some(item_bytes) = self.item(input.get(taken..).unwrap_or_default(), sink)? {
            taken += item_bytes;
        }
        Ok(taken)
    }
}

/// Takes a whole item off `rest`; nothing when it is not all there, and then `rest` may be anywhere.
fn parse<'a>(rest: &mut &'a [u8], depth_left: u8) -> Result<Option<Item<'a>>, WireError> {
    let Some(Cut { item: line, behind }) = Cut::line(rest, LINE_BYTES_MAX)? else { return Ok(None) };
    let malformed = || WireError::malformed("an item of RESP", line);
    *rest = behind;
    let Some((kind, words)) = line.split_first() else { return Err(malformed()) };
    let number = || decimal(words).ok_or_else(malformed);
    let item = match kind {
        b'+' => Item::Simple,
        b'-' => return Err(WireError::refused(line)),
        b':' => Item::Number,
        b'_' => Item::Null,
        b'$' if words == b"-1" => Item::Null,
        b'$' => {
            let bytes = usize::try_from(number()?.min(STRING_BYTES_MAX + 1)).map_err(|_| malformed())?;
            if bytes as u64 > STRING_BYTES_MAX {
                return Err(WireError::malformed("a string of at most 1 MiB", line));
            }
            let Some(Cut { item: string, behind }) = Cut::bytes_and_end(rest, bytes)? else {
                return Ok(None);
            };
            *rest = behind;
            Item::String(string)
        }
        b'*' | b'>' | b'%' => {
            let pairs = if *kind == b'%' { 2 } else { 1 };
            let elements = number()?.saturating_mul(pairs);
            if elements > ELEMENTS_MAX {
                return Err(WireError::malformed("at most 256 elements", line));
            }
            let depth_left = depth_left
                .checked_sub(1)
                .ok_or_else(|| WireError::malformed("fewer lists in lists", line))?;
            let (mut first, mut last) = (None, None);
            for at in 0..elements {
                let Some(element) = parse(rest, depth_left)? else { return Ok(None) };
                let place = if at == 0 { &mut first } else { &mut last };
                *place = Some(element);
            }
            match (kind, first, last) {
                (b'*', ..) => Item::Array,
                (b'%', ..) => Item::Map,
                (_, Some(Item::String(first)), Some(Item::String(last))) => Item::Push(first, Some(last)),
                (_, Some(Item::String(first)), _) => Item::Push(first, None),
                _ => return Err(malformed()),
            }
        }
        _ => return Err(malformed()),
    };
    Ok(Some(item))
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    write!(out, "*{}\r\n", words.len()).expect("a vector takes whatever it is given");
    for word in words {
        write!(out, "${}\r\n", word.len()).expect("a vector takes whatever it is given");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Came, assert_same_however_split, come};
    use super::*;

    const LOGIN: &[u8] = b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n\
        $2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    const SUBSCRIBED: &[u8] = b">3\r\n$9\r\nsubscribe\r\n$3\r\na/b\r\n:1\r\n";
    const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n$3\r\na/b\r\n$6\r\none\r\nt\r\n";
    const OTHER: &[u8] = b">3\r\n$7\r\nmessage\r\n$3\r\na/b\r\n$0\r\n\r\n";

    fn logged_in(profile: Profile) -> RedisWire {
        let mut wire = RedisWire::new(profile);
        let mut out = Vec::new();
        wire.login(&mut out);
        assert_eq!(out, b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
        wire
    }

    #[test]
    fn items_are_the_same_however_they_are_split() {
        let input = [LOGIN, SUBSCRIBED, MESSAGE, MESSAGE, OTHER, MESSAGE].concat();
        let one = Came::Message(b"one\r\nt".to_vec());
        let expected = [Came::Ready, Came::Ready, one.clone(), one.clone(), Came::Message(Vec::new()), one];
        assert_same_however_split(|| logged_in(Profile::Live), &input, &expected, b"");
    }

    #[test]
    fn each_entry_is_acknowledged() {
        let input = [LOGIN, b"$15\r\n1700000000000-0\r\n$15\r\n1700000000000-1\r\n"].concat();
        let expected = [Came::Ready, Came::Acknowledged(1), Came::Acknowledged(1)];
        assert_same_however_split(|| logged_in(Profile::Durable), &input, &expected, b"");
    }

    #[test]
    fn only_the_first_publish_says_more_than_the_others() {
        let mut wire = RedisWire::new(Profile::Live);
        let publish = b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na/b\r\n$2\r\nhi\r\n";
        let mut out = Vec::new();
        wire.publish("a/b", b"hi", &mut out);
        assert_eq!(out, [b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n", publish.as_slice()].concat());
        for _ in 0..2 {
            out.clear();
            wire.publish("a/b", b"hi", &mut out);
            assert_eq!(out, publish);
        }
    }

    #[test]
    fn what_is_not_the_protocol_ends_the_conversation() {
        for input in [
            b"hello\r\n".as_slice(),
            b"\r\n",
            b"$x\r\n",
            b"$5\r\nhello..",
            b"$1048577\r\n",
            b"$99999999999999999999999\r\n",
            b"*257\r\n",
            b"%129\r\n",
            b">0\r\n",
            b">1\r\n:1\r\n",
            b">1\r\n$7\r\nmessage\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n:1\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b":1\r\n",
            b"+OK\r\n",
            b"_\r\n",
            b"$2\r\nhi\r\n",
            b"%0\r\n%0\r\n",
            b":1\rx",
        ] {
            let found = come(&mut logged_in(Profile::Live), input);
            assert!(
                matches!(found, Err(WireError::Malformed { .. })),
                "{found:?} for {}",
                input.escape_ascii()
            );
        }
        let line = vec![b'+'; LINE_BYTES_MAX];
        assert!(matches!(come(&mut logged_in(Profile::Live), &line), Err(WireError::Malformed { .. })));
    }

    #[test]
    fn a_refusal_is_told_in_the_peers_words() {
        let found = come(&mut logged_in(Profile::Live), b"-NOAUTH Authentication required.\r\n");
        let said = "-NOAUTH Authentication required.".to_owned();
        assert_eq!(found, Err(WireError::Refused { said }));
    }
}
