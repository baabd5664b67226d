//! Literals in SQL statements, whole ones, pieces of them, and those over many lines (R37).

mod bound;

use super::Class;
use super::scan::{Cue, Scan};
use super::value::{self, Reach};

pub(super) use bound::{
    at_args, at_binding, at_bound, at_bound_to, at_complaint, at_copied, at_duplicate,
    at_identified, at_key_detail, at_list, at_map, at_pairs, at_parameter, at_parameters, at_row,
    at_said, at_value, at_variables,
};

/// Longest statement that is read, bytes.
const LONGEST: usize = 16 * 1024;

/// Words that the lines of a statement begin with.
const WORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "and",
    "or",
    "set",
    "values",
    "insert",
    "update",
    "delete",
    "join",
    "left",
    "inner",
    "right",
    "on",
    "having",
    "order",
    "group",
    "limit",
    "union",
    "into",
    "when",
    "then",
    "else",
    "with",
    "merge",
    "using",
    "returning",
    "not",
    "between",
    "like",
    "in",
];

/// The first word of a statement at `start..end`.
pub(super) fn at_statement(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.sql_done || in_word(scan, start) {
        return;
    }
    let limit = string_end(scan, start).min(start + LONGEST);
    // What must come for this to be a statement and no sentence.
    let wanted: &[&[u8]] = match scan.at(start).map(|b| b | 0x20) {
        Some(b's') => &[b"from", b"where", b"('"],
        Some(b'i' | b'r') => &[b"values", b"select", b"set "],
        Some(b'u') => &[b"set "],
        Some(b'm') => &[b"using"],
        _ => &[b"where", b"using"],
    };
    let begins = scan.slice(scan.body, start.min(scan.body + 64)).trim_ascii().is_empty();
    let body = scan.slice(end, limit);
    if begins && body.len() < 256 {
        scan.cues.next = Some(Cue::Statement);
    }
    scan.spend(body.len() / 4);
    if memchr::memchr3(b'?', b'$', b':', body).is_some() {
        bound::after_placeholders(scan, end, body);
    }
    if memchr::memchr2(b'\'', b'"', body).is_none() {
        return;
    }
    if wanted.iter().any(|word| holds(body, word)) {
        scan.sql_done = limit;
        literals(scan, start, limit);
    }
}

/// A piece of a statement: `where name = 'x'`, `values ('x')`, `call p('x')`.
pub(super) fn at_fragment(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// From the word to its first literal.
    const NEAR: usize = 128;
    if start < scan.sql_done || in_word(scan, start) {
        return;
    }
    let near = scan.slice(end, end + NEAR);
    let Some(quote) = memchr::memchr2(b'\'', b'"', near) else { return };
    let quote = end + quote;
    let before = scan.slice(end, quote).trim_ascii_end();
    let before = before.strip_suffix(b"\\").unwrap_or(before);
    let before = before.strip_suffix(b"N").unwrap_or(before).trim_ascii_end();
    let remark = scan.slice(start, end).eq_ignore_ascii_case(b"comment on ");
    let call = !remark && scan.at(start).is_some_and(|b| matches!(b, b'c' | b'C' | b'e' | b'E'));
    // `where the service 'api'` is a sentence.
    let sign = before.last().is_some_and(|b| matches!(b, b'=' | b'<' | b'>' | b'('));
    let word = [&b"like"[..], b"LIKE", b" is", b" IS"].iter().any(|word| before.ends_with(word));
    let fits = match (call, scan.before(end)) {
        // `call name('x'`, `exec dbo.name 'x'`
        (true, _) => {
            let name = |b: &u8| b.is_ascii_alphanumeric() || b"_.[]".contains(b);
            let shout = scan.at(start).is_some_and(|b| b.is_ascii_uppercase());
            sign && before.iter().rev().skip(1).all(name) || shout && before.iter().all(name)
        }
        _ if scan.starts(start, b"sp_") => true,
        (false, Some(b'(')) => before.is_empty() || sign || before.ends_with(b","),
        _ => sign || word,
    };
    if fits {
        let limit = string_end(scan, start).min(start + LONGEST);
        scan.sql_done = limit;
        if call && !sign {
            take_literal(scan, quote, limit);
        }
        literals(scan, start, limit);
    }
}

/// A word that speaks of XPath, or one of its functions: literals of the constraint that follows.
pub(super) fn at_xpath(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// From the word to the constraint.
    const NEAR: usize = 200;
    if start < scan.sql_done {
        return;
    }
    let limit = string_end(scan, start).min(start + LONGEST);
    if scan.before(end) == Some(b'(') {
        let near = scan.slice(end, (end + NEAR).min(limit));
        let Some(quote) = memchr::memchr(b'\'', near) else { return };
        let before = near.get(..quote).unwrap_or_default().trim_ascii_end();
        if before.ends_with(b",") {
            take_literal(scan, end + quote, limit);
        }
        return;
    }
    let near = scan.slice(end, (end + NEAR).min(limit));
    // `[User 'x' with session id 'y']` is no constraint: those compare.
    let compares = |open: usize| {
        let inside = near.get(open..).unwrap_or_default();
        let quote = inside.iter().position(|b| matches!(b, b'\'' | b'"')).unwrap_or(inside.len());
        inside.get(..quote).is_some_and(|lead| lead.iter().any(|b| b"=<>(,".contains(b)))
    };
    if let Some(open) = memchr::memchr(b'[', near).filter(|&open| compares(open)) {
        scan.spend(limit - end.min(limit));
        scan.sql_done = limit;
        constraint(scan, end + open, limit);
    }
}

/// Takes the literals of a constraint, but those of enumerations.
fn constraint(scan: &mut Scan<'_>, start: usize, limit: usize) {
    const ENUMERATIONS: &[&[u8]] =
        &[b"status", b"state", b"type", b"kind", b"category", b"phase", b"level", b"role"];
    let mut at = start;
    while let Some(open) = scan.find(b'\'', at, limit) {
        let before = scan.slice(open.saturating_sub(48).max(start), open).trim_ascii_end();
        let name = before.strip_suffix(b"=").or(before.strip_suffix(b"!")).unwrap_or(before);
        let name = name.strip_suffix(b"!").unwrap_or(name).trim_ascii_end().to_ascii_lowercase();
        let next = if ENUMERATIONS.iter().any(|end| name.ends_with(end)) {
            literal_end(scan, open, limit).map(|close| close + 1)
        } else {
            take_literal(scan, open, limit)
        };
        let Some(next) = next else { return };
        at = next;
    }
}

/// `Key (name)=(x)`: after its `)=(`.
pub(super) fn at_detail(scan: &mut Scan<'_>, start: usize) {
    let rest = scan.slice(start, start + 1024);
    let close = memchr::memmem::find(rest, b") ").or(memchr::memchr(b')', rest));
    if let Some(close) = close
        && rest.get(..close).is_some_and(|text| text.iter().any(u8::is_ascii_alphabetic))
    {
        scan.add(start, start + close, Class::Sql);
    }
}

/// `Data too long for column 'name': 'x'`.
pub(super) fn at_too_long(scan: &mut Scan<'_>, end: usize) {
    let name = value::read(scan, scan.skip_space(end), Reach::Word);
    let mut sign = scan.skip_space(name.next);
    // `column 'name' value 'x'`
    let said = scan.starts(sign, b"value ");
    sign += if said { 5 } else { 0 };
    if scan.at(sign) != Some(b':') && !said {
        return;
    }
    let value = value::read(scan, scan.skip_space(sign + 1), Reach::Word);
    if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Sql);
    }
}

/// A line of a statement that began on a line before; false when this is none.
pub(super) fn at_next_line(scan: &mut Scan<'_>, start: usize) -> bool {
    let first = scan.run(start, 64, |b| b.is_ascii_alphanumeric() || b"_$".contains(b));
    let word = scan.slice(start, start + first).to_ascii_lowercase();
    let known = WORDS.iter().any(|w| w.as_bytes() == word);
    // `p.name='x'`, `('x', 4)`, `, name = 'x'`
    let sign = scan.at(scan.skip_space(start + first));
    let piece = match sign {
        Some(b'.' | b'=' | b',' | b'<' | b'>') => first > 0,
        Some(b'(' | b')' | b'\'' | b'"') => first == 0,
        None => first > 0,
        _ => false,
    };
    if !(known || piece || first == 0 && sign == Some(b',')) {
        return false;
    }
    let limit = scan.text.len().min(start + LONGEST);
    if start >= scan.sql_done {
        scan.sql_done = limit;
        literals(scan, start, limit);
    }
    scan.text.get(..scan.text_end).and_then(<[u8]>::last) != Some(&b';')
}

/// Whether a body is nothing but the first word of a statement.
pub(super) fn is_lone_word(body: &[u8]) -> bool {
    body.len() <= 12
        && WORDS.iter().any(|word| body.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether `at` stands inside of a word or a path.
fn in_word(scan: &Scan<'_>, at: usize) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let escape = at >= 2
        && matches!(scan.before(at), Some(b'n' | b't'))
        && scan.before(at - 1) == Some(b'\\');
    at > scan.body && scan.before(at).is_some_and(word) && !escape
}

/// Takes the literals of a statement at `start..limit`.
fn literals(scan: &mut Scan<'_>, start: usize, limit: usize) {
    let mut at = start;
    while let Some(open) = scan.find2(b'\'', b'"', at, limit) {
        scan.spend((open - at) / 8 + 1);
        if scan.spent() {
            return;
        }
        let Some(next) = (if scan.at(open) == Some(b'\'') {
            if is_operand(scan, open) && !is_setting(scan, start, open, limit) {
                take_literal(scan, open, limit)
            } else {
                literal_end(scan, open, limit).map(|close| close + 1)
            }
        } else {
            double_quoted(scan, start, open, limit)
        }) else {
            return;
        };
        at = next;
    }
}

/// `WHERE key = 'mail.retries'`, `status = 'PENDING'`: the literal at `open` is the name of a setting, or one of
/// the few words that such a column holds.
fn is_setting(scan: &Scan<'_>, start: usize, open: usize, limit: usize) -> bool {
    const KEYS: &[&[u8]] =
        &[b"key", b"setting", b"property", b"parameter", b"config_key", b"setting_key"];
    const KINDS: &[&[u8]] =
        &[b"status", b"state", b"type", b"kind", b"level", b"phase", b"locktype", b"relkind"];
    const TABLES: &[&[u8]] = &[b"setting", b"config", b"propert", b"param"];
    let before = scan.slice(open.saturating_sub(48).max(start), open).trim_ascii_end();
    let Some(before) = before.strip_suffix(b"=").or(before.strip_suffix(b"<>")) else {
        return false;
    };
    let before = before.strip_suffix(b"!").unwrap_or(before).trim_ascii_end();
    let quotes = before.iter().rev().take_while(|b| b"\"\\`]".contains(b)).count();
    let before = before.get(..before.len() - quotes).unwrap_or_default();
    let column =
        before.rsplit(|b| !b.is_ascii_alphanumeric() && *b != b'_').next().unwrap_or_default();
    let is = |list: &[&[u8]]| list.iter().any(|name| column.eq_ignore_ascii_case(name));
    let named = column.eq_ignore_ascii_case(b"name");
    if !(is(KEYS) || is(KINDS) || named) {
        return false;
    }
    let Some(close) = literal_end(scan, open, limit) else { return false };
    let text = scan.slice(open + 1, close);
    let dotted = || {
        let parts = || text.split(|b| b"._".contains(b));
        parts().count() >= 2
            && text.len() <= 64
            && parts().all(|part| part.len() >= 2 && part.iter().all(u8::is_ascii_lowercase))
    };
    if is(KINDS) {
        let small = text.iter().all(|b| b.is_ascii_lowercase() || b"_-".contains(b));
        let shouted = text.iter().all(|b| b.is_ascii_uppercase() || *b == b'_');
        return text.len() <= 24 && (small || shouted);
    }
    // A name may be that of a person, but for tables of settings.
    let head = || scan.slice(start, open.min(start + 256));
    dotted() && (!named || TABLES.iter().any(|table| holds(head(), table)))
}

/// Takes the literal whose quote is at `open`; returns where reading goes on.
fn take_literal(scan: &mut Scan<'_>, open: usize, limit: usize) -> Option<usize> {
    let close = literal_end(scan, open, limit)?;
    if !value::is_nothing(scan.slice(open + 1, close)) {
        scan.add(open + 1, close, Class::Sql);
    }
    Some(close + 1)
}

/// `name = "x"`: a literal for MySQL, where a name of a column would have a dot or stand first.
fn double_quoted(scan: &mut Scan<'_>, start: usize, quote: usize, limit: usize) -> Option<usize> {
    let slashes = scan.run_before(quote, start, |&b| b == b'\\');
    let value = value::quoted(scan, quote - slashes, slashes, b'"');
    if value.next > limit {
        return None;
    }
    let before = scan.slice(start.max(quote.saturating_sub(64)), quote - slashes);
    let before = before.trim_ascii_end();
    let listed = || {
        // In the list of `IN (…)` or of `VALUES (…)`, not of columns.
        let open = memchr::memrchr(b'(', before);
        let head = open.and_then(|open| before.get(..open)).unwrap_or_default().trim_ascii_end();
        let tail = head.get(head.len().saturating_sub(2)..).unwrap_or_default();
        tail.eq_ignore_ascii_case(b"in")
            || holds(scan.slice(start, quote.min(start + 1024)), b"values")
    };
    let operand = match before.last() {
        Some(b'=' | b'<' | b'>') => true,
        Some(b'(' | b',') => listed(),
        // `{'name': "O'Brien"}`, as Python adds the parameters.
        Some(b':') => before.ends_with(b"':"),
        _ => {
            before.len() >= 4
                && before.get(before.len() - 4..).is_some_and(|w| w.eq_ignore_ascii_case(b"like"))
        }
    };
    let column = scan.at(value.next) == Some(b'.');
    if operand && !column && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Sql);
    }
    Some(value.next)
}

/// Whether `word`, in lower case, stands in `text` in any case.
fn holds(text: &[u8], word: &[u8]) -> bool {
    let Some((&first, rest)) = word.split_first() else { return true };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), text).any(|at| {
        text.get(at + 1..at + word.len()).is_some_and(|after| after.eq_ignore_ascii_case(rest))
    })
}

/// The quote that closes the literal that `open` begins; two quotes are one of its letters.
fn literal_end(scan: &Scan<'_>, open: usize, limit: usize) -> Option<usize> {
    let letter = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphabetic() || b >= 0x80);
    let mut at = open + 1;
    // Two quotes at the end: the second one is that of the text around.
    let mut doubled = None;
    loop {
        let Some(close) = scan.find(b'\'', at, limit) else { return doubled };
        scan.spend(close - at);
        if scan.at(close + 1) == Some(b'\'') {
            doubled = Some(close);
            at = close + 2;
        } else if close > open + 1 && letter(scan.before(close)) && letter(scan.at(close + 1)) {
            // `O'Brien`, by one who did not escape it.
            at = close + 1;
        } else {
            return Some(close);
        }
    }
}

/// Whether a literal may begin at the quote at `open`: after an operator, a comma or a bracket, or
/// after a word such as `LIKE`.
fn is_operand(scan: &Scan<'_>, open: usize) -> bool {
    let before = scan.slice(open.saturating_sub(16), open).trim_ascii_end();
    // `N'…'`, `E'…'`
    let before = match before.split_last() {
        Some((b'N' | b'E', rest)) if !rest.last().is_some_and(u8::is_ascii_alphabetic) => rest,
        _ => before,
    };
    let sign = before.trim_ascii_end().last();
    let word = before.rsplit(|b| !b.is_ascii_alphabetic()).next().unwrap_or_default();
    // `{'name': 'x'}`, as Python adds the parameters of a statement.
    let member = before.trim_ascii_end().strip_suffix(b":");
    matches!(sign, Some(b'=' | b',' | b'(' | b'<' | b'>' | b'|' | b'['))
        || member.is_some_and(|name| name.ends_with(b"'"))
        || [&b"select"[..], b"distinct"].iter().any(|w| word.eq_ignore_ascii_case(w))
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
            b"date",
            b"timestamp",
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
