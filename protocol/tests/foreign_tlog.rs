//! What is made here is accepted by code that we did not write, and the other way round: `signed_note` and
//! `tlog_tiles`, which follow Go's `x/mod/sumdb`. What they refuse is refused here too.

#![allow(clippy::unwrap_used, reason = "what helps a test fails the test")]

use proptest::prelude::*;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::tlog::{
    self, Checkpoint, CompactRange, Hash, LogKey, NoteSigner, SignedNote, VerifierKey, stream_origin,
};
use signed_note::{Note, NoteError, StandardVerifier, VerifierList};
use tlog_tiles::{Error, Hash as ForeignHash, HashReader};
use zeroize::Zeroizing;

/// A tree as the foreign crate keeps it: all perfect subtrees in one list, in the order in which they became whole.
#[derive(Default)]
struct Foreign {
    size: u64,
    stored: Vec<ForeignHash>,
}

impl Foreign {
    fn push(&mut self, entry: &[u8]) {
        let hashes = tlog_tiles::stored_hashes(self.size, entry, self).unwrap();
        self.stored.extend(hashes);
        self.size += 1;
    }

    fn root(&self, size: u64) -> ForeignHash {
        tlog_tiles::tree_hash(size, self).unwrap()
    }
}

impl HashReader for Foreign {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<ForeignHash>, Error> {
        Ok(indexes.iter().map(|index| self.stored[usize::try_from(*index).unwrap()]).collect())
    }
}

/// The same subtrees, asked for as our provers do.
fn nodes(foreign: &Foreign) -> impl Fn(u8, u64) -> Option<Hash> {
    |level, index| {
        let place = usize::try_from(tlog_tiles::stored_hash_index(level, index)).unwrap();
        foreign.stored.get(place).map(|hash| ours(*hash))
    }
}

fn ours(hash: ForeignHash) -> Hash {
    Hash::new(hash.0)
}

fn theirs(hash: Hash) -> ForeignHash {
    ForeignHash(*hash.as_bytes())
}

fn all_theirs(hashes: &[Hash]) -> Vec<ForeignHash> {
    hashes.iter().map(|hash| theirs(*hash)).collect()
}

fn signer() -> NoteSigner {
    let origin = stream_origin(&BusId::new([0xb5; 16]), &StreamId::new([0x57; 16]));
    LogKey::from_seed(&Zeroizing::new([9; 32])).signer(origin)
}

fn foreign_verifiers(key: &VerifierKey) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&key.to_string()).unwrap())])
}

/// Whether the foreign crate takes a note as one of this key, and the text that it then has.
fn foreign_open(note: &[u8], key: &VerifierKey) -> Result<Vec<u8>, NoteError> {
    let note = Note::from_bytes(note)?;
    note.verify(&foreign_verifiers(key))?;
    Ok(note.text().to_vec())
}

#[test]
fn the_foreign_crate_makes_the_same_vkey_and_signs_alike() {
    let signer = signer();
    let (name, key) = (signer.name().as_str(), signer.verifier());
    let foreign_key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).unwrap();
    assert_eq!(foreign_key.to_bytes(), *key.as_bytes());
    let skey =
        format!("PRIVATE+KEY+{name}+{}+{}", key.id(), tlog::base64::encode(&[&[1], &[9; 32][..]].concat()));
    let foreign_signer = signed_note::StandardSigner::new(&skey).unwrap();
    let checkpoint = Checkpoint::new(signer.name().clone(), 0, Hash::empty_root()).unwrap();
    let mut note = Note::new(checkpoint.to_string().as_bytes(), &[]).unwrap();
    note.add_sigs(&[&foreign_signer]).unwrap();
    assert_eq!(note.to_bytes(), checkpoint.sign(&signer).unwrap().to_string().into_bytes());
    assert_eq!(Checkpoint::open(&note.to_bytes(), &key), Ok(checkpoint));
}

#[test]
fn every_checkpoint_of_a_growing_log_is_accepted() {
    let (mut foreign, mut range, signer) = (Foreign::default(), CompactRange::new(), signer());
    for size in 0..300_u64 {
        let checkpoint = Checkpoint::new(signer.name().clone(), size, range.root()).unwrap();
        let note = checkpoint.sign(&signer).unwrap().to_string();
        let text = foreign_open(note.as_bytes(), &signer.verifier()).unwrap();
        let read = tlog_tiles::Checkpoint::from_bytes(&text).unwrap();
        assert_eq!(read.origin(), signer.name().as_str());
        assert_eq!((read.size(), read.hash(), read.extension()), (size, &foreign.root(size), ""));
        let entry = size.to_be_bytes();
        foreign.push(&entry);
        range.push(tlog::leaf_hash(&entry));
    }
}

proptest! {
    #[test]
    fn proofs_of_random_trees_are_the_same_and_verify_on_both_sides(
        entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..150),
        picks in any::<[prop::sample::Index; 3]>(),
    ) {
        let mut foreign = Foreign::default();
        entries.iter().for_each(|entry| foreign.push(entry));
        let [size, index, old] = picks;
        let size = 1 + size.index(entries.len()) as u64;
        let index = index.index(usize::try_from(size).unwrap()) as u64;
        let old = 1 + old.index(usize::try_from(size).unwrap()) as u64;

        let root = foreign.root(size);
        let kept = &entries[..usize::try_from(size).unwrap()];
        prop_assert_eq!(tlog::root_of(kept.iter().map(|entry| tlog::leaf_hash(entry))), ours(root));

        let leaf = tlog::leaf_hash(&entries[usize::try_from(index).unwrap()]);
        let proof = tlog::inclusion_proof(index, size, &nodes(&foreign)).unwrap();
        prop_assert_eq!(tlog_tiles::prove_record(size, index, &foreign).unwrap(), all_theirs(&proof));
        prop_assert!(tlog_tiles::check_record(&all_theirs(&proof), size, root, index, theirs(leaf)).is_ok());
        prop_assert_eq!(tlog::verify_inclusion(index, size, &leaf, &ours(root), &proof), Ok(()));

        let old_root = foreign.root(old);
        let proof = tlog::consistency_proof(old, size, &nodes(&foreign)).unwrap();
        prop_assert_eq!(tlog_tiles::prove_tree(size, old, &foreign).unwrap(), all_theirs(&proof));
        prop_assert!(tlog_tiles::check_tree(&all_theirs(&proof), size, root, old, old_root).is_ok());
        prop_assert_eq!(tlog::verify_consistency(old, size, &ours(old_root), &ours(root), &proof), Ok(()));
    }

    /// Hashes, places and sizes that fit nothing: both say no, or both yes.
    #[test]
    fn proofs_are_judged_alike(
        count in 1_u64..40, size in 1_u64..40, place in 0_u64..40,
        change in prop::option::of((0_usize..8, 0_usize..256)), cut in 0_usize..3, extra in 0_usize..2,
    ) {
        let mut foreign = Foreign::default();
        (0..40_u64).for_each(|entry| foreign.push(&entry.to_be_bytes()));
        let place = place.min(count - 1);
        let leaf = tlog::leaf_hash(&place.to_be_bytes());
        let mangle = |mut proof: Vec<Hash>| {
            if let Some((at, bit)) = change.filter(|(at, _)| *at < proof.len()) {
                let mut bytes = *proof[at].as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                proof[at] = Hash::new(bytes);
            }
            proof.truncate(proof.len().saturating_sub(cut));
            proof.extend(std::iter::repeat_n(leaf, extra));
            proof
        };
        let root = foreign.root(size);
        let proof = mangle(tlog::inclusion_proof(place, count, &nodes(&foreign)).unwrap());
        prop_assert_eq!(
            tlog::verify_inclusion(place, size, &leaf, &ours(root), &proof).is_ok(),
            tlog_tiles::check_record(&all_theirs(&proof), size, root, place, theirs(leaf)).is_ok()
        );
        let old = place + 1;
        let proof = mangle(tlog::consistency_proof(old, count, &nodes(&foreign)).unwrap());
        prop_assert_eq!(
            tlog::verify_consistency(old, size, &ours(foreign.root(old)), &ours(root), &proof).is_ok(),
            tlog_tiles::check_tree(&all_theirs(&proof), size, root, old, foreign.root(old)).is_ok()
        );
    }

    /// We may refuse what they take (a second, bad line of one key; unused bits of base64), never the reverse.
    #[test]
    fn notes_that_are_taken_here_are_taken_there(
        lines in 1_usize..4, at in any::<prop::sample::Index>(), byte in any::<u8>(), drop in any::<bool>(),
    ) {
        let signer = signer();
        let note = signer.sign(&"a line\n".repeat(lines)).unwrap().to_string();
        let mut bytes = note.clone().into_bytes();
        let at = at.index(bytes.len());
        if drop {
            bytes.remove(at);
        } else {
            bytes[at] = byte;
        }
        let key = signer.verifier();
        let here = SignedNote::parse(&bytes).and_then(|note| note.open(std::slice::from_ref(&key)).map(str::to_owned));
        let there = foreign_open(&bytes, &key);
        if let Ok(text) = &here {
            prop_assert_eq!(there.as_deref().ok(), Some(text.as_bytes()));
            prop_assert_eq!(&bytes, note.as_bytes());
        }
        prop_assert!(foreign_open(note.as_bytes(), &key).is_ok());
    }
}
