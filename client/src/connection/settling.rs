//! Acknowledgements leave: a frame for each range that is full, that is urgent, or has waited long enough.

use std::sync::Arc;

use sealbus_protocol::frame::{RequestId, SubscriptionId, Sync};
use sealbus_protocol::session::{ClientSession, Tick};

use crate::subscription::settle::{Settler, Settling, Urgency};

use super::core::{Asked, Core, Timer};
use super::wake::FeedId;

/// How long an acknowledgement waits for more to go with it while its consumer has work: a tenth of the time within
/// which it is to be durable.
const GATHERING_MS: u64 = 10;

impl Core {
    /// Something waits to be sent, or has become urgent.
    pub(super) fn handle_settle_due_at(&mut self, id: FeedId, now: Tick) {
        let Some(settler) = self.settler_of(id) else { return };
        match settler.urgency() {
            None => {}
            Some(Urgency::MayWait) => self.arm(now.after_ms(GATHERING_MS), Timer::Settle(id)),
            Some(Urgency::Now) => self.settle_at(id, now),
        }
    }

    /// Sends what waits, as far as there is room for it.
    pub(super) fn settle_at(&mut self, id: FeedId, now: Tick) {
        loop {
            let has_room = self.has_room();
            let Some((settler, subscription)) = self.settling_subscription(id) else { return };
            if settler.urgency().is_none() {
                return;
            }
            let sent = has_room
                && match (settler.take(), &mut self.session) {
                    (Some(settling), Some(session)) => {
                        match send(session, subscription, &settler, settling) {
                            Sent::Quiet => true,
                            Sent::Awaited(request, asked) => {
                                self.requests.insert(request, asked);
                                true
                            }
                            Sent::Not => false,
                        }
                    }
                    (_, _) => return,
                };
            if !sent {
                return self.arm(now.after_ms(GATHERING_MS), Timer::Settle(id));
            }
        }
    }

    /// The bus closes: what is queued goes out before, however full the connection is.
    pub(super) fn settle_all(&mut self) {
        for id in self.feeds.ids() {
            self.settle_last(id);
        }
    }

    /// A consumer leaves: what is queued goes out before. Bounded by what a settler holds.
    pub(super) fn settle_last(&mut self, id: FeedId) {
        while let Some((settler, subscription)) = self.settling_subscription(id)
            && let Some(session) = &mut self.session
            && let Some(settling) = settler.take()
        {
            match send(session, subscription, &settler, settling) {
                Sent::Quiet => {}
                Sent::Awaited(request, asked) => drop(self.requests.insert(request, asked)),
                Sent::Not => return,
            }
        }
    }
}

enum Sent {
    Quiet,
    Awaited(RequestId, Asked),
    /// There is no room for another request.
    Not,
}

/// Sends one frame. An answer is awaited only when somebody waits for it.
fn send(
    session: &mut ClientSession,
    subscription: SubscriptionId,
    settler: &Arc<Settler>,
    settling: Settling,
) -> Sent {
    let sync = if settling.waiter.is_none() { Sync::No } else { Sync::Yes };
    match session.settle(subscription, settling.items.clone(), sync) {
        Ok(Some(request)) => {
            let settler = Arc::clone(settler);
            Sent::Awaited(request, Asked::Settle { settler, settling })
        }
        Ok(None) if sync == Sync::No => Sent::Quiet,
        Ok(None) | Err(_) => {
            settler.give_back(settling);
            Sent::Not
        }
    }
}
