//! From single measurements to rows: medians with their ranges, growth, and what is to be said of it. Pure.
//!
//! A row grows faster than it must when a delivery costs the broker more CPU than in any earlier row, *and a batch does
//! too*: a signature is verified once for a batch, so that a message costs more where fewer share one, and no broker can
//! change that; `fewer in a batch` says so.

use serde::Serialize;

use super::series::{Allowed, Series};

/// How much more a row may cost before it is said to: on a machine with two cores, a median moves by this much.
const TOLERANCE: f64 = 1.25;

/// What one measurement found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Messages that came, of all subscribers, each second.
    pub(super) deliveries_per_second: f64,
    /// CPU of the broker for each of them, microseconds, user and system.
    pub(super) cpu_us: f64,
    /// Messages in a batch, on average.
    pub(super) messages_per_batch: f64,
    /// Memory of the broker at the end of the window.
    pub(super) resident_bytes: u64,
    /// Memory of the broker for each idle connection.
    pub(super) bytes_per_connection: Option<f64>,
    /// From the broker's start until it accepts connections, with this policy.
    pub(super) start_ms: f64,
    /// From asking for a reload of the policy until it is in force.
    pub(super) reload_ms: f64,
    /// What was sent and never came.
    pub(super) lost: u64,
}

/// Some of several figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Range {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

/// All measurements of one value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) value: u32,
    pub(super) deliveries_per_second: Range,
    pub(super) cpu_us: Range,
    pub(super) messages_per_batch: Range,
    pub(super) resident_bytes: Range,
    pub(super) bytes_per_connection: Option<Range>,
    pub(super) start_ms: Range,
    pub(super) reload_ms: Range,
    pub(super) lost: u64,
    /// CPU for a delivery, as a multiple of the first row's.
    pub(super) growth: f64,
    pub(super) remark: Option<Remark>,
}

/// What a reader should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Remark {
    /// It costs more than the first, as it must: there are fewer messages in a batch.
    FewerInABatch,
    /// The median is higher, but the ranges overlap.
    Unsure,
    /// It costs more than it must where it should cost the same.
    MoreThanConstant,
    /// It costs more than it must where it may cost as many times as much as the value grows.
    MoreThanLinear,
    /// Loading the policy takes more than as many times as long.
    ReloadMoreThanLinear,
}

impl Remark {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::FewerInABatch => "fewer in a batch",
            Self::Unsure => "more, perhaps",
            Self::MoreThanConstant => "MORE THAN CONSTANT",
            Self::MoreThanLinear => "MORE THAN LINEAR",
            Self::ReloadMoreThanLinear => "RELOAD MORE THAN LINEAR",
        }
    }
}

impl Range {
    /// None of nothing.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (lowest, highest) = (*figures.first()?, *figures.last()?);
        let above = *figures.get(figures.len() / 2)?;
        let below = *figures.get(figures.len().saturating_sub(1) / 2)?;
        Some(Self { median: f64::midpoint(below, above), lowest, highest })
    }
}

/// The rows of a series, of what was measured in any order.
pub(super) fn rows(series: Series, samples: &[(u32, Sample)]) -> Vec<Row> {
    let mut values: Vec<u32> = samples.iter().map(|(value, _)| *value).collect();
    values.sort_unstable();
    values.dedup();
    let mut rows: Vec<Row> = Vec::new();
    for value in values {
        let of_value: Vec<&Sample> =
            samples.iter().filter(|(of, _)| *of == value).map(|(_, sample)| sample).collect();
        if let Some(mut row) = row(value, &of_value) {
            row.growth = rows.first().map_or(1.0, |first| row.cpu_us.median / first.cpu_us.median);
            row.remark = remark(series, &rows, &row);
            rows.push(row);
        }
    }
    rows
}

fn row(value: u32, samples: &[&Sample]) -> Option<Row> {
    let range = |figure: fn(&Sample) -> f64| Range::of(samples.iter().map(|sample| figure(sample)));
    Some(Row {
        value,
        deliveries_per_second: range(|sample| sample.deliveries_per_second)?,
        cpu_us: range(|sample| sample.cpu_us)?,
        messages_per_batch: range(|sample| sample.messages_per_batch)?,
        resident_bytes: range(|sample| sample.resident_bytes as f64)?,
        bytes_per_connection: Range::of(samples.iter().filter_map(|sample| sample.bytes_per_connection)),
        start_ms: range(|sample| sample.start_ms)?,
        reload_ms: range(|sample| sample.reload_ms)?,
        lost: samples.iter().map(|sample| sample.lost).sum(),
        growth: 1.0,
        remark: None,
    })
}

fn remark(series: Series, earlier: &[Row], row: &Row) -> Option<Remark> {
    let may_cost = |other: &Row| match series.allowed() {
        Allowed::Constant => (other.messages_per_batch.median / row.messages_per_batch.median).max(1.0),
        Allowed::Linear => f64::from(row.value) / f64::from(other.value.max(1)),
    };
    let grew = |other: &Row| {
        let may = may_cost(other);
        row.cpu_us.median > other.cpu_us.median * may * TOLERANCE
            && row.cpu_us.lowest > other.cpu_us.highest * may
    };
    match series.allowed() {
        Allowed::Constant if earlier.iter().any(grew) => return Some(Remark::MoreThanConstant),
        // By the row before: measured by the first, whatever a message costs besides its bytes would hide all growth.
        Allowed::Linear if earlier.last().is_some_and(grew) => return Some(Remark::MoreThanLinear),
        Allowed::Constant | Allowed::Linear => {}
    }
    if series == Series::Rules && earlier.last().is_some_and(|before| reload_grew(before, row)) {
        return Some(Remark::ReloadMoreThanLinear);
    }
    (series.allowed() == Allowed::Constant && row.growth > TOLERANCE).then_some(
        match earlier.first().map(may_cost) {
            Some(may) if may > TOLERANCE => Remark::FewerInABatch,
            Some(_) | None => Remark::Unsure,
        },
    )
}

fn reload_grew(before: &Row, row: &Row) -> bool {
    let may = f64::from(row.value) / f64::from(before.value.max(1));
    row.reload_ms.median > before.reload_ms.median * may * TOLERANCE
}

#[cfg(test)]
pub(super) mod examples {
    use super::*;

    pub(in super::super) fn sample(cpu_us: f64, messages_per_batch: f64) -> Sample {
        Sample {
            deliveries_per_second: 1e6 / cpu_us,
            cpu_us,
            messages_per_batch,
            resident_bytes: 14 * 1_024 * 1_024,
            bytes_per_connection: None,
            start_ms: 50.0,
            reload_ms: 2.0,
            lost: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::examples::sample;
    use super::*;

    fn remarks(series: Series, costs: &[(u32, f64, f64)]) -> Vec<Option<Remark>> {
        let samples: Vec<_> =
            costs.iter().map(|(value, cpu_us, in_batch)| (*value, sample(*cpu_us, *in_batch))).collect();
        rows(series, &samples).iter().map(|row| row.remark).collect()
    }

    #[test]
    fn medians_lie_in_the_middle_of_their_range() {
        assert_eq!(Range::of([3.0, 1.0, 2.0]), Some(Range { median: 2.0, lowest: 1.0, highest: 3.0 }));
        assert_eq!(Range::of([4.0, 1.0]), Some(Range { median: 2.5, lowest: 1.0, highest: 4.0 }));
        assert_eq!(Range::of([]), None);
    }

    #[test]
    fn growth_is_against_the_first_row_whatever_was_measured_first() {
        let samples = [(100, sample(0.6, 9.0)), (1, sample(0.2, 9.0)), (10, sample(0.4, 9.0))];
        let found: Vec<_> =
            rows(Series::Rules, &samples).iter().map(|row| (row.value, row.growth.round())).collect();
        assert_eq!(found, [(1, 1.0), (10, 2.0), (100, 3.0)]);
    }

    #[test]
    fn what_should_cost_the_same_and_does_not_is_marked() {
        let marked = Some(Remark::MoreThanConstant);
        assert_eq!(remarks(Series::Rules, &[(10, 1.0, 9.0), (100, 1.1, 9.0)]), [None, None]);
        assert_eq!(remarks(Series::Rules, &[(10, 1.0, 9.0), (100, 1.5, 9.0)]), [None, marked]);
    }

    #[test]
    fn emptier_batches_are_no_fault_of_the_broker_s_and_what_comes_beside_them_is() {
        let few = Some(Remark::FewerInABatch);
        let costs = [(1, 0.2, 4_000.0), (1_000, 50.0, 1.0), (10_000, 52.0, 1.0), (100_000, 90.0, 1.0)];
        assert_eq!(remarks(Series::Topics, &costs), [None, few, few, Some(Remark::MoreThanConstant)]);
    }

    #[test]
    fn a_batch_that_costs_more_is_marked_however_many_share_it() {
        let costs = [(1, 1.0, 100.0), (10, 2.4, 50.0), (100, 3.0, 50.0)];
        let marked = Some(Remark::MoreThanConstant);
        assert_eq!(remarks(Series::Topics, &costs[..2]), [None, Some(Remark::FewerInABatch)]);
        assert_eq!(remarks(Series::Topics, &costs), [None, Some(Remark::FewerInABatch), marked]);
    }

    #[test]
    fn what_may_grow_with_the_value_is_measured_by_the_row_before() {
        let costs = [(128, 1.0, 9.0), (1_024, 2.0, 9.0), (16_384, 30.0, 9.0), (65_536, 200.0, 9.0)];
        assert_eq!(remarks(Series::Size, &costs), [None, None, None, Some(Remark::MoreThanLinear)]);
    }

    #[test]
    fn ranges_that_overlap_are_no_growth() {
        let samples =
            [(10, sample(1.0, 9.0)), (10, sample(2.0, 9.0)), (10, sample(1.0, 9.0)), (20, sample(1.9, 9.0))];
        assert_eq!(rows(Series::Rules, &samples).last().unwrap().remark, Some(Remark::Unsure));
    }

    #[test]
    fn a_reload_may_take_as_many_times_as_long_and_no_longer() {
        let timed = |rules, reload_ms| (rules, Sample { reload_ms, ..sample(1.0, 9.0) });
        let of = |long_ms| rows(Series::Rules, &[timed(1_000, 4.0), timed(10_000, long_ms)])[1].remark;
        assert_eq!(of(45.0), None);
        assert_eq!(of(400.0), Some(Remark::ReloadMoreThanLinear));
    }
}
