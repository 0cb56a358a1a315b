//! The tests that a policy carries, run against the policy itself.

use std::fmt;

use super::decide::Act;
use super::expectation::{Expectation, ExpectedAct, Outcome, PolicyTest};
use super::index::Index;
use super::name::Name;
use super::permit::{Denial, DenialRule, Narrowed};
use super::rule::{Effect, Policy, RuleId};
use super::verb::StreamVerb;
use super::when::{Circumstances, Unsaid};
use crate::identity::Principal;

/// An expectation of a policy's test that the policy does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    /// The test's place among the tests, from 0.
    pub index: usize,
    /// The line of the document where the test begins, from 1.
    pub line: usize,
    /// The principal that the test is about.
    pub who: Principal,
    /// What was expected.
    pub expected: Expectation,
    /// What was decided.
    pub found: Finding,
    /// Whether the test would pass from some places only, of which it names none.
    pub place: PlaceMatters,
}

/// What was decided where a test expected something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The act is permitted by this rule.
    Permitted(RuleId),
    /// Some of the filter or of the stream is permitted, by these rules.
    Narrowed(Vec<RuleId>),
    /// The act is refused.
    Refused(DenialRule),
}

/// Whether a failure depends on a source or zone that the test does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceMatters {
    /// It does: the test should say which it means.
    Yes,
    /// It does not.
    No,
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, line, who, expected, found, place } = self;
        write!(
            f,
            "line {line}: test[{index}] expects that {who} {} {}, but ",
            expected.outcome, expected.act
        )?;
        match found {
            Finding::Permitted(rule) => write!(f, "rule \"{rule}\" allows it")?,
            Finding::Narrowed(rules) => {
                f.write_str("only some of it is allowed, by ")?;
                for (position, rule) in rules.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}\"{rule}\"")?;
                }
            }
            Finding::Refused(rule) => rule.fmt(f)?,
        }
        match place {
            PlaceMatters::Yes => f.write_str(
                "; this depends on where the principal connects: name `source` or `zone` in the test, which \
                 otherwise speaks about all of them",
            ),
            PlaceMatters::No => Ok(()),
        }
    }
}

/// Runs all tests; `now_ms` is the time for those that name none.
pub(super) fn run_tests(policy: &Policy, index: &Index, now_ms: u64) -> Vec<TestFailure> {
    let run = |(number, test): (usize, &PolicyTest)| -> Vec<TestFailure> {
        test.expectations
            .iter()
            .filter_map(|expected| run_one(index, number, test, expected, now_ms))
            .collect()
    };
    policy.tests.iter().enumerate().flat_map(run).collect()
}

fn run_one(
    index: &Index,
    number: usize,
    test: &PolicyTest,
    expected: &Expectation,
    now_ms: u64,
) -> Option<TestFailure> {
    let against = match expected.outcome {
        Outcome::Can => Effect::Deny,
        Outcome::Cannot => Effect::Allow,
    };
    let found = finding(index, test, expected, against, now_ms);
    if is_met(expected, &found) {
        return None;
    }
    let best = match against {
        Effect::Allow => Effect::Deny,
        Effect::Deny => Effect::Allow,
    };
    let at_best = finding(index, test, expected, best, now_ms);
    let place = if is_met(expected, &at_best) { PlaceMatters::Yes } else { PlaceMatters::No };
    Some(TestFailure {
        index: number,
        line: test.line,
        who: test.who.clone(),
        expected: expected.clone(),
        found,
        place,
    })
}

/// What is decided if every condition on a place that the test does not name holds for rules of the effect
/// `favoured`, and fails for the others.
fn finding(
    index: &Index,
    test: &PolicyTest,
    expected: &Expectation,
    favoured: Effect,
    now_ms: u64,
) -> Finding {
    let subject = index.subject(&test.who);
    let circumstances = Circumstances {
        source: test.source,
        zone: test.zone.as_ref().map(Name::as_str),
        now_ms: test.at_ms.unwrap_or(now_ms),
        unsaid: Unsaid::HoldsFor(favoured),
    };
    let judge = |act| match subject.judge(act, &circumstances) {
        Ok(permit) => Finding::Permitted(permit.rule().clone()),
        Err(denial) => refused(&denial),
    };
    let some_of = |narrowed, rules: &[RuleId]| match (narrowed, rules) {
        (Narrowed::No, [rule, ..]) => Finding::Permitted(rule.clone()),
        (Narrowed::No | Narrowed::Yes, rules) => Finding::Narrowed(rules.to_vec()),
    };
    let read = |verb, stream: &Name| match subject.judge_stream(verb, stream, None, &circumstances) {
        Ok(permit) => some_of(permit.narrowed(), permit.rules()),
        Err(denial) => refused(&denial),
    };
    match &expected.act {
        ExpectedAct::Publish(topic) => judge(Act::Publish(topic)),
        ExpectedAct::Replay(stream) => read(StreamVerb::Replay, stream),
        ExpectedAct::Consume(stream) => read(StreamVerb::Consume, stream),
        ExpectedAct::Describe(stream) => judge(Act::Describe(stream)),
        ExpectedAct::Admin => judge(Act::Admin),
        ExpectedAct::Audit => judge(Act::Audit),
        ExpectedAct::Subscribe(filter) => match filter.as_topic() {
            Some(topic) => judge(Act::Subscribe(&topic)),
            None => match subject.judge_filter(filter, &circumstances) {
                Ok(permit) => some_of(permit.narrowed(), permit.rules()),
                Err(denial) => refused(&denial),
            },
        },
    }
}

fn refused(denial: &Denial) -> Finding {
    Finding::Refused(denial.rule().clone())
}

fn is_met(expected: &Expectation, found: &Finding) -> bool {
    match (expected.outcome, found) {
        (Outcome::Can, Finding::Permitted(_)) | (Outcome::Cannot, Finding::Refused(_)) => true,
        (Outcome::Can, Finding::Narrowed(_)) => reads_what_there_is(&expected.act),
        (Outcome::Can, Finding::Refused(_))
        | (Outcome::Cannot, Finding::Permitted(_) | Finding::Narrowed(_)) => false,
    }
}

/// A stream is joined or not, and its reader gets what it may. A filter is what somebody counts on as a whole.
fn reads_what_there_is(act: &ExpectedAct) -> bool {
    match act {
        ExpectedAct::Replay(_) | ExpectedAct::Consume(_) => true,
        ExpectedAct::Publish(_)
        | ExpectedAct::Subscribe(_)
        | ExpectedAct::Describe(_)
        | ExpectedAct::Admin
        | ExpectedAct::Audit => false,
    }
}
