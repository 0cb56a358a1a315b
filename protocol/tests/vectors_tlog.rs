//! The golden vectors of trees, notes, checkpoints and proofs, on which Go's `x/mod/sumdb`, two crates and Python's
//! `sigstore` agree. All of the file is used, the refusals too.
//!
//! Tiles and bundles are formats that other tools keep a tree in; here they only say whether its nodes are right.

#![allow(clippy::unwrap_used, reason = "what helps a test fails the test")]

use ed25519_dalek::VerifyingKey;
use sealbus_protocol::tlog::note::NoteError;
use sealbus_protocol::tlog::{
    self, Checkpoint, CheckpointError, CompactRange, Hash, LogKey, NoteName, NoteSigner, SignedNote,
    TlogProof, VerifierKey, VerifyError, base64,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const VECTORS: &str = include_str!("../vectors/tlog.json");

/// It is a copy of what the other implementations were checked against, and stays one.
#[test]
fn the_file_is_the_one_that_was_agreed_on() {
    let hash = hex(&Sha256::digest(VECTORS));
    assert_eq!(hash, "28c357c84def06195d23a7632d4c2d790c276d7980e78a94cc686c6bc0bbc492");
}

#[test]
fn keys_have_these_ids_and_texts() {
    let file = parse();
    let log = &file["keys"]["log"];
    assert_eq!(text(&log["sig_type"]), "0x01");
    let signer = signer(&file);
    let key = signer.verifier();
    assert_eq!(key.as_bytes()[..], bytes(&log["pub_hex"]));
    assert_eq!(key.id().to_string(), text(&log["key_id"]));
    assert_eq!(hex(&Sha256::digest(bytes(&log["key_id_preimage_hex"]))[..4]), text(&log["key_id"]));
    assert_eq!(key.to_string(), text(&log["vkey"]));
    assert_eq!(VerifierKey::parse(text(&log["vkey"])), Ok(key.clone()));
    let skey = format!(
        "PRIVATE+KEY+{}+{}+{}",
        key.name(),
        key.id(),
        base64::encode(&[&[1], &bytes(&log["seed_hex"])[..]].concat())
    );
    assert_eq!(skey, text(&log["skey"]));

    // A witness's key makes another kind of signature: it is no key that vouches for a text.
    let witness = &file["keys"]["witness"];
    assert_eq!(VerifierKey::parse(text(&witness["vkey"])), Err(NoteError::VerifierKey));
    let private = LogKey::from_seed(&seed(witness));
    assert_eq!(private.public()[..], bytes(&witness["pub_hex"]));
    let preimage = [text(&witness["name"]).as_bytes(), &[b'\n', 4], &bytes(&witness["pub_hex"])].concat();
    assert_eq!(hex(&Sha256::digest(preimage)[..4]), text(&witness["key_id"]));
    assert_eq!(text(&witness["sig_type"]), "0x04");
}

#[test]
fn hashes_are_these() {
    let file = parse();
    let hashes = &file["hash"];
    assert_eq!(Hash::empty_root(), hash(&hashes["empty_root_hex"]));
    assert_eq!(CompactRange::new().root(), hash(&hashes["empty_root_hex"]));
    assert_eq!(tlog::leaf_hash(b""), hash(&hashes["leaf_empty_hex"]));
    assert_eq!(tlog::leaf_hash(b"L123456"), hash(&hashes["leaf_L123456_hex"]));
    let node = Sha256::digest(b"\x01N123N456");
    assert_eq!(hex(&node), text(&hashes["node_N123_N456_hex"]));
}

#[test]
fn the_small_tree_is_made_and_proven_byte_for_byte() {
    let file = parse();
    let small = &file["small"];
    let entries: Vec<&str> = list(&small["leaves_utf8"]).iter().map(text).collect();
    let tree = Tree::new(entries.iter().map(|entry| tlog::leaf_hash(entry.as_bytes())));
    assert!(tree.leaves().iter().eq(&hashes(&small["leaf_hashes_hex"])));
    let roots = hashes(&small["roots_hex_by_size"]);
    assert_eq!(roots.len(), entries.len() + 1);
    let signer = signer(&file);
    for (size, root) in (0_u64..).zip(&roots) {
        assert_eq!(tree.root(size), *root, "size {size}");
        let note = text(&small["checkpoints"][size.to_string()]);
        let checkpoint = Checkpoint::new(signer.name().clone(), size, *root).unwrap();
        assert_eq!(checkpoint.sign(&signer).unwrap().to_string(), note, "size {size}");
        assert_eq!(Checkpoint::open(note.as_bytes(), &signer.verifier()), Ok(checkpoint), "size {size}");
    }
    assert_eq!(inclusions_hold(&tree, &small["inclusion"]), 28);
    assert_eq!(consistencies_hold(&tree, &small["consistency"]), 21);
    assert_eq!(Checkpoint::parse(text(&small["checkpoint_7_body_utf8"])).unwrap().size(), 7);

    let tile = tree.tiles(7).pop().unwrap();
    assert_eq!(
        (tile.path.as_str(), tile.bytes),
        (text(&small["tile"]["path"]), bytes(&small["tile"]["hex"]))
    );
    let (path, bundle) = bundle(7, |index| entries[usize::try_from(index).unwrap()].to_owned());
    assert_eq!(
        (path.as_str(), bundle),
        (text(&small["entry_bundle"]["path"]), bytes(&small["entry_bundle"]["hex"]))
    );
}

#[test]
fn a_witness_is_carried_and_ignored() {
    let file = parse();
    let (small, key) = (&file["small"], signer(&file).verifier());
    let cosigned = &small["cosignature_7"];
    let note = text(&cosigned["cosigned_checkpoint"]);
    assert_eq!(SignedNote::parse(note.as_bytes()).unwrap().to_string(), note);
    assert_eq!(Checkpoint::open(note.as_bytes(), &key).unwrap().size(), 7);
    // Without the log's own line nobody known vouches for it.
    let log_line = note.lines().find(|line| line.contains(" broker.example/audit ")).unwrap();
    let unsigned = note.replace(&format!("{log_line}\n"), "");
    assert_eq!(Checkpoint::open(unsigned.as_bytes(), &key), Err(CheckpointError::Note(NoteError::NotSigned)));
    // The cosignature is what the specification says: time and signature over time and text.
    let line = text(&cosigned["line"]);
    assert!(note.ends_with(line));
    let payload = base64::decode(line.trim_end().rsplit_once(' ').unwrap().1).unwrap();
    assert_eq!(hex(&payload[..4]), text(&file["keys"]["witness"]["key_id"]));
    assert_eq!(payload[4..12], cosigned["timestamp"].as_u64().unwrap().to_be_bytes());
    let witness = bytes(&file["keys"]["witness"]["pub_hex"]);
    let witness = VerifyingKey::from_bytes(&witness.try_into().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&payload[12..]).unwrap();
    let message = text(&cosigned["signed_message_utf8"]);
    assert!(message.ends_with(SignedNote::parse(note.as_bytes()).unwrap().open(&[key]).unwrap()));
    assert!(witness.verify_strict(message.as_bytes(), &signature).is_ok());

    let policy = text(&small["policy_file"]);
    let vkey = policy.lines().next().unwrap().strip_prefix("log ").unwrap();
    assert_eq!(VerifierKey::parse(vkey), Ok(signer(&file).verifier()));
}

#[test]
fn what_a_witness_is_asked_holds() {
    let file = parse();
    let small = &file["small"];
    let request = text(&small["witness_add_checkpoint_request_4_to_7"]);
    let (head, note) = request.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("old 4"));
    let proof: Vec<Hash> =
        lines.map(|line| Hash::new(base64::decode(line).unwrap().try_into().unwrap())).collect();
    let checkpoint = Checkpoint::open(note.as_bytes(), &signer(&file).verifier()).unwrap();
    let old_root = hash(&small["roots_hex_by_size"][4]);
    assert_eq!(tlog::verify_consistency(4, checkpoint.size(), &old_root, checkpoint.root(), &proof), Ok(()));
}

#[test]
fn a_proof_is_read_verified_and_written_alike() {
    let file = parse();
    let (small, key) = (&file["small"], signer(&file).verifier());
    let expected = text(&small["tlog_proof_index_4_size_7"]);
    let proof = TlogProof::parse(expected.as_bytes()).unwrap();
    assert_eq!(proof.to_string(), expected);
    let leaves = hashes(&small["leaf_hashes_hex"]);
    assert_eq!(proof.verify(&leaves[4], &key).unwrap().size(), 7);
    assert!(proof.verify(&leaves[3], &key).is_err());
    let note = SignedNote::parse(text(&small["cosignature_7"]["cosigned_checkpoint"]).as_bytes()).unwrap();
    assert_eq!(TlogProof::new(4, Tree::new(leaves).include(4, 7), note), Ok(proof));
}

#[test]
fn the_big_tree_is_made_and_proven_byte_for_byte() {
    let file = parse();
    let big = &file["big"];
    let entry = |index: u64| format!("audit-record-{index}");
    let tree = Tree::new((0..70_000).map(|index| tlog::leaf_hash(entry(index).as_bytes())));
    let sizes = big["sizes"].as_object().unwrap();
    assert_eq!(sizes.len(), 13);
    for (size, case) in sizes {
        let size: u64 = size.parse().unwrap();
        assert_eq!(tree.root(size), hash(&case["root_hex"]), "size {size}");
        let kept = tree.leaves()[..usize::try_from(size).unwrap()].iter().copied();
        assert_eq!(tlog::root_of(kept), tree.root(size), "size {size}");
        tiles_are(&tree.tiles(size), case, size);
        let bundles = size.div_ceil(256);
        assert_eq!(bundles, case["n_bundles"].as_u64().unwrap(), "size {size}");
        if size > 0 {
            let (path, bytes) = bundle(size, entry);
            let expected = &case["last_bundle"];
            assert_eq!(path, text(&expected["path"]));
            assert_eq!(bytes.len() as u64, expected["len"].as_u64().unwrap());
            assert_eq!(hex(&Sha256::digest(bytes)), text(&expected["sha256"]));
        }
    }
    let signer = signer(&file);
    let checkpoint = Checkpoint::new(signer.name().clone(), 70_000, tree.root(70_000)).unwrap();
    assert_eq!(checkpoint.sign(&signer).unwrap().to_string(), text(&big["checkpoint_70000"]));
    assert_eq!(inclusions_hold(&tree, &big["inclusion"]), 7);
    assert_eq!(consistencies_hold(&tree, &big["consistency"]), 6);
    assert_eq!(text(&big["leaf_rule"]).matches("audit-record-").count(), 1);
}

#[test]
fn tile_paths_are_these() {
    for (number, path) in parse()["tile_path_examples"].as_object().unwrap() {
        assert_eq!(tile_number(number.parse().unwrap()), text(path));
    }
}

#[test]
fn notes_that_must_be_refused_are() {
    let file = parse();
    let key = signer(&file).verifier();
    let mut refused = 0;
    for case in list(&file["negative_notes"]) {
        let (name, note) = (text(&case["name"]), text(&case["note"]));
        let error = SignedNote::parse(note.as_bytes())
            .and_then(|note| note.open(std::slice::from_ref(&key)).map(str::to_owned))
            .unwrap_err();
        let bad = NoteError::BadSignature { name: key.name().clone() };
        let expected = match name {
            "sig_bit_flipped" | "body_size_changed" => bad,
            "key_id_flipped" | "name_changed" => NoteError::NotSigned,
            "no_final_newline" => NoteError::NoFinalNewline,
            "no_blank_line" | "empty" | "crlf" => NoteError::NoEmptyLine,
            "ascii_hyphen_instead_of_emdash" | "sig_not_base64" => NoteError::SignatureLine,
            "control_char_in_text" => NoteError::Character,
            other => panic!("{other} is a case without an expectation"),
        };
        assert_eq!(error, expected, "{name}: {}", text(&case["why"]));
        assert!(Checkpoint::open(note.as_bytes(), &key).is_err(), "{name}");
        refused += 1;
    }
    assert_eq!(refused, 11);
}

#[test]
fn checkpoints_that_must_be_refused_are_even_when_signed() {
    let file = parse();
    let signer = signer(&file);
    let mut refused = 0;
    for case in list(&file["negative_checkpoint_bodies"]) {
        let (name, body) = (text(&case["name"]), text(&case["body"]));
        let expected = match name {
            "size_leading_zero" | "size_negative" | "size_plus" | "size_overflow_u64" => {
                CheckpointError::Size
            }
            "empty_origin" => CheckpointError::Origin,
            "two_lines" | "missing_final_newline" | "empty_extension_line" => CheckpointError::Lines,
            "hash_31_bytes" | "hash_unpadded" => CheckpointError::Root,
            other => panic!("{other} is a case without an expectation"),
        };
        assert_eq!(Checkpoint::parse(body), Err(expected.clone()), "{name}");
        match signer.sign(body) {
            Ok(note) => {
                let opened = Checkpoint::open(note.to_string().as_bytes(), &signer.verifier());
                assert_eq!(opened, Err(expected), "{name}");
            }
            Err(error) => assert_eq!((name, error), ("missing_final_newline", NoteError::NoFinalNewline)),
        }
        refused += 1;
    }
    assert_eq!(refused, 10);
}

#[test]
fn inclusion_proofs_that_must_be_refused_are() {
    let file = parse();
    let small = &file["small"];
    let leaf = hash(&small["leaf_hashes_hex"][4]);
    let root = hash(&small["roots_hex_by_size"][7]);
    let mut refused = 0;
    for case in list(&file["negative_inclusion_4_of_7"]) {
        let name = text(&case["name"]);
        let index = case.get("index").map_or(4, |index| index.as_u64().unwrap());
        let expected = match name {
            "truncated" => VerifyError::TooFewHashes,
            "extra" => VerifyError::TooManyHashes,
            "swapped" | "bitflip" | "wrong_index_5" => VerifyError::Root,
            other => panic!("{other} is a case without an expectation"),
        };
        let proof = hashes(&case["proof_hex"]);
        assert_eq!(tlog::verify_inclusion(index, 7, &leaf, &root, &proof), Err(expected), "{name}");
        refused += 1;
    }
    assert_eq!(refused, 5);
}

/// Every perfect subtree of a tree, level by level.
struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    fn new(leaves: impl IntoIterator<Item = Hash>) -> Self {
        let mut levels = vec![leaves.into_iter().collect::<Vec<_>>()];
        while levels.last().unwrap().len() > 1 {
            let pairs = levels.last().unwrap().chunks_exact(2);
            let above = pairs.map(|pair| tlog::node_hash(&pair[0], &pair[1])).collect();
            levels.push(above);
        }
        Self { levels }
    }

    fn leaves(&self) -> &[Hash] {
        &self.levels[0]
    }

    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self.levels.get(usize::from(level))?.get(usize::try_from(index).ok()?).copied()
    }

    fn root(&self, size: u64) -> Hash {
        tlog::prefix_at(size, &|level, index| self.node(level, index)).unwrap().root()
    }

    fn include(&self, index: u64, size: u64) -> Vec<Hash> {
        tlog::inclusion_proof(index, size, &|level, index| self.node(level, index)).unwrap()
    }

    fn consist(&self, old_size: u64, size: u64) -> Vec<Hash> {
        tlog::consistency_proof(old_size, size, &|level, index| self.node(level, index)).unwrap()
    }

    /// The tiles of a tree of `size` leaves: by level, then by number.
    fn tiles(&self, size: u64) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for level in 0..8_u8 {
            let nodes = size >> (8 * level);
            for number in 0..nodes.div_ceil(256) {
                let width = (nodes - number * 256).min(256);
                let bytes = (number * 256..number * 256 + width)
                    .flat_map(|index| *self.node(8 * level, index).unwrap().as_bytes())
                    .collect();
                let path = format!("tile/{level}/{}{}", tile_number(number), tile_suffix(width));
                tiles.push(Tile { level, path, full: width == 256, bytes });
            }
        }
        tiles
    }
}

struct Tile {
    level: u8,
    path: String,
    full: bool,
    bytes: Vec<u8>,
}

fn tiles_are(tiles: &[Tile], case: &Value, size: u64) {
    assert_eq!(tiles.len() as u64, case["n_tiles"].as_u64().unwrap(), "size {size}");
    for (level, count) in case["tile_level_counts"].as_object().unwrap() {
        let found = tiles.iter().filter(|tile| tile.level.to_string() == *level).count();
        assert_eq!(found as u64, count.as_u64().unwrap(), "size {size}, level {level}");
    }
    let same = |tile: &Tile, expected: &Value| {
        assert_eq!(tile.path, text(&expected["path"]));
        assert_eq!(tile.bytes.len() as u64, expected["len"].as_u64().unwrap(), "{}", tile.path);
        assert_eq!(hex(&Sha256::digest(&tile.bytes)), text(&expected["sha256"]), "{}", tile.path);
    };
    let partial: Vec<&Tile> = tiles.iter().filter(|tile| !tile.full).collect();
    assert_eq!(partial.len(), list(&case["partial_tiles"]).len(), "size {size}");
    partial.into_iter().zip(list(&case["partial_tiles"])).for_each(|(tile, expected)| same(tile, expected));
    let full: Vec<&Tile> = tiles.iter().filter(|tile| tile.full).collect();
    let last = list(&case["last_full_tiles"]);
    assert_eq!(last.len(), full.len().min(2), "size {size}");
    full[full.len() - last.len()..].iter().zip(last).for_each(|(tile, expected)| same(tile, expected));
    // The digest of all is over `path LF tile`, tile after tile.
    let all = tiles.iter().fold(Sha256::new(), |hasher, tile| {
        hasher.chain_update(&tile.path).chain_update("\n").chain_update(&tile.bytes)
    });
    assert_eq!(hex(&all.finalize()), text(&case["sha256_of_all_tiles_concat"]), "size {size}");
}

/// The last bundle of a log of `size` entries.
fn bundle(size: u64, entry: impl Fn(u64) -> String) -> (String, Vec<u8>) {
    let number = (size - 1) / 256;
    let bytes = (number * 256..size)
        .flat_map(|index| {
            let entry = entry(index).into_bytes();
            let len = u16::try_from(entry.len()).unwrap();
            [&len.to_be_bytes()[..], &entry].concat()
        })
        .collect();
    (format!("tile/entries/{}{}", tile_number(number), tile_suffix(size - number * 256)), bytes)
}

fn tile_number(number: u64) -> String {
    let last = format!("{:03}", number % 1_000);
    match number / 1_000 {
        0 => last,
        rest => {
            let before = tile_number(rest);
            let (groups, group) = before.rsplit_once('/').unwrap_or(("", &before));
            let slash = if groups.is_empty() { "" } else { "/" };
            format!("{groups}{slash}x{group}/{last}")
        }
    }
}

fn tile_suffix(width: u64) -> String {
    if width == 256 { String::new() } else { format!(".p/{width}") }
}

fn inclusions_hold(tree: &Tree, cases: &Value) -> usize {
    for case in list(cases) {
        let (index, size) = (number(&case["index"]), number(&case["size"]));
        let proof = hashes(&case["proof_hex"]);
        assert_eq!(tree.include(index, size), proof, "{index} of {size}");
        let leaf = tree.leaves()[usize::try_from(index).unwrap()];
        assert_eq!(tlog::verify_inclusion(index, size, &leaf, &tree.root(size), &proof), Ok(()));
    }
    list(cases).len()
}

fn consistencies_hold(tree: &Tree, cases: &Value) -> usize {
    for case in list(cases) {
        let (old, new) = (number(&case["old"]), number(&case["new"]));
        let proof = hashes(&case["proof_hex"]);
        assert_eq!(tree.consist(old, new), proof, "{old} to {new}");
        assert_eq!(tlog::verify_consistency(old, new, &tree.root(old), &tree.root(new), &proof), Ok(()));
    }
    list(cases).len()
}

fn parse() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn signer(file: &Value) -> NoteSigner {
    let log = &file["keys"]["log"];
    LogKey::from_seed(&seed(log)).signer(NoteName::parse(text(&log["name"])).unwrap())
}

fn seed(key: &Value) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(bytes(&key["seed_hex"]).try_into().unwrap())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn hash(value: &Value) -> Hash {
    Hash::new(bytes(value).try_into().unwrap())
}

fn hashes(value: &Value) -> Vec<Hash> {
    list(value).iter().map(hash).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    text(value)
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
