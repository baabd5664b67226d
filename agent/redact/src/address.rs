//! E-mail and IP addresses, and user info of URLs: R11, R29–R31.

use std::net::Ipv6Addr;

use super::Class;
use super::bytes;
use super::scan::Scan;
use super::signs::Signs;
use super::{numbers, query, sql};

/// Longest local part of an address, and longest domain (RFC 5321 §4.5.3.1).
const LOCAL_PART: usize = 64;
const DOMAIN: usize = 255;

/// A dot or colon with what may be digits to both sides. Returns where to look for the next.
pub(super) fn at_mark(scan: &mut Scan<'_>, at: usize) -> usize {
    if scan.spent() {
        return scan.text.len();
    }
    let next = match scan.at(at) {
        Some(b'.') => ipv4(scan, at),
        // `[::1`: of the two colons only the second has digits around it.
        _ if at > scan.body && scan.before(at) == Some(b':') => ipv6(scan, at - 1),
        _ => ipv6(scan, at),
    };
    next.unwrap_or(0).max(at + 1)
}

/// Looks for `@` and `+` in the whole body.
pub(super) fn at_signs(scan: &mut Scan<'_>, signs: Signs) {
    let body = scan.body;
    let mut done = body;
    let mails = if signs.at { scan.rest(body) } else { b"" };
    for offset in memchr::memchr_iter(b'@', mails) {
        let at = body + offset;
        if scan.spent() {
            return;
        }
        if at >= done {
            done = at_sign(scan, at).unwrap_or(done);
        }
    }
    if signs.plus
        && let Some(offset) = memchr::memchr(b'+', scan.rest(body))
    {
        numbers::after_plus(scan, body + offset);
    }
}

fn is_digit(b: Option<u8>) -> bool {
    b.is_some_and(|b| b.is_ascii_digit())
}

/// R30, at the first dot of an address.
fn ipv4(scan: &mut Scan<'_>, dot: usize) -> Option<usize> {
    let before = scan.before(dot)?;
    let after = scan.at(dot + 1)?;
    if !before.is_ascii_digit() || !after.is_ascii_digit() {
        return None;
    }
    let mut start = dot;
    while start > scan.body && dot - start < 4 && is_digit(scan.before(start)) {
        start -= 1;
    }
    let mut octets = [0_u32; 4];
    let mut at = start;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            if scan.at(at) != Some(b'.') {
                return None;
            }
            at += 1;
        }
        let from = at;
        while at - from < 4
            && let Some(digit @ b'0'..=b'9') = scan.at(at)
        {
            *octet = *octet * 10 + u32::from(digit - b'0');
            at += 1;
        }
        let leading_zero = scan.at(from) == Some(b'0') && at - from > 1;
        if at == from || *octet > 255 || leading_zero {
            // `10.18.3.52345` is a version; nothing in it is an address.
            return Some(at);
        }
    }
    let longer = scan.at(at) == Some(b'.') && is_digit(scan.at(at + 1));
    let word_goes_on = scan.at(at).is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        || scan.at(at) == Some(b'-') && scan.at(at + 1).is_some_and(|b| b.is_ascii_alphabetic());
    if longer || word_goes_on || is_version_context(scan, start) {
        return Some(at);
    }
    let speaks_of_no_one = octets[0] == 127 || octets == [0; 4] || octets == [255; 4];
    // `Chrome/120.0.0.0`
    let rounded = octets[1..] == [0, 0, 0] && scan.before(start) == Some(b'/') && octets[0] != 10;
    if !speaks_of_no_one && !rounded {
        scan.add(start, at, Class::Ipv4);
    }
    Some(at)
}

/// Whether the dotted number at `start` is a version: `v1.2.3.4`, `Version=1.2.3.4`, `Edg/1.2.3.4`.
fn is_version_context(scan: &Scan<'_>, start: usize) -> bool {
    const PRODUCTS: &[&str] = &[
        "chrome",
        "chromium",
        "headlesschrome",
        "edg",
        "edga",
        "edge",
        "opr",
        "opera",
        "version",
        "crios",
        "fxios",
        "yabrowser",
        "vivaldi",
        "samsungbrowser",
        "electron",
        "whale",
        "brave",
        "webview2",
        "trident",
    ];
    match scan.before(start) {
        None => return false,
        Some(b) if start > scan.body && (b.is_ascii_alphabetic() || matches!(b, b'.' | b'_')) => {
            // A letter before is a word such as `v1` or `ip10`; after an escape it is none.
            return !(matches!(b, b'n' | b't' | b'r')
                && start >= 2
                && scan.before(start - 1) == Some(b'\\'));
        }
        Some(b'-') => {
            // `nginx-1.2.3.4` but not ` -10.0.0.1` or a range of addresses.
            return start >= 2 && scan.before(start - 1).is_some_and(|b| b.is_ascii_alphabetic());
        }
        Some(_) => {}
    }
    let before = scan.slice(start.saturating_sub(24).max(scan.body.min(start)), start);
    let ends = |text: &[u8], word: &str| {
        text.len() >= word.len()
            && text
                .get(text.len() - word.len()..)
                .is_some_and(|t| t.eq_ignore_ascii_case(word.as_bytes()))
    };
    if let Some(product) = before.strip_suffix(b"/") {
        let len = product.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
        return PRODUCTS.iter().any(|p| p.len() == len && ends(product, p));
    }
    let quotes = before
        .iter()
        .rev()
        .take_while(|b| matches!(b, b'"' | b'\'' | b' ' | b':' | b'=' | b'\\'))
        .count();
    let word = before.get(..before.len() - quotes).unwrap_or_default();
    quotes > 0 && ["version", " ver", "build", "release"].iter().any(|w| ends(word, w))
}

/// R31, at the first colon of an address.
fn ipv6(scan: &mut Scan<'_>, colon: usize) -> Option<usize> {
    /// `ffff:` six times, and an IPv4 address.
    const LONGEST: usize = 45;
    let is_part = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
    let next = scan.at(colon + 1)?;
    // `IP:::ffff:10.0.0.1`: the first colon is that of the name.
    if scan.starts(colon, b":::") && follows_name(scan, colon + 1) {
        return ipv6(scan, colon + 1);
    }
    if next == b':' {
        // `::1`, `fe80::1`
    } else if !is_part(scan.before(colon)) || !next.is_ascii_hexdigit() {
        return None;
    }
    let mut start = colon;
    while start > scan.body && colon - start < 5 && is_part(scan.before(start)) {
        start -= 1;
    }
    let rest = scan.slice(start, start + LONGEST + 1);
    let (mut len, mut colons, mut telling, mut last) = (0, 0, false, 0);
    for &byte in rest.iter().take_while(|b| bytes::ADDRESS.has(**b)) {
        telling |= byte == b'.' || byte == b':' && last == b':';
        colons += usize::from(byte == b':');
        last = byte;
        len += 1;
    }
    // Most are times of day.
    if !telling && colons < 7 {
        return Some((start + len - usize::from(last == b':')).max(colon + 1));
    }
    // `::` of a listener, the colon before a port, the dot of a sentence.
    while len > 0
        && matches!(rest.get(len - 1), Some(b':' | b'.'))
        && !rest.get(..len).is_some_and(|t| t.ends_with(b"::") && t.len() > 2)
    {
        len -= 1;
    }
    let mut token = rest.get(..len).unwrap_or_default();
    // `/2001:db8:0:0:0:0:0:1:443`, as Java prints an address and its port.
    let groups = token.iter().filter(|&&b| b == b':').count();
    if groups == 8
        && memchr::memmem::find(token, b"::").is_none()
        && let Some(port) = memchr::memrchr(b':', token)
    {
        token = token.get(..port).unwrap_or_default();
    }
    // `::ffff:10.0.0.1:443`
    if let Some(port) = memchr::memrchr(b':', token)
        && memchr::memchr(b'.', token).is_some_and(|dot| dot < port)
    {
        token = token.get(..port).unwrap_or_default();
    }
    let end = start + token.len();
    let colons = token.iter().filter(|&&b| b == b':').count();
    let double = memchr::memmem::find(token, b"::").is_some();
    if colons < 2 || !double && colons != 7 && !(colons == 6 && token.contains(&b'.')) {
        return Some(end.max(colon + 1));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bounded = start == scan.body
        || scan.before(start).is_none_or(|b| !word(b) && b != b':' && b != b'.')
        || follows_name(scan, start)
        || matches!(scan.before(start), Some(b'n' | b't' | b'r'))
            && start >= 2
            && scan.before(start - 1) == Some(b'\\');
    if !bounded || scan.at(end).is_some_and(word) || !token.iter().any(u8::is_ascii_digit) {
        return Some(end.max(colon + 1));
    }
    // Eight pairs of digits name a port of a storage network.
    if !double && token.len() == 23 && token.split(|&b| b == b':').all(|part| part.len() == 2) {
        return Some(end);
    }
    let parsed =
        |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.parse::<Ipv6Addr>().ok());
    let mut end = end;
    let address = parsed(token).or_else(|| {
        // `2001:db8:1:2:3::4:5:443`: a group too many is a port.
        let port = memchr::memrchr(b':', token)?;
        let digits = token.get(port + 1..)?.iter().all(u8::is_ascii_digit);
        let address = parsed(token.get(..port)?).filter(|_| digits)?;
        end = start + port;
        Some(address)
    });
    let Some(address) = address else { return Some(end.max(colon + 1)) };
    if !address.is_loopback() && !address.is_unspecified() {
        // `fe80::1%eth0`
        let zone = match scan.at(end) {
            Some(b'%') => 1 + scan.run(end + 1, 15, u8::is_ascii_alphanumeric),
            _ => 0,
        };
        scan.add(start, end + if zone > 1 { zone } else { 0 }, Class::Ipv6);
    }
    Some(end)
}

/// `IP:2001:db8::1`: the colon before `start` divides an address from the name of a field.
fn follows_name(scan: &Scan<'_>, start: usize) -> bool {
    let Some(colon) = start.checked_sub(1).filter(|&at| scan.at(at) == Some(b':')) else {
        return false;
    };
    let len = scan.run_before(colon, colon.saturating_sub(24).max(scan.body.min(colon)), |b| {
        b.is_ascii_alphabetic()
    });
    let name = scan.slice(colon - len, colon);
    len >= 2 && !name.iter().all(u8::is_ascii_hexdigit)
}

/// `@`: user info of a URL, or an e-mail address.
fn at_sign(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    if let Some(next) = query::user_info(scan, at).or_else(|| query::bare_user_info(scan, at)) {
        return Some(next);
    }
    if let Some(next) = sql::at_parameter(scan, at) {
        return Some(next);
    }
    email(scan, at)
}

/// R29. Letters beyond ASCII count as letters.
fn email(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    /// Units of systemd, and things that are no top-level domain.
    const NOT_TOP: &[&[u8]] = &[
        b"service",
        b"socket",
        b"slice",
        b"timer",
        b"mount",
        b"scope",
        b"target",
        b"device",
        b"path",
        b"swap",
        b"automount",
        b"jar",
        b"js",
        b"ts",
        b"class",
    ];
    let is_local = |b: &&u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'.' | b'_' | b'+' | b'-' | b'%' | b'~' | b'!' | b'#' | b'$' | b'*')
            || **b >= 0x80
    };
    let floor = at.saturating_sub(LOCAL_PART).max(scan.body.min(at));
    let mut local = scan.slice(floor, at).iter().rev().take_while(is_local).count();
    // `J.O'Brien@…`: the letter before an apostrophe stands alone.
    if local > 0
        && scan.before(at - local) == Some(b'\'')
        && at - local >= floor + 2
        && scan.at(at - local - 2).is_some_and(|b| b.is_ascii_alphabetic())
        && (at - local < floor + 3
            || !scan.before(at - local - 2).is_some_and(|b| b.is_ascii_alphanumeric() || b >= 0x80))
    {
        local += 2;
        let more = scan.slice(floor, at - local).iter().rev().take_while(is_local).count();
        local += more;
    }
    while local > 0 && matches!(scan.at(at - local), Some(b'.' | b'-' | b'*' | b'#' | b'!' | b'~'))
    {
        local -= 1;
    }
    // `\nbob@…`
    if local > 1
        && scan.before(at - local) == Some(b'\\')
        && matches!(scan.at(at - local), Some(b'n' | b't' | b'r'))
    {
        local -= 1;
    }
    let is_domain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-') || *b >= 0x80;
    let mut len = scan.run(at + 1, DOMAIN, is_domain);
    while len > 0 && matches!(scan.before(at + 1 + len), Some(b'.' | b'-')) {
        len -= 1;
    }
    let domain = scan.slice(at + 1, at + 1 + len);
    let dot = memchr::memrchr(b'.', domain)?;
    let top = domain.get(dot + 1..).unwrap_or_default();
    let real_top = top.len() >= 2
        && top.iter().all(|&b| b.is_ascii_alphabetic() || b >= 0x80 || b == b'-')
        && !NOT_TOP.contains(&top);
    let first = domain.split(|&b| b == b'.').next().unwrap_or_default();
    // `left-pad@1.3.0-beta.rc`
    let second = domain.get(first.len() + 1);
    let version = !first.is_empty()
        && first.iter().all(u8::is_ascii_digit)
        && second.is_some_and(u8::is_ascii_digit);
    let name = scan.slice(at - local, at);
    // Remote repositories are no people.
    let git = name == b"git";
    if local == 0
        || !real_top
        || version
        || git
        || domain.windows(2).any(|w| w == b"..")
        || domain.first() == Some(&b'.')
    {
        return None;
    }
    scan.add(at - local, at + 1 + len, Class::Email);
    Some(at + 1 + len)
}

#[cfg(test)]
mod tests {
    use crate::{Counts, SnapshotKey, redact_text};

    fn redacted(text: &str) -> String {
        let key = SnapshotKey::new([7; 32]).into();
        redact_text(&key, text, &mut Counts::default()).expect("text")
    }

    #[test]
    fn addresses_of_any_form_go_and_what_colons_divide_otherwise_stays() {
        for address in [
            "2001:db8:0:1:2:3:4:5",
            "2001:db8::1",
            "fe80::1",
            "::ffff:10.1.2.3",
            "2001:db8:0:1:2:3:10.1.2.3",
        ] {
            let out = redacted(&format!("from {address} at 07:15:23"));
            let rest = out.strip_prefix("from [R:ipv6:").and_then(|rest| rest.get(8..));
            assert_eq!(rest, Some("] at 07:15:23"), "{address}");
        }
        for other in
            ["[22/Nov/2026:07:15:23 +0000]", "00:1b:44:11:3a:b7", "1:2:3:4:5:6:7", "1:2:3:", "7:"]
        {
            assert_eq!(redacted(&format!("from {other} at")), format!("from {other} at"));
        }
    }
}
