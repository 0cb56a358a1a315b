//! Which segments go: by age, bytes and messages, and never because a clock jumped. Pure.
//!
//! ```text
//!   sealed            sealed            sealed            active: never
//!   |-----------------|-----------------|-----------------|---------
//!   oldest: goes when its newest record is too old, or the rest alone is still too much
//! ```
//!
//! An age needs two clocks to agree. Between two passes the time of day and the ticks must have moved by about the
//! same; otherwise the pass is skipped, and what the time of day ran ahead is taken off it from then on, until it comes
//! back or the broker is started again: a wrong clock keeps more, never less. A stream that is read behind its limits (its
//! slowest durable consumer holds an offset) may have twice of each limit, and no more: the limits are the policy's
//! word, and a consumer that never comes back must not fill the disk.

use sealbus_protocol::session::Tick;

use super::producers::REMEMBERED_MS;
use super::settings::Retention;
use super::store::TrimReason;
use crate::storage::log::SegmentInfo;

/// Segments that one pass removes at most: a mistake shows before everything is gone.
pub const SEGMENTS_PER_PASS_MAX: usize = 16;

/// How far the clocks may differ between two passes. Time servers step by less than this in normal use.
const JUMP_MS_MAX: u64 = 10_000;

/// One moment on both kinds of clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970; may jump.
    pub now_ms: u64,
    /// Only ever grows.
    pub tick: Tick,
}

impl Moment {
    /// A moment of a simulation, whose two clocks are one.
    #[must_use]
    pub const fn simulated(now_ms: u64) -> Self {
        Self { now_ms, tick: Tick(now_ms) }
    }
}

/// A segment, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) base_offset: u64,
    pub(super) end_offset: u64,
    pub(super) bytes: u64,
    /// Time of its newest record; none when it has none.
    pub(super) newest_ms: Option<u64>,
}

impl Whole {
    pub(super) fn of(segment: &SegmentInfo) -> Self {
        Self {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            bytes: segment.bytes,
            newest_ms: (segment.last_time_ms > 0).then_some(segment.last_time_ms),
        }
    }
}

/// What a pass decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Everything stays.
    Keep,
    /// Everything before this offset goes, for this reason.
    Trim(u64, TrimReason),
    /// The clocks disagree.
    Jumped { clock_ms: i64, tick_ms: u64 },
}

/// How far `before` may go so that no sequence is lost that could still matter: up to the first segment that is not in
/// the durable snapshot, unless all that it holds is too old to be asked for again. None when nothing may go. So a
/// broker that cannot keep snapshots keeps its streams a day longer, and not for ever.
pub(super) fn trimmable(
    before: u64,
    sealed: &[SegmentInfo],
    snapshot_record: u64,
    newest_ms: u64,
) -> Option<u64> {
    let old_ms = newest_ms.saturating_sub(REMEMBERED_MS);
    let held =
        sealed.iter().find(|segment| segment.end_record > snapshot_record && segment.last_time_ms >= old_ms);
    match held {
        None => Some(before),
        // Below its end, and not at it: a segment of nothing but signs of life ends where it begins.
        Some(held) => held.end_offset.checked_sub(1).map(|last| before.min(last)),
    }
}

/// Remembers the pass before, and by how much the time of day has run ahead of the ticks.
#[derive(Debug, Default)]
pub(super) struct RetentionClock {
    last: Option<Moment>,
    ahead_ms: u64,
}

impl RetentionClock {
    /// Decides at this moment. `sealed` is oldest first; `active_bytes` and `end_offset` are of the whole stream's end.
    pub(super) fn decide_at(
        &mut self,
        now: Moment,
        retention: &Retention,
        sealed: &[Whole],
        active: Whole,
        hold: Option<u64>,
    ) -> Decision {
        let Some(last) = self.last.replace(now) else { return Decision::Keep };
        let tick_ms = now.tick.since(last.tick);
        let expected = last.now_ms.saturating_add(tick_ms);
        if now.now_ms.abs_diff(expected) > JUMP_MS_MAX {
            self.ahead_ms = match now.now_ms.checked_sub(expected) {
                Some(forward_ms) => self.ahead_ms.saturating_add(forward_ms),
                None => self.ahead_ms.saturating_sub(expected.saturating_sub(now.now_ms)),
            };
            let clock_ms = i64::try_from(now.now_ms)
                .unwrap_or(i64::MAX)
                .saturating_sub(i64::try_from(last.now_ms).unwrap_or(i64::MAX));
            return Decision::Jumped { clock_ms, tick_ms };
        }
        let trusted_ms = self.trusted_ms(now);
        let mut bytes = sealed.iter().map(|segment| segment.bytes).fold(active.bytes, u64::saturating_add);
        let mut cut = Decision::Keep;
        for segment in sealed.iter().take(SEGMENTS_PER_PASS_MAX) {
            let lagging = hold.is_some_and(|hold| hold < segment.end_offset);
            let times = if lagging { 2 } else { 1 };
            let rest_bytes = bytes.saturating_sub(segment.bytes);
            let rest_messages = active.end_offset.saturating_sub(segment.end_offset);
            let too_old = retention.age_ms.is_some_and(|age_ms| {
                let newest_ms = segment.newest_ms.unwrap_or(trusted_ms);
                trusted_ms.saturating_sub(newest_ms) > age_ms.saturating_mul(times)
            });
            let too_much = |limit: Option<u64>, rest: u64| {
                limit.is_some_and(|limit| rest >= limit.saturating_mul(times))
            };
            let why = if too_old {
                TrimReason::Age
            } else if too_much(retention.bytes, rest_bytes) {
                TrimReason::Bytes
            } else if too_much(retention.messages, rest_messages) {
                TrimReason::Messages
            } else {
                break;
            };
            cut = Decision::Trim(segment.end_offset, why);
            bytes = rest_bytes;
        }
        cut
    }

    /// The time of day without what it jumped ahead.
    pub(super) const fn trusted_ms(&self, now: Moment) -> u64 {
        now.now_ms.saturating_sub(self.ahead_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_700_000_000_000;

    fn moment(now_ms: u64, tick_ms: u64) -> Moment {
        Moment { now_ms, tick: Tick(tick_ms) }
    }

    /// `count` sealed segments of 100 messages and 1,000 bytes, the newest an hour old, one more for each before it.
    fn segments(count: u64) -> (Vec<Whole>, Whole) {
        let sealed = (0..count)
            .map(|index| Whole {
                base_offset: index * 100,
                end_offset: (index + 1) * 100,
                bytes: 1_000,
                newest_ms: Some(NOW_MS - (count - index) * HOUR_MS),
            })
            .collect();
        let active =
            Whole { base_offset: count * 100, end_offset: count * 100 + 50, bytes: 500, newest_ms: None };
        (sealed, active)
    }

    fn decide(retention: Retention, count: u64, hold: Option<u64>) -> Decision {
        let (sealed, active) = segments(count);
        let mut clock = RetentionClock::default();
        assert_eq!(
            clock.decide_at(moment(NOW_MS - 1_000, 0), &retention, &sealed, active, hold),
            Decision::Keep
        );
        clock.decide_at(moment(NOW_MS, 1_000), &retention, &sealed, active, hold)
    }

    #[test]
    fn without_limits_everything_stays() {
        assert_eq!(decide(Retention::default(), 10, None), Decision::Keep);
    }

    #[test]
    fn whole_segments_go_as_soon_as_the_rest_is_enough() {
        let age = Retention { age_ms: Some(3 * HOUR_MS + 1), ..Retention::default() };
        assert_eq!(decide(age, 10, None), Decision::Trim(700, TrimReason::Age));
        let bytes = Retention { bytes: Some(2_500), ..Retention::default() };
        assert_eq!(decide(bytes, 10, None), Decision::Trim(800, TrimReason::Bytes));
        let bytes = Retention { bytes: Some(2_501), ..Retention::default() };
        assert_eq!(decide(bytes, 10, None), Decision::Trim(700, TrimReason::Bytes));
        let messages = Retention { messages: Some(150), ..Retention::default() };
        assert_eq!(decide(messages, 10, None), Decision::Trim(900, TrimReason::Messages));
        let messages = Retention { messages: Some(0), ..Retention::default() };
        assert_eq!(decide(messages, 10, None), Decision::Trim(1_000, TrimReason::Messages), "not the active");
    }

    #[test]
    fn one_pass_removes_only_so_much() {
        let bytes = Retention { bytes: Some(0), ..Retention::default() };
        let cut = SEGMENTS_PER_PASS_MAX as u64 * 100;
        assert_eq!(decide(bytes, 40, None), Decision::Trim(cut, TrimReason::Bytes));
    }

    #[test]
    fn a_lagging_consumer_gets_twice_the_limits_and_no_more() {
        let bytes = Retention { bytes: Some(2_500), ..Retention::default() };
        assert_eq!(decide(bytes, 10, Some(0)), Decision::Trim(500, TrimReason::Bytes));
        assert_eq!(
            decide(bytes, 10, Some(600)),
            Decision::Trim(600, TrimReason::Bytes),
            "what it has read may go"
        );
    }

    #[test]
    fn a_clock_that_jumps_deletes_nothing_and_is_said() {
        let (sealed, active) = segments(10);
        let age = Retention { age_ms: Some(100 * HOUR_MS), ..Retention::default() };
        let ten_years_ms = 10 * 365 * 24 * HOUR_MS;
        let mut clock = RetentionClock::default();
        clock.decide_at(moment(NOW_MS, 0), &age, &sealed, active, None);
        let jumped = clock.decide_at(moment(NOW_MS + ten_years_ms, 1_000), &age, &sealed, active, None);
        assert_eq!(jumped, Decision::Jumped { clock_ms: ten_years_ms as i64, tick_ms: 1_000 });
        for pass in 2..10 {
            let stays = moment(NOW_MS + ten_years_ms + pass * 1_000, pass * 1_000);
            assert_eq!(
                clock.decide_at(stays, &age, &sealed, active, None),
                Decision::Keep,
                "it is still wrong"
            );
        }
        let back = clock.decide_at(moment(NOW_MS, 10_000), &age, &sealed, active, None);
        assert!(matches!(back, Decision::Jumped { clock_ms: ..0, .. }), "{back:?}");
        let settled = clock.decide_at(moment(NOW_MS + 1_000, 11_000), &age, &sealed, active, None);
        assert_eq!((settled, clock.ahead_ms), (Decision::Keep, 0));
    }
}
