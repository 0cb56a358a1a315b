//! What is varied, over which values, and how the cost may grow with it.

use std::fmt;

use crate::failure::Failure;

/// Bytes of payload, where they are not what is varied.
const SIZE_BYTES: usize = 128;

/// Rules of the policy, where they are not what is varied.
const RULES: u32 = 10;

/// Topics that one connection publishes to. The protocol allows 1,024.
pub(super) const TOPICS_PER_SESSION: u32 = 1_000;

/// Publishing connections of one principal. Each of their topics is a sequence that the broker keeps and a line of its
/// audit log, and a principal may have 16,384 of both at once.
pub(super) const PUBLISHING_SESSIONS_PER_PRINCIPAL: u32 = 10;

/// Idle connections of one principal, which may have 2,048.
pub(super) const IDLE_PER_PRINCIPAL: u32 = 1_000;

/// One variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Series {
    /// Topics, one publisher spreading its messages over them in turn, and one subscriber of all.
    Topics,
    /// Subscribers of one topic.
    Subscribers,
    /// Rules of the policy.
    Rules,
    /// Idle connections beside a busy pair.
    Connections,
    /// Bytes of payload.
    Size,
    /// Bytes of the largest batch.
    Batch,
}

/// How the cost of a message may grow with the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Not at all.
    Constant,
    /// As much as the variable.
    Linear,
}

/// Everything that a measurement has: one value of a series, and the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) topics: u32,
    pub(super) subscribers: u32,
    pub(super) rules: u32,
    pub(super) idle: u32,
    pub(super) size_bytes: usize,
    /// What the client does by itself when there is none.
    pub(super) batch_bytes_max: Option<usize>,
}

impl Series {
    /// All, in the order in which they are measured and shown.
    pub(super) const ALL: [Self; 6] =
        [Self::Topics, Self::Subscribers, Self::Rules, Self::Connections, Self::Size, Self::Batch];

    /// As the arguments have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Subscribers => "subscribers",
            Self::Rules => "rules",
            Self::Connections => "connections",
            Self::Size => "size",
            Self::Batch => "batch",
        }
    }

    /// In words.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Topics => "Topics: messages in turn over all of them, one subscriber of all",
            Self::Subscribers => "Subscribers of one topic",
            Self::Rules => "Policy rules, the one that allows it last",
            Self::Connections => "Idle connections, each with a subscription, beside one busy pair",
            Self::Size => "Bytes of a message",
            Self::Batch => "Bytes of the largest batch (`batch_bytes_max`)",
        }
    }

    /// The values, the first of which the others are compared with.
    pub(super) const fn values(self) -> &'static [u32] {
        match self {
            Self::Topics => &[1, 10, 100, 1_000, 10_000, 100_000],
            Self::Subscribers => &[1, 10, 100, 1_000],
            Self::Rules => &[10, 100, 1_000, 10_000],
            Self::Connections => &[1, 10, 100, 1_000, 5_000],
            Self::Size => &[16, 128, 1_024, 16 * 1_024, 64 * 1_024, 256 * 1_024],
            Self::Batch => &[4 * 1_024, 16 * 1_024, 64 * 1_024, 256 * 1_024, 1_024 * 1_024],
        }
    }

    /// Two of them, that are quickly set up.
    pub(super) const fn quick_values(self) -> &'static [u32] {
        match self {
            Self::Topics => &[1, 1_000],
            Self::Subscribers => &[1, 100],
            Self::Rules => &[10, 10_000],
            Self::Connections => &[1, 500],
            Self::Size => &[128, 256 * 1_024],
            Self::Batch => &[4 * 1_024, 1_024 * 1_024],
        }
    }

    /// How the cost of a delivery may grow. Subscribers are no exception: it is the cost of each delivery that counts.
    pub(super) const fn allowed(self) -> Allowed {
        match self {
            Self::Topics | Self::Subscribers | Self::Rules | Self::Connections | Self::Batch => {
                Allowed::Constant
            }
            Self::Size => Allowed::Linear,
        }
    }

    /// The baseline with this value in it.
    pub(super) const fn scene(self, value: u32) -> Scene {
        let baseline = Scene {
            topics: 1,
            subscribers: 1,
            rules: RULES,
            idle: 0,
            size_bytes: SIZE_BYTES,
            batch_bytes_max: None,
        };
        match self {
            Self::Topics => Scene { topics: value, ..baseline },
            Self::Subscribers => Scene { subscribers: value, ..baseline },
            Self::Rules => Scene { rules: value, ..baseline },
            Self::Connections => Scene { idle: value, ..baseline },
            Self::Size => Scene { size_bytes: value as usize, ..baseline },
            Self::Batch => Scene { batch_bytes_max: Some(value as usize), ..baseline },
        }
    }

    /// Those that are named, in the order in which they are shown; all when none is.
    pub(super) fn named(names: &[String]) -> Result<Vec<Self>, Failure> {
        if let Some(unknown) =
            names.iter().find(|name| Self::ALL.iter().all(|series| series.name() != **name))
        {
            let found = format!("there are {}", Self::ALL.map(Self::name).join(", "));
            return Err(Failure::new(format!("measure the shape over \"{unknown}\""), found));
        }
        let wanted = |series: &Self| names.is_empty() || names.iter().any(|name| name == series.name());
        Ok(Self::ALL.into_iter().filter(wanted).collect())
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Scene {
    /// Connections that publish.
    pub(super) const fn publishing_sessions(&self) -> u32 {
        self.topics.div_ceil(TOPICS_PER_SESSION)
    }

    /// Principals that publish.
    pub(super) const fn publishing_principals(&self) -> u32 {
        self.publishing_sessions().div_ceil(PUBLISHING_SESSIONS_PER_PRINCIPAL)
    }

    /// Principals that are needed in all. They are the same for publishing, subscribing and being idle.
    pub(super) fn principals(&self) -> u32 {
        self.publishing_principals().max(self.idle.div_ceil(IDLE_PER_PRINCIPAL)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use sealbus_client::Topic;

    use super::*;

    #[test]
    fn a_name_is_its_series_and_no_other_is_known() {
        for series in Series::ALL {
            assert_eq!(Series::named(&[series.name().to_owned()]).unwrap(), [series]);
        }
        assert_eq!(Series::named(&[]).unwrap(), Series::ALL);
        let unknown = Series::named(&["rules".to_owned(), "colour".to_owned()]).unwrap_err().to_string();
        assert!(unknown.contains("\"colour\"") && unknown.contains("topics, subscribers"), "{unknown}");
    }

    #[test]
    fn values_grow_and_the_quick_ones_are_two() {
        for series in Series::ALL {
            assert!(series.values().is_sorted() && series.quick_values().is_sorted(), "{series}");
            assert_eq!(series.quick_values().len(), 2, "{series}");
        }
    }

    #[test]
    fn a_scene_differs_from_the_baseline_in_its_own_variable_only() {
        let baseline = Series::Topics.scene(1);
        assert_eq!(Series::Subscribers.scene(1), baseline);
        assert_eq!(Series::Rules.scene(10), baseline);
        assert_eq!(Series::Size.scene(128), baseline);
        let Scene { idle, batch_bytes_max, .. } = Series::Connections.scene(7);
        assert_eq!((idle, batch_bytes_max), (7, None));
    }

    #[test]
    fn a_hundred_thousand_topics_fit_the_limits_of_sessions_and_principals() {
        let scene = Series::Topics.scene(100_000);
        assert_eq!(
            (scene.publishing_sessions(), scene.publishing_principals(), scene.principals()),
            (100, 10, 10)
        );
        let sequences = TOPICS_PER_SESSION * PUBLISHING_SESSIONS_PER_PRINCIPAL;
        assert!(sequences <= 16_384, "sequence states of one principal");
        let one = Series::Topics.scene(1);
        assert_eq!((one.publishing_sessions(), one.principals()), (1, 1));
        assert_eq!(Series::Connections.scene(5_000).principals(), 5);
        assert!(Topic::parse("load/topic/99999").is_ok());
    }
}
