//! The texts that `sealbus init` writes.

use std::net::SocketAddr;

use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, StreamId};

/// `trust.toml`.
pub(super) fn trust_toml(bus_id: BusId, trust_domain: &str, log_key: &str) -> String {
    format!(
        r#"# What a client of this bus believes, and takes from nobody else. Services need a copy, and ca/ca.pem beside it.
bus_id = "{bus_id}"
broker_roots = "ca/ca.pem"              # who may say who the broker is

[[trust_domain]]                        # whose messages are believed
name = "{trust_domain}"
principal = "spiffe"
roots = "ca/ca.pem"

[log]                                   # who signs the checkpoints of this bus's streams
key = "{log_key}"
"#
    )
}

/// `sealbus.toml`.
pub(super) fn sealbus_toml(bus_id: BusId, trust_domain: &str, address: SocketAddr) -> String {
    format!(
        r#"# The broker. Relative paths are relative to this file. `sealbus serve --config FILE --check` reads it and exits.
bus_id = "{bus_id}"                     # never changes: what was signed for one bus means nothing on another
data_dir = "data"
policy = "policy.toml"

[[listener]]
address = "{address}"
zone = "local"                          # what a rule's `when` may name
principal = "spiffe"                    # spiffe | dns | cn
trust_domain = "{trust_domain}"
certificate = "broker/tls.crt"
key = "broker/tls.key"
client_ca = "ca/ca.pem"
revocation = "crl"                      # crl | short-lived
crl = "ca/crl.pem"

[storage]
log_key = "broker/log.key"              # signs checkpoints; trust.toml has its public half

[log]
format = "text"                         # text | json, on stderr
filter = "info"                         # error | warn | info | debug | trace
"#
    )
}

/// `policy.toml`, with an example of everything. The stream of the example has this id.
pub(super) fn policy_toml(operator: &Principal, trust_domain: &str, stream_id: StreamId) -> String {
    format!(
        r#"# Who may do what. Nothing is allowed that no rule allows, and a [[deny]] beats every [[allow]].
#   sealbus policy check FILE      reads it and runs its tests
#   sealbus policy reload          puts it in force, on every connection, before the command returns
version = 1                             # raise it with each change: clients and the audit log show it

[[allow]]
id = "operator"                         # every decision names its rule
who = ["{operator}"]
verbs = ["admin", "audit"]

# A service that publishes, and one that receives. `sealbus identity issue NAME` makes their certificates.
#
# [[allow]]
# id = "board-publishes-flights"
# who = ["spiffe://{trust_domain}/board"]
# verbs = ["publish"]
# topics = ["flights/+/+"]              # `+` is one level, a trailing `#` is everything below
#
# [[allow]]
# id = "display-reads-jfk"
# who = ["role:displays"]               # roles are defined under [roles]
# verbs = ["subscribe"]
# topics = ["flights/JFK/+"]
# when = {{ source = ["127.0.0.0/8"], until = "2030-01-01T00:00:00Z" }}
#
# [roles]                               # stands above the first [[allow]] or below the last, as you like
# displays = ["spiffe://{trust_domain}/display", "spiffe://{trust_domain}/displays/*"]
#
# Messages that are kept, so that they can be read later. No two streams have one id:
# `sealbus stream new NAME --topics FILTER` prints such an entry with a fresh one.
#
# [[stream]]
# name = "flights"
# id = "{stream_id}"
# topics = ["flights/#"]                # no topic is kept by two streams
# retention = {{ age = "7d", bytes = "20GiB" }}   # whichever comes first; without it they are kept for ever
# durability = "fsync"                  # fsync | interval | memory: when a message is acknowledged
#
# [[allow]]
# id = "reports-read-the-history-of-jfk"
# who = ["spiffe://{trust_domain}/reports"]
# verbs = ["replay", "consume"]         # read history; have a durable consumer
# topics = ["flights/JFK/+"]            # narrows it; without it everything that the stream keeps
# streams = ["flights"]
#
# [[allow]]
# id = "operator-sees-streams"
# who = ["{operator}"]
# verbs = ["describe"]                  # settings and state of streams and consumers
# streams = ["flights"]
#
# [[deny]]
# id = "nobody-reads-secrets"
# who = ["spiffe://{trust_domain}/*"]
# verbs = ["subscribe"]
# topics = ["secret/#"]
#
# [[revoke]]                            # from that moment on, whatever the rules say; live sessions are cut
# principal = "spiffe://{trust_domain}/old-reports"
# from = "2026-01-01T00:00:00Z"

# Tests are run by `check`, at start and at each reload. A policy that fails one is refused as a whole.
[[test]]
who = "{operator}"
can = {{ admin = true, audit = true }}
cannot = {{ publish = ["flights/JFK/B6"] }}

[[test]]
who = "spiffe://{trust_domain}/nobody"
cannot = {{ subscribe = ["flights/JFK/B6"], publish = ["flights/JFK/B6"], admin = true, audit = true }}
"#
    )
}

#[cfg(test)]
mod tests {
    use sealbus_broker::config::Config;
    use sealbus_protocol::policy::{CompiledPolicy, Policy};

    use super::*;

    #[test]
    fn the_policy_that_is_written_is_one_also_with_its_examples() {
        let operator = Principal::parse("spiffe://bus.local/operator").unwrap();
        let text = policy_toml(&operator, "bus.local", StreamId::new([7; 16]));
        let compiled = CompiledPolicy::compile(Policy::parse(&text).unwrap(), 0).unwrap();
        assert_eq!((compiled.summary().allows, compiled.summary().tests), (1, 2));
        let examples: String = text
            .lines()
            .skip(3)
            .map(|line| match line.strip_prefix("# ") {
                Some(example) if example.starts_with(|first: char| first == '[' || first.is_lowercase()) => {
                    format!("{example}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let compiled = CompiledPolicy::compile(Policy::parse(&examples).unwrap(), 0).unwrap();
        assert_eq!(
            compiled.summary().to_string(),
            "version 1: 5 allow, 1 deny, 1 roles, 1 streams, 1 revocations, 2 tests"
        );
        let stream = compiled.stream("flights").unwrap();
        assert_eq!(stream.id(), StreamId::new([7; 16]));
        assert_eq!(compiled.policy().advice(), []);
    }

    #[test]
    fn the_configuration_that_is_written_is_one() {
        let text = sealbus_toml(BusId::new([7; 16]), "bus.local", "127.0.0.1:7433".parse().unwrap());
        let config = Config::parse(&text, "/bus".as_ref()).unwrap();
        assert_eq!(config.storage.log_key, Some("/bus/broker/log.key".into()));
    }
}
