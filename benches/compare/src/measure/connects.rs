//! How many connections are made: TCP, a full TLS handshake with certificates on both sides, and a login that is answered.
//! Each is ended in order before the next one of its place is begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::conversation::{Conversation as _, Talk};
use crate::failure::Failure;
use crate::outcome::Rate;
use crate::workload::CONNECTS_AT_ONCE;

use super::timing::Timing;

pub(super) async fn measure<T: Talk>(talk: &T, timing: &Timing) -> Result<Rate, Failure> {
    let connected = Arc::new(AtomicU64::new(0));
    let mut connecting = JoinSet::new();
    for _ in 0..CONNECTS_AT_ONCE {
        connecting.spawn(connect(talk.clone(), Arc::clone(&connected)));
    }
    timing.count(&mut connecting, || connected.load(Ordering::Relaxed)).await
}

/// Connects for ever.
async fn connect<T: Talk>(talk: T, connected: Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        let conversation = talk.connect().await?;
        // Here, and not behind the end: who waits there for whom differs from client to client.
        connected.fetch_add(1, Ordering::Relaxed);
        conversation.close().await?;
    }
}
