use bytes::Bytes;
use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::*;
use crate::identity::test_pki::*;
use crate::identity::{ChainError, Principal, TrustStore, Validity};
use crate::keys::{KeyError, Purpose, SIGNATURE_LEN, SigningKey};
use crate::limits::*;
use crate::wire::{DecodeError, Write as _};

const ORDERS: &str = "spiffe://a.example/orders";
const VALIDITY: Validity = Validity { not_before_ms: AT_MS - 1_000, not_after_ms: AT_MS + 1_000 };

/// A principal with a certificate, and somebody who trusts its root.
struct Party {
    store: TrustStore,
    root: Issuer,
    leaf: Leaf,
    scheme: TlsScheme,
}

impl Party {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm, scheme: TlsScheme) -> Self {
        let root = root("root");
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = issue_for(&spiffe_params(ORDERS), key, &root);
        Self { store: spiffe_store("a.example", &root), root, leaf, scheme }
    }

    fn ed25519() -> Self {
        Self::new(&rcgen::PKCS_ED25519, TlsScheme::Ed25519)
    }

    /// A binding that is properly signed twice, whatever it says.
    fn bind(&self, principal: &str, validity: Validity) -> Bytes {
        self.bind_with(&signing_key(7), principal, validity, None)
    }

    fn bind_with(
        &self,
        key: &SigningKey,
        principal: &str,
        validity: Validity,
        kem: Option<&KemKey>,
    ) -> Bytes {
        let principal = Principal::parse(principal).unwrap();
        let chain = [self.leaf.der.clone()];
        let request = BindingRequest::with_kem(&principal, key, validity, kem, &chain).unwrap();
        let signature = self.leaf.key.sign(&request.tls_message()).unwrap();
        request.finish(self.scheme, &signature).unwrap()
    }

    fn verify(&self, bytes: &[u8]) -> Result<VerifiedBinding, BindingError> {
        KeyBinding::decode(Bytes::copy_from_slice(bytes)).unwrap().verify_at(&self.store, AT_MS)
    }
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

/// Changes the bytes that the signing key signs, and signs them again with it.
fn resigned(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut changed = bytes[..bytes.len() - SIGNATURE_LEN].to_vec();
    change(&mut changed);
    let possession = signing_key(7).sign(Purpose::KeyPossession, &[&changed]);
    changed.extend(possession);
    changed
}

#[test]
fn a_true_binding_is_believed_with_each_kind_of_key() {
    for (algorithm, scheme) in [
        (&rcgen::PKCS_ED25519, TlsScheme::Ed25519),
        (&rcgen::PKCS_ECDSA_P256_SHA256, TlsScheme::EcdsaP256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, TlsScheme::EcdsaP384),
    ] {
        let party = Party::new(algorithm, scheme);
        let bytes = party.bind(ORDERS, VALIDITY);
        let binding = party.verify(&bytes).unwrap();
        let key = signing_key(7).verifying_key();
        assert_eq!(binding.principal().as_str(), ORDERS);
        assert_eq!(binding.key(), &key);
        assert_eq!(binding.kid(), key.kid(binding.principal()));
        assert_eq!(binding.validity(), VALIDITY);
        assert_eq!(binding.kem(), None);
        assert_eq!(binding.bytes(), &bytes);
    }
}

#[test]
fn an_rsa_leaf_binds_with_pss() {
    let root = CertificateDer::from(openssl("rsa2048_root"));
    let leaf = CertificateDer::from(openssl("rsa2048_leaf"));
    let signature = openssl("rsa2048_binding_signature");
    let domain = crate::identity::TrustDomain::new(
        "rsa.example",
        crate::identity::PrincipalSource::Spiffe,
        std::slice::from_ref(&root),
    );
    let store = TrustStore::new(vec![domain.unwrap()]).unwrap();
    let principal = Principal::parse("spiffe://rsa.example/orders").unwrap();
    let key = signing_key(7);
    let verify = |scheme| {
        let request = BindingRequest::new(&principal, &key, VALIDITY, std::slice::from_ref(&leaf)).unwrap();
        let bytes = request.finish(scheme, &signature).unwrap();
        KeyBinding::decode(bytes).unwrap().verify_at(&store, AT_MS).map(|binding| binding.kid())
    };
    assert_eq!(verify(TlsScheme::RsaPssSha256), Ok(key.verifying_key().kid(&principal)));
    assert_eq!(
        verify(TlsScheme::RsaPssSha384),
        Err(BindingError::TlsSignature { scheme: TlsScheme::RsaPssSha384 })
    );
    assert_eq!(verify(TlsScheme::EcdsaP256), Err(BindingError::SchemeUnfit { scheme: TlsScheme::EcdsaP256 }));
}

#[test]
fn no_byte_of_a_binding_is_free() {
    for party in [Party::ed25519(), Party::new(&rcgen::PKCS_ECDSA_P256_SHA256, TlsScheme::EcdsaP256)] {
        let valid = party.bind(ORDERS, VALIDITY);
        assert!(party.verify(&valid).is_ok());
        let mut bytes = valid.to_vec();
        for place in 0..bytes.len() {
            for flip in [0x01, 0x80] {
                bytes[place] ^= flip;
                let refused = match KeyBinding::decode(Bytes::copy_from_slice(&bytes)) {
                    Ok(binding) => binding.verify_at(&party.store, AT_MS).is_err(),
                    Err(_) => true,
                };
                assert!(refused, "byte {place} xor {flip:02x}");
                bytes[place] ^= flip;
            }
        }
    }
}

#[test]
fn no_field_can_be_changed_by_the_signing_key_alone() {
    let party = Party::ed25519();
    let valid = party.bind(ORDERS, VALIDITY);
    assert!(party.verify(&resigned(&valid, |_| {})).is_ok());
    let after_leaf = 2 + 2 + 64;
    let leaf_signed = valid.len() - SIGNATURE_LEN - after_leaf;
    for place in 0..leaf_signed {
        let changed = resigned(&valid, |bytes| bytes[place] ^= 1);
        let refused = match KeyBinding::decode(changed.into()) {
            Ok(binding) => binding.verify_at(&party.store, AT_MS).is_err(),
            Err(_) => true,
        };
        assert!(refused, "byte {place}");
    }
}

#[test]
fn a_binding_ends_where_it_ends() {
    let valid = Party::ed25519().bind(ORDERS, VALIDITY);
    for len in 0..valid.len() {
        assert!(KeyBinding::decode(valid.slice(..len)).is_err(), "cut at {len}");
    }
    let mut longer = valid.to_vec();
    longer.push(0);
    assert_eq!(KeyBinding::decode(longer.into()).unwrap_err(), DecodeError::Trailing { extra: 1 });
}

#[test]
fn a_binding_holds_between_its_dates_which_lie_within_the_leafs() {
    let party = Party::ed25519();
    let binding = KeyBinding::decode(party.bind(ORDERS, VALIDITY)).unwrap();
    for (at_ms, holds) in [
        (VALIDITY.not_before_ms - 1, false),
        (VALIDITY.not_before_ms, true),
        (VALIDITY.not_after_ms, true),
        (VALIDITY.not_after_ms + 1, false),
    ] {
        let found = binding.verify_at(&party.store, at_ms).map(|_| ());
        let expected =
            if holds { Ok(()) } else { Err(BindingError::NotCurrent { at_ms, validity: VALIDITY }) };
        assert_eq!(found, expected, "{at_ms}");
    }

    let whole = Validity { not_before_ms: NOT_BEFORE_MS, not_after_ms: NOT_AFTER_MS };
    assert!(party.verify(&party.bind(ORDERS, whole)).is_ok());
    for validity in [
        Validity { not_before_ms: NOT_BEFORE_MS - 1, ..whole },
        Validity { not_after_ms: NOT_AFTER_MS + 1, ..whole },
    ] {
        let expected = BindingError::OutsideLeaf { validity, leaf: whole };
        assert_eq!(party.verify(&party.bind(ORDERS, validity)).unwrap_err(), expected);
    }
}

#[test]
fn a_leaf_speaks_for_its_own_principal_only() {
    let party = Party::ed25519();
    for (principal, expected) in [
        ("spiffe://a.example/billing", "other-principal"),
        ("spiffe://b.example/orders", "unknown-domain"),
        ("dns:orders", "unknown-domain"),
        ("cn:orders", "unknown-domain"),
    ] {
        assert_eq!(party.verify(&party.bind(principal, VALIDITY)).unwrap_err().word(), expected);
    }
}

/// The certificates are not looked at twice, and everything else is.
#[test]
fn beside_its_own_verified_chain_a_binding_is_judged_as_by_the_roots() {
    let party = Party::ed25519();
    let chain = party.store.domains()[0].verify_chain_at(vec![party.leaf.der.clone()], AT_MS).unwrap();
    let beside = |bytes: &[u8], at_ms| {
        let binding = KeyBinding::decode(Bytes::copy_from_slice(bytes)).ok()?;
        let anew = binding.verify_at(&party.store, at_ms).map(|binding| binding.kid());
        let found = binding.verify_by_chain_at(&chain, at_ms)?.map(|binding| binding.kid());
        assert_eq!(found, anew);
        Some(found.is_ok())
    };
    let valid = party.bind(ORDERS, VALIDITY);
    assert_eq!(beside(&valid, AT_MS), Some(true));
    assert_eq!(beside(&valid, AT_MS + CHAIN_FRESH_MS), Some(true));
    assert_eq!(beside(&valid, AT_MS + CHAIN_FRESH_MS + 1), None, "what is above the leaf may have run out");
    assert_eq!(beside(&valid, AT_MS - CHAIN_FRESH_MS - 1), None);
    for place in 0..valid.len() {
        let mut forged = valid.to_vec();
        forged[place] ^= 1;
        assert_ne!(beside(&forged, AT_MS), Some(true), "byte {place}");
    }
    assert_eq!(beside(&party.bind("spiffe://a.example/billing", VALIDITY), AT_MS), None);
    assert_eq!(beside(&Party::ed25519().bind(ORDERS, VALIDITY), AT_MS), None);
}

#[test]
fn a_chain_to_other_roots_is_refused() {
    let (party, stranger) = (Party::ed25519(), Party::ed25519());
    let foreign = stranger.bind(ORDERS, VALIDITY);
    assert_eq!(party.verify(&foreign).unwrap_err(), BindingError::Chain(ChainError::Signature));

    let other = root("another root");
    let store = spiffe_store("a.example", &other);
    let binding = KeyBinding::decode(party.bind(ORDERS, VALIDITY)).unwrap();
    assert_eq!(binding.verify_at(&store, AT_MS).unwrap_err(), BindingError::Chain(ChainError::UnknownIssuer));
}

#[test]
fn an_intermediate_may_stand_between() {
    let party = Party::ed25519();
    let middle = intermediate("middle", &party.root);
    let leaf = issue(&spiffe_params(ORDERS), &middle);
    let principal = Principal::parse(ORDERS).unwrap();
    let key = signing_key(7);
    let chain = [leaf.der.clone(), middle.der().clone()];
    let request = BindingRequest::new(&principal, &key, VALIDITY, &chain).unwrap();
    let signature = leaf.key.sign(&request.tls_message()).unwrap();
    let bytes = request.finish(TlsScheme::EcdsaP256, &signature).unwrap();
    assert_eq!(party.verify(&bytes).map(|binding| binding.principal().clone()), Ok(principal));
}

#[test]
fn one_key_of_two_principals_has_two_ids() {
    let party = Party::ed25519();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let leaf = issue_for(&spiffe_params("spiffe://a.example/billing"), key, &party.root);
    let other = Party { store: spiffe_store("a.example", &party.root), leaf, ..Party::ed25519() };
    let orders = party.verify(&party.bind(ORDERS, VALIDITY)).unwrap();
    let billing = party.verify(&other.bind("spiffe://a.example/billing", VALIDITY)).unwrap();
    assert_eq!(orders.key(), billing.key());
    assert_ne!(orders.kid(), billing.kid());
}

#[test]
fn a_renewed_certificate_keeps_the_id() {
    let party = Party::ed25519();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf = issue_for(&spiffe_params(ORDERS), key, &party.root);
    let store = spiffe_store("a.example", &party.root);
    let renewed = Party { store, leaf, scheme: TlsScheme::EcdsaP256, ..Party::ed25519() };
    let before = party.verify(&party.bind(ORDERS, VALIDITY)).unwrap();
    let after = party.verify(&renewed.bind(ORDERS, VALIDITY)).unwrap();
    assert_ne!(before.bytes(), after.bytes());
    assert_eq!(before.kid(), after.kid());
}

#[test]
fn weak_keys_and_keys_of_others_are_refused() {
    let party = Party::ed25519();
    let valid = party.bind(ORDERS, VALIDITY);
    let key_at = 4 + 2 + 8 + 8 + 2 + ORDERS.len();
    let with_key = |key: [u8; 32]| {
        let mut bytes = valid.to_vec();
        bytes[key_at..key_at + 32].copy_from_slice(&key);
        party.verify(&bytes).unwrap_err()
    };
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut not_a_point = [0; 32];
    not_a_point[0] = 2;
    assert_eq!(with_key(identity), BindingError::Key(KeyError::Weak));
    assert_eq!(with_key(not_a_point), BindingError::Key(KeyError::NotAPoint));
    assert_eq!(with_key(*signing_key(8).verifying_key().as_bytes()), BindingError::Possession);
}

#[test]
fn the_scheme_must_fit_and_the_leaf_must_sign() {
    let party = Party::ed25519();
    let valid = party.bind(ORDERS, VALIDITY);
    let scheme_at = valid.len() - SIGNATURE_LEN - 64 - 2 - 2;
    for scheme in TlsScheme::ALL {
        let changed = resigned(&valid, |bytes| {
            bytes[scheme_at..scheme_at + 2].copy_from_slice(&scheme.code().to_be_bytes());
        });
        let expected = match scheme {
            TlsScheme::Ed25519 => Ok(()),
            _ => Err(BindingError::SchemeUnfit { scheme }),
        };
        assert_eq!(party.verify(&changed).map(|_| ()), expected);
    }
    for code in [0u16, 0x0401, 0x0603, 0x0808, 0x0809, 0xffff] {
        let changed = resigned(&valid, |bytes| {
            bytes[scheme_at..scheme_at + 2].copy_from_slice(&code.to_be_bytes());
        });
        assert_eq!(
            KeyBinding::decode(changed.into()).unwrap_err(),
            DecodeError::Value { field: "binding signature scheme" }
        );
    }
    let forged = resigned(&valid, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let refused = BindingError::TlsSignature { scheme: TlsScheme::Ed25519 };
    assert_eq!(party.verify(&forged).unwrap_err(), refused);
    let empty = resigned(&valid, |bytes| {
        bytes.truncate(scheme_at + 2);
        bytes.u16(0);
    });
    assert_eq!(party.verify(&empty).unwrap_err(), refused);
}

/// Under a key of small order one signature is valid for every message, to a lenient verifier: whoever got such a key
/// certified would have signed everything. The path verifier's library is one of those.
#[test]
fn a_leaf_with_a_weak_key_binds_nothing() {
    let root = root("root");
    let mut identity = [0; 32];
    identity[0] = 1;
    let spki =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &identity].concat();
    let spki = rcgen::SubjectPublicKeyInfo::from_der(&spki).unwrap();
    let leaf = spiffe_params(ORDERS).signed_by(&spki, &root).unwrap().der().clone();
    let principal = Principal::parse(ORDERS).unwrap();
    let key = signing_key(7);
    let request = BindingRequest::new(&principal, &key, VALIDITY, std::slice::from_ref(&leaf)).unwrap();
    let universal = [identity, [0; 32]].concat();
    let lenient = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let message = request.tls_message();
    assert!(lenient.verify_signature(webpki::aws_lc_rs::ED25519, &message, &universal).is_ok());

    let bytes = request.finish(TlsScheme::Ed25519, &universal).unwrap();
    let found = KeyBinding::decode(bytes).unwrap().verify_at(&spiffe_store("a.example", &root), AT_MS);
    assert_eq!(found.unwrap_err(), BindingError::TlsSignature { scheme: TlsScheme::Ed25519 });
}

/// A signature that the same key made in a TLS handshake, over the same bytes, is not one over a binding.
#[test]
fn a_handshake_signature_binds_nothing() {
    let party = Party::ed25519();
    let principal = Principal::parse(ORDERS).unwrap();
    let key = signing_key(7);
    let chain = [party.leaf.der.clone()];
    let request = BindingRequest::new(&principal, &key, VALIDITY, &chain).unwrap();
    let message = request.tls_message();
    let prefix = message.strip_prefix(&[0x20; 64][..]).unwrap();
    let prefix = prefix.strip_prefix(b"sealbus/1 key binding\0").unwrap();
    let handshake = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", prefix].concat();
    let signature = party.leaf.key.sign(&handshake).unwrap();
    let bytes = request.finish(TlsScheme::Ed25519, &signature).unwrap();
    assert_eq!(party.verify(&bytes).unwrap_err(), BindingError::TlsSignature { scheme: TlsScheme::Ed25519 });
}

#[test]
fn a_sealing_key_is_carried_when_it_has_its_length() {
    let party = Party::ed25519();
    let kem = KemKey::XWing(vec![0x5a; 1_216].into());
    let bytes = party.bind_with(&signing_key(7), ORDERS, VALIDITY, Some(&kem));
    assert_eq!(party.verify(&bytes).unwrap().kem(), Some(&kem));

    let valid = party.bind(ORDERS, VALIDITY);
    let kem_at = 4 + 2 + 8 + 8 + 2 + ORDERS.len() + 32;
    for (kem, len, field) in [
        (0x0001u16, 0u16, "binding kem"),
        (0x647a, 0, "binding kem key"),
        (0x647a, 1_215, "binding kem key"),
        (0x0000, 1_216, "binding kem key"),
    ] {
        let mut changed = valid[..kem_at].to_vec();
        changed.u16(kem);
        changed.bytes16(&vec![0; usize::from(len)]);
        changed.extend(&valid[kem_at + 4..]);
        let expected = DecodeError::Value { field };
        assert_eq!(KeyBinding::decode(changed.into()).unwrap_err(), expected, "{kem:04x} {len}");
    }
    let short = KemKey::XWing(vec![0; 32].into());
    let principal = Principal::parse(ORDERS).unwrap();
    let (key, chain) = (signing_key(7), [party.leaf.der.clone()]);
    let refused = BindingRequest::with_kem(&principal, &key, VALIDITY, Some(&short), &chain);
    assert_eq!(refused.unwrap_err(), BindingRequestError::KemKey { found: 32 });
}

#[test]
fn lengths_are_judged_before_bytes_are_looked_for() {
    let valid = Party::ed25519().bind(ORDERS, VALIDITY);
    let count_at = 4 + 2 + 8 + 8 + 2 + ORDERS.len() + 32 + 2 + 2;
    let decode = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = valid.to_vec();
        change(&mut bytes);
        KeyBinding::decode(bytes.into()).unwrap_err()
    };
    assert_eq!(decode(&|bytes| bytes[count_at] = 0), DecodeError::Value { field: "binding certificates" });
    assert_eq!(
        decode(&|bytes| bytes[count_at] = 5),
        DecodeError::TooLong { field: "binding certificates", max: 4, found: 5 }
    );
    assert_eq!(
        decode(&|bytes| bytes[count_at + 1..count_at + 5].fill(0xff)),
        DecodeError::TooLong { field: "binding certificate", max: CERTIFICATE_BYTES_MAX, found: 0xffff_ffff }
    );
    assert_eq!(
        decode(&|bytes| bytes[22..24].fill(0xff)),
        DecodeError::TooLong { field: "binding principal", max: PRINCIPAL_BYTES_MAX, found: 0xffff }
    );
    assert_eq!(
        decode(&|bytes| bytes.resize(BINDING_BYTES_MAX + 1, 0)),
        DecodeError::TooLong { field: "key binding", max: BINDING_BYTES_MAX, found: BINDING_BYTES_MAX + 1 }
    );
    assert_eq!(
        decode(&|bytes| bytes[6..22].rotate_left(8)),
        DecodeError::Value { field: "binding not_after_ms" }
    );
}

#[test]
fn a_binding_that_nobody_would_take_is_not_made() {
    let party = Party::ed25519();
    let principal = Principal::parse(ORDERS).unwrap();
    let key = signing_key(7);
    let leaf = &party.leaf.der;
    let large = CertificateDer::from(vec![0; CERTIFICATE_BYTES_MAX]);
    let too_large = CertificateDer::from(vec![0; CERTIFICATE_BYTES_MAX + 1]);
    let refusal = |validity, chain: &[CertificateDer<'_>], signature: &[u8]| {
        BindingRequest::new(&principal, &key, validity, chain)
            .and_then(|request| request.finish(TlsScheme::Ed25519, signature))
            .unwrap_err()
    };
    let inverted = Validity { not_before_ms: 2, not_after_ms: 1 };
    assert_eq!(refusal(VALIDITY, &[], &[]), BindingRequestError::Chain { found: 0 });
    assert_eq!(refusal(VALIDITY, &vec![leaf.clone(); 5], &[]), BindingRequestError::Chain { found: 5 });
    assert_eq!(
        refusal(VALIDITY, &[leaf.clone(), too_large], &[]),
        BindingRequestError::CertificateTooLong { place: 1, found: CERTIFICATE_BYTES_MAX + 1 }
    );
    assert_eq!(refusal(inverted, std::slice::from_ref(leaf), &[]), BindingRequestError::Dates);
    assert_eq!(
        refusal(VALIDITY, std::slice::from_ref(leaf), &[0; 1_025]),
        BindingRequestError::SignatureTooLong { found: 1_025 }
    );
    assert!(matches!(
        refusal(VALIDITY, &[large.clone(), large], &[0; 64]),
        BindingRequestError::TooLong { .. }
    ));
}
