//! The golden vectors of key binding and session proof, both ways: what is made must be these bytes, and these bytes
//! must be judged so.

use bytes::Bytes;
use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sealbus_protocol::binding::{BindingRequest, KemKey, KeyBinding, TlsScheme};
use sealbus_protocol::identity::{Principal, PrincipalSource, TrustDomain, TrustStore, Validity};
use sealbus_protocol::ids::BusId;
use sealbus_protocol::keys::{SigningKey, VerifyingKey};
use sealbus_protocol::proof::{self, Exporter};
use serde_json::Value;
use zeroize::Zeroizing;

const BINDINGS: &str = include_str!("../vectors/binding.json");
const PROOFS: &str = include_str!("../vectors/proof.json");

#[test]
fn bindings_are_made_byte_for_byte() {
    let file = parse(BINDINGS);
    let trust = trust(&file);
    let key = signing_key(&file);
    assert_eq!(key.verifying_key().as_bytes()[..], bytes(&file["signing_key"]));
    let cases = list(&file["make"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = text(&case["name"]);
        let validity = Validity {
            not_before_ms: number(&case["not_before_ms"]),
            not_after_ms: number(&case["not_after_ms"]),
        };
        let kem = Some(bytes(&case["kem_key"])).filter(|key| !key.is_empty());
        let kem = kem.map(|key| KemKey::XWing(key.into()));
        let chain: Vec<_> =
            list(&case["chain"]).iter().map(|certificate| CertificateDer::from(bytes(certificate))).collect();
        let principal = Principal::parse(text(&case["principal"])).unwrap();
        let request = BindingRequest::with_kem(&principal, &key, validity, kem.as_ref(), &chain).unwrap();
        assert_eq!(request.tls_message(), bytes(&case["tls_message"]), "{name}");

        let scheme = TlsScheme::from_code(u16::from_str_radix(text(&case["scheme"]), 16).unwrap()).unwrap();
        let tls_signature = bytes(&case["tls_signature"]);
        if scheme == TlsScheme::Ed25519 {
            let pkcs8 = PrivatePkcs8KeyDer::from(bytes(&case["tls_pkcs8"]));
            let tls_key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).unwrap();
            assert_eq!(tls_key.sign(&request.tls_message()).unwrap(), tls_signature, "{name}");
        }
        let made = request.finish(scheme, &tls_signature).unwrap();
        assert_eq!(made, bytes(&case["binding"]), "{name}");

        let decoded = KeyBinding::decode(made).unwrap();
        assert_eq!(decoded.principal(), &principal, "{name}");
        assert_eq!(decoded.validity(), validity, "{name}");
        assert!(decoded.chain().eq(chain), "{name}");
        let verified = decoded.verify_at(&trust, validity.not_before_ms).unwrap();
        assert_eq!(verified.kid().to_string(), text(&case["kid"]), "{name}");
        assert_eq!(verified.kem(), kem.as_ref(), "{name}");
    }
}

#[test]
fn bindings_are_judged_with_these_words() {
    let file = parse(BINDINGS);
    let trust = trust(&file);
    let cases = list(&file["judge"]);
    assert_eq!(cases.len(), 45);
    for case in cases {
        let found = match KeyBinding::decode(Bytes::from(bytes(&case["binding"]))) {
            Err(_) => "malformed",
            Ok(binding) => match binding.verify_at(&trust, number(&case["at_ms"])) {
                Ok(_) => "valid",
                Err(error) => error.word(),
            },
        };
        assert_eq!(found, text(&case["expect"]), "{}", text(&case["name"]));
    }
}

#[test]
fn proofs_are_made_and_judged_byte_for_byte() {
    let file = parse(PROOFS);
    let key = signing_key(&file);
    let cases = list(&file["judge"]);
    assert_eq!(cases.len(), 9);
    for case in cases {
        let name = text(&case["name"]);
        let exporter = Exporter::new(array(&case["exporter"]));
        let bus_id = BusId::new(array(&case["bus_id"]));
        let (fields, proof) = (bytes(&case["fields"]), array(&case["proof"]));
        let public = VerifyingKey::parse(&array(&case["key"])).unwrap();
        let found = match proof::verify(&public, &exporter, &bus_id, &fields, &proof) {
            Ok(()) => "valid",
            Err(_) => "refused",
        };
        assert_eq!(found, text(&case["expect"]), "{name}");
        if found == "valid" {
            assert_eq!(proof::sign(&key, &exporter, &bus_id, &fields), proof, "{name}");
        }
    }
}

fn parse(file: &str) -> Value {
    serde_json::from_str(file).expect("the vector file is JSON")
}

fn trust(file: &Value) -> TrustStore {
    let domains = list(&file["trust"]).iter().map(|domain| {
        assert_eq!(text(&domain["source"]), "spiffe");
        let root = CertificateDer::from(bytes(&domain["root"]));
        TrustDomain::new(text(&domain["domain"]), PrincipalSource::Spiffe, &[root]).expect("a root")
    });
    TrustStore::new(domains.collect()).expect("distinct domains")
}

fn signing_key(file: &Value) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new(array(&file["signing_seed"])))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = text(value);
    assert_eq!(text.len() % 2, 0);
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("as many bytes as the field has")
}
