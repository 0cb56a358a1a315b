//! The demo, to its end, and the bus that it leaves.

use crate::support::{done, run};

#[test]
fn the_demo_tells_its_story_and_succeeds() {
    let home = tempfile::tempdir().unwrap();
    let told = done(home.path(), &["demo"]);
    for said in [
        "842",
        "297",
        "denied by rule \"kiosks-never-publish\"",
        "no rule allows it",
        "Caught with SIGNATURE",
        "Caught with REPLAY",
        "Delivered to the display after its marker: 0.",
        "policy-reloaded",
        "handshake-failed",
        "gets kill -9",
        "in order: 842 of 842,",
        "A checkpoint over",
        "Every step did what it says.",
    ] {
        assert!(told.contains(said), "{said:?} is missing in\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "no escapes without a terminal");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_bus_that_was_kept_can_be_served_again() {
    let home = tempfile::tempdir().unwrap();
    let told = done(home.path(), &["demo", "--keep", "bus"]);
    assert!(told.contains("serve --config bus/sealbus.toml"), "{told}");
    let checked = done(home.path(), &["serve", "--config", "bus/sealbus.toml", "--check"]);
    assert!(checked.contains("are good"), "{checked}");
    let verified = done(home.path(), &["stream", "verify", "flights", "--dir", "bus"]);
    assert!(verified.contains("flights is whole"), "{verified}");
    let again = run(home.path(), &["demo", "--keep", "bus"]);
    assert_eq!(again.code, 1, "a folder in use is not taken");
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);
}
