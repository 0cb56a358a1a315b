//! A slow consumer is alone with it, and is told exactly what it missed.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use rustix::process::Signal;
use sealbus_tests::wait::within;
use sealbus_tests::{TestBus, allow, eventually, sealbus_program};

/// Messages, and bytes of each: 32 MiB, more than outbox, credit and the system's socket buffers take together.
const MESSAGES: u64 = 8_192;
const MESSAGE_BYTES: usize = 4 * 1_024;

/// Messages that are on their way to the quick consumer at a time: half a megabyte, far from its own limits.
const WINDOW: u64 = 128;

/// What `sub` said that it missed.
fn lagged(stderr: &str) -> u64 {
    let counts = stderr.lines().filter_map(|line| line.strip_prefix("lag: "));
    counts
        .map(|line| line.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn received_and_missed_add_up_and_nobody_else_waits() {
    let program = sealbus_program!();
    let bus = TestBus::with("[limits]\noutbox_bytes_max = 2097152\n");
    let rules = [
        allow("in", "producer", "publish", "t"),
        allow("slow", "slow", "subscribe", "t"),
        allow("quick", "quick", "subscribe", "t"),
    ];
    bus.write_policy(&rules.concat());
    let broker = bus.serve(program).await;
    let mut slow = bus.run(program, broker.address(), "slow", &["sub", "t", "--raw"]);
    slow.await_stderr("READY").await;
    let quick = bus.connect(broker.address(), "quick").await;
    let mut messages = quick.subscribe("t").await.unwrap();
    let producer = bus.connect(broker.address(), "producer").await;
    let publisher = producer.publisher("t").await.unwrap();

    // One message reaches both, so that the slow one is known to listen before it stops.
    publisher.publish(message(0)).await.unwrap();
    within("the first message", messages.next()).await.unwrap().unwrap();
    eventually("the slow one has the first message", || (slow.stdout_lines().len() == 1).then_some(())).await;
    slow.signal(Signal::STOP);

    // While it is stopped the quick one receives everything, in order, and every publish is acknowledged.
    let mut received = 1;
    for next in 1..MESSAGES {
        // Nobody waits for the receipt: that it was accepted is seen by who receives it.
        let _pending =
            within("room for a message", publisher.enqueue_when_ready(message(next))).await.unwrap();
        let sent = next + 1;
        while sent - received >= WINDOW || (sent == MESSAGES && received < MESSAGES) {
            let message = within("a message", messages.next()).await.unwrap();
            let message =
                message.unwrap_or_else(|error| panic!("the quick consumer is not held up: {error}"));
            assert_eq!(number(message.payload()), received);
            received += 1;
        }
    }
    assert_eq!(received, MESSAGES, "the quick one has everything while the slow one stands still");
    publisher.flush().await.unwrap();
    assert_eq!(slow.stdout_lines().len(), 1);

    slow.signal(Signal::CONT);
    eventually("what it received and what it missed is everything", || {
        let received = u64::try_from(slow.stdout_lines().len()).unwrap();
        (received + lagged(&slow.stderr()) == MESSAGES).then_some(())
    })
    .await;
    let missed = lagged(&slow.stderr());
    assert!(missed > 0, "with so much more than fits, something was missed");
    // What it did receive is a part of what was sent, in order, none twice.
    let numbers: Vec<u64> = slow.stdout_lines().iter().map(|line| number(line.as_bytes())).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "in order, none twice");

    // It is a consumer like any other again.
    publisher.publish(message(MESSAGES)).await.unwrap();
    eventually("a message after the lag", || {
        let lines = slow.stdout_lines();
        lines.last().is_some_and(|line| number(line.as_bytes()) == MESSAGES).then_some(())
    })
    .await;
    slow.signal(Signal::TERM);
    slow.await_end().await;
    let said = slow.stderr();
    assert_eq!(lagged(&said), missed, "{said}");
    assert!(
        said.contains(&format!(
            "received {}, missed by lag {missed}, gaps 0, rejected 0",
            MESSAGES + 1 - missed
        )),
        "{said}"
    );
}

fn message(number: u64) -> String {
    format!("{number} {}", "x".repeat(MESSAGE_BYTES - 8))
}

fn number(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).expect("payloads are text");
    text.split(' ').next().and_then(|number| number.parse().ok()).expect("payloads begin with a number")
}
