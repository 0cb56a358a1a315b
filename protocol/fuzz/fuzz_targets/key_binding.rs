//! Any bytes as a key binding: no panic, and nothing is believed but the bindings of the golden vectors, which are the
//! only ones that the keys behind their roots ever signed.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::identity::{PrincipalSource, TrustDomain, TrustStore};
use sealbus_protocol::limits::BINDING_BYTES_MAX;

const VECTORS: &str = include_str!("../../vectors/binding.json");

/// 1 January 2026, when the vectors are valid.
const AT_MS: u64 = 1_767_225_600_000;

static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let domains = ["a.example", "b.example"].into_iter().zip(field("root"));
    let domains = domains.map(|(name, root)| {
        TrustDomain::new(name, PrincipalSource::Spiffe, &[CertificateDer::from(root)]).expect("a root")
    });
    TrustStore::new(domains.collect()).expect("two domains")
});

static SIGNED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| field("binding").collect());

fuzz_target!(|bytes: &[u8]| {
    let Ok(binding) = KeyBinding::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert!(bytes.len() <= BINDING_BYTES_MAX);
    assert_eq!(binding.bytes(), bytes);
    match binding.verify_at(&TRUST, AT_MS) {
        Ok(verified) => {
            assert!(SIGNED.iter().any(|signed| signed == bytes), "a forged binding was believed");
            assert_eq!(verified.principal(), binding.principal());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// Every value of a field of the vector file, which writes one field a line.
fn field(name: &str) -> impl Iterator<Item = Vec<u8>> {
    let start = format!("\"{name}\": \"");
    VECTORS.lines().filter_map(move |line| {
        let hex = line.trim_start().strip_prefix(&start)?.trim_end_matches(',').strip_suffix('"')?;
        let digits = (0..hex.len()).step_by(2);
        Some(digits.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect())
    })
}
