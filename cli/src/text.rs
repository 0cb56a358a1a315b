//! Text that others wrote, made harmless for a terminal.

use std::borrow::Cow;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text without anything that drives a terminal or misleads a reader: control characters, which include escape
/// and the C1 range, and the marks that change the direction of writing.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_visible) {
        Cow::Borrowed(text)
    } else {
        text.chars().filter(|c| is_visible(*c)).collect()
    }
}

fn is_visible(character: char) -> bool {
    let turns_direction =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(character, '\u{2028}' | '\u{2029}');
    !character.is_control() && !turns_direction && !breaks_line
}

/// Milliseconds since 1970 as RFC 3339 in UTC, always with milliseconds so that columns align.
pub(crate) fn rfc3339_ms(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(time) => {
            let (hour, minute, second) = time.to_hms();
            format!("{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", time.date(), unix_ms % 1_000)
        }
        Err(_) => format!("{unix_ms} ms after 1970"),
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_ms} ms after 1970"))
}

/// The system's clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A number with its thousands apart: `27,004`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len().saturating_mul(2));
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len().saturating_sub(index)).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many of something: `1 batch`, `27,004 batches`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {many}", thousands(number)) }
}

/// A span of time, in its largest whole units: `7d`, `1h30m`, `250ms`.
pub(crate) fn span(milliseconds: u64) -> String {
    let mut rest = milliseconds;
    let mut text = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = rest / unit_ms;
        rest %= unit_ms;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// An amount of bytes, with one digit behind the point: `12.5 MiB`.
pub(crate) fn binary_bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1_024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1_024.0;
    }
    format!("{amount:.1} TiB")
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FAILURES T45: nothing that a peer wrote reaches the terminal as a command.
    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        assert_eq!(visible("\u{1b}[31mred\u{1b}[0m"), "[31mred[0m");
        assert_eq!(visible("bell\u{7} c1\u{9b}2J del\u{7f} tab\tline\nend"), "bell c12J del tablineend");
        assert_eq!(visible("left\u{202e}right\u{2066}x\u{200f}"), "leftrightx");
        assert_eq!(visible("Zürich — 東京"), "Zürich — 東京");
        assert!(matches!(visible("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn times_and_numbers_read_well() {
        assert_eq!(rfc3339_ms(1_357_034_400_007), "2013-01-01T10:00:00.007Z");
        assert_eq!(rfc3339(1_357_034_400_007), "2013-01-01T10:00:00Z");
        assert_eq!(rfc3339_ms(u64::MAX), format!("{} ms after 1970", u64::MAX));
        for (number, text) in [(0, "0"), (842, "842"), (27_004, "27,004"), (1_000_000, "1,000,000")] {
            assert_eq!(thousands(number), text);
        }
        for (ms, text) in
            [(0, "0s"), (250, "250ms"), (30_000, "30s"), (5_400_000, "1h30m"), (604_800_000, "7d")]
        {
            assert_eq!(span(ms), text);
        }
        for (bytes, text) in
            [(1_023, "1023 B"), (1_536, "1.5 KiB"), (20 << 30, "20.0 GiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(binary_bytes(bytes), text);
        }
    }
}
