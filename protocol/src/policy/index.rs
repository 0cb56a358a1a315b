//! From a principal to the rules about it, without walking all rules.
//!
//! Roles are not expanded into their members: a large role in many rules would make a table of their product. A
//! look-up goes from the principal to its roles and from each to its rules, and is made once for a session.

use std::collections::HashMap;
use std::sync::Arc;

use super::capture::StreamTable;
use super::decide::{EarliestRevocation, Subject};
use super::name::Name;
use super::rule::{Member, Policy, Revocation, Rule, Who};
use crate::identity::Principal;

/// The rules of one policy, by whom they are about.
#[derive(Debug)]
pub(super) struct Index {
    rules: Vec<Arc<Rule>>,
    rules_of_member: ByMember<RuleNumber>,
    rules_of_role: HashMap<Name, Vec<RuleNumber>>,
    roles_of_member: ByMember<Name>,
    revocations: HashMap<Principal, EarliestRevocation>,
    streams: Arc<StreamTable>,
}

/// A rule's place in the order of the document.
type RuleNumber = usize;

impl Index {
    pub(super) fn new(policy: &Policy) -> Self {
        let mut index = Self {
            rules: policy.rules.iter().cloned().map(Arc::new).collect(),
            rules_of_member: ByMember::default(),
            rules_of_role: HashMap::new(),
            roles_of_member: ByMember::default(),
            revocations: HashMap::new(),
            streams: Arc::new(StreamTable::new(&policy.streams)),
        };
        for role in &policy.roles {
            for member in &role.members {
                index.roles_of_member.add(member, role.name.clone());
            }
        }
        for (number, rule) in policy.rules.iter().enumerate() {
            for who in &rule.who {
                match who {
                    Who::Member(member) => index.rules_of_member.add(member, number),
                    Who::Role(name) => index.rules_of_role.entry(name.clone()).or_default().push(number),
                }
            }
        }
        policy.revocations.iter().for_each(|revocation| index.revoke(revocation));
        index
    }

    /// The principal with the rules about it.
    pub(super) fn subject(&self, principal: &Principal) -> Subject {
        let of_roles =
            self.roles_of_member.of(principal).filter_map(|role| self.rules_of_role.get(role)).flatten();
        let mut numbers: Vec<RuleNumber> =
            self.rules_of_member.of(principal).chain(of_roles).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rules = numbers.into_iter().filter_map(|number| self.rules.get(number));
        let revocation = self.revocations.get(principal).cloned();
        Subject::new(principal.clone(), revocation, Arc::clone(&self.streams), rules)
    }

    /// The streams of the policy.
    pub(super) fn streams(&self) -> &StreamTable {
        &self.streams
    }

    /// The revocation of a principal, whether or not it holds yet.
    pub(super) fn revocation(&self, principal: &Principal) -> Option<&EarliestRevocation> {
        self.revocations.get(principal)
    }

    /// Of two revocations of one principal the earlier one counts, and of two at once the first.
    fn revoke(&mut self, revocation: &Revocation) {
        let found = EarliestRevocation { from_ms: revocation.from_ms, rule: revocation.id.clone() };
        self.revocations
            .entry(revocation.principal.clone())
            .and_modify(|earliest| {
                if found.from_ms < earliest.from_ms {
                    *earliest = found.clone();
                }
            })
            .or_insert(found);
    }
}

/// Values by the members that they are about.
#[derive(Debug)]
struct ByMember<T> {
    exactly: HashMap<Principal, Vec<T>>,
    below: HashMap<Arc<str>, Vec<T>>,
}

impl<T> ByMember<T> {
    fn add(&mut self, member: &Member, value: T) {
        match member {
            Member::Exactly(principal) => self.exactly.entry(principal.clone()).or_default().push(value),
            Member::Below(prefix) => self.below.entry(Arc::clone(&prefix.0)).or_default().push(value),
        }
    }

    /// The values about `principal`, some perhaps twice. Each `/` of a SPIFFE ID ends a prefix that it is strictly
    /// below, since none ends with one.
    fn of<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = &'a T> {
        let text = principal.as_str();
        let prefixes = text.match_indices('/').filter_map(|(at, _)| text.get(..=at));
        let below = prefixes.filter_map(|prefix| self.below.get(prefix));
        self.exactly.get(principal).into_iter().chain(below).flatten()
    }
}

impl<T> Default for ByMember<T> {
    fn default() -> Self {
        Self { exactly: HashMap::new(), below: HashMap::new() }
    }
}
