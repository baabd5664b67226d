//! Which destinations are reached without the proxy: the rules of NO_PROXY as Go has them
//! (`golang.org/x/net/http/httpproxy`), since that is what the other programs of a cluster follow and
//! what its administrator wrote the list for.
//!
//! | entry | matches |
//! |---|---|
//! | `10.0.0.4`, `fd00::4` | that address |
//! | `10.0.0.0/8`, `fd00::/8` | every address in it, written as an address |
//! | `example.com`, `*.example.com` without the `*.` | the name and every name below it |
//! | `.example.com`, `*.example.com` | every name below it, not the name |
//! | any of these but a network, with `:port` | on that port only; an IPv6 address in brackets |
//! | `*` | everything |
//!
//! Names are not resolved for this. `localhost` and loopback addresses are never reached through a
//! proxy. What can't be read matches nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A parsed list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    Network {
        base: IpAddr,
        bits: u32,
    },
    Address {
        address: IpAddr,
        port: Option<String>,
    },
    /// `suffix` begins with a dot.
    Name {
        suffix: String,
        itself: bool,
        port: Option<String>,
    },
}

impl NoProxy {
    /// Reads a list whose entries are separated by commas.
    pub fn parse(list: &str) -> Self {
        let mut rules = Vec::new();
        for entry in list.split(',') {
            let entry = entry.trim().to_lowercase();
            if entry == "*" {
                return Self { rules: vec![Rule::Everything] };
            }
            rules.extend(rule(&entry));
        }
        Self { rules }
    }

    /// Whether `host` (a name, or an address without brackets) at `port` is reached directly.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim().to_lowercase();
        let address = host.parse().ok().map(|address: IpAddr| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let at = |wanted: &Option<String>| match wanted {
            Some(wanted) => *wanted == port.to_string(),
            None => true,
        };
        self.rules.iter().any(|rule| match rule {
            Rule::Everything => true,
            Rule::Network { base, bits } => {
                address.is_some_and(|address| contains(*base, *bits, address))
            }
            Rule::Address { address: wanted, port } => address == Some(*wanted) && at(port),
            Rule::Name { suffix, itself, port } => {
                (host.ends_with(suffix.as_str()) || (*itself && host == suffix[1..])) && at(port)
            }
        })
    }
}

/// One entry in lower case; `None` when it means nothing.
fn rule(entry: &str) -> Option<Rule> {
    if let Some(network) = network(entry) {
        return Some(network);
    }
    let (host, port) = host_and_port(entry);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Rule::Address { address: address.to_canonical(), port });
    }
    let name = if host.starts_with("*.") { &host[1..] } else { host };
    if name.is_empty() {
        return None;
    }
    let itself = !name.starts_with('.');
    let suffix = if itself { format!(".{name}") } else { name.to_owned() };
    Some(Rule::Name { suffix, itself, port })
}

fn network(entry: &str) -> Option<Rule> {
    let (base, bits) = entry.split_once('/')?;
    let base: IpAddr = base.parse().ok()?;
    // Digits alone: "+8" and "08" are numbers to Rust and not to Go.
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u32 = bits.parse().ok().filter(|_| plain)?;
    let most = if base.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    (bits <= most).then_some(Rule::Network { base, bits })
}

/// `host:port` and `[host]:port`; whatever has no port that can be told apart is a host. An empty
/// port is none.
fn host_and_port(entry: &str) -> (&str, Option<String>) {
    let whole = (entry, None);
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => match rest.split_once("]:") {
            Some(parts) => parts,
            None => return whole,
        },
        None => match entry.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return whole,
            Some(parts) => parts,
            None => return whole,
        },
    };
    (host, Some(port.to_owned()).filter(|port| !port.is_empty()))
}

fn contains(base: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Go's documentation says of each kind of entry, one line for each claim.
    #[test]
    fn lists_mean_what_they_mean_to_go() {
        for (list, host, port, direct) in [
            // Nothing is listed: only this host is direct.
            ("", "plane.example", 443, false),
            ("", "localhost", 443, true),
            ("", "127.0.0.1", 443, true),
            ("", "127.9.9.9", 443, true),
            ("", "::1", 443, true),
            ("", "::2", 443, false),
            ("", "localhost.example", 443, false),
            // An address, with and without a port.
            ("10.0.0.4", "10.0.0.4", 443, true),
            ("10.0.0.4", "10.0.0.5", 443, false),
            ("10.0.0.4:8443", "10.0.0.4", 8443, true),
            ("10.0.0.4:8443", "10.0.0.4", 443, false),
            ("fd00::4", "fd00::4", 443, true),
            ("fd00:0:0::4", "fd00::4", 443, true),
            ("[fd00::4]:8443", "fd00::4", 8443, true),
            ("[fd00::4]:8443", "fd00::4", 443, false),
            ("[fd00::4]", "fd00::4", 443, false),
            ("10.0.0.4", "::ffff:10.0.0.4", 443, true),
            // A network.
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.1.2.3/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.4/32", "10.0.0.4", 443, true),
            ("0.0.0.0/0", "203.0.113.9", 443, true),
            ("0.0.0.0/0", "fd00::4", 443, false),
            ("0.0.0.0/0", "plane.example", 443, false),
            ("fd00::/8", "fdff::1", 443, true),
            ("fd00::/8", "fc00::1", 443, false),
            ("::/0", "fd00::4", 443, true),
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.0/8:443", "10.0.0.1", 443, false),
            // A name stands for itself and what is below it.
            ("plane.example", "plane.example", 443, true),
            ("plane.example", "a.b.plane.example", 443, true),
            ("plane.example", "airplane.example", 443, false),
            ("plane.example", "plane.example.org", 443, false),
            ("Plane.Example", "PLANE.example", 443, true),
            ("example", "plane.example", 443, true),
            // A leading dot stands for what is below it alone; `*.` is another way to say so.
            (".plane.example", "plane.example", 443, false),
            (".plane.example", "a.plane.example", 443, true),
            ("*.plane.example", "plane.example", 443, false),
            ("*.plane.example", "a.plane.example", 443, true),
            ("*plane.example", "a.plane.example", 443, false),
            // Ports of names.
            ("plane.example:8443", "plane.example", 8443, true),
            ("plane.example:8443", "plane.example", 443, false),
            (".plane.example:8443", "a.plane.example", 8443, true),
            ("plane.example:", "plane.example", 443, true),
            ("plane.example:https", "plane.example", 443, false),
            // Everything.
            ("*", "plane.example", 443, true),
            ("*", "10.0.0.4", 443, true),
            ("other.example, *", "plane.example", 443, true),
            ("*:443", "plane.example", 443, false),
            // Lists: blanks don't count, commas alone separate, rubbish is passed over.
            (" other.example ,  plane.example ", "plane.example", 443, true),
            ("other.example plane.example", "plane.example", 443, false),
            (",,:443,a:b:c,plane.example", "plane.example", 443, true),
            (":443", "plane.example", 443, false),
        ] {
            let found = NoProxy::parse(list).matches(host, port);
            assert_eq!(found, direct, "NO_PROXY={list:?} for {host} at {port}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_matched(list in ".{0,80}", host in ".{0,40}", port: u16) {
            NoProxy::parse(&list).matches(&host, port);
        }

        #[test]
        fn an_entry_matches_the_host_it_names(host in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", port: u16) {
            let (with_port, below) = (format!("{host}:{port}"), format!("below.{host}"));
            prop_assert!(NoProxy::parse(&host).matches(&host, port));
            prop_assert!(NoProxy::parse(&with_port).matches(&host, port));
            prop_assert!(NoProxy::parse(&host).matches(&below, port));
        }
    }
}
