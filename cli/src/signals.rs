//! SIGINT and SIGTERM, for commands that end by them and still have something to say.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The two signals that ask a process to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over: from here on the first no longer ends the process. The second still does, at once: the
    /// command may be waiting for a reader of stdout that does not read.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let mut impatience = Self::listen_once()?;
        tokio::spawn(async move {
            impatience.stop().await;
            impatience.stop().await;
            std::process::exit(1);
        });
        Self::listen_once()
    }

    fn listen_once() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new("listen for signals", error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for either. Dropping it half-way loses nothing.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
