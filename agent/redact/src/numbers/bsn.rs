//! Dutch citizen service numbers: R34.

use super::super::Class;
use super::super::columns;
use super::super::key::{self, Key, Strength};
use super::super::scan::Scan;

/// R34: nine digits that pass the 11-test, after a word that says so. Alone, one in eleven numbers
/// would pass.
pub(in super::super) fn at_bsn(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// Words between the stem and the number.
    const NEAR: usize = 80;
    // `inpBsn`, but no three letters inside of a word.
    let inside = scan.before(start).is_some_and(|b| b.is_ascii_lowercase())
        && !scan.at(start).is_some_and(|b| b.is_ascii_uppercase());
    if scan.in_placeholder(start) || inside && end - start == 3 {
        return;
    }
    let (key_start, key_end) = key::extent(scan, start, end);
    let named = Key {
        start: key_start,
        end: key_end,
        class: Class::Bsn,
        strength: Strength::Sure,
        plural: false,
    };
    // `dossier;bsn;status`: the numbers are in the lines below.
    if columns::at_name(scan, &named) {
        return;
    }
    let near = scan.slice(end, end + NEAR);
    let begins = |at: usize| {
        near.get(at).is_some_and(u8::is_ascii_digit)
            && !(at > 0 && near.get(at - 1).is_some_and(u8::is_ascii_alphanumeric))
    };
    if (0..near.len()).filter(|&at| begins(at)).any(|at| take(scan, end + at)) {
        return;
    }
    // `123456782 is not a valid BSN`
    let floor = start.saturating_sub(NEAR).max(scan.body.min(start));
    let before = scan.slice(floor, start);
    let Some(last) = before.iter().rposition(u8::is_ascii_digit) else { return };
    let run = before.get(..=last).unwrap_or_default().iter().rev();
    let run = run.take(10).take_while(|b| b.is_ascii_digit()).count();
    if matches!(run, 8 | 9) {
        take(scan, floor + last + 1 - run);
        return;
    }
    let part = |b: &&u8| b.is_ascii_digit() || matches!(b, b'.' | b' ' | b'-');
    let len =
        before.get(..=last).unwrap_or_default().iter().rev().take(11).take_while(part).count();
    let lead = before.get(last + 1 - len..).unwrap_or_default();
    let skip = lead.iter().take_while(|b| !b.is_ascii_digit()).count();
    let first = floor + last + 1 - len + skip;
    if !scan.before(first).is_some_and(|b| b.is_ascii_alphanumeric()) || first == scan.body {
        take(scan, first);
    }
}

/// Takes the number at `first` if it passes; false if not.
pub(in super::super) fn take(scan: &mut Scan<'_>, first: usize) -> bool {
    let mut digits = Vec::with_capacity(10);
    let mut at = first;
    // Written in one, another number may follow: `/personen/123456782 200`.
    let in_one = matches!(scan.run(first, 10, u8::is_ascii_digit), 8 | 9);
    while digits.len() < 10 {
        match scan.at(at) {
            Some(b) if b.is_ascii_digit() => digits.push(b - b'0'),
            Some(b'.' | b' ' | b'-')
                if !in_one && scan.at(at + 1).is_some_and(|b| b.is_ascii_digit()) => {}
            _ => break,
        }
        at += 1;
    }
    // `2026-12-14`
    if scan.at(first + 4) == Some(b'-') && scan.at(first + 7) == Some(b'-') && at == first + 10 {
        return false;
    }
    let weights = [9_i32, 8, 7, 6, 5, 4, 3, 2, -1];
    if digits.len() == 8 {
        digits.insert(0, 0);
    }
    let sum: i32 = digits.iter().zip(weights).map(|(&d, w)| i32::from(d) * w).sum();
    let passes = digits.len() == 9 && sum % 11 == 0 && sum != 0;
    if passes {
        scan.add(first, at, Class::Bsn);
    }
    passes
}
