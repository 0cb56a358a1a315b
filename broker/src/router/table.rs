//! The table of filters: which of them match a topic. Pure.
//!
//! ```text
//!   filters  a/+/c   a/#   +/b        (root)
//!                                      |-- a -- below: [a/#]
//!                                      |   '-- + -- c -- here: [a/+/c]
//!                                      '-- + -- b -- here: [+/b]
//! ```
//!
//! A look-up walks from the root with a stack of its own, level by level, into the child of the same name and into
//! `+`. Each node is visited at most once, so the time is bounded by the filters that there are, whatever a peer
//! sends; there is no recursion and no going back.

use std::collections::HashMap;

use sealbus_protocol::topic::{Topic, TopicFilter};

/// Values under topic filters; several may stand under one.
#[derive(Debug)]
pub(crate) struct Table<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    named: HashMap<Box<str>, Node<V>>,
    any: Option<Box<Node<V>>>,
    /// Values of filters that end here.
    here: Vec<V>,
    /// Values of filters that go on with `#`: they match this level and all below.
    below: Vec<V>,
}

impl<V> Table<V> {
    /// A table without filters.
    pub(crate) fn new() -> Self {
        Self { root: Node::default(), len: 0 }
    }

    /// Values in the table.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts a value under a filter.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, value: V) {
        let mut node = &mut self.root;
        self.len = self.len.saturating_add(1);
        for level in filter.levels() {
            node = match level {
                "#" => return node.below.push(value),
                "+" => node.any.get_or_insert_default(),
                name => node.named.entry(name.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// Takes the first value under this very filter for which `is_it` holds.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, is_it: impl Fn(&V) -> bool) -> Option<V> {
        let levels: Vec<&str> = filter.levels().collect();
        let removed = self.root.remove(&levels, &is_it);
        if removed.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        removed
    }

    /// Calls `found` with every value whose filter matches the topic, in no particular order.
    pub(crate) fn for_each_match<'t>(&'t self, topic: &Topic, mut found: impl FnMut(&'t V)) {
        // A filter that starts with a wildcard matches no name that starts with `$`.
        let wildcards_first = !topic.is_reserved();
        let mut open = vec![(&self.root, topic.levels())];
        let mut wildcards = wildcards_first;
        while let Some((node, mut levels)) = open.pop() {
            if wildcards {
                node.below.iter().for_each(&mut found);
            }
            match levels.next() {
                None => node.here.iter().for_each(&mut found),
                Some(level) => {
                    if wildcards && let Some(any) = &node.any {
                        open.push((any, levels.clone()));
                    }
                    if let Some(named) = node.named.get(level) {
                        open.push((named, levels));
                    }
                }
            }
            // Only the root is the place of a first level.
            wildcards = true;
        }
    }
}

impl<V> Node<V> {
    /// Recursion as deep as a filter has levels, which `TOPIC_LEVELS_MAX` bounds. Empty nodes go on the way back.
    fn remove(&mut self, levels: &[&str], is_it: &impl Fn(&V) -> bool) -> Option<V> {
        match levels {
            [] => take_first(&mut self.here, is_it),
            ["#"] => take_first(&mut self.below, is_it),
            ["+", rest @ ..] => {
                let removed = self.any.as_mut()?.remove(rest, is_it);
                self.any.take_if(|any| any.is_empty());
                removed
            }
            [name, rest @ ..] => {
                let node = self.named.get_mut(*name)?;
                let removed = node.remove(rest, is_it);
                if node.is_empty() {
                    self.named.remove(*name);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { named: HashMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

fn take_first<V>(values: &mut Vec<V>, is_it: &impl Fn(&V) -> bool) -> Option<V> {
    let at = values.iter().position(is_it)?;
    Some(values.swap_remove(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$x"), Just("long-name")]
    }

    fn topic() -> impl Strategy<Value = Topic> {
        proptest::collection::vec(level(), 1..5)
            .prop_filter_map("a name is not empty", |levels| Topic::parse(&levels.join("/")).ok())
    }

    fn filter() -> impl Strategy<Value = TopicFilter> {
        let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 0..5);
        (levels, any::<bool>()).prop_filter_map("a filter is not empty", |(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            TopicFilter::parse(&levels.join("/")).ok()
        })
    }

    fn matches(table: &Table<usize>, topic: &Topic) -> Vec<usize> {
        let mut found = Vec::new();
        table.for_each_match(topic, |value| found.push(*value));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_asking_each_filter(
            filters in proptest::collection::vec(filter(), 0..40),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
            topics in proptest::collection::vec(topic(), 1..20),
        ) {
            let mut table = Table::new();
            let mut kept: Vec<(usize, TopicFilter)> = filters.into_iter().enumerate().collect();
            kept.iter().for_each(|(value, filter)| table.insert(filter, *value));
            for index in removed {
                if !kept.is_empty() {
                    let (value, filter) = kept.remove(index.index(kept.len()));
                    prop_assert_eq!(table.remove(&filter, |found| *found == value), Some(value));
                    prop_assert_eq!(table.remove(&filter, |found| *found == value), None);
                }
            }
            prop_assert_eq!(table.len(), kept.len());
            for topic in topics {
                let naive: Vec<usize> =
                    kept.iter().filter(|(_, filter)| filter.matches(&topic)).map(|(value, _)| *value).collect();
                prop_assert_eq!(matches(&table, &topic), naive, "{}", topic);
            }
            for (value, filter) in kept {
                table.remove(&filter, |found| *found == value);
            }
            prop_assert!(table.root.is_empty(), "nothing is left behind");
        }
    }

    #[test]
    fn wildcards_do_not_reach_the_bus_s_own_names() {
        let mut table = Table::new();
        for (value, text) in ["#", "+/a", "+/#", "$sys/a", "$sys/#", "$sys/+"].into_iter().enumerate() {
            table.insert(&TopicFilter::parse(text).unwrap(), value);
        }
        assert_eq!(matches(&table, &Topic::parse("$sys/a").unwrap()), [3, 4, 5]);
        assert_eq!(matches(&table, &Topic::parse("sys/a").unwrap()), [0, 1, 2]);
    }

    #[test]
    fn the_deepest_filters_and_topics_are_bounded_work() {
        let mut table = Table::new();
        for bits in 0..256u32 {
            let levels: Vec<_> =
                (0..64).map(|at| if bits >> (at % 8) & 1 == 1 { "+" } else { "a" }).collect();
            table.insert(&TopicFilter::parse(&levels.join("/")).unwrap(), bits as usize);
        }
        assert_eq!(matches(&table, &Topic::parse(&vec!["a"; 64].join("/")).unwrap()).len(), 256);
    }
}
