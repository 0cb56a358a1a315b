//! Any bytes as a certificate: no panic, bounded text, and never a principal of another source than was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealbus_protocol::identity::{CertificateFacts, Principal, PrincipalSource};

fuzz_target!(|der: &[u8]| {
    let Ok(facts) = CertificateFacts::parse(der) else { return };
    assert!(facts.issuer.len() <= 4 * 513);
    assert!(facts.serial.as_bytes().len() <= 20);
    for source in [PrincipalSource::Spiffe, PrincipalSource::Dns, PrincipalSource::CommonName] {
        match facts.principal(source) {
            Ok(principal) => {
                assert_eq!(principal.source(), source);
                assert_eq!(Principal::parse(principal.as_str()).as_ref(), Ok(&principal));
            }
            Err(error) => assert!(error.to_string().len() <= 4_096),
        }
    }
});
