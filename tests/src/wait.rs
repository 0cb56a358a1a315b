//! Waiting for something to become true.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything is waited for before the test fails: far beyond what a slow machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
///
/// # Panics
/// When it has found nothing by the deadline.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}: not within {DEADLINE:?}");
        sleep(POLL).await;
    }
}

/// Waits until `look`, which has to wait itself, finds something.
///
/// # Panics
/// When it has found nothing by the deadline.
pub async fn eventually_async<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}: not within {DEADLINE:?}");
        sleep(POLL).await;
    }
}

/// Waits for a future.
///
/// # Panics
/// When it has not ended by the deadline.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}
