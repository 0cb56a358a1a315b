//! A name of X.501, for the reading of common names and for people.

use std::fmt::{self, Write as _};

use super::der::{DerError, DerReader, Element, tag};
use super::principal::is_disruptive;

/// Characters of a name's text form, after which it is cut. It stands in logs and refusals, beside other things.
const TEXT_CHARACTERS_MAX: usize = 512;

/// The object identifier of a common name, 2.5.4.3, encoded.
pub(super) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A name: relative names from the root down, each a set of attributes.
///
/// It prints as RFC 4514 has it, the most specific part first, but cut after 512 characters, and with whatever could
/// disturb a terminal or a log line escaped. The text is for reading: one text may stand for two names, so that
/// nothing is ever decided by it.
#[derive(Debug, Clone)]
pub(super) struct DistinguishedName<'a> {
    relative_names: Vec<Vec<Attribute<'a>>>,
}

/// One attribute of a relative name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) oid: &'a [u8],
    pub(super) value: Element<'a>,
}

impl<'a> DistinguishedName<'a> {
    /// Reads `SEQUENCE OF SET OF SEQUENCE { type OID, value ANY }` from the content of the outer SEQUENCE.
    pub(super) fn parse(content: &'a [u8]) -> Result<Self, DerError> {
        let mut names = DerReader::new(content);
        let mut relative_names = Vec::new();
        while !names.is_empty() {
            let mut set = DerReader::new(names.expect(tag::SET)?);
            let mut attributes = Vec::new();
            while !set.is_empty() {
                let mut attribute = DerReader::new(set.expect(tag::SEQUENCE)?);
                let oid = attribute.expect(tag::OID)?;
                let value = attribute.element()?;
                attribute.finish()?;
                attributes.push(Attribute { oid, value });
            }
            if attributes.is_empty() {
                return Err(DerError::Short);
            }
            relative_names.push(attributes);
        }
        Ok(Self { relative_names })
    }

    /// Every attribute, whichever relative name it is in: a second common name does not hide in a set.
    pub(super) fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + '_ {
        self.relative_names.iter().flatten().copied()
    }
}

impl fmt::Display for DistinguishedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Bounded { text: String::new(), left: TEXT_CHARACTERS_MAX };
        if write_name(&mut text, &self.relative_names).is_err() {
            text.text.push('…');
        }
        f.write_str(&text.text)
    }
}

/// Takes so many characters and then refuses more.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

fn write_name(out: &mut Bounded, relative_names: &[Vec<Attribute<'_>>]) -> fmt::Result {
    for (place, attributes) in relative_names.iter().rev().enumerate() {
        if place > 0 {
            out.write_char(',')?;
        }
        for (place, attribute) in attributes.iter().enumerate() {
            if place > 0 {
                out.write_char('+')?;
            }
            write_type(out, attribute.oid)?;
            out.write_char('=')?;
            write_value(out, attribute.value)?;
        }
    }
    Ok(())
}

fn write_type(out: &mut Bounded, oid: &[u8]) -> fmt::Result {
    match TYPE_NAMES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => out.write_str(name),
        None => write_oid(out, oid),
    }
}

/// The dotted form. An arc that does not fit is cut to its low bits, which is good enough for a line in a log.
fn write_oid(out: &mut Bounded, oid: &[u8]) -> fmt::Result {
    let mut arc: u64 = 0;
    let mut first = true;
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            write!(out, "{root}.{}", arc - 40 * root)?;
        } else {
            write!(out, ".{arc}")?;
        }
        first = false;
        arc = 0;
    }
    Ok(())
}

fn write_value(out: &mut Bounded, value: Element<'_>) -> fmt::Result {
    let text = match value.tag {
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => std::str::from_utf8(value.content).ok(),
        _ => None,
    };
    let Some(text) = text else {
        out.write_char('#')?;
        return value.encoded.iter().try_for_each(|byte| write!(out, "{byte:02x}"));
    };
    let last = text.chars().count().saturating_sub(1);
    for (place, character) in text.chars().enumerate() {
        let at_edge = character == ' ' && (place == 0 || place == last) || character == '#' && place == 0;
        if is_disruptive(character) {
            let mut bytes = [0; 4];
            character.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(out, "\\{byte:02x}"))?;
        } else if at_edge || "\"+,;<>\\".contains(character) {
            write!(out, "\\{character}")?;
        } else {
            out.write_char(character)?;
        }
    }
    Ok(())
}

/// The names of RFC 4514 section 3; every other type prints as its numbers.
const TYPE_NAMES: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut encoded = vec![tag];
        match u8::try_from(content.len()).unwrap() {
            len @ 0..=0x7f => encoded.push(len),
            len => encoded.extend([0x81, len]),
        }
        encoded.extend(content);
        encoded
    }

    fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        element(tag::SEQUENCE, &[element(tag::OID, oid), element(tag, value)].concat())
    }

    fn text(name: &[Vec<u8>]) -> String {
        DistinguishedName::parse(&name.concat()).unwrap().to_string()
    }

    #[test]
    fn names_print_most_specific_first_and_escaped() {
        let organisation =
            element(tag::SET, &attribute(&[0x55, 0x04, 0x0a], tag::PRINTABLE_STRING, b"Acme, Inc."));
        let common = element(tag::SET, &attribute(COMMON_NAME, tag::UTF8_STRING, "#a\n\u{202e} ".as_bytes()));
        assert_eq!(text(&[organisation, common]), r"CN=\#a\0a\e2\80\ae\ ,O=Acme\, Inc.");

        let both = [
            attribute(COMMON_NAME, tag::UTF8_STRING, b"a+CN=b"),
            attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], 0x1e, b"\0x"),
        ];
        assert_eq!(text(&[element(tag::SET, &both.concat())]), r"CN=a\+CN=b+1.2.840.113549.1.9.1=#1e020078");
    }

    #[test]
    fn text_is_bounded() {
        let name: Vec<Vec<u8>> = (0..10)
            .map(|_| element(tag::SET, &attribute(COMMON_NAME, tag::UTF8_STRING, &[b'x'; 100])))
            .collect();
        let text = text(&name);
        assert_eq!(text.chars().count(), TEXT_CHARACTERS_MAX + 1);
        assert!(text.ends_with('…'));
    }

    #[test]
    fn an_empty_relative_name_is_refused() {
        assert_eq!(DistinguishedName::parse(&element(tag::SET, &[])).map(|_| ()), Err(DerError::Short));
        assert_eq!(text(&[]), "");
    }
}
