//! One signal, given once, that everything which waits may hear: leave.

use tokio::sync::watch;

/// The end that gives the signal. Dropping it gives the signal too: whoever could stop the broker is gone, and tasks
/// that nobody can stop any more must not go on for ever.
#[derive(Debug)]
pub struct Trigger {
    signal: watch::Sender<bool>,
}

impl Trigger {
    /// Gives the signal. Giving it again changes nothing.
    pub fn trigger(&self) {
        self.signal.send_replace(true);
    }
}

/// The end that hears the signal. Cloning is cheap; every clone hears it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    signal: watch::Receiver<bool>,
}

impl Shutdown {
    /// A signal that has not been given.
    #[must_use]
    pub fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger { signal: sender }, Self { signal: receiver })
    }

    /// Returns once the signal has been given, at once if it was given before. Safe to cancel: nothing is consumed.
    pub async fn wait(&self) {
        let mut signal = self.signal.clone();
        // An error says that the trigger was dropped, which is the signal as well.
        let _ = signal.wait_for(|given| *given).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll_once(future: impl Future<Output = ()>) -> Poll<()> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn nobody_leaves_before_the_signal() {
        let (trigger, shutdown) = Shutdown::new();
        let other = shutdown.clone();
        assert_eq!(poll_once(shutdown.wait()), Poll::Pending);
        assert_eq!(poll_once(other.wait()), Poll::Pending);
        trigger.trigger();
        trigger.trigger();
        assert_eq!(poll_once(other.wait()), Poll::Ready(()));
        assert_eq!(poll_once(shutdown.wait()), Poll::Ready(()));
    }

    #[test]
    fn a_dropped_trigger_is_the_signal() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        assert_eq!(poll_once(shutdown.wait()), Poll::Ready(()));
    }
}
