//! Payment cards: R33.

use super::super::Class;
use super::super::scan::Scan;
use super::{open_after, open_before};

/// R33, without separators.
pub(super) fn plain(scan: &mut Scan<'_>, start: usize, end: usize) -> Option<usize> {
    let digits = scan.slice(start, end);
    // The sum tells a card from other numbers, so a sign on either side does not speak against it; a
    // dot does: it makes a fraction.
    let word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'.');
    let free = |b: Option<u8>| !word(b);
    let before = start == scan.body || free(scan.before(start)) || open_before(scan, start);
    if !before || !free(scan.at(end)) && !open_after(scan, end) || !is_card(digits) {
        return None;
    }
    // `guid=…`: identifiers of objects are as long, and one in ten has the sum.
    let lead = scan.slice(start.saturating_sub(12).max(scan.body.min(start)), start);
    let lead = lead.to_ascii_lowercase();
    let name = lead.iter().rev().skip_while(|b| b"=:\"'\\ ".contains(b)).copied();
    let name: Vec<u8> = name.take_while(|b| b.is_ascii_alphanumeric()).collect();
    if name.starts_with(b"diug") || name.starts_with(b"dijbo") {
        return None;
    }
    scan.add(start, end, Class::Card);
    Some(end)
}

/// R33, in groups of 4-4-4-4, 4-4-4-4-3, 4-6-5 or 4-6-4, with one separator throughout.
pub(super) fn grouped(scan: &mut Scan<'_>, group: usize, len: usize) -> Option<usize> {
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
    // The first group of four, and more of them after it: most numbers between blanks are none.
    let more = || scan.at(group + 5).is_some_and(|b| b.is_ascii_digit());
    if first == group && (len != 4 || scan.at(group + 4) != Some(separator) || !more()) {
        return None;
    }
    for shape in [&[4_usize, 4, 4, 4, 3][..], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]] {
        // A number of another kind may stand before the card: try each group as its first.
        let mut from = first;
        while from <= group {
            if let Some(end) = matches_shape(scan, from, shape, separator) {
                scan.add(from, end, Class::Card);
                return Some(end);
            }
            let step = scan.run(from, 7, |b| b.is_ascii_digit());
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
