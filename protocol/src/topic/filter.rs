//! Filters, and the three questions that are asked of them: does it match, do two overlap, does one cover another.
//!
//! Each answer is one walk over both texts, level by level, without recursion and without going back: a filter has
//! no alternatives, since `+` takes exactly one level and `#` ends it. So the time is linear in the text whatever a
//! peer sends.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::name::{Topic, TopicError, check_common};

/// A topic filter: a topic name in which `+` may stand for one level, and `#`, as the last level, for all below and
/// the parent. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    text: Arc<str>,
}

impl TopicFilter {
    /// Parses a filter.
    ///
    /// # Errors
    /// [`TopicError`] says which rule the text breaks, and where.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let mut at = 0;
        for level in text.split('/') {
            let end = at + level.len();
            if level.len() > 1
                && let Some(within) = level.find(['+', '#'])
            {
                return Err(TopicError::PartialWildcard { at: at + within });
            }
            if level == "#" && end != text.len() {
                return Err(TopicError::HashNotLast { at });
            }
            at = end + 1;
        }
        Ok(Self { text: text.into() })
    }

    /// The filter.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The levels of the filter, in order, wildcards among them.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.text.split('/')
    }

    /// Whether the filter begins with `$`, which no client may name.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.text.starts_with('$')
    }

    /// The topic that this filter is, when it holds no wildcard.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        (!self.text.contains(['+', '#'])).then(|| Topic { text: Arc::clone(&self.text) })
    }

    /// Whether the filter matches `topic`.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        if self.begins_with_wildcard() && topic.is_reserved() {
            return false;
        }
        let mut names = topic.levels();
        for level in self.levels() {
            if level == "#" {
                return true;
            }
            match names.next() {
                Some(name) if level == "+" || level == name => {}
                Some(_) | None => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether there is a topic that both filters match. (For filters so long that only a topic beyond the limit
    /// could match both, the answer is still yes.)
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.excludes_reserved(other) || other.excludes_reserved(self) {
            return false;
        }
        let mut mine = with_impossible_parent_removed(&self.text);
        let mut theirs = with_impossible_parent_removed(&other.text);
        loop {
            match (mine.next(), theirs.next()) {
                // The other may have ended: `a/#` and `a` share the parent.
                (Some("#"), _) | (_, Some("#")) => return true,
                (Some(one), Some(two)) if one == "+" || two == "+" || one == two => {}
                (None, None) => return true,
                (Some(_) | None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }

    /// Whether this filter matches every topic that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.excludes_reserved(other) {
            return false;
        }
        let mut mine = self.levels();
        let mut theirs = with_impossible_parent_removed(&other.text);
        loop {
            match (mine.next(), theirs.next()) {
                (Some("#"), _) | (None, None) => return true,
                // Levels and names are endless, so nothing but `#` covers `#`, and nothing but a wildcard covers `+`.
                (_, Some("#")) => return false,
                (Some(one), Some(two)) if one == "+" || one == two => {}
                (Some(_) | None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }

    fn begins_with_wildcard(&self) -> bool {
        self.text.starts_with(['+', '#'])
    }

    /// Whether `other` matches only reserved names, and this one none of them.
    fn excludes_reserved(&self, other: &Self) -> bool {
        self.begins_with_wildcard() && other.is_reserved()
    }
}

/// A filter of one topic.
impl From<&Topic> for TopicFilter {
    fn from(topic: &Topic) -> Self {
        Self { text: Arc::clone(&topic.text) }
    }
}

/// Hash, order and equality are those of the text, so that a map of filters can be asked with a `&str`.
impl Borrow<str> for TopicFilter {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicFilter({:?})", &*self.text)
    }
}

/// The levels of a filter, with `#` written as `+/#` and `/#` as `/+/#`.
///
/// `#` matches its parent too, save where the parent would be the empty name, which is no topic: there one more
/// level always follows. Without this, `+/#` would not be seen to cover `#`, though it matches the same topics, and
/// `/#` would seem to overlap `+`.
fn with_impossible_parent_removed(filter: &str) -> impl Iterator<Item = &str> {
    let levels = match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        other => other,
    };
    levels.split('/')
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::TOPIC_LEVELS_MAX;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    #[test]
    fn filters_are_those_of_mqtt_5() {
        for text in [
            "#",
            "+",
            "/",
            "a",
            "+/+",
            "/+",
            "+/",
            "a/#",
            "+/#",
            "/#",
            "a/+/b",
            "a//#",
            "$sys/#",
            "$share/g/a",
            "*",
            ">",
        ] {
            assert_eq!(TopicFilter::parse(text).map(|filter| filter.to_string()), Ok(text.to_owned()));
        }
    }

    /// FAILURES T29: what is nearly a pattern is refused, not read in some way.
    #[test]
    fn invalid_filters_are_refused_with_their_place() {
        for (text, expected) in [
            ("", TopicError::Empty),
            ("a+", TopicError::PartialWildcard { at: 1 }),
            ("+a", TopicError::PartialWildcard { at: 0 }),
            ("++", TopicError::PartialWildcard { at: 0 }),
            ("##", TopicError::PartialWildcard { at: 0 }),
            ("a/b#", TopicError::PartialWildcard { at: 3 }),
            ("a/#b", TopicError::PartialWildcard { at: 2 }),
            ("é/+#", TopicError::PartialWildcard { at: 3 }),
            ("#/", TopicError::HashNotLast { at: 0 }),
            ("#/a", TopicError::HashNotLast { at: 0 }),
            ("a/#/b", TopicError::HashNotLast { at: 2 }),
            ("a/#/#", TopicError::HashNotLast { at: 2 }),
            ("a/\0", TopicError::Control { at: 2, character: '\0' }),
            ("a/\r\nb", TopicError::Control { at: 2, character: '\r' }),
        ] {
            assert_eq!(TopicFilter::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_filter_matches_by_whole_levels() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", "a/", false),
            ("a", "ab", false),
            ("a/b", "a/b", true),
            ("+", "a", true),
            ("+", "/", false),
            ("+", "a/b", false),
            ("+/+", "/", true),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a//c", true),
            ("a/+/c", "a/b/b/c", false),
            ("#", "a", true),
            ("#", "/", true),
            ("#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/#", "b/a", false),
            ("+/#", "a", true),
            ("+/b/#", "a/b", true),
            ("a//b", "a/b", false),
            ("*", "a", false),
            (">", "a", false),
            ("a/**", "a/b", false),
        ] {
            assert_eq!(filter(pattern).matches(&topic(name)), expected, "{pattern} {name}");
        }
    }

    /// FAILURES T28: no wildcard reaches the bus's own names.
    #[test]
    fn a_leading_wildcard_never_matches_a_reserved_name() {
        for name in ["$", "$sys", "$sys/a", "$policy", "$dead/orders/billing"] {
            for pattern in ["#", "+", "+/#", "+/+", "+/a", "+/+/+"] {
                assert!(!filter(pattern).matches(&topic(name)), "{pattern} {name}");
                assert!(!filter(pattern).overlaps(&(&topic(name)).into()), "{pattern} {name}");
                assert!(!filter(pattern).covers(&(&topic(name)).into()), "{pattern} {name}");
            }
        }
        assert!(filter("$sys/#").matches(&topic("$sys/a")));
        assert!(filter("a/#").matches(&topic("a/$sys")));
        assert!(filter("/#").matches(&topic("/$sys")));
    }

    #[test]
    fn overlap_is_a_shared_topic() {
        for (one, two, expected) in [
            ("a/#", "a", true),
            ("a/#", "+", true),
            ("a/+", "+/b", true),
            ("a/+", "b/+", false),
            ("a/+/c", "a/b/#", true),
            ("a/b", "a/b/c", false),
            ("a/b/#", "a", false),
            ("#", "$sys/#", false),
            ("+/a", "$sys/a", false),
            ("$sys/+", "$sys/a", true),
            ("#", "/", true),
            ("/#", "+", false),
            ("/#", "+/+", true),
        ] {
            assert_eq!(filter(one).overlaps(&filter(two)), expected, "{one} {two}");
            assert_eq!(filter(two).overlaps(&filter(one)), expected, "{two} {one}");
        }
    }

    #[test]
    fn covering_is_matching_all_that_the_other_matches() {
        for (one, two, expected) in [
            ("#", "#", true),
            ("#", "+/#", true),
            ("+/#", "#", true),
            ("/+/#", "/#", true),
            ("+/+/#", "/#", true),
            ("+/+/#", "#", false),
            ("a/+/#", "a/#", false),
            ("a/#", "a/#", true),
            ("a/#", "a", true),
            ("a/#", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("+", "#", false),
            ("+/b", "a/b", true),
            ("#", "$sys/#", false),
            ("$sys/#", "$sys/+", true),
            ("$sys/#", "#", false),
        ] {
            assert_eq!(filter(one).covers(&filter(two)), expected, "{one} {two}");
        }
    }

    #[test]
    fn a_filter_without_wildcards_is_a_topic() {
        assert_eq!(filter("a/b").as_topic(), Some(topic("a/b")));
        assert_eq!(filter("a/+").as_topic(), None);
        assert_eq!(filter("#").as_topic(), None);
        assert_eq!(TopicFilter::from(&topic("a/b")), filter("a/b"));
    }

    /// FAILURES T30: the deepest filters against the deepest topics, many times. Anything that goes back, or
    /// recurses for each level, would not end in time here.
    #[test]
    fn deep_patterns_take_linear_time() {
        let plus = filter(&vec!["+"; TOPIC_LEVELS_MAX].join("/"));
        let near_miss = filter(&format!("{}/b", vec!["+"; TOPIC_LEVELS_MAX - 1].join("/")));
        let name = topic(&vec!["a"; TOPIC_LEVELS_MAX].join("/"));
        for _ in 0..10_000 {
            assert!(plus.matches(&name));
            assert!(!near_miss.matches(&name));
            assert!(plus.overlaps(&near_miss));
            assert!(plus.covers(&near_miss));
            assert!(!near_miss.covers(&plus));
        }
    }

    /// MQTT 5 section 4.7 as a definition, by recursion on the levels.
    fn matches_naively(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (["#"], _) => true,
            ([level, pattern @ ..], [first, name @ ..]) => {
                (*level == "+" || level == first) && matches_naively(pattern, name)
            }
            _ => false,
        }
    }

    fn reference_matches(pattern: &str, name: &str) -> bool {
        if name.starts_with('$') && (pattern.starts_with('+') || pattern.starts_with('#')) {
            return false;
        }
        let pattern: Vec<&str> = pattern.split('/').collect();
        let name: Vec<&str> = name.split('/').collect();
        matches_naively(&pattern, &name)
    }

    /// Names of levels in topics. `z` stands in no filter: it is the fresh name.
    const NAMES: [&str; 5] = ["", "a", "b", "$x", "z"];

    /// All topics of up to five levels over [`NAMES`]: one level deeper than any filter below.
    static TOPICS: LazyLock<Vec<Topic>> = LazyLock::new(|| {
        let mut texts: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
        let mut deepest = texts.clone();
        for _ in 1..5 {
            deepest = deepest
                .iter()
                .flat_map(|text| NAMES.iter().map(move |name| format!("{text}/{name}")))
                .collect();
            texts.extend_from_slice(&deepest);
        }
        texts.iter().filter_map(|text| Topic::parse(text).ok()).collect()
    });

    fn any_filter() -> impl Strategy<Value = TopicFilter> {
        let level = prop::sample::select(vec!["", "a", "b", "$x", "+"]);
        (prop::collection::vec(level, 0..=4), any::<bool>()).prop_filter_map(
            "too short or deep",
            |(mut levels, hash)| {
                if hash {
                    levels.push("#");
                }
                if levels.len() > 4 { None } else { TopicFilter::parse(&levels.join("/")).ok() }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn matching_agrees_with_the_definition(filter in any_filter()) {
            for topic in TOPICS.iter() {
                prop_assert_eq!(filter.matches(topic), reference_matches(filter.as_str(), topic.as_str()), "{}", topic);
            }
        }

        #[test]
        fn overlap_and_cover_agree_with_enumeration(one in any_filter(), two in any_filter()) {
            let (mut shared, mut all) = (false, true);
            for topic in TOPICS.iter().filter(|topic| two.matches(topic)) {
                if one.matches(topic) { shared = true } else { all = false }
            }
            prop_assert_eq!(one.overlaps(&two), shared);
            prop_assert_eq!(two.overlaps(&one), shared);
            prop_assert_eq!(one.covers(&two), all);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in any::<String>()) {
            if let Ok(filter) = TopicFilter::parse(&text) {
                prop_assert_eq!(filter.as_str(), text.as_str());
                prop_assert!(filter.overlaps(&filter) && filter.covers(&filter));
            }
            if let Ok(topic) = Topic::parse(&text) {
                let exact = TopicFilter::parse(&text).expect("every topic is a filter");
                prop_assert!(exact.matches(&topic));
            }
        }
    }

    /// Every pair of short filters, so that no corner is left to chance.
    #[test]
    fn short_filters_agree_with_enumeration_exhaustively() {
        let levels = ["", "a", "$x", "+", "#"];
        let one_level = levels.iter().map(|&level| level.to_owned());
        let two_levels = levels.iter().flat_map(|one| levels.iter().map(move |two| format!("{one}/{two}")));
        let filters: Vec<_> =
            one_level.chain(two_levels).filter_map(|text| TopicFilter::parse(&text).ok()).collect();
        let topics: Vec<_> = TOPICS.iter().filter(|topic| topic.levels().count() <= 3).collect();
        for one in &filters {
            for two in &filters {
                let mut matched = topics.iter().filter(|topic| two.matches(topic));
                let covered = matched.clone().all(|topic| one.matches(topic));
                assert_eq!(one.overlaps(two), matched.any(|topic| one.matches(topic)), "{one} {two}");
                assert_eq!(one.covers(two), covered, "{one} {two}");
            }
        }
    }
}
