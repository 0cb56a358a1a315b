//! Walks through the frames of a segment, and finds the next whole one behind bytes that are none.

use std::io;
use std::iter::Peekable;
use std::vec;

use super::crc::Prefixes;
use super::frame::{Before, FrameHeader, HEADER_LEN, MAGIC, MAGIC_AT, Salt, checksum_of_header};
use super::limits::{FRAME_PAYLOAD_BYTES_MAX, READ_AHEAD_BYTES, SEARCH_BYTES};
use super::order::{Run, in_order};
use crate::vfs::DataFile;

/// Bytes of the longest frame.
const FRAME_LEN_MAX: usize = HEADER_LEN + FRAME_PAYLOAD_BYTES_MAX;

/// Bytes that are given up at a time when the disk cannot read them.
const UNREADABLE_BYTES: usize = 4_096;

/// A place between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of the frame that follows.
    pub(super) offset: u64,
    /// Of the frame that follows.
    pub(super) record: u64,
    /// In the file.
    pub(super) position: u64,
}

/// What is to be walked through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) salt: Salt,
    pub(super) start: Mark,
    pub(super) end_position: u64,
    /// Frames that go beyond this offset do not belong here.
    pub(super) end_offset: u64,
}

/// A whole frame, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameAt {
    pub(super) position: u64,
    pub(super) end_position: u64,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
    pub(super) synced: u64,
    pub(super) before: Before,
    pub(super) time_ms: u64,
}

/// Bytes that are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Whole frames in front of it, from the start of the walk.
    pub(super) frames_before: usize,
    pub(super) position: u64,
    pub(super) end_position: u64,
    /// How many frames it seems to have been, by the lengths that stand in it.
    pub(super) frames_likely: u64,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) start: Mark,
    pub(super) frames: Vec<FrameAt>,
    pub(super) gaps: Vec<Gap>,
}

/// What to do about bytes that the disk cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Fail: what they say decides what is done to the file.
    Fail,
    /// Take them for damage, so that the frames around them can be served, if the disk can read other parts of the file.
    /// Fail when it reads nothing: a disk that does not answer for a moment has not lost what is on it.
    Damage,
}

/// Walks through a stretch, and shows every whole frame with its content, in order.
pub(super) fn scan(
    file: &dyn DataFile,
    stretch: &Stretch,
    unreadable: Unreadable,
    visit: &mut dyn FnMut(&FrameHeader, &[u8]),
) -> io::Result<Scan> {
    let mut window = Window {
        file,
        end: stretch.end_position,
        unreadable,
        start: 0,
        bytes: Vec::new(),
        prefixes: Prefixes::default(),
    };
    let mut scan = Scan { start: stretch.start, frames: Vec::new(), gaps: Vec::new() };
    let mut position = stretch.start.position;
    let mut expected = Expected::Exactly(stretch.start.offset);
    // Behind the first gap, the frames that are in their place.
    let mut in_place: Option<Peekable<vec::IntoIter<Run>>> = None;
    while position < stretch.end_position {
        match window.frame(position, stretch.salt)?.filter(|(header, _)| expected.fits(header, stretch)) {
            Some((header, payload)) => {
                let frame = FrameAt::new(&header, position);
                visit(&header, payload);
                scan.frames.push(frame);
                position = frame.end_position;
                expected = Expected::Exactly(frame.end_offset);
            }
            None => {
                let from = position;
                expected = expected.or_later();
                let runs = match &mut in_place {
                    Some(runs) => runs,
                    none => {
                        none.insert(in_order(window.runs(from, expected, stretch)?).into_iter().peekable())
                    }
                };
                while runs.next_if(|run| run.position < from).is_some() {}
                position = runs.next().map_or(stretch.end_position, |run| run.position);
                scan.gaps.push(Gap {
                    frames_before: scan.frames.len(),
                    position: from,
                    end_position: position,
                    frames_likely: window.frames_likely(from, position)?,
                });
            }
        }
    }
    Ok(scan)
}

impl Scan {
    /// The offset after the first so many frames.
    pub(super) fn offset_after(&self, frames: usize) -> u64 {
        self.last_of(frames).map_or(self.start.offset, |frame| frame.end_offset)
    }

    /// The place in the file after the first so many frames.
    pub(super) fn position_after(&self, frames: usize) -> u64 {
        self.last_of(frames).map_or(self.start.position, |frame| frame.end_position)
    }

    fn last_of(&self, frames: usize) -> Option<&FrameAt> {
        frames.checked_sub(1).and_then(|last| self.frames.get(last))
    }
}

impl FrameAt {
    fn new(header: &FrameHeader, position: u64) -> Self {
        Self {
            position,
            end_position: position.saturating_add(header.frame_len() as u64),
            offset: header.offset,
            end_offset: header.end(),
            synced: header.synced,
            before: header.before,
            time_ms: header.time_ms,
        }
    }
}

/// Which offset a frame must have.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Exactly(u64),
    /// Behind damage, it cannot be known how many were lost.
    AtLeast(u64),
}

impl Expected {
    fn or_later(self) -> Self {
        match self {
            Self::Exactly(offset) | Self::AtLeast(offset) => Self::AtLeast(offset),
        }
    }

    fn fits(self, header: &FrameHeader, stretch: &Stretch) -> bool {
        let begins = match self {
            Self::Exactly(offset) => header.offset == offset,
            Self::AtLeast(offset) => header.offset >= offset,
        };
        begins && header.end() <= stretch.end_offset
    }
}

/// The part of the file that is in memory.
struct Window<'a> {
    file: &'a dyn DataFile,
    end: u64,
    unreadable: Unreadable,
    start: u64,
    bytes: Vec<u8>,
    prefixes: Prefixes,
}

impl Window<'_> {
    /// The frame at this place.
    fn frame(&mut self, position: u64, salt: Salt) -> io::Result<Option<(FrameHeader, &[u8])>> {
        let Some(header) = self.header(position)? else { return Ok(None) };
        let bytes = self.at(position, header.frame_len())?;
        Ok(FrameHeader::decode(bytes, salt).ok())
    }

    /// The header at this place, if there can be one. Its checksum has not been looked at.
    fn header(&mut self, position: u64) -> io::Result<Option<FrameHeader>> {
        let head = self.at(position, HEADER_LEN)?.first_chunk();
        Ok(head.and_then(|head| FrameHeader::parse(head).ok()).map(|(header, _)| header))
    }

    /// The bytes from here on: as many, or fewer at the end. `len` is at most that of the longest frame, so that what a
    /// damaged header announces is never set aside unjudged.
    fn at(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let behind = position.saturating_add(len as u64).min(self.end);
        let held = self.start..self.start.saturating_add(self.bytes.len() as u64);
        if position < held.start || behind > held.end {
            self.fill(position, len.max(READ_AHEAD_BYTES))?;
        }
        let from = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    /// Reads so many bytes from here on, or up to the end.
    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        self.start = position;
        self.prefixes.clear();
        self.bytes.resize(len.min(left), 0);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = position.saturating_add(filled as u64);
            match self.file.read_at(at, rest) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if self.unreadable == Unreadable::Fail => return Err(error),
                Err(error) => filled = filled.saturating_add(self.read_page(at, filled, error)?),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// Reads one page alone after a failure; one that cannot be read although others can becomes zeros, which are no frame.
    fn read_page(&mut self, position: u64, filled: usize, error: io::Error) -> io::Result<usize> {
        let broken = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        if !broken {
            return Err(error);
        }
        let rest = self.bytes.get_mut(filled..).unwrap_or_default();
        let len = rest.len().min(UNREADABLE_BYTES);
        let page = rest.get_mut(..len).unwrap_or_default();
        match self.file.read_at(position, page) {
            Ok(read) if read > 0 => Ok(read),
            Ok(_) | Err(_) if self.reads_elsewhere(position) => {
                let rest = self.bytes.get_mut(filled..).unwrap_or_default();
                rest.get_mut(..len).unwrap_or_default().fill(0);
                Ok(len)
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Whether the disk can read the first or the last page of the file, which is not the one at this place. It is the
    /// disk that is asked, not what the system's memory has of it.
    fn reads_elsewhere(&self, position: u64) -> bool {
        let Some(last) = self.file.len().ok().and_then(|len| len.checked_sub(1)) else { return false };
        let page_of = |position: u64| position / UNREADABLE_BYTES as u64;
        self.file.forget_cached();
        [0, last].into_iter().filter(|witness| page_of(*witness) != page_of(position)).any(|witness| {
            let mut byte = [0];
            matches!(self.file.read_at(witness, &mut byte), Ok(1))
        })
    }

    /// All whole frames from here on whose offsets are possible, whether they are in order or not.
    fn runs(&mut self, from: u64, expected: Expected, stretch: &Stretch) -> io::Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = from;
        while let Some(position) = self.search(at, expected, stretch)? {
            let Some((header, _)) = self.frame(position, stretch.salt)? else {
                at = position.saturating_add(1);
                continue;
            };
            let frame = FrameAt::new(&header, position);
            match runs.last_mut() {
                Some(run) if run.end_position == position && run.end_offset == frame.offset => {
                    run.end_position = frame.end_position;
                    run.end_offset = frame.end_offset;
                    run.frames = run.frames.saturating_add(1);
                }
                Some(_) | None => runs.push(Run {
                    position,
                    end_position: frame.end_position,
                    offset: frame.offset,
                    end_offset: frame.end_offset,
                    frames: 1,
                }),
            }
            at = frame.end_position;
        }
        Ok(runs)
    }

    /// The next place at which there is a whole frame that fits. Each place is looked at once, and in constant time.
    fn search(&mut self, from: u64, expected: Expected, stretch: &Stretch) -> io::Result<Option<u64>> {
        let mut at = from;
        while let Some(candidate) = self.next_magic(at)? {
            if self.is_frame(candidate, expected, stretch)? {
                return Ok(Some(candidate));
            }
            at = candidate.saturating_add(1);
        }
        Ok(None)
    }

    /// The next place, from here on, that has the magic where a header has it.
    fn next_magic(&mut self, from: u64) -> io::Result<Option<u64>> {
        let [first, second] = MAGIC;
        let mut at = from;
        loop {
            if self.at(at, HEADER_LEN)?.len() < HEADER_LEN {
                return Ok(None);
            }
            let skipped = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
            let rest = self.bytes.get(skipped.saturating_add(MAGIC_AT)..).unwrap_or_default();
            let Some(within) = rest.iter().position(|byte| *byte == first) else {
                // The bytes in front of what is in memory next are a header's that may begin here.
                at = at.saturating_add(rest.len() as u64);
                continue;
            };
            at = at.saturating_add(within as u64);
            match rest.get(within.saturating_add(1)) {
                Some(next) if *next == second => return Ok(Some(at)),
                Some(_) => at = at.saturating_add(1),
                // The second byte is not in memory: from here on it will be.
                None => {}
            }
        }
    }

    fn is_frame(&mut self, position: u64, expected: Expected, stretch: &Stretch) -> io::Result<bool> {
        let Some(head) = self.at(position, HEADER_LEN)?.first_chunk().copied() else { return Ok(false) };
        let Ok((header, crc)) = FrameHeader::parse(&head) else { return Ok(false) };
        let behind = position.saturating_add(header.frame_len() as u64);
        if !expected.fits(&header, stretch) || behind > self.end {
            return Ok(false);
        }
        if behind > self.start.saturating_add(self.bytes.len() as u64) {
            self.fill(position, SEARCH_BYTES.saturating_add(FRAME_LEN_MAX))?;
        }
        let from = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (payload_at, end) = (from.saturating_add(HEADER_LEN), from.saturating_add(header.frame_len()));
        let seed = checksum_of_header(&head, stretch.salt);
        Ok(self.prefixes.append(&self.bytes, seed, payload_at, end) == Some(crc))
    }

    /// How many frames there seem to have been: as many as the lengths say when they lead from end to end, else one.
    fn frames_likely(&mut self, from: u64, to: u64) -> io::Result<u64> {
        let (mut position, mut frames) = (from, 0_u64);
        while position < to {
            let Some(header) = self.header(position)? else { return Ok(1) };
            position = position.saturating_add(header.frame_len() as u64);
            frames = frames.saturating_add(1);
        }
        Ok(if position == to { frames } else { 1 })
    }
}
