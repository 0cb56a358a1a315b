//! What `init`, `identity` and `context` leave on the disk, and what they refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{done, run, sealbus};

const FILES: [&str; 14] = [
    "ca/ca.pem",
    "ca/ca.key",
    "ca/crl.pem",
    "broker/tls.crt",
    "broker/tls.key",
    "broker/log.key",
    "identities/operator/tls.crt",
    "identities/operator/tls.key",
    "identities/operator/context.toml",
    "operator/signing.key",
    "trust.toml",
    "sealbus.toml",
    "policy.toml",
    "data",
];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[test]
fn a_new_bus_is_complete_and_its_owners_alone() {
    let home = tempfile::tempdir().unwrap();
    let said = done(home.path(), &["init", "bus"]);
    let bus = home.path().join("bus");
    for file in FILES {
        let path = bus.join(file);
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{file}");
    }
    for folder in ["", "ca", "broker", "identities", "identities/operator", "operator", "data"] {
        assert_eq!(mode(&bus.join(folder)), 0o700, "{folder}");
    }
    let key = fs::read_to_string(bus.join("operator/signing.key")).unwrap();
    assert!(key.starts_with("PRIVATE+KEY+operator+"), "{key}");
    let log_key = fs::read_to_string(bus.join("broker/log.key")).unwrap();
    assert!(log_key.starts_with("PRIVATE+KEY+"), "{log_key}");
    let config = fs::read_to_string(bus.join("sealbus.toml")).unwrap();
    assert!(config.contains("\n[storage]\nlog_key = \"broker/log.key\""), "{config}");
    let trust = fs::read_to_string(bus.join("trust.toml")).unwrap();
    let public = trust
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("key = \""))
        .and_then(|key| key.strip_suffix('"'));
    assert!(public.is_some_and(|key| key.len() == 44 && said.contains(key)), "{trust}");
    assert!(!said.contains("PRIVATE"), "no private key is printed: {said}");
    let next: Vec<&str> = said.lines().skip_while(|line| *line != "Next:").skip(1).collect();
    assert_eq!(
        next,
        [
            "  sealbus serve --config bus/sealbus.toml",
            "  sealbus identity issue billing --dir bus",
            "  sealbus --context bus/identities/operator audit tail -f"
        ]
    );
}

#[test]
fn what_init_wrote_passes_the_check_of_serve() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus", "--trust-domain", "acme.example", "--host", "bus.acme.example"]);
    let said = done(home.path(), &["serve", "--config", "bus/sealbus.toml", "--check"]);
    assert!(said.contains("spiffe of acme.example"), "{said}");
    assert!(said.contains("configuration, certificates and policy are good"), "{said}");
    let context = fs::read_to_string(home.path().join("bus/identities/operator/context.toml")).unwrap();
    assert!(context.contains("server = \"bus.acme.example:7433\""), "{context}");
}

#[test]
fn check_names_what_start_up_would_refuse() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus"]);
    let bus = home.path().join("bus");
    fs::set_permissions(bus.join("broker/tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open_key = run(home.path(), &["serve", "--config", "bus/sealbus.toml", "--check"]);
    assert_eq!(open_key.code, 1);
    assert!(open_key.stderr.contains("tls.key"), "{}", open_key.stderr);
    fs::set_permissions(bus.join("broker/tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(bus.join("policy.toml"), "").unwrap();
    let empty_policy = run(home.path(), &["serve", "--config", "bus/sealbus.toml", "--check"]);
    assert_eq!(empty_policy.code, 1);
    assert!(empty_policy.stderr.contains("policy"), "{}", empty_policy.stderr);
}

#[test]
fn nothing_is_written_over() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus"]);
    let key = fs::read(home.path().join("bus/ca/ca.key")).unwrap();
    let again = run(home.path(), &["init", "bus"]);
    assert_eq!(again.code, 1);
    assert!(
        again.stderr.starts_with("error: cannot make a bus in bus\n  found: the folder is not empty"),
        "{}",
        again.stderr
    );
    assert!(again.stderr.contains("\n  try:   "), "{}", again.stderr);
    assert_eq!(fs::read(home.path().join("bus/ca/ca.key")).unwrap(), key);

    done(home.path(), &["identity", "issue", "billing", "--dir", "bus"]);
    let again = run(home.path(), &["identity", "issue", "billing", "--dir", "bus"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("never written over"), "{}", again.stderr);
}

#[test]
fn an_issued_identity_is_shown_as_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus", "--trust-domain", "acme.example"]);
    done(home.path(), &["identity", "issue", "billing", "--dir", "bus"]);
    let shown = done(home.path(), &["identity", "show", "bus/identities/billing", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["principal"], "spiffe://acme.example/billing");
    assert_eq!(shown["client_auth"], true);
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(mode(&home.path().join("bus/identities/billing/tls.key")), 0o600);
    let table = done(home.path(), &["identity", "show", "bus/identities/billing/tls.crt"]);
    assert!(table.contains("principal    spiffe://acme.example/billing\n"), "{table}");
    assert!(table.contains("more days)"), "{table}");
    let by_context = done(home.path(), &["--context", "bus/identities/billing", "identity", "show"]);
    assert_eq!(by_context, table);
}

#[test]
fn an_identity_with_hosts_may_serve_too() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus"]);
    done(home.path(), &["identity", "issue", "gateway", "--dir", "bus", "--host", "gateway.example"]);
    let shown = done(home.path(), &["identity", "show", "bus/identities/gateway", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["principal"], "spiffe://bus.local/gateway");
    assert!(shown["principals"].as_array().unwrap().contains(&"dns:gateway.example".into()), "{shown}");
}

#[test]
fn names_that_cannot_be_are_refused_with_advice() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus"]);
    for name in ["a/b", "..", "a b", "ä"] {
        let ran = run(home.path(), &["identity", "issue", name, "--dir", "bus"]);
        assert_eq!(ran.code, 2, "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains("a name is letters, digits"), "{}", ran.stderr);
    }
    let domain = run(home.path(), &["init", "other", "--trust-domain", "Acme Example"]);
    assert_eq!(domain.code, 2, "{}", domain.stderr);
    let host = run(home.path(), &["init", "other", "--host", "https://bus"]);
    assert_eq!(host.code, 1);
    assert!(host.stderr.contains("neither a DNS name nor an IP address"), "{}", host.stderr);
    assert!(!home.path().join("other").exists(), "a refused bus leaves no folder");
}

#[test]
fn contexts_have_names_and_flags_replace_what_they_say() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus"]);
    let add = [
        "context",
        "add",
        "local",
        "--server",
        "127.0.0.1:7433",
        "--identity",
        "bus/identities/operator",
        "--trust",
        "bus/trust.toml",
    ];
    done(home.path(), &add);
    let file = home.path().join(".config/sealbus/contexts/local.toml");
    assert_eq!(mode(&file), 0o600);
    let again = run(home.path(), &add);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("is not written over"), "{}", again.stderr);

    let list = done(home.path(), &["context", "list", "-o", "jsonl"]);
    let listed: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(listed["name"], "local");
    assert!(listed["identity"].as_str().unwrap().starts_with('/'), "paths are absolute: {listed}");
    assert!(done(home.path(), &["context", "list"]).starts_with("name   server"));

    let shown =
        done(home.path(), &["--context", "local", "--server", "other:1", "context", "show", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["server"], &shown["trust"]), (&"other:1".into(), &listed["trust"]));

    let by_environment = sealbus(home.path(), &["context", "show", "-o", "jsonl"])
        .env("SEALBUS_CONTEXT", "local")
        .output()
        .unwrap();
    assert!(by_environment.status.success());
}

#[test]
fn a_context_that_is_not_there_says_where_it_was_looked_for() {
    let home = tempfile::tempdir().unwrap();
    let none = run(home.path(), &["context", "show"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("--server, --identity, --trust is not given"), "{}", none.stderr);
    assert!(none.stderr.contains("SEALBUS_CONTEXT"), "{}", none.stderr);
    let unknown = run(home.path(), &["--context", "nowhere", "context", "show"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains(".config/sealbus/contexts/nowhere.toml"), "{}", unknown.stderr);
    for name in ["../x", ".hidden", "a b", ""] {
        let ran =
            run(home.path(), &["context", "add", name, "--server", "a:1", "--identity", "b", "--trust", "c"]);
        assert_eq!(ran.code, 2, "{name:?}: {}", ran.stderr);
    }
    fs::write(home.path().join("typo.toml"), "sever = \"a:1\"\n").unwrap();
    let typo = run(home.path(), &["--context", "typo.toml", "context", "show"]);
    assert_eq!(typo.code, 1);
    assert!(typo.stderr.contains("sever"), "{}", typo.stderr);
}
