//! What the tests of all protocols need: an input, split everywhere, must say the same.

use crate::wire::{Received, Wire, WireError};

/// What came, on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    Ready,
    Message(Vec<u8>),
    Acknowledged(u32),
}

/// Gives `wire` an input and collects what came; with it, how many bytes were taken and what was answered.
pub(super) fn come(wire: &mut impl Wire, input: &[u8]) -> Result<(Vec<Came>, usize, Vec<u8>), WireError> {
    let (mut came, mut answers) = (Vec::new(), Vec::new());
    let taken = wire.receive(input, &mut answers, &mut |received| {
        came.push(match received {
            Received::Ready => Came::Ready,
            Received::Message(payload) => Came::Message(payload.to_vec()),
            Received::Acknowledged(count) => Came::Acknowledged(count),
        });
    })?;
    Ok((came, taken, answers))
}

/// In one piece, in two pieces split at every byte, and byte by byte: always this comes, and always all is taken.
pub(super) fn assert_same_however_split<W: Wire>(
    wire: impl Fn() -> W,
    input: &[u8],
    expected: &[Came],
    expected_answers: &[u8],
) {
    let every_byte: Vec<usize> = (1..=input.len()).collect();
    let cuts = (0..input.len()).map(|cut| vec![cut, input.len()]).chain([every_byte]);
    for cut in cuts {
        let mut wire = wire();
        let (mut came, mut answers, mut start) = (Vec::new(), Vec::new(), 0);
        for end in &cut {
            let (some, taken, answered) =
                come(&mut wire, &input[start..*end]).unwrap_or_else(|error| panic!("{error}, cut at {end}"));
            came.extend(some);
            answers.extend(answered);
            start += taken;
        }
        assert_eq!(start, input.len(), "all is taken, cut at {:?}", cut.first());
        assert_eq!(came, expected, "cut at {:?}", cut.first());
        assert_eq!(answers, expected_answers, "cut at {:?}", cut.first());
    }
}
