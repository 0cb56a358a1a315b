//! The sessions that there are, and what others may tell them.
//!
//! ```text
//!   reload, drain, take-over --signal--> Control --take--> the session's task
//!                        wait <--------- Barrier <--arrive--'   (or it ends, which arrives everywhere)
//! ```
//!
//! A barrier is how a change becomes a fact: whoever raised it waits until every session has arrived, and those that
//! do not arrive in time are ended. A session is in the registry before it reads the policy for the first time, and
//! leaves it after its connection is closed; so none is overlooked, and none that was not waited for writes anything.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sealbus_protocol::batch::accept::Fence;
use sealbus_protocol::frame::{Outcome, RequestId};
use sealbus_protocol::refusal::Refusal;
use tokio::sync::Notify;

use crate::audit::{CutReason, SessionId};
use crate::letters::Letter;
use crate::locks::lock;
use crate::outbox::Outbox;
use crate::storage::stream::store::Waiter;

/// A session, as others see it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Its number.
    pub(crate) id: SessionId,
    /// Where its batches go.
    pub(crate) outbox: Arc<Outbox>,
    control: Mutex<Control>,
    signalled: AtomicBool,
    superseded: AtomicBool,
    letters: Mutex<Vec<Letter>>,
    /// Whether letters have come, or a stream that the session waits for has moved.
    noted: AtomicBool,
}

/// What has come for a session since it last looked.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// In the order in which they came.
    pub(crate) letters: Vec<Letter>,
}

/// What a session has been told and has not yet looked at.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Another policy is in force: adopt it, mark the place, then arrive.
    pub(crate) policy: Option<Arc<Barrier>>,
    /// Certificates, roots or revocation lists have changed: judge the peer anew, then arrive.
    pub(crate) tls: Option<Arc<Barrier>>,
    /// Take nothing more in, then arrive. The connection will be closed after so many milliseconds.
    pub(crate) drain: Option<(u32, Arc<Barrier>)>,
    /// Nothing more comes: leave when all is written.
    pub(crate) finish: bool,
    /// End now, telling the peer.
    pub(crate) cut: Option<CutReason>,
    /// End now, without a word: there is no time or no way to tell the peer.
    pub(crate) kill: Option<CutReason>,
    /// The answer to an administrative request.
    pub(crate) answer: Option<(RequestId, Result<Outcome, Refusal>)>,
}

impl Handle {
    /// A session that is not registered yet.
    pub(crate) fn new(id: SessionId, outbox: Arc<Outbox>) -> Self {
        Self {
            id,
            outbox,
            control: Mutex::default(),
            signalled: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            letters: Mutex::default(),
            noted: AtomicBool::new(false),
        }
    }

    /// Brings the session something that it asked for.
    pub(crate) fn post(&self, letter: Letter) {
        lock(&self.letters).push(letter);
        self.noted.store(true, Ordering::Release);
        self.outbox.wake();
    }

    /// What has come since the session last looked, none when nothing has moved that it waits for. Nearly always
    /// nothing, and then it costs nothing.
    pub(crate) fn take_news(&self) -> Option<News> {
        if !self.noted.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(News { letters: std::mem::take(&mut *lock(&self.letters)) })
    }

    /// Tells the session something.
    pub(crate) fn signal(&self, tell: impl FnOnce(&mut Control)) {
        tell(&mut lock(&self.control));
        self.signalled.store(true, Ordering::Release);
        self.outbox.wake();
    }

    /// What the session has been told since it last asked. Nearly always nothing, and then it costs nothing.
    pub(crate) fn take_signals(&self) -> Option<Control> {
        if !self.signalled.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut *lock(&self.control)))
    }

    /// From now on no batch of this session is accepted: another has taken its place.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Whether another has taken its place.
    pub(crate) fn fence(&self) -> Fence {
        if self.superseded.load(Ordering::Acquire) { Fence::Superseded } else { Fence::Open }
    }
}

/// A stream that the session publishes to or reads has moved.
impl Waiter for Handle {
    fn committed(&self) {
        self.noted.store(true, Ordering::Release);
        self.outbox.wake();
    }
}

/// Sessions that something waits for.
#[derive(Debug)]
pub(crate) struct Barrier {
    awaited: Mutex<HashSet<SessionId>>,
    changed: Notify,
}

impl Barrier {
    fn new(awaited: HashSet<SessionId>) -> Self {
        Self { awaited: Mutex::new(awaited), changed: Notify::new() }
    }

    /// A session has done what the barrier asks for, or is gone.
    pub(crate) fn arrive(&self, id: SessionId) {
        let is_last = {
            let mut awaited = lock(&self.awaited);
            awaited.remove(&id) && awaited.is_empty()
        };
        if is_last {
            self.changed.notify_waiters();
        }
    }

    /// Returns when all have arrived.
    pub(crate) async fn wait(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.awaited).is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn missing(&self) -> HashSet<SessionId> {
        lock(&self.awaited).clone()
    }
}

/// All sessions that have been welcomed and are not over.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: Mutex<Live>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Live {
    handles: HashMap<SessionId, Arc<Handle>>,
    /// Barriers that somebody may still wait at.
    barriers: Vec<Weak<Barrier>>,
    is_closed: bool,
}

/// The broker takes no more sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Sessions {
    /// Adds a session. From here on it is told of every change.
    pub(crate) fn add(&self, handle: &Arc<Handle>) -> Result<(), Closed> {
        let mut live = lock(&self.live);
        if live.is_closed {
            return Err(Closed);
        }
        live.handles.insert(handle.id, Arc::clone(handle));
        Ok(())
    }

    /// Removes a session whose connection is closed. It has arrived everywhere, whatever it had been told: only the
    /// end of a session does that for it, so that one which forgets is ended, and not believed.
    pub(crate) fn remove(&self, handle: &Handle) {
        let mut live = lock(&self.live);
        live.handles.remove(&handle.id);
        for barrier in live.barriers.iter().filter_map(Weak::upgrade) {
            barrier.arrive(handle.id);
        }
        drop(live);
        self.changed.notify_waiters();
    }

    /// Sessions that there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.live).handles.len()
    }

    /// No session may be added from now on.
    pub(crate) fn close(&self) {
        lock(&self.live).is_closed = true;
    }

    /// Tells all sessions the same, with a barrier at which they arrive.
    pub(crate) fn raise(&self, tell: impl Fn(&mut Control, Arc<Barrier>)) -> Arc<Barrier> {
        let mut live = lock(&self.live);
        let barrier = Arc::new(Barrier::new(live.handles.keys().copied().collect()));
        live.barriers.retain(|barrier| barrier.strong_count() > 0);
        live.barriers.push(Arc::downgrade(&barrier));
        for handle in live.handles.values() {
            handle.signal(|control| tell(control, Arc::clone(&barrier)));
        }
        barrier
    }

    /// Tells all sessions the same.
    pub(crate) fn tell(&self, tell: impl Fn(&mut Control)) {
        lock(&self.live).handles.values().for_each(|handle| handle.signal(&tell));
    }

    /// Waits for a barrier, at most for so long; then ends those that have not arrived, and waits until they are gone.
    /// Returns those.
    pub(crate) async fn settle(
        &self,
        barrier: &Barrier,
        timeout: Duration,
        why: &CutReason,
    ) -> Vec<Arc<Handle>> {
        if tokio::time::timeout(timeout, barrier.wait()).await.is_ok() {
            return Vec::new();
        }
        let late: Vec<_> = {
            let live = lock(&self.live);
            barrier.missing().iter().filter_map(|id| live.handles.get(id).cloned()).collect()
        };
        for handle in &late {
            handle.signal(|control| control.kill = Some(why.clone()));
        }
        barrier.wait().await;
        late
    }

    /// Returns when there is no session.
    pub(crate) async fn wait_empty(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.live).handles.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn handle(id: u64) -> Arc<Handle> {
        Arc::new(Handle::new(SessionId(id), Arc::new(Outbox::new(1_000))))
    }

    #[tokio::test]
    async fn a_barrier_waits_for_those_who_were_there_and_for_nobody_else() {
        let sessions = Sessions::default();
        let (one, two, late) = (handle(1), handle(2), handle(3));
        sessions.add(&one).unwrap();
        sessions.add(&two).unwrap();
        let barrier = sessions.raise(|control, barrier| control.policy = Some(barrier));
        sessions.add(&late).unwrap();
        assert!(late.take_signals().is_none());
        let arrived = one.take_signals().and_then(|control| control.policy).unwrap();
        arrived.arrive(one.id);
        assert!(pin!(barrier.wait()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        sessions.remove(&two);
        barrier.wait().await;
    }

    #[tokio::test]
    async fn who_does_not_arrive_is_killed_and_awaited() {
        let sessions = Arc::new(Sessions::default());
        let (stuck, quick) = (handle(1), handle(2));
        sessions.add(&stuck).unwrap();
        sessions.add(&quick).unwrap();
        let barrier = sessions.raise(|control, barrier| control.policy = Some(barrier));
        barrier.arrive(quick.id);
        let dying = tokio::spawn({
            let (sessions, stuck) = (Arc::clone(&sessions), Arc::clone(&stuck));
            async move {
                loop {
                    // It takes what it is told and forgets about it: being told to die is what counts.
                    if stuck.take_signals().is_some_and(|control| control.kill.is_some()) {
                        return sessions.remove(&stuck);
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let late = sessions.settle(&barrier, Duration::from_millis(5), &CutReason::MarkerTimeout).await;
        assert_eq!(late.iter().map(|handle| handle.id).collect::<Vec<_>>(), [stuck.id]);
        dying.await.unwrap();
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn a_closed_registry_takes_nobody() {
        let sessions = Sessions::default();
        sessions.close();
        assert_eq!(sessions.add(&handle(1)), Err(Closed));
    }
}
