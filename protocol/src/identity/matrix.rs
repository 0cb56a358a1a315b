//! The identity matrix: which certificate is whom, and which is nobody. Each line is a mistake that a broker made.

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::test_pki::*;
use super::{
    CertificateError, CertificateFacts, ChainError, IdentityError, Principal, PrincipalError,
    PrincipalSource, RootProblem, TrustDomain, TrustError, TrustStore, principal_of,
};

const SPIFFE: PrincipalSource = PrincipalSource::Spiffe;
const DNS: PrincipalSource = PrincipalSource::Dns;
const CN: PrincipalSource = PrincipalSource::CommonName;

/// The object identifier of subject alternative names.
const SAN_OID: &[u64] = &[2, 5, 29, 17];

type Change = fn(&mut CertificateParams);

/// One line: what is asked, what the certificate has, and the principal or the refusal's word.
type Case = (&'static str, PrincipalSource, Change, Result<&'static str, &'static str>);

fn uri(name: &str) -> SanType {
    SanType::URI(Ia5String::try_from(name).unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).unwrap())
}

fn names(params: &mut CertificateParams, names: impl IntoIterator<Item = SanType>) {
    params.subject_alt_names.extend(names);
}

fn common_name(params: &mut CertificateParams, name: impl Into<DnValue>) {
    params.distinguished_name.push(DnType::CommonName, name);
}

/// Subject alternative names as raw bytes, where the generator would refuse them.
fn raw_names(params: &mut CertificateParams, general_names: &[u8]) {
    let mut content = vec![0x30, u8::try_from(general_names.len()).unwrap()];
    content.extend(general_names);
    params.custom_extensions.push(CustomExtension::from_oid_content(SAN_OID, content));
}

const CASES: &[Case] = &[
    // SPIFFE: exactly one URI.
    ("one uri", SPIFFE, |p| names(p, [uri("spiffe://a.example/orders")]), Ok("spiffe://a.example/orders")),
    (
        "a uri among other kinds of names",
        SPIFFE,
        |p| {
            common_name(p, "admin");
            names(p, [dns("admin.a.example"), SanType::Rfc822Name("admin@a.example".try_into().unwrap())]);
            names(p, [SanType::IpAddress([127, 0, 0, 1].into()), uri("spiffe://a.example/orders")]);
        },
        Ok("spiffe://a.example/orders"),
    ),
    ("no name at all", SPIFFE, |_| {}, Err("leaf-names")),
    ("no fallback to dns", SPIFFE, |p| names(p, [dns("orders.a.example")]), Err("leaf-names")),
    ("no fallback to cn", SPIFFE, |p| common_name(p, "orders"), Err("leaf-names")),
    (
        "two spiffe uris",
        SPIFFE,
        |p| names(p, [uri("spiffe://a.example/orders"), uri("spiffe://a.example/billing")]),
        Err("leaf-names"),
    ),
    (
        "a second uri that is not spiffe",
        SPIFFE,
        |p| names(p, [uri("spiffe://a.example/orders"), uri("https://a.example/orders")]),
        Err("leaf-names"),
    ),
    (
        "spiffe as the second uri",
        SPIFFE,
        |p| names(p, [uri("https://a.example/orders"), uri("spiffe://a.example/orders")]),
        Err("leaf-names"),
    ),
    (
        "the same uri twice",
        SPIFFE,
        |p| names(p, [uri("spiffe://a.example/orders"), uri("spiffe://a.example/orders")]),
        Err("leaf-names"),
    ),
    ("not spiffe", SPIFFE, |p| names(p, [uri("https://a.example/orders")]), Err("leaf-name")),
    ("a uri in the form of a dns principal", SPIFFE, |p| names(p, [uri("dns:orders")]), Err("leaf-name")),
    ("a uri in the form of a cn principal", SPIFFE, |p| names(p, [uri("cn:orders")]), Err("leaf-name")),
    ("upper-case scheme", SPIFFE, |p| names(p, [uri("SPIFFE://a.example/orders")]), Err("leaf-name")),
    ("upper-case domain", SPIFFE, |p| names(p, [uri("spiffe://A.example/orders")]), Err("leaf-name")),
    ("port", SPIFFE, |p| names(p, [uri("spiffe://a.example:443/orders")]), Err("leaf-name")),
    ("user", SPIFFE, |p| names(p, [uri("spiffe://root@a.example/orders")]), Err("leaf-name")),
    ("query", SPIFFE, |p| names(p, [uri("spiffe://a.example/orders?x")]), Err("leaf-name")),
    ("fragment", SPIFFE, |p| names(p, [uri("spiffe://a.example/orders#x")]), Err("leaf-name")),
    ("percent", SPIFFE, |p| names(p, [uri("spiffe://a.example/%6frders")]), Err("leaf-name")),
    ("dot segments", SPIFFE, |p| names(p, [uri("spiffe://a.example/x/../orders")]), Err("leaf-name")),
    ("star", SPIFFE, |p| names(p, [uri("spiffe://a.example/*")]), Err("leaf-name")),
    ("NUL in a uri", SPIFFE, |p| names(p, [uri("spiffe://a.example/orders\0x")]), Err("leaf-name")),
    ("newline in a uri", SPIFFE, |p| names(p, [uri("spiffe://a.example/orders\nx")]), Err("leaf-name")),
    ("empty uri", SPIFFE, |p| names(p, [uri("")]), Err("leaf-name")),
    ("another trust domain", SPIFFE, |p| names(p, [uri("spiffe://b.example/orders")]), Err("unknown-domain")),
    (
        "a domain below ours",
        SPIFFE,
        |p| names(p, [uri("spiffe://x.a.example/orders")]),
        Err("unknown-domain"),
    ),
    ("names that are not ascii", SPIFFE, |p| raw_names(p, b"\x86\x02\xc3\xb6"), Err("leaf-unreadable")),
    ("an empty list of names", SPIFFE, |p| raw_names(p, b""), Err("leaf-unreadable")),
    ("an element that is no name", SPIFFE, |p| raw_names(p, b"\x0c\x01a"), Err("leaf-unreadable")),
    ("a name with a padded length", SPIFFE, |p| raw_names(p, b"\x86\x81\x01a"), Err("leaf-unreadable")),
    (
        "names in two extensions",
        SPIFFE,
        |p| {
            names(p, [uri("spiffe://a.example/orders")]);
            raw_names(p, b"\x82\x01a");
        },
        Err("leaf-unreadable"),
    ),
    (
        "200 dns names beside one uri",
        SPIFFE,
        |p| {
            names(p, (0..200).map(|number| dns(&format!("host-{number}.a.example"))));
            names(p, [uri("spiffe://a.example/orders")]);
        },
        Ok("spiffe://a.example/orders"),
    ),
    (
        "200 uris",
        SPIFFE,
        |p| names(p, (0..200).map(|number| uri(&format!("spiffe://a.example/{number}")))),
        Err("leaf-names"),
    ),
    // DNS: exactly one DNS name, in lower case, no wildcard.
    ("one dns name", DNS, |p| names(p, [dns("orders.a.example")]), Ok("dns:orders.a.example")),
    ("no fallback from dns", DNS, |p| common_name(p, "orders.a.example"), Err("leaf-names")),
    ("two dns names", DNS, |p| names(p, [dns("a.example"), dns("b.example")]), Err("leaf-names")),
    ("wildcard", DNS, |p| names(p, [dns("*.a.example")]), Err("leaf-name")),
    ("upper-case dns name", DNS, |p| names(p, [dns("Orders.a.example")]), Err("leaf-name")),
    ("NUL in a dns name", DNS, |p| names(p, [dns("orders.a.example\0.b.example")]), Err("leaf-name")),
    ("closing dot", DNS, |p| names(p, [dns("orders.a.example.")]), Err("leaf-name")),
    ("slash in a dns name", DNS, |p| names(p, [dns("orders/a")]), Err("leaf-name")),
    // Common name: exactly one, of a type that everybody reads alike.
    ("one common name", CN, |p| common_name(p, "Orders Service"), Ok("cn:Orders Service")),
    (
        "a printable common name",
        CN,
        |p| common_name(p, DnValue::PrintableString(PrintableString::try_from("Orders").unwrap())),
        Ok("cn:Orders"),
    ),
    ("letters that are not ascii", CN, |p| common_name(p, "Zoë"), Ok("cn:Zoë")),
    ("hebrew letters", CN, |p| common_name(p, "\u{5e9}\u{5dc}"), Ok("cn:\u{5e9}\u{5dc}")),
    ("an object property of a script language", CN, |p| common_name(p, "__proto__"), Ok("cn:__proto__")),
    ("no common name", CN, |p| names(p, [uri("spiffe://a.example/orders")]), Err("leaf-names")),
    (
        "two common names",
        CN,
        |p| {
            common_name(p, "orders");
            p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "admin");
        },
        Err("leaf-names"),
    ),
    (
        "a common name inside another attribute",
        CN,
        |p| {
            p.distinguished_name.push(DnType::OrganizationName, "x,CN=admin");
            common_name(p, "orders");
        },
        Ok("cn:orders"),
    ),
    ("a common name that spells a second", CN, |p| common_name(p, "orders+CN=admin"), Err("leaf-name")),
    ("empty common name", CN, |p| common_name(p, ""), Err("leaf-name")),
    ("NUL", CN, |p| common_name(p, "orders\0admin"), Err("leaf-name")),
    ("newline", CN, |p| common_name(p, "orders\nadmin"), Err("leaf-name")),
    ("right-to-left override", CN, |p| common_name(p, "\u{202e}nimda"), Err("leaf-name")),
    ("zero-width space", CN, |p| common_name(p, "ad\u{200b}min"), Err("leaf-name")),
    ("the wildcard *", CN, |p| common_name(p, "*"), Err("leaf-name")),
    ("the wildcard #", CN, |p| common_name(p, "#"), Err("leaf-name")),
    ("the wildcard +", CN, |p| common_name(p, "+"), Err("leaf-name")),
    ("the wildcard >", CN, |p| common_name(p, ">"), Err("leaf-name")),
    ("slash", CN, |p| common_name(p, "orders/admin"), Err("leaf-name")),
    ("template", CN, |p| common_name(p, "${user}"), Err("leaf-name")),
    (
        "teletex common name",
        CN,
        |p| common_name(p, DnValue::TeletexString(TeletexString::try_from("orders").unwrap())),
        Err("leaf-string-type"),
    ),
    (
        "bmp common name",
        CN,
        |p| common_name(p, DnValue::BmpString(BmpString::try_from("orders").unwrap())),
        Err("leaf-string-type"),
    ),
    (
        "ia5 common name",
        CN,
        |p| common_name(p, DnValue::Ia5String(Ia5String::try_from("orders").unwrap())),
        Err("leaf-string-type"),
    ),
    // What it is for, and when.
    (
        "no extended key usage",
        CN,
        |p| {
            common_name(p, "orders");
            p.extended_key_usages.clear();
        },
        Err("not-for-clients"),
    ),
    (
        "for servers only",
        CN,
        |p| {
            common_name(p, "orders");
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        },
        Err("not-for-clients"),
    ),
    (
        "for any purpose",
        CN,
        |p| {
            common_name(p, "orders");
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        },
        Err("not-for-clients"),
    ),
    (
        "for clients and servers",
        CN,
        |p| {
            common_name(p, "orders");
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        },
        Ok("cn:orders"),
    ),
    (
        "a ca as leaf",
        CN,
        |p| {
            common_name(p, "orders");
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        },
        Err("leaf-ca"),
    ),
    (
        "expressly not a ca",
        CN,
        |p| {
            common_name(p, "orders");
            p.is_ca = IsCa::ExplicitNoCa;
        },
        Ok("cn:orders"),
    ),
    (
        "expired",
        CN,
        |p| {
            common_name(p, "orders");
            p.not_after = date_time_ymd(2025, 12, 31);
        },
        Err("expired"),
    ),
    (
        "not yet valid",
        CN,
        |p| {
            common_name(p, "orders");
            p.not_before = date_time_ymd(2026, 1, 2);
        },
        Err("not-yet-valid"),
    ),
    (
        "valid beyond 2049",
        CN,
        |p| {
            common_name(p, "orders");
            p.not_after = date_time_ymd(2060, 1, 1);
        },
        Ok("cn:orders"),
    ),
    (
        "an unknown critical extension",
        CN,
        |p| {
            common_name(p, "orders");
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(true);
            p.custom_extensions.push(extension);
        },
        Err("path"),
    ),
    (
        "70 extensions",
        CN,
        |p| {
            common_name(p, "orders");
            p.custom_extensions = (0..70)
                .map(|number| CustomExtension::from_oid_content(&[1, 2, 3, number], vec![5, 0]))
                .collect();
        },
        Err("leaf-unreadable"),
    ),
    (
        "more than 8 KiB",
        CN,
        |p| {
            common_name(p, "orders");
            p.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![0; 8_192]));
        },
        Err("chain-size"),
    ),
];

#[test]
fn each_certificate_is_the_principal_of_the_table_or_refused_with_its_word() {
    let root = root("a root");
    let store = TrustStore::new(vec![
        domain("a.example", SPIFFE, &root),
        domain("dns.example", DNS, &root),
        domain("cn.example", CN, &root),
    ])
    .unwrap();
    for (case, source, change, expected) in CASES {
        let mut params = leaf_params();
        change(&mut params);
        let leaf = issue(&params, &root);
        let found = store.verify_from_at(*source, std::slice::from_ref(&leaf.der), AT_MS);
        let found = found.as_ref().map(|leaf| leaf.principal().as_str()).map_err(ChainError::word);
        assert_eq!(found, *expected, "{case}");
    }
}

#[test]
fn refusals_say_what_was_found() {
    let root = root("a root");
    let refusal = |change: Change, source| {
        let mut params = leaf_params();
        change(&mut params);
        principal_of(&issue(&params, &root).der, source).unwrap_err()
    };
    assert_eq!(
        refusal(|p| names(p, [dns("a"), dns("b"), dns("c")]), DNS).to_string(),
        "the certificate has 3 DNS names, exactly one was expected"
    );
    assert_eq!(
        refusal(|p| common_name(p, "a\n*"), CN),
        IdentityError::Name { source: CN, shown: "a\\n*".into(), error: PrincipalError::CommonName }
    );
    let mut long = leaf_params();
    common_name(&mut long, "*".repeat(3_000));
    let text = principal_of(&issue(&long, &root).der, CN).unwrap_err().to_string();
    assert!(text.len() < 1_024, "{} bytes", text.len());
    assert_eq!(principal_of(b"", CN).unwrap_err().word(), "leaf-unreadable");
}

#[test]
fn facts_are_those_of_the_certificate() {
    let mut authority = ca_params("a root");
    authority.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
    let root = Issuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = spiffe_params("spiffe://a.example/orders");
    params.serial_number = Some(SerialNumber::from_slice(&[0xfe, 0x01]));
    let leaf = issue(&params, &root);
    let found = spiffe_store("a.example", &root)
        .verify_from_at(SPIFFE, std::slice::from_ref(&leaf.der), AT_MS)
        .unwrap();
    assert_eq!(found.serial().to_string(), "fe01");
    assert_eq!(found.issuer(), r"O=Acme\, Inc.,CN=a root");
    assert_eq!(found.validity().not_before_ms, NOT_BEFORE_MS);
    assert_eq!(found.validity().not_after_ms, NOT_AFTER_MS);
}

/// No flipped byte and no cut makes another principal of a certificate that its chain still proves.
#[test]
fn a_damaged_certificate_is_nobody() {
    let root = root("a root");
    let store = spiffe_store("a.example", &root);
    let leaf = issue(&spiffe_params("spiffe://a.example/orders"), &root);
    let mut der = leaf.der.to_vec();
    for place in 0..der.len() {
        der[place] ^= 0x01;
        let chain = [CertificateDer::from(&*der)];
        assert!(store.verify_from_at(SPIFFE, &chain, AT_MS).is_err(), "byte {place}");
        der[place] ^= 0x01;
        assert!(CertificateFacts::parse(&der[..place]).is_err(), "cut at {place}");
    }
    der.push(0);
    assert!(matches!(CertificateFacts::parse(&der), Err(CertificateError::Der { .. })));
}

#[test]
fn a_chain_leads_to_the_roots_of_its_own_domain_or_nowhere() {
    let (root_a, root_b) = (root("root"), root("root"));
    let store =
        TrustStore::new(vec![domain("a.example", SPIFFE, &root_a), domain("b.example", SPIFFE, &root_b)])
            .unwrap();
    let orders = Principal::parse("spiffe://a.example/orders").unwrap();
    let params = spiffe_params("spiffe://a.example/orders");
    let middle = intermediate("middle", &root_a);
    let lower = intermediate("lower", &middle);
    let stranger = root("stranger");
    let direct = issue(&params, &root_a).der;
    let below = issue(&params, &middle).der;
    let far = issue(&params, &lower).der;
    let (middle, lower) = (middle.der().clone(), lower.der().clone());
    let billing = issue(&spiffe_params("spiffe://a.example/billing"), &root_a).der;
    for (case, chain, expected) in [
        ("direct", vec![direct.clone()], Ok(())),
        ("direct, with its root", vec![direct.clone(), root_a.der().clone()], Ok(())),
        ("one intermediate", vec![below.clone(), middle.clone()], Ok(())),
        ("two intermediates, in another order", vec![far.clone(), middle.clone(), lower.clone()], Ok(())),
        ("an intermediate is missing", vec![below], Err("unknown-issuer")),
        ("the upper intermediate is missing", vec![far, lower], Err("unknown-issuer")),
        (
            "the root of domain b issues for domain a",
            vec![issue(&params, &root_b).der],
            Err("chain-signature"),
        ),
        (
            "a foreign root",
            vec![issue(&params, &stranger).der, stranger.der().clone()],
            Err("unknown-issuer"),
        ),
        ("the root itself", vec![root_a.der().clone()], Err("leaf-ca")),
        ("somebody else's certificate", vec![billing], Err("other-principal")),
        ("nothing", vec![], Err("chain-size")),
        ("five certificates", vec![direct; 5], Err("chain-size")),
    ] {
        let found = store.verify_as_at(&orders, &chain, AT_MS);
        assert_eq!(found.map(|_| ()).map_err(|error| error.word()), expected, "{case}");
    }
}

#[test]
fn a_leaf_issues_for_nobody() {
    let root = root("root");
    let store = spiffe_store("a.example", &root);
    let mut params = spiffe_params("spiffe://a.example/orders");
    common_name(&mut params, "orders");
    let leaf = Issuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let forged = issue(&spiffe_params("spiffe://a.example/admin"), &leaf);
    let found = store.verify_from_at(SPIFFE, &[forged.der, leaf.der().clone()], AT_MS);
    assert_eq!(found, Err(ChainError::IssuerNotCa));
}

#[test]
fn constraints_of_an_issuer_are_kept() {
    let root = root("root");
    let mut params = ca_params("middle");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".into())],
        excluded_subtrees: Vec::new(),
    });
    let middle = Issuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let mut params = ca_params("short");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = Issuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let below_short = intermediate("below", &short);
    let mut params = ca_params("servers");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let servers = Issuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();

    let store = TrustStore::new(vec![domain("dns", DNS, &root)]).unwrap();
    let verify = |name: &str, issuers: &[&Issuer]| {
        let mut params = leaf_params();
        names(&mut params, [dns(name)]);
        let mut chain = vec![issue(&params, issuers[0]).der];
        chain.extend(issuers.iter().map(|issuer| issuer.der().clone()));
        store.verify_from_at(DNS, &chain, AT_MS).map(|leaf| leaf.principal().to_string())
    };
    assert_eq!(verify("x.a.example", &[&middle]), Ok("dns:x.a.example".into()));
    assert_eq!(verify("x.b.example", &[&middle]), Err(ChainError::NameConstraint));
    assert_eq!(verify("x", &[&short]), Ok("dns:x".into()));
    assert_eq!(verify("x", &[&below_short, &short]), Err(ChainError::IssuerNotCa));
    assert_eq!(verify("x", &[&servers]), Err(ChainError::NotForClients));
}

#[test]
fn a_chain_is_judged_at_the_time_in_question() {
    let root = root("root");
    let store = spiffe_store("a.example", &root);
    let chain = [issue(&spiffe_params("spiffe://a.example/orders"), &root).der];
    for (at_ms, expected) in [
        (NOT_BEFORE_MS, Ok(())),
        (NOT_AFTER_MS, Ok(())),
        (NOT_BEFORE_MS - 1, Err(ChainError::NotYetValid { not_before_ms: NOT_BEFORE_MS })),
        (NOT_AFTER_MS + 1_000, Err(ChainError::Expired { not_after_ms: NOT_AFTER_MS })),
        (0, Err(ChainError::NotYetValid { not_before_ms: NOT_BEFORE_MS })),
        (u64::MAX, Err(ChainError::Expired { not_after_ms: NOT_AFTER_MS })),
    ] {
        assert_eq!(store.verify_from_at(SPIFFE, &chain, at_ms).map(|_| ()), expected, "{at_ms}");
    }
}

#[test]
fn with_lists_every_certificate_must_be_known_not_revoked() {
    let root = root("root");
    let middle = intermediate("middle", &root);
    let mut params = spiffe_params("spiffe://a.example/orders");
    params.serial_number = Some(SerialNumber::from(7));
    let chain = [issue(&params, &middle).der, middle.der().clone()];
    let middle_serial = CertificateFacts::parse(middle.der()).unwrap().serial;
    let middle_serial = SerialNumber::from_slice(middle_serial.as_bytes());
    let stranger = self::root("root");

    let revoked = [SerialNumber::from(7)];
    let clean_root = || revocation_list(&root, &[], 2030);
    let clean_middle = || revocation_list(&middle, &[], 2030);
    for (case, lists, expected) in [
        ("nothing revoked", vec![clean_root(), clean_middle()], Ok(())),
        ("leaf revoked", vec![clean_root(), revocation_list(&middle, &revoked, 2030)], Err("revoked")),
        (
            "intermediate revoked",
            vec![revocation_list(&root, &[middle_serial], 2030), clean_middle()],
            Err("revoked"),
        ),
        ("no list for the leaf", vec![clean_root()], Err("revocation-unknown")),
        ("no list for the intermediate", vec![clean_middle()], Err("revocation-unknown")),
        (
            "list ran out",
            vec![clean_root(), revocation_list(&middle, &[], 2025)],
            Err("revocation-list-expired"),
        ),
        (
            "list by another key",
            vec![revocation_list(&stranger, &[], 2030), clean_middle()],
            Err("chain-signature"),
        ),
    ] {
        let domain = domain("a.example", SPIFFE, &root).with_revocation_lists(lists).unwrap();
        let found = domain.verify_at(&chain, AT_MS);
        assert_eq!(found.map(|_| ()).map_err(|error| error.word()), expected, "{case}");
    }
}

#[test]
fn weak_algorithms_are_refused() {
    let verify = |name: &str| {
        let root = CertificateDer::from(openssl(&format!("{name}_root")));
        let leaf = CertificateDer::from(openssl(&format!("{name}_leaf")));
        let domain = TrustDomain::new("rsa.example", SPIFFE, &[root]).unwrap();
        domain.verify_at(&[leaf], AT_MS).map(|leaf| leaf.principal().to_string())
    };
    assert_eq!(verify("rsa2048"), Ok("spiffe://rsa.example/orders".into()));
    assert_eq!(verify("rsa1024"), Err(ChainError::Signature));
    assert_eq!(verify("sha1"), Err(ChainError::Algorithm));

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let root = Issuer::self_signed(ca_params("p-521"), key).unwrap();
    let leaf = issue(&spiffe_params("spiffe://a.example/orders"), &root);
    let found = spiffe_store("a.example", &root).verify_from_at(SPIFFE, &[leaf.der], AT_MS);
    assert_eq!(found, Err(ChainError::Algorithm));
}

#[test]
fn no_configuration_means_no_verification() {
    let root = root("root");
    assert_eq!(TrustDomain::new("a", SPIFFE, &[]).unwrap_err(), TrustError::NoRoot { domain: "a".into() });
    assert_eq!(TrustStore::new(Vec::new()).unwrap_err(), TrustError::NoDomain);
    assert_eq!(
        domain("a", SPIFFE, &root).with_revocation_lists([]).unwrap_err(),
        TrustError::NoRevocationList { domain: "a".into() }
    );
    assert!(matches!(TrustDomain::new("A", SPIFFE, &[]), Err(TrustError::Name { .. })));

    let valid = root.der().clone();
    let unreadable = TrustDomain::new("a", SPIFFE, &[valid.clone(), CertificateDer::from(&b""[..])]);
    assert!(matches!(
        unreadable,
        Err(TrustError::Root { place: 1, problem: RootProblem::Certificate(_), .. })
    ));
    let leaf = issue(&spiffe_params("spiffe://a/b"), &root);
    let not_ca = TrustDomain::new("a", SPIFFE, &[leaf.der]);
    assert!(matches!(not_ca, Err(TrustError::Root { place: 0, problem: RootProblem::NotCa, .. })));
}

#[test]
fn no_two_domains_claim_one_principal() {
    let root = root("root");
    let store = |domains: &[(&str, PrincipalSource)]| {
        TrustStore::new(domains.iter().map(|(name, source)| domain(name, *source, &root)).collect())
            .map(|_| ())
            .map_err(|error| match error {
                TrustError::SecondDomain { name, .. } => name,
                other => panic!("{other}"),
            })
    };
    assert_eq!(store(&[("a", SPIFFE), ("b", SPIFFE), ("a", DNS), ("a", CN)]), Ok(()));
    assert_eq!(store(&[("a", SPIFFE), ("b", DNS), ("a", SPIFFE)]), Err("a".into()));
    assert_eq!(store(&[("a", DNS), ("b", DNS)]), Err("b".into()));
    assert_eq!(store(&[("a", CN), ("b", CN)]), Err("b".into()));
}
