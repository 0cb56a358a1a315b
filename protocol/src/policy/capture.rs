//! From a topic to the stream that keeps it, without asking every filter.
//!
//! ```text
//!  orders/#   of 0        (root) -- orders -- #: 0
//!  bills/+    of 1           \ ---- bills --- + : 1
//!  bills/eu/a of 1                       \ -- eu -- a: 1
//! ```
//!
//! A tree of levels. A question walks it level by level with the few nodes that still match in hand, and sees no node
//! twice. There is no recursion. Filters of two streams share no topic, so that the first answer is the only one.

use std::collections::HashMap;

use super::name::Name;
use super::stream::Stream;
use crate::ids::StreamId;
use crate::topic::{Topic, TopicFilter};

/// The streams of one policy, by everything that they are asked for by.
#[derive(Debug, Default)]
pub(super) struct StreamTable {
    streams: Vec<Stream>,
    by_name: HashMap<Name, usize>,
    by_id: HashMap<StreamId, usize>,
    filters: FilterTable,
}

impl StreamTable {
    pub(super) fn new(streams: &[Stream]) -> Self {
        let mut table = Self { streams: streams.to_vec(), ..Self::default() };
        for (number, stream) in streams.iter().enumerate() {
            table.by_name.insert(stream.name.clone(), number);
            table.by_id.insert(stream.id, number);
            stream.topics.iter().for_each(|filter| table.filters.add(filter, number));
        }
        table
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Stream> {
        self.by_name.get(name).and_then(|number| self.streams.get(*number))
    }

    pub(super) fn by_id(&self, id: StreamId) -> Option<&Stream> {
        self.by_id.get(&id).and_then(|number| self.streams.get(*number))
    }

    pub(super) fn of_topic(&self, topic: &Topic) -> Option<&Stream> {
        self.filters.matching(topic).and_then(|number| self.streams.get(number))
    }
}

/// Filters and whose they are, a number for each owner. Reserved filters have no place in it.
#[derive(Debug)]
pub(super) struct FilterTable {
    nodes: Vec<Node>,
}

/// One level of some filters.
#[derive(Debug, Default)]
struct Node {
    names: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    /// Whose filter ends here with `#`.
    below: Option<usize>,
    /// Whose filter ends here.
    here: Option<usize>,
}

/// The first node. It is there from the beginning.
const ROOT: usize = 0;

impl FilterTable {
    /// Adds a filter. Where another owner has the same one, it keeps it.
    pub(super) fn add(&mut self, filter: &TopicFilter, owner: usize) {
        debug_assert!(!filter.is_reserved(), "no stream captures names that begin with $");
        let mut at = ROOT;
        for level in levels(filter) {
            if level == "#" {
                self.node_mut(at).below.get_or_insert(owner);
                return;
            }
            let fresh = self.nodes.len();
            let node = self.node_mut(at);
            at = match level {
                "+" => *node.plus.get_or_insert(fresh),
                name => *node.names.entry(name.into()).or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.node_mut(at).here.get_or_insert(owner);
    }

    /// The owner of a filter that matches `topic`.
    pub(super) fn matching(&self, topic: &Topic) -> Option<usize> {
        if topic.is_reserved() {
            return None;
        }
        let (mut open, mut next) = (vec![ROOT], Vec::new());
        for name in topic.levels() {
            for node in open.drain(..).map(|at| self.node(at)) {
                if node.below.is_some() {
                    return node.below;
                }
                next.extend(node.plus);
                next.extend(node.names.get(name));
            }
            std::mem::swap(&mut open, &mut next);
        }
        // `a/#` matches `a` too.
        open.into_iter().map(|at| self.node(at)).find_map(|node| node.here.or(node.below))
    }

    /// The owner of a filter that shares a topic with `filter`.
    pub(super) fn overlapping(&self, filter: &TopicFilter) -> Option<usize> {
        let (mut open, mut next) = (vec![ROOT], Vec::new());
        for level in levels(filter) {
            for node in open.drain(..).map(|at| self.node(at)) {
                if node.below.is_some() {
                    return node.below;
                }
                match level {
                    // It matches all that is below, and no node is without a filter that ends below it.
                    "#" => {
                        if let Some(owner) = self.any_below(node) {
                            return Some(owner);
                        }
                    }
                    "+" => {
                        next.extend(node.plus);
                        next.extend(node.names.values());
                    }
                    name => {
                        next.extend(node.plus);
                        next.extend(node.names.get(name));
                    }
                }
            }
            std::mem::swap(&mut open, &mut next);
        }
        open.into_iter().map(|at| self.node(at)).find_map(|node| node.here.or(node.below))
    }

    /// The owner of some filter that ends at this node or below.
    fn any_below<'n>(&'n self, mut node: &'n Node) -> Option<usize> {
        loop {
            if let Some(owner) = node.here.or(node.below) {
                return Some(owner);
            }
            // `None` for the root of an empty table only.
            node = self.node(node.plus.or_else(|| node.names.values().next().copied())?);
        }
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes.get(at).expect("a node's number is given when it is made, and none is removed")
    }

    fn node_mut(&mut self, at: usize) -> &mut Node {
        self.nodes.get_mut(at).expect("a node's number is given when it is made, and none is removed")
    }
}

impl Default for FilterTable {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

/// The levels of a filter. The parent of `#` and of `/#` would be the empty name, which is no topic, so that one more
/// level always follows there.
fn levels(filter: &TopicFilter) -> impl Iterator<Item = &str> {
    let text = match filter.as_str() {
        "#" => "+/#",
        "/#" => "/+/#",
        other => other,
    };
    text.split('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_levels(wildcards: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        let names: Vec<&'static str> = ["a", "b", ""].iter().chain(wildcards).copied().collect();
        prop::collection::vec(prop::sample::select(names), 1..=4)
    }

    fn any_filter() -> impl Strategy<Value = TopicFilter> {
        (any_levels(&["+", "+"]), any::<bool>()).prop_filter_map(
            "a filter is not empty",
            |(mut levels, below)| {
                if below {
                    levels.push("#");
                }
                // `#` alone, too, which no longer list of levels is.
                let text = if levels == ["", "#"] { "#".to_owned() } else { levels.join("/") };
                TopicFilter::parse(&text).ok()
            },
        )
    }

    fn any_topic() -> impl Strategy<Value = Topic> {
        any_levels(&["$x"])
            .prop_filter_map("a topic is not empty", |levels| Topic::parse(&levels.join("/")).ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_table_finds_what_some_filter_matches(
            filters in prop::collection::vec(any_filter(), 0..8),
            topics in prop::collection::vec(any_topic(), 1..8),
        ) {
            let mut table = FilterTable::default();
            filters.iter().enumerate().for_each(|(owner, filter)| table.add(filter, owner));
            for topic in topics {
                match table.matching(&topic) {
                    Some(owner) => prop_assert!(filters[owner].matches(&topic), "{} and {}", filters[owner], topic),
                    None => prop_assert!(!filters.iter().any(|filter| filter.matches(&topic)), "{}", topic),
                }
            }
        }

        #[test]
        fn the_table_finds_what_shares_a_topic(
            filters in prop::collection::vec(any_filter(), 0..8),
            requested in prop::collection::vec(any_filter(), 1..8),
        ) {
            let mut table = FilterTable::default();
            filters.iter().enumerate().for_each(|(owner, filter)| table.add(filter, owner));
            for asked in requested {
                match table.overlapping(&asked) {
                    Some(owner) => prop_assert!(filters[owner].overlaps(&asked), "{} and {}", filters[owner], asked),
                    None => prop_assert!(!filters.iter().any(|filter| filter.overlaps(&asked)), "{}", asked),
                }
            }
        }
    }

    /// FAILURES T30: a table as full as a policy may make it, asked with the deepest topic.
    #[test]
    fn the_largest_table_answers_a_deep_topic_at_once() {
        let mut table = FilterTable::default();
        for owner in 0..1_024 {
            for number in 0..64 {
                let filter = format!("tenant-{owner}/kind-{number}/{}#", "+/".repeat(20));
                table.add(&TopicFilter::parse(&filter).unwrap(), owner);
            }
        }
        for owner in (0..1_024).step_by(7) {
            let topic = Topic::parse(&format!("tenant-{owner}/kind-63/{}x", "y/".repeat(60))).unwrap();
            for _ in 0..100 {
                assert_eq!(table.matching(&topic), Some(owner));
            }
            let other = Topic::parse(&format!("tenant-{owner}/kind-64/x")).unwrap();
            assert_eq!(table.matching(&other), None);
        }
    }
}
