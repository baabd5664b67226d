//! Which addresses the agent may dial, and in which order.
//!
//! The control plane is reached through a private endpoint of the customer's network. If its name
//! resolves to anything else (split-horizon DNS missing, DNS spoofed), the agent must not carry
//! cluster data there, and TLS alone would not say which network it took.
//!
//! An IPv6 address that stands for an IPv4 address is judged by that one:
//!
//! | form | rule |
//! |---|---|
//! | `::ffff:a.b.c.d` (mapped) | the system dials `a.b.c.d` |
//! | `64:ff9b::/96` (NAT64, RFC 6052) | a translator dials the last 32 bits |
//! | `64:ff9b:1::/96` (NAT64 of the network, RFC 8215) | the same |
//! | rest of `64:ff9b:1::/48` | where the IPv4 address sits is the network's choice: never private |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which addresses are acceptable besides private ones (RFC 1918, and RFC 4193 unique local).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Any unicast address that routers carry.
    pub allow_public: bool,
    /// Loopback, for development.
    pub allow_loopback: bool,
}

/// Addresses that the policy refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a private address: {}", list(.0))]
pub struct AddressRefused(pub Vec<IpAddr>);

impl AddressPolicy {
    /// Passes only if every address is acceptable: one public address among private ones would be
    /// dialled sooner or later.
    ///
    /// # Errors
    /// With the addresses that are not acceptable.
    pub fn check(self, addresses: &[IpAddr]) -> Result<(), AddressRefused> {
        let refused: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| !self.accepts(*address)).collect();
        if refused.is_empty() { Ok(()) } else { Err(AddressRefused(refused)) }
    }

    fn accepts(self, address: IpAddr) -> bool {
        match kind(address) {
            Kind::Private => true,
            Kind::Loopback => self.allow_loopback,
            Kind::Public | Kind::Shared => self.allow_public,
            Kind::LinkLocal | Kind::Never => false,
        }
    }
}

/// What an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// RFC 1918, RFC 4193.
    Private,
    /// This host.
    Loopback,
    /// RFC 6598: between a carrier and its customers; neither private nor reachable from anywhere.
    Shared,
    /// The wire at hand, where cloud metadata services live.
    LinkLocal,
    /// Anywhere.
    Public,
    /// No single host: unspecified, multicast, broadcast, reserved.
    Never,
}

fn kind(address: IpAddr) -> Kind {
    match address.to_canonical() {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [first, second, ..] = address.octets();
    match first {
        0 | 224.. => Kind::Never,
        127 => Kind::Loopback,
        169 if second == 254 => Kind::LinkLocal,
        100 if second & 0xc0 == 64 => Kind::Shared,
        _ if address.is_private() => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let segments = address.segments();
    match segments {
        _ if address.is_loopback() => Kind::Loopback,
        _ if address.is_unspecified() || address.is_multicast() => Kind::Never,
        // The translator's own loopback and link are not ours, and nobody's private network.
        [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            match kind_v4(Ipv4Addr::new(a, b, c, d)) {
                Kind::Loopback | Kind::LinkLocal => Kind::Never,
                kind => kind,
            }
        }
        [first, ..] if first & 0xffc0 == 0xfe80 => Kind::LinkLocal,
        [first, ..] if first & 0xfe00 == 0xfc00 => Kind::Private,
        _ => Kind::Public,
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let one = |address: &IpAddr| match kind(*address) {
        Kind::Private | Kind::Public => address.to_string(),
        Kind::Loopback => format!("{address} (loopback)"),
        Kind::Shared => format!("{address} (carrier-grade NAT)"),
        Kind::LinkLocal => format!("{address} (link-local)"),
        Kind::Never => format!("{address} (not the address of a host)"),
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The order in which addresses are tried (RFC 8305, section 4): as the resolver gave them, with the
/// families taking turns, so that a family that leads nowhere costs one attempt and not all.
pub fn alternate(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut same, mut other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|it| it.is_ipv4() == first.is_ipv4());
    same.reverse();
    other.reverse();
    let mut order = Vec::with_capacity(addresses.len());
    while !(same.is_empty() && other.is_empty()) {
        order.extend(same.pop());
        order.extend(other.pop());
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(policy: AddressPolicy, address: &str) -> bool {
        policy.check(&[address.parse().unwrap()]).is_ok()
    }

    const PRIVATE: AddressPolicy = AddressPolicy { allow_public: false, allow_loopback: false };

    #[test]
    fn private_ranges_end_where_the_rfcs_end_them() {
        for (address, private) in [
            ("10.0.0.1", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.0.1", true),
            ("192.169.0.0", false),
            ("100.64.0.1", false),
            ("169.254.169.254", false),
            ("8.8.8.8", false),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fe00::1", false),
            ("fe80::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(accepts(PRIVATE, address), private, "{address}");
        }
    }

    #[test]
    fn mapped_addresses_are_judged_by_what_they_map_to() {
        assert!(accepts(PRIVATE, "::ffff:10.0.0.1"));
        assert!(!accepts(PRIVATE, "::ffff:8.8.8.8"));
        assert!(!accepts(PRIVATE, "::ffff:127.0.0.1"));
    }

    #[test]
    fn every_range_has_its_edges() {
        let all = AddressPolicy { allow_public: true, allow_loopback: true };
        // (address, private alone, with everything allowed)
        for (address, private, allowed) in [
            ("0.0.0.1", false, false),
            ("9.255.255.255", false, true),
            ("100.63.255.255", false, true),
            ("100.64.0.0", false, true),
            ("100.127.255.255", false, true),
            ("100.128.0.0", false, true),
            ("126.255.255.255", false, true),
            ("127.0.0.0", false, true),
            ("128.0.0.0", false, true),
            ("169.253.255.255", false, true),
            ("169.254.0.0", false, false),
            ("169.254.169.254", false, false),
            ("169.255.0.0", false, true),
            ("223.255.255.255", false, true),
            ("224.0.0.0", false, false),
            ("240.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::2", false, true),
            ("::10.0.0.1", false, true),
            ("fbff::1", false, true),
            ("fc00::", true, true),
            ("fdff:ffff::1", true, true),
            ("fe00::", false, true),
            ("fe7f::1", false, true),
            ("fe80::", false, false),
            ("febf::1", false, false),
            ("fec0::1", false, true),
            ("ff00::", false, false),
            ("2002:a00:1::1", false, true),
        ] {
            assert_eq!(accepts(PRIVATE, address), private, "{address}");
            assert_eq!(accepts(all, address), allowed, "{address} with everything allowed");
        }
    }

    #[test]
    fn translated_addresses_are_judged_by_what_the_translator_dials() {
        let all = AddressPolicy { allow_public: true, allow_loopback: true };
        for (address, private, allowed) in [
            ("64:ff9b::10.0.0.1", true, true),
            ("64:ff9b::192.168.1.1", true, true),
            ("64:ff9b::8.8.8.8", false, true),
            ("64:ff9b::100.64.0.1", false, true),
            ("64:ff9b::127.0.0.1", false, false),
            ("64:ff9b::169.254.169.254", false, false),
            ("64:ff9b::224.0.0.1", false, false),
            ("64:ff9b::0.0.0.0", false, false),
            ("64:ff9b:1::10.0.0.1", true, true),
            ("64:ff9b:1::8.8.8.8", false, true),
            // 10.0.0.1 in a prefix of 48 bits: it could be part of anything.
            ("64:ff9b:1:a00:0:100::", false, true),
            ("64:ff9b:1:0:1::10.0.0.1", false, true),
            // Next to the ranges.
            ("64:ff9b:0:0:0:1:a00:1", false, true),
            ("64:ff9b:2::10.0.0.1", false, true),
            ("64:ff9a::10.0.0.1", false, true),
        ] {
            assert_eq!(accepts(PRIVATE, address), private, "{address}");
            assert_eq!(accepts(all, address), allowed, "{address} with everything allowed");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_kind() {
        let addresses = ["100.64.0.1", "169.254.169.254", "127.0.0.1", "::", "8.8.8.8", "10.0.0.1"]
            .map(|address| address.parse().unwrap());
        assert_eq!(
            PRIVATE.check(&addresses).unwrap_err().to_string(),
            "not a private address: 100.64.0.1 (carrier-grade NAT), 169.254.169.254 (link-local), \
             127.0.0.1 (loopback), :: (not the address of a host), 8.8.8.8"
        );
    }

    #[test]
    fn families_take_turns_beginning_with_the_resolvers_first() {
        let order = |addresses: &[&str]| -> Vec<String> {
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 1)).collect();
            alternate(&addresses).iter().map(|it| it.ip().to_string()).collect()
        };
        let mixed = ["fd00::1", "fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2"];
        assert_eq!(order(&mixed), ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "fd00::3"]);
        assert_eq!(order(&["10.0.0.1", "fd00::1", "fd00::2"]), ["10.0.0.1", "fd00::1", "fd00::2"]);
        assert_eq!(order(&["10.0.0.2", "10.0.0.1"]), ["10.0.0.2", "10.0.0.1"]);
        assert!(order(&[]).is_empty());
    }

    /// Slow and independent: the private networks as (first, last) pairs.
    fn listed_private(address: Ipv4Addr) -> bool {
        [
            ("10.0.0.0", "10.255.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.168.0.0", "192.168.255.255"),
        ]
        .iter()
        .any(|(first, last)| {
            let edge = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
            (edge(first)..=edge(last)).contains(&address.to_bits())
        })
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_disguise(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            let expected = listed_private(plain);
            let mapped = plain.to_ipv6_mapped();
            let nat64: Ipv6Addr = format!("64:ff9b::{plain}").parse().unwrap();
            let local: Ipv6Addr = format!("64:ff9b:1::{plain}").parse().unwrap();
            for address in [IpAddr::V4(plain), mapped.into(), nat64.into(), local.into()] {
                prop_assert_eq!(PRIVATE.check(&[address]).is_ok(), expected, "{}", address);
            }
        }

        #[test]
        fn no_other_ipv6_address_is_private(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            // All of random space but one in 2^80 is neither mapped nor translated.
            let unique_local = address.octets()[0] & 0xfe == 0xfc;
            prop_assert_eq!(PRIVATE.check(&[address.into()]).is_ok(), unique_local);
        }

        #[test]
        fn the_order_keeps_every_address_once(addresses in proptest::collection::vec(any::<SocketAddr>(), 0..9)) {
            let mut ordered = alternate(&addresses);
            prop_assert_eq!(ordered.first(), addresses.first());
            let mut before = addresses;
            before.sort();
            ordered.sort();
            prop_assert_eq!(ordered, before);
        }
    }

    #[test]
    fn one_public_address_among_private_ones_refuses_all() {
        let addresses = ["10.0.0.1", "8.8.8.8"].map(|address| address.parse().unwrap());
        let refused = PRIVATE.check(&addresses).unwrap_err();
        assert_eq!(refused.to_string(), "not a private address: 8.8.8.8");
    }

    #[test]
    fn loopback_and_public_are_separate_permissions() {
        let public = AddressPolicy { allow_public: true, allow_loopback: false };
        let loopback = AddressPolicy { allow_public: false, allow_loopback: true };
        assert!(accepts(public, "8.8.8.8") && !accepts(public, "127.0.0.1"));
        assert!(accepts(loopback, "127.0.0.1") && accepts(loopback, "::1"));
        assert!(!accepts(loopback, "8.8.8.8"));
    }

    #[test]
    fn unspecified_broadcast_and_multicast_are_never_dialled() {
        let all = AddressPolicy { allow_public: true, allow_loopback: true };
        for address in ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1"] {
            assert!(!accepts(all, address), "{address}");
        }
    }
}
