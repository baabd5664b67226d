//! Tables: a line of names with a sensitive one among them, and the lines of values below (R01, R02).

use super::Class;
use super::key::{Key, Strength};
use super::made_up::is_made_up;
use super::numbers;
use super::phrase::is_chosen;
use super::scan::{Cue, Scan};
use super::value;

/// Longest line of names, bytes.
const LONGEST: usize = 256;
/// Widest name of a column, bytes.
const WIDEST: usize = 40;
/// Most columns.
const MOST: usize = 32;

/// Where the values of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// What divides the cells; a tab stands for it and for two blanks or more.
    sign: u8,
    /// Cells before the one of the key, and all of them.
    index: u8,
    of: u8,
    class: Class,
}

/// Whether the line is one of names, of which `key` is one: then values are in the lines below.
pub(super) fn at_name(scan: &mut Scan<'_>, key: &Key) -> bool {
    if key.strength == Strength::Weak
        || scan.text_end.saturating_sub(scan.body) > LONGEST
        || scan.cues.next.is_some()
    {
        return false;
    }
    let line = scan.slice(scan.body, scan.text_end);
    let sign = [b'|', b',', b';', b'\t'].into_iter().find(|sign| cells(line, *sign).count() > 1);
    let Some(sign) = sign else { return false };
    let name = |cell: &(usize, &[u8])| {
        let cell = if sign == b',' || sign == b';' { cell.1 } else { cell.1.trim_ascii() };
        let quoted = cell.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(cell);
        let letter = quoted.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
        // The first column of a table may have no name.
        (letter || cell.is_empty() && sign == b'|')
            && quoted.len() <= WIDEST
            && quoted.iter().all(|b| b.is_ascii_alphanumeric() || b" _-.()".contains(b))
    };
    if cells(line, sign).count() > MOST || !cells(line, sign).all(|cell| name(&cell)) {
        return false;
    }
    let at = key.start - scan.body.min(key.start);
    // `password`, `Secret access key`; `Password policy` is none.
    let rest = line.get(key.end - scan.body.min(key.end)..).unwrap_or_default();
    let rest = rest.split(|b| *b == sign).next().unwrap_or_default();
    let rest =
        if sign == b'\t' { rest.split(|b| *b == b' ').next().unwrap_or_default() } else { rest };
    if ![&b""[..], b"\"", b" ", b" access key", b" key", b" value"].contains(&rest)
        && !rest.trim_ascii().is_empty()
    {
        return false;
    }
    let index = cells(line, sign).take_while(|(start, cell)| start + cell.len() <= at).count();
    let of = cells(line, sign).count();
    scan.spend(line.len() / 4);
    let (Ok(index), Ok(of)) = (u8::try_from(index), u8::try_from(of)) else { return false };
    scan.cues.next = Some(Cue::Column(Column { sign, index, of, class: key.class }));
    true
}

impl Column {
    /// Takes the cell of this column; false if the line is none of the table.
    pub(super) fn apply(self, scan: &mut Scan<'_>) -> bool {
        let line = scan.slice(scan.body, scan.text_end);
        if !line.is_empty() && line.iter().all(|b| b"-+|= \t:".contains(b)) {
            return true;
        }
        if line.len() > 8 * LONGEST || cells(line, self.sign).count() != usize::from(self.of) {
            return false;
        }
        let Some((start, cell)) = cells(line, self.sign).nth(usize::from(self.index)) else {
            return false;
        };
        let lead = cell.iter().take_while(|b| b" \t\"'".contains(b)).count();
        let tail = cell.iter().rev().take_while(|b| b" \t\"'".contains(b)).count();
        let text = cell.get(lead..cell.len().saturating_sub(tail)).unwrap_or_default();
        let digits = text.iter().all(u8::is_ascii_digit);
        let fits = match (self.sign, self.class) {
            (b',' | b';' | b'|', Class::Password) => text.len() >= 3,
            (b'\t', Class::Password) => is_made_up(text),
            _ => {
                text.len() >= 8
                    && !digits
                    && text.iter().any(u8::is_ascii_digit)
                    && is_made_up(text)
            }
        };
        if self.class == Class::Bsn {
            numbers::take_bsn(scan, scan.body + start + lead);
            return true;
        }
        if fits && !is_date(text) && !value::is_nothing(text) {
            let from = scan.body + start + lead;
            scan.add(from, from + text.len(), self.class);
        }
        true
    }
}

/// `2026-11-23`: the day of a change.
fn is_date(text: &[u8]) -> bool {
    let sign = |at: usize| text.get(at) == Some(&b'-');
    (text.len() == 10 || matches!(text.get(10), Some(b' ' | b'T')))
        && sign(4)
        && sign(7)
        && text.iter().take(10).enumerate().all(|(at, b)| at == 4 || at == 7 || b.is_ascii_digit())
}

/// The cells of a line, with where they begin.
fn cells(line: &[u8], sign: u8) -> impl Iterator<Item = (usize, &[u8])> {
    let mut from = Some(0);
    std::iter::from_fn(move || {
        let start = from?;
        let rest = line.get(start..)?;
        let found = if sign == b'\t' {
            memchr::memchr(b'\t', rest).or_else(|| memchr::memmem::find(rest, b"  "))
        } else {
            memchr::memchr(sign, rest)
        };
        let cell = rest.get(..found.unwrap_or(rest.len())).unwrap_or_default();
        from = found.map(|len| {
            let after = start + len + 1;
            let blank = line.get(after..).unwrap_or_default();
            let blanks = if sign == b'\t' {
                blank.iter().take_while(|b| b" \t".contains(b)).count()
            } else {
                0
            };
            after + blanks
        });
        Some((start, cell))
    })
}

/// `DB_PASSWORD   False   x`: a line of a table of settings, with the name in its first column and the value
/// in the last one.
pub(super) fn at_setting(scan: &mut Scan<'_>, key: &Key) -> bool {
    let line = scan.slice(key.end, scan.text_end);
    let sign: &[u8] = if line.starts_with(b"\t") { b"\t" } else { b"  " };
    if key.strength == Strength::Weak || line.len() > LONGEST || !line.starts_with(sign) {
        return false;
    }
    let Some(gap) = memchr::memmem::rfind(line, sign) else { return false };
    let start = key.end + gap + sign.len();
    let text = scan.slice(start, scan.text_end);
    let between = line.get(..gap).unwrap_or_default().trim_ascii();
    // `False`, `string`, `True`: one word, or none.
    let word = between.len() <= 16 && between.iter().all(|b| b.is_ascii_alphabetic() || *b == b'_');
    let single = !text.iter().any(u8::is_ascii_whitespace);
    let fits = is_made_up(text) || is_chosen(text) || value::looks_random(text);
    let own = word && !between.is_empty() && single && fits && !value::is_nothing(text);
    if own {
        scan.add(start, scan.text_end, key.class);
    }
    own
}
