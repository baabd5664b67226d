//! Where a key stands: in what kind of line, and in which part of it.

use crate::Class;
use crate::key::Key;
use crate::scan::Scan;
use crate::value;

/// `checksum/secret: …`: an annotation that makes pods restart.
pub(super) fn is_checksum(scan: &Scan<'_>, key: &Key) -> bool {
    key.class != Class::Password
        && scan.slice(key.start.saturating_sub(9), key.start) == b"checksum/"
}

/// Whether the word at `start` is the value of `kind`.
pub(super) fn is_kind(scan: &Scan<'_>, start: usize) -> bool {
    let before = scan.slice(start.saturating_sub(24), start);
    let signs =
        before.iter().rev().take_while(|b| matches!(b, b'"' | b'\\' | b':' | b' ' | b'=')).count();
    signs > 0
        && before
            .get(..before.len() - signs)
            .is_some_and(|b| b.ends_with(b"kind") || b.ends_with(b"Kind"))
}

/// Whether the line is a command after the prompt of a shell: it may print what it is about.
pub(super) fn is_typed(scan: &Scan<'_>) -> bool {
    const PROMPT: usize = 48;
    let line = scan.slice(scan.body, (scan.body + PROMPT).min(scan.text.len()));
    if [&b"$ "[..], b"# ", b"+ ", b"++ ", b"> "].iter().any(|prompt| line.starts_with(prompt)) {
        return true;
    }
    // `/ # `, `bash-5.1$ `, `sh-4.2# `
    if [&b"/ # "[..], b"~ # ", b"/ $ ", b"~ $ ", b"~# ", b"~$ "].iter().any(|p| line.starts_with(p))
    {
        return true;
    }
    let shell = line.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-.".contains(b)).count();
    if (2..=12).contains(&shell) && line.get(..shell).is_some_and(|name| name.contains(&b'-')) {
        let sign = line.get(shell..shell + 2).unwrap_or_default();
        if sign == b"$ " || sign == b"# " {
            return true;
        }
    }
    // `bob@host:~$ `, `C:\ops> `: one word, or one and the folder.
    let mark = line.windows(2).position(|w| matches!(w, [b'$' | b'#' | b'>', b' ']));
    let before = mark.and_then(|mark| line.get(..mark)).unwrap_or_default();
    let words = before.iter().filter(|&&b| b == b' ').count();
    words <= 1 && before.iter().any(|b| b"@~\\".contains(b))
}

/// `unexpected token …`: of a language that is parsed.
pub(super) fn is_parsers(scan: &Scan<'_>, key: &Key) -> bool {
    const WORDS: &[&[u8]] = &[
        b"unexpected ",
        b"unrecognized ",
        b"illegal ",
        b"mismatched ",
        b"extraneous ",
        b"json ",
        b"lexer ",
        b"parser ",
        b"current ",
        b"found ",
    ];
    let before = scan.slice(key.start.saturating_sub(16), key.start).to_ascii_lowercase();
    WORDS.iter().any(|word| before.ends_with(word))
}

/// Whether only indentation, a list dash, a quote, or `export` stands before `at` in the line.
pub(super) fn begins_body(scan: &Scan<'_>, at: usize) -> bool {
    // Indentation and the words below; anything longer is text.
    const FAR: usize = 64;
    if at - scan.body.min(at) > FAR {
        return false;
    }
    let mut before = scan.slice(scan.body, at);
    before = before.strip_suffix(b"\"").or(before.strip_suffix(b"'")).unwrap_or(before);
    for word in [&b"- "[..], b"-e ", b"export ", b"set ", b"ENV "] {
        before = before.strip_suffix(word).unwrap_or(before);
    }
    before.trim_ascii().is_empty()
}

/// Whether `at` is the first word of a quoted string that goes on to `value_at`; notes where it ends.
pub(super) fn begins_string(scan: &mut Scan<'_>, at: usize, value_at: usize) -> bool {
    let before = scan.slice(at.saturating_sub(32).max(scan.body.min(at)), at);
    let spaces = before.iter().rev().take_while(|&&b| b == b' ').count();
    let Some((quote, before)) = before.get(..before.len() - spaces).and_then(|b| b.split_last())
    else {
        return false;
    };
    let slashes = before.iter().rev().take_while(|&&b| b == b'\\').count();
    let opens = before.get(..before.len() - slashes).and_then(|b| b.last());
    let opens = opens.is_none_or(|b| matches!(b, b':' | b'=' | b',' | b'[' | b'(' | b'{' | b' '));
    if !matches!(quote, b'"' | b'\'') || !opens {
        return false;
    }
    let string = value::quoted(scan, at - spaces - 1 - slashes, slashes, *quote);
    // `'password' = x (from a file)`: the name alone is quoted.
    if string.end <= value_at {
        return false;
    }
    scan.string_end = Some(string.end);
    true
}
