//! Thirty kills: no acknowledged message is lost, altered, moved or doubled, and no consumer misses one. The checker that
//! says so is shown to bite.

use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use sealbus_client::{Code, Start};
use sealbus_protocol::frame::{ConsumerSettings, Freshness, SettleItem, Settlement};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::killing::{Options, check, run};
use sealbus_tests::wait::within;
use sealbus_tests::{Producer, RawSession, TestBus, allow, allow_stream, sealbus_program, stream};

const KILLS: u64 = 30;

/// One that is known. Whoever hunts for others runs `kill-campaign`.
const SEED: u64 = 20_130_101;

const ORDERS: StreamId = StreamId::new([7; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_altered_moved_or_doubled_when_the_broker_is_killed() {
    let mut folder = tempfile::TempDir::with_prefix("sealbus-kill-").expect("a temporary folder can be made");
    // Whoever wants to know why it failed needs it.
    folder.disable_cleanup(true);
    let options = Options {
        kills: KILLS,
        seed: SEED,
        program: sealbus_program!().to_owned(),
        folder: folder.path().to_owned(),
    };
    let outcome = Box::pin(run(&options)).await;
    let verdict = check(outcome.history());
    if !verdict.is_good {
        outcome.keep_files();
        panic!("{}\nhistory and files are in {}", verdict.report, folder.path().display());
    }
    println!("{}", verdict.report);
    // The same history with one thing wrong must not pass: a checker that finds nothing may be one that looks at nothing.
    self_test(&[outcome.history().as_os_str()]);
    folder.disable_cleanup(false);
}

/// What a kill makes of an acknowledgement that was on its way: the batch is sent again to a broker that has it, and
/// nothing else happens there.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_kept_already_is_acknowledged_at_once_when_it_is_sent_again() {
    let bus = TestBus::new();
    bus.write_policy(
        &(stream("orders", &ORDERS.to_string(), "orders/#", "") + &allow("write", "shop", "publish", "#")),
    );
    let mut broker = bus.serve(sealbus_program!()).await;
    bus.listen_on(broker.address().port());
    let credential = bus.credential("shop");
    let mut producer = Producer::new(bus.bus_id(), &bus.principal("shop"), &credential);
    let batches = [b"first", b"other"].map(|payload| producer.batch_in(ORDERS, "orders/eu", &[payload]));
    let mut before = Vec::new();
    for life in 0..2 {
        let session = RawSession::open(&bus, broker.address(), &credential, &producer).await;
        let (mut session, _) = session.expect("the session opens");
        let alias = session.open_topic("orders/eu").await.expect("the topic opens");
        for (place, batch) in batches.iter().enumerate() {
            let ack = session.publish_for_ack(alias, batch.clone()).await.expect("the batch is good");
            match life {
                0 => before.push(ack),
                _ => {
                    let first = &before[place];
                    assert_eq!((ack.freshness, ack.receipt), (Freshness::Duplicate, first.receipt));
                }
            }
        }
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
}

/// An acknowledgement that comes after a kill is for a message that is nobody's: whoever waits for it must not be told
/// that the message does not come again, since it does.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_had_no_effect_is_not_said_to_be_durable() {
    const CREDIT: u64 = 1 << 20;
    let bus = TestBus::new();
    bus.write_policy(
        &(stream("orders", &ORDERS.to_string(), "orders/#", "")
            + &allow("write", "shop", "publish", "#")
            + &allow_stream("work", "billing", "consume", "orders")),
    );
    let mut broker = bus.serve(sealbus_program!()).await;
    bus.listen_on(broker.address().port());
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    for number in 0..3 {
        within("publishing", publisher.publish(number.to_string())).await.expect("it is kept");
    }
    let credential = bus.credential("billing");
    let producer = Producer::new(bus.bus_id(), &bus.principal("billing"), &credential);
    let ack = |offset| SettleItem { offset, count: NonZeroU32::MIN, settlement: Settlement::Ack };
    let mut answers = Vec::new();
    // The member that comes after the kill has no credit: the message is not its own when it acknowledges it.
    for credit_bytes in [CREDIT, 0] {
        let session = RawSession::open(&bus, broker.address(), &credential, &producer).await;
        let (mut session, _) = session.expect("the session opens");
        let settings = ConsumerSettings::default();
        let joined = session.consume(("orders", "billing"), settings, None, credit_bytes).await;
        let subscription = joined.expect("it may consume").subscription;
        if credit_bytes > 0 {
            for _ in 0..3 {
                while !matches!(session.next().await.expect("the session goes on"), ClientEvent::Deliver(_)) {
                }
            }
        }
        let offset = u64::try_from(answers.len()).expect("few");
        answers.push(session.settle(subscription, vec![ack(offset)]).await);
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
    let [first, second] = <[_; 2]>::try_from(answers).expect("two lives");
    assert_eq!(first, Ok(()));
    assert_eq!(second.expect_err("it had no effect").code(), Code::Conflict);
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = billing.consume("orders", "billing").await.expect("it may");
    let next = within("consuming", consumer.try_next()).await.expect("it proves itself");
    assert_eq!(
        next.and_then(|message| message.offset()),
        Some(1),
        "the first is settled, the second comes again"
    );
}

/// Where a replay is to end is said once: what is published while it begins comes after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_to_end_reaches_the_end_that_it_was_told_while_others_publish() {
    let bus = TestBus::new();
    bus.write_policy(
        &(stream("orders", &ORDERS.to_string(), "orders/#", "durability = \"memory\"")
            + &allow("write", "shop", "publish", "#")
            + &allow_stream("read", "auditor", "replay", "orders")),
    );
    let broker = bus.serve(sealbus_program!()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    let publishing = tokio::spawn(async move {
        loop {
            publisher.publish("more").await.expect("it is kept");
        }
    });
    let auditor = bus.connect(broker.address(), "auditor").await;
    for _ in 0..100 {
        // A moment is looked up on the disk, which takes a while.
        let mut replay =
            auditor.replay("orders").from(Start::Time(u64::MAX)).until_end().await.expect("it may");
        let (mut next, end) = (replay.range().start, replay.range().end);
        while let Some(message) = within("replaying", replay.try_next()).await.expect("it goes on to its end")
        {
            next = message.offset().expect("it is stored") + 1;
        }
        assert!(next >= end, "it ended at {next} and was to go on to {end}");
    }
    publishing.abort();
}

#[test]
fn the_checker_finds_each_thing_that_can_be_wrong_with_a_history() {
    self_test(&[]);
}

fn self_test(arguments: &[&std::ffi::OsStr]) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/checker/self_test.py");
    let done = Command::new("python3").arg(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.expect("the checker needs python3 (nothing but its standard library): install it");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}
