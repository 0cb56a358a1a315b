//! The departures, and the topics that they go to.

use std::collections::{HashMap, VecDeque};

use crate::failure::Failure;
use crate::template::Template;

/// The 842 departures of the day; `tests/data/README.md` says where they are from.
const LINES: &str = include_str!("../../../tests/data/flights-2013-01-01.jsonl");

/// A departure.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// `flights/<origin>/<carrier>`.
    pub(super) topic: String,
    /// The JSON object, as it is published.
    pub(super) json: &'static str,
}

/// All departures, in their order.
pub(super) fn all() -> Result<Vec<Flight>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("read the departures", error);
    let template = Template::parse("flights/{origin}/{carrier}").map_err(|error| failed(&error))?;
    let flight = |json: &'static str| {
        let object = serde_json::from_str(json).map_err(|error| failed(&error))?;
        let topic = template.topic(&object).map_err(|error| failed(&error))?.to_string();
        Ok(Flight { topic, json })
    };
    LINES.lines().map(flight).collect()
}

/// The departures as they are in the file.
pub(super) const fn text() -> &'static str {
    LINES
}

/// What a consumer shall receive: for each topic, its departures in order.
pub(super) struct Expected {
    topics: HashMap<String, VecDeque<&'static str>>,
    left: usize,
}

impl Expected {
    /// Those that a consumer may see.
    pub(super) fn of<'f>(flights: impl Iterator<Item = &'f Flight>) -> Self {
        let mut expected = Self { topics: HashMap::new(), left: 0 };
        for flight in flights {
            expected.topics.entry(flight.topic.clone()).or_default().push_back(flight.json);
            expected.left = expected.left.saturating_add(1);
        }
        expected
    }

    /// How many have not come yet.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    /// Strikes one off: it must be the next of its topic.
    pub(super) fn strike_off(&mut self, topic: &str, payload: &[u8]) -> Result<(), String> {
        let next = self.topics.get_mut(topic).and_then(VecDeque::pop_front);
        let next = next.ok_or_else(|| format!("a message on {topic} that was not expected"))?;
        if next.as_bytes() != payload {
            return Err(format!("another message on {topic} than the one that was published next"));
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_has_842_departures_of_which_297_are_from_jfk() {
        let flights = all().unwrap();
        let from = |origin: &str| flights.iter().filter(|flight| flight.topic.starts_with(origin)).count();
        assert_eq!(flights.len(), 842);
        assert_eq!([from("flights/EWR/"), from("flights/JFK/"), from("flights/LGA/")], [305, 297, 240]);
    }

    #[test]
    fn what_comes_out_of_order_is_noticed() {
        let flights = all().unwrap();
        let mut expected = Expected::of(flights.iter());
        let first = &flights[0];
        let second = flights.iter().filter(|flight| flight.topic == first.topic).nth(1).unwrap();
        assert!(expected.strike_off(&second.topic, second.json.as_bytes()).is_err());
        assert!(expected.strike_off("flights/XXX/YY", b"{}").is_err());
    }
}
