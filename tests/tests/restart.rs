//! The broker is killed and started again while others publish and listen: both go on, every message has exactly one
//! answer, and nothing is handed out twice.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::HashSet;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use sealbus_client::{DeliveryError, PublishError, Receipt, Reconnect, RejectionCode};
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::event;
use sealbus_tests::{
    BrokerProcess, Process, Producer, RawSession, TestBus, allow, eventually, sealbus_program,
};

const KILLS: usize = 3;

/// Messages that await their receipt at a time.
const WINDOW: usize = 64;

async fn bus_and_broker() -> (TestBus, BrokerProcess) {
    let bus = TestBus::new();
    bus.write_policy(
        &(allow("in", "producer", "publish", "t") + &allow("out", "consumer", "subscribe", "t")),
    );
    let broker = bus.serve(sealbus_program!()).await;
    // From now on at this address.
    bus.listen_on(broker.address().port());
    (bus, broker)
}

/// What the publisher was told of each message.
#[derive(Default)]
struct Answers {
    accepted: Vec<Receipt>,
    unknown: u64,
}

impl Answers {
    fn note(&mut self, answer: Result<Receipt, PublishError>) {
        match answer {
            Ok(receipt) => self.accepted.push(receipt),
            // Told that it may have been accepted or not, which is an answer too.
            Err(PublishError::Lost | PublishError::Unanswered { .. }) => self.unknown += 1,
            Err(error) => panic!("a good message was refused: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_and_nothing_comes_twice_when_the_broker_is_killed() {
    let (bus, mut broker) = bus_and_broker().await;
    let quickly =
        Reconnect { initial: Duration::from_millis(10), max: Duration::from_millis(100), attempts: None };
    let connect = async |name: &str| {
        sealbus_client::builder()
            .server(broker.address().to_string())
            .identity(bus.client_identity(name))
            .trust(bus.trust())
            .publish_timeout(Duration::from_secs(60))
            .reconnect(quickly)
            .connect()
            .await
            .expect("the broker is there")
    };
    let consumer = connect("consumer").await;
    let mut messages = consumer.subscribe("t").await.unwrap();
    let producer = connect("producer").await;
    let publisher = producer.publisher("t").await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(AtomicU64::new(0));
    let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&accepted));
    let publishing = tokio::spawn(async move {
        let mut answers = Answers::default();
        let mut pending = std::collections::VecDeque::new();
        let mut number = 0_u64;
        while !stopping.load(Ordering::SeqCst) {
            pending.push_back(publisher.enqueue_when_ready(number.to_string()).await.expect("there is room"));
            number += 1;
            if pending.len() >= WINDOW {
                answers.note(pending.pop_front().expect("something is pending").await);
                counting.store(u64::try_from(answers.accepted.len()).expect("few"), Ordering::SeqCst);
            }
        }
        for receipt in pending {
            answers.note(receipt.await);
        }
        let last = publisher.publish("end").await.expect("the broker is up");
        answers.accepted.push(last);
        (number + 1, answers)
    });
    let received = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&received);
    let listening = tokio::spawn(async move {
        let (mut seen, mut missed, mut replays) = (Vec::new(), 0, 0_u64);
        loop {
            match messages.next().await.expect("the subscription goes on") {
                Ok(message) => {
                    let is_end = message.payload() == b"end";
                    seen.push((message.incarnation_id(), message.sequence(), message.payload_bytes()));
                    counting.fetch_add(1, Ordering::SeqCst);
                    if is_end {
                        return (seen, missed, replays);
                    }
                }
                Err(DeliveryError::Gap { missed: count, .. }) => missed += count,
                // A batch whose acknowledgement was lost is sent again to a broker that knows nothing of the first.
                Err(DeliveryError::Rejected(rejection)) if rejection.code == RejectionCode::Replay => {
                    replays += 1
                }
                Err(error) => panic!("the consumer is told {error}"),
            }
        }
    });
    for kill in 0..KILLS {
        let (accepted_before, received_before) =
            (accepted.load(Ordering::SeqCst), received.load(Ordering::SeqCst));
        eventually(&format!("both go on before kill {kill}"), || {
            let accepted = accepted.load(Ordering::SeqCst) >= accepted_before + 500;
            (accepted && received.load(Ordering::SeqCst) >= received_before + 500).then_some(())
        })
        .await;
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
    let (accepted_before, received_before) =
        (accepted.load(Ordering::SeqCst), received.load(Ordering::SeqCst));
    eventually("both go on after the last kill", || {
        let accepted = accepted.load(Ordering::SeqCst) >= accepted_before + 500;
        (accepted && received.load(Ordering::SeqCst) >= received_before + 500).then_some(())
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let (published, answers) = publishing.await.unwrap();
    let (seen, missed, replays) = listening.await.unwrap();

    let answered = u64::try_from(answers.accepted.len()).unwrap() + answers.unknown;
    assert_eq!(answered, published, "each message has exactly one answer");
    let places: HashSet<_> =
        answers.accepted.iter().map(|receipt| (receipt.incarnation(), receipt.sequence())).collect();
    assert_eq!(places.len(), answers.accepted.len(), "no two messages have one place");
    let payloads: HashSet<_> = seen.iter().map(|(_, _, payload)| payload.clone()).collect();
    assert_eq!(payloads.len(), seen.len(), "nothing is handed out twice");
    let seen_places: HashSet<_> =
        seen.iter().map(|(incarnation, sequence, _)| (*incarnation, *sequence)).collect();
    assert_eq!(seen_places.len(), seen.len());
    let incarnations: HashSet<_> = seen_places.iter().map(|(incarnation, _)| *incarnation).collect();
    assert_eq!(incarnations.len(), 1, "an incarnation survives reconnects");
    let received = u64::try_from(seen.len()).unwrap();
    assert_eq!(
        received + missed,
        published,
        "what was not received is told ({replays} replays were refused)"
    );
    let log = bus.audit();
    let starts = log.matching(|line| event(line) == "broker-started");
    assert_eq!(starts.len(), KILLS + 1);
    assert!(starts[1..].iter().all(|line| line["unmapped"]["previous"] == "unclean"), "{starts:?}");
}

/// The same by the program, as an operator would see it.
#[tokio::test(flavor = "multi_thread")]
async fn pub_ends_with_the_exact_count_and_sub_goes_on() {
    let program = sealbus_program!();
    let (bus, mut broker) = bus_and_broker().await;
    let address = broker.address();
    let mut sub = bus.run(program, address, "consumer", &["sub", "t", "--raw"]);
    sub.await_stderr("READY").await;
    let mut command = bus.command(program, address, "producer");
    let mut publish =
        Process::start("sealbus pub", command.args(["pub", "t", "--lines"]).stdin(Stdio::piped()));
    let mut stdin = publish.stdin();
    const LINES: usize = 200;
    let mut write = |part: usize| {
        for line in 0..LINES {
            writeln!(stdin, "{part}-{line}").expect("pub reads its stdin");
        }
        stdin.flush().expect("pub reads its stdin");
    };
    write(0);
    eventually("the first part arrives", || (sub.stdout_lines().len() >= LINES).then_some(())).await;
    broker.kill();
    write(1);
    broker = bus.serve(program).await;
    assert_eq!(broker.address(), address);
    // Whatever was published before `sub` was back may be missed; what is published from then on is not.
    eventually("sub is back", || {
        let opened = bus.audit().matching(|line| event(line) == "subscribed");
        (opened.len() >= 2).then_some(())
    })
    .await;
    write(2);
    drop(stdin);
    let status = publish.await_end().await;
    let said = publish.stderr();
    assert!(status.success(), "{said}");
    assert_eq!(said.lines().last(), Some(format!("{} acknowledged", 3 * LINES).as_str()), "{said}");
    eventually("the last part arrives", || {
        let lines = sub.stdout_lines();
        lines.iter().any(|line| *line == format!("2-{}", LINES - 1)).then_some(())
    })
    .await;
    let lines = sub.stdout_lines();
    let different: HashSet<_> = lines.iter().collect();
    assert_eq!(different.len(), lines.len(), "nothing is printed twice");
    for part in [0, 2] {
        let of_part = lines.iter().filter(|line| line.starts_with(&format!("{part}-"))).count();
        assert_eq!(of_part, LINES, "part {part} is complete: {}", sub.stderr());
    }
    assert!(broker.terminate().await.success());
}

/// A broker that is told to stop takes nothing new, and finishes what it has acknowledged: here 4 MiB for a consumer
/// that begins to read when the broker is already leaving.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_told_to_stop_delivers_what_it_acknowledged() {
    const BATCHES: usize = 64;
    let (bus, broker) = bus_and_broker().await;
    let member = |name: &str| {
        let credential = bus.credential(name);
        let producer = Producer::new(bus.bus_id(), &bus.principal(name), &credential);
        (credential, producer)
    };
    let (credential, consumer) = member("consumer");
    let (mut session, _) = RawSession::open(&bus, broker.address(), &credential, &consumer).await.unwrap();
    session.subscribe("t", 1 << 40).await.unwrap();
    let (credential, mut producer) = member("producer");
    let (mut publishing, _) = RawSession::open(&bus, broker.address(), &credential, &producer).await.unwrap();
    let alias = publishing.open_topic("t").await.unwrap();
    let payload = vec![b'x'; 64 * 1_024];
    for _ in 0..BATCHES {
        let batch = producer.batch("t", &[&payload]);
        publishing.publish(alias, batch).await.unwrap();
    }
    broker.signal(Signal::TERM);
    let mut delivered = 0;
    let mut is_told = false;
    let end = loop {
        match session.next().await {
            Ok(ClientEvent::Deliver(_)) => delivered += 1,
            Ok(ClientEvent::Drain(_)) => is_told = true,
            Ok(ClientEvent::Lagged(lagged)) => panic!("{lagged:?}"),
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert_eq!(delivered, BATCHES, "{end}");
    assert!(is_told, "DRAIN says that the broker leaves");
    drop((session, publishing));
    assert!(broker.terminate().await.success());
    let log = bus.audit();
    assert_eq!(log.lines().last().map(event), Some("broker-stopped"));
}
