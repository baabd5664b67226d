//! Telephone numbers: R35.

use super::super::scan::Scan;
use super::super::{Class, key, value};
use super::{open_after, open_before};

/// R35: `0612345678`, `0031612345678`.
pub(super) fn plain(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
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
pub(super) fn grouped(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
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
    if scan.starts(first, b"00") {
        return abroad(scan, first, end);
    }
    if first == start || scan.at(first) != Some(b'0') || scan.at(first + 1).is_none() {
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

/// R35: `0031 6 12345678`, `0031-6-12345678`.
fn abroad(scan: &mut Scan<'_>, first: usize, end: usize) -> Option<usize> {
    let country = matches!(scan.at(first + 2), Some(b'1'..=b'9'))
        && scan.at(first + 3).is_some_and(|b| b.is_ascii_digit());
    let divided = matches!(scan.at(first + 4), Some(b' ' | b'-'));
    if !country || !divided || !open_before(scan, first) {
        return None;
    }
    let last = phone_end(scan, first, 12)?;
    let digits = scan.slice(first, last).iter().filter(|b| b.is_ascii_digit()).count();
    if last < end || digits > 15 || !open_after(scan, last) {
        return None;
    }
    scan.add(first, last, Class::Phone);
    Some(last)
}

/// R35: `+31 6 1234 5678`, `+1 (555) 123-4567`, from the first plus on.
pub(in super::super) fn after_plus(scan: &mut Scan<'_>, first: usize) {
    let mut from = first;
    for offset in memchr::memchr_iter(b'+', scan.rest(first)) {
        let at = first + offset;
        if at < from {
            continue;
        }
        // `PJSIP/trunk/+31…`, `SIP/+31…`
        let dialled = scan.before(at) == Some(b'/') && {
            let lead = scan.slice(at.saturating_sub(24).max(scan.body.min(at)), at);
            memchr::memmem::find(lead, b"SIP/").is_some()
        };
        let alone = dialled
            || at == scan.body
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
                    )
                    // `010 - 123 45 67`
                    || digits <= 4 && scan.starts(at, b" - ") && scan.at(at + 3).is_some_and(|b| b.is_ascii_digit())
                    || scan.at(at) == Some(b'-') && next == Some(b' ') && scan.before(at) == Some(b' ');
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
    let words = [
        &b"number "[..],
        b"nummer ",
        b"no. ",
        b"nr. ",
        b"sent ",
        b"is ",
        b"to ",
        b"naar ",
        b"op ",
        b"invalid value ",
        b"back on ",
        b"on ",
        b": ",
        b"customer ",
        b"client ",
        b"klant ",
        b"kunde ",
        b"at ",
        b"from ",
        b"van ",
        b"von ",
        b"of ",
        b"id: ",
    ];
    for word in words {
        if scan.slice(at, at + word.len()).eq_ignore_ascii_case(word) {
            at += word.len();
        }
    }
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    (at > key_end).then_some(at)
}

/// `bel Bob terug op (020) 123 45 67`: ten digits in groups, with a zero first, within the next words.
fn later(scan: &mut Scan<'_>, from: usize) {
    /// From the word to the number.
    const NEAR: usize = 64;
    let near = scan.slice(from, from + NEAR);
    let Some(found) = near.windows(2).position(|w| matches!(w, [b' ' | b'(' | b'"' | b'[', b'0']))
    else {
        return;
    };
    let start = from + found + usize::from(near.get(found) != Some(&b'('));
    let first = start + usize::from(scan.at(start) == Some(b'('));
    let Some(end) = phone_end(scan, first, 10) else { return };
    let number = scan.slice(start, end);
    let digits = number.iter().filter(|b| b.is_ascii_digit()).count();
    let date = number.iter().filter(|&&b| b == b'-').count() >= 2;
    let divided = number.iter().any(|b| b" -".contains(b));
    if digits == 10 && divided && !date && !number.contains(&b'.') && open_after(scan, end) {
        scan.add(start, end, Class::Phone);
    }
}

/// R35: any number of seven digits or more after a word such as `phone`.
pub(in super::super) fn at_phone(scan: &mut Scan<'_>, start: usize, end: usize) {
    let end = if scan.before(end) == Some(b' ') { end - 1 } else { end };
    let (key_start, key_end) = key::extent(scan, start, end);
    if scan.in_placeholder(key_start) {
        return;
    }
    let Some(mut at) = value_after(scan, key_end) else { return };
    if !scan.at(at).is_some_and(|b| b.is_ascii_digit() || b"+(".contains(&b)) {
        return later(scan, at);
    }
    let first = at;
    // After a blank alone the number has to look like one.
    let signed = scan.slice(key_end, at).iter().any(|b| b"=:>\"'".contains(b));
    if !signed && !matches!(scan.at(at), Some(b'0' | b'+' | b'(')) {
        // `tel. 415.555.0100`
        let near = scan.slice(at, at + 16);
        let digits = near.iter().take_while(|b| b.is_ascii_digit() || b".-".contains(b));
        let (numbers, signs) = digits.fold((0, 0), |(n, s), b| {
            (n + i32::from(b.is_ascii_digit()), s + i32::from(!b.is_ascii_digit()))
        });
        if numbers != 10 || signs != 2 {
            return;
        }
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
