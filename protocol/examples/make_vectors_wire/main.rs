//! Writes `vectors/{batch,frames,session,names,policy}.json` anew.
//!
//! `cargo run -p sealbus-protocol --example make_vectors_wire`
//!
//! Everything is deterministic: a second run changes nothing. The bytes of batch and session proof are final: a change
//! to them is a mistake. The tests in `tests/vectors_wire` read the files and never write them.

use std::error::Error;
use std::path::Path;

#[path = "../../tests/vectors_wire/build.rs"]
#[allow(dead_code)] // The tests need parts of it that are not needed here.
mod build;
#[path = "../../tests/vectors_wire/stream_build.rs"]
#[allow(dead_code)] // As above.
mod stream_build;

mod batches;
mod frames;
mod judged;
mod names;
mod policies;
mod sessions;
mod streams;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for (name, vectors) in [
        ("batch.json", batches::vectors()),
        ("frames.json", frames::vectors()),
        ("session.json", sessions::vectors()),
        ("names.json", names::vectors()),
        ("policy.json", policies::vectors()),
    ] {
        std::fs::write(folder.join(name), format!("{vectors:#}\n"))?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
