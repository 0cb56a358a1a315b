//! Where reading a stream begins, as people say it.

use sealbus_client::Start;
use sealbus_protocol::policy::parse_duration_ms;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::text::now_ms;

/// What can be said, for `--help` and for errors.
pub(crate) const FORMS: &str = "earliest, end (or latest), offset:N, last:N, a moment like 2026-01-31T08:00:00Z, or how long ago, like 2h";

/// Reads a beginning.
pub(crate) fn parse(text: &str) -> Result<Start, String> {
    parse_at(text, now_ms())
}

fn parse_at(text: &str, now_ms: u64) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" | "end" => return Ok(Start::End),
        _ => {}
    }
    match text.split_once(':') {
        Some(("offset", offset)) => return number(offset, 0).map(Start::Offset),
        Some(("last", messages)) => return number(messages, 1).map(Start::Last),
        Some(_) | None => {}
    }
    let moment = text.strip_prefix("time:").unwrap_or(text);
    if let Ok(ago_ms) = parse_duration_ms(moment) {
        return Ok(Start::Time(now_ms.saturating_sub(ago_ms)));
    }
    let time = OffsetDateTime::parse(moment, &Rfc3339)
        .map_err(|_| format!("it is none of: {FORMS} (30s, 15m, 2h, 7d)"))?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000)
        .map(Start::Time)
        .map_err(|_| "the moment is before 1970".to_owned())
}

fn number(text: &str, min: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if number >= min => Ok(number),
        Ok(_) => Err(format!("the number must be at least {min}")),
        Err(_) => Err(format!("\"{}\" is no whole number", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_it() {
        const NOW_MS: u64 = 1_357_034_400_000;
        for (text, start) in [
            ("earliest", Start::Earliest),
            ("latest", Start::End),
            ("end", Start::End),
            ("offset:0", Start::Offset(0)),
            ("offset:18446744073709551615", Start::Offset(u64::MAX)),
            ("last:5", Start::Last(5)),
            ("2h", Start::Time(NOW_MS - 7_200_000)),
            ("time:30s", Start::Time(NOW_MS - 30_000)),
            ("2013-01-01T10:00:00Z", Start::Time(NOW_MS)),
            ("time:2013-01-01T05:00:00.25-05:00", Start::Time(NOW_MS + 250)),
        ] {
            assert_eq!(parse_at(text, NOW_MS), Ok(start), "{text}");
        }
    }

    #[test]
    fn what_is_no_beginning_is_refused_with_what_would_be() {
        for text in [
            "",
            "now",
            "offset:",
            "offset:-1",
            "offset:x",
            "last:0",
            "2",
            "2y",
            "2013-01-01",
            "time:",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(parse_at(text, 0).is_err(), "{text}");
        }
        assert!(parse_at("yesterday", 0).unwrap_err().contains("last:N"));
    }
}
