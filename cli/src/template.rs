//! Topics and keys made from the fields of a JSON object: `flights/{origin}/{carrier}`.
//!
//! A value becomes one level of a topic or a part of one, never more and never a pattern: what would break the level
//! is an error, not something that is replaced or left out.

use std::fmt;

use sealbus_protocol::topic::{Topic, TopicError};
use serde_json::{Map, Value};

/// A text with places for fields. `{{` and `}}` are the braces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from_brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let inner = from_brace.strip_prefix('{').ok_or(TemplateError::Closed)?;
                let (field, after) = inner.split_once('}').ok_or(TemplateError::Open)?;
                if field.is_empty() || field.contains('{') {
                    return Err(TemplateError::Field { found: field.to_owned() });
                }
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(field.to_owned()));
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The topic that this object's fields make.
    pub(crate) fn topic(&self, object: &Map<String, Value>) -> Result<Topic, FillError> {
        let text = self.fill(object, check_level)?;
        Topic::parse(&text).map_err(|error| FillError::Topic { text, error })
    }

    /// The text that this object's fields make.
    pub(crate) fn text(&self, object: &Map<String, Value>) -> Result<String, FillError> {
        self.fill(object, |_, _| Ok(()))
    }

    fn fill(
        &self,
        object: &Map<String, Value>,
        check: impl Fn(&str, &str) -> Result<(), FillError>,
    ) -> Result<String, FillError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field(field) => {
                    let value = value(object, field)?;
                    check(field, &value)?;
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }
}

fn value(object: &Map<String, Value>, field: &str) -> Result<String, FillError> {
    let of_kind = |found| Err(FillError::Kind { field: field.to_owned(), found });
    match object.get(field) {
        None => Err(FillError::Missing { field: field.to_owned() }),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Null) => of_kind("null"),
        Some(Value::Bool(_)) => of_kind("true or false"),
        Some(Value::Array(_)) => of_kind("a list"),
        Some(Value::Object(_)) => of_kind("an object"),
    }
}

fn check_level(field: &str, value: &str) -> Result<(), FillError> {
    let breaks = |character: &char| matches!(character, '/' | '+' | '#') || character.is_control();
    match value.chars().find(breaks) {
        Some(character) => {
            Err(FillError::Level { field: field.to_owned(), value: value.to_owned(), character })
        }
        None if value.is_empty() => Err(FillError::Empty { field: field.to_owned() }),
        None => Ok(()),
    }
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// A `{` without its `}`.
    Open,
    /// A `}` without its `{`.
    Closed,
    /// What stands between the braces is not a field's name.
    Field {
        /// What stands there.
        found: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("a `{` is never closed (write `{{` for the brace itself)"),
            Self::Closed => f.write_str("a `}` was never opened (write `}}` for the brace itself)"),
            Self::Field { found } => write!(f, "`{{{found}}}` does not name a field"),
        }
    }
}

/// Why an object does not fill a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FillError {
    /// The object does not have the field.
    Missing {
        /// The field.
        field: String,
    },
    /// The field is neither a text nor a number.
    Kind {
        /// The field.
        field: String,
        /// What it is.
        found: &'static str,
    },
    /// The field is empty, which would make an empty level.
    Empty {
        /// The field.
        field: String,
    },
    /// The value cannot stand in one level of a topic.
    Level {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What breaks the level.
        character: char,
    },
    /// What came out is not a topic.
    Topic {
        /// What came out.
        text: String,
        /// Why.
        error: TopicError,
    },
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field } => write!(f, "the object has no field \"{field}\""),
            Self::Kind { field, found } => {
                write!(f, "field \"{field}\" is {found}, a text or number was expected")
            }
            Self::Empty { field } => {
                write!(f, "field \"{field}\" is empty, which would make an empty topic level")
            }
            Self::Level { field, value, character } => write!(
                f,
                "field \"{field}\" is \"{}\", which cannot be one level of a topic because of '{}'",
                value.escape_debug(),
                character.escape_debug()
            ),
            Self::Topic { text, error } => write!(f, "\"{}\" is not a topic: {error}", text.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is not an object"),
        }
    }

    fn topic(template: &str, value: Value) -> Result<String, String> {
        let template = Template::parse(template).map_err(|error| error.to_string())?;
        template.topic(&object(value)).map(|topic| topic.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_and_numbers_fill_their_places() {
        let flight = json!({"origin": "JFK", "carrier": "B6", "flight": 125, "ratio": 1.5});
        for (template, expected) in [
            ("flights/{origin}/{carrier}", "flights/JFK/B6"),
            ("{origin}", "JFK"),
            ("flights/{carrier}{flight}", "flights/B6125"),
            ("a/{ratio}/b", "a/1.5/b"),
            ("plain", "plain"),
            ("{{{origin}}}/x", "{JFK}/x"),
            ("{{origin}}", "{origin}"),
        ] {
            assert_eq!(topic(template, flight.clone()), Ok(expected.to_owned()), "{template}");
        }
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        for (text, expected) in [
            ("a/{origin", TemplateError::Open),
            ("a/{", TemplateError::Open),
            ("a/}", TemplateError::Closed),
            ("a/{}", TemplateError::Field { found: String::new() }),
            ("a/{b{c}", TemplateError::Field { found: "b{c".to_owned() }),
        ] {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_value_that_would_break_its_level_is_an_error() {
        for value in ["a/b", "/", "+", "#", "a+b", "a#", "\u{0}", "a\nb", "\u{9b}", "\u{1b}[2J"] {
            let error = topic("flights/{origin}", json!({"origin": value})).unwrap_err();
            assert!(error.contains("cannot be one level of a topic"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_or_nothing_or_no_text_is_an_error() {
        for (value, expected) in [
            (json!({}), "the object has no field \"tailnum\""),
            (json!({"tailnum": null}), "field \"tailnum\" is null, a text or number was expected"),
            (json!({"tailnum": true}), "field \"tailnum\" is true or false, a text or number was expected"),
            (json!({"tailnum": ["a"]}), "field \"tailnum\" is a list, a text or number was expected"),
            (json!({"tailnum": {"a": 1}}), "field \"tailnum\" is an object, a text or number was expected"),
            (json!({"tailnum": ""}), "field \"tailnum\" is empty, which would make an empty topic level"),
        ] {
            assert_eq!(topic("flights/{tailnum}", value), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_comes_out_must_be_a_topic() {
        let error = topic("flights/+/{origin}", json!({"origin": "JFK"})).unwrap_err();
        assert!(error.starts_with("\"flights/+/JFK\" is not a topic"), "{error}");
        assert!(topic("{origin}", json!({"origin": "x".repeat(2_000)})).is_err());
    }

    #[test]
    fn a_key_may_hold_what_a_topic_may_not() {
        let template = Template::parse("{tailnum}/{flight}").unwrap();
        let text = template.text(&object(json!({"tailnum": "N1/+#", "flight": 7}))).unwrap();
        assert_eq!(text, "N1/+#/7");
        assert!(template.text(&object(json!({"tailnum": null, "flight": 7}))).is_err());
    }
}
