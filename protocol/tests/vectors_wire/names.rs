//! `names.json`.

use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::topic::{Topic, TopicFilter};
use serde_json::Value;

use crate::build::{filter, id, list, text, topic};

pub(crate) const FILE: &str = include_str!("../../vectors/names.json");

fn check(cases: &Value, count: usize, parse: impl Fn(&str) -> Option<String>) {
    assert_eq!(list(cases).len(), count);
    for case in list(cases) {
        let text = text(&case["text"]);
        let expected = (case["valid"] == true).then(|| text.to_owned());
        assert_eq!(parse(text), expected, "{text:?}");
    }
}

#[test]
fn these_texts_are_names_and_those_are_not() {
    let file = crate::parse(FILE);
    check(&file["topics"], 31, |text| Topic::parse(text).ok().map(|topic| topic.to_string()));
    check(&file["filters"], 31, |text| TopicFilter::parse(text).ok().map(|filter| filter.to_string()));
    check(&file["principals"], 46, |text| Principal::parse(text).ok().map(|name| name.to_string()));
}

#[test]
fn filters_match_these_topics() {
    let file = crate::parse(FILE);
    let cases = list(&file["matches"]);
    assert_eq!(cases.len(), 39);
    for case in cases {
        let found = filter(&case["filter"]).matches(&topic(&case["topic"]));
        assert_eq!(case["matches"], found, "{case}");
    }
}

#[test]
fn filters_overlap_and_cover_each_other() {
    let file = crate::parse(FILE);
    let cases = list(&file["pairs"]);
    assert_eq!(cases.len(), 26);
    for case in cases {
        let (one, two) = (filter(&case["one"]), filter(&case["two"]));
        assert_eq!(case["overlaps"], one.overlaps(&two), "{case}");
        assert_eq!(case["overlaps"], two.overlaps(&one), "{case}");
        assert_eq!(case["covers"], one.covers(&two), "{case}");
    }
}

#[test]
fn topics_have_these_digests() {
    let file = crate::parse(FILE);
    let cases = list(&file["digests"]);
    assert_eq!(cases.len(), 8);
    for case in cases {
        let stream: StreamId = id(&case["stream_id"]);
        assert_eq!(topic(&case["topic"]).digest(&stream), id(&case["digest"]), "{case}");
    }
}
