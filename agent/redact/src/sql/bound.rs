//! What drivers and databases say about values: bound parameters, rows, complaints (R37, R10).

use super::super::Class;
use super::super::scan::Scan;
use super::super::value::{self, Reach};
use super::{LONGEST, literal_end, string_end};

/// `binding parameter [1] as [VARCHAR] - [x]`, as Hibernate says it.
pub(in super::super) fn at_binding(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 96);
    let arrows = [&b"] - "[..], b"] <- ", b") <- ", b") - ", b"] -> ", b") -> "];
    let bracket = arrows.iter().find_map(|arrow| {
        let open = memchr::memmem::find(near, arrow)? + arrow.len();
        (near.get(open) == Some(&b'[')).then_some(open + 1)
    });
    let Some(bracket) = bracket else { return };
    let start = end + bracket;
    let limit = scan.text.len().min(start + LONGEST);
    let close = scan.find(b']', start, limit);
    scan.spend((close.unwrap_or(limit) - start.min(limit)) / 4);
    let Some(close) = close else { return };
    scan.add(start, close, Class::Sql);
}

/// `Key (name)=(x) already exists.`, as PostgreSQL says it; `key` ends at `end`.
pub(in super::super) fn at_key_detail(scan: &mut Scan<'_>, end: usize) -> bool {
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
pub(in super::super) fn at_row(scan: &mut Scan<'_>, end: usize) {
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
pub(in super::super) fn at_complaint(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 64);
    let Some(found) = near.iter().position(|b| matches!(b, b'"' | b'\'' | b'\\')) else { return };
    let mut value = value::read(scan, end + found, Reach::Word);
    // `Duplicate entry 'D'Arcy' for key`: the apostrophe of a name.
    if value.quoted
        && scan.before(value.next) == Some(b'\'')
        && scan.at(value.next).is_some_and(|b| b.is_ascii_alphabetic())
    {
        let rest = scan.slice(value.next, value.next + 128);
        if let Some(close) = memchr::memmem::find(rest, b"' ") {
            value.end = value.next + close;
        }
    }
    if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Sql);
    }
}

/// `@name = N'x'`, at its `@`. Returns where reading goes on.
pub(in super::super) fn at_parameter(scan: &mut Scan<'_>, at: usize) -> Option<usize> {
    let name = scan.run(at + 1, 64, |b| b.is_ascii_alphanumeric() || *b == b'_');
    let sign = scan.skip_space(at + 1 + name);
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

/// `parameters: $1 = 'x', $2 = 'y'`, `Parameters: x(String), 1(Integer)`, `params: ['x', 1]`,
/// `"bindings":["x",1]`, `Parameters: [x, 1]`.
pub(in super::super) fn at_parameters(scan: &mut Scan<'_>, end: usize) {
    let mut from = end;
    while matches!(scan.at(from), Some(b' ' | b':' | b'=' | b'"' | b'\\')) && from < end + 8 {
        from += 1;
    }
    // The stem may hold the bracket.
    if matches!(scan.before(end), Some(b'[')) {
        from = end - 1;
    }
    let limit = string_end(scan, end).min(from + LONGEST);
    let first = (scan.at(from), scan.at(from + 1), scan.at(from + 2));
    match first {
        (Some(b'$'), Some(b'1'), Some(b' ' | b'='))
        | (Some(b'[' | b'(' | b'{'), Some(b'\''), _)
        | (Some(b'['), Some(b'('), Some(b'\'')) => single_quoted(scan, from, limit),
        (Some(b'['), Some(b' '), Some(b'\'')) => single_quoted(scan, from, limit),
        (Some(b'['), Some(b'"' | b'\\'), _) if says_sql(scan, end) => strings(scan, from),
        (Some(b'['), Some(b'('), _) => at_bound(scan, from + 1),
        (Some(b'['), Some(_), _) if says_sql(scan, end) => at_bound(scan, from + 1),
        _ => my_batis(scan, from, limit),
    }
}

/// `dup key: { name: "x" }`: the strings between the braces.
pub(in super::super) fn at_duplicate(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 8);
    if let Some(open) = memchr::memchr(b'{', near) {
        strings(scan, end + open);
    }
}

/// `COPY t, line 3, column name: "x"`.
pub(in super::super) fn at_copied(scan: &mut Scan<'_>, end: usize) {
    let near = scan.slice(end, end + 160);
    if memchr::memmem::find(near, b", line ").is_none() {
        return;
    }
    let Some(found) = memchr::memmem::find(near, b": ") else { return };
    let value = value::read(scan, end + found + 2, Reach::Word);
    if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
        scan.add(value.start, value.end, Class::Sql);
    }
}

/// `bind variables: :name = 'x'`
pub(in super::super) fn at_variables(scan: &mut Scan<'_>, end: usize) {
    single_quoted(scan, end, string_end(scan, end).min(end + LONGEST));
}

/// The strings in single quotes at `from..limit`, but names of a map.
fn single_quoted(scan: &mut Scan<'_>, from: usize, limit: usize) {
    let mut at = from;
    while let Some(open) = scan.find(b'\'', at, limit) {
        let Some(close) = literal_end(scan, open, limit) else { return };
        if !value::is_nothing(scan.slice(open + 1, close)) && scan.at(close + 1) != Some(b':') {
            scan.add(open + 1, close, Class::Sql);
        }
        at = close + 1;
    }
    scan.spend(limit.saturating_sub(from) / 4);
}

/// The strings of the list in double quotes that begins at `open`.
fn strings(scan: &mut Scan<'_>, open: usize) {
    /// Most elements that are read.
    const MOST: usize = 256;
    let mut at = open + 1;
    for _ in 0..MOST {
        at += scan.run(at, 256, |&b| !matches!(b, b'"' | b'\\' | b']' | b'}'));
        let Some((slashes, quote)) = value::quote_at(scan, at) else { return };
        let value = value::quoted(scan, at, slashes, quote);
        // `{"name": "x"}`: names stay.
        let name = scan.at(scan.skip_space(value.next)) == Some(b':');
        if !name && !value::is_nothing(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end, Class::Sql);
        }
        at = value.next;
    }
}

/// `x(String), 1(Integer)`
fn my_batis(scan: &mut Scan<'_>, from: usize, limit: usize) {
    scan.spend(limit.saturating_sub(from) / 4);
    let mut at = from;
    for found in memchr::memmem::find_iter(scan.slice(from, limit), b"(String)") {
        let end = from + found;
        let before = scan.slice(at, end);
        let lead = memchr::memmem::rfind(before, b"), ").map_or(0, |at| at + 3);
        scan.add(at + lead, end, Class::Sql);
        at = end + 8;
    }
}

/// Whether the line speaks of a statement before `at`.
fn says_sql(scan: &Scan<'_>, at: usize) -> bool {
    /// How far before.
    const NEAR: usize = 1024;
    let before = scan.slice(at.saturating_sub(NEAR).max(scan.body.min(at)), at);
    scan.spend(before.len() / 4);
    [&b"sql"[..], b"query", b"stm", b"select ", b"insert ", b"update ", b"delete "]
        .iter()
        .any(|word| super::holds(before, word))
}

/// `[generated in 0.1s] ('x', 1)`: what stands in the brackets after the mark.
pub(in super::super) fn at_list(scan: &mut Scan<'_>, end: usize) {
    let close = end - 1 + scan.run(end - 1, 32, |&b| b != b']');
    let from = scan.skip_space(close + 1);
    if matches!(scan.at(from), Some(b'(' | b'{' | b'[')) {
        let limit = string_end(scan, from).min(from + LONGEST);
        single_quoted(scan, from, limit);
        // `{'name': "O'Brien"}`: Python takes the other quotes for some.
        strings(scan, from);
    }
}

/// `{call p(?)} bound to ['x', 'y']`, `parameter 3 … bound to x (VARCHAR)`
pub(in super::super) fn at_bound_to(scan: &mut Scan<'_>, end: usize) {
    /// Longest value without quotes.
    const WIDEST: usize = 256;
    if end < scan.sql_done {
        return;
    }
    if matches!(scan.at(end), Some(b'[' | b'(' | b'{')) {
        let limit = string_end(scan, end).min(end + LONGEST);
        scan.sql_done = limit;
        return single_quoted(scan, end, limit);
    }
    let near = scan.slice(end, end + WIDEST);
    let Some(open) = memchr::memmem::find(near, b" (") else { return };
    let kind =
        scan.run(end + open + 2, 24, |b| b.is_ascii_uppercase() || b"_0123456789".contains(b));
    if kind >= 3 && scan.at(end + open + 2 + kind) == Some(b')') {
        scan.add(end, end + open, Class::Sql);
    }
}

/// `[["name", "x"], ["LIMIT", 1]]`: names and values in lists of two.
pub(in super::super) fn at_pairs(scan: &mut Scan<'_>, start: usize) {
    /// Most pairs that are read.
    const MOST: usize = 128;
    if !says_sql(scan, start) {
        return;
    }
    let mut at = start + 1;
    for _ in 0..MOST {
        if scan.at(at) != Some(b'[') {
            return;
        }
        let Some((slashes, quote)) = value::quote_at(scan, at + 1) else { return };
        let name = value::quoted(scan, at + 1, slashes, quote);
        let comma = name.next;
        let from = scan.skip_space(comma + 1);
        if scan.at(comma) != Some(b',') {
            return;
        }
        let value = value::read(scan, from, Reach::Word);
        if value.quoted && !value::is_nothing(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end, Class::Sql);
        }
        at = value.next.max(from) + scan.run(value.next.max(from), 64, |&b| b != b'[');
    }
}

/// `'x' [Type: String]`, `value "x" is out of range`: the string before the words.
pub(in super::super) fn at_said(scan: &mut Scan<'_>, start: usize) {
    let end = start - scan.run_before(start, scan.body.min(start), |&b| b == b' ');
    let Some(quote @ (b'"' | b'\'')) = scan.before(end) else { return };
    let slashes = scan.run_before(end - 1, scan.body.min(end - 1), |&b| b == b'\\');
    let close = end - 1 - slashes;
    let floor = close.saturating_sub(512).max(scan.body.min(close));
    let before = scan.slice(floor, close);
    let Some(open) = memchr::memrchr(quote, before) else { return };
    if !value::is_nothing(scan.slice(floor + open + 1, close)) {
        scan.add(floor + open + 1, close, Class::Sql);
    }
}

/// `Bind value 1 = x`, `param[0] = x`, `setParameter(name, x)`: what follows the sign, or the name.
pub(in super::super) fn at_value(scan: &mut Scan<'_>, end: usize) {
    /// From the word to the value.
    const NEAR: usize = 64;
    if end < scan.sql_done {
        return;
    }
    let near = scan.slice(end, end + NEAR);
    let call = scan.before(end) == Some(b'(');
    let found = near.iter().position(|b| if call { *b == b',' } else { matches!(b, b'=' | b':') });
    let Some(found) = found else { return };
    let name = near.get(..found).unwrap_or_default();
    if !name.iter().all(|b| b.is_ascii_alphanumeric() || b" _#$[]\"'.".contains(b)) {
        return;
    }
    let sign = end + found + 1;
    let from = scan.skip_space(sign + usize::from(scan.at(sign) == Some(b'>')));
    let limit = string_end(scan, from).min(scan.text_end).min(from + LONGEST);
    let close = if call { scan.find(b')', from, limit).unwrap_or(limit) } else { limit };
    scan.sql_done = close.max(end);
    scan.spend(close.saturating_sub(from) / 4);
    let quotes = |b: &u8| b"\"'\\".contains(b);
    let from = from + scan.run(from, 8, quotes);
    let close = close - scan.run_before(close, from.min(close), quotes);
    // Numbers alone say nothing of a person.
    if scan.slice(from, close).iter().any(u8::is_ascii_alphabetic)
        && !value::is_nothing(scan.slice(from, close))
    {
        scan.add(from, close, Class::Sql);
    }
}

/// `… where id = ?, args: [x, 3]`, `… VALUES ($1); ["x"]`: a list after a statement with places for values.
pub(super) fn after_placeholders(scan: &mut Scan<'_>, from: usize, text: &[u8]) {
    /// Most brackets that are looked at.
    const MOST: usize = 16;
    const WORDS: &[&[u8]] = &[
        b"params",
        b"parameters",
        b"args",
        b"arguments",
        b"values",
        b"binds",
        b"bindings",
        b";",
        b"with",
        b"--",
    ];
    scan.spend(text.len() / 8);
    for open in memchr::memchr3_iter(b'[', b'{', b'(', text).take(MOST) {
        let before = text.get(..open).unwrap_or_default();
        let before = before.get(before.len().saturating_sub(24)..).unwrap_or_default();
        let signs = before.iter().rev().take_while(|b| b" :=\"\\".contains(b)).count();
        let word = before.get(..before.len() - signs).unwrap_or_default().to_ascii_lowercase();
        let list = WORDS.iter().any(|end| word.ends_with(end));
        // `INSERT … VALUES (…)` holds literals, which are read one by one.
        let own = text.get(open) != Some(&b'(') || !word.ends_with(b"values");
        if list && own && signs > 0 {
            at_map(scan, from + open);
        }
    }
}

/// `NamedParameters {name=x}`, `query parameters (name=x)`, `binding values: x, 1`.
pub(in super::super) fn at_map(scan: &mut Scan<'_>, end: usize) {
    if end < scan.sql_done {
        return;
    }
    let inside = matches!(scan.before(end), Some(b'{'));
    if inside && !says_sql(scan, end) {
        return;
    }
    let mut open = if inside { end - 1 } else { end };
    open += scan.run(open, 4, |b| matches!(b, b' ' | b':' | b'='));
    let close = match scan.at(open) {
        Some(b'{') => b'}',
        Some(b'(') => b')',
        Some(b'[') => b']',
        _ => {
            // A list to the end of the line.
            let limit = string_end(scan, open).min(scan.text_end).min(open + LONGEST);
            let signed = scan.slice(end, open).contains(&b':');
            scan.sql_done = limit.max(end);
            if signed && scan.slice(open, limit).iter().any(u8::is_ascii_alphabetic) {
                scan.add(open, limit, Class::Sql);
            }
            return;
        }
    };
    let limit = scan.text.len().min(open + LONGEST);
    let end = scan.find(close, open, limit);
    scan.spend((end.unwrap_or(limit) - open) / 4);
    scan.sql_done = end.unwrap_or(limit);
    let Some(end) = end else { return };
    if scan.slice(open + 1, end).iter().any(u8::is_ascii_alphabetic) {
        scan.add(open + 1, end, Class::Sql);
    }
}

/// R10: `CREATE USER bob IDENTIFIED BY 'x'`, `IDENTIFIED WITH plugin BY 'x'`, `IDENTIFIED BY x`.
pub(in super::super) fn at_identified(scan: &mut Scan<'_>, end: usize) {
    let mut open = scan.skip_space(end);
    if scan.slice(open.saturating_sub(5), open).eq_ignore_ascii_case(b"with ") {
        let plugin = scan.run(open, 64, |b| b.is_ascii_alphanumeric() || b"_'\"`".contains(b));
        let by = scan.skip_space(open + plugin);
        if !scan.slice(by, by + 3).eq_ignore_ascii_case(b"by ") {
            return;
        }
        open = scan.skip_space(by + 3);
    }
    let mut value = value::read(scan, open, Reach::Word);
    if !value.quoted && scan.before(value.end) == Some(b';') {
        value.end -= 1;
    }
    let text = scan.slice(value.start, value.end);
    let known = [&b"password"[..], b"externally", b"values", b"random"];
    let word = known.iter().any(|word| text.eq_ignore_ascii_case(word));
    if !value::is_nothing(text) && (value.quoted || !word && value::may_be_secret_word(text)) {
        scan.add(value.start, value.end, Class::Password);
    }
}

/// `args=[x 1]`, `args="[x 1]"`.
pub(in super::super) fn at_args(scan: &mut Scan<'_>, end: usize) {
    let open = value::quote_at(scan, end).map_or(end, |(slashes, _)| end + slashes + 1);
    if matches!(scan.at(open), Some(b'[' | b'(')) {
        at_bound(scan, open + 1);
    }
}

/// `bind => [x, 1]`, `args=[x 1]`, `The duplicate key value is (x)`: up to the bracket.
pub(in super::super) fn at_bound(scan: &mut Scan<'_>, start: usize) {
    let limit = scan.text.len().min(start + LONGEST);
    let close = if scan.before(start) == Some(b'(') { b')' } else { b']' };
    let close = scan.find(close, start, limit);
    scan.spend((close.unwrap_or(limit) - start) / 4);
    let Some(close) = close else { return };
    // Numbers alone say nothing of a person.
    // `starting with args ["--v=2", "--leader-elect"]`: flags of a command, not of a statement.
    let text = scan.slice(start, close);
    let flags = text.trim_ascii_start().iter().take_while(|b| b"\"'\\".contains(b)).count();
    let command = text.trim_ascii_start().get(flags..).is_some_and(|t| t.starts_with(b"--"));
    if !command && text.iter().any(u8::is_ascii_alphabetic) {
        scan.add(start, close, Class::Sql);
    }
}
