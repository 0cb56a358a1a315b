//! Tests of the policy as a whole: documents, decisions, and both against a naive reading.

mod decisions;
mod documents;
mod naive;
mod properties;
mod streams;

use std::net::Ipv4Addr;

use super::{CompiledPolicy, Context, Policy};
use crate::identity::Principal;
use crate::topic::{Topic, TopicFilter};

/// A moment in 2026, for tests in which the time does not matter.
const NOW_MS: u64 = 1_780_000_000_000;

const ANNA: &str = "spiffe://acme.example/anna";
const BEN: &str = "spiffe://acme.example/ben";

fn compiled(text: &str) -> CompiledPolicy {
    let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{error}"));
    CompiledPolicy::compile(policy, NOW_MS).unwrap_or_else(|error| panic!("{error}"))
}

fn principal(text: &str) -> Principal {
    Principal::parse(text).unwrap()
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn anywhere() -> Context<'static> {
    Context { source: Ipv4Addr::LOCALHOST.into(), zone: None, now_ms: NOW_MS }
}
