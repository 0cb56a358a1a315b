use std::path::Path;

use sealbus_protocol::identity::PrincipalSource;

use super::*;
use crate::vfs::OsVfs;

const TOP: &str =
    "bus_id = \"5f1c0e0f9a3b4c5d6e7f809102132435\"\ndata_dir = \"data\"\npolicy = \"policy.toml\"\n";

const LISTENER: &str = "[[listener]]\n\
    address = \"127.0.0.1:7433\"\n\
    zone = \"internal\"\n\
    principal = \"spiffe\"\n\
    trust_domain = \"acme.example\"\n\
    certificate = \"broker.pem\"\n\
    key = \"/etc/keys/broker.key\"\n\
    client_ca = \"ca.pem\"\n\
    revocation = \"crl\"\n\
    crl = \"ca.crl\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/bus"))
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn whole() -> String {
    format!("{TOP}{LISTENER}")
}

/// The whole file with one line of the listener replaced.
fn listener_with(key: &str, line: &str) -> String {
    let replace =
        |old: &str| if old.starts_with(&format!("{key} =")) { line.to_owned() } else { old.to_owned() };
    TOP.lines().map(str::to_owned).chain(LISTENER.lines().map(replace)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_slip_of_the_pen_is_named_with_what_was_meant() {
    assert_eq!(error("[[listener]]\nzone = \"a\"\nadress = \"127.0.0.1:7433\"\n"), "`bus_id` is missing");
    assert_eq!(
        error(&listener_with("address", "adress = \"127.0.0.1:7433\"")),
        "unknown key `adress` in [[listener]], line 5, column 1: did you mean `address`?"
    );
    assert_eq!(
        error(&format!("buss_id = \"a\"\n{}", whole())),
        "unknown key `buss_id`, line 1, column 1: did you mean `bus_id`?"
    );
    assert_eq!(
        error(&format!("{}[limits]\nconections_max = 1\n", whole())),
        "unknown key `conections_max` in [limits], line 15, column 1: did you mean `connections_max`?"
    );
    assert_eq!(
        error(&listener_with("principal", "principal = \"spifee\"")),
        "`principal` is one of \"spiffe\", \"dns\", \"cn\", found \"spifee\" in [[listener]], line 7, column 13: did \
         you mean `spiffe`?"
    );
    assert_eq!(error(&format!("{}[shoe]\n", whole())), "unknown key `shoe`, line 14, column 2");
}

/// FAILURES T51: no line can be left out, and none falls back to something else.
#[test]
fn every_line_is_required() {
    for key in ["bus_id", "data_dir", "policy"] {
        let text: String =
            whole().lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        assert_eq!(error(&text), format!("`{key}` is missing"));
    }
    assert_eq!(error(TOP), "`listener` is missing");
    assert_eq!(error(""), "`bus_id` is missing");
    for key in [
        "address",
        "zone",
        "principal",
        "trust_domain",
        "certificate",
        "key",
        "client_ca",
        "revocation",
        "crl",
    ] {
        let message = error(&listener_with(key, ""));
        assert_eq!(message, format!("`{key}` is missing in [[listener]], line 4, column 1"));
        // Not even when another listener has it.
        let message = error(&format!(
            "{}\n{}",
            whole(),
            listener_with(key, "").replace(TOP, "").replace("7433", "7434")
        ));
        assert!(message.starts_with(&format!("`{key}` is missing in [[listener]]")), "{message}");
    }
}

/// FAILURES T51: the switches of other brokers are not known here.
#[test]
fn nothing_turns_a_protection_off() {
    for line in [
        "tls = false",
        "plaintext = true",
        "allow_anonymous = true",
        "no_auth_user = \"guest\"",
        "require_certificate = false",
        "require_client_cert = false",
        "verify = false",
    ] {
        assert!(error(&format!("{}{line}\n", whole())).starts_with("unknown key `"), "{line}");
        assert!(error(&format!("{line}\n{}", whole())).starts_with("unknown key `"), "{line}");
        assert!(error(&format!("{}[audit]\n{line}\n", whole())).starts_with("unknown key `"), "{line}");
    }
    for (key, line) in [
        ("revocation", "revocation = \"none\""),
        ("revocation", "revocation = \"\""),
        ("revocation", "revocation = false"),
        ("principal", "principal = \"anonymous\""),
        ("client_ca", "client_ca = \"\""),
        ("client_ca", "client_ca = false"),
        ("crl", "crl = \"\""),
    ] {
        assert!(parse(&listener_with(key, line)).is_err(), "{line}");
    }
    assert!(error(&format!("{}[audit]\nenabled = false\n", whole())).starts_with("unknown key `enabled`"));
}

#[test]
fn values_that_mean_nothing_are_refused_where_they_stand() {
    for (text, expected) in [
        (listener_with("address", "address = \"localhost:7433\""), "`address` is an IP address and a port"),
        (listener_with("address", "address = \"127.0.0.1\""), "`address` is an IP address and a port"),
        (listener_with("address", "address = 7433"), "`address` is a text that is not empty, found 7433"),
        (listener_with("zone", "zone = \"in side\""), "`zone` is a name of at most 64 letters"),
        (listener_with("trust_domain", "trust_domain = \"Acme\""), "`trust_domain` is a trust domain"),
        (
            listener_with("trust_domain", "trust_domain = \"spiffe://acme\""),
            "`trust_domain` is a trust domain",
        ),
        (whole().replace("5f1c", "5F1C"), "`bus_id` is 32 lower-case hex digits"),
        (whole().replace("5f1c0e0f9a3b4c5d6e7f809102132435", &"0".repeat(32)), "`bus_id` is 32 lower-case"),
        (whole().replace("5f1c", ""), "`bus_id` is 32 lower-case hex digits"),
        (format!("{TOP}listener = []\n"), "`listener` is at least one section"),
        (format!("{TOP}listener = 3\n"), "`listener` is one section or more, [[listener]], found 3"),
        (format!("{TOP}[listener]\n"), "`listener` is one section or more, [[listener]], found a section"),
        (format!("{TOP}listener = [3]\n"), "`listener` is one section or more"),
        (format!("limits = 3\n{}", whole()), "`limits` is a section, [limits], found 3"),
        (
            format!("{}[log]\nformat = \"xml\"\n", whole()),
            "`format` is one of \"text\", \"json\", found \"xml\"",
        ),
        (format!("{}[log]\nfilter = \"\"\n", whole()), "`filter` is a text"),
        (format!("{}[operators]\nthreshold = 1\n", whole()), "`operators` is not in this version, line 14"),
        (format!("{}a = \"\\u001b[2J\n\"\n", whole()), "not TOML: "),
        ("bus_id = ".to_owned(), "not TOML: "),
        (format!("{TOP}{TOP}"), "not TOML: duplicate key"),
    ] {
        let message = error(&text);
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains(", line ") && message.contains(", column "), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn numbers_stay_in_their_range() {
    for (line, range) in [
        ("connections_max = 0", "1 to 1000000"),
        ("connections_max = 1000001", "1 to 1000000"),
        ("connections_max = -1", "1 to 1000000"),
        ("connections_max = 10.0", "1 to 1000000"),
        ("connections_max = \"10\"", "1 to 1000000"),
        ("connections_max = 99999999999999999999999", "1 to 1000000"),
        ("handshakes_max = 0", "1 to 10000"),
        ("handshakes_per_source_max = 65", "1 to 64"),
        ("handshakes_max = 4\nhandshakes_per_source_max = 5", "1 to 4"),
        ("handshake_timeout_ms = 0", "100 to 60000"),
        ("outbox_bytes_max = 1048576", "2097152 to 1073741824"),
        ("subscriptions_max = 0", "1 to 10000000"),
        ("marker_timeout_ms = 9", "10 to 10000"),
        ("drain_timeout_ms = 600001", "0 to 600000"),
    ] {
        let message = error(&format!("{}[limits]\n{line}\n", whole()));
        assert!(message.contains(&format!("is a whole number from {range}, found ")), "{line}: {message}");
    }
    for (line, range) in [
        ("queue_events_max = 0", "64 to 1000000"),
        ("sync_within_ms = 1000", "1 to 900"),
        ("singles_per_second_max = 0", "1 to 1000"),
    ] {
        let message = error(&format!("{}[audit]\n{line}\n", whole()));
        assert!(message.contains(&format!("is a whole number from {range}, found ")), "{line}: {message}");
    }
}

#[test]
fn listeners_that_contradict_each_other_are_refused() {
    let second = |replacements: &[(&str, &str)]| {
        let listener =
            replacements.iter().fold(LISTENER.to_owned(), |text, (from, to)| text.replace(from, to));
        format!("{}{listener}", whole())
    };
    let message = error(&second(&[]));
    assert_eq!(message, "another listener has the address 127.0.0.1:7433 in [[listener]], line 14, column 1");
    assert_eq!(parse(&second(&[("7433", "7434")])).unwrap().listeners.len(), 2);
    assert_eq!(parse(&second(&[("7433", "7434"), ("acme", "other")])).unwrap().listeners.len(), 2);

    let common = |text: String| text.replace("\"spiffe\"", "\"cn\"");
    assert!(parse(&common(second(&[("7433", "7434")]))).is_ok());
    let message = error(&common(second(&[("7433", "7434"), ("acme", "other")])));
    assert!(
        message.starts_with("principals of source \"cn\" are of trust domain acme.example on one"),
        "{message}"
    );

    let free = whole().replace("7433", "0") + &LISTENER.replace("7433", "0");
    assert_eq!(parse(&free).unwrap().listeners.len(), 2);

    let many: String =
        (0..=LISTENERS_MAX).map(|port| LISTENER.replace("7433", &(7_000 + port).to_string())).collect();
    assert!(error(&format!("{TOP}{many}")).contains("at most 64"));
}

#[test]
fn short_lived_takes_no_list() {
    let text = listener_with("revocation", "revocation = \"short-lived\"");
    assert!(error(&text).starts_with("`crl` is given, and `revocation = \"short-lived\"` would not read it"));
    let text: String =
        text.lines().filter(|line| !line.starts_with("crl")).map(|line| format!("{line}\n")).collect();
    assert_eq!(parse(&text).unwrap().listeners[0].revocation, Revocation::ShortLived);
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_an_error_with_its_name() {
    let missing = Config::load(&OsVfs, Path::new("no/such.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("configuration no/such.toml: cannot be read: "), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sealbus.toml");
    std::fs::write(&path, b"bus_id\xff").unwrap();
    let error = Config::load(&OsVfs, &path).unwrap_err();
    assert_eq!(error.to_string(), format!("configuration {}: not UTF-8 at byte 6", path.display()));
    std::fs::write(&path, vec![b'#'; CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(Config::load(&OsVfs, &path).unwrap_err().fault(), ConfigFault::Read(_)));
    std::fs::write(&path, whole().replace("zone", "zoen")).unwrap();
    let error = Config::load(&OsVfs, &path).unwrap_err();
    assert!(error.to_string().contains("sealbus.toml: unknown key `zoen` in [[listener]], line 6, column 1"));
    assert_eq!(
        (error.line(), error.column(), error.hint()),
        (Some(6), Some(1), Some("did you mean `zone`?"))
    );
}

#[test]
fn a_whole_file_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sealbus.toml");
    let rest = "[limits]\nhandshakes_max = 0x10\nmarker_timeout_ms = 5_0\n[storage]\nlog_key = \"log.key\"\nsegment_bytes = \"512KiB\"\nreserve = 1048576\ninterval_ms = 200\nwriters = 2\n[audit]\nsync_within_ms = 100\n[log]\nformat = \"json\"\nfilter = \"debug\"\n";
    std::fs::write(&path, whole() + rest).unwrap();
    let expected = Config {
        bus_id: "5f1c0e0f9a3b4c5d6e7f809102132435".parse().unwrap(),
        data_dir: dir.path().join("data"),
        policy: dir.path().join("policy.toml"),
        listeners: vec![ListenerConfig {
            address: "127.0.0.1:7433".parse().unwrap(),
            zone: "internal".to_owned(),
            principal: PrincipalSource::Spiffe,
            trust_domain: "acme.example".to_owned(),
            certificate: dir.path().join("broker.pem"),
            key: "/etc/keys/broker.key".into(),
            client_ca: dir.path().join("ca.pem"),
            revocation: Revocation::Crl(dir.path().join("ca.crl")),
        }],
        limits: LimitsConfig { handshakes_max: 16, marker_timeout_ms: 50, ..LimitsConfig::default() },
        storage: StorageConfig {
            log_key: Some(dir.path().join("log.key")),
            segment_bytes: 512 * 1_024,
            reserve_bytes: 1_048_576,
            interval_ms: 200,
            writers: 2,
        },
        audit: AuditConfig { sync_within_ms: 100, ..AuditConfig::default() },
        log: LogConfig { format: LogFormat::Json, filter: "debug".to_owned() },
    };
    assert_eq!(Config::load(&OsVfs, &path).unwrap(), expected);
    let defaults = parse(&whole()).unwrap();
    assert_eq!(
        (defaults.limits, defaults.storage, defaults.audit, defaults.log),
        (LimitsConfig::default(), StorageConfig::default(), AuditConfig::default(), LogConfig::default())
    );
}

#[test]
fn a_limit_below_a_default_lowers_what_depends_on_it() {
    let limits = parse(&format!("{}[limits]\nhandshakes_max = 4\n", whole())).unwrap().limits;
    assert_eq!((limits.handshakes_max, limits.handshakes_per_source_max), (4, 4));
}

#[test]
fn amounts_of_the_storage_stay_in_their_range() {
    let segment = "`segment_bytes` is an amount of bytes from 64 KiB to 1 GiB, as in \"64MiB\", found ";
    let reserve = "`reserve` is an amount of bytes from 1 MiB to 1 TiB, as in \"64MiB\", found ";
    for (line, expected) in [
        ("segment_bytes = 65535", format!("{segment}65535 in [storage], line 15, column 17")),
        ("segment_bytes = \"63KiB\"", format!("{segment}\"63KiB\" in [storage], line 15, column 17")),
        ("segment_bytes = \"2GiB\"", format!("{segment}\"2GiB\" in [storage], line 15, column 17")),
        ("segment_bytes = 1.5", format!("{segment}a number with a point in [storage], line 15, column 17")),
        ("segment_bytes = -1", format!("{segment}-1 in [storage], line 15, column 17")),
        (
            "segment_bytes = \"64MB\"",
            format!("{segment}\"64MB\" in [storage], line 15, column 17: did you mean `64MiB`?"),
        ),
        ("reserve = 0", format!("{reserve}0 in [storage], line 15, column 11")),
        ("reserve = \"none\"", format!("{reserve}\"none\" in [storage], line 15, column 11")),
        ("reserve = false", format!("{reserve}false in [storage], line 15, column 11")),
        (
            "interval_ms = 0",
            "`interval_ms` is a whole number from 10 to 60000, found 0 in [storage], line 15, column 15"
                .to_owned(),
        ),
        (
            "writers = 0",
            "`writers` is a whole number from 1 to 8, found 0 in [storage], line 15, column 11".to_owned(),
        ),
        (
            "writers = 9",
            "`writers` is a whole number from 1 to 8, found 9 in [storage], line 15, column 11".to_owned(),
        ),
        (
            "log_key = \"\"",
            "`log_key` is a text that is not empty, found \"\" in [storage], line 15, column 11".to_owned(),
        ),
        (
            "logkey = \"a\"",
            "unknown key `logkey` in [storage], line 15, column 1: did you mean `log_key`?".to_owned(),
        ),
        ("fsync = false", "unknown key `fsync` in [storage], line 15, column 1".to_owned()),
    ] {
        assert_eq!(error(&format!("{}[storage]\n{line}\n", whole())), expected, "{line}");
    }
    for (line, bytes) in
        [("65536", 65_536), ("0x10_0000", 1_048_576), ("\"1GiB\"", 1_073_741_824), ("\"65536\"", 65_536)]
    {
        let storage = parse(&format!("{}[storage]\nsegment_bytes = {line}\n", whole())).unwrap().storage;
        assert_eq!(storage.segment_bytes, bytes, "{line}");
    }
}

#[test]
fn the_key_of_the_log_is_beside_the_file() {
    let storage =
        |path: &str| parse(&format!("{}[storage]\nlog_key = \"{path}\"\n", whole())).unwrap().storage;
    assert_eq!(storage("broker/log.key").log_key, Some("/bus/broker/log.key".into()));
    assert_eq!(storage("/etc/keys/log.key").log_key, Some("/etc/keys/log.key".into()));
}
