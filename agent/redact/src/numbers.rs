//! Numbers that belong to people: IBAN, card, citizen service number, phone (R32–R35).
//!
//! Digits are looked at where four of them stand together. What the digits around them may be is decided
//! here; each kind has a module of its own.

mod bsn;
mod card;
mod iban;
mod phone;

use super::scan::Scan;

pub(super) use bsn::{at_bsn, take as take_bsn};
pub(super) use phone::{after_plus, at_phone};

/// Reads the digits around `at`; returns where to look for the next.
pub(super) fn at_digits(scan: &mut Scan<'_>, at: usize) -> usize {
    if scan.spent() {
        return scan.text.len();
    }
    let run = scan.run(at, 40, u8::is_ascii_digit);
    if run == 0 {
        return at + 1;
    }
    let floor = at.saturating_sub(40).max(scan.body.min(at));
    let left = scan.run_before(at, floor, u8::is_ascii_digit);
    let (start, end) = (at - left, at + run);
    let len = end - start;
    if len < 10 && !has_neighbours(scan, start, end) {
        return end;
    }
    let escape = matches!(scan.before(start), Some(b'n' | b't' | b'r'))
        && start > scan.body + 1
        && scan.before(start - 1) == Some(b'\\');
    let letter_before = !escape && scan.before(start).is_some_and(|b| b.is_ascii_alphabetic());
    let found = if len >= 13 && !letter_before { card::plain(scan, start, end) } else { None };
    let found = found
        .or_else(|| (10..=15).contains(&len).then(|| phone::plain(scan, start, end)).flatten());
    if let Some(next) = found.or_else(|| iban::around(scan, start, end)) {
        return next;
    }
    if (4..=6).contains(&len)
        && let Some(next) = card::grouped(scan, start, len)
    {
        return next;
    }
    if (4..=8).contains(&len)
        && let Some(next) = phone::grouped(scan, start, end)
    {
        return next;
    }
    // Nothing of a run is looked at twice.
    end
}

/// Whether the digits at `start..end` may be a part of something longer: of a word, or of groups that
/// a blank or dash divides. Most numbers in a log stand alone.
fn has_neighbours(scan: &Scan<'_>, start: usize, end: usize) -> bool {
    let word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let divides = |b: Option<u8>| matches!(b, Some(b' ' | b'-' | b'+' | b'.'));
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
