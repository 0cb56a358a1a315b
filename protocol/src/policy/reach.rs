//! How much of what somebody asks for a rule speaks about.

use crate::topic::TopicFilter;

/// How much of it a rule speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Perhaps not all of it.
    Some,
    /// All of it.
    All,
}

impl Reach {
    /// What the filters of a rule reach of a requested filter. `None` when none shares a topic with it.
    pub(super) fn of(filters: &[TopicFilter], requested: &TopicFilter) -> Option<Self> {
        if filters.iter().any(|filter| filter.covers(requested)) {
            return Some(Self::All);
        }
        filters.iter().any(|filter| filter.overlaps(requested)).then_some(Self::Some)
    }

    /// What the filters of a rule, none for everything, reach of that part of a stream which is requested, `None` for
    /// all of it. What the stream captures is looked at piece by piece, so that a rule on `orders/#` reaches all of a
    /// stream of `orders/eu/#` and `orders/us/#`.
    pub(super) fn of_stream(
        filters: &[TopicFilter],
        captured: &[TopicFilter],
        requested: Option<&TopicFilter>,
    ) -> Option<Self> {
        if filters.is_empty()
            || requested.is_some_and(|requested| Self::of(filters, requested) == Some(Self::All))
        {
            return Some(Self::All);
        }
        let is_requested =
            |filter: &TopicFilter| requested.is_none_or(|requested| requested.overlaps(filter));
        let of_piece = |piece: &TopicFilter| {
            if filters.iter().any(|filter| filter.covers(piece)) {
                return Some(Self::All);
            }
            let shares = |filter: &TopicFilter| is_requested(filter) && filter.overlaps(piece);
            filters.iter().any(shares).then_some(Self::Some)
        };
        let (mut least, mut most) = (Some(Self::All), None);
        for reach in captured.iter().filter(|piece| is_requested(piece)).map(of_piece) {
            least = least.min(reach);
            most = most.max(reach);
        }
        // Nothing requested is captured: nothing is reached. Nothing comes of it either way.
        if most == Some(Self::All) && least != Some(Self::All) { Some(Self::Some) } else { most }
    }
}
