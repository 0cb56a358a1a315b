//! Corruption: bits turned over, files cut, blocks exchanged, files taken away. No altered byte comes out, nothing that was
//! not touched is lost, everything that is lost is reported, and nothing is deleted. `storage-campaign flips` turns over
//! every bit.

use std::sync::atomic::AtomicUsize;

use sealbus_tests::campaign::corruption::{Case, Family, Look, judge_disk};
use sealbus_tests::campaign::subject::{Kind, Subject};

/// One bit, or one length, in so many; those of headers and at borders between frames are all there.
const EVERY: u64 = 61;

#[test]
fn damage_is_reported_stays_where_it_is_and_is_never_served() {
    let subject = Subject::new(64 * 1_024, 72 * 1_024);
    let sealed = subject.files_of(Kind::Sealed).map(|(_, file)| file.bytes.len());
    assert_eq!(sealed.collect::<Vec<_>>(), [64 * 1_024], "the segment is full to its last byte");
    for family in Family::ALL {
        let report = family.run(&subject, (EVERY, 2), &AtomicUsize::new(0));
        println!("{}", report.json());
        assert!(report.n > 0, "{family} has no cases");
        assert_eq!(report.violations, 0, "{report}");
    }
}

/// A judge to whom damage is nothing would find nothing: here he is told that nothing happened.
#[test]
fn damage_that_nothing_explains_is_found() {
    let subject = Subject::new(64 * 1_024, 72 * 1_024);
    let nothing = Case::Remove(Vec::new());
    assert_eq!(judge_disk(&subject, &nothing, Look::Close, &subject.disk()), Vec::<String>::new());
    let (_, sealed) = subject.files_of(Kind::Sealed).next().expect("there is a complete segment");
    let (_, active) = subject.files_of(Kind::Active).next().expect("there is a segment that grows");
    let tampers: [&dyn Fn(&sealbus_broker::vfs::SimVfs); 3] = [
        &|disk| disk.flip_bit(&sealed.path, 8 * 5_000).expect("there is such a bit"),
        &|disk| disk.truncate_file(&active.path, 1_000).expect("there is such a file"),
        &|disk| disk.remove_file(&sealed.path).expect("there is such a file"),
    ];
    for (number, tamper) in tampers.iter().enumerate() {
        let disk = subject.disk();
        tamper(&disk);
        let wrong = judge_disk(&subject, &nothing, Look::Close, &disk);
        assert!(wrong.iter().any(|wrong| wrong.contains("I1:")), "tamper {number}: {wrong:?}");
    }
}
