//! The sign of YAML that a value is on the lines that follow.

/// `|`, `|-`, `>+2` and nothing else: the value is on the lines that follow.
pub(super) fn is_block_mark(rest: &[u8]) -> bool {
    let slashes = rest.iter().take_while(|&&b| b == b'\\').count();
    let escaped = rest.get(slashes..).and_then(|r| r.strip_prefix(b"u003e"));
    if slashes > 0
        && let Some(tail) = escaped
    {
        return tail.len() <= 2 && tail.iter().all(|b| matches!(b, b'+' | b'-' | b'0'..=b'9'));
    }
    matches!(rest.first(), Some(b'|' | b'>'))
        && rest.len() <= 3
        && rest.iter().skip(1).all(|b| matches!(b, b'+' | b'-' | b'0'..=b'9'))
}
