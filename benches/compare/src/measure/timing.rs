//! The window in which things are counted.

use std::time::Duration;

use sealbus::process_usage::Usage;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::outcome::Rate;

/// How often it is looked whether stragglers have come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long nothing may come before what has not come is lost.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_secs(2);

/// When it is measured, and whose CPU time.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// What is thrown away.
    pub warm_up: Duration,
    /// What counts.
    pub window: Duration,
    /// The broker's process.
    pub broker: u32,
}

impl Timing {
    /// What the broker has used so far.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(self.broker).map_err(|error| Failure::new("measure what the broker uses", error))
    }

    /// Lets tasks run that do not end by themselves, and counts what they do in the window.
    pub(crate) async fn count<T: 'static>(
        &self,
        tasks: &mut JoinSet<Result<T, Failure>>,
        counted: impl Fn() -> u64,
    ) -> Result<Rate, Failure> {
        let start = Instant::now();
        run_until(tasks, start + self.warm_up).await?;
        let (begun, counted_before, usage_before) = (Instant::now(), counted(), self.usage()?);
        run_until(tasks, start + self.warm_up + self.window).await?;
        let (seconds, counted_after) = (begun.elapsed().as_secs_f64(), counted());
        let broker_cpu_seconds = self.usage()?.since(usage_before).cpu.as_secs_f64();
        let counted = counted_after.saturating_sub(counted_before);
        Ok(Rate { counted, seconds, broker_cpu_seconds, lost: 0 })
    }
}

/// Waits for a moment while tasks run. One that ends meanwhile has failed, or should not have ended.
pub(crate) async fn run_until<T: 'static>(
    tasks: &mut JoinSet<Result<T, Failure>>,
    moment: Instant,
) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep_until(moment) => Ok(()),
        Some(ended) = tasks.join_next() => Err(early(ended)),
    }
}

/// Waits until as much has come as was sent, or nothing comes any more; gives what is lost.
pub(crate) async fn lost<T: 'static>(
    tasks: &mut JoinSet<Result<T, Failure>>,
    sent: u64,
    received: impl Fn() -> u64,
) -> Result<u64, Failure> {
    let (mut seen, mut moved) = (received(), Instant::now());
    while seen < sent && moved.elapsed() < STRAGGLERS_TIMEOUT {
        run_until(tasks, Instant::now() + LOOK_EVERY).await?;
        let now = received();
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
    }
    if seen > sent {
        return Err(Failure::new("count what came", format!("{seen} came, but only {sent} were sent")));
    }
    Ok(sent.saturating_sub(seen))
}

/// Why a task ended that should run on.
fn early<T>(ended: Result<Result<T, Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(_)) => Failure::new("measure to the end", "a connection was finished before"),
        Ok(Err(failure)) => failure,
        Err(error) => Failure::new("measure to the end", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_lost_and_what_is_late_is_not() {
        let start = Instant::now();
        let late = move || if start.elapsed() < Duration::from_secs(1) { 7 } else { 9 };
        let mut tasks = JoinSet::<Result<(), Failure>>::new();
        assert_eq!(lost(&mut tasks, 9, late).await.unwrap(), 0);
        assert_eq!(lost(&mut tasks, 12, late).await.unwrap(), 3);
        assert!(lost(&mut tasks, 8, late).await.is_err(), "more came than was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_ends_the_measurement() {
        let mut tasks = JoinSet::<Result<(), Failure>>::new();
        let broken = Failure::new("receive", "the connection is gone");
        let told = broken.clone();
        tasks.spawn(async move { Err(told) });
        let timing = Timing {
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(1),
            broker: std::process::id(),
        };
        assert_eq!(timing.count(&mut tasks, || 0).await.unwrap_err(), broken);
    }
}
