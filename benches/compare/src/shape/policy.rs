//! Policies of as many rules as are wanted, of which two allow what the load does and the others are in their way.
//!
//! ```text
//!   0  other-0   the load's principals, other topics       every second one: they make the principal's own list long
//!   1  other-1   another principal, the load's topics      the others: they make the document long
//!   ...
//!   n-2  stats   the operator asks for numbers and reloads
//!   n-1  load    the load publishes and subscribes: the last, so that whoever goes from the first on sees them all
//! ```

use std::fmt::Write as _;

/// The principals of the load are this and a number.
pub(super) const LOAD: &str = "spiffe://compare.local/load/";

/// What the load publishes and subscribes to.
pub(super) const TOPICS: &str = "load/#";

/// Rules that are always there.
const OWN_RULES: u32 = 2;

/// A policy of so many rules, of at least two.
pub(super) fn policy(rules: u32) -> String {
    let mut text = String::from("version = 1\n");
    for number in 0..rules.saturating_sub(OWN_RULES) {
        if number % 2 == 0 {
            rule(&mut text, &format!("other-{number}"), &format!("{LOAD}*"), &format!("other/{number}/#"));
        } else {
            let who = format!("spiffe://compare.local/other/{number}");
            rule(&mut text, &format!("other-{number}"), &who, TOPICS);
        }
    }
    text.push_str(
        "\n[[allow]]\nid = \"stats\"\nwho = [\"spiffe://compare.local/operator\"]\nverbs = [\"admin\"]\n",
    );
    rule(&mut text, "load", &format!("{LOAD}*"), TOPICS);
    text
}

fn rule(text: &mut String, id: &str, who: &str, topics: &str) {
    let verbs = "\"publish\", \"subscribe\"";
    let written = write!(
        text,
        "\n[[allow]]\nid = \"{id}\"\nwho = [\"{who}\"]\nverbs = [{verbs}]\ntopics = [\"{topics}\"]\n"
    );
    written.expect("a text takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the broker takes, from `sealbus_protocol::limits`, which this crate does not name.
    const POLICY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

    #[test]
    fn there_are_as_many_rules_as_are_wanted_and_the_load_s_is_the_last() {
        for rules in [10, 100, 10_000] {
            let text = policy(rules);
            assert_eq!(text.matches("[[allow]]").count(), rules as usize);
            let (_, last) = text.rsplit_once("[[allow]]").unwrap();
            assert!(last.contains("id = \"load\"") && last.contains(TOPICS), "{last}");
        }
    }

    #[test]
    fn half_of_those_in_the_way_are_about_the_load_itself() {
        let text = policy(12);
        let about_load = text.matches(&format!("who = [\"{LOAD}*\"]")).count();
        assert_eq!(about_load, 5 + 1);
        assert_eq!(text.matches("topics = [\"load/#\"]").count(), 5 + 1);
    }

    #[test]
    fn the_largest_policy_fits_what_a_broker_reads() {
        assert!(policy(10_000).len() < POLICY_BYTES_MAX);
    }
}
