//! The conditions of a rule, and how they stand in given circumstances.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::Name;
use super::rule::Effect;

/// Where and when a decision is made, as the broker knows it of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The peer's address. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub source: IpAddr,
    /// The zone of the listener, when it has one.
    pub zone: Option<&'a str>,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
}

/// The conditions of a rule: all of them must hold. A rule without `when` has none, and always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    pub(super) source: Vec<Network>,
    pub(super) zone: Option<Name>,
    pub(super) from_ms: Option<u64>,
    pub(super) until_ms: Option<u64>,
}

impl When {
    /// The networks that the peer must be in one of; empty for any.
    #[must_use]
    pub fn source(&self) -> &[Network] {
        &self.source
    }

    /// The zone that the listener must have.
    #[must_use]
    pub fn zone(&self) -> Option<&Name> {
        self.zone.as_ref()
    }

    /// The first moment at which the rule holds.
    #[must_use]
    pub fn from_ms(&self) -> Option<u64> {
        self.from_ms
    }

    /// The first moment at which the rule does not hold any more.
    #[must_use]
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// How a rule of this effect with these conditions stands.
    pub(super) fn standing(&self, effect: Effect, circumstances: &Circumstances<'_>) -> Standing {
        let place_holds = (self.source.is_empty() || circumstances.source_in(&self.source, effect))
            && self.zone.as_ref().is_none_or(|zone| circumstances.zone_is(zone, effect));
        if !place_holds || self.until_ms.is_some_and(|until_ms| until_ms <= circumstances.now_ms) {
            return Standing::Never;
        }
        match self.from_ms {
            Some(from_ms) if circumstances.now_ms < from_ms => Standing::Later { from_ms },
            Some(_) | None => Standing::Holds { until_ms: self.until_ms },
        }
    }
}

/// How a rule stands in given circumstances, of which only the time will change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds.
    Holds {
        /// The moment at which it ends.
        until_ms: Option<u64>,
    },
    /// It does not hold yet.
    Later {
        /// The moment at which it begins.
        from_ms: u64,
    },
    /// It does not hold, and will not.
    Never,
}

/// A [`Context`], or what a policy's test says of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub(super) source: Option<IpAddr>,
    pub(super) zone: Option<&'a str>,
    pub(super) now_ms: u64,
    pub(super) unsaid: Unsaid,
}

/// How a condition on a source or zone that is not known is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// It does not hold: a listener without a zone is in none.
    Fails,
    /// It holds for rules of this effect only: the best or the worst that could be.
    HoldsFor(Effect),
}

impl Circumstances<'_> {
    fn source_in(&self, networks: &[Network], effect: Effect) -> bool {
        match self.source {
            Some(source) => networks.iter().any(|network| network.contains(source)),
            None => self.unsaid_holds(effect),
        }
    }

    fn zone_is(&self, zone: &Name, effect: Effect) -> bool {
        self.zone.map_or_else(|| self.unsaid_holds(effect), |found| found == zone.as_str())
    }

    fn unsaid_holds(&self, effect: Effect) -> bool {
        match self.unsaid {
            Unsaid::Fails => false,
            Unsaid::HoldsFor(favoured) => favoured == effect,
        }
    }
}

impl<'a> From<&Context<'a>> for Circumstances<'a> {
    fn from(context: &Context<'a>) -> Self {
        let Context { source, zone, now_ms } = *context;
        Self { source: Some(source), zone, now_ms, unsaid: Unsaid::Fails }
    }
}

/// Addresses with one prefix: `10.20.0.0/16`, `2001:db8::/32`. IPv4-mapped IPv6 is kept and compared as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// Of IPv4.
    V4 {
        /// The first address.
        base: Ipv4Addr,
        /// Bits that all addresses share, at most 32.
        prefix_bits: u8,
    },
    /// Of IPv6.
    V6 {
        /// The first address.
        base: Ipv6Addr,
        /// Bits that all addresses share, at most 128.
        prefix_bits: u8,
    },
}

/// Bits of an IPv4-mapped IPv6 address before the IPv4 address.
const MAPPED_PREFIX_BITS: u8 = 96;

impl Network {
    /// Parses `address/bits`.
    ///
    /// # Errors
    /// [`NetworkError`] when there is no prefix length, when either part is malformed, or when bits beyond the
    /// prefix are set: such a text names an address and a network at once, and its writer meant one of them.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, bits_text) = text.split_once('/').ok_or(NetworkError::NoPrefix)?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let bits: u8 = bits_text.parse().map_err(|_| NetworkError::PrefixBits)?;
        // One spelling per value: `+8` and `08` are numbers to the standard library.
        if bits.to_string() != bits_text {
            return Err(NetworkError::PrefixBits);
        }
        match address {
            IpAddr::V4(address) => Self::v4(address, bits),
            IpAddr::V6(address) => match (address.to_ipv4_mapped(), bits.checked_sub(MAPPED_PREFIX_BITS)) {
                (Some(mapped), Some(bits)) => Self::v4(mapped, bits),
                (Some(_), None) | (None, _) => Self::v6(address, bits),
            },
        }
    }

    /// Whether `address` is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (*self, address.to_canonical()) {
            (Self::V4 { base, prefix_bits }, IpAddr::V4(address)) => {
                address.to_bits() & mask_v4(prefix_bits) == base.to_bits()
            }
            (Self::V6 { base, prefix_bits }, IpAddr::V6(address)) => {
                address.to_bits() & mask_v6(prefix_bits) == base.to_bits()
            }
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }

    fn v4(address: Ipv4Addr, prefix_bits: u8) -> Result<Self, NetworkError> {
        if u32::from(prefix_bits) > u32::BITS {
            return Err(NetworkError::PrefixBits);
        }
        let base = Ipv4Addr::from_bits(address.to_bits() & mask_v4(prefix_bits));
        let network = Self::V4 { base, prefix_bits };
        if base == address { Ok(network) } else { Err(NetworkError::HostBits { network }) }
    }

    fn v6(address: Ipv6Addr, prefix_bits: u8) -> Result<Self, NetworkError> {
        if u32::from(prefix_bits) > u128::BITS {
            return Err(NetworkError::PrefixBits);
        }
        let base = Ipv6Addr::from_bits(address.to_bits() & mask_v6(prefix_bits));
        let network = Self::V6 { base, prefix_bits };
        if base == address { Ok(network) } else { Err(NetworkError::HostBits { network }) }
    }
}

/// A shift by the full width overflows, and means that no bit is shared.
fn mask_v4(prefix_bits: u8) -> u32 {
    u32::MAX.checked_shl(u32::BITS.saturating_sub(prefix_bits.into())).unwrap_or(0)
}

fn mask_v6(prefix_bits: u8) -> u128 {
    u128::MAX.checked_shl(u128::BITS.saturating_sub(prefix_bits.into())).unwrap_or(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4 { base, prefix_bits } => write!(f, "{base}/{prefix_bits}"),
            Self::V6 { base, prefix_bits } => write!(f, "{base}/{prefix_bits}"),
        }
    }
}

/// Why a text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkError {
    /// It has no `/`.
    NoPrefix,
    /// What stands before the `/` is not an IPv4 or IPv6 address.
    Address,
    /// What stands after the `/` is not a number of bits that such an address has.
    PrefixBits,
    /// Bits beyond the prefix are set.
    HostBits {
        /// The network that the address lies in.
        network: Network,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrefix => {
                f.write_str("a network has a prefix length, as in 10.20.0.0/16 or 10.20.0.1/32")
            }
            Self::Address => f.write_str("a network begins with an IPv4 or IPv6 address"),
            Self::PrefixBits => f.write_str("a prefix length is a number up to 32 for IPv4 and 128 for IPv6"),
            Self::HostBits { network } => {
                write!(f, "the address has bits beyond its prefix; the network around it is {network}")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling() {
        for (text, expected) in [
            ("10.20.0.0/16", Ok("10.20.0.0/16")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("10.0.0.1/32", Ok("10.0.0.1/32")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("::/0", Ok("::/0")),
            ("::1/128", Ok("::1/128")),
            ("::ffff:10.0.0.0/104", Ok("10.0.0.0/8")),
            ("::ffff:0:0/96", Ok("0.0.0.0/0")),
            ("", Err(NetworkError::NoPrefix)),
            ("10.0.0.1", Err(NetworkError::NoPrefix)),
            ("/8", Err(NetworkError::Address)),
            ("10.0.0/8", Err(NetworkError::Address)),
            ("010.0.0.0/8", Err(NetworkError::Address)),
            ("10.0.0.0.0/8", Err(NetworkError::Address)),
            ("fe80::1%eth0/64", Err(NetworkError::Address)),
            ("example.com/8", Err(NetworkError::Address)),
            ("10.0.0.0/", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/08", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/+8", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/-1", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/33", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/8/8", Err(NetworkError::PrefixBits)),
            ("10.0.0.0/256", Err(NetworkError::PrefixBits)),
            ("::/129", Err(NetworkError::PrefixBits)),
            ("::ffff:10.0.0.0/129", Err(NetworkError::PrefixBits)),
        ] {
            assert_eq!(
                Network::parse(text).map(|network| network.to_string()),
                expected.map(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn bits_beyond_the_prefix_are_refused_with_the_network_meant() {
        for (text, meant) in [
            ("10.20.0.1/16", "10.20.0.0/16"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
        ] {
            let network = Network::parse(meant).unwrap();
            assert_eq!(Network::parse(text), Err(NetworkError::HostBits { network }), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        for (network, address, expected) in [
            ("10.20.0.0/16", "10.20.255.1", true),
            ("10.20.0.0/16", "10.21.0.0", false),
            ("10.20.0.0/16", "::ffff:10.20.1.1", true),
            ("10.20.0.0/16", "::10.20.1.1", false),
            ("::ffff:10.20.0.0/112", "10.20.1.1", true),
            ("::/0", "10.20.1.1", false),
            ("::/0", "::ffff:10.20.1.1", false),
            ("::/0", "2001:db8::1", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
        ] {
            let found = Network::parse(network).unwrap().contains(address.parse().unwrap());
            assert_eq!(found, expected, "{address} in {network}");
        }
    }

    #[test]
    fn conditions_hold_all_together_and_end_on_time() {
        let when = When {
            source: vec![Network::parse("10.0.0.0/8").unwrap()],
            zone: Some(Name::parse("internal").unwrap()),
            from_ms: Some(100),
            until_ms: Some(200),
        };
        let holds = Standing::Holds { until_ms: Some(200) };
        for (source, zone, now_ms, expected) in [
            ("10.1.1.1", Some("internal"), 100, holds),
            ("10.1.1.1", Some("internal"), 199, holds),
            ("10.1.1.1", Some("internal"), 99, Standing::Later { from_ms: 100 }),
            ("10.1.1.1", Some("internal"), 200, Standing::Never),
            ("11.1.1.1", Some("internal"), 150, Standing::Never),
            ("11.1.1.1", Some("internal"), 50, Standing::Never),
            ("10.1.1.1", Some("Internal"), 150, Standing::Never),
            ("10.1.1.1", Some(""), 150, Standing::Never),
            ("10.1.1.1", None, 150, Standing::Never),
        ] {
            let context = Context { source: source.parse().unwrap(), zone, now_ms };
            for effect in [Effect::Allow, Effect::Deny] {
                assert_eq!(when.standing(effect, &(&context).into()), expected, "{context:?}");
            }
        }
    }

    #[test]
    fn a_rule_without_conditions_always_holds() {
        let context = Context { source: Ipv4Addr::LOCALHOST.into(), zone: None, now_ms: 0 };
        let standing = When::default().standing(Effect::Allow, &(&context).into());
        assert_eq!(standing, Standing::Holds { until_ms: None });
    }
}
