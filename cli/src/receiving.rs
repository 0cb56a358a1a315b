//! Messages to stdout, as they come: what `sub`, `replay` and `consume` have in common.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use sealbus_client::{Consumer, DeliveryError, Message, Missing, Replay, Subscription};
use tokio::time::{Instant, sleep_until};

use crate::failure::{Failure, Verdict};
use crate::message_text::{JsonLine, pretty};
use crate::signals::Signals;
use crate::style::Style;
use crate::text::{thousands, visible};

/// Bytes of stdout's buffer. It is flushed whenever the stream pauses.
const STDOUT_BUFFER_BYTES: usize = 256 * 1_024;

/// How messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MessageFormat {
    /// For people; control characters are left out.
    Pretty,
    /// One JSON object to a line: topic, producer, sequence, offset, key, headers, time, and the payload as `json`,
    /// `text` or `payload_base64`; of what a stream kept also stream, stored, deliveries and dated.
    Jsonl,
}

/// How messages are printed, once it is known where to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Pretty(Style),
    Jsonl,
    Raw,
}

impl Form {
    /// The form that the arguments ask for.
    pub(crate) fn of(output: MessageFormat, raw: RawPayloads) -> Self {
        match (raw, output) {
            (RawPayloads::Yes, _) => Self::Raw,
            (RawPayloads::No, MessageFormat::Pretty) => Self::Pretty(Style::of(&io::stdout())),
            (RawPayloads::No, MessageFormat::Jsonl) => Self::Jsonl,
        }
    }
}

/// Whether payloads are printed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawPayloads {
    Yes,
    No,
}

impl From<bool> for RawPayloads {
    fn from(flag: bool) -> Self {
        if flag { Self::Yes } else { Self::No }
    }
}

/// Whatever messages come from.
pub(crate) trait Deliveries {
    /// The next message, or what stands in its place; none at the end. Dropping it half-way loses nothing.
    fn next_delivery(&mut self) -> impl Future<Output = Option<Result<Message, DeliveryError>>>;
}

impl Deliveries for Subscription {
    async fn next_delivery(&mut self) -> Option<Result<Message, DeliveryError>> {
        self.next().await
    }
}

impl Deliveries for Replay {
    async fn next_delivery(&mut self) -> Option<Result<Message, DeliveryError>> {
        self.next().await
    }
}

impl Deliveries for Consumer {
    async fn next_delivery(&mut self) -> Option<Result<Message, DeliveryError>> {
        self.next().await
    }
}

/// What came, and what did not.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    lagged: u64,
    gaps: u64,
    /// Offsets that retention had removed.
    trimmed: u64,
    /// Offsets that the broker could not give although it should.
    unreadable: u64,
    rejected: u64,
}

impl Tally {
    /// Tells and counts what came in place of a message.
    pub(crate) fn note(&mut self, error: &DeliveryError, from: &str) -> Result<(), Failure> {
        match error {
            DeliveryError::Lagged { missed } => {
                self.lagged = self.lagged.saturating_add(*missed);
                eprintln!("lag: {error}");
            }
            DeliveryError::Gap { missed, .. } => {
                self.gaps = self.gaps.saturating_add(*missed);
                eprintln!("gap: {}", visible(&error.to_string()));
            }
            DeliveryError::Skipped { from, to, why } => {
                let missing = to.saturating_sub(*from);
                let count = match why {
                    Missing::Trimmed => &mut self.trimmed,
                    Missing::Damaged | Missing::Withdrawn | Missing::Unexplained => &mut self.unreadable,
                };
                *count = count.saturating_add(missing);
                eprintln!("skipped: {error}");
            }
            DeliveryError::Rejected(rejection) => {
                self.rejected = self.rejected.saturating_add(1);
                eprintln!("rejected: {}", visible(&rejection.to_string()));
            }
            DeliveryError::Closed(reason) => {
                return Err(Failure::new(format!("go on receiving {from}"), reason));
            }
        }
        Ok(())
    }

    /// The last line on stderr of a live subscription.
    pub(crate) fn of_live(&self) -> String {
        let Self { received, lagged, gaps, rejected, .. } = self;
        format!("received {received}, missed by lag {lagged}, gaps {gaps}, rejected {rejected}")
    }

    /// The last line on stderr of who reads what a stream kept.
    pub(crate) fn of_kept(&self) -> String {
        let Self { received, gaps, trimmed, unreadable, rejected, .. } = self;
        format!(
            "received {received}, trimmed {trimmed}, unreadable {unreadable}, gaps {gaps}, rejected {rejected}"
        )
    }

    /// Lag, gaps and retention are told, and nobody's fault; what does not prove itself, or is gone that should be
    /// there, is not to pass as success.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.rejected == 0 && self.unreadable == 0 { Verdict::Done } else { Verdict::Refused }
    }
}

/// When receiving ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Enough {
    /// After so many messages.
    pub(crate) count: Option<u64>,
    /// After this time.
    pub(crate) after: Option<Duration>,
}

/// What the loop woke up for.
enum Woken {
    Stop,
    Delivery(Option<Result<Message, DeliveryError>>),
    Pause,
}

/// Prints what comes until the end, a signal, or enough. What was printed is flushed whenever the stream pauses.
pub(crate) async fn print_all(
    deliveries: &mut impl Deliveries,
    from: &str,
    form: Form,
    enough: Enough,
    course: &Course,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let deadline = enough.after.map(|after| Instant::now() + after);
    let stop = async {
        match deadline {
            Some(deadline) => tokio::select! {
                () = signals.stop() => {}
                () = sleep_until(deadline) => {}
            },
            None => signals.stop().await,
        }
    };
    let mut stop = std::pin::pin!(stop);
    let mut printer = Printer::new(form);
    while enough.count.is_none_or(|count| tally.received < count) {
        // The last branch is always ready: it makes a pause in the stream visible, once, and then sleeps.
        let woken = tokio::select! {
            biased;
            () = &mut stop => Woken::Stop,
            delivery = deliveries.next_delivery() => Woken::Delivery(delivery),
            () = std::future::ready(()), if printer.is_dirty => Woken::Pause,
        };
        match woken {
            Woken::Stop | Woken::Delivery(None) => break,
            Woken::Pause => printer.flush()?,
            Woken::Delivery(Some(Ok(message))) => {
                tally.received = tally.received.saturating_add(1);
                printer.print(&message)?;
                course.reached(&message, tally.received);
            }
            Woken::Delivery(Some(Err(error))) => course.bar.suspend(|| tally.note(&error, from))?,
        }
    }
    printer.flush()
}

/// How far a long reading has come, on stderr when that is a terminal and the messages go elsewhere.
pub(crate) struct Course {
    bar: ProgressBar,
    first: u64,
}

impl Course {
    /// Nothing is shown.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), first: 0 }
    }

    /// Through these offsets.
    pub(crate) fn through(offsets: &std::ops::Range<u64>) -> Self {
        if io::stdout().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::new(offsets.end.saturating_sub(offsets.start));
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, first: offsets.start }
    }

    fn reached(&self, message: &Message, received: u64) {
        if received.is_multiple_of(256) {
            let passed = message.offset().map_or(received, |offset| offset.saturating_sub(self.first));
            self.bar.set_position(passed);
            self.bar.set_message(format!("{} messages", thousands(received)));
        }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Stdout, buffered.
pub(crate) struct Printer {
    form: Form,
    stdout: BufWriter<StdoutLock<'static>>,
    line: JsonLine,
    pub(crate) is_dirty: bool,
}

impl Printer {
    pub(crate) fn new(form: Form) -> Self {
        let stdout = BufWriter::with_capacity(STDOUT_BUFFER_BYTES, io::stdout().lock());
        Self { form, stdout, line: JsonLine::default(), is_dirty: false }
    }

    pub(crate) fn print(&mut self, message: &Message) -> Result<(), Failure> {
        self.is_dirty = true;
        let written = match self.form {
            Form::Pretty(style) => self.stdout.write_all(pretty(message, style).as_bytes()),
            Form::Jsonl => self.stdout.write_all(self.line.of(message)),
            Form::Raw => self.stdout.write_all(message.payload()).and_then(|()| self.stdout.write_all(b"\n")),
        };
        written.map_err(|error| Failure::stdout(&error))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.is_dirty = false;
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }
}
