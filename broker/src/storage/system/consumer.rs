//! What is kept of a durable consumer: its key, its settings, its cursor.
//!
//! Each can only be made by its check, so that what comes from the disk and what a client asks for are judged alike.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::limits::BATCH_MESSAGES_MAX;
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::TopicFilter;

/// The default of `ack_wait_ms`: longer than most work takes, shorter than an operator's patience.
pub const ACK_WAIT_MS_DEFAULT: u32 = 30_000;

/// The shortest `ack_wait_ms`. The time that a delivery takes to its member and back is within it.
pub const ACK_WAIT_MS_MIN: u32 = 100;

/// The longest `ack_wait_ms` and the longest step of a backoff: a day.
pub const WAIT_MS_MAX: u32 = 24 * 60 * 60 * 1_000;

/// The default of `max_deliver`.
pub const MAX_DELIVER_DEFAULT: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");

/// Steps of a backoff.
pub const BACKOFF_STEPS_MAX: usize = 32;

/// The default of `unacknowledged_max`.
pub const UNACKNOWLEDGED_DEFAULT: u32 = 1_000;

/// The most that `unacknowledged_max` may be: one batch of the largest kind. It bounds what a consumer holds in
/// memory, whatever its members do, and with it the size of its cursor.
pub const UNACKNOWLEDGED_MAX: u32 = BATCH_MESSAGES_MAX;

/// Settled ranges above a cursor's position: between two of them there is a record that is not.
pub const CURSOR_RANGES_MAX: usize = UNACKNOWLEDGED_MAX as usize + 1;

/// Delivery counts that a cursor keeps. Those beyond are forgotten by a crash, and begin again from one.
pub const CURSOR_COUNTS_MAX: usize = 16_384;

/// A durable consumer: a name that is its own within a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// Its stream.
    pub stream: StreamId,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ConsumerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consumer {} of stream {}", self.name, self.stream)
    }
}

/// How often a record is handed out before it becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDeliver {
    /// As often as it takes.
    Unlimited,
    /// This often.
    Times(NonZeroU32),
}

impl MaxDeliver {
    /// Whether a record that was handed out this often is not handed out again.
    #[must_use]
    pub const fn is_reached_by(self, deliveries: u32) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Times(times) => deliveries >= times.get(),
        }
    }
}

impl fmt::Display for MaxDeliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Times(times) => times.fmt(f),
        }
    }
}

/// Settings as somebody asks for them: what is not given has a default, and is no cause for a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedSettings {
    /// Which topics of the stream; all of them when there is none.
    pub filter: Option<TopicFilter>,
    /// Milliseconds that a member has for a record.
    pub ack_wait_ms: Option<u32>,
    /// How often a record is handed out.
    pub max_deliver: Option<MaxDeliver>,
    /// Milliseconds before the second, third and further deliveries after an `ack_wait` was over; the last is used
    /// again. None: at once.
    pub backoff_ms: Option<Vec<u32>>,
    /// Records of the consumer that may be handed out and not yet settled.
    pub unacknowledged_max: Option<u32>,
}

impl AskedSettings {
    /// The first setting that is given and is another than that of a consumer that exists. The filter is always
    /// given: who asks for everything must not be left with a part of it unawares.
    #[must_use]
    pub fn conflict_with(&self, existing: &ConsumerSettings) -> Option<Conflict> {
        fn shown<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
            let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
            values.join(" ")
        }
        let everything =
            |filter: Option<&TopicFilter>| filter.map_or("everything", TopicFilter::as_str).to_owned();
        let conflict = |setting, asked, existing| Some(Conflict { setting, asked, existing });

        if self.filter != existing.filter {
            return conflict(
                "filter",
                everything(self.filter.as_ref()),
                everything(existing.filter.as_ref()),
            );
        }
        if let Some(asked) = self.ack_wait_ms.filter(|asked| *asked != existing.ack_wait_ms) {
            return conflict("ack_wait_ms", asked.to_string(), existing.ack_wait_ms.to_string());
        }
        if let Some(asked) = self.max_deliver.filter(|asked| *asked != existing.max_deliver) {
            return conflict("max_deliver", asked.to_string(), existing.max_deliver.to_string());
        }
        if let Some(asked) = self.backoff_ms.as_ref().filter(|asked| **asked != existing.backoff_ms) {
            return conflict("backoff_ms", shown(asked), shown(&existing.backoff_ms));
        }
        if let Some(asked) = self.unacknowledged_max.filter(|asked| *asked != existing.unacknowledged_max) {
            return conflict(
                "unacknowledged_max",
                asked.to_string(),
                existing.unacknowledged_max.to_string(),
            );
        }
        None
    }
}

/// A consumer exists with another setting than the one that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which setting.
    pub setting: &'static str,
    /// What is asked for.
    pub asked: String,
    /// What it is.
    pub existing: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, asked, existing } = self;
        write!(f, "the consumer exists with {setting} {existing}, asked for was {asked}")
    }
}

impl std::error::Error for Conflict {}

/// The settings of a consumer, within their limits. They are fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    filter: Option<TopicFilter>,
    ack_wait_ms: u32,
    max_deliver: MaxDeliver,
    backoff_ms: Vec<u32>,
    unacknowledged_max: u32,
}

impl ConsumerSettings {
    /// Checks what is asked for, and fills in the defaults.
    ///
    /// # Errors
    /// [`SettingsError`] for the first setting that is outside its limits.
    pub fn new(asked: AskedSettings) -> Result<Self, SettingsError> {
        let within = |setting, found: u32, min, max| {
            let is_within = (min..=max).contains(&found);
            is_within.then_some(found).ok_or(SettingsError { setting, found: u64::from(found), min, max })
        };
        let ack_wait_ms = asked.ack_wait_ms.unwrap_or(ACK_WAIT_MS_DEFAULT);
        let unacknowledged_max = asked.unacknowledged_max.unwrap_or(UNACKNOWLEDGED_DEFAULT);
        let backoff_ms = asked.backoff_ms.unwrap_or_default();
        if backoff_ms.len() > BACKOFF_STEPS_MAX {
            let (found, max) = (backoff_ms.len() as u64, BACKOFF_STEPS_MAX as u32);
            return Err(SettingsError { setting: "steps of backoff_ms", found, min: 0, max });
        }
        for step in &backoff_ms {
            within("backoff_ms", *step, 0, WAIT_MS_MAX)?;
        }
        Ok(Self {
            filter: asked.filter,
            ack_wait_ms: within("ack_wait_ms", ack_wait_ms, ACK_WAIT_MS_MIN, WAIT_MS_MAX)?,
            max_deliver: asked.max_deliver.unwrap_or(MaxDeliver::Times(MAX_DELIVER_DEFAULT)),
            backoff_ms,
            unacknowledged_max: within("unacknowledged_max", unacknowledged_max, 1, UNACKNOWLEDGED_MAX)?,
        })
    }

    /// Which topics of the stream; all of them when there is none.
    #[must_use]
    pub const fn filter(&self) -> Option<&TopicFilter> {
        self.filter.as_ref()
    }

    /// Milliseconds that a member has for a record.
    #[must_use]
    pub const fn ack_wait_ms(&self) -> u32 {
        self.ack_wait_ms
    }

    /// How often a record is handed out.
    #[must_use]
    pub const fn max_deliver(&self) -> MaxDeliver {
        self.max_deliver
    }

    /// The steps of the backoff.
    #[must_use]
    pub fn backoff_ms(&self) -> &[u32] {
        &self.backoff_ms
    }

    /// How long a record waits that has been handed out this often, at least once.
    #[must_use]
    pub fn backoff_after_ms(&self, deliveries: u32) -> u32 {
        let step = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
        self.backoff_ms.get(step).or(self.backoff_ms.last()).copied().unwrap_or(0)
    }

    /// Records that may be handed out and not yet settled. A batch of more than these goes out alone.
    #[must_use]
    pub const fn unacknowledged_max(&self) -> u32 {
        self.unacknowledged_max
    }
}

/// A setting of a consumer is outside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError {
    setting: &'static str,
    found: u64,
    min: u32,
    max: u32,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, found, min, max } = self;
        write!(f, "{setting} of a consumer is {found}, allowed are {min} to {max}")
    }
}

impl std::error::Error for SettingsError {}

/// Records that have been handed out more than once and are not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCount {
    /// Offset of the first.
    pub offset: u64,
    /// How many follow one another.
    pub records: u32,
    /// How often each was handed out.
    pub deliveries: u32,
}

impl DeliveryCount {
    /// Their offsets.
    #[must_use]
    pub const fn offsets(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.records as u64)
    }
}

/// Where a consumer stands: everything below its position is settled, and of what lies above, some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    position: u64,
    settled: Vec<Range<u64>>,
    counts: Vec<DeliveryCount>,
}

impl Cursor {
    /// A cursor with nothing settled from this position on.
    #[must_use]
    pub const fn at(position: u64) -> Self {
        Self { position, settled: Vec::new(), counts: Vec::new() }
    }

    /// A cursor with these parts: ranges in order, none empty, none that touch one another or the position; counts in
    /// order, of records that are not below the position.
    ///
    /// # Errors
    /// [`CursorError`] when they are not so.
    pub fn new(
        position: u64,
        settled: Vec<Range<u64>>,
        counts: Vec<DeliveryCount>,
    ) -> Result<Self, CursorError> {
        if settled.len() > CURSOR_RANGES_MAX || counts.len() > CURSOR_COUNTS_MAX {
            return Err(CursorError::TooMany);
        }
        let mut below = position;
        for range in &settled {
            if range.start <= below || range.end <= range.start {
                return Err(CursorError::Settled { at: range.start });
            }
            below = range.end;
        }
        let mut below = position;
        for count in &counts {
            let is_plausible = count.records > 0 && count.deliveries > 0;
            if count.offset < below
                || !is_plausible
                || count.offset.checked_add(count.records.into()).is_none()
            {
                return Err(CursorError::Counts { at: count.offset });
            }
            below = count.offsets().end;
        }
        Ok(Self { position, settled, counts })
    }

    /// Everything below it is settled.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// What is settled above the position.
    #[must_use]
    pub fn settled(&self) -> &[Range<u64>] {
        &self.settled
    }

    /// What has been handed out more than once.
    #[must_use]
    pub fn counts(&self) -> &[DeliveryCount] {
        &self.counts
    }
}

/// Parts that make no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorError {
    /// More ranges or counts than a consumer can have.
    TooMany,
    /// A settled range that is empty, or out of order, or not above the position.
    Settled {
        /// Where it starts.
        at: u64,
    },
    /// A delivery count of nothing, or out of order, or below the position.
    Counts {
        /// Where it starts.
        at: u64,
    },
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("a cursor has more ranges than a consumer can have"),
            Self::Settled { at } => write!(f, "the settled range of a cursor at offset {at} is out of order"),
            Self::Counts { at } => write!(f, "the delivery count of a cursor at offset {at} is out of order"),
        }
    }
}

impl std::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> AskedSettings {
        let filter = (!text.is_empty()).then(|| TopicFilter::parse(text).unwrap());
        AskedSettings { filter, ..AskedSettings::default() }
    }

    #[test]
    fn settings_outside_their_limits_are_refused_by_name() {
        for (asked, setting) in [
            (AskedSettings { ack_wait_ms: Some(ACK_WAIT_MS_MIN - 1), ..asked("") }, "ack_wait_ms"),
            (AskedSettings { ack_wait_ms: Some(u32::MAX), ..asked("") }, "ack_wait_ms"),
            (AskedSettings { backoff_ms: Some(vec![0; 33]), ..asked("") }, "steps of backoff_ms"),
            (AskedSettings { backoff_ms: Some(vec![1, WAIT_MS_MAX + 1]), ..asked("") }, "backoff_ms"),
            (AskedSettings { unacknowledged_max: Some(0), ..asked("") }, "unacknowledged_max"),
            (AskedSettings { unacknowledged_max: Some(65_537), ..asked("") }, "unacknowledged_max"),
        ] {
            assert_eq!(ConsumerSettings::new(asked).unwrap_err().setting, setting);
        }
    }

    #[test]
    fn only_what_is_given_conflicts_but_the_filter_always() {
        let mut first = asked("a.*");
        first.ack_wait_ms = Some(5_000);
        first.max_deliver = Some(MaxDeliver::Unlimited);
        let settings = ConsumerSettings::new(first.clone()).unwrap();
        assert_eq!(first.conflict_with(&settings), None);
        assert_eq!(asked("a.*").conflict_with(&settings), None);
        assert_eq!(asked("").conflict_with(&settings).unwrap().setting, "filter");

        let other = AskedSettings { ack_wait_ms: Some(6_000), ..asked("a.*") };
        let conflict = other.conflict_with(&settings).unwrap();
        assert_eq!(conflict.to_string(), "the consumer exists with ack_wait_ms 5000, asked for was 6000");
        for other in [
            AskedSettings { max_deliver: Some(MaxDeliver::Times(MAX_DELIVER_DEFAULT)), ..asked("a.*") },
            AskedSettings { backoff_ms: Some(vec![1]), ..asked("a.*") },
            AskedSettings { unacknowledged_max: Some(7), ..asked("a.*") },
        ] {
            assert!(other.conflict_with(&settings).is_some());
        }
    }

    #[test]
    fn the_last_step_of_a_backoff_is_used_again() {
        let steps = AskedSettings { backoff_ms: Some(vec![10, 20]), ..asked("") };
        let settings = ConsumerSettings::new(steps).unwrap();
        let waits = [1, 2, 3, u32::MAX].map(|deliveries| settings.backoff_after_ms(deliveries));
        assert_eq!(waits, [10, 20, 20, 20]);
        assert_eq!(ConsumerSettings::new(asked("")).unwrap().backoff_after_ms(1), 0);
    }

    #[test]
    fn parts_out_of_order_make_no_cursor() {
        let count = |offset, records, deliveries| DeliveryCount { offset, records, deliveries };
        assert!(Cursor::new(5, vec![6..7, 8..u64::MAX], vec![count(5, 1, 2), count(7, 1, 2)]).is_ok());
        let one = std::slice::from_ref;
        for settled in [one(&(5..6)), one(&(4..7)), one(&(7..7)), &[8..9, 6..7]] {
            let refused = Cursor::new(5, settled.to_vec(), Vec::new());
            assert!(matches!(refused, Err(CursorError::Settled { .. })), "{settled:?}");
        }
        assert_eq!(Cursor::new(0, vec![2..4, 4..5], Vec::new()), Err(CursorError::Settled { at: 4 }));
        for counts in [
            vec![count(4, 1, 2)],
            vec![count(5, 0, 2)],
            vec![count(5, 1, 0)],
            vec![count(5, 2, 2), count(6, 1, 2)],
            vec![count(u64::MAX, 1, 2)],
        ] {
            assert!(matches!(Cursor::new(5, Vec::new(), counts), Err(CursorError::Counts { .. })));
        }
        let many = vec![count(0, 1, 2); CURSOR_COUNTS_MAX + 1];
        assert_eq!(Cursor::new(0, Vec::new(), many), Err(CursorError::TooMany));
    }
}
