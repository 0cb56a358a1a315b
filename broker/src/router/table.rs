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
//!
//! The values of a node are ordered by their keys: one among a hundred thousand under the same filter is removed by
//! some twenty comparisons, and a look-up goes over them in one order, whatever came before.

use std::collections::{BTreeMap, HashMap};

use sealbus_protocol::topic::{Topic, TopicFilter};

/// Values under topic filters, each with its key; several may stand under one filter.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    root: Node<K, V>,
    len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    named: HashMap<Box<str>, Node<K, V>>,
    any: Option<Box<Node<K, V>>>,
    /// Values of filters that end here.
    here: BTreeMap<K, V>,
    /// Values of filters that go on with `#`: they match this level and all below.
    below: BTreeMap<K, V>,
}

impl<K: Ord, V> Table<K, V> {
    /// A table without filters.
    pub(crate) fn new() -> Self {
        Self { root: Node::default(), len: 0 }
    }

    /// Values in the table.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts a value under a filter. One that stood there under the same key is replaced.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, key: K, value: V) {
        let mut node = &mut self.root;
        let mut ends_below = false;
        for level in filter.levels() {
            node = match level {
                "#" => {
                    ends_below = true;
                    break;
                }
                "+" => node.any.get_or_insert_default(),
                name => node.named.entry(name.into()).or_default(),
            };
        }
        let values = if ends_below { &mut node.below } else { &mut node.here };
        if values.insert(key, value).is_none() {
            self.len = self.len.saturating_add(1);
        }
    }

    /// Takes the value with this key from under this very filter.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, key: &K) -> Option<V> {
        let levels: Vec<&str> = filter.levels().collect();
        let removed = self.root.remove(&levels, key);
        if removed.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        removed
    }

    /// Calls `found` with every value whose filter matches the topic.
    pub(crate) fn for_each_match<'t>(&'t self, topic: &Topic, mut found: impl FnMut(&'t V)) {
        // A filter that starts with a wildcard matches no name that starts with `$`.
        let wildcards_first = !topic.is_reserved();
        let mut open = vec![(&self.root, topic.levels())];
        let mut wildcards = wildcards_first;
        while let Some((node, mut levels)) = open.pop() {
            if wildcards {
                node.below.values().for_each(&mut found);
            }
            match levels.next() {
                None => node.here.values().for_each(&mut found),
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

impl<K: Ord, V> Node<K, V> {
    /// Recursion as deep as a filter has levels, which `TOPIC_LEVELS_MAX` bounds. Empty nodes go on the way back.
    fn remove(&mut self, levels: &[&str], key: &K) -> Option<V> {
        match levels {
            [] => self.here.remove(key),
            ["#"] => self.below.remove(key),
            ["+", rest @ ..] => {
                let removed = self.any.as_mut()?.remove(rest, key);
                self.any.take_if(|any| any.is_empty());
                removed
            }
            [name, rest @ ..] => {
                let node = self.named.get_mut(*name)?;
                let removed = node.remove(rest, key);
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

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self { named: HashMap::new(), any: None, here: BTreeMap::new(), below: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

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

    fn matches(table: &Table<usize, usize>, topic: &Topic) -> Vec<usize> {
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
            kept.iter().for_each(|(value, filter)| table.insert(filter, *value, *value));
            for index in removed {
                if !kept.is_empty() {
                    let (value, filter) = kept.remove(index.index(kept.len()));
                    prop_assert_eq!(table.remove(&filter, &value), Some(value));
                    prop_assert_eq!(table.remove(&filter, &value), None);
                }
            }
            prop_assert_eq!(table.len(), kept.len());
            for topic in topics {
                let naive: Vec<usize> =
                    kept.iter().filter(|(_, filter)| filter.matches(&topic)).map(|(value, _)| *value).collect();
                prop_assert_eq!(matches(&table, &topic), naive, "{}", topic);
            }
            for (value, filter) in kept {
                table.remove(&filter, &value);
            }
            prop_assert!(table.root.is_empty(), "nothing is left behind");
        }
    }

    #[test]
    fn wildcards_do_not_reach_the_bus_s_own_names() {
        let mut table = Table::new();
        for (value, text) in ["#", "+/a", "+/#", "$sys/a", "$sys/#", "$sys/+"].into_iter().enumerate() {
            table.insert(&TopicFilter::parse(text).unwrap(), value, value);
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
            table.insert(&TopicFilter::parse(&levels.join("/")).unwrap(), bits as usize, bits as usize);
        }
        assert_eq!(matches(&table, &Topic::parse(&vec!["a"; 64].join("/")).unwrap()).len(), 256);
    }

    thread_local! {
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    /// A key that counts how often it is looked at.
    #[derive(PartialEq, Eq)]
    struct Counted(u64);

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    /// Many sessions with many equal filters each: ending them must not cost the square of their number.
    #[test]
    fn one_of_many_under_one_filter_is_removed_without_looking_through_them() {
        const VALUES: u64 = 50_000;
        for filter in ["t/1", "t/+", "t/#"].map(|text| TopicFilter::parse(text).unwrap()) {
            let mut table = Table::new();
            (0..VALUES).for_each(|value| table.insert(&filter, Counted(value), value));
            COMPARISONS.set(0);
            // Neither the order of their coming nor its reverse.
            for value in (0..VALUES).map(|value| value * 7_919 % VALUES) {
                assert_eq!(table.remove(&filter, &Counted(value)), Some(value));
            }
            assert_eq!(table.len(), 0);
            let each = COMPARISONS.get() / VALUES;
            assert!(each <= 64, "{each} comparisons for each of {VALUES} under {filter}");
        }
    }

    #[test]
    fn a_value_under_the_same_key_and_filter_is_replaced() {
        let mut table = Table::new();
        let filter = TopicFilter::parse("t/#").unwrap();
        table.insert(&filter, 1, 1);
        table.insert(&filter, 1, 2);
        assert_eq!((table.len(), matches(&table, &Topic::parse("t/x").unwrap())), (1, vec![2]));
    }
}
