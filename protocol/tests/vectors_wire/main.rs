//! The golden vectors of the wire, both ways: what is made must be these bytes, and these bytes must be read and judged
//! so. The files are written by `examples/make_vectors_wire` and only read here; SPEC.md explains them.

mod batches;
mod build;
mod frames;
mod names;
mod policies;
mod sessions;

fn parse(file: &str) -> serde_json::Value {
    serde_json::from_str(file).expect("the vector file is JSON")
}

/// No byte of a golden file changes unnoticed, also where a refusal would stay the same refusal. Whoever adds a vector
/// writes the file's new hash here, and looks at the difference: what was there before stays as it was.
#[test]
fn the_files_are_those_that_were_agreed_on() {
    for (name, file, expected) in [
        ("batch.json", batches::FILE, "7e0cbb01f6537b790258d5157ae58cd218e796d5821fd89b358dd2d006b7dd0e"),
        ("frames.json", frames::FILE, "69c5d12389d5241a30b572f20970081aa9ce949603942931f87d580d359f9eba"),
        ("names.json", names::FILE, "68779bf1f404df57f7a224980669ab3953545912c6bc5656be2a5f6471783677"),
        ("policy.json", policies::FILE, "0b80c232bd1e6ad2be281b33383711aab3dfa371cc38646e87fbe21f90b44f82"),
        ("session.json", sessions::FILE, "757c09d6e3e7d4b30830af15201758f1798743cddba10c277a54882ed6cdc82b"),
    ] {
        assert_eq!(blake3::hash(file.as_bytes()).to_hex().as_str(), expected, "{name}");
    }
}
