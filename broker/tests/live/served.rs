//! A policy that speaks of what no listener serves changes nothing.

use sealbus_broker::ReloadError;

use crate::harness::{Bus, allow, deny, policy};

#[test]
fn a_slip_of_the_pen_is_refused_and_the_policy_stays_as_it_was() {
    let anna = allow("anna-writes", "anna", "publish", &["t/#"]);
    let bus = Bus::start(&policy(1, std::slice::from_ref(&anna)));
    let mut client = bus.client("anna");
    let mut publisher = client.publisher("t/1");
    let zone = deny("night", "anna", "publish", &["t/#"]) + "when = { zone = \"internl\" }\n";
    let who = deny("night", "anna", "publish", &["t/#"]).replace("acme.example", "acme.exmaple");
    let revocation = "[[revoke]]\nprincipal = \"spiffe://acme.exmaple/anna\"\n".to_owned();
    let role = "[roles]\nall = [\"spiffe://acme.exmaple/*\"]\n".to_owned();
    for (slip, speaker, meant) in [
        (zone, "rule \\\"night\\\"", "did you mean \\\"internal\\\"?"),
        (who, "rule \\\"night\\\"", "did you mean \\\"acme.example\\\"?"),
        (revocation, "revoke[0]", "did you mean \\\"acme.example\\\"?"),
        (role, "role \\\"all\\\"", "did you mean \\\"acme.example\\\"?"),
    ] {
        bus.write("policy.toml", &policy(2, &[anna.clone(), slip]));
        assert!(matches!(bus.reload(), Err(ReloadError::Policy(_))), "{speaker}");
        bus.audit_has(&["policy-refused", speaker, meant]);
    }
    client.publish(&mut publisher, &[b"as it was"]).unwrap();
    // What was meant holds at once.
    let revoked = "[[revoke]]\nprincipal = \"spiffe://acme.example/anna\"\n".to_owned();
    assert_eq!(bus.reload_policy(&policy(2, &[anna, revoked])).sessions_cut, 1);
}
