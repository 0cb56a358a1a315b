//! Messages as text: one JSON object to a line for programs, one line or more for people.

use std::str;

use sealbus_client::Message;
use serde::de::IgnoredAny;

use crate::base64;
use crate::style::Style;
use crate::text::{rfc3339_ms, visible};

/// Characters of a payload that `pretty` shows.
const SHOWN_CHARACTERS_MAX: usize = 400;

/// A line of JSON, whose memory is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct JsonLine {
    line: String,
}

impl JsonLine {
    /// The message's line, with its end.
    pub(crate) fn of(&mut self, message: &Message) -> &[u8] {
        let line = &mut self.line;
        line.clear();
        line.push_str("{\"topic\":");
        push_text(line, message.topic().as_str());
        line.push_str(",\"producer\":");
        push_text(line, message.producer().as_str());
        line.push_str(",\"sequence\":");
        line.push_str(&message.sequence().to_string());
        line.push_str(",\"offset\":");
        line.push_str(&message.offset().map_or_else(|| "null".to_owned(), |offset| offset.to_string()));
        line.push_str(",\"key\":");
        push_bytes(line, message.key());
        line.push_str(",\"headers\":{");
        for (index, (name, value)) in message.headers().enumerate() {
            if index > 0 {
                line.push(',');
            }
            push_text(line, name);
            line.push(':');
            push_bytes(line, value);
        }
        line.push_str("},\"time\":\"");
        line.push_str(&rfc3339_ms(message.published_ms()));
        line.push_str("\",");
        push_place(line, message);
        push_payload(line, message.payload());
        line.push_str("}\n");
        line.as_bytes()
    }
}

/// What is known of a message beside what its producer signed, when it was read from a stream.
fn push_place(line: &mut String, message: &Message) {
    let Some(stream) = message.stream() else { return };
    line.push_str("\"stream\":");
    push_text(line, &stream.to_string());
    if let Some(appended_ms) = message.appended_ms() {
        line.push_str(",\"stored\":\"");
        line.push_str(&rfc3339_ms(appended_ms));
        line.push('"');
    }
    line.push_str(&format!(
        ",\"deliveries\":{},\"dated\":\"{}\",",
        message.deliveries(),
        message.dated().as_str()
    ));
}

/// The payload under the name of what it is. JSON is kept as it was written: numbers lose no digit, and members stay
/// in their order.
fn push_payload(line: &mut String, payload: &[u8]) {
    match str::from_utf8(payload) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            line.push_str("\"json\":");
            push_json(line, text);
        }
        Ok(text) => {
            line.push_str("\"text\":");
            push_text(line, text);
        }
        Err(_) => {
            line.push_str("\"payload_base64\":\"");
            line.push_str(&base64::encode(payload));
            line.push('"');
        }
    }
}

/// Valid JSON in one line. Line ends can only be between its parts, where a space means the same; other characters
/// that a terminal would obey can only be inside texts, where their escape means the same.
fn push_json(line: &mut String, json: &str) {
    for character in json.trim().chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            harmless if is_harmless(harmless) => line.push(harmless),
            other => push_escaped(line, other),
        }
    }
}

/// A text, or null when there is none, or its bytes in base64 when they are no text.
fn push_bytes(line: &mut String, bytes: &[u8]) {
    match str::from_utf8(bytes) {
        Ok("") => line.push_str("null"),
        Ok(text) => push_text(line, text),
        Err(_) => {
            line.push_str("{\"base64\":\"");
            line.push_str(&base64::encode(bytes));
            line.push_str("\"}");
        }
    }
}

fn push_text(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            harmless if is_harmless(harmless) => line.push(harmless),
            other => push_escaped(line, other),
        }
    }
    line.push('"');
}

fn is_harmless(character: char) -> bool {
    // Asked of `visible` itself, so that there is one list of what a terminal must not get.
    character.is_ascii_graphic()
        || character == ' '
        || !visible(character.encode_utf8(&mut [0; 4])).is_empty()
}

/// Every character that is escaped here is below U+10000, so that one escape is enough.
fn push_escaped(line: &mut String, character: char) {
    line.push_str(&format!("\\u{:04x}", u32::from(character)));
}

/// The message for a person.
pub(crate) fn pretty(message: &Message, style: Style) -> String {
    let time = rfc3339_ms(message.published_ms());
    let topic = visible(message.topic().as_str());
    let producer = visible(message.producer().as_str());
    let mut head = format!(
        "{} {}  {}",
        style.dim(&time),
        style.bold(&topic),
        style.dim(&format!("{producer} #{}", message.sequence()))
    );
    if let (Some(stream), Some(offset)) = (message.stream(), message.offset()) {
        head.push_str(&style.dim(&visible(&format!(" {stream}:{offset}"))));
    }
    if message.deliveries() > 1 {
        head.push_str(&style.dim(&format!(" delivery {}", message.deliveries())));
    }
    if !message.key().is_empty() {
        head.push_str(&style.dim(&format!(" key {}", visible(&String::from_utf8_lossy(message.key())))));
    }
    for (name, value) in message.headers() {
        let header = format!(" {name}={}", String::from_utf8_lossy(value));
        head.push_str(&style.dim(&visible(&header)));
    }
    format!("{head}\n  {}\n", shown(message.payload()))
}

fn shown(payload: &[u8]) -> String {
    let Ok(text) = str::from_utf8(payload) else {
        return format!("{} bytes that are no text", payload.len());
    };
    let mut lines = text.lines().map(visible).collect::<Vec<_>>().join("\n  ");
    if let Some((end, _)) = lines.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        lines.truncate(end);
        lines.push_str(&format!("… ({} bytes)", payload.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(bytes: &[u8]) -> Value {
        let mut line = "{".to_owned();
        push_payload(&mut line, bytes);
        line.push('}');
        assert!(!line.contains(char::is_control), "{line:?}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_payload_is_named_for_what_it_is() {
        assert_eq!(payload(b"{\"a\": [1, null]}"), json!({"json": {"a": [1, null]}}));
        assert_eq!(payload(b"17"), json!({"json": 17}));
        assert_eq!(payload(b"hello \"you\"\n"), json!({"text": "hello \"you\"\n"}));
        assert_eq!(payload(b""), json!({"text": ""}));
        assert_eq!(payload(&[0xff, 0xfe]), json!({"payload_base64": "//4="}));
        assert_eq!(payload(b"{\n  \"a\":\r\n\t1\n}\n"), json!({"json": {"a": 1}}));
        assert_eq!(payload("[".repeat(1_000).as_bytes()), json!({"text": "[".repeat(1_000)}));
    }

    #[test]
    fn json_keeps_its_digits_and_its_order() {
        let mut line = String::new();
        push_payload(&mut line, b"{\"z\":12345678901234567890123,\"a\":0.10}");
        assert_eq!(line, "\"json\":{\"z\":12345678901234567890123,\"a\":0.10}");
    }

    /// FAILURES T45.
    #[test]
    fn nothing_that_drives_a_terminal_is_in_a_line() {
        assert_eq!(
            payload("{\"a\":\"\u{9b}2J\u{7f}\u{202e}\"}".as_bytes()),
            json!({"json": {"a": "\u{9b}2J\u{7f}\u{202e}"}})
        );
        assert_eq!(payload("\u{1b}[2J\u{9b}".as_bytes()), json!({"text": "\u{1b}[2J\u{9b}"}));
        assert_eq!(shown(b"a\x1b[2J\nb\x07"), "a[2J\n  b");
    }

    #[test]
    fn keys_and_headers_that_are_no_text_keep_their_bytes() {
        let text = |bytes: &[u8]| {
            let mut line = String::new();
            push_bytes(&mut line, bytes);
            serde_json::from_str::<Value>(&line).unwrap()
        };
        assert_eq!(
            [text(b""), text(b"k\"1"), text(&[0xff])],
            [json!(null), json!("k\"1"), json!({"base64": "/w=="})]
        );
    }

    #[test]
    fn a_long_payload_is_cut_for_people() {
        let long = "ä".repeat(1_000);
        assert!(shown(long.as_bytes()).ends_with("… (2000 bytes)"));
        assert_eq!(shown(&[0xff; 3]), "3 bytes that are no text");
    }
}
