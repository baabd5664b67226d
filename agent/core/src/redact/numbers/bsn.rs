//! Dutch citizen service numbers: R34.

use super::super::Class;
use super::super::scan::Scan;

/// R34: nine digits that pass the 11-test, after a word that says so. Alone, one in eleven numbers
/// would pass.
pub(in super::super) fn at_bsn(scan: &mut Scan<'_>, start: usize, end: usize) {
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
