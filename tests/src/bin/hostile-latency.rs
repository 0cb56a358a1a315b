//! What two hundred hostile connections cost a good pair: its 99th percentile with and without them.
//!
//! `cargo run -p sealbus-tests --bin hostile-latency --release`. A measurement and not a test, since its result
//! belongs to the machine. We expect less than three times the idle figure: attackers are held before TLS or after a
//! single frame, and share nothing with the pair but processors.

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

/// Attackers at a time. Each comes back as soon as it was thrown out.
const ATTACKERS: usize = 200;

/// Round trips that are measured.
const EXCHANGES: usize = 5_000;

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

    let stop = Arc::new(AtomicBool::new(false));
    let credential = Arc::new(bus.credential("attacker"));
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|index| {
            let (bus, stop, credential) = (Arc::clone(&bus), Arc::clone(&stop), Arc::clone(&credential));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    attack(&bus, address, &credential, index).await;
                }
            })
        })
        .collect();
    percentiles(&publisher, &mut messages).await;
    let attacked = percentiles(&publisher, &mut messages).await;
    stop.store(true, Ordering::Relaxed);
    attackers.iter().for_each(tokio::task::JoinHandle::abort);
    println!("                p50          p99");
    println!("idle      {:>9.3?}    {:>9.3?}", idle.0, idle.1);
    println!("attacked  {:>9.3?}    {:>9.3?}", attacked.0, attacked.1);
    println!("ratio of the 99th percentiles: {:.2}", attacked.1.as_secs_f64() / idle.1.as_secs_f64());
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
