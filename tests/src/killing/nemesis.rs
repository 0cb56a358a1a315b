//! Who kills the broker: when it starts, when it has just started, under load, at rest, and while its policy changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealbus_client::Bus;
use serde_json::json;

use crate::wait::within;

use super::ground::{CONSUMED, Ground, policy};
use super::random::Random;
use super::victim::Victim;

/// Messages that may be published in one life of the broker.
const FUEL: u64 = 1_500;

/// How often there is more to publish in a life that lasts longer than others.
const REFUEL: Duration = Duration::from_millis(500);

/// When the broker is killed.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// While it starts, before anybody is answered.
    Starting,
    /// In the first moments after it listens, when everybody comes back.
    Returning,
    /// While everybody publishes.
    Loaded,
    /// In the middle of a change of the policy.
    Reloading,
    /// When it had time for checkpoints and watermarks.
    Resting,
    /// When it has just removed what retention lets go. It comes to that in ten seconds, so this is rare.
    Trimming,
}

impl Manner {
    const ALL: [(u64, Self); 6] = [
        (180, Self::Starting),
        (170, Self::Returning),
        (530, Self::Loaded),
        (60, Self::Reloading),
        (60, Self::Resting),
        (8, Self::Trimming),
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Returning => "returning",
            Self::Loaded => "loaded",
            Self::Reloading => "reloading",
            Self::Resting => "resting",
            Self::Trimming => "trimming",
        }
    }
}

pub(super) struct Nemesis {
    ground: Arc<Ground>,
    program: PathBuf,
    log: PathBuf,
    random: Random,
    operator: Bus,
    starts: Vec<Duration>,
    kills: u64,
    kills_wanted: u64,
}

impl Nemesis {
    /// One that has killed nobody yet.
    pub(super) async fn new(ground: Arc<Ground>, program: PathBuf, log: PathBuf, kills_wanted: u64) -> Self {
        let random = Random::new(ground.seed, 102);
        let operator = ground.connect(crate::bus::OPERATOR).await;
        Self { ground, program, log, random, operator, starts: Vec::new(), kills: 0, kills_wanted }
    }

    /// How long the broker took to listen, each time that it came so far.
    pub(super) fn starts(&self) -> &[Duration] {
        &self.starts
    }

    /// Starts the broker and kills it at some moment.
    pub(super) async fn kill_next(&mut self) {
        // Each campaign sees a stream trimmed, also a short one.
        let is_middle = self.kills == self.kills_wanted / 2;
        let manner = if is_middle { Manner::Trimming } else { self.random.weighted(&Manner::ALL) };
        let mut victim = self.start();
        match manner {
            Manner::Starting => {
                let usual_us = self.starts.last().map_or(20_000, |last| last.as_micros());
                let usual_us = u64::try_from(usual_us).unwrap_or(u64::MAX);
                self.pause_us(usual_us.saturating_mul(6) / 5).await;
                self.starts.extend(victim.listened());
            }
            Manner::Returning => {
                self.listening(&mut victim).await;
                let most_us = *[3_000, 100_000].get(usize::from(self.random.one_in(2))).unwrap_or(&0);
                self.pause_us(most_us).await;
            }
            Manner::Loaded => {
                self.listening(&mut victim).await;
                let messages = self.random.between(1, FUEL * 3 / 4);
                self.acknowledged(messages).await;
                self.pause_us(20_000).await;
            }
            Manner::Reloading => {
                self.listening(&mut victim).await;
                self.acknowledged(50).await;
                let version = self.ground.bus.write_policy(&policy());
                self.ground.history.note("reload", &json!({ "version": version }));
                let operator = self.operator.clone();
                let reload = tokio::spawn(async move { operator.reload_policy().await });
                self.pause_us(30_000).await;
                victim.kill();
                self.killed(manner);
                // Whether it came to anything is the next start's business.
                reload.abort();
                return;
            }
            Manner::Resting => {
                self.listening(&mut victim).await;
                self.acknowledged(100).await;
                self.positions().await;
                self.pause_us(1_200_000).await;
            }
            Manner::Trimming => {
                self.listening(&mut victim).await;
                within("a stream is trimmed", async {
                    while !victim.has_trimmed_within(REFUEL).await {
                        self.ground.refuel(FUEL / 5);
                    }
                })
                .await;
                self.pause_us(10_000).await;
            }
        }
        victim.kill();
        self.killed(manner);
    }

    /// Starts the broker and lets it live.
    pub(super) async fn spare(&mut self) -> Victim {
        let mut victim = self.start();
        self.listening(&mut victim).await;
        victim
    }

    /// Where the durable consumer stands, as the broker says: its position, and the end of the stream.
    pub(super) async fn positions(&self) -> Option<(u64, u64)> {
        let consumers = self.operator.consumers(Some(CONSUMED)).await.ok()?;
        let consumer = consumers.first()?;
        self.ground.history.note(
            "position",
            &json!({
                "consumer": consumer.name.as_str(),
                "stream": consumer.stream.as_str(),
                "position": consumer.position,
                "end": consumer.end,
            }),
        );
        Some((consumer.position, consumer.end))
    }

    fn start(&self) -> Victim {
        self.ground.refuel(FUEL);
        let Ground { bus, history, .. } = &*self.ground;
        Victim::start(&self.program, &bus.config(), &self.log, history)
    }

    async fn listening(&mut self, victim: &mut Victim) {
        let (took, address) = victim.listening().await;
        assert_eq!(address, self.ground.address, "the broker listens where it did");
        self.ground.history.note("listening", &json!({ "after_us": micros(took) }));
        self.starts.push(took);
    }

    /// Waits until so many more messages are acknowledged: a campaign in which nobody gets on has failed.
    async fn acknowledged(&self, messages: u64) {
        let history = &self.ground.history;
        let wanted = history.acknowledged_count() + messages;
        within("messages are acknowledged", async {
            while history.acknowledged_count() < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    async fn pause_us(&mut self, most_us: u64) {
        tokio::time::sleep(Duration::from_micros(self.random.between(0, most_us))).await;
    }

    fn killed(&mut self, manner: Manner) {
        self.kills += 1;
        self.ground.history.note("kill", &json!({ "kill": self.kills, "manner": manner.as_str() }));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
