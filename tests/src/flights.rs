//! Departures from New York in January 2013: real data, kept in `data/`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The template of the topics that flights are published on.
pub const TOPIC_TEMPLATE: &str = "flights/{origin}/{carrier}";

/// A folder's file of flights: the first of January, 842 of them.
#[must_use]
pub fn first_of_january() -> PathBuf {
    data("flights-2013-01-01.jsonl")
}

/// Writes all 27,004 flights of January into a folder, uncompressed.
#[must_use]
pub fn january(folder: &Path) -> PathBuf {
    let packed = File::open(data("flights-2013-01.jsonl.gz")).expect("the flights are in the repository");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut text).expect("the flights unpack");
    let path = folder.join("flights-2013-01.jsonl");
    std::fs::write(&path, text).expect("the flights can be written");
    path
}

/// The flights of a file, each with the topic that the template gives it.
#[must_use]
pub fn read(path: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(path).expect("the flights can be read");
    let flights = text.lines().map(|line| {
        let flight: Value = serde_json::from_str(line).expect("a flight is JSON");
        let field = |name: &str| flight[name].as_str().expect("a flight has origin and carrier").to_owned();
        (format!("flights/{}/{}", field("origin"), field("carrier")), flight)
    });
    flights.collect()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}
