//! Thirty kills: no acknowledged message is lost, altered, moved or doubled, and no consumer misses one. The checker that
//! says so is shown to bite.

use std::process::{Command, Stdio};

use sealbus_tests::killing::{Options, check, run};
use sealbus_tests::sealbus_program;

const KILLS: u64 = 30;

/// One that is known. Whoever hunts for others runs `kill-campaign`.
const SEED: u64 = 20_130_101;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_altered_moved_or_doubled_when_the_broker_is_killed() {
    let folder = tempfile::TempDir::with_prefix("sealbus-kill-").expect("a temporary folder can be made");
    let options = Options {
        kills: KILLS,
        seed: SEED,
        program: sealbus_program!().to_owned(),
        folder: folder.path().to_owned(),
    };
    let outcome = Box::pin(run(&options)).await;
    let verdict = check(outcome.history());
    if !verdict.is_good {
        let kept = folder.keep();
        outcome.keep_files();
        panic!("{}\nhistory and files are in {}", verdict.report, kept.display());
    }
    println!("{}", verdict.report);
    // The same history with one thing wrong must not pass: a checker that finds nothing may be one that looks at nothing.
    self_test(&[outcome.history().as_os_str()]);
}

#[test]
fn the_checker_finds_each_thing_that_can_be_wrong_with_a_history() {
    self_test(&[]);
}

fn self_test(arguments: &[&std::ffi::OsStr]) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/checker/self_test.py");
    let done = Command::new("python3").arg(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.expect("python3 is there");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}
