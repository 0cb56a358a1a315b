//! What one certificate says, read strictly and believed by nobody yet.
//!
//! Chains are verified by `rustls-webpki` (see [`super::trust`]), which keeps to itself most of what it has read. The
//! names, the dates and the usage that decide who a peer is are therefore read here, by a second parser that is no
//! more lenient than the first. Digests are not made here: this crate has no SHA-256.

use std::fmt;

use crate::limits::CERTIFICATE_BYTES_MAX;

use super::der::{DerError, DerReader, Element, tag};
use super::distinguished_name::{COMMON_NAME, DistinguishedName};
use super::validity::Validity;

/// Extensions of one certificate. Real ones have about ten; each is compared with all before it.
const EXTENSIONS_MAX: usize = 64;

/// What a certificate says about itself. Nothing of it is proven until its chain has been verified.
///
/// ```text
/// Certificate ::= SEQUENCE { tbs, signatureAlgorithm, signature BIT STRING }
/// tbs         ::= SEQUENCE { [0] version 3, serial, signature algorithm, issuer, validity, subject, key,
///                            [3] extensions }        (RFC 5280 section 4.1; unique identifiers are refused)
/// ```
#[derive(Debug, Clone)]
pub struct CertificateFacts<'a> {
    /// The serial number.
    pub serial: SerialNumber,
    /// The issuer, as text for people: as RFC 4514 writes names, cut after 512 characters. Decides nothing.
    pub issuer: Box<str>,
    /// The dates between which it is valid.
    pub validity: Validity,
    /// Whether it may issue certificates.
    pub authority: Authority,
    /// Whether it may be used as a TLS client's.
    pub client_auth: ClientAuth,
    /// The URIs in the subject alternative names, in their order.
    pub uri_names: Vec<&'a str>,
    /// The DNS names in the subject alternative names, in their order.
    pub dns_names: Vec<&'a str>,
    /// The common names of the subject, in their order.
    pub common_names: Vec<AttributeValue<'a>>,
}

impl<'a> CertificateFacts<'a> {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// [`CertificateError`] when it is not a version 3 certificate in strict DER within our limits.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLong { found: der.len() });
        }
        let mut outer = DerReader::new(der);
        let mut certificate = DerReader::new(outer.expect(tag::SEQUENCE).map_err(within("certificate"))?);
        outer.finish().map_err(within("certificate"))?;
        let to_be_signed = certificate.expect(tag::SEQUENCE).map_err(within("certificate"))?;
        certificate.expect(tag::SEQUENCE).map_err(within("signature algorithm"))?;
        certificate.expect(tag::BIT_STRING).map_err(within("signature"))?;
        certificate.finish().map_err(within("certificate"))?;
        Self::parse_to_be_signed(DerReader::new(to_be_signed))
    }

    fn parse_to_be_signed(mut fields: DerReader<'a>) -> Result<Self, CertificateError> {
        check_version(&mut fields)?;
        let serial = SerialNumber::parse(fields.integer().map_err(within("serial number"))?)?;
        fields.expect(tag::SEQUENCE).map_err(within("signature algorithm"))?;
        let issuer = fields.expect(tag::SEQUENCE).map_err(within("issuer"))?;
        let issuer = DistinguishedName::parse(issuer).map_err(within("issuer"))?;
        let validity = parse_validity(fields.expect(tag::SEQUENCE).map_err(within("validity"))?)?;
        let subject = fields.expect(tag::SEQUENCE).map_err(within("subject"))?;
        let subject = DistinguishedName::parse(subject).map_err(within("subject"))?;
        fields.expect(tag::SEQUENCE).map_err(within("public key"))?;
        let extensions = fields.optional(tag::EXTENSIONS).map_err(within("extensions"))?;
        fields.finish().map_err(within("certificate"))?;

        let mut facts = Self {
            serial,
            issuer: issuer.to_string().into(),
            validity,
            authority: Authority::EndEntity,
            client_auth: ClientAuth::Absent,
            uri_names: Vec::new(),
            dns_names: Vec::new(),
            common_names: subject
                .attributes()
                .filter(|attribute| attribute.oid == COMMON_NAME)
                .map(|attribute| AttributeValue(attribute.value))
                .collect(),
        };
        if let Some(extensions) = extensions {
            facts.read_extensions(extensions)?;
        }
        Ok(facts)
    }

    fn read_extensions(&mut self, explicit: &'a [u8]) -> Result<(), CertificateError> {
        let mut explicit = DerReader::new(explicit);
        let mut extensions = DerReader::new(explicit.expect(tag::SEQUENCE).map_err(within("extensions"))?);
        explicit.finish().map_err(within("extensions"))?;
        let mut seen: Vec<&[u8]> = Vec::new();
        while !extensions.is_empty() {
            let mut extension =
                DerReader::new(extensions.expect(tag::SEQUENCE).map_err(within("extension"))?);
            let oid = extension.expect(tag::OID).map_err(within("extension"))?;
            extension.optional_boolean().map_err(within("extension"))?;
            let value = extension.expect(tag::OCTET_STRING).map_err(within("extension"))?;
            extension.finish().map_err(within("extension"))?;
            if seen.contains(&oid) {
                return Err(CertificateError::DuplicateExtension { oid: oid.into() });
            }
            if seen.len() == EXTENSIONS_MAX {
                return Err(CertificateError::TooManyExtensions);
            }
            seen.push(oid);
            match oid {
                BASIC_CONSTRAINTS => self.authority = parse_basic_constraints(value)?,
                EXTENDED_KEY_USAGE => self.client_auth = parse_extended_key_usage(value)?,
                SUBJECT_ALTERNATIVE_NAME => self.read_alternative_names(value)?,
                // What else there is, and whether it is critical, is the chain verifier's business.
                _ => {}
            }
        }
        Ok(())
    }

    fn read_alternative_names(&mut self, value: &'a [u8]) -> Result<(), CertificateError> {
        let part = "subject alternative names";
        let mut names = sequence_of(value, part)?;
        while !names.is_empty() {
            let name = names.element().map_err(within(part))?;
            match name.tag {
                tag::URI => self.uri_names.push(ascii(name.content, part)?),
                tag::DNS_NAME => self.dns_names.push(ascii(name.content, part)?),
                // Mail and IP addresses and the like name nobody here; but they must at least be names.
                found if found & 0xc0 == 0x80 => {}
                _ => return Err(CertificateError::Der { part, error: DerError::Content }),
            }
        }
        Ok(())
    }
}

/// Whether a certificate may issue others (BasicConstraints).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// It may not.
    EndEntity,
    /// It may.
    Ca,
}

/// Whether a certificate's extended key usage names TLS client authentication. "Any purpose" does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does.
    Named,
    /// It names other purposes, or there is no such extension.
    Absent,
}

/// A certificate's serial number: a whole number of at most 20 bytes (RFC 5280 section 4.1.2.2), which prints as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SerialNumber {
    /// Right-aligned, so that equal numbers are equal arrays.
    bytes: [u8; 20],
    len: u8,
}

impl SerialNumber {
    /// The number's bytes, without leading zeros; one zero byte for zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let (_, bytes) = self.bytes.split_at(self.bytes.len() - usize::from(self.len));
        bytes
    }

    fn parse(integer: &[u8]) -> Result<Self, CertificateError> {
        let magnitude = match integer {
            [0x80..=0xff, ..] => return Err(CertificateError::SerialNumber),
            [0x00, magnitude @ ..] if !magnitude.is_empty() => magnitude,
            magnitude => magnitude,
        };
        let mut bytes = [0; 20];
        let start = bytes.len().checked_sub(magnitude.len()).ok_or(CertificateError::SerialNumber)?;
        let (_, end) = bytes.split_at_mut(start);
        end.copy_from_slice(magnitude);
        let len = u8::try_from(magnitude.len()).map_err(|_| CertificateError::SerialNumber)?;
        Ok(Self { bytes, len })
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

/// The value of a name's attribute, in whatever type the issuer wrote it.
#[derive(Debug, Clone, Copy)]
pub struct AttributeValue<'a>(Element<'a>);

impl<'a> AttributeValue<'a> {
    /// The tag of the value's type.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        self.0.tag
    }

    /// The text, when the value is a UTF8String or a PrintableString and holds what its type allows. The older types
    /// (TeletexString, BMPString and others) are read differently by different readers, and so by nobody here.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte);
        match self.0.tag {
            tag::UTF8_STRING => std::str::from_utf8(self.0.content).ok(),
            tag::PRINTABLE_STRING if self.0.content.iter().all(allowed) => {
                std::str::from_utf8(self.0.content).ok()
            }
            _ => None,
        }
    }
}

/// Why bytes are not a certificate that we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// It is longer than [`CERTIFICATE_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// A part of it is not the DER that belongs there.
    Der {
        /// The part.
        part: &'static str,
        /// What is wrong with it.
        error: DerError,
    },
    /// It is not of version 3.
    Version,
    /// Its serial number is negative or longer than 20 bytes.
    SerialNumber,
    /// A date that is not in the form that RFC 5280 prescribes, or is before 1970.
    Date {
        /// Which date.
        part: &'static str,
    },
    /// It has more than 64 extensions.
    TooManyExtensions,
    /// An extension occurs twice.
    DuplicateExtension {
        /// Its object identifier, encoded.
        oid: Box<[u8]>,
    },
    /// A name that must be ASCII is not.
    NotAscii {
        /// Where.
        part: &'static str,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { found } => {
                write!(f, "a certificate has at most {CERTIFICATE_BYTES_MAX} bytes, found {found}")
            }
            Self::Der { part, error } => write!(f, "the certificate's {part} cannot be read: {error}"),
            Self::Version => f.write_str("the certificate is not of version 3"),
            Self::SerialNumber => {
                f.write_str("the certificate's serial number is negative or longer than 20 bytes")
            }
            Self::Date { part } => write!(f, "the certificate's {part} date is not as RFC 5280 writes dates"),
            Self::TooManyExtensions => {
                write!(f, "the certificate has more than {EXTENSIONS_MAX} extensions")
            }
            Self::DuplicateExtension { oid } => {
                f.write_str("the certificate has an extension twice, object identifier ")?;
                oid.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::NotAscii { part } => write!(f, "the certificate's {part} hold a name that is not ascii"),
        }
    }
}

impl std::error::Error for CertificateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Der { error, .. } => Some(error),
            Self::TooLong { .. }
            | Self::Version
            | Self::SerialNumber
            | Self::Date { .. }
            | Self::TooManyExtensions
            | Self::DuplicateExtension { .. }
            | Self::NotAscii { .. } => None,
        }
    }
}

fn within(part: &'static str) -> impl FnOnce(DerError) -> CertificateError {
    move |error| CertificateError::Der { part, error }
}

fn check_version(fields: &mut DerReader<'_>) -> Result<(), CertificateError> {
    let explicit = fields.optional(tag::VERSION).map_err(within("version"))?;
    let mut version = DerReader::new(explicit.ok_or(CertificateError::Version)?);
    let number = version.integer().map_err(within("version"))?;
    version.finish().map_err(within("version"))?;
    if number == [2] { Ok(()) } else { Err(CertificateError::Version) }
}

fn parse_validity(content: &[u8]) -> Result<Validity, CertificateError> {
    let mut dates = DerReader::new(content);
    let not_before = dates.element().map_err(within("not-before date"))?;
    let not_after = dates.element().map_err(within("not-after date"))?;
    dates.finish().map_err(within("validity"))?;
    Ok(Validity {
        not_before_ms: date_ms(not_before).ok_or(CertificateError::Date { part: "not-before" })?,
        not_after_ms: date_ms(not_after).ok_or(CertificateError::Date { part: "not-after" })?,
    })
}

/// `YYMMDDHHMMSSZ` for 1950 to 2049 and `YYYYMMDDHHMMSSZ` from 2050: one form for each moment (RFC 5280 section
/// 4.1.2.5). No fractions, no zones, no leap seconds.
fn date_ms(date: Element<'_>) -> Option<u64> {
    let (year, rest) = match date.tag {
        tag::UTC_TIME => {
            let (year, rest) = digits::<2>(date.content)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        tag::GENERALIZED_TIME => digits::<4>(date.content).filter(|(year, _)| *year >= 2_050)?,
        _ => return None,
    };
    let (month, rest) = two_digits(rest)?;
    let (day, rest) = two_digits(rest)?;
    let (hour, rest) = two_digits(rest)?;
    let (minute, rest) = two_digits(rest)?;
    let (second, rest) = two_digits(rest)?;
    if rest != b"Z" {
        return None;
    }
    let month = time::Month::try_from(month).ok()?;
    let day = time::Date::from_calendar_date(i32::from(year), month, day).ok()?;
    let moment = day.with_hms(hour, minute, second).ok()?.assume_utc();
    u64::try_from(moment.unix_timestamp()).ok()?.checked_mul(1_000)
}

/// A number of `N` decimal digits, at most four, and what follows it.
fn digits<const N: usize>(text: &[u8]) -> Option<(u16, &[u8])> {
    const { assert!(N <= 4) };
    let (number, rest) = text.split_first_chunk::<N>()?;
    let number = number
        .iter()
        .try_fold(0, |sum: u16, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')))?;
    Some((number, rest))
}

fn two_digits(text: &[u8]) -> Option<(u8, &[u8])> {
    let (number, rest) = digits::<2>(text)?;
    Some((u8::try_from(number).ok()?, rest))
}

/// `SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER OPTIONAL }`. A written-out FALSE is not DER, but
/// common, and means the same to every reader.
fn parse_basic_constraints(value: &[u8]) -> Result<Authority, CertificateError> {
    let part = "basic constraints";
    let mut value = DerReader::new(value);
    let mut constraints = DerReader::new(value.expect(tag::SEQUENCE).map_err(within(part))?);
    value.finish().map_err(within(part))?;
    let is_ca = constraints.optional_boolean().map_err(within(part))?;
    if !constraints.is_empty() {
        constraints.integer().map_err(within(part))?;
    }
    constraints.finish().map_err(within(part))?;
    Ok(if is_ca { Authority::Ca } else { Authority::EndEntity })
}

fn parse_extended_key_usage(value: &[u8]) -> Result<ClientAuth, CertificateError> {
    let part = "extended key usage";
    let mut purposes = sequence_of(value, part)?;
    let mut found = ClientAuth::Absent;
    while !purposes.is_empty() {
        if purposes.expect(tag::OID).map_err(within(part))? == CLIENT_AUTHENTICATION {
            found = ClientAuth::Named;
        }
    }
    Ok(found)
}

/// The elements of an extension's value that is a SEQUENCE of at least one.
fn sequence_of<'a>(value: &'a [u8], part: &'static str) -> Result<DerReader<'a>, CertificateError> {
    let mut value = DerReader::new(value);
    let elements = DerReader::new(value.expect(tag::SEQUENCE).map_err(within(part))?);
    value.finish().map_err(within(part))?;
    if elements.is_empty() {
        return Err(CertificateError::Der { part, error: DerError::Short });
    }
    Ok(elements)
}

fn ascii<'a>(bytes: &'a [u8], part: &'static str) -> Result<&'a str, CertificateError> {
    if !bytes.is_ascii() {
        return Err(CertificateError::NotAscii { part });
    }
    std::str::from_utf8(bytes).map_err(|_| CertificateError::NotAscii { part })
}

/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 1.3.6.1.5.5.7.3.2
const CLIENT_AUTHENTICATION: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

#[cfg(test)]
mod tests {
    use super::*;

    fn date(tag: u8, text: &str) -> Option<u64> {
        date_ms(Element { tag, content: text.as_bytes(), encoded: &[] })
    }

    #[test]
    fn dates_have_the_form_of_rfc_5280_and_no_other() {
        for (tag, text, expected) in [
            (tag::UTC_TIME, "700101000000Z", Some(0)),
            (tag::UTC_TIME, "130101120000Z", Some(1_357_041_600_000)),
            (tag::UTC_TIME, "491231235959Z", Some(2_524_607_999_000)),
            (tag::GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000_000)),
            (tag::GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799_000)),
            (tag::UTC_TIME, "240229000000Z", Some(1_709_164_800_000)),
            // Before the epoch; the other form for its year; no such day; leap second; zone; no Z; fraction; sign.
            (tag::UTC_TIME, "691231235959Z", None),
            (tag::GENERALIZED_TIME, "20490101000000Z", None),
            (tag::UTC_TIME, "230229000000Z", None),
            (tag::UTC_TIME, "161231235960Z", None),
            (tag::UTC_TIME, "130101120000+0100", None),
            (tag::UTC_TIME, "130101120000", None),
            (tag::UTC_TIME, "1301011200Z", None),
            (tag::GENERALIZED_TIME, "20500101000000.5Z", None),
            (tag::UTC_TIME, "+30101120000Z", None),
            (tag::UTC_TIME, "131301120000Z", None),
            (tag::UTF8_STRING, "130101120000Z", None),
            (tag::UTC_TIME, "", None),
        ] {
            assert_eq!(date(tag, text), expected, "{text}");
        }
    }

    #[test]
    fn a_serial_number_prints_without_its_sign_byte() {
        for (integer, expected) in [
            (&[0][..], Some("00")),
            (&[1], Some("01")),
            (&[0, 0xff, 0x10], Some("ff10")),
            (&[0x80], None),
            (&[1; 20], Some("0101010101010101010101010101010101010101")),
            (&[1; 21], None),
        ] {
            let found = SerialNumber::parse(integer).map(|serial| serial.to_string());
            assert_eq!(found.ok().as_deref(), expected, "{integer:?}");
        }
    }

    #[test]
    fn only_two_string_types_are_text() {
        for (tag, content, expected) in [
            (tag::UTF8_STRING, "Zoë".as_bytes(), Some("Zoë")),
            (tag::UTF8_STRING, &[0xff], None),
            (tag::PRINTABLE_STRING, b"Orders", Some("Orders")),
            (tag::PRINTABLE_STRING, b"a*b", None),
            (tag::IA5_STRING, b"Orders", None),
            (0x14, b"Orders", None),
            (0x1e, b"\0O", None),
        ] {
            let value = AttributeValue(Element { tag, content, encoded: &[] });
            assert_eq!(value.text(), expected, "{tag:02x} {content:?}");
        }
    }
}
