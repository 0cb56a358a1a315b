//! The requests of a client that wait for their answers.

use std::collections::HashMap;

use crate::frame::{RequestId, SubscriptionId};
use crate::limits::REQUESTS_OUTSTANDING_MAX;

use super::error::SessionError;

/// The answer that a request awaits, other than REFUSED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    Opened,
    Ack,
    Ready(SubscriptionId),
    Settled,
    Binding,
    Checkpoint,
    AdminResult,
}

/// Requests and their ids. Those that await no answer have ids of their own, are counted, and are not remembered.
#[derive(Debug)]
pub(super) struct Requests {
    outstanding: HashMap<RequestId, Awaited>,
    next: RequestId,
    unawaited: u64,
}

impl Default for Requests {
    fn default() -> Self {
        Self { outstanding: HashMap::new(), next: RequestId(1), unawaited: 0 }
    }
}

impl Requests {
    /// The next id that is free, for a request that awaits this answer; 0 means "not asked for" on the wire and is
    /// never used.
    pub(super) fn begin(&mut self, awaited: Awaited) -> Result<RequestId, SessionError> {
        if self.outstanding.len() >= REQUESTS_OUTSTANDING_MAX {
            return Err(SessionError::TooManyRequests);
        }
        let following = |request: RequestId| RequestId(request.0.wrapping_add(1) & !RequestId::UNAWAITED);
        let mut request = self.next;
        while request.0 == 0 || self.outstanding.contains_key(&request) {
            request = following(request);
        }
        self.next = following(request);
        self.outstanding.insert(request, awaited);
        Ok(request)
    }

    /// The next id for a request that awaits no answer.
    pub(super) fn begin_unawaited(&mut self) -> RequestId {
        let number = u32::try_from(self.unawaited % u64::from(RequestId::UNAWAITED));
        self.unawaited = self.unawaited.saturating_add(1);
        RequestId(number.expect("a remainder of 2^31") | RequestId::UNAWAITED)
    }

    /// This answer came.
    pub(super) fn answered(&mut self, request: RequestId, awaited: Awaited) -> Result<(), SessionError> {
        if self.outstanding.get(&request) != Some(&awaited) {
            return Err(SessionError::UnknownRequest(request));
        }
        self.outstanding.remove(&request);
        Ok(())
    }

    /// REFUSED came: gives what was awaited instead, if anything was. What awaits no answer may be refused all the
    /// same. Its number says that it is one, and is compared with how many there were: nothing can be refused that was
    /// never asked.
    pub(super) fn refused(&mut self, request: RequestId) -> Result<Option<Awaited>, SessionError> {
        let unknown = SessionError::UnknownRequest(request);
        if request.is_awaited() {
            return self.outstanding.remove(&request).map(Some).ok_or(unknown);
        }
        let number = u64::from(request.0 & !RequestId::UNAWAITED);
        if number < self.unawaited { Ok(None) } else { Err(unknown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_begin_anew_below_the_highest_bit_and_pass_over_what_waits() {
        let mut requests = Requests { next: RequestId(RequestId::UNAWAITED - 1), ..Requests::default() };
        assert_eq!(requests.begin(Awaited::Ack), Ok(RequestId(RequestId::UNAWAITED - 1)));
        assert_eq!(requests.begin(Awaited::Ack), Ok(RequestId(1)));
        requests.next = RequestId(RequestId::UNAWAITED - 1);
        assert_eq!(requests.begin(Awaited::Ack), Ok(RequestId(2)));
    }

    #[test]
    fn what_awaits_no_answer_has_ids_of_its_own() {
        let mut requests = Requests::default();
        let first = RequestId(RequestId::UNAWAITED);
        assert_eq!(requests.refused(first), Err(SessionError::UnknownRequest(first)));
        assert_eq!(requests.begin_unawaited(), first);
        assert_eq!(requests.refused(first), Ok(None));
        let second = RequestId(RequestId::UNAWAITED + 1);
        assert_eq!(requests.refused(second), Err(SessionError::UnknownRequest(second)));
        requests.unawaited = u64::from(RequestId::UNAWAITED);
        assert_eq!(requests.begin_unawaited(), first, "the numbers begin anew");
        assert_eq!(requests.refused(RequestId(u32::MAX)), Ok(None), "any of the last 2^31");
    }

    #[test]
    fn an_answer_is_of_its_kind_and_comes_once() {
        let mut requests = Requests::default();
        let request = requests.begin(Awaited::Settled).unwrap();
        assert_eq!(requests.answered(request, Awaited::Ack), Err(SessionError::UnknownRequest(request)));
        assert_eq!(requests.answered(request, Awaited::Settled), Ok(()));
        assert_eq!(requests.answered(request, Awaited::Settled), Err(SessionError::UnknownRequest(request)));
        assert_eq!(requests.refused(request), Err(SessionError::UnknownRequest(request)));
    }
}
