//! Literals in SQL statements, and what databases and drivers say about values (R37).

use super::Class;
use super::scan::Scan;
use super::value::{self, Reach};

/// Longest statement that is read, bytes.
const LONGEST: usize = 16 * 1024;

/// The first word of a statement at `start..end`.
pub(super) fn at_statement(scan: &mut Scan<'_>, start: usize, end: usize) {
    let word = |b: Option<u8>| {
        b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
    };
    if start < scan.sql_done || start > scan.body && word(scan.before(start)) {
        return;
    }
    let limit = string_end(scan, start).min(start + LONGEST);
    let body = scan.slice(end, limit);
    // What must come for this to be a statement and no sentence.
    let wanted: &[&[u8]] = match scan.at(start).map(|b| b | 0x20) {
        Some(b's') => &[b"from", b"where"],
        Some(b'i') => &[b"values", b"select"],
        Some(b'u') => &[b"set "],
        _ => &[b"where", b"using"],
    };
    let Some(first_quote) = memchr::memchr(b'\'', body) else { return };
    scan.spend(body.len() / 4);
    let is_sql = wanted.iter().any(|w| body.windows(w.len()).any(|x| x.eq_ignore_ascii_case(w)));
    if !is_sql {
        return;
    }
    scan.sql_done = limit;
    let mut at = end + first_quote;
    while at < limit {
        let Some(found) = memchr::memchr(b'\'', scan.slice(at, limit)) else { return };
        let open = at + found;
        let Some(close) = literal_end(scan, open, limit) else { return };
        if is_operand(scan, open) && !value::is_nothing(scan.slice(open + 1, close)) {
            scan.add(open + 1, close, Class::Sql);
        }
        at = close + 1;
    }
}

/// The quote that closes the literal that `open` begins; two quotes are one of its letters.
fn literal_end(scan: &Scan<'_>, open: usize, limit: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        let close = at + memchr::memchr(b'\'', scan.slice(at, limit))?;
        if scan.at(close + 1) != Some(b'\'') {
            return Some(close);
        }
        at = close + 2;
    }
}

/// Whether a literal may begin at the quote at `open`: after an operator, a comma or a bracket, or
/// after a word such as `LIKE`.
fn is_operand(scan: &Scan<'_>, open: usize) -> bool {
    let before = scan.slice(open.saturating_sub(16), open).trim_ascii_end();
    // `N'…'`, `E'…'`
    let before = before.strip_suffix(b"N").or(before.strip_suffix(b"E")).unwrap_or(before);
    let sign = before.trim_ascii_end().last();
    let word = before.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    matches!(sign, Some(b'=' | b',' | b'(' | b'<' | b'>' | b'|' | b'['))
        || [
            &b"like"[..],
            b"ilike",
            b"then",
            b"else",
            b"and",
            b"between",
            b"in",
            b"values",
            b"set",
            b"is",
            b"to",
        ]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}

/// Where the string around `at` ends; the end of the line, if it stands in none.
fn string_end(scan: &Scan<'_>, at: usize) -> usize {
    let before = scan.slice(at.saturating_sub(64).max(scan.body.min(at)), at);
    let Some(quote) = memchr::memrchr(b'"', before) else { return scan.text.len() };
    let slashes =
        before.get(..quote).unwrap_or_default().iter().rev().take_while(|&&b| b == b'\\').count();
    let open = at - before.len() + quote - slashes;
    let value = value::quoted(scan, open, slashes, b'"');
    if value.end > at { value.end } else { scan.text.len() }
}

/// `binding parameter [1] as [VARCHAR] - [x]`, as Hibernate says it.
pub(super) fn at_binding(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 96);
    let Some(dash) = memchr::memmem::find(near, b"] - [").or(memchr::memmem::find(near, b"] <- ["))
    else {
        return;
    };
    let start = end + dash + 3;
    let rest = scan.slice(start, start + LONGEST);
    scan.spend(rest.len() / 8);
    let Some(close) = memchr::memchr(b']', rest) else { return };
    scan.add(start, start + close, Class::Sql);
}

/// `Key (name)=(x) already exists.`, as PostgreSQL says it; `key` ends at `end`.
pub(super) fn at_key_detail(scan: &mut Scan<'_>, end: usize) -> bool {
    if scan.slice(end, end + 2) != b" (" {
        return false;
    }
    let near = scan.slice(end + 2, end + 258);
    let Some(found) = memchr::memmem::find(near, b")=(") else { return false };
    let start = end + 2 + found + 3;
    let rest = scan.slice(start, start + 1024);
    let close = memchr::memmem::find(rest, b") ").or(memchr::memchr(b')', rest));
    let Some(close) = close else { return false };
    scan.add(start, start + close, Class::Sql);
    true
}

/// `Failing row contains (1, x, …).`
pub(super) fn at_row(scan: &mut Scan<'_>, end: usize) {
    let open = scan.skip_space(end);
    if scan.at(open) != Some(b'(') {
        return;
    }
    let rest = scan.slice(open + 1, open + 4096);
    scan.spend(rest.len() / 8);
    if let Some(close) = memchr::memrchr(b')', rest) {
        scan.add(open + 1, open + 1 + close, Class::Sql);
    }
}

/// `invalid input syntax for type integer: "x"`, `Duplicate entry 'x' for key`: the first string after
/// the words, within a few more words.
pub(super) fn at_complaint(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 64);
    let Some(found) = near.iter().position(|b| matches!(b, b'"' | b'\'' | b'\\')) else { return };
    let value = value::read(scan, end + found, Reach::Word);
    if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Sql);
    }
}

/// `@name = N'x'`, at its `@`. Returns where reading goes on.
pub(super) fn at_parameter(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    let name =
        scan.rest(at + 1).iter().take(64).take_while(|b| b.is_ascii_alphanumeric() || **b == b'_');
    let sign = scan.skip_space(at + 1 + name.count());
    if scan.at(sign) != Some(b'=') || sign == at + 1 {
        return None;
    }
    let mut open = scan.skip_space(sign + 1);
    if scan.at(open) == Some(b'N') {
        open += 1;
    }
    if scan.at(open) != Some(b'\'') {
        return None;
    }
    let close = literal_end(scan, open, scan.text.len().min(open + LONGEST))?;
    scan.spend(close - open);
    if !value::is_nothing(scan.slice(open + 1, close)) {
        scan.add(open + 1, close, Class::Sql);
    }
    Some(close + 1)
}

/// `parameters: $1 = 'x', $2 = 'y'`, `Parameters: x(String), 1(Integer)`, `params: ['x', 1]`.
pub(super) fn at_parameters(scan: &mut Scan<'_>, end: usize) {
    let mut from = end;
    while matches!(scan.at(from), Some(b' ' | b':' | b'=' | b'"' | b'\\')) && from < end + 8 {
        from += 1;
    }
    let limit = string_end(scan, end).min(from + LONGEST);
    let text = scan.slice(from, limit);
    scan.spend(text.len() / 4);
    if text.starts_with(b"$1 = ")
        || text.starts_with(b"['")
        || text.starts_with(b"('")
        || text.starts_with(b"{'")
    {
        let mut at = from;
        while let Some(found) = memchr::memchr(b'\'', scan.slice(at, limit)) {
            let open = at + found;
            let Some(close) = literal_end(scan, open, limit) else { return };
            if !value::is_nothing(scan.slice(open + 1, close)) && scan.at(close + 1) != Some(b':') {
                scan.add(open + 1, close, Class::Sql);
            }
            at = close + 1;
        }
        return;
    }
    // MyBatis
    let mut at = from;
    while let Some(found) = memchr::memmem::find(scan.slice(at, limit), b"(String)") {
        let end = at + found;
        let before = scan.slice(at, end);
        let lead = memchr::memmem::rfind(before, b"), ").map_or(0, |at| at + 3);
        scan.add(at + lead, end, Class::Sql);
        at = end + 8;
    }
}

/// R10: `CREATE USER bob IDENTIFIED BY 'x'`.
pub(super) fn at_identified(scan: &mut Scan<'_>, end: usize) {
    let open = scan.skip_space(end);
    if value::quote_at(scan, open).is_some() {
        let value = value::read(scan, open, Reach::Word);
        if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end, Class::Password);
        }
    }
}

/// `bind => [x, 1]`, `args=[x 1]`, `The duplicate key value is (x)`: up to the bracket.
pub(super) fn at_bound(scan: &mut Scan<'_>, start: usize) {
    let rest = scan.slice(start, start + LONGEST);
    let close = if scan.before(start) == Some(b'(') { b')' } else { b']' };
    let Some(len) = memchr::memchr(close, rest) else { return };
    scan.spend(len);
    let text = scan.slice(start, start + len);
    // Numbers alone say nothing of a person.
    if text.iter().any(u8::is_ascii_alphabetic) {
        scan.add(start, start + len, Class::Sql);
    }
}
