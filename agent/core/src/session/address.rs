//! Which addresses the agent may dial: private ones, unless it was told otherwise.
//!
//! The control plane is reached through a private endpoint of the customer's network. If its name
//! resolves to anything else (split-horizon DNS missing, DNS spoofed), the agent must not carry
//! cluster data there, and TLS alone would not say which network it took.

use std::net::{IpAddr, Ipv6Addr};

/// Which addresses are acceptable besides private ones (RFC 1918, and RFC 4193 unique local).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Any unicast address.
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
        // ::ffff:8.8.8.8 is dialled as 8.8.8.8.
        let address = address.to_canonical();
        if address.is_loopback() {
            return self.allow_loopback;
        }
        if address.is_unspecified() || address.is_multicast() {
            return false;
        }
        match address {
            IpAddr::V4(v4) => v4.is_private() || (self.allow_public && !v4.is_broadcast()),
            IpAddr::V6(v6) => unique_local(v6) || self.allow_public,
        }
    }
}

/// RFC 4193: fc00::/7.
fn unique_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xfe00 == 0xfc00
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
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
