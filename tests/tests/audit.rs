//! The audit log: everything that was decided, one line each, readable by its owner alone, without a secret in it; and
//! when it cannot be written the bus refuses. FAILURES T44, T45, T48, T50, T60.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use sealbus_broker::clock::SystemClock;
use sealbus_broker::config::Config;
use sealbus_broker::vfs::{FaultyVfs, Operation, OsVfs};
use sealbus_broker::{Broker, Parts, ReloadError};
use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::refusal::Code;
use sealbus_tests::audit::{class_uid, event, mentions, type_uid};
use sealbus_tests::producer::record;
use sealbus_tests::raw::{RawEnd, attempt};
use sealbus_tests::wait::within;
use sealbus_tests::{
    BrokerProcess, DEADLINE, OPERATOR, Process, Producer, RawSession, TestBus, TlsOptions, allow, eventually,
    sealbus_program,
};
use serde_json::Value;

/// ENOSPC, as the system numbers it.
const NO_SPACE: i32 = 28;

/// What no log may hold.
const CANARY: &str = "c4n4ry-p4yl04d-9f2e";

/// Lives through everything that a broker decides.
async fn live_through_everything(bus: &TestBus, broker: &BrokerProcess) {
    let program_log = bus.audit();
    let credential = bus.credential("anna");
    let mut anna = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let (mut session, _) =
        RawSession::open(bus, broker.address(), &credential, &anna).await.expect("a good client");
    let alias = session.open_topic("t/a").await.expect("it is granted");
    let good = anna.batch("t/a", &[CANARY.as_bytes()]);
    session.publish(alias, good.clone()).await.expect("it is good");
    let second = anna.resign(&good, &record(&[], b"second"), |_| {});
    session.publish(alias, second).await.expect_err("two batches for one place");
    let mut altered = anna.batch("t/a", &[b"next"]).to_vec();
    altered[HEAD_LEN - 1] ^= 1;
    session.publish(alias, altered.into()).await.expect_err("an altered batch");
    let subscription = session.subscribe("t/#", 1 << 20).await.expect("it is granted");
    session.session.close_subscription(subscription);
    session.open_topic("u").await.expect_err("it is not granted");
    session.subscribe("v/#", 1 << 20).await.expect_err("it is not granted");
    program_log.await_line("the end of a subscription", |line| event(line) == "unsubscribed").await;
    drop(session);

    attempt(bus, broker.address(), &TlsOptions::anonymous()).await;
    let stranger = bus.authority().client_with(|_| {});
    attempt(bus, broker.address(), &TlsOptions::of(&stranger)).await;
    let client = bus.connect(broker.address(), "ben").await;
    client.reload_policy().await.expect_err("ben does not administer");
    let operator = bus.connect(broker.address(), OPERATOR).await;
    operator.read_audit(0, 1).await.expect("the operator may");
    bus.write_policy(&(grants() + "\n[[revoke]]\nprincipal = \"spiffe://bus.test/ben\"\n"));
    operator.reload_policy().await.expect("a good policy");
    bus.write_policy_text("no policy");
    operator.reload_policy().await.expect_err("no policy");
    bus.write_policy(&grants());
    let crl = std::fs::read_to_string(bus.path("crl.pem")).expect("there is a list");
    bus.write("crl.pem", "");
    operator.reload_policy().await.expect_err("no revocation list");
    bus.write("crl.pem", &crl);
    operator.reload_policy().await.expect("all is well again");
}

fn grants() -> String {
    allow("in", "anna", "publish", "t/#") + &allow("out", "anna", "subscribe", "t/#")
}

/// The events of one whole life, and how the next life finds it.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_is_one_line_of_the_schema() {
    let bus = TestBus::new();
    bus.write_policy(&grants());
    let broker = bus.serve(sealbus_program!()).await;
    live_through_everything(&bus, &broker).await;
    assert!(broker.terminate().await.success());
    let mut killed = bus.serve(sealbus_program!()).await;
    killed.kill();
    bus.serve(sealbus_program!()).await.terminate().await;

    let lines = bus.audit().lines();
    let found: BTreeSet<&str> = lines.iter().map(event).collect();
    let expected: BTreeSet<&str> = [
        "admin-denied",
        "admin-done",
        "batch-refused",
        "broker-started",
        "broker-stopped",
        "denied",
        "equivocation",
        "handshake-failed",
        "opened",
        "policy-refused",
        "policy-reloaded",
        "publish-summary",
        "session-closed",
        "session-cut",
        "session-opened",
        "session-refused",
        "subscribed",
        "tls-refused",
        "tls-reloaded",
        "unsubscribed",
    ]
    .into();
    assert_eq!(found, expected);
    for (index, line) in (0_u64..).zip(&lines) {
        assert_eq!(line["unmapped"]["seq"].as_u64(), Some(index), "numbers are dense: {line}");
        assert_eq!(line["metadata"]["version"], "1.3.0");
        assert!(line["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{line}");
        let activity = line["activity_id"].as_u64().unwrap_or_default();
        assert_eq!(type_uid(line), class_uid(line) * 100 + activity, "{line}");
        assert_eq!(line["category_uid"].as_u64(), Some(class_uid(line) / 1_000), "{line}");
        for field in ["severity_id", "status_id"] {
            assert!(line[field].as_u64().is_some(), "{field}: {line}");
        }
        let required: &[&str] = match class_uid(line) {
            2004 => &["finding_info"],
            3002 => &["user", "service", "src_endpoint", "auth_protocol"],
            3004 => &["entity"],
            4001 => &["src_endpoint", "dst_endpoint"],
            6002 => &["app"],
            6003 => &["actor", "api", "src_endpoint"],
            other => panic!("class {other}: {line}"),
        };
        for field in required {
            assert!(!line[*field].is_null(), "{field}: {line}");
        }
    }
    let class_of =
        |name: &str| lines.iter().filter(|line| event(line) == name).map(class_uid).collect::<BTreeSet<_>>();
    for (name, class) in [
        ("broker-started", 6002),
        ("session-opened", 3002),
        ("session-cut", 3002),
        ("handshake-failed", 4001),
        ("policy-reloaded", 3004),
        ("denied", 6003),
        ("equivocation", 2004),
    ] {
        assert_eq!(class_of(name), [class].into(), "{name}");
    }
    let lives: Vec<&Value> = lines.iter().filter(|line| event(line) == "broker-started").collect();
    let previous: Vec<&str> = lives.iter().filter_map(|line| line["unmapped"]["previous"].as_str()).collect();
    assert_eq!(previous, ["none", "stopped", "unclean"]);
}

/// FAILURES T44, T45: what a peer says stays within its quotes, and drives no terminal.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_says_stays_on_its_line() {
    let bus = TestBus::with("[audit]\nsingles_per_second_max = 1000\n\n[log]\nfilter = \"trace\"\n");
    let broker = bus.serve(sealbus_program!()).await;
    let log = bus.audit();
    let said = [
        "agent\n{\"class_uid\":6002,\"unmapped\":{\"event\":\"broker-stopped\"}}",
        "agent\r\n\r\nHTTP/1.1 200 OK",
        "agent\u{1b}[2J\u{1b}]0;owned\u{7}",
        "agent\u{9b}31m\u{85}\u{2028}\u{2029}\u{202e}tset",
        "agent\",\"status_id\":1,\"x\":\"",
        "agent\\",
        "agent\0",
    ];
    for (count, agent) in said.into_iter().enumerate() {
        let credential = bus.credential("anna");
        let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
        let mut hello = producer.hello();
        hello.agent = agent.to_owned();
        let options = TlsOptions::of(&credential);
        let opened = RawSession::open_with(&bus, broker.address(), &options, &producer, hello).await;
        // A broker may refuse such a name, or keep it; it may not be driven by it.
        let name = if opened.is_ok() { "session-opened" } else { "session-refused" };
        let lines = log.await_count(agent, count + 1, |line| event(line) == name).await;
        assert_eq!(lines.len(), count + 1, "{agent:?}");
        if opened.is_ok() {
            assert_eq!(lines[count]["unmapped"]["agent"], agent, "what was said can be read back");
        }
    }
    // Names of certificates and topics.
    let credential = bus.credential("anna");
    let stranger = bus.authority().client_with(|parameters| {
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "x\n{\"class_uid\":6002}\u{1b}[2J");
    });
    attempt(&bus, broker.address(), &TlsOptions::of(&stranger)).await;
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let (mut session, _) = RawSession::open(&bus, broker.address(), &credential, &producer).await.unwrap();
    for topic in ["a\"b", "a\\b", "\u{202e}x/y", "\u{2028}", "zero\u{200b}width"] {
        session.open_topic(topic).await.expect_err("nothing is granted");
        log.await_line(topic, |line| event(line) == "denied" && line["resources"][0]["name"] == topic).await;
    }
    assert_eq!(log.matching(|line| event(line) == "broker-stopped").len(), 0);
    let is_harmless = |character: char| {
        !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
    };
    for line in log.text().split_terminator('\n').chain(broker.stderr().split_terminator('\n')) {
        assert!(line.chars().all(is_harmless), "{line:?}");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o7777
}

fn check_modes(folder: &Path, may_be_read: &dyn Fn(&Path) -> bool) {
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            check_modes(&path, may_be_read);
        } else if !may_be_read(&path) {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

/// FAILURES T48, whatever the umask.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_for_its_owner_alone() {
    let program = sealbus_program!();
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("bus");
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("umask 000 && {script}")).arg(program).arg(&made).stdin(Stdio::null());
        command
    };
    let script = "\"$0\" init \"$1\" --address 127.0.0.1:0 && \"$0\" identity issue anna --dir \"$1\"";
    let mut init = Process::start("sealbus init", &mut sh(script));
    assert!(init.await_end().await.success(), "{}", init.stderr());
    check_modes(&made, &|_| false);

    let mut serve =
        Process::start("sealbus serve", &mut sh("exec \"$0\" serve --config \"$1/sealbus.toml\""));
    serve.await_stderr("listening on").await;
    assert!(made.join("data/audit/audit.jsonl").is_file());
    check_modes(&made.join("data"), &|_| false);
    serve.signal(Signal::TERM);
    assert!(serve.await_end().await.success(), "{}", serve.stderr());
    check_modes(&made, &|_| false);
}

/// FAILURES T50: neither payloads nor keys are in any log, list of processes or error, even when everything is logged.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_argument_or_error() {
    let program = sealbus_program!();
    let bus = TestBus::with("[log]\nfilter = \"trace\"\n");
    bus.write_policy(&grants());
    let broker = bus.serve(program).await;
    live_through_everything(&bus, &broker).await;
    let address = broker.address();
    let mut sub = bus.run(program, address, "anna", &["sub", "t/#"]);
    sub.await_stderr("READY").await;
    let mut publish = Process::start(
        "sealbus pub",
        bus.command(program, address, "anna").args(["pub", "t/a", "--lines"]).stdin(Stdio::piped()),
    );
    {
        use std::io::Write as _;
        let mut stdin = publish.stdin();
        writeln!(stdin, "{CANARY}").unwrap();
        eventually("the payload arrives", || sub.stdout().contains(CANARY).then_some(())).await;
        let secrets = secrets(&bus);
        for (name, text) in [
            ("the arguments of the broker", broker.command_line()),
            ("the arguments of sub", sub.command_line()),
            ("the arguments of pub", publish.command_line()),
        ] {
            assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{name}: {text}");
        }
    }
    publish.await_end().await;
    let secrets = secrets(&bus);
    let texts = [
        ("the audit log", bus.audit().text()),
        ("the broker's log", broker.stderr()),
        ("what sub says", sub.stderr()),
        ("what pub says", publish.stderr()),
    ];
    for (name, text) in texts {
        assert!(!text.is_empty(), "{name} says something");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} holds {secret:?}");
        }
    }
    // Files that hold something else than they should are named, not quoted.
    for (file, content) in [("broker/tls.key", CANARY), ("crl.pem", CANARY), ("ca.pem", CANARY)] {
        let bus = TestBus::new();
        bus.write(file, content);
        let path = bus.path(file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = BrokerProcess::start_refused(program, &bus.config()).await;
        assert!(!said.contains(CANARY), "{file}: {said}");
    }
    let folder = bus.path("identities/broken");
    bus.credential("broken").write_to(&folder);
    std::fs::write(folder.join("tls.key"), CANARY).unwrap();
    let mut broken = bus.run(program, address, "broken", &["sub", "t"]);
    assert!(!broken.await_end().await.success());
    assert!(!broken.stderr().contains(CANARY), "{}", broken.stderr());
}

/// The payload, and every line of every private key of the bus.
fn secrets(bus: &TestBus) -> Vec<String> {
    let mut secrets = vec![CANARY.to_owned()];
    let mut keys = vec![
        bus.broker_credential().key_pem().to_owned(),
        bus.authority().own_credential().key_pem().to_owned(),
    ];
    for entry in std::fs::read_dir(bus.path("identities")).expect("there are identities") {
        let key = entry.expect("the folder can be read").path().join("tls.key");
        keys.push(std::fs::read_to_string(key).expect("an identity has a key"));
    }
    for key in keys {
        secrets.extend(
            key.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")).map(str::to_owned),
        );
    }
    secrets
}

/// FAILURES T60: a bus that cannot remember refuses; it does not forget, and does not recover by itself.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_audit_log_cannot_be_written_the_bus_refuses() {
    let bus = TestBus::new();
    bus.write_policy(&grants());
    let vfs = FaultyVfs::below(OsVfs, bus.path("data/audit"), []);
    let config = Config::load(&OsVfs, &bus.config()).unwrap();
    let parts = Parts { clock: Arc::new(SystemClock::new()), vfs: Arc::new(vfs.clone()) };
    let broker = within("the broker starts", Broker::start(config, parts)).await.unwrap();
    let address = broker.addresses()[0];
    let credential = bus.credential("anna");
    let mut anna = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let (mut session, welcome) = RawSession::open(&bus, address, &credential, &anna).await.unwrap();
    let alias = session.open_topic("t/a").await.unwrap();
    session.publish(alias, anna.batch("t/a", &[b"x"])).await.unwrap();
    bus.audit().await_line("the session", |line| event(line) == "opened").await;
    let lines_before = bus.audit().lines().len();

    vfs.fail_from(Operation::Append, 1, NO_SPACE);
    // A change is not made.
    bus.write_policy(&(grants() + &allow("more", "anna", "publish", "u")));
    let error = broker.reload().await.expect_err("a change that cannot be recorded");
    assert!(matches!(error, ReloadError::Audit(_)), "{error}");
    // A new session is not opened, and is told why.
    for _ in 0..3 {
        let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
        match RawSession::open(&bus, address, &credential, &producer).await {
            Err(RawEnd::Refused(refusal)) => assert_eq!(refusal.code(), Code::AuditUnavailable, "{refusal}"),
            Err(end) => panic!("the broker says nothing but {end}"),
            Ok(_) => panic!("a session was opened that is not in the log"),
        }
    }
    // What an open session does that belongs into the log is refused, or ends it. Nothing is done silently.
    session.session.open(sealbus_client::Topic::parse("u").unwrap()).unwrap();
    match session.next().await {
        Ok(sealbus_protocol::session::ClientEvent::Refused(refused)) => {
            assert_eq!(refused.refusal.code(), Code::AuditUnavailable, "{}", refused.refusal);
        }
        Err(RawEnd::Refused(refusal)) => assert_eq!(refusal.code(), Code::AuditUnavailable, "{refusal}"),
        other => panic!("in a policy of generation {} the broker says {other:?}", welcome.generation),
    }
    // The disk has room again: a log with a hole would be worse than none, so that only a new start mends it.
    vfs.heal();
    let error = broker.reload().await.expect_err("the log has failed for good");
    assert!(matches!(error, ReloadError::Audit(_)), "{error}");
    assert_eq!(bus.audit().lines().len(), lines_before, "nothing was written after the failure");
    assert!(broker.shutdown().await.is_err(), "its end cannot be recorded either, and that is told");

    let next = bus.serve(sealbus_program!()).await;
    let started = bus.audit().await_count("the next life", 2, |line| event(line) == "broker-started").await;
    assert_eq!(started[1]["unmapped"]["previous"], "unclean");
    assert!(next.terminate().await.success());
}

/// FAILURES T49: whatever is asked for, what comes is there and fits.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_at_the_edge_read_what_is_there_and_no_more() {
    let bus = TestBus::new();
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    operator.read_audit(0, 1).await.expect("the operator may");
    let log = bus.audit();
    log.await_line("the reading is recorded once", |line| event(line) == "admin-done").await;
    let written = u64::try_from(log.lines().len()).unwrap();
    // Only what cannot be lost any more is read, which the last lines become within a second.
    let whole = async {
        loop {
            let page = operator.read_audit(0, u32::MAX).await.expect("the operator may");
            if page.next == written {
                return page;
            }
        }
    };
    let count = within("every line is durable", whole).await.next;
    for (from, lines_max) in
        [(0, u32::MAX), (0, 0), (count, 1), (count + 1, 1), (u64::MAX, 1), (u64::MAX, u32::MAX)]
    {
        let Ok(page) = operator.read_audit(from, lines_max).await else { continue };
        let most = count.saturating_sub(from).min(u64::from(lines_max));
        let lines = u64::try_from(page.lines.len()).unwrap();
        assert!(lines <= most, "{lines} lines from {from}, at most {lines_max}, of {count}");
        assert!(lines == most || lines > 0, "what is there is read: from {from}, at most {lines_max}");
    }
    let page = operator.read_audit(0, u32::MAX).await.expect("the connection goes on");
    assert_eq!(u64::try_from(page.lines.len()).unwrap(), count);
    assert_eq!(page.lines, log.text().lines().collect::<Vec<_>>());
}

/// Two brokers would write one log.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_data_is_refused() {
    let bus = TestBus::new();
    let broker = bus.serve(sealbus_program!()).await;
    let lines = bus.audit().lines().len();
    let said = BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
    assert!(said.contains("LOCK"), "{said}");
    assert_eq!(bus.audit().lines().len(), lines, "the second has not touched the first one's log");
    let anna = bus.connect(broker.address(), "anna").await;
    assert_eq!(anna.principal(), bus.principal("anna"));
    broker.terminate().await;
    bus.serve(sealbus_program!()).await.terminate().await;
}

/// FAILURES T45: the reader's terminal.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_by_who_may_and_as_it_is() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&grants());
    let broker = bus.serve(program).await;
    let mut anna = bus.run(program, broker.address(), "anna", &["audit", "tail"]);
    assert_eq!(anna.await_end().await.code(), Some(1), "{}", anna.stderr());
    assert!(anna.stderr().contains("DENIED") || anna.stderr().contains("denied"), "{}", anna.stderr());
    bus.audit()
        .await_line("the denial", |line| event(line) == "admin-denied" && mentions(line, "anna"))
        .await;

    let arguments = ["audit", "tail", "-n", "1000", "-o", "jsonl"];
    // Only what would survive a power loss is served, and the denial may not have been synced yet.
    let give_up = std::time::Instant::now() + DEADLINE;
    let shown = loop {
        let mut tail = bus.run(program, broker.address(), OPERATOR, &arguments);
        assert!(tail.await_end().await.success(), "{}", tail.stderr());
        let lines = tail.stdout_lines();
        if lines.iter().any(|line| line.contains("\"event\":\"admin-denied\"")) {
            break lines;
        }
        assert!(std::time::Instant::now() < give_up, "the denial was not served: {lines:?}");
    };
    let text = bus.audit().text();
    for line in shown {
        assert!(text.lines().any(|of_log| of_log == line), "as it is in the log: {line}");
    }
}
