//! What two hundred hostile connections cost a good pair: its 99th percentile with and without them.
//!
//! `cargo run -p sealbus-tests --bin hostile-latency --release`. A measurement and not a test, since its result
//! belongs to the machine. We expect less than three times the idle figure while two hundred attackers hold their
//! connections and come back a second after they were thrown out: they share nothing with the pair but processors.
//! The last line is what happens when they come back at once. Then they use all processors that there are, here and in
//! the broker, and what is measured is the system's scheduler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealbus_client::{Publisher, Subscription};
use sealbus_tests::raw::tcp;
use sealbus_tests::{Credential, Producer, RawClient, RawSession, TestBus, TlsOptions, allow};
use tokio::io::AsyncWriteExt as _;

/// Attackers at a time. Each comes back when it was thrown out.
const ATTACKERS: usize = 200;

/// How long an attacker stays away.
const PATIENCE: Duration = Duration::from_secs(1);

/// Round trips that are measured.
const EXCHANGES: usize = 10_000;

fn main() -> ExitCode {
    // The broker is this very program once more.
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return sealbus::run();
    }
    let program = std::env::current_exe().expect("a program knows where it is");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    runtime.block_on(Box::pin(measure(&program)));
    ExitCode::SUCCESS
}

async fn measure(program: &Path) {
    let bus = Arc::new(TestBus::with("[limits]\nhandshake_timeout_ms = 1000\n"));
    bus.write_policy(
        &(allow("in", "producer", "publish", "t") + &allow("out", "consumer", "subscribe", "t")),
    );
    let broker = bus.serve(program).await;
    let address = broker.address();
    let consumer = bus.connect(address, "consumer").await;
    let mut messages = consumer.subscribe("t").await.expect("it is granted");
    let producer = bus.connect(address, "producer").await;
    let publisher = producer.publisher("t").await.expect("it is granted");
    percentiles(&publisher, &mut messages).await;
    let idle = percentiles(&publisher, &mut messages).await;

    let credential = Arc::new(bus.credential("attacker"));
    let attacked = under_attack(&bus, address, &credential, PATIENCE, &publisher, &mut messages).await;
    let flooded = under_attack(&bus, address, &credential, Duration::ZERO, &publisher, &mut messages).await;
    println!("                p50          p99    to idle");
    for (name, (median, high)) in [("idle", idle), ("attacked", attacked), ("flooded", flooded)] {
        println!(
            "{name:<10}{median:>9.3?}    {high:>9.3?}    {:>7.2}",
            high.as_secs_f64() / idle.1.as_secs_f64()
        );
    }
}

/// Measures while attackers attack, from a thread of their own.
async fn under_attack(
    bus: &Arc<TestBus>,
    address: SocketAddr,
    credential: &Arc<Credential>,
    patience: Duration,
    publisher: &Publisher,
    messages: &mut Subscription,
) -> (Duration, Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    let (bus, credential, stopping) = (Arc::clone(bus), Arc::clone(credential), Arc::clone(&stop));
    let attackers = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        let local = tokio::task::LocalSet::new();
        for index in 0..ATTACKERS {
            let (bus, stop, credential) = (Arc::clone(&bus), Arc::clone(&stopping), Arc::clone(&credential));
            local.spawn_local(async move {
                // They do not all come in the same moment.
                tokio::time::sleep(patience * u32::try_from(index).unwrap_or_default() / 200).await;
                while !stop.load(Ordering::Relaxed) {
                    attack(&bus, address, &credential, index).await;
                    tokio::time::sleep(patience).await;
                }
            });
        }
        runtime.block_on(local);
    });
    // Until the first of them have come and gone.
    let warm = Instant::now();
    while warm.elapsed() < 2 * PATIENCE {
        percentiles(publisher, messages).await;
    }
    let measured = percentiles(publisher, messages).await;
    stop.store(true, Ordering::Relaxed);
    attackers.join().expect("attackers do not panic");
    measured
}

/// The median and the 99th percentile from publish to receipt by the consumer.
async fn percentiles(publisher: &Publisher, messages: &mut Subscription) -> (Duration, Duration) {
    let mut times = Vec::with_capacity(EXCHANGES);
    for _ in 0..EXCHANGES {
        let started = Instant::now();
        let pending = publisher.enqueue("x".repeat(128)).expect("there is room");
        messages.next().await.expect("the subscription goes on").expect("the pair loses nothing");
        times.push(started.elapsed());
        pending.await.expect("a good message is acknowledged");
    }
    times.sort_unstable();
    (times[EXCHANGES / 2], times[EXCHANGES * 99 / 100])
}

/// One hostile connection: garbage, a half handshake, or a certified lie.
async fn attack(bus: &TestBus, address: SocketAddr, credential: &Credential, index: usize) {
    let host = u8::try_from(index / 8 + 2).expect("there are few attackers");
    let source: IpAddr = Ipv4Addr::new(127, 0, 1, host).into();
    let options = TlsOptions { source: Some(source), ..TlsOptions::of(credential) };
    match index % 4 {
        0 => {
            let Ok(mut stream) = tcp(address, Some(source)).await else { return };
            let _ = stream.write_all(&[0xa5; 64 * 1_024]).await;
        }
        1 => {
            let Ok(mut stream) = tcp(address, Some(source)).await else { return };
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await;
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        }
        2 => {
            let Ok(mut client) = RawClient::connect(bus, address, &options).await else { return };
            let _ = client.send(&[0xff; 64]).await;
            client.ending().await;
        }
        _ => {
            let producer = Producer::new(bus.bus_id(), &bus.principal("attacker"), credential);
            let opened = RawSession::open_with(bus, address, &options, &producer, producer.hello()).await;
            let Ok((mut session, _)) = opened else { return };
            let _ = session.client.send(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).await;
            session.ended().await;
        }
    }
}
