//! The power goes at every operation of a script: what was synced is there, and recovery is the same every time.

use super::*;
use crate::vfs::Limits;

/// A life with rolls, trims, cuts and watermarks. Says after each step how many operations were done, and how many
/// offsets were promised by then.
fn script(vfs: &SimVfs) -> Vec<(usize, u64)> {
    let mut promised = Vec::new();
    let (mut log, _) = open(vfs);
    let mut n = 0_u64;
    let mut step = |log: &mut Log, frames: u64| {
        for _ in 0..frames {
            n += 1;
            append(log, if n.is_multiple_of(5) { 0 } else { 2 }, 60 + (n as usize * 37) % 400, n);
        }
    };
    for round in 0..12 {
        step(&mut log, 3);
        log.sync().unwrap();
        promised.push((vfs.operations(), log.synced_offset()));
        step(&mut log, 2);
        match round % 4 {
            0 => log.discard_unsynced().unwrap(),
            1 => {
                log.sync().unwrap();
                log.set_state(round.to_string().into_bytes());
                log.write_watermark().unwrap();
            }
            2 => drop(log.trim(log.synced_offset() / 2).unwrap()),
            _ => {}
        }
        promised.push((vfs.operations(), log.synced_offset()));
    }
    promised
}

/// Opens what the power loss left, checks it, and gives what a second opening must find as well.
fn check(vfs: &SimVfs, promised: u64, what: &str) -> (u64, u64, Vec<u64>) {
    let (mut log, recovery) = open(vfs);
    assert_eq!(recovery.damage, [], "{what}");
    assert!(log.end_offset() >= promised, "{what}: {} of {promised}", log.end_offset());
    let (frames, skipped) = read_all(&log.reader(), 2_000);
    assert!(skipped.iter().all(|skip| skip.to <= log.first_offset()), "{what}");
    let mut next = log.first_offset();
    for frame in &frames {
        assert_eq!(frame.offset, next, "{what}: offsets are dense");
        next = frame.end();
    }
    assert_eq!(next, log.end_offset(), "{what}");
    let served = offsets(&frames);
    let ends = (log.end_offset(), log.end_record());
    // It can be used.
    append(&mut log, 0, 10, 0);
    log.discard_unsynced().unwrap();
    (ends.0, ends.1, served)
}

fn crash_everywhere(limits: impl Fn(usize) -> Limits, sync: bool) -> usize {
    let vfs = sim();
    vfs.skip_syncs(!sync);
    let promised = script(&vfs);
    let mut states = 0;
    for after in 0..=vfs.operations() {
        let durable = promised.iter().take_while(|(operations, _)| *operations <= after).last();
        let durable = durable.map_or(0, |(_, offset)| *offset);
        for (description, crashed) in vfs.crash_states(after, limits(after)) {
            let what = format!("after {after}: {description:?}");
            let once = check(&crashed, durable, &what);
            assert_eq!(check(&crashed, durable, &what), once, "{what}: twice");
            states += 1;
        }
    }
    states
}

#[test]
fn a_power_loss_at_any_moment_loses_nothing_that_was_synced() {
    let states = crash_everywhere(|after| Limits::sampled(60, after as u64), true);
    assert!(states > 1_000, "{states}");
}

/// The check bites: on a disk that does not sync, something is lost.
#[test]
fn without_syncs_the_check_fails() {
    let crashed =
        std::panic::catch_unwind(|| crash_everywhere(|after| Limits::sampled(60, after as u64), false));
    assert!(crashed.is_err());
}

/// Power that goes again while the log recovers.
#[test]
fn recovery_may_be_cut_short_anywhere() {
    let vfs = sim();
    let promised = script(&vfs);
    let mut tried = 0;
    for after in (0..=vfs.operations()).step_by(3) {
        let durable = promised.iter().take_while(|(operations, _)| *operations <= after).last();
        let durable = durable.map_or(0, |(_, offset)| *offset);
        for (description, crashed) in vfs.crash_states(after, Limits::sampled(2, after as u64)) {
            drop(open(&crashed));
            for again in 0..=crashed.operations() {
                for (second, twice) in crashed.crash_states(again, Limits::sampled(2, again as u64)) {
                    check(&twice, durable, &format!("{description:?}, then after {again}: {second:?}"));
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
}
