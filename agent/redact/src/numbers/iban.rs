//! IBANs: R32.

use super::super::Class;
use super::super::scan::Scan;

/// Length of an IBAN by country (ISO 13616 registry), in the order of their codes (tested).
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Length of the IBANs of a country, in any case.
fn length_in(country: &[u8; 2]) -> Option<usize> {
    let country = country.map(|letter| letter.to_ascii_uppercase());
    let place = IBAN_LENGTHS.binary_search_by_key(&country, |&(code, _)| *code).ok()?;
    IBAN_LENGTHS.get(place).map(|&(_, len)| len)
}

/// R32: the digits at `start..end` may be a part of an IBAN, plain or in groups of four.
pub(super) fn around(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let is_part = |b: &&u8| b.is_ascii_alphanumeric();
    let floor = start.saturating_sub(34).max(scan.body.min(start));
    let left = scan.slice(floor, start).iter().rev().take_while(is_part).count();
    let mut first = start - left;
    let right = scan.run(end, 34, u8::is_ascii_alphanumeric);
    let word = scan.slice(first, end + right);
    if word.len() >= 15 {
        if word.len() > 34 || !is_iban(word) {
            return None;
        }
        scan.add(first, end + right, Class::Iban);
        return Some(end + right);
    }
    if word.len() != 4 && word.len() > 4 {
        return None;
    }
    // Groups of four up to this one, the first of which begins with country and check digits.
    for _ in 0..8 {
        let head = scan.slice(first, first + 4);
        if let [a, b, c, d] = head
            && a.is_ascii_alphabetic()
            && b.is_ascii_alphabetic()
            && c.is_ascii_digit()
            && d.is_ascii_digit()
        {
            return grouped_iban(scan, first);
        }
        if first < scan.body + 5 || !divides(scan.before(first)) {
            return None;
        }
        let group = scan.slice(first - 5, first - 1);
        if !group.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        first -= 5;
    }
    None
}

/// Whether `sign` may stand between the groups; in a form a plus is a blank.
fn divides(sign: Option<u8>) -> bool {
    matches!(sign, Some(b' ' | b'-' | b'+' | b'.'))
}

fn grouped_iban(scan: &mut Scan<'_>, first: usize) -> Option<usize> {
    let len = length_in(scan.slice(first, first + 2).first_chunk()?)?;
    let mut word = Vec::with_capacity(34);
    let mut at = first;
    let sign = scan.at(first + 4);
    while word.len() < len {
        if !word.is_empty() && word.len() % 4 == 0 {
            if scan.at(at) != sign || !divides(sign) {
                return None;
            }
            at += 1;
        }
        word.push(scan.at(at).filter(u8::is_ascii_alphanumeric)?);
        at += 1;
    }
    let bounded = !scan.before(first).is_some_and(|b| b.is_ascii_alphanumeric())
        && !scan.at(at).is_some_and(|b| b.is_ascii_alphanumeric());
    if bounded && is_iban(&word) {
        scan.add(first, at, Class::Iban);
        return Some(at);
    }
    None
}

/// Country, length and mod-97 (ISO 7064).
fn is_iban(word: &[u8]) -> bool {
    let Some((country, rest)) = word.split_first_chunk::<2>() else { return false };
    if !rest.iter().take(2).all(u8::is_ascii_digit) || length_in(country) != Some(word.len()) {
        return false;
    }
    let (head, tail) = word.split_at(4);
    let remainder = tail.iter().chain(head).fold(0_u32, |n, &b| match b {
        b'0'..=b'9' => (n * 10 + u32::from(b - b'0')) % 97,
        _ => (n * 100 + u32::from(b.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_is_found_in_any_case() {
        for &(code, len) in IBAN_LENGTHS {
            assert_eq!(length_in(code), Some(len), "{code:?}");
            assert_eq!(length_in(&code.map(|b| b.to_ascii_lowercase())), Some(len), "{code:?}");
        }
        assert_eq!(length_in(b"ZZ"), None);
    }
}
