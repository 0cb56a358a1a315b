//! The log's lines on the disk.
//!
//! ```text
//!  0                                   durable_len                      len
//!  | line 0 \n | line 1 \n | ... line n \n | appended, not yet synced ... |
//!  '---------- read serves these ----------'
//! ```
//!
//! A line's index is its number from 0. The start of every 256th is kept in memory (8 bytes for some 100 KiB of log).

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::event::PreviousRun;
use crate::vfs::{AppendFile, Vfs};

/// Bytes of a line, its line feed included. What the encoder makes is well below.
pub const LINE_BYTES_MAX: usize = 16 * 1_024;

/// Lines from one remembered start to the next.
const INDEX_STEP: u64 = 256;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 * 1_024;

/// How the last line of a clean life is told, whatever else it says. Quotes within texts are escaped, so that no text
/// can hold this.
const STOPPED_MARK: &[u8] = br#""type_uid":600204,"#;

/// A log that was opened.
pub(super) struct Opened {
    pub(super) writer: LogWriter,
    pub(super) reader: LogReader,
    pub(super) previous: PreviousRun,
}

/// The end of the log. Not to be used after an error.
pub(super) struct LogWriter {
    file: Box<dyn AppendFile>,
    lines: u64,
    starts: Vec<u64>,
}

/// The lines that cannot be lost any more.
pub(super) struct LogReader {
    file: Box<dyn AppendFile>,
    lines: u64,
    len: u64,
    starts: Vec<u64>,
}

/// Lines that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The index from which to read on.
    pub next: u64,
    /// The lines, each with its line feed.
    pub lines: Bytes,
}

/// Opens or creates the log, and cuts what was written half. Only what comes after the last whole line is cut: a
/// damaged line with whole ones behind it did not come from a power loss.
pub(super) fn open(vfs: &dyn Vfs, path: &Path) -> Result<Opened, OpenError> {
    let mut file = vfs.open_append(path)?;
    let found = scan(&*file)?;
    let cut_bytes = file.len().saturating_sub(found.len);
    if cut_bytes > 0 {
        file.truncate(found.len)?;
    }
    // Lines that a crash left in the system's memory are served from now on, so they must be on the disk.
    file.sync_data()?;
    let previous = match (found.lines.checked_sub(1), found.stopped, cut_bytes) {
        (None, _, 0) => PreviousRun::None,
        (Some(_), Stopped::Yes, 0) => PreviousRun::Stopped,
        (last_seq, Stopped::Yes | Stopped::No, cut_bytes) => PreviousRun::Unclean { last_seq, cut_bytes },
    };
    let reader =
        LogReader { file: vfs.open_append(path)?, lines: found.lines, len: found.len, starts: found.starts };
    Ok(Opened { writer: LogWriter { file, lines: found.lines, starts: Vec::new() }, reader, previous })
}

impl LogWriter {
    /// The index that the next line has.
    pub(super) const fn next_seq(&self) -> u64 {
        self.lines
    }

    /// Appends whole lines, of which `lens` gives the bytes.
    pub(super) fn append(&mut self, lines: &[u8], lens: &[usize]) -> io::Result<()> {
        let mut start = self.file.len();
        self.file.append(lines)?;
        for len in lens {
            if self.lines.is_multiple_of(INDEX_STEP) {
                self.starts.push(start);
            }
            start = start.saturating_add(*len as u64);
            self.lines += 1;
        }
        debug_assert_eq!(start, self.file.len(), "the lengths are those of the lines");
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Shows what was synced to the reader.
    pub(super) fn publish(&mut self, reader: &mut LogReader) {
        reader.lines = self.lines;
        reader.len = self.file.len();
        reader.starts.append(&mut self.starts);
    }
}

impl LogReader {
    pub(super) const fn durable_lines(&self) -> u64 {
        self.lines
    }

    pub(super) fn read(&self, from: u64, lines_max: u32, bytes_max: usize) -> Result<AuditPage, ReadError> {
        if from > self.lines {
            return Err(ReadError::PastEnd { from, lines: self.lines });
        }
        let mut wanted = u64::from(lines_max).min(self.lines - from);
        let mut lines = Vec::new();
        let mut next = from;
        let mut cursor = self.cursor(from)?;
        while wanted > 0 {
            let line = cursor.next_line()?.ok_or(ReadError::Shortened)?;
            if lines.len() + line.len() > bytes_max {
                if lines.is_empty() {
                    return Err(ReadError::NoRoom { needed: line.len(), bytes_max });
                }
                break;
            }
            lines.extend_from_slice(line);
            next += 1;
            wanted -= 1;
        }
        Ok(AuditPage { next, lines: lines.into() })
    }

    /// A cursor before line `from`, which is at most one past the last.
    fn cursor(&self, from: u64) -> Result<Cursor<'_>, ReadError> {
        let step = usize::try_from(from / INDEX_STEP).map_err(|_| ReadError::Shortened)?;
        let Some(start) = self.starts.get(step) else {
            return Ok(Cursor::new(&*self.file, self.len, self.len, LINE_BYTES_MAX));
        };
        let mut cursor = Cursor::new(&*self.file, *start, self.len, LINE_BYTES_MAX);
        for _ in 0..from % INDEX_STEP {
            cursor.next_line()?.ok_or(ReadError::Shortened)?;
        }
        Ok(cursor)
    }
}

/// Goes through a file line by line.
struct Cursor<'f> {
    file: &'f dyn AppendFile,
    offset: u64,
    end: u64,
    line_bytes_max: usize,
    buffer: Vec<u8>,
    taken: usize,
}

impl<'f> Cursor<'f> {
    fn new(file: &'f dyn AppendFile, offset: u64, end: u64, line_bytes_max: usize) -> Self {
        Self { file, offset, end, line_bytes_max, buffer: Vec::new(), taken: 0 }
    }

    /// The next line with its line feed; none when what is left has no line feed, at the end or further than
    /// `line_bytes_max`.
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = self.taken;
        loop {
            let unsearched = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let start = self.taken;
                self.taken = searched + at + 1;
                return Ok(self.buffer.get(start..self.taken));
            }
            searched = self.buffer.len();
            if searched - self.taken > self.line_bytes_max || !self.fill(&mut searched)? {
                return Ok(None);
            }
        }
    }

    /// Bytes of the file before the next line.
    fn position(&self) -> u64 {
        self.offset.saturating_sub((self.buffer.len() - self.taken) as u64)
    }

    /// Reads on, dropping what was taken. Says whether there was anything.
    fn fill(&mut self, searched: &mut usize) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        *searched -= self.taken;
        self.taken = 0;
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let held = self.buffer.len();
        self.buffer.resize(held + left.min(READ_BYTES), 0);
        let read = match self.buffer.get_mut(held..) {
            Some([]) | None => 0,
            Some(room) => self.file.read_at(self.offset, room)?,
        };
        self.buffer.truncate(held + read);
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read > 0)
    }
}

/// What an existing log holds.
struct Found {
    lines: u64,
    len: u64,
    starts: Vec<u64>,
    stopped: Stopped,
}

/// Whether the last whole line says that the broker stopped.
#[derive(Clone, Copy)]
enum Stopped {
    Yes,
    No,
}

fn scan(file: &dyn AppendFile) -> Result<Found, OpenError> {
    let mut found = Found { lines: 0, len: 0, starts: Vec::new(), stopped: Stopped::No };
    let mut cursor = Cursor::new(file, 0, file.len(), TORN_BYTES_MAX);
    let mut damaged_at = None;
    loop {
        let start = cursor.position();
        let Some(line) = cursor.next_line()? else { break };
        let whole = matches!(line, [b'{', .., b'}', b'\n']) && line.len() <= LINE_BYTES_MAX;
        match (whole, damaged_at) {
            (true, None) => {
                let says_stopped = line.windows(STOPPED_MARK.len()).any(|window| window == STOPPED_MARK);
                found.stopped = if says_stopped { Stopped::Yes } else { Stopped::No };
                if found.lines.is_multiple_of(INDEX_STEP) {
                    found.starts.push(start);
                }
                found.lines += 1;
                found.len = start.saturating_add(line.len() as u64);
            }
            (true, Some(offset)) => return Err(OpenError::Damaged { line: found.lines, offset }),
            (false, _) => damaged_at = damaged_at.or(Some(start)),
        }
    }
    // What follows without a line feed is one torn write at most; more than that was not written by us.
    let rest = file.len().saturating_sub(cursor.position());
    if rest > TORN_BYTES_MAX as u64 {
        return Err(OpenError::Damaged { line: found.lines, offset: cursor.position() });
    }
    Ok(found)
}

/// Bytes without a line feed that a power loss may leave at the end. A system that loses power can leave zeros for
/// all that one append wrote.
const TORN_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// Why a log cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The system says so.
    Io(io::Error),
    /// A line is not one of ours, and it is not the end that a power loss cut.
    Damaged {
        /// The line's index.
        line: u64,
        /// Bytes before it.
        offset: u64,
    },
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be opened: {error}"),
            Self::Damaged { line, offset } => write!(
                f,
                "line {line}, at byte {offset}, is damaged, and not by a power loss; move the file to a safe place \
                 to start with a new one"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Damaged { .. } => None,
        }
    }
}

/// Why lines cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The log does not go so far.
    PastEnd {
        /// The index that was asked for.
        from: u64,
        /// Lines that there are.
        lines: u64,
    },
    /// The first line does not fit.
    NoRoom {
        /// Its bytes.
        needed: usize,
        /// Bytes that were allowed.
        bytes_max: usize,
    },
    /// The file is shorter than it was: somebody else has changed it.
    Shortened,
    /// The system says so.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PastEnd { from, lines } => {
                write!(f, "the audit log has {lines} lines, and cannot be read from index {from}")
            }
            Self::NoRoom { needed, bytes_max } => {
                write!(f, "the audit line has {needed} bytes, and only {bytes_max} were allowed")
            }
            Self::Shortened => f.write_str("the audit log has become shorter than what was written to it"),
            Self::Io(error) => write!(f, "the audit log cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::PastEnd { .. } | Self::NoRoom { .. } | Self::Shortened => None,
        }
    }
}
