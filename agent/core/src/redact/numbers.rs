//! Numbers that belong to people: IBAN, card, citizen service number, phone (R32–R35).

use super::Class;
use super::key;
use super::scan::Scan;
use super::value;

/// Length of an IBAN by country (ISO 13616 registry).
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

/// Reads the digits around `at`; returns where to look for the next.
pub(super) fn at_digits(scan: &mut Scan<'_>, at: usize) -> usize {
    let text = scan.text;
    if scan.spent() {
        return text.len();
    }
    let digit = |b: &&u8| b.is_ascii_digit();
    let left = scan
        .slice(at.saturating_sub(40).max(scan.body.min(at)), at)
        .iter()
        .rev()
        .take_while(digit)
        .count();
    let run = scan.rest(at).iter().take(40).take_while(digit).count();
    let (start, end) = (at - left, at + run);
    let len = end - start;
    if run == 0 {
        return at + 1;
    }
    if len < 10 && !has_neighbours(scan, start, end) {
        return end;
    }
    let letter_before = scan.before(start).is_some_and(|b| b.is_ascii_alphabetic());
    let found = if len >= 13 && !letter_before { plain_card(scan, start, end) } else { None };
    let found =
        found.or_else(|| (10..=15).contains(&len).then(|| plain_phone(scan, start, end)).flatten());
    if let Some(next) = found.or_else(|| iban(scan, start, end)) {
        return next;
    }
    if (4..=6).contains(&len)
        && let Some(next) = grouped_card(scan, start, len)
    {
        return next;
    }
    if (4..=8).contains(&len)
        && let Some(next) = grouped_phone(scan, start, end)
    {
        return next;
    }
    // Nothing of a run is looked at twice; hexadecimal words are left as a whole.
    let word = text
        .get(end..)
        .unwrap_or_default()
        .iter()
        .take(64)
        .take_while(|b| b.is_ascii_alphanumeric())
        .count();
    if word > 0 && letter_before { end } else { end.max(at + 1) }
}

/// Whether the digits at `start..end` may be a part of something longer: of a word, or of groups that
/// a blank or dash divides. Most numbers in a log stand alone.
fn has_neighbours(scan: &Scan<'_>, start: usize, end: usize) -> bool {
    let word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let divides = |b: Option<u8>| matches!(b, Some(b' ' | b'-'));
    let (before, after) = (scan.before(start), scan.at(end));
    word(before)
        || word(after)
        || divides(before) && word(scan.before(start - 1))
        || divides(after) && word(scan.at(end + 1))
}

/// A sign, or nothing, that a number of its own may stand next to.
fn open_before(scan: &Scan<'_>, start: usize) -> bool {
    if start == scan.body {
        return true;
    }
    match scan.before(start) {
        None => true,
        Some(b'.' | b'-' | b'_' | b'+' | b'/' | b'~' | b'@' | b'#' | b'$' | b'%') => false,
        Some(b'n' | b't' | b'r') if start >= 2 && scan.before(start - 1) == Some(b'\\') => true,
        Some(b) => !b.is_ascii_alphanumeric() && b < 0x80,
    }
}

fn open_after(scan: &Scan<'_>, end: usize) -> bool {
    match scan.at(end) {
        None => true,
        Some(b'.' | b'-' | b':') => !scan.at(end + 1).is_some_and(|b| b.is_ascii_alphanumeric()),
        Some(b'_' | b'%' | b'@') => false,
        Some(b) => !b.is_ascii_alphanumeric(),
    }
}

/// R33, without separators.
fn plain_card(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let digits = scan.slice(start, end);
    // The sum tells a card from other numbers, so a sign on either side does not speak against it; a
    // dot does: it makes a fraction.
    let word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'.');
    let free = |b: Option<u8>| !word(b);
    let before = start == scan.body || free(scan.before(start)) || open_before(scan, start);
    if !before || !free(scan.at(end)) && !open_after(scan, end) || !is_card(digits) {
        return None;
    }
    scan.add(start, end, Class::Card);
    Some(end)
}

/// R33, in groups of 4-4-4-4, 4-4-4-4-3, 4-6-5 or 4-6-4, with one separator throughout.
fn grouped_card(scan: &mut Scan<'_>, group: usize, len: usize) -> Option<usize> {
    // To the first group: what was seen may be a later one.
    let mut first = group;
    let separator =
        scan.at(group + len).filter(|b| matches!(b, b' ' | b'-')).or(scan.before(group))?;
    if !matches!(separator, b' ' | b'-') {
        return None;
    }
    for _ in 0..3 {
        if scan.before(first) != Some(separator) || first < scan.body + 5 {
            break;
        }
        let digits = scan
            .slice(first.saturating_sub(7), first - 1)
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if !(4..=6).contains(&digits) || first - 1 - digits < scan.body {
            break;
        }
        first -= 1 + digits;
    }
    for shape in [&[4_usize, 4, 4, 4, 3][..], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]] {
        // A number of another kind may stand before the card: try each group as its first.
        let mut from = first;
        while from <= group {
            if let Some(end) = matches_shape(scan, from, shape, separator) {
                scan.add(from, end, Class::Card);
                return Some(end);
            }
            let step = scan.rest(from).iter().take(7).take_while(|b| b.is_ascii_digit()).count();
            from += step + 1;
        }
    }
    None
}

fn matches_shape(scan: &Scan<'_>, start: usize, shape: &[usize], separator: u8) -> Option<usize> {
    let mut digits = [0; 19];
    let mut room = digits.iter_mut();
    let mut at = start;
    for (index, &len) in shape.iter().enumerate() {
        if index > 0 {
            if scan.at(at) != Some(separator) {
                return None;
            }
            at += 1;
        }
        let group = scan.slice(at, at + len);
        if group.len() != len || !group.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for (&digit, room) in group.iter().zip(&mut room) {
            *room = digit;
        }
        at += len;
    }
    let digits = digits.get(..shape.iter().sum()).unwrap_or_default();
    (open_before(scan, start) && open_after(scan, at) && is_card(digits)).then_some(at)
}

/// A known issuer, its length, and the Luhn sum.
fn is_card(digits: &[u8]) -> bool {
    let number = |len: usize| {
        digits.iter().take(len).fold(0_u32, |n, &b| n * 10 + u32::from(b.wrapping_sub(b'0')))
    };
    let issuer = match digits.len() {
        13 | 19 => number(1) == 4 || digits.len() == 19 && number(2) == 62,
        14 => matches!(number(3), 300..=305 | 309) || matches!(number(2), 36 | 38 | 39),
        15 => matches!(number(2), 34 | 37),
        16 => {
            number(1) == 4
                || matches!(number(2), 50..=58 | 60 | 62..=65 | 67)
                || matches!(number(4), 2200..=2204 | 2221..=2720 | 3528..=3589)
        }
        17 | 18 => matches!(number(2), 67 | 62),
        _ => false,
    };
    issuer && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &b)| {
            let digit = u32::from(b.wrapping_sub(b'0'));
            match (index % 2, digit) {
                (0, _) => digit,
                (_, 0..=4) => digit * 2,
                _ => digit * 2 - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|&b| b != b'0')
}

/// R32: the digits at `start..end` may be a part of an IBAN, plain or in groups of four.
fn iban(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let is_part = |b: &&u8| b.is_ascii_alphanumeric();
    let floor = start.saturating_sub(34).max(scan.body.min(start));
    let left = scan.slice(floor, start).iter().rev().take_while(is_part).count();
    let mut first = start - left;
    let right = scan.rest(end).iter().take(34).take_while(is_part).count();
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
        if first < scan.body + 5 || scan.before(first) != Some(b' ') {
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

fn grouped_iban(scan: &mut Scan<'_>, first: usize) -> Option<usize> {
    let country: [u8; 2] = scan.slice(first, first + 2).to_ascii_uppercase().try_into().ok()?;
    let &(_, len) = IBAN_LENGTHS.iter().find(|(code, _)| **code == country)?;
    let mut word = Vec::with_capacity(34);
    let mut at = first;
    while word.len() < len {
        if !word.is_empty() && word.len() % 4 == 0 {
            if scan.at(at) != Some(b' ') {
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
    let upper = country.to_ascii_uppercase();
    let known = IBAN_LENGTHS.iter().any(|&(code, len)| code[..] == upper[..] && len == word.len());
    if !known || !rest.iter().take(2).all(u8::is_ascii_digit) {
        return false;
    }
    let (head, tail) = word.split_at(4);
    let remainder = tail.iter().chain(head).fold(0_u32, |n, &b| match b {
        b'0'..=b'9' => (n * 10 + u32::from(b - b'0')) % 97,
        _ => (n * 100 + u32::from(b.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    remainder == 1
}

/// R35: `0612345678`, `0031612345678`.
fn plain_phone(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let digits = scan.slice(start, end);
    let mobile = digits.len() == 10 && digits.starts_with(b"06");
    let abroad = digits.starts_with(b"00")
        && digits.len() >= 11
        && digits.get(2).is_some_and(|&b| b != b'0');
    let listed = [
        &b"31"[..],
        b"32",
        b"33",
        b"34",
        b"39",
        b"41",
        b"43",
        b"44",
        b"45",
        b"46",
        b"47",
        b"48",
        b"49",
        b"35",
        b"42",
    ]
    .iter()
    .any(|code| digits.get(2..).is_some_and(|d| d.starts_with(code)));
    if !(mobile || abroad && listed) || !open_before(scan, start) || !open_after(scan, end) {
        return None;
    }
    scan.add(start, end, Class::Phone);
    Some(end)
}

/// R35: `06-12345678`, `020 1234567`, `(0)20 123 4567`: ten digits in groups, the first of which
/// begins with a zero.
fn grouped_phone(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let mut first = start;
    let separator = |b: Option<u8>| matches!(b, Some(b' ' | b'-'));
    for _ in 0..4 {
        if !separator(scan.before(first)) || first < scan.body + 2 {
            break;
        }
        let digits = scan
            .slice(first.saturating_sub(6).max(scan.body), first - 1)
            .iter()
            .rev()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if digits == 0 || digits > 4 {
            break;
        }
        first -= 1 + digits;
        if scan.at(first) == Some(b'0') {
            break;
        }
    }
    if first == start
        || scan.at(first) != Some(b'0')
        || matches!(scan.at(first + 1), Some(b'0') | None)
    {
        return None;
    }
    // Area code, then the rest in groups; German numbers are longer than Dutch ones.
    let mut digits = 0;
    let mut at = first;
    while digits < 12 {
        match scan.at(at) {
            Some(b) if b.is_ascii_digit() => digits += 1,
            Some(b' ' | b'-')
                if digits < 10 && scan.at(at + 1).is_some_and(|b| b.is_ascii_digit()) => {}
            _ if digits >= 10 => break,
            _ => return None,
        }
        at += 1;
    }
    let area = scan.slice(first, first + 6).iter().take_while(|b| b.is_ascii_digit()).count();
    let dates = scan.slice(first, at).iter().filter(|&&b| b == b'-').count() >= 2;
    if (2..=5).contains(&area)
        && !dates
        && at >= end
        && open_before(scan, first)
        && open_after(scan, at)
    {
        scan.add(first, at, Class::Phone);
        return Some(at);
    }
    None
}

/// R35: `+31 6 1234 5678`, `+1 (555) 123-4567`, from the first plus on.
pub(super) fn after_plus(scan: &mut Scan<'_>, first: usize) {
    let mut from = first;
    for offset in memchr::memchr_iter(b'+', scan.rest(first)) {
        let at = first + offset;
        if at < from {
            continue;
        }
        let alone = at == scan.body
            || scan.before(at).is_none_or(|b| {
                !b.is_ascii_alphanumeric() && !matches!(b, b'=' | b'/' | b'+' | b'.') || b == b'='
            })
            || matches!(scan.before(at), Some(b'n' | b't' | b'r'))
                && at >= 2
                && scan.before(at - 1) == Some(b'\\');
        if !alone || !matches!(scan.at(at + 1), Some(b'1'..=b'9')) {
            continue;
        }
        if let Some(end) = phone_end(scan, at + 1, 9) {
            scan.add(at, end, Class::Phone);
            from = end;
        }
    }
}

/// End of the phone number at `start`: 9 to 15 digits with single separators and one pair of
/// parentheses.
fn phone_end(scan: &Scan<'_>, start: usize, least: usize) -> Option<usize> {
    let mut digits = 0;
    let mut at = start;
    let mut end = start;
    loop {
        match scan.at(at) {
            Some(b) if b.is_ascii_digit() => {
                digits += 1;
                end = at + 1;
            }
            Some(b' ' | b'-' | b'.' | b'/' | b'(' | b')') => {
                let next = scan.at(at + 1);
                let group = next.is_some_and(|b| b.is_ascii_digit())
                    || matches!(
                        (scan.at(at), next),
                        (Some(b' '), Some(b'(')) | (Some(b')'), Some(b' ' | b'-'))
                    );
                if !group || digits >= 15 {
                    break;
                }
            }
            _ => break,
        }
        at += 1;
        if digits > 15 {
            return None;
        }
    }
    let bounded = !scan.at(end).is_some_and(|b| b.is_ascii_alphanumeric());
    (digits >= least && bounded).then_some(end)
}

/// A value after a key: where it begins, past separators and quotes.
fn value_after(scan: &Scan<'_>, key_end: usize) -> Option<usize> {
    let mut at = key_end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    if matches!(scan.at(at), Some(b':' | b'=' | b'>')) {
        at = scan.skip_space(at + 1);
    }
    for word in [&b"number "[..], b"nummer ", b"no. ", b"nr. ", b"is ", b": "] {
        if scan.slice(at, at + word.len()).eq_ignore_ascii_case(word) {
            at += word.len();
        }
    }
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    (at > key_end).then_some(at)
}

/// R34: nine digits that pass the 11-test, after a word that says so. Alone, one in eleven numbers
/// would pass.
pub(super) fn at_bsn(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Words between the stem and the number.
    const NEAR: usize = 48;
    if scan.in_placeholder(start)
        || scan.before(start).is_some_and(|b| b.is_ascii_lowercase()) && end - start == 3
    {
        return;
    }
    let near = scan.slice(end, end + NEAR);
    let Some(offset) = near.iter().position(u8::is_ascii_digit) else { return };
    let first = end + offset;
    let mut digits = Vec::with_capacity(10);
    let mut at = first;
    while digits.len() < 10 {
        match scan.at(at) {
            Some(b) if b.is_ascii_digit() => digits.push(b - b'0'),
            Some(b'.' | b' ' | b'-') if scan.at(at + 1).is_some_and(|b| b.is_ascii_digit()) => {}
            _ => break,
        }
        at += 1;
    }
    let weights = [9_i32, 8, 7, 6, 5, 4, 3, 2, -1];
    if digits.len() == 8 {
        digits.insert(0, 0);
    }
    let sum: i32 = digits.iter().zip(weights).map(|(&d, w)| i32::from(d) * w).sum();
    if digits.len() == 9 && sum % 11 == 0 && sum != 0 {
        scan.add(first, at, Class::Bsn);
    }
}

/// R35: any number of seven digits or more after a word such as `phone`.
pub(super) fn at_phone(scan: &mut Scan<'_>, start: usize, end: usize) {
    let (key_start, key_end) = key::extent(scan, start, end);
    if scan.in_placeholder(key_start) {
        return;
    }
    let Some(mut at) = value_after(scan, key_end) else { return };
    let first = at;
    // After a blank alone the number has to look like one.
    let signed = scan.slice(key_end, at).iter().any(|b| b"=:>\"'".contains(b));
    if !signed && !matches!(scan.at(at), Some(b'0' | b'+' | b'(')) {
        return;
    }
    while matches!(scan.at(at), Some(b'+' | b'(')) && at < first + 2 {
        at += 1;
    }
    if let Some(end) = phone_end(scan, at, 7) {
        let number = scan.slice(at, end);
        // A time stamp in milliseconds or a date after `phone` is still no phone number.
        if number.len() != 13 || !number.starts_with(b"1") {
            scan.add(first, end, Class::Phone);
        }
    }
}
