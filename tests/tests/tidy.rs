//! The rules of the house that a compiler does not know: which way imports go, which modules stay pure, who may name
//! what. Each rule says in its failure what to do.

#![allow(clippy::panic, reason = "a test says what it found by failing")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A source file, without its tests and without its comments.
struct Source {
    /// Relative to the root, with forward slashes.
    path: String,
    lines: Vec<(usize, String)>,
    line_count: usize,
}

impl Source {
    fn mentions(&self, word: &str) -> impl Iterator<Item = String> {
        self.lines
            .iter()
            .filter(move |(_, line)| line.contains(word))
            .map(move |(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of the workspace")
        .to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All product sources below a folder. Test modules are left out: they may do what they like.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
                found.push(source(&path));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Modules that a parent declares under `#[cfg(test)]`.
fn is_test(path: &Path) -> bool {
    let words = ["tests", "testing", "matrix", "test_pki", "naive", "model"];
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        words.contains(&name.trim_end_matches(".rs"))
    })
}

fn source(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).expect("sources are UTF-8");
    let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    let mut lines = Vec::new();
    let mut end = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]"
            && text.lines().nth(index + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        {
            end = index;
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        if !code.trim().is_empty() {
            lines.push((index + 1, code.to_owned()));
        }
    }
    Source { path: relative, lines, line_count: end }
}

fn fail_if_any(findings: &[String], advice: &str) {
    assert!(findings.is_empty(), "{advice}\n  {}", findings.join("\n  "));
}

/// `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{manifest}: {error}"));
    let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
    dependencies.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn protocol_depends_on_nothing_that_touches_the_world() {
    let allowed: BTreeSet<String> = [
        "blake3",
        "bytes",
        "ed25519-dalek",
        "rustls-pki-types",
        "rustls-webpki",
        "serde",
        "sha2",
        "time",
        "toml",
        "zeroize",
    ]
    .map(String::from)
    .into();
    let extra: Vec<String> = dependencies("protocol/Cargo.toml").difference(&allowed).cloned().collect();
    fail_if_any(
        &extra,
        "a new dependency of the protocol is a decision: it must be pure, and be listed here",
    );
}

#[test]
fn pure_modules_have_no_world_in_them() {
    let words = [
        "async ",
        ".await",
        "tokio",
        "std::fs",
        "std::net::Tcp",
        "std::thread",
        "Mutex",
        "RwLock",
        "SystemTime",
        "Instant::",
        "tracing::",
        "getrandom",
        "std::env",
        "println!",
        "eprintln!",
    ];
    // The spares of large batches are an allocator's: behind its lock nothing is decided.
    let protocol =
        sources("protocol/src").into_iter().filter(|source| source.path != "protocol/src/memory.rs");
    let pure = protocol.chain(sources("broker/src").into_iter().filter(|source| {
        [
            "broker/src/router/table.rs",
            "broker/src/audit/event.rs",
            "broker/src/audit/encode.rs",
            "broker/src/audit/flood.rs",
        ]
        .contains(&source.path.as_str())
    }));
    let findings: Vec<String> = pure
        .flat_map(|source| words.map(|word| source.mentions(word).collect::<Vec<_>>()))
        .flatten()
        .collect();
    fail_if_any(&findings, "pure modules take moments, bytes and randomness as arguments");
}

#[test]
fn only_the_policy_document_knows_toml() {
    let outside = sources("protocol/src")
        .into_iter()
        .filter(|source| !source.path.starts_with("protocol/src/policy/document"));
    let findings: Vec<String> = outside
        .flat_map(|source| ["toml::", "serde::"].map(|word| source.mentions(word).collect::<Vec<_>>()))
        .flatten()
        .collect();
    fail_if_any(&findings, "domain types derive no serde and are parsed by hand");
}

#[test]
fn the_client_never_imports_the_broker_nor_the_broker_the_client() {
    assert!(!dependencies("client/Cargo.toml").contains("sealbus-broker"));
    assert!(!dependencies("broker/Cargo.toml").contains("sealbus-client"));
    for manifest in ["protocol/Cargo.toml", "broker/Cargo.toml", "client/Cargo.toml"] {
        assert!(!dependencies(manifest).contains("sealbus"), "{manifest} stands below the command line");
    }
}

/// In the broker every file imports only from its own floor's folder or from floors below.
#[test]
fn broker_imports_go_downwards() {
    let floors: [&[&str]; 12] = [
        &["clock", "vfs", "shutdown", "telemetry", "locks"],
        &["config"],
        &["policy", "tls", "audit"],
        &["storage"],
        &["party", "port", "change", "admission", "descriptors"],
        &["consumers"],
        &["router", "outbox", "producers", "bindings", "quotas", "sessions", "letters", "counts"],
        &["bus"],
        &["pipeline"],
        &["keeping"],
        &["session"],
        &["listener", "reload"],
    ];
    let floor_of = |module: &str| floors.iter().position(|floor| floor.contains(&module));
    let mut findings = Vec::new();
    for source in sources("broker/src") {
        let inside = source.path.trim_start_matches("broker/src/").trim_end_matches(".rs");
        let own = inside.split('/').next().unwrap_or_default();
        if matches!(own, "lib" | "broker") {
            continue;
        }
        let Some(own_floor) = floor_of(own) else {
            findings.push(format!("{}: its module stands on no floor", source.path));
            continue;
        };
        for (number, line) in &source.lines {
            for part in line.split("crate::").skip(1) {
                let module: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let upwards = floor_of(&module).is_some_and(|floor| floor > own_floor);
                if upwards {
                    findings.push(format!("{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    fail_if_any(&findings, "imports go from the listener down to the clock, never up");
}

#[test]
fn only_the_clock_reads_the_time_and_only_the_vfs_the_disk() {
    let mut findings = Vec::new();
    for source in sources("broker/src") {
        if !source.path.ends_with("/clock.rs") {
            findings.extend(source.mentions("SystemTime::now"));
            findings.extend(source.mentions("Instant::now"));
        }
        if !source.path.starts_with("broker/src/vfs") {
            findings.extend(source.mentions("std::fs"));
            findings.extend(source.mentions("tokio::fs"));
        }
    }
    fail_if_any(&findings, "time comes from Clock and files from Vfs, so that faults can be injected");
}

/// sled and bincode hold what can be made again, and nothing else.
#[test]
fn only_the_index_knows_sled_and_bincode() {
    let outside = sources("broker/src")
        .into_iter()
        .filter(|source| !source.path.starts_with("broker/src/storage/index"));
    let findings: Vec<String> = outside
        .chain(sources("protocol/src"))
        .chain(sources("client/src"))
        .chain(sources("cli/src"))
        .flat_map(|source| ["sled::", "bincode::"].map(|word| source.mentions(word).collect::<Vec<_>>()))
        .flatten()
        .collect();
    fail_if_any(&findings, "the logs are the truth: what sled holds must be made again from them");
}

#[test]
fn nobody_splits_a_tls_stream_or_opens_an_unbounded_channel() {
    let mut findings = Vec::new();
    for folder in ["broker/src", "client/src", "cli/src"] {
        for source in sources(folder) {
            for word in ["tokio::io::split", "unbounded_channel", "danger_accept", "dangerous()"] {
                findings.extend(source.mentions(word));
            }
        }
    }
    fail_if_any(
        &findings,
        "a split stream has a lock per read, an unbounded queue has no end, and nothing skips verification",
    );
}

#[test]
fn children_do_not_import_their_parent() {
    let mut findings = Vec::new();
    for folder in ["protocol/src", "broker/src", "client/src"] {
        for source in sources(folder) {
            let is_root = source.path.ends_with("/mod.rs") || source.path.ends_with("/lib.rs");
            let inside = source.path.split("/src/").nth(1).unwrap_or_default();
            if is_root || !inside.contains('/') {
                continue;
            }
            // `use super::sibling::Thing` names a sibling; `use super::Thing` names the parent's own.
            findings.extend(source.lines.iter().filter_map(|(number, line)| {
                let imported = line.trim().strip_prefix("use super::")?;
                let first = imported.chars().next()?;
                (first.is_uppercase() || first == '{')
                    .then(|| format!("{}:{number}: {}", source.path, line.trim()))
            }));
        }
    }
    fail_if_any(
        &findings,
        "move what both need into a sibling: a parent declares and re-exports, children share sideways",
    );
}

#[test]
fn every_crate_forbids_unsafe_code_and_takes_the_workspace_lints() {
    for member in ["protocol", "broker", "client", "cli", "tests", "benches", "benches/compare"] {
        let manifest = read(format!("{member}/Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{member}/Cargo.toml takes the workspace's lints"
        );
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
}

/// Past 400 lines before its tests, a file probably has a second subject; past 500 it must be cut or be listed here
/// with its reason.
#[test]
fn files_have_one_subject() {
    let mut findings = Vec::new();
    for folder in ["protocol/src", "broker/src", "client/src", "cli/src", "benches/compare/src"] {
        let long = sources(folder).into_iter().filter(|source| source.line_count > 500);
        findings.extend(long.map(|source| format!("{}: {} lines", source.path, source.line_count)));
    }
    fail_if_any(&findings, "look for the second subject in it");
}
