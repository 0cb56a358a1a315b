use std::io::{self, Read as _};
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SigningKey as _, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConnection};
use rustls_pki_types::CertificateDer;
use sealbus_protocol::binding::{BindingRequest, KeyBinding, TlsScheme};
use sealbus_protocol::identity::{ChainError, Principal, PrincipalSource, Validity};
use sealbus_protocol::keys::SigningKey;

use super::test_pki::*;
use super::*;
use crate::config::Revocation;

const SEALBUS: &[&[u8]] = &[b"sealbus/1"];
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What both sides end with.
struct Handshake {
    server: ServerConnection,
    client: ClientConnection,
    /// The error as tokio-rustls hands it to a listener.
    outcome: Result<(), HandshakeFailure>,
}

/// A whole handshake in memory.
fn shake(material: &TlsMaterial, client: Arc<ClientConfig>) -> Handshake {
    let mut server = ServerConnection::new(Arc::clone(material.server())).unwrap();
    let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    for _ in 0..10 {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let outcome = feed(&mut server, &wire);
        if outcome.is_err() {
            return Handshake { server, client, outcome };
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Handshake { server, client, outcome: Ok(()) }
}

fn feed(server: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), HandshakeFailure> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).unwrap();
        server
            .process_new_packets()
            .map_err(|error| describe_handshake_error(&io::Error::new(io::ErrorKind::InvalidData, error)))?;
    }
    Ok(())
}

fn failure(bus: &Bus, identity: Option<&Identity>, alpn: &[&[u8]]) -> HandshakeFailure {
    let material = bus.load().unwrap();
    shake(&material, Arc::new(bus.client_config(identity, alpn))).outcome.unwrap_err()
}

fn failure_of_bytes(bytes: &[u8]) -> HandshakeFailure {
    let mut server = ServerConnection::new(Arc::clone(Bus::new().load().unwrap().server())).unwrap();
    feed(&mut server, bytes).unwrap_err()
}

fn issued(bus: &Bus, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = client_params(ORDERS);
    change(&mut params);
    issue(&params, &bus.ca)
}

// Files that are not what they should be.

/// FAILURES T7 and T8: nothing that is empty, missing or broken means "no verification".
#[test]
fn files_without_what_they_should_hold_are_refused() {
    for (name, content, expected) in [
        ("broker.pem", "", "broker.pem: holds no certificate in pem form"),
        ("broker.pem", "hello", "broker.pem: holds no certificate in pem form"),
        ("broker.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", "broker.pem: is not well-formed pem"),
        (
            "broker.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "broker.pem: the first certificate is refused: ",
        ),
        ("broker.key", "", "broker.key: holds no private key in pem form"),
        ("broker.key", "-----BEGIN PRIVATE KEY-----\nsecret?\n", "broker.key: is not well-formed pem"),
        (
            "broker.key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "broker.key: the private key is damaged or of a kind that is not supported",
        ),
        ("ca.pem", "", "ca.pem: holds no certificate in pem form"),
        ("ca.pem", "# none yet\n", "ca.pem: holds no certificate in pem form"),
        (
            "ca.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca.pem: root certificate 1 of trust domain acme.example is refused: ",
        ),
        ("ca.crl", "", "ca.crl: holds no revocation list in pem or der form"),
        ("ca.crl", "<html>404</html>", "ca.crl: holds no revocation list in pem or der form"),
        ("ca.crl", "0", "ca.crl: a revocation list is damaged or of a kind that is not supported: "),
        (
            "ca.crl",
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "ca.crl: a revocation list is damaged or of a kind that is not supported: ",
        ),
        ("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n", "ca.crl: is not well-formed pem"),
    ] {
        let bus = Bus::new();
        bus.write(name, content);
        let problem = bus.problem();
        assert!(problem.starts_with(expected), "{name} {content:?}: {problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
    for name in ["broker.pem", "broker.key", "ca.pem", "ca.crl"] {
        let bus = Bus::new();
        std::fs::remove_file(bus.path(name)).unwrap();
        assert!(bus.problem().starts_with(&format!("{name}: cannot be read: ")), "{name}");
    }
}

#[test]
fn a_key_within_reach_of_others_is_refused() {
    for mode in [0o640, 0o604, 0o644, 0o660, 0o610, 0o601] {
        let bus = Bus::new();
        bus.set_mode("broker.key", mode);
        let expected = format!("broker.key: has the mode {mode:04o}, and a private key must be out of reach");
        assert!(bus.problem().starts_with(&expected), "{}", bus.problem());
    }
    for mode in [0o400, 0o600, 0o700] {
        let bus = Bus::new();
        bus.set_mode("broker.key", mode);
        assert!(bus.load().is_ok());
    }
}

#[test]
fn a_certificate_that_does_not_serve_a_broker_is_refused() {
    let bus = Bus::new();
    bus.write("broker.key", KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        bus.problem().replace(&format!("{}/", bus.dir.path().display()), ""),
        "broker.key: the private key does not belong to the certificate in broker.pem"
    );

    let bus = Bus::new();
    let mut params = server_params();
    params.not_after = date_time_ymd(2025, 1, 1);
    bus.issue_server(&params);
    assert_eq!(bus.problem(), "broker.pem: the broker's certificate ended at unix time 1735689600");

    let mut params = server_params();
    params.not_before = date_time_ymd(2027, 1, 1);
    bus.issue_server(&params);
    assert_eq!(bus.problem(), "broker.pem: the broker's certificate begins at unix time 1798761600");

    let mut params = server_params();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    bus.issue_server(&params);
    assert!(bus.problem().starts_with("broker.pem: the first certificate is a certificate authority's"));
}

#[test]
fn a_root_that_may_not_issue_is_none() {
    let bus = Bus::new();
    let key = KeyPair::generate().unwrap();
    bus.write("ca.pem", server_params().self_signed(&key).unwrap().pem());
    assert!(bus.problem().contains("it is not a certificate authority's"), "{}", bus.problem());
    // Not even beside one that may.
    bus.write("ca.pem", bus.ca.pem() + &server_params().self_signed(&key).unwrap().pem());
    assert!(bus.problem().contains("root certificate 2 of trust domain"), "{}", bus.problem());
}

#[test]
fn a_list_may_be_der_and_must_be_whole() {
    let bus = Bus::new();
    let list = revocation_list(&bus.ca, &[5], 2030).der().to_vec();
    bus.write("ca.crl", &list);
    assert!(bus.load().is_ok());
    for len in 1..list.len() {
        bus.write("ca.crl", &list[..len]);
        assert!(bus.load().is_err(), "{len} of {} bytes", list.len());
    }
    bus.write("ca.crl", [&list[..], b"\0"].concat());
    assert!(bus.load().is_err());
}

// Handshakes that fail.

#[test]
fn each_reason_has_its_own_word() {
    let bus = Bus::new();
    let other = ca("Acme CA");
    let fail = |identity: &Identity| failure(&bus, Some(identity), SEALBUS);

    assert_eq!(failure(&bus, None, SEALBUS), HandshakeFailure::NoCertificate);
    assert_eq!(fail(&issue(&client_params(ORDERS), &ca("Other CA"))), HandshakeFailure::UnknownIssuer);
    let same_name = fail(&issue(&client_params(ORDERS), &other));
    assert!(
        matches!(same_name, HandshakeFailure::UnknownIssuer | HandshakeFailure::BadCertificate(_)),
        "{same_name}"
    );
    let expired = issued(&bus, |params| params.not_after = date_time_ymd(2025, 12, 31));
    assert_eq!(fail(&expired), HandshakeFailure::Expired);
    let early = issued(&bus, |params| params.not_before = date_time_ymd(2026, 1, 2));
    assert_eq!(fail(&early), HandshakeFailure::NotYetValid);
    let server =
        issued(&bus, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(
        fail(&server),
        HandshakeFailure::BadCertificate("it is not for use by tls clients".to_owned())
    );
    assert_eq!(failure(&bus, Some(&bus.client()), &[b"mqtt"]), HandshakeFailure::Alpn);
}

#[test]
fn revocation_speaks_for_every_certificate_or_nobody_gets_in() {
    let bus = Bus::new();
    let client = bus.client_with_serial(5);
    bus.revoke(&[5], 2030);
    assert_eq!(failure(&bus, Some(&client), SEALBUS), HandshakeFailure::Revoked);
    let other = Arc::new(bus.client_config(Some(&bus.client_with_serial(6)), SEALBUS));
    assert_eq!(shake(&bus.load().unwrap(), other).outcome, Ok(()));
}

#[test]
fn a_list_that_ran_out_or_is_of_another_issuer_lets_nobody_in() {
    let bus = Bus::new();
    bus.revoke(&[], 2025);
    assert_eq!(failure(&bus, Some(&bus.client()), SEALBUS), HandshakeFailure::RevocationListExpired);
    bus.write("ca.crl", revocation_list(&ca("Other CA"), &[], 2030).pem().unwrap());
    assert_eq!(failure(&bus, Some(&bus.client()), SEALBUS), HandshakeFailure::RevocationUnknown);
    // With the right name and the wrong key.
    bus.write("ca.crl", revocation_list(&ca("Acme CA"), &[], 2030).pem().unwrap());
    let forged = failure(&bus, Some(&bus.client()), SEALBUS);
    assert!(
        matches!(forged, HandshakeFailure::BadCertificate(_) | HandshakeFailure::RevocationUnknown),
        "{forged}"
    );
}

/// The whole chain is covered: an intermediate without a list is refused, and so is what it issued.
#[test]
fn an_issuer_between_needs_a_list_too() {
    let bus = Bus::new();
    let mut params = params();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Acme Sub");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.serial_number = Some(77_u64.into());
    let between = Ca::signed_by(params, KeyPair::generate().unwrap(), &bus.ca).unwrap();
    let mut client = issue(&client_params(ORDERS), &between);
    client.chain.push(between.der().clone());

    assert_eq!(failure(&bus, Some(&client), SEALBUS), HandshakeFailure::RevocationUnknown);
    let of_between = revocation_list(&between, &[], 2030).pem().unwrap();
    let write = |revoked: &[u64]| {
        let of_root = revocation_list(&bus.ca, revoked, 2030).pem().unwrap();
        bus.write("ca.crl", of_root + &of_between);
    };
    write(&[77]);
    assert_eq!(failure(&bus, Some(&client), SEALBUS), HandshakeFailure::Revoked);
    write(&[]);
    let material = bus.load().unwrap();
    assert_eq!(shake(&material, Arc::new(bus.client_config(Some(&client), SEALBUS))).outcome, Ok(()));
    assert_eq!(material.check_peer(&client.chain, AT_MS).unwrap().principal().as_str(), ORDERS);
}

#[test]
fn what_is_not_tls_1_3_is_told_apart_from_what_is_not_tls() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 64], b"SSH-2.0-OpenSSH_9.6\r\n", &[0xff; 300]]
    {
        assert_eq!(failure_of_bytes(bytes), HandshakeFailure::NotTls, "{bytes:?}");
    }
    assert_eq!(failure_of_bytes(&tls_1_2_client_hello()), HandshakeFailure::ProtocolVersion);
    let malformed = [0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00];
    assert!(matches!(failure_of_bytes(&malformed), HandshakeFailure::Other(_)));
}

/// A ClientHello as TLS 1.2 wrote it, without `supported_versions`.
fn tls_1_2_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // supported_groups: secp256r1
        0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // ec_point_formats: uncompressed
        0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00, 0x00, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![0x16, 0x03, 0x01, 0x00, body.len() as u8 + 4, 0x01, 0x00, 0x00, body.len() as u8];
    record.extend(body);
    record
}

#[test]
fn the_systems_errors_have_words_too() {
    for (kind, expected) in [
        (io::ErrorKind::UnexpectedEof, HandshakeFailure::Closed),
        (io::ErrorKind::ConnectionReset, HandshakeFailure::Closed),
        (io::ErrorKind::BrokenPipe, HandshakeFailure::Closed),
        (io::ErrorKind::TimedOut, HandshakeFailure::Timeout),
    ] {
        assert_eq!(describe_handshake_error(&kind.into()), expected);
    }
    let long = io::Error::other(format!("a\r\n{}", "b".repeat(1_000)));
    let HandshakeFailure::Other(detail) = describe_handshake_error(&long) else { panic!("another reason") };
    assert_eq!((detail.chars().count(), detail.contains(char::is_control)), (DETAIL_CHARACTERS_MAX, false));
}

#[test]
fn a_client_that_refuses_the_broker_is_told_apart() {
    let (bus, stranger) = (Bus::new(), Bus::new());
    let material = bus.load().unwrap();
    let config = stranger.client_config(Some(&bus.client()), SEALBUS);
    let mut server = ServerConnection::new(Arc::clone(material.server())).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    feed(&mut server, &wire).unwrap();
    wire.clear();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    let mut rest = &wire[..];
    let refused = (0..10).any(|_| {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets().is_err()
    });
    assert!(refused);
    wire.clear();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    let failure = feed(&mut server, &wire).unwrap_err();
    assert!(failure.to_string().contains("the client refuses the broker"), "{failure}");
}

// Handshakes that succeed, and what they must not leave behind.

#[test]
fn friends_get_in_with_tls_1_3_and_a_post_quantum_key_exchange() {
    let bus = Bus::new();
    let material = bus.load().unwrap();
    let client = bus.client();
    let handshake = shake(&material, Arc::new(bus.client_config(Some(&client), SEALBUS)));
    assert_eq!(handshake.outcome, Ok(()));
    assert_eq!(handshake.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(handshake.server.alpn_protocol(), Some(&b"sealbus/1"[..]));
    let group = handshake.server.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    let leaf = material.check_peer(handshake.server.peer_certificates().unwrap(), AT_MS).unwrap();
    assert_eq!(leaf.principal().as_str(), ORDERS);
    assert_eq!(material.domain().name(), "acme.example");
    assert_eq!(material.certificate_validity().not_after_ms, 2_208_988_800_000);
}

/// FAILURES T9: a resumed session would not meet the verifier.
#[test]
fn nothing_is_resumed_and_nothing_comes_early() {
    let bus = Bus::new();
    let material = bus.load().unwrap();
    // Each of these alone would do, and none is to be relied upon alone.
    let server = material.server();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    let mut config = bus.client_config(Some(&bus.client()), SEALBUS);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut handshake = shake(&material, Arc::clone(&config));
        assert_eq!(handshake.outcome, Ok(()));
        assert_eq!(handshake.client.tls13_tickets_received(), 0);
        assert_eq!(handshake.server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(handshake.client.early_data().is_none());
        assert_eq!(handshake.server.reader().read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    // The certificate is revoked, the material is read again, and the client that was here before is not let in.
    let client = bus.client_with_serial(5);
    let config = Arc::new(bus.client_config(Some(&client), SEALBUS));
    assert_eq!(shake(&bus.load().unwrap(), Arc::clone(&config)).outcome, Ok(()));
    bus.revoke(&[5], 2030);
    assert_eq!(shake(&bus.load().unwrap(), config).outcome, Err(HandshakeFailure::Revoked));
}

/// rustls accepts a client that asks for no protocol at all; the listener compares what was agreed on.
#[test]
fn a_client_without_alpn_agrees_on_nothing() {
    let bus = Bus::new();
    let handshake = shake(&bus.load().unwrap(), Arc::new(bus.client_config(Some(&bus.client()), &[])));
    assert_eq!(handshake.outcome, Ok(()));
    assert_eq!(handshake.server.alpn_protocol(), None);
}

#[test]
fn the_handshake_is_judged_by_the_brokers_clock() {
    let bus = Bus::new();
    let material = bus.load().unwrap();
    let client = bus.client();
    let config = Arc::new(bus.client_config(Some(&client), SEALBUS));
    assert_eq!(shake(&material, Arc::clone(&config)).outcome, Ok(()));
    bus.clock.set(AT_MS + 5 * 365 * DAY_MS);
    assert_eq!(shake(&material, Arc::clone(&config)).outcome, Err(HandshakeFailure::RevocationListExpired));
    bus.clock.set(AT_MS + 20 * 365 * DAY_MS);
    assert_eq!(shake(&material, config).outcome, Err(HandshakeFailure::Expired));
}

// Peers, after the handshake and again at every reload.

fn word(material: &TlsMaterial, identity: &Identity, at_ms: u64) -> &'static str {
    material.check_peer(&identity.chain, at_ms).unwrap_err().word()
}

#[test]
fn a_peer_is_judged_by_domain_source_lists_and_time() {
    let mut bus = Bus::new();
    let client = bus.client_with_serial(5);
    let material = bus.load().unwrap();
    assert!(material.check_peer(&client.chain, AT_MS).is_ok());
    assert_eq!(word(&material, &client, AT_MS + 20 * 365 * DAY_MS), "expired");
    assert_eq!(word(&material, &client, AT_MS + 5 * 365 * DAY_MS), "revocation-list-expired");
    assert_eq!(material.check_peer(&[], AT_MS), Err(PeerError::Chain(ChainError::Empty)));
    assert_eq!(word(&material, &issue(&client_params(ORDERS), &ca("Other CA")), AT_MS), "unknown-issuer");
    assert_eq!(
        word(&material, &issue(&client_params("spiffe://evil.example/a"), &bus.ca), AT_MS),
        "foreign-domain"
    );
    let nobody = issued(&bus, |params| params.subject_alt_names.clear());
    assert_eq!(word(&material, &nobody, AT_MS), "leaf-names");

    bus.revoke(&[5], 2030);
    let reloaded = bus.load().unwrap();
    let error = reloaded.check_peer(&client.chain, AT_MS).unwrap_err();
    assert_eq!(error, PeerError::Revocation(HandshakeFailure::Revoked));
    assert_eq!(error.to_string(), "a certificate of the client was revoked");

    bus.config.principal = PrincipalSource::Dns;
    assert_eq!(word(&bus.load().unwrap(), &bus.client(), AT_MS), "leaf-names");
}

#[test]
fn without_lists_only_short_lives_are_accepted() {
    let bus = Bus::short_lived();
    let material = bus.load().unwrap();
    assert_eq!(bus.config.revocation, Revocation::ShortLived);
    // 1 January 2026 and the day after.
    let lived = |hours_past: i64| {
        issued(&bus, |params| {
            params.not_before = date_time_ymd(2026, 1, 1);
            params.not_after = date_time_ymd(2026, 1, 2) + std::time::Duration::from_secs(hours_past as u64);
        })
    };
    assert!(material.check_peer(&lived(0).chain, AT_MS).is_ok());
    let error = material.check_peer(&lived(1).chain, AT_MS).unwrap_err();
    assert_eq!(error, PeerError::LongLived { life_ms: SHORT_LIVED_MS_MAX + 1_000 });
    assert_eq!(
        error.to_string(),
        "the certificate lives 86401 s, and without revocation lists at most 86400 s are accepted"
    );
}

#[test]
fn a_binding_is_no_way_round_revocation() {
    let bus = Bus::new();
    let client = bus.client_with_serial(5);
    let binding = bind(&client);
    assert_eq!(bus.load().unwrap().check_binding(&binding, AT_MS).unwrap().principal().as_str(), ORDERS);

    bus.revoke(&[5], 2030);
    let refused = bus.load().unwrap().check_binding(&binding, AT_MS).unwrap_err();
    assert_eq!(refused, BindingRefused::Revocation(PeerError::Revocation(HandshakeFailure::Revoked)));
    assert_eq!(refused.word(), "revoked");

    let other = bind(&issue(&client_params(ORDERS), &ca("Other CA")));
    assert_eq!(bus.load().unwrap().check_binding(&other, AT_MS).unwrap_err().word(), "unknown-issuer");

    let bus = Bus::short_lived();
    let long = bind(&bus.client());
    assert_eq!(bus.load().unwrap().check_binding(&long, AT_MS).unwrap_err().word(), "long-lived");
}

/// What came with a connection is judged once; what did not come with it, by itself.
#[test]
fn a_binding_of_other_certificates_than_the_connection_is_judged_by_itself() {
    let bus = Bus::new();
    let (client, other) = (bus.client_with_serial(5), bus.client_with_serial(6));
    let material = bus.load().unwrap();
    let accepted = material.check_accepted(client.chain.clone(), AT_MS).unwrap();
    for identity in [&client, &other] {
        let verified = material.check_binding_of(&accepted, &bind(identity), AT_MS).unwrap();
        assert_eq!(verified.principal().as_str(), ORDERS);
    }
    bus.revoke(&[6], 2030);
    let refused = bus.load().unwrap().check_binding_of(&accepted, &bind(&other), AT_MS).unwrap_err();
    assert_eq!(refused.word(), "revoked");
    let short = Bus::short_lived();
    let refused = short.load().unwrap().check_accepted(short.client().chain.clone(), AT_MS).unwrap_err();
    assert_eq!(refused.word(), "long-lived");
}

fn bind(identity: &Identity) -> KeyBinding {
    let key = SigningKey::from_seed(&[7; 32].into());
    let validity = Validity { not_before_ms: AT_MS - 1_000, not_after_ms: AT_MS + 1_000 };
    let chain: &[CertificateDer<'static>] = &identity.chain;
    let request = BindingRequest::new(&Principal::parse(ORDERS).unwrap(), &key, validity, chain).unwrap();
    let signature = identity.key.sign(&request.tls_message()).unwrap();
    KeyBinding::decode(request.finish(TlsScheme::EcdsaP256, &signature).unwrap()).unwrap()
}

/// FAILURES T50.
#[test]
fn material_prints_no_key() {
    let shown = format!("{:?}", Bus::new().load().unwrap());
    assert!(shown.starts_with("TlsMaterial { domain: \"acme.example\", rule: Lists"), "{shown}");
    assert!(shown.len() < 200, "{shown}");
}
