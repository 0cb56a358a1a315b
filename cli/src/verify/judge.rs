//! Whose key signed a batch, by the roots in trust.toml and as of the moment when the batch was stored.

use std::collections::{BTreeSet, HashMap};

use sealbus_broker::storage::stream::KeyQuestion;
use sealbus_broker::storage::system::keys::KeyDirectory;
use sealbus_protocol::binding::{KeyBinding, VerifiedBinding};
use sealbus_protocol::identity::{Principal, TrustStore};
use sealbus_protocol::keys::VerifyingKey;

/// Bindings that are kept verified; beyond them each is verified again when it is needed.
const VERIFIED_MAX: usize = 4_096;

/// Judges keys. A chain of certificates is verified once for each record of `$keys`.
pub(super) struct Judge<'t> {
    trust: &'t TrustStore,
    keys: &'t KeyDirectory,
    verified: HashMap<u64, VerifiedBinding>,
    /// Who was met.
    pub(super) producers: BTreeSet<Principal>,
}

impl<'t> Judge<'t> {
    pub(super) fn new(trust: &'t TrustStore, keys: &'t KeyDirectory) -> Self {
        Self { trust, keys, verified: HashMap::new(), producers: BTreeSet::new() }
    }

    /// The key, or why it must not be believed.
    pub(super) fn judge(&mut self, question: &KeyQuestion<'_>) -> Result<VerifyingKey, String> {
        let KeyQuestion { key_record, kid, append_ms, .. } = *question;
        let is_known =
            |binding: &VerifiedBinding| binding.kid() == kid && binding.validity().holds_at(append_ms);
        if let Some(binding) = self.verified.get(&key_record).filter(|binding| is_known(binding)) {
            return Ok(*binding.key());
        }
        let stored = self.keys.load(key_record).map_err(|error| error.to_string())?;
        let binding = KeyBinding::decode(stored.bytes.clone())
            .map_err(|error| format!("record {key_record} of $keys holds no key binding: {error}"))?;
        let binding = binding.verify_at(self.trust, append_ms).map_err(|error| {
            format!("the key binding of {} was not good when it was stored: {error}", stored.principal)
        })?;
        if binding.kid() != kid {
            return Err(format!(
                "record {key_record} of $keys binds another key than the one that signed it"
            ));
        }
        let key = *binding.key();
        self.producers.insert(binding.principal().clone());
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(key_record, binding);
        Ok(key)
    }
}
