//! Every crash point: power is lost at each operation of scripted lives of a broker's storage, in every way that a disk may
//! lose it, and what is found afterwards is compared with what was acknowledged. `storage-campaign crash` is the same at
//! full size.

use sealbus_tests::campaign::crash::{Crashes, Disk};
use sealbus_tests::campaign::forgetful::Forgets;
use sealbus_tests::campaign::states::Tally;

/// One that comes by everything there is. Whoever hunts for others runs `storage-campaign`.
const SEED: u64 = 1;

fn campaign(states: usize, disk: Disk) -> Crashes {
    let (steps, threads, nested_one_in) = (200, 2, 64);
    Crashes { seed: SEED, states, states_per_moment: Some(6), steps, threads, nested_one_in, disk }
}

#[test]
fn whatever_a_power_loss_leaves_nothing_acknowledged_is_lost_altered_moved_or_doubled() {
    let tally = Tally::default();
    let report = campaign(10_000, Disk::Honest).run(&tally);
    println!("{}", report.json());
    assert_eq!(report.violations, 0, "{report}");
    assert!(report.n >= 10_000, "{report}");
    // The scripts came by everything that the storage does.
    let done = tally.done();
    for what in [
        "segments_completed",
        "trims_asked_for",
        "trims_by_retention",
        "checkpoints",
        "cursor_commits",
        "cursor_logs_shortened",
        "keys",
        "policies",
        "snapshots_of_producers",
        "duplicates_recognised",
        "batches_sent_again",
    ] {
        assert!(done.get(what).is_some_and(|times| *times > 0), "{what} never happened: {done:?}");
    }
}

#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    for disk in [Disk::SkipsSyncs, Disk::SkipsDirectorySyncs] {
        let tally = Tally::default();
        let report = campaign(2_000, disk).run(&tally);
        assert!(tally.losses() > 0, "acknowledged batches are lost on a disk that {disk:?}: {report}");
    }
}

/// A sync that could be left out without anybody noticing would be a sync that nobody tests.
#[test]
fn no_kind_of_file_can_go_without_its_syncs() {
    for forgets in Forgets::ALL {
        let report = campaign(2_000, Disk::Forgets(forgets)).run(&Tally::default());
        assert!(
            report.violations > 0,
            "the syncs of {forgets:?} are left out, and nothing is found: {report}"
        );
    }
}
