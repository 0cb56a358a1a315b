//! A writer of JSON that keeps the order it is given, escapes everything that could pass for something else, and cuts
//! what is too long.

use std::fmt::{self, Write as _};

/// One JSON object, whose brace is closed when its closure returns.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    comma: Comma,
    truncated: &'o mut Truncated,
}

/// Whether the next member needs a comma before it.
#[derive(Clone, Copy)]
enum Comma {
    No,
    Yes,
}

/// Whether any text of the line was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truncated {
    No,
    Yes,
}

/// Writes one object.
pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    let mut truncated = Truncated::No;
    nested(out, &mut truncated, write);
}

fn nested(out: &mut Vec<u8>, truncated: &mut Truncated, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out: &mut *out, comma: Comma::No, truncated });
    out.push(b'}');
}

impl Object<'_> {
    /// A text of ours: a word or a version. It is escaped all the same, and never cut.
    pub(super) fn word(&mut self, key: &'static str, word: &str) {
        self.key(key);
        string(self.out, word);
    }

    /// A text that somebody else had a part in, of at most `bytes_max` bytes.
    pub(super) fn text(&mut self, key: &'static str, text: &str, bytes_max: usize) {
        self.key(key);
        let kept = text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default();
        if kept.len() < text.len() {
            *self.truncated = Truncated::Yes;
        }
        string(self.out, kept);
    }

    /// A value of ours in its text form.
    pub(super) fn shown(&mut self, key: &'static str, value: impl fmt::Display) {
        self.word(key, &value.to_string());
    }

    /// A number.
    pub(super) fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        let mut digits = String::new();
        // Writing to a string cannot fail.
        let _ = write!(digits, "{number}");
        self.out.extend_from_slice(digits.as_bytes());
    }

    /// Bytes as lower-case hex.
    pub(super) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        for byte in bytes {
            self.out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0x0f)]);
        }
        self.out.push(b'"');
    }

    /// A truth.
    pub(super) fn truth(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"true");
    }

    /// An object within.
    pub(super) fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        nested(self.out, self.truncated, write);
    }

    /// A list of one object.
    pub(super) fn list_of_one(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        self.out.push(b'[');
        nested(self.out, self.truncated, write);
        self.out.push(b']');
    }

    /// A list of texts of ours, of at most `count_max`.
    pub(super) fn words<'w>(
        &mut self,
        key: &'static str,
        words: impl ExactSizeIterator<Item = &'w str>,
        count_max: usize,
    ) {
        self.key(key);
        if words.len() > count_max {
            *self.truncated = Truncated::Yes;
        }
        self.out.push(b'[');
        for (place, word) in words.take(count_max).enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            string(self.out, word);
        }
        self.out.push(b']');
    }

    /// Whether anything of the line was cut so far.
    pub(super) fn truncated(&self) -> Truncated {
        *self.truncated
    }

    /// Keys are words of this crate: ASCII letters and underscores.
    fn key(&mut self, key: &'static str) {
        if let Comma::Yes = self.comma {
            self.out.push(b',');
        }
        self.comma = Comma::Yes;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// A JSON string in one spelling. Beyond what JSON asks, all that ends a line for somebody, drives a terminal or turns
/// the direction of text is escaped (FAILURES T44 and T45).
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            character if is_escaped(character) => {
                // Everything that is escaped lies below U+10000, so that one escape says it.
                let code = u32::from(character);
                out.extend_from_slice(b"\\u");
                out.extend([12, 8, 4, 0].map(|shift| hex_digit((code >> shift & 0x0f) as u8)));
            }
            character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Control characters, line and paragraph separators, and the marks that turn the direction of text.
fn is_escaped(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// The digit of a value below 16.
const fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + (value & 0x0f) - 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str, bytes_max: usize) -> (String, Truncated) {
        let mut out = Vec::new();
        let mut truncated = Truncated::No;
        nested(&mut out, &mut truncated, |object| object.text("text", text, bytes_max));
        (String::from_utf8(out).unwrap(), truncated)
    }

    #[test]
    fn what_could_pass_for_something_else_is_escaped() {
        for (text, expected) in [
            ("plain é 漢 🦀", "plain é 漢 🦀"),
            ("\"\\", r#"\"\\"#),
            ("a\r\nb\0", r"a\u000d\u000ab\u0000"),
            ("\u{1b}[2J\u{7f}\u{85}\u{9f}", r"\u001b[2J\u007f\u0085\u009f"),
            ("\u{2028}\u{2029}", r"\u2028\u2029"),
            (
                "\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{61c}",
                r"\u200e\u200f\u202a\u202e\u2066\u2069\u061c",
            ),
            ("\u{a0}\u{200d}", "\u{a0}\u{200d}"),
        ] {
            assert_eq!(line(text, 100).0, format!("{{\"text\":\"{expected}\"}}"));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_it_is_said() {
        assert_eq!(line("abc", 3), ("{\"text\":\"abc\"}".to_owned(), Truncated::No));
        assert_eq!(line("abcd", 3), ("{\"text\":\"abc\"}".to_owned(), Truncated::Yes));
        assert_eq!(line("abéd", 3), ("{\"text\":\"ab\"}".to_owned(), Truncated::Yes));
        assert_eq!(line("", 0), ("{\"text\":\"\"}".to_owned(), Truncated::No));
    }

    #[test]
    fn members_keep_their_order() {
        let mut out = Vec::new();
        object(&mut out, |object| {
            object.number("z", u64::MAX);
            object.object("a", |_| {});
            object.list_of_one("l", |object| object.truth("t"));
            object.words("w", ["x", "y"].into_iter(), 2);
            object.words("v", ["x", "y"].into_iter(), 1);
            object.hex("h", &[0x00, 0x9f, 0xff]);
            assert_eq!(object.truncated(), Truncated::Yes);
        });
        let expected =
            r#"{"z":18446744073709551615,"a":{},"l":[{"t":true}],"w":["x","y"],"v":["x"],"h":"009fff"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_reads_back_equal(text in any::<String>()) {
            let (line, _) = line(&text, usize::MAX);
            prop_assert!(!line.contains(is_escaped));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["text"].as_str(), Some(&*text));
        }
    }
}
