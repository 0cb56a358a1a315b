//! The key bindings that the broker knows: what a subscriber needs to verify a producer it has not met.
//!
//! They are kept in memory only; a client whose binding is gone sends it again. A queued batch holds its own binding,
//! so that it can be verified whatever is dropped here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sealbus_protocol::binding::VerifiedBinding;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::Kid;
use sealbus_protocol::limits::BINDINGS_PER_PRINCIPAL_MAX;

/// Bindings of all principals together. A binding has a kilobyte or two, so this is some tens of megabytes at most.
const BINDINGS_MAX: usize = 16_384;

/// A key binding that was verified when its owner came.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The id of the bound key.
    pub(crate) kid: Kid,
    /// Whose key it is.
    pub(crate) principal: Principal,
    /// The binding's bytes.
    pub(crate) bytes: Bytes,
    is_revoked: AtomicBool,
}

impl Binding {
    /// Its certificates hold no longer: nothing that was signed with its key is delivered from here on.
    pub(crate) fn revoke(&self) {
        self.is_revoked.store(true, Ordering::Release);
    }

    /// Whether its certificates hold no longer.
    pub(crate) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
impl Binding {
    /// One that binds nothing, for tests that do not look inside.
    pub(crate) fn testing(principal: &Principal) -> Arc<Self> {
        let (kid, bytes) = (Kid::new([1; 32]), Bytes::from_static(b"binding"));
        Arc::new(Self { kid, principal: principal.clone(), bytes, is_revoked: AtomicBool::new(false) })
    }
}

/// The known bindings, the least recently used dropped first.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    known: HashMap<Kid, Known>,
    /// By when they were last used.
    used: BTreeMap<u64, Kid>,
    per_principal: HashMap<Principal, usize>,
    next: u64,
}

#[derive(Debug)]
struct Known {
    binding: Arc<Binding>,
    used: u64,
}

impl Bindings {
    /// Keeps a binding that has been verified, and makes it the one that its kid stands for.
    pub(crate) fn keep(&mut self, verified: &VerifiedBinding) -> Arc<Binding> {
        self.keep_parts(verified.kid(), verified.principal(), verified.bytes())
    }

    fn keep_parts(&mut self, kid: Kid, principal: &Principal, bytes: &Bytes) -> Arc<Binding> {
        if let Some(known) = self.known.get(&kid)
            && known.binding.bytes == *bytes
            && !known.binding.is_revoked()
        {
            let binding = Arc::clone(&known.binding);
            self.touch(&kid);
            return binding;
        }
        self.forget(&kid);
        self.make_room(principal);
        let used = self.stamp();
        let (principal_of, is_revoked) = (principal.clone(), AtomicBool::new(false));
        let binding = Arc::new(Binding { kid, principal: principal_of, bytes: bytes.clone(), is_revoked });
        self.known.insert(kid, Known { binding: Arc::clone(&binding), used });
        self.used.insert(used, kid);
        *self.per_principal.entry(principal.clone()).or_default() += 1;
        binding
    }

    /// The binding of a kid.
    pub(crate) fn find(&mut self, kid: &Kid) -> Option<Arc<Binding>> {
        let binding = Arc::clone(&self.known.get(kid)?.binding);
        self.touch(kid);
        Some(binding)
    }

    fn make_room(&mut self, principal: &Principal) {
        if self.per_principal.get(principal).is_some_and(|count| *count >= BINDINGS_PER_PRINCIPAL_MAX) {
            let of_principal =
                |kid: &&Kid| self.known.get(*kid).is_some_and(|known| known.binding.principal == *principal);
            if let Some(oldest) = self.used.values().find(of_principal).copied() {
                self.forget(&oldest);
            }
        }
        while self.known.len() >= BINDINGS_MAX
            && let Some((_, oldest)) = self.used.first_key_value()
        {
            let oldest = *oldest;
            self.forget(&oldest);
        }
    }

    fn touch(&mut self, kid: &Kid) {
        let stamp = self.stamp();
        if let Some(known) = self.known.get_mut(kid) {
            self.used.remove(&known.used);
            known.used = stamp;
            self.used.insert(stamp, *kid);
        }
    }

    fn forget(&mut self, kid: &Kid) {
        let Some(known) = self.known.remove(kid) else { return };
        self.used.remove(&known.used);
        let principal = &known.binding.principal;
        if let Some(count) = self.per_principal.get_mut(principal) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_principal.remove(principal);
            }
        }
    }

    fn stamp(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(number: u32) -> Kid {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Kid::new(bytes)
    }

    fn principal(name: &str) -> Principal {
        Principal::parse(&format!("spiffe://a.example/{name}")).unwrap()
    }

    #[test]
    fn the_least_recently_used_of_a_principal_goes_first() {
        let mut bindings = Bindings::default();
        let (anna, ben) = (principal("anna"), principal("ben"));
        bindings.keep_parts(kid(1_000), &ben, &Bytes::from_static(b"x"));
        for number in 0..64 {
            bindings.keep_parts(kid(number), &anna, &Bytes::from_static(b"x"));
        }
        assert!(bindings.find(&kid(0)).is_some());
        bindings.keep_parts(kid(64), &anna, &Bytes::from_static(b"x"));
        assert!(bindings.find(&kid(0)).is_some(), "was used since");
        assert!(bindings.find(&kid(1)).is_none(), "was not");
        assert!(bindings.find(&kid(1_000)).is_some(), "another principal's are not touched");
        assert_eq!(bindings.known.len(), 65);
        assert_eq!(bindings.used.len(), 65);
    }

    #[test]
    fn all_together_are_bounded() {
        let mut bindings = Bindings::default();
        for number in 0..(BINDINGS_MAX as u32 + 100) {
            bindings.keep_parts(kid(number), &principal(&format!("p{number}")), &Bytes::from_static(b"x"));
        }
        assert_eq!(bindings.known.len(), BINDINGS_MAX);
        assert_eq!(bindings.per_principal.len(), BINDINGS_MAX);
        assert!(bindings.find(&kid(99)).is_none());
        assert!(bindings.find(&kid(100)).is_some());
    }

    #[test]
    fn a_key_that_is_bound_anew_stands_for_the_new_binding() {
        let mut bindings = Bindings::default();
        let anna = principal("anna");
        let first = bindings.keep_parts(kid(1), &anna, &Bytes::from_static(b"one"));
        let same = bindings.keep_parts(kid(1), &anna, &Bytes::from_static(b"one"));
        assert!(Arc::ptr_eq(&first, &same));
        let renewed = bindings.keep_parts(kid(1), &anna, &Bytes::from_static(b"two"));
        assert!(Arc::ptr_eq(&renewed, &bindings.find(&kid(1)).unwrap()));
        assert_eq!(bindings.per_principal.get(&anna), Some(&1));
    }
}
