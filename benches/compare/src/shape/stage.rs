//! One measurement: a bus with its policy and principals, a broker in a process of its own, and the load in this one.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::measure::Timing;
use crate::orchestrate::Interrupt;
use crate::pki::Pki;
use crate::sealbus;
use crate::subject::{Profile, Setting, free_port};

use super::load::{self, Target};
use super::policy::{LOAD, policy};
use super::rows::Sample;
use super::series::{Scene, Series};

/// How long a measurement may take beside its window: a hundred thousand topics are opened, and five thousand
/// connections made, on a machine that has other work too.
const SLACK: Duration = Duration::from_secs(180);

/// Between two looks at whether this process was told to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What all measurements of a run share.
pub(super) struct Stage<'r> {
    pub(super) own_program: &'r Path,
    /// The folder of the run.
    pub(super) folder: &'r Path,
    /// For brokers that are not ours: Sealbus makes its own.
    pub(super) pki: &'r Pki,
    pub(super) window: Duration,
    pub(super) interrupt: &'r Interrupt,
}

impl Stage<'_> {
    /// Starts, measures, stops. Blocks, on the first thread: children end with the thread that started them.
    pub(super) fn measure(&self, series: Series, value: u32) -> Result<Sample, Failure> {
        let folder = self.folder.join("subject");
        fs::create_dir(&folder).map_err(|error| Failure::new(format!("make {}", folder.display()), error))?;
        let measured = self.measure_in(&folder, series, &series.scene(value));
        fs::remove_dir_all(&folder)
            .map_err(|error| Failure::new(format!("remove {}", folder.display()), error))?;
        measured
    }

    /// Whatever is found, the broker is gone when this returns.
    fn measure_in(&self, folder: &Path, series: Series, scene: &Scene) -> Result<Sample, Failure> {
        let setting = Setting {
            own_program: self.own_program,
            folder,
            pki: self.pki,
            profile: Profile::Live,
            port: free_port()?,
            core: None,
        };
        sealbus::make(&setting, &policy(scene.rules))?;
        for principal in 0..scene.principals() {
            sealbus::issue(folder, &load::identity(principal), &format!("{LOAD}{principal}"))?;
        }
        let asked = Instant::now();
        let broker = sealbus::serve(&setting)?;
        let target = Target { folder, port: broker.port(), start_ms: asked.elapsed().as_secs_f64() * 1e3 };
        let timing = Timing { warm_up: self.window / 2, window: self.window, broker: broker.id() };
        // A runtime of its own, so that a measurement shares no tasks with the one before it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("start the runtime", error))?;
        let measured =
            runtime.block_on(Box::pin(self.bounded(load::measure(&target, series, scene, &timing))));
        runtime.shutdown_background();
        measured
    }

    /// Ends when it is done, when it takes too long, or when this process is told to end.
    async fn bounded(
        &self,
        measuring: impl Future<Output = Result<Sample, Failure>>,
    ) -> Result<Sample, Failure> {
        let deadline = self.window + self.window / 2 + SLACK;
        let interrupted = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Err(failure) = self.interrupt.check() {
                    return failure;
                }
            }
        };
        tokio::select! {
            measured = measuring => measured,
            failure = interrupted => Err(failure),
            () = tokio::time::sleep(deadline) => {
                Err(Failure::new("measure", format!("it is not done after {} s", deadline.as_secs())))
            }
        }
    }
}
