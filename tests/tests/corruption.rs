//! Corruption: bits turned over, files cut, blocks exchanged, files taken away. No altered byte comes out, nothing that was
//! not touched is lost, everything that is lost is reported, and nothing is deleted. `storage-campaign flips` turns over
//! every bit.

use std::sync::atomic::AtomicUsize;

use sealbus_tests::campaign::corruption::Family;
use sealbus_tests::campaign::subject::{Kind, Subject};

/// One bit, or one length, in so many; those of headers and at borders between frames are all there.
const EVERY: u64 = 1_021;

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
