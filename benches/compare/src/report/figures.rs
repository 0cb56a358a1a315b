//! Figures as people read them: three digits, and no more.

use crate::outcome::Quantity;

use super::results::Range;

/// A figure of this kind.
pub(super) fn figure(quantity: Quantity, value: f64) -> String {
    match quantity {
        Quantity::PerSecond => rate(value),
        Quantity::P50Us | Quantity::P99Us => grouped(value),
        Quantity::CpuPerMillion | Quantity::AloneMib | Quantity::ConnectionKib => three_digits(value),
    }
}

/// Its lowest and its highest; nothing when there was one only.
pub(super) fn from_to(quantity: Quantity, range: Range) -> String {
    if range.lowest < range.highest {
        format!("{} - {}", figure(quantity, range.lowest), figure(quantity, range.highest))
    } else {
        String::new()
    }
}

/// So many times.
pub(super) fn times(value: f64) -> String {
    format!("{}x", three_digits(value))
}

/// So many in a second.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 999_500.0 {
        format!("{} M", three_digits(per_second / 1e6))
    } else if per_second >= 9_999.5 {
        format!("{} k", three_digits(per_second / 1e3))
    } else {
        grouped(per_second)
    }
}

fn three_digits(value: f64) -> String {
    match value {
        value if value >= 99.95 => grouped(value),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A whole number, with commas.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (999.4, "999"),
            (1_006.0, "1,006"),
            (9_999.0, "9,999"),
            (10_000.0, "10.0 k"),
            (914_321.0, "914 k"),
            (999_600.0, "1.00 M"),
            (7_260_000.0, "7.26 M"),
            (15_990_000.0, "16.0 M"),
        ] {
            assert_eq!(rate(value), expected);
        }
        for (value, expected) in [(0.094, "0.09"), (1.25, "1.25"), (12.54, "12.5"), (1_145.0, "1,145")] {
            assert_eq!(three_digits(value), expected);
        }
    }

    #[test]
    fn a_single_repetition_has_no_range() {
        let range = |lowest, highest| Range { median: 2.0, lowest, highest };
        assert_eq!(from_to(Quantity::P99Us, range(1.0, 3.0)), "1 - 3");
        assert_eq!(from_to(Quantity::P99Us, range(2.0, 2.0)), "");
    }
}
