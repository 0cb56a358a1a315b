//! Which of the whole frames behind damage are in their place.
//!
//! ```text
//!   file      0 1 2 | bad | 9 10 | bad | 5 6 7 8 | bad | 3 4 | bad | 11 ..
//!                           moved        in place        moved
//! ```
//!
//! Blocks that landed elsewhere (a misdirected write, two blocks exchanged) hold frames that verify. Believing the first
//! of them would put everything between it and its true place out of order. In a log offsets grow with the place in the
//! file, so that those frames are believed which are in order with each other and as many as possible: what is lost by
//! that is never more than what was moved.

/// Runs among which the best order is looked for, in quadratic time. With more, each is believed that follows the one
/// before: so many are not moved blocks but a file that is damaged throughout.
const RUNS_MAX: usize = 4_096;

/// Whole frames that follow one another in the file and in their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) position: u64,
    pub(super) end_position: u64,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
    pub(super) frames: u64,
}

impl Run {
    fn follows(&self, before: &Self) -> bool {
        before.end_offset <= self.offset
    }
}

/// Of runs as they stand in the file, those that are in order and have the most frames.
pub(super) fn in_order(runs: Vec<Run>) -> Vec<Run> {
    let follow_each_other = |pair: &[Run]| matches!(pair, [before, run] if run.follows(before));
    if runs.windows(2).all(follow_each_other) {
        return runs;
    }
    if runs.len() > RUNS_MAX {
        return one_after_the_other(runs);
    }
    // For each run, the most frames of an order that ends with it, and the run in front of it there.
    let mut best: Vec<(u64, Option<usize>)> = Vec::with_capacity(runs.len());
    for run in &runs {
        let in_front = runs.iter().zip(&best).enumerate().filter(|(_, (before, _))| run.follows(before));
        let longest = in_front.max_by_key(|(_, (_, (frames, _)))| *frames);
        let frames = longest.map_or(0, |(_, (_, (frames, _)))| *frames);
        best.push((frames.saturating_add(run.frames), longest.map(|(place, _)| place)));
    }
    let mut place = best.iter().enumerate().max_by_key(|(_, (frames, _))| *frames).map(|(place, _)| place);
    let mut chosen = Vec::new();
    while let Some((run, (_, before))) = place.and_then(|place| runs.get(place).zip(best.get(place))) {
        chosen.push(*run);
        place = *before;
    }
    chosen.reverse();
    chosen
}

fn one_after_the_other(runs: Vec<Run>) -> Vec<Run> {
    let mut chosen: Vec<Run> = Vec::new();
    for run in runs {
        if chosen.last().is_none_or(|before| run.follows(before)) {
            chosen.push(run);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs with these first and end offsets, a frame for each offset.
    fn runs(offsets: &[(u64, u64)]) -> Vec<Run> {
        let run = |(place, (offset, end_offset)): (u64, &(u64, u64))| Run {
            position: place * 100,
            end_position: place * 100 + 50,
            offset: *offset,
            end_offset: *end_offset,
            frames: end_offset - offset,
        };
        (0..).zip(offsets).map(run).collect()
    }

    fn chosen(offsets: &[(u64, u64)]) -> Vec<(u64, u64)> {
        in_order(runs(offsets)).iter().map(|run| (run.offset, run.end_offset)).collect()
    }

    #[test]
    fn what_is_in_order_stays() {
        for offsets in [&[][..], &[(3, 5)], &[(3, 5), (5, 6), (9, 9), (9, 12)]] {
            assert_eq!(chosen(offsets), offsets);
        }
    }

    #[test]
    fn exchanged_blocks_do_not_take_what_is_between_with_them() {
        assert_eq!(chosen(&[(9, 11), (5, 9), (3, 5), (11, 20)]), [(5, 9), (11, 20)]);
        assert_eq!(chosen(&[(18, 20), (4, 8), (9, 12)]), [(4, 8), (9, 12)]);
    }

    #[test]
    fn a_block_that_is_there_twice_counts_once() {
        let once = chosen(&[(0, 4), (9, 12), (4, 8), (9, 12)]);
        assert_eq!(once, [(0, 4), (4, 8), (9, 12)]);
    }

    #[test]
    fn a_file_that_is_damaged_throughout_takes_no_quadratic_time() {
        let mut offsets: Vec<(u64, u64)> = (0..20_000).map(|number| (number * 2, number * 2 + 1)).collect();
        offsets.push((0, 1));
        assert_eq!(chosen(&offsets).len(), 20_000);
    }
}
