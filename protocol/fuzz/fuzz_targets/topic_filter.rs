//! Two filters and a topic from one text, and what must hold between them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealbus_protocol::topic::{Topic, TopicFilter};

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\n');
    let mut filter = || parts.next().and_then(|text| TopicFilter::parse(text).ok());
    let (Some(one), Some(two)) = (filter(), filter()) else { return };
    assert_eq!(one.overlaps(&two), two.overlaps(&one));
    assert!(one.covers(&one) && one.overlaps(&one));
    if one.covers(&two) {
        assert!(one.overlaps(&two), "every filter matches some topic");
    }
    let Some(topic) = parts.next().and_then(|text| Topic::parse(text).ok()) else { return };
    let exact = TopicFilter::from(&topic);
    assert!(exact.matches(&topic));
    for filter in [&one, &two] {
        assert_eq!(filter.matches(&topic), filter.overlaps(&exact));
        assert_eq!(filter.matches(&topic), filter.covers(&exact));
    }
    if two.matches(&topic) {
        assert!(one.matches(&topic) || !one.covers(&two));
        assert!(!one.matches(&topic) || one.overlaps(&two));
    }
});
