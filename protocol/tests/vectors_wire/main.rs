//! The golden vectors of the wire, both ways: what is made must be these bytes, and these bytes must be read and judged
//! so. The files are written by `examples/make_vectors_wire` and only read here; SPEC.md explains them.

mod batches;
mod build;
mod frames;
mod names;
mod policies;
mod sessions;
mod stream_build;

fn parse(file: &str) -> serde_json::Value {
    serde_json::from_str(file).expect("the vector file is JSON")
}

/// No byte of a golden file changes unnoticed, also where a refusal would stay the same refusal. Whoever adds a vector
/// writes the file's new hash here, and looks at the difference: what was there before stays as it was.
#[test]
fn the_files_are_those_that_were_agreed_on() {
    for (name, file, expected) in [
        ("batch.json", batches::FILE, "7e0cbb01f6537b790258d5157ae58cd218e796d5821fd89b358dd2d006b7dd0e"),
        ("frames.json", frames::FILE, "d430ca8e8dc938482bc1b529261a365b3906d789109bc146322f607382571497"),
        ("names.json", names::FILE, "68779bf1f404df57f7a224980669ab3953545912c6bc5656be2a5f6471783677"),
        ("policy.json", policies::FILE, "b44fafa540dfdbdeef66565e951af0b235edafa976e6b0d0ff2ee05b3171a203"),
        ("session.json", sessions::FILE, "eb6d85401cc702227498b7d7838f2b2456f2b12dca63595e9abbe9b4bbf9ff43"),
    ] {
        assert_eq!(blake3::hash(file.as_bytes()).to_hex().as_str(), expected, "{name}");
    }
}
