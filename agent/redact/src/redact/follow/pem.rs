//! Blocks of PEM and of SSH2, which end with their mark (R21).

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::redact::Class;
use crate::redact::bytes;
use crate::redact::scan::Scan;

/// The end marks of a block, looked for in each of its lines.
pub(super) static PEM_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"-----END"));

pub(super) static SSH2_END: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(b"---- END SSH2"));

/// Where the PEM text of a line that ends at `end` stands: the whole body, or from the column of the
/// begin mark on.
pub(super) fn pem_text(scan: &Scan<'_>, column: usize, end: usize) -> Option<(usize, usize)> {
    let is_base64 = |text: &[u8]| !text.is_empty() && text.iter().all(|&b| bytes::BASE64.has(b));
    let indent = scan.slice(scan.body, end).iter().take_while(|b| b.is_ascii_whitespace()).count();
    let quote = scan.body + indent;
    for from in [quote, quote + 1, scan.body + column] {
        let text = scan.slice(from, end);
        let text = text.trim_ascii_end().strip_suffix(b"\\n\\").unwrap_or(text);
        let text = text.strip_suffix(b"\",").or(text.strip_suffix(b"\"")).unwrap_or(text);
        let text = text.strip_suffix(b"\\n").unwrap_or(text);
        if is_base64(text) {
            return Some((from, end)).filter(|&(from, end)| from < end);
        }
        // Headers of an encrypted key belong to the block and say nothing secret.
        if text.starts_with(b"Proc-Type:") || text.starts_with(b"DEK-Info:") {
            return Some((end, end));
        }
    }
    None
}

/// Takes the words of a line that are long enough to be nothing else than PEM text; false if there is
/// none. The last line of a block is short, and whole.
pub(super) fn pem_words(scan: &mut Scan<'_>, end: usize) -> bool {
    let sign = |b: &u8| bytes::BASE64_LETTERS.has(*b);
    let mut found = false;
    let mut at = scan.body;
    while at < end {
        at += scan.run(at, usize::MAX, |b| !sign(b));
        let letters = scan.run(at, usize::MAX, sign);
        let padding = scan.run(at + letters, 2, |&b| b == b'=');
        let len = letters + padding;
        let last = at + len >= end && padding > 0 && len >= 4 && len.is_multiple_of(4);
        if letters >= 24 || last {
            scan.add(at, (at + len).min(end), Class::Pem);
            found = true;
        }
        at += len;
    }
    found
}
