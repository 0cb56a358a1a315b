//! Certificate authorities for the tests of this crate.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use webpki::OwnedCertRevocationList;

use super::{PrincipalSource, TrustDomain, TrustStore};

/// 1 January 2026: when every test takes place, unless it says otherwise.
pub(crate) const AT_MS: u64 = 1_767_225_600_000;

/// 1 January 2020 and 2040: the validity of what is made here, unless a test says otherwise.
pub(crate) const NOT_BEFORE_MS: u64 = 1_577_836_800_000;
pub(crate) const NOT_AFTER_MS: u64 = 2_208_988_800_000;

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = leaf_params();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages.clear();
    params
}

/// A client's certificate without any name.
pub(crate) fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn spiffe_params(uri: &str) -> CertificateParams {
    let mut params = leaf_params();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params
}

pub(crate) fn root(name: &str) -> Issuer {
    Issuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn intermediate(name: &str, issuer: &Issuer) -> Issuer {
    Issuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), issuer).unwrap()
}

pub(crate) fn issue(params: &CertificateParams, issuer: &Issuer) -> Leaf {
    issue_for(params, KeyPair::generate().unwrap(), issuer)
}

pub(crate) fn issue_for(params: &CertificateParams, key: KeyPair, issuer: &Issuer) -> Leaf {
    Leaf { der: params.signed_by(&key, issuer).unwrap().der().clone(), key }
}

pub(crate) fn domain(name: &str, source: PrincipalSource, root: &Issuer) -> TrustDomain {
    TrustDomain::new(name, source, std::slice::from_ref(root.der())).unwrap()
}

pub(crate) fn spiffe_store(name: &str, root: &Issuer) -> TrustStore {
    TrustStore::new(vec![domain(name, PrincipalSource::Spiffe, root)]).unwrap()
}

/// A revocation list of this issuer that runs out at the start of `until_year`.
pub(crate) fn revocation_list(
    issuer: &Issuer,
    revoked: &[SerialNumber],
    until_year: i32,
) -> OwnedCertRevocationList {
    let revoked = revoked.iter().map(|serial_number| RevokedCertParams {
        serial_number: serial_number.clone(),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    OwnedCertRevocationList::from_der(params.signed_by(issuer).unwrap().der()).unwrap()
}

/// A field of `vectors/openssl.json`, as bytes.
pub(crate) fn openssl(field: &str) -> Vec<u8> {
    let file: serde_json::Value = serde_json::from_str(include_str!("../../vectors/openssl.json")).unwrap();
    let hex = file[field].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
