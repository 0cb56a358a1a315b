//! Writes `vectors/binding.json` and `vectors/proof.json` anew.
//!
//! `cargo run -p sealbus-protocol --example make_vectors_identity`
//!
//! Everything but the P-256 case is deterministic (Ed25519 keys from fixed seeds), so that a second run changes that
//! case only. The bytes of a binding are final: a change anywhere else is a mistake.

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey as _, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sealbus_protocol::binding::{BindingRequest, KemKey, TlsScheme};
use sealbus_protocol::identity::{Principal, Validity};
use sealbus_protocol::ids::BusId;
use sealbus_protocol::keys::{Purpose, SIGNATURE_LEN, SigningKey};
use sealbus_protocol::proof::{self, Exporter};
use serde_json::{Value, json};
use zeroize::Zeroizing;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Issuer = CertifiedIssuer<'static, KeyPair>;

/// 1 January 2026.
const AT_MS: u64 = 1_767_225_600_000;
/// 1 January 2020 and 31 December 2049, between which the certificates are valid.
const LEAF: Validity = Validity { not_before_ms: 1_577_836_800_000, not_after_ms: 2_524_521_600_000 };
const VALIDITY: Validity = Validity { not_before_ms: AT_MS - 3_600_000, not_after_ms: AT_MS + 3_600_000 };
const ORDERS: &str = "spiffe://a.example/orders";
const SIGNING_SEED: [u8; 32] = [3; 32];

fn main() -> Outcome<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for (name, vectors) in [("binding.json", bindings()?), ("proof.json", proofs())] {
        std::fs::write(folder.join(name), format!("{vectors:#}\n"))?;
    }
    Ok(())
}

/// Who takes part: two domains, and a third root that nobody trusts.
struct World {
    root_a: Issuer,
    root_b: Issuer,
    stranger: Issuer,
}

impl World {
    fn new() -> Outcome<Self> {
        Ok(Self {
            root_a: Issuer::self_signed(ca("root a", 1), ed25519(10)?)?,
            root_b: Issuer::self_signed(ca("root b", 2), ed25519(11)?)?,
            stranger: Issuer::self_signed(ca("stranger", 3), ed25519(12)?)?,
        })
    }
}

/// One binding to be made: everything that goes into it.
struct Made {
    principal: &'static str,
    validity: Validity,
    kem: Option<KemKey>,
    chain: Vec<CertificateDer<'static>>,
    tls_key: KeyPair,
    scheme: TlsScheme,
}

impl Made {
    fn new(leaf: &CertificateParams, issuer: &Issuer) -> Outcome<Self> {
        let tls_key = ed25519(20)?;
        Ok(Self {
            principal: ORDERS,
            validity: VALIDITY,
            kem: None,
            chain: vec![leaf.signed_by(&tls_key, issuer)?.der().clone()],
            tls_key,
            scheme: TlsScheme::Ed25519,
        })
    }

    fn request<'k>(&self, key: &'k SigningKey) -> Outcome<BindingRequest<'k>> {
        let principal = Principal::parse(self.principal)?;
        Ok(BindingRequest::with_kem(&principal, key, self.validity, self.kem.as_ref(), &self.chain)?)
    }

    fn bytes(&self) -> Outcome<Bytes> {
        let key = signing_key(SIGNING_SEED);
        let request = self.request(&key)?;
        let signature = self.tls_key.sign(&request.tls_message())?;
        Ok(request.finish(self.scheme, &signature)?)
    }

    /// The whole way to the bytes, step by step.
    fn steps(&self, name: &str) -> Outcome<Value> {
        let key = signing_key(SIGNING_SEED);
        let request = self.request(&key)?;
        let tls_message = request.tls_message();
        let tls_signature = self.tls_key.sign(&tls_message)?;
        let kem = match &self.kem {
            None => String::new(),
            Some(KemKey::XWing(key)) => hex(key),
        };
        Ok(json!({
            "name": name,
            "principal": self.principal,
            "not_before_ms": self.validity.not_before_ms,
            "not_after_ms": self.validity.not_after_ms,
            "kem_key": kem,
            "chain": self.chain.iter().map(|certificate| hex(certificate)).collect::<Vec<_>>(),
            "tls_pkcs8": hex(self.tls_key.serialized_der()),
            "scheme": format!("{:04x}", self.scheme.code()),
            "tls_message": hex(&tls_message),
            "tls_signature": hex(&tls_signature),
            "binding": hex(&request.finish(self.scheme, &tls_signature)?),
            "kid": key.verifying_key().kid(&Principal::parse(self.principal)?).to_string(),
        }))
    }
}

fn bindings() -> Outcome<Value> {
    let world = World::new()?;
    let plain = Made::new(&spiffe(ORDERS), &world.root_a)?;
    let sealing = KemKey::XWing(vec![0x5a; 1_216].into());
    let with_kem = Made { kem: Some(sealing), ..Made::new(&spiffe(ORDERS), &world.root_a)? };
    let p256 = p256(&world)?;
    let with_intermediate = with_intermediate(&world)?;
    let mut judged = judged_by_bytes(&plain.bytes()?);
    judged.extend(judged_by_time(&plain.bytes()?));
    judged.extend(judged_by_certificate(&world)?);
    for (name, made) in
        [("x-wing key", &with_kem), ("p-256 leaf", &p256), ("intermediate", &with_intermediate)]
    {
        judged.push(case(name, &made.bytes()?, AT_MS, "valid"));
    }
    Ok(json!({
        "about": "Key bindings, as SPEC.md describes them. 'make': tls_message follows from the fields, tls_signature \
                  is the leaf key's signature over it (Ed25519 is deterministic, ECDSA is not), and the binding \
                  follows from both and signing_seed. 'judge': with the roots in 'trust', the binding is, at at_ms, \
                  valid, malformed, or refused with the word.",
        "trust": [
            { "domain": "a.example", "source": "spiffe", "root": hex(world.root_a.der()) },
            { "domain": "b.example", "source": "spiffe", "root": hex(world.root_b.der()) },
        ],
        "signing_seed": hex(&SIGNING_SEED),
        "signing_key": hex(signing_key(SIGNING_SEED).verifying_key().as_bytes()),
        "make": [
            plain.steps("ed25519 leaf")?,
            with_kem.steps("ed25519 leaf, x-wing key")?,
            with_intermediate.steps("ed25519 leaf, intermediate")?,
            p256.steps("p-256 leaf")?,
        ],
        "judge": judged,
    }))
}

fn p256(world: &World) -> Outcome<Made> {
    let tls_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let chain = vec![spiffe(ORDERS).signed_by(&tls_key, &world.root_a)?.der().clone()];
    let made = Made::new(&spiffe(ORDERS), &world.root_a)?;
    Ok(Made { chain, tls_key, scheme: TlsScheme::EcdsaP256, ..made })
}

fn with_intermediate(world: &World) -> Outcome<Made> {
    let middle = Issuer::signed_by(ca("middle", 4), ed25519(13)?, &world.root_a)?;
    let mut made = Made::new(&spiffe(ORDERS), &middle)?;
    made.chain.push(middle.der().clone());
    Ok(made)
}

/// The valid binding with its bytes changed, and signed again by its key where a later check is meant.
fn judged_by_bytes(valid: &[u8]) -> Vec<Value> {
    let key_at = 4 + 2 + 8 + 8 + 2 + ORDERS.len();
    let kem_at = key_at + 32;
    let count_at = kem_at + 4;
    let possession_at = valid.len() - SIGNATURE_LEN;
    let scheme_at = possession_at - 64 - 2 - 2;
    let put = |at: usize, new: &[u8]| {
        let mut bytes = valid.to_vec();
        bytes.splice(at..at + new.len(), new.iter().copied());
        bytes
    };
    let mut weak = [0; 32];
    weak[0] = 1;
    let mut not_a_point = [0; 32];
    not_a_point[0] = 2;
    let mut kem_short = put(kem_at, &[0x64, 0x7a, 0, 10]);
    kem_short.splice(count_at..count_at, [0; 10]);
    let other_key = *signing_key([4; 32]).verifying_key().as_bytes();
    let flipped = |at: usize| put(at, &[valid.get(at).map_or(0, |byte| byte ^ 1)]);
    let cut = valid.split_last().map_or(valid, |(_, cut)| cut);
    [
        ("valid", valid.to_vec(), "valid"),
        ("another magic", put(3, b"2"), "malformed"),
        ("a flag", put(5, &[1]), "malformed"),
        ("one byte less", cut.to_vec(), "malformed"),
        ("one byte more", [valid, &[0]].concat(), "malformed"),
        ("ends before it begins", put(6, &[0xff; 8]), "malformed"),
        ("principal of no source", put(24, b"Z"), "malformed"),
        ("unknown kem", put(kem_at, &[0, 1]), "malformed"),
        ("kem without its key", put(kem_at, &[0x64, 0x7a]), "malformed"),
        ("kem key of another length", kem_short, "malformed"),
        ("no certificate", put(count_at, &[0]), "malformed"),
        ("five certificates", put(count_at, &[5]), "malformed"),
        ("rsa pkcs1 scheme", resigned(&put(scheme_at, &[0x04, 0x01])), "malformed"),
        ("weak key", put(key_at, &weak), "weak-key"),
        ("no point of the curve", put(key_at, &not_a_point), "not-a-key"),
        ("another's key", put(key_at, &other_key), "possession"),
        ("flipped possession signature", flipped(possession_at), "possession"),
        ("flipped leaf signature", flipped(scheme_at + 4), "possession"),
        ("flipped leaf signature, signed again", resigned(&flipped(scheme_at + 4)), "tls-signature"),
        ("other dates, signed again", resigned(&flipped(13)), "tls-signature"),
        ("scheme of another kind of key", resigned(&put(scheme_at, &[0x04, 0x03])), "scheme-unfit"),
        ("another principal, signed again", resigned(&put(key_at - 1, b"z")), "other-principal"),
    ]
    .into_iter()
    .map(|(name, bytes, expect)| case(name, &bytes, AT_MS, expect))
    .collect()
}

fn judged_by_time(valid: &[u8]) -> Vec<Value> {
    [
        ("at its first moment", VALIDITY.not_before_ms, "valid"),
        ("at its last moment", VALIDITY.not_after_ms, "valid"),
        ("a moment early", VALIDITY.not_before_ms - 1, "not-current"),
        ("a moment late", VALIDITY.not_after_ms + 1, "not-current"),
    ]
    .into_iter()
    .map(|(name, at_ms, expect)| case(name, valid, at_ms, expect))
    .collect()
}

/// Bindings that are properly signed, by certificates that do not carry them.
fn judged_by_certificate(world: &World) -> Outcome<Vec<Value>> {
    let root = &world.root_a;
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut leaf = spiffe(ORDERS);
        change(&mut leaf);
        Made::new(&leaf, root)
    };
    let plain = || with(&|_| {});
    let early = Validity { not_before_ms: LEAF.not_before_ms - 1, ..VALIDITY };
    let late = Validity { not_after_ms: LEAF.not_after_ms + 1, ..VALIDITY };
    let mut missing = with_intermediate(world)?;
    missing.chain.truncate(1);
    let cases = [
        ("begins before its leaf", Made { validity: early, ..plain()? }, "outside-leaf"),
        ("ends after its leaf", Made { validity: late, ..plain()? }, "outside-leaf"),
        (
            "stated for another",
            Made { principal: "spiffe://a.example/billing", ..plain()? },
            "other-principal",
        ),
        (
            "stated for another domain",
            Made { principal: "spiffe://b.example/orders", ..plain()? },
            "foreign-domain",
        ),
        (
            "stated for an unknown domain",
            Made { principal: "spiffe://c.example/orders", ..plain()? },
            "unknown-domain",
        ),
        ("stated in another source", Made { principal: "cn:orders", ..plain()? }, "unknown-domain"),
        ("leads elsewhere", Made::new(&spiffe(ORDERS), &world.stranger)?, "unknown-issuer"),
        ("root of b issues for a", Made::new(&spiffe(ORDERS), &world.root_b)?, "unknown-issuer"),
        ("intermediate is missing", missing, "unknown-issuer"),
        ("two uris", with(&|leaf| leaf.subject_alt_names.push(uri("spiffe://a.example/b")))?, "leaf-names"),
        ("no uri", with(&|leaf| leaf.subject_alt_names.clear())?, "leaf-names"),
        ("leaf is a ca", with(&|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?, "leaf-ca"),
        ("no extended key usage", with(&|leaf| leaf.extended_key_usages.clear())?, "not-for-clients"),
        (
            "for servers",
            with(&|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])?,
            "not-for-clients",
        ),
        ("leaf expired", with(&|leaf| leaf.not_after = date_time_ymd(2025, 12, 31))?, "expired"),
        ("leaf not yet valid", with(&|leaf| leaf.not_before = date_time_ymd(2026, 1, 2))?, "not-yet-valid"),
    ];
    cases.into_iter().map(|(name, made, expect)| Ok(case(name, &made.bytes()?, AT_MS, expect))).collect()
}

fn case(name: &str, binding: &[u8], at_ms: u64, expect: &str) -> Value {
    json!({ "name": name, "binding": hex(binding), "at_ms": at_ms, "expect": expect })
}

/// Replaces the possession signature by a fresh one.
fn resigned(bytes: &[u8]) -> Vec<u8> {
    let mut signed = bytes.to_vec();
    signed.truncate(bytes.len() - SIGNATURE_LEN);
    let possession = signing_key(SIGNING_SEED).sign(Purpose::KeyPossession, &[&signed]);
    signed.extend(possession);
    signed
}

fn proofs() -> Value {
    let key = signing_key(SIGNING_SEED);
    let public = *key.verifying_key().as_bytes();
    let other = *signing_key([4; 32]).verifying_key().as_bytes();
    let (exporter, bus) = ([0xe1; 32], [0xb5; 16]);
    let fields = b"the bytes of HELLO before the proof";
    let sign = |fields: &[u8]| proof::sign(&key, &Exporter::new(exporter), &BusId::new(bus), fields);
    let proof = sign(fields);
    let mut flipped = proof;
    flipped[0] ^= 1;
    let batch = key.sign(Purpose::Batch, &[&exporter, &bus, fields]);
    let case = |name: &str,
                key: &[u8],
                exporter: &[u8],
                bus: &[u8],
                fields: &[u8],
                proof: &[u8],
                expect: &str| {
        json!({
            "name": name, "key": hex(key), "exporter": hex(exporter), "bus_id": hex(bus), "fields": hex(fields),
            "proof": hex(proof), "expect": expect,
        })
    };
    json!({
        "about": "Session proofs: Ed25519 by signing_seed over 'sealbus/1 session' NUL, exporter, bus_id, fields. The \
                  proofs of the valid cases follow from the other fields.",
        "signing_seed": hex(&SIGNING_SEED),
        "judge": [
            case("valid", &public, &exporter, &bus, fields, &proof, "valid"),
            case("valid without fields", &public, &exporter, &bus, b"", &sign(b""), "valid"),
            case("another key", &other, &exporter, &bus, fields, &proof, "refused"),
            case("another connection", &public, &[0xe2; 32], &bus, fields, &proof, "refused"),
            case("another bus", &public, &exporter, &[0xb6; 16], fields, &proof, "refused"),
            case("other fields", &public, &exporter, &bus, b"other fields", &proof, "refused"),
            case("flipped", &public, &exporter, &bus, fields, &flipped, "refused"),
            case("signed as a batch", &public, &exporter, &bus, fields, &batch, "refused"),
            case("zeros", &public, &exporter, &bus, fields, &[0; 64], "refused"),
        ],
    })
}

fn ca(name: &str, serial: u64) -> CertificateParams {
    let mut params = base(serial);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn spiffe(name: &str) -> CertificateParams {
    let mut params = base(100);
    params.subject_alt_names.push(uri(name));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn base(serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("the names in this file are ascii"))
}

fn signing_key(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new(seed))
}

/// The key whose seed is this byte, 32 times, in PKCS #8 (RFC 8410 section 7).
fn ed25519(seed: u8) -> Outcome<KeyPair> {
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend([seed; 32]);
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
