//! Blocks of base64: of PEM and of SSH2, which end with their mark (R21), and of others (R22).

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::Follow;
use super::member::indentation;
use crate::Class;
use crate::announced;
use crate::bytes;
use crate::made_up::is_jumbled;
use crate::scan::Scan;
use crate::value;

/// The end marks of a block, looked for in each of its lines.
static PEM_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"-----END"));

static SSH2_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"---- END SSH2"));

/// Lines between the lines of a PEM block that may belong to other writers of the stream.
const PEM_STRANGERS: u32 = 8;

impl Follow {
    /// Base64 over lines, from the first line that is nothing else to the last.
    pub(super) fn blob(&mut self, scan: &mut Scan<'_>, class: Class) {
        let (here, blank) = indentation(scan);
        let end = value::trimmed_end(scan, scan.body + here, scan.text.len());
        let text = scan.slice(scan.body + here, end);
        let base64 = |b: &u8| bytes::ANY_BASE64.has(*b);
        let first = self.strangers == 0;
        // A last line may be short.
        let least = if first { 32 } else { 1 };
        if first && !announced::is_blob(text) {
            self.cue = None;
            return;
        }
        if blank
            || text.len() < least
            || !text.iter().all(base64)
            || text.iter().all(|&b| b == b'-')
        {
            self.cue = None;
            return;
        }
        self.strangers = 1;
        scan.add(scan.body + here, end, class);
        if !first && text.len() < 32 || text.ends_with(b"=") {
            self.cue = None;
        }
    }

    pub(super) fn pem(&mut self, scan: &mut Scan<'_>, column: usize) {
        let text = scan.text;
        let rest = scan.rest(scan.body);
        let mark = PEM_END.find(rest).or_else(|| SSH2_END.find(rest));
        if let Some(mark) = mark {
            let end = scan.body + mark;
            match pem_text(scan, column, end) {
                Some((from, to)) => {
                    scan.add(from, value::trimmed_end(scan, from, to), Class::Pem);
                }
                None => {
                    pem_words(scan, end);
                }
            }
            self.cue = None;
            return;
        }
        let end = value::trimmed_end(scan, scan.body, text.len());
        match pem_text(scan, column, end) {
            Some((from, to)) => {
                scan.add(from, to, Class::Pem);
                self.strangers = 0;
            }
            None if end == scan.body => {}
            None if pem_words(scan, end) => self.strangers = 0,
            None => {
                self.strangers += 1;
                if self.strangers > PEM_STRANGERS {
                    self.cue = None;
                }
            }
        }
    }
}

/// Where the PEM text of a line that ends at `end` stands: the whole body, or from the column of the
/// begin mark on.
fn pem_text(scan: &Scan<'_>, column: usize, end: usize) -> Option<(usize, usize)> {
    let is_base64 = |text: &[u8]| !text.is_empty() && text.iter().all(|&b| bytes::BASE64.has(b));
    let indent = scan.slice(scan.body, end).iter().take_while(|b| b.is_ascii_whitespace()).count();
    let quote = scan.body + indent;
    // Where who writes has names of several lengths, the column is inside of the text.
    let column = scan.body + column;
    let floor = scan.body.max(column.saturating_sub(64)).min(column);
    let column = column - scan.run_before(column, floor, |&b| bytes::BASE64.has(b));
    for from in [quote, quote + 1, column] {
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
fn pem_words(scan: &mut Scan<'_>, end: usize) -> bool {
    let sign = |b: &u8| bytes::BASE64_LETTERS.has(*b);
    let mut found = false;
    let mut at = scan.body;
    while at < end {
        at += scan.run(at, usize::MAX, |b| !sign(b));
        let letters = scan.run(at, usize::MAX, sign);
        let padding = scan.run(at + letters, 2, |&b| b == b'=');
        let len = letters + padding;
        let ends = at + len >= end;
        let last = ends && padding > 0 && len >= 4 && len.is_multiple_of(4);
        // The last line of a block may be short, and needs no padding.
        let text = scan.slice(at, at + letters);
        let short = ends && letters >= 16 && is_jumbled(text);
        if letters >= 24 || last || short {
            scan.add(at, (at + len).min(end), Class::Pem);
            found = true;
        }
        at += len;
    }
    found
}
