//! Any text as a policy document: read or refused with a place, and what was read decides without surprises.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Policy};
use sealbus_protocol::topic::Topic;

fuzz_target!(|text: &str| {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.line() >= 1 && error.column() >= 1);
            assert!(!error.to_string().chars().any(char::is_control));
            return;
        }
    };
    let Ok(compiled) = CompiledPolicy::compile(policy, 0) else { return };
    let stranger = Principal::parse("spiffe://stranger.example/nobody/knows").expect("it is well formed");
    let ours = Topic::parse("$sys/audit").expect("it is well formed");
    let context = Context { source: Ipv4Addr::LOCALHOST.into(), zone: None, now_ms: 0 };
    assert!(compiled.subject(&stranger).decide(Act::Publish(&ours), &context).is_err());
    if compiled.rule_count() == 0 {
        assert!(compiled.subject(&stranger).decide(Act::Admin, &context).is_err());
    }
});
