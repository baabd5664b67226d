//! What says that there is no value, that it is hidden already, or where it is kept.

use crate::placeholder;
use crate::words::NOTHING;

/// Values that say that there is none, or that it is hidden already.
pub(crate) fn is_nothing(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.is_empty()
        || NOTHING.has(value)
        || value
            .iter()
            .all(|&b| matches!(b, b'*' | b'x' | b'X' | b'.' | b'\\' | b'\xe2' | b'\x80' | b'\xa2'))
        || is_reference(value)
        || is_mark(value)
        || is_denied(value)
        || value.starts_with(b"<set")
        || value.ends_with(b"(nil)")
        || is_escaped_mark(value)
        || placeholder::end_at(value, 0) == Some(value.len())
}

/// `none needed`, `not set`: words that say that there is none.
fn is_denied(value: &[u8]) -> bool {
    const PARTICIPLES: &[&[u8]] = &[
        b"needed",
        b"required",
        b"used",
        b"provided",
        b"set",
        b"configured",
        b"available",
        b"applicable",
        b"found",
        b"given",
        b"present",
        b"specified",
        b"supplied",
        b"yet",
        b"necessary",
    ];
    let mut words = value.split(|&b| b == b' ');
    let denies = words.next().is_some_and(|first| {
        [&b"none"[..], b"not", b"never"].iter().any(|word| first.eq_ignore_ascii_case(word))
    });
    let mut rest = words.peekable();
    denies && rest.peek().is_some() && rest.all(|word| PARTICIPLES.contains(&word))
}

/// `--- REDACTED ---`, `(sensitive)`, `***hidden***`: a word that says so between signs.
fn is_mark(value: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "redacted",
        "masked",
        "hidden",
        "sensitive",
        "omitted",
        "removed",
        "filtered",
        "protected",
    ];
    let sign = |b: &u8| b"-*_=[](){}<>#.~! ".contains(b);
    let lead = value.iter().take_while(|b| sign(b)).count();
    let rest = value.get(lead..).unwrap_or_default();
    let tail = rest.iter().rev().take_while(|b| sign(b)).count();
    let word = rest.get(..rest.len() - tail).unwrap_or_default();
    lead > 0 && tail > 0 && WORDS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

/// `<nil>`, `<set to the key …`, with angle brackets as JSON escapes them, at any depth.
fn is_escaped_mark(value: &[u8]) -> bool {
    let slashes = value.iter().take_while(|&&b| b == b'\\').count();
    let rest = value.get(slashes..).unwrap_or_default();
    let inside = rest.strip_prefix(b"u003c").or(rest.strip_prefix(b"<"));
    let Some(inside) = inside.filter(|_| slashes > 0) else { return false };
    if inside.starts_with(b"set") {
        return true;
    }
    let close = inside.strip_suffix(b"u003e").or(inside.strip_suffix(b">"));
    let Some(inside) = close else { return false };
    let end = inside.len() - inside.iter().rev().take_while(|&&b| b == b'\\').count();
    let word = inside.get(..end).unwrap_or_default();
    NOTHING.has(word) || word.iter().all(|b| b.is_ascii_lowercase() || b"-_ ".contains(b))
}

/// `${DB_PASSWORD}`, `$(TOKEN)`, `{{ .Values.x | quote }}`, `<password>`, `16 bytes`: names a value or
/// tells its size, holds none.
fn is_reference(value: &[u8]) -> bool {
    let inside = |open: &[u8], close: &[u8]| {
        let inside = value.strip_prefix(open)?.strip_suffix(close)?;
        (!inside.is_empty()).then_some(inside)
    };
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b' ');
    if let Some(text) = inside(b"${", b"}").or_else(|| inside(b"$(", b")")) {
        // A default after the name may be the secret, a message is none.
        let named = text.split(|&b| b == b'?').next().unwrap_or_default();
        return named.strip_suffix(b":").unwrap_or(named).iter().all(name);
    }
    if let Some(text) = inside(b"{{", b"}}") {
        return text.trim_ascii().first().is_some_and(|b| b".$(".contains(b))
            || text.iter().all(name);
    }
    if let Some(text) = inside(b"<", b">") {
        let word = |b: &u8| b.is_ascii_lowercase() || matches!(b, b'-' | b'_' | b' ');
        return text.iter().all(word);
    }
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && matches!(value.get(digits..), Some(b" bytes" | b" byte"))
}
