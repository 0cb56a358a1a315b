//! Where messages come from. Reading blocks, so that it has a thread; the channel behind it is short.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sealbus_client::Outgoing;
use sealbus_protocol::limits::PAYLOAD_BYTES_MAX;
use sealbus_protocol::topic::Topic;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::template::Template;

/// Messages that are read ahead. Each is bounded by the payload's limit.
const READ_AHEAD: usize = 64;

/// What to read.
#[derive(Debug)]
pub(super) enum Input {
    /// One message, from the command line.
    Payload { topic: Topic, payload: String },
    /// One message, a file.
    File { topic: Topic, path: PathBuf },
    /// One message, all of stdin.
    Whole { topic: Topic },
    /// A message for each line of stdin.
    Lines { topic: Topic },
    /// A message for each JSON object.
    Objects { path: PathBuf, templates: Templates, skip_bad: bool },
}

/// What a JSON object's topic and key are.
#[derive(Debug)]
pub(super) struct Templates {
    topic: Template,
    key: Option<Template>,
}

/// What came from the source.
pub(super) enum Item {
    /// A message.
    Message {
        topic: Topic,
        message: Outgoing,
        /// Bytes that have been read of the source.
        read_bytes: u64,
    },
    /// A line that was left out.
    Skipped,
    /// The end: something was not good.
    Failed(Failure),
}

/// A source that is being read.
pub(super) struct Source {
    items: mpsc::Receiver<Item>,
    bytes_len: Option<u64>,
}

impl Templates {
    pub(super) fn parse(topic: &str, key: Option<&str>) -> Result<Self, Failure> {
        let parse = |text: &str| {
            Template::parse(text).map_err(|error| Failure::usage(format!("use the template {text}"), error))
        };
        Ok(Self { topic: parse(topic)?, key: key.map(parse).transpose()? })
    }
}

impl Source {
    /// Opens what is to be read and begins to read it.
    pub(super) fn open(
        input: Input,
        key: Option<String>,
        headers: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        let dress = Dress { key, headers };
        let (reader, name, bytes_len) = open(&input)?;
        std::thread::Builder::new()
            .name("source".to_owned())
            .spawn(move || Reading { reader, name, dress, sender, read_bytes: 0 }.run(&input))
            .map_err(|error| Failure::new("start a thread to read the messages", error))?;
        Ok(Self { items, bytes_len })
    }

    /// The next item; none after the last.
    pub(super) async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    /// How many bytes there are, where that is known.
    pub(super) const fn bytes_len(&self) -> Option<u64> {
        self.bytes_len
    }
}

type Reader = Box<dyn BufRead + Send>;

fn open(input: &Input) -> Result<(Reader, String, Option<u64>), Failure> {
    let file = |path: &Path| {
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = opened.map_err(|error| Failure::new(format!("read {name}"), error))?;
        let bytes_len = metadata.is_file().then_some(metadata.len());
        Ok((Box::new(BufReader::with_capacity(256 * 1_024, file)) as Reader, name, bytes_len))
    };
    let stdin = || (Box::new(BufReader::new(io::stdin())) as Reader, "stdin".to_owned(), None);
    match input {
        Input::Payload { .. } => Ok((Box::new(io::empty()), "the argument".to_owned(), None)),
        Input::File { path, .. } => file(path),
        Input::Whole { .. } if io::stdin().is_terminal() => {
            Err(Failure::usage("publish", "there is no payload, and stdin is a terminal")
                .advising("give the payload as an argument, or --file, --lines or --jsonl"))
        }
        Input::Whole { .. } | Input::Lines { .. } => Ok(stdin()),
        Input::Objects { path, .. } if path.as_os_str() == "-" => Ok(stdin()),
        Input::Objects { path, .. } => file(path),
    }
}

/// What every message gets.
struct Dress {
    key: Option<String>,
    headers: Vec<(String, String)>,
}

impl Dress {
    fn message(&self, payload: Vec<u8>, key: Option<String>) -> Outgoing {
        let mut message = Outgoing::new(Bytes::from(payload));
        if let Some(key) = key.or_else(|| self.key.clone()) {
            message = message.key(key.into_bytes());
        }
        for (name, value) in &self.headers {
            message = message.header(name.clone(), value.clone().into_bytes());
        }
        message
    }
}

/// The thread's work.
struct Reading {
    reader: Reader,
    name: String,
    dress: Dress,
    sender: mpsc::Sender<Item>,
    read_bytes: u64,
}

impl Reading {
    fn run(mut self, input: &Input) {
        let done = match input {
            Input::Payload { topic, payload } => self.send(topic, payload.clone().into_bytes(), None),
            Input::File { topic, .. } | Input::Whole { topic } => self.whole(topic),
            Input::Lines { topic } => self.lines(|reading, _, line| reading.send(topic, line, None)),
            Input::Objects { templates, skip_bad, .. } => {
                self.lines(|reading, number, line| reading.object(templates, *skip_bad, number, line))
            }
        };
        if let Err(Some(failure)) = done {
            // A receiver that has gone does not want the reason either.
            let _ = self.sender.blocking_send(Item::Failed(failure));
        }
    }

    fn send(&mut self, topic: &Topic, payload: Vec<u8>, key: Option<String>) -> Result<(), Option<Failure>> {
        let message = self.dress.message(payload, key);
        let item = Item::Message { topic: topic.clone(), message, read_bytes: self.read_bytes };
        self.sender.blocking_send(item).map_err(|_| None)
    }

    fn whole(&mut self, topic: &Topic) -> Result<(), Option<Failure>> {
        let mut payload = Vec::new();
        let bytes_max = PAYLOAD_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(bytes_max).read_to_end(&mut payload);
        read.map_err(|error| Failure::new(format!("read {}", self.name), error))?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Some(self.too_long("it is")));
        }
        self.read_bytes = payload.len() as u64;
        self.send(topic, payload, None)
    }

    /// Hands each line that is not empty to `each`, with its number from 1.
    fn lines(
        &mut self,
        each: impl Fn(&mut Self, u64, Vec<u8>) -> Result<(), Option<Failure>>,
    ) -> Result<(), Option<Failure>> {
        for number in 1_u64.. {
            let mut line = Vec::new();
            // A line, its end, and one byte more, so that a longer one is told from one that just fits.
            let bytes_max = PAYLOAD_BYTES_MAX as u64 + 3;
            let read = self.reader.by_ref().take(bytes_max).read_until(b'\n', &mut line);
            let read =
                read.map_err(|error| Failure::new(format!("read line {number} of {}", self.name), error))?;
            if read == 0 {
                break;
            }
            self.read_bytes = self.read_bytes.saturating_add(read as u64);
            for end in [b'\n', b'\r'] {
                line.pop_if(|last| *last == end);
            }
            if line.len() > PAYLOAD_BYTES_MAX {
                return Err(Some(self.too_long(&format!("line {number} is"))));
            }
            if !line.is_empty() {
                each(self, number, line)?;
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        templates: &Templates,
        skip_bad: bool,
        number: u64,
        line: Vec<u8>,
    ) -> Result<(), Option<Failure>> {
        match filled(templates, &line) {
            Ok((topic, key)) => self.send(&topic, line, key),
            Err(_) if skip_bad => self.sender.blocking_send(Item::Skipped).map_err(|_| None),
            Err(found) => {
                let attempted = format!("publish line {number} of {}", self.name);
                Err(Some(Failure::new(attempted, found).advising(
                    "mend the line or the template, or leave such lines out with --skip-bad; nothing of this line and \
                     those after it was published",
                )))
            }
        }
    }

    fn too_long(&self, what: &str) -> Failure {
        let found = format!("{what} longer than {PAYLOAD_BYTES_MAX} bytes, the most that a message may have");
        Failure::new(format!("publish {}", self.name), found)
    }
}

fn filled(templates: &Templates, line: &[u8]) -> Result<(Topic, Option<String>), String> {
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("the line is no JSON object: {error}"))?;
    let topic = templates.topic.topic(&object).map_err(|error| error.to_string())?;
    let key = templates.key.as_ref().map(|key| key.text(&object)).transpose();
    Ok((topic, key.map_err(|error| error.to_string())?))
}
