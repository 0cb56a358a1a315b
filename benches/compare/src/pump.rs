//! The raw client of the peers: it speaks their protocol through TLS as fast as it can, so that their broker is the limit.
//!
//! ```text
//!   publish ──> copies, encoded once ──┐                    ┌──> TLS ──> TCP
//!   subscribe, publish_durable ────────┼──> one task writes ┤
//!   answers of the protocol (PONG) ────┘    and reads       └─── TLS <── 256 KiB <── TCP
//!   receive <── payloads, where they lie in the buffer <────────┘
//! ```
//!
//! One task owns both directions and no lock is between them: while a connection takes no more bytes, what comes is taken
//! in, so that two full buffers never wait for each other. Nothing here is as careful as a client should be: there are no
//! reconnects and no queues, and a peer that breaks its protocol ends the measurement.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::timeout;

use crate::conversation::{Conversation, Talk};
use crate::failure::Failure;
use crate::link::{Broken, Early, Link};
use crate::subject::{Peer, Profile};
use crate::wire::Wire;

/// Bytes of copies of one message that are kept encoded.
const COPIES_BYTES: usize = 128 * 1024;

/// How long a peer may take for a login or a subscription.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a peer may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A way to talk to a peer: raw connections.
#[derive(Debug, Clone)]
pub struct Raw<P> {
    /// The peer.
    pub peer: P,
    /// How it is configured.
    pub profile: Profile,
    /// Where it listens.
    pub address: SocketAddr,
    /// With a client certificate.
    pub tls: Arc<ClientConfig>,
}

impl<P: Peer> Talk for Raw<P> {
    type Conversation = Pump<P::Wire>;

    async fn connect(&self) -> Result<Pump<P::Wire>, Failure> {
        let name = self.peer.name();
        let wire = self.peer.wire(self.profile);
        let logging_in = async {
            let link = Link::connect(wire, self.address, &self.tls).await?;
            let mut pump = Pump { name, link, copies: Copies::default(), early: Early::default() };
            let mut login = Vec::new();
            pump.link.wire.login(&mut login);
            pump.ask(&login).await?;
            Ok(pump)
        };
        in_time(logging_in).await.map_err(|broken| Failure::new(format!("connect to {name}"), broken))
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    timeout(ANSWER_TIMEOUT, asking).await.unwrap_or(Err(Broken::NoAnswer(ANSWER_TIMEOUT)))
}

/// One raw connection, logged in.
#[derive(Debug)]
pub struct Pump<W> {
    name: &'static str,
    link: Link<W>,
    copies: Copies,
    /// Messages that came while nobody received.
    early: Early,
}

impl<W: Wire> Pump<W> {
    /// Sends a request and waits until it is in force.
    async fn ask(&mut self, request: &[u8]) -> Result<(), Broken> {
        self.link.send(request, &mut self.early).await?;
        poll_fn(|cx| {
            loop {
                if let Some(left) = self.link.ready.checked_sub(1) {
                    self.link.ready = left;
                    return Poll::Ready(Ok(()));
                }
                ready!(self.link.poll_take_in_early(&mut self.early, cx))?;
            }
        })
        .await
    }

    async fn publish_copies(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Broken> {
        let Self { link, copies: encoded, early, .. } = self;
        let mut left = usize::try_from(copies).expect("a usize has 32 bits at least");
        if left > 0 && !encoded.has_begun {
            // The first call may say more than those after it.
            let mut first = Vec::new();
            link.wire.publish(topic, payload, &mut first);
            encoded.has_begun = true;
            link.send(&first, early).await?;
            left -= 1;
        }
        while left > 0 {
            let (count, bytes) = encoded.of(&mut link.wire, topic, payload, left);
            link.send(bytes, early).await?;
            left = left.saturating_sub(count);
        }
        Ok(())
    }

    async fn hand_over(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Broken> {
        let mut out = Vec::new();
        for _ in 0..copies {
            self.link.wire.publish_durable(topic, payload, &mut out);
            if out.len() >= COPIES_BYTES {
                self.link.send(&out, &mut self.early).await?;
                out.clear();
            }
        }
        self.link.send(&out, &mut self.early).await
    }

    async fn end(mut self) -> Result<(), Broken> {
        self.link.send(&[], &mut self.early).await?;
        self.link.shut_down().await?;
        // A socket that is dropped with unread bytes takes what the peer has not read yet with it. A peer that does not
        // close its side has had its time.
        let _ = timeout(CLOSE_TIMEOUT, self.link.drain()).await;
        Ok(())
    }
}

impl<W: Wire> Conversation for Pump<W> {
    async fn subscribe(&mut self, topic: &str) -> Result<(), Failure> {
        let mut request = Vec::new();
        self.link.wire.subscribe(topic, &mut request);
        let name = self.name;
        in_time(self.ask(&request))
            .await
            .map_err(|broken| Failure::new(format!("subscribe to {topic} at {name}"), broken))
    }

    /// Not to be dropped half-way: half a message may be on its way.
    async fn publish(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Failure> {
        let name = self.name;
        self.publish_copies(topic, payload, copies)
            .await
            .map_err(|broken| Failure::new(format!("publish to {topic} at {name}"), broken))
    }

    /// Not to be dropped half-way: half a message may be on its way.
    async fn publish_durable(&mut self, topic: &str, payload: &[u8], copies: u32) -> Result<(), Failure> {
        let name = self.name;
        self.hand_over(topic, payload, copies)
            .await
            .map_err(|broken| Failure::new(format!("publish durably to {topic} at {name}"), broken))
    }

    async fn acknowledged(&mut self) -> Result<u32, Failure> {
        let name = self.name;
        poll_fn(|cx| {
            loop {
                let acknowledged = std::mem::take(&mut self.link.acknowledged);
                if acknowledged > 0 {
                    return Poll::Ready(Ok(acknowledged));
                }
                ready!(self.link.poll_take_in_early(&mut self.early, cx))?;
            }
        })
        .await
        .map_err(|broken: Broken| Failure::new(format!("wait for acknowledgements of {name}"), broken))
    }

    async fn receive(&mut self, mut sink: impl FnMut(&[u8]) + Send) -> Result<(), Failure> {
        if self.early.show(&mut sink) {
            return Ok(());
        }
        let Self { name, link, .. } = self;
        poll_fn(|cx| {
            loop {
                if ready!(link.poll_take_in(&mut sink, cx))? > 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        })
        .await
        .map_err(|broken: Broken| Failure::new(format!("receive from {name}"), broken))
    }

    async fn close(self) -> Result<(), Failure> {
        let name = self.name;
        self.end().await.map_err(|broken| Failure::new(format!("close a connection to {name}"), broken))
    }
}

/// Copies of one message, encoded once.
#[derive(Debug, Default)]
struct Copies {
    topic: String,
    payload: Vec<u8>,
    encoded: Vec<u8>,
    one_bytes: usize,
    /// Whether anything was published: only then do equal calls give equal bytes.
    has_begun: bool,
}

impl Copies {
    /// As many copies as fit, at most `wanted`: their number, and their bytes.
    fn of(&mut self, wire: &mut impl Wire, topic: &str, payload: &[u8], wanted: usize) -> (usize, &[u8]) {
        if self.topic != topic || self.payload != payload || self.one_bytes == 0 {
            topic.clone_into(&mut self.topic);
            payload.clone_into(&mut self.payload);
            self.encoded.clear();
            wire.publish(topic, payload, &mut self.encoded);
            self.one_bytes = self.encoded.len().max(1);
        }
        let count = (COPIES_BYTES / self.one_bytes).clamp(1, wanted.max(1));
        // Only as many as were ever wanted: a single message is encoded once and not a thousand times.
        let bytes = count.saturating_mul(self.one_bytes);
        while self.encoded.len() < bytes {
            wire.publish(topic, payload, &mut self.encoded);
        }
        (count, self.encoded.get(..bytes).expect("the loop has filled it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::redis::Redis;

    /// A wire whose first call, which says more, is behind it.
    fn wire() -> impl Wire {
        let mut wire = Redis.wire(Profile::Live);
        wire.publish("t", b"", &mut Vec::new());
        wire
    }

    fn encoded(topic: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire().publish(topic, payload, &mut out);
        out
    }

    #[test]
    fn copies_are_what_single_calls_would_append() {
        let (mut copies, mut wire) = (Copies::default(), wire());
        let messages = [("t", vec![1; 128]), ("t", vec![2; 128]), ("u", vec![2; 128]), ("u", Vec::new())];
        for (topic, payload) in &messages {
            for wanted in [1, 3, 2, 100] {
                let (count, bytes) = copies.of(&mut wire, topic, payload, wanted);
                assert_eq!(count, wanted);
                assert_eq!(bytes, encoded(topic, payload).repeat(wanted));
            }
        }
    }

    #[test]
    fn copies_of_one_message_stay_within_their_bytes_and_are_one_at_least() {
        let (mut copies, mut wire) = (Copies::default(), wire());
        let (count, bytes) = copies.of(&mut wire, "t", &[0; 1_024], usize::MAX);
        assert!(count > 100 && bytes.len() <= COPIES_BYTES, "{count} copies, {} bytes", bytes.len());
        let (count, bytes) = copies.of(&mut wire, "t", &[0; 2 * COPIES_BYTES], usize::MAX);
        assert!(count == 1 && bytes.len() > 2 * COPIES_BYTES);
    }
}
