//! Redaction: takes secrets and personal data out of text before it is archived and sealed.
//!
//! Third stage of a snapshot: `source → redact → gzip → seal → chunks`. Log streams go through a
//! [`Redactor`] each, names and error texts through [`redact_text`], and what comes out is looked at
//! once more by [`scan_output`], which shares no code with the first engine.
//!
//! How a line is read, in the order of the flow:
//!
//! | module | job |
//! |---|---|
//! | `stream`, `signs` | cuts bytes into lines whatever the chunks are; refuses binary input, replaces endless lines |
//! | `line` | runs the scanners over one line and its unwrapped shadows, merges the spans, writes the result |
//! | `scan`, `bytes` | the text that rules look at, and the spans they note; what runs in it are made of |
//! | `shadow` | copies without colours, zero-width characters, percent and `\u` escapes, with a way back |
//! | `stems` | finds key stems and token prefixes, and digit groups, in one pass of two bytes a step |
//! | `key`, `assign`, `value` | is it a sensitive key, what separates it from its value, where does the value end |
//! | `prose`, `members`, `pairs`, `mendix` | values without a sign, in lists and objects, beside their names, of constants |
//! | `judge`, `made_up`, `phrase` | is a value worth hiding |
//! | `near` | what else stands near a word for a credential, and is neither a word nor harmless |
//! | `several`, `columns` | values after the first one, and those in the lines below a line of names |
//! | `announced` | base64 that a word before it announces, text of XML elements, output of commands |
//! | `header`, `prefixed`, `query`, `address`, `numbers`, `sql`, `body`, `tool` | rules with shapes of their own |
//! | `follow`, `block` | what one line says about the next: PEM blocks, YAML blocks, Secret manifests, name/value pairs |
//! | `redaction`, `custom`, `own` | what a snapshot adds to the rules: the customer's patterns, the agent's own credentials |
//! | `placeholder` | `[R:class:8hex]` |
//! | `second` | the second engine |
//!
//! Properties that the tests hold on to:
//! - The result is a function of the whole input: it does not depend on how it was cut into chunks.
//! - Time is linear in the input. Nothing backtracks; every look to the left or right is bounded.
//! - Memory of one [`Redactor`] stays under [`MEMORY_BOUND`], whatever the input.
//! - No bytes make it panic. (Callers catch panics all the same and drop the stream.)
//! - Text that was redacted once passes unchanged a second time.
//!
//! The rules and their numbers (R01 …) are listed at [`Class`].

use std::fmt;

use zeroize::Zeroize as _;

mod address;
mod announced;
mod assign;
mod block;
mod body;
mod bytes;
mod class;
mod columns;
pub mod custom;
mod follow;
mod header;
mod judge;
mod key;
mod line;
mod made_up;
mod members;
mod mendix;
mod near;
mod numbers;
mod own;
mod pairs;
mod phrase;
mod placeholder;
mod prefixed;
mod prose;
mod query;
mod redaction;
mod scan;
mod second;
mod several;
mod shadow;
mod signs;
mod sql;
mod stems;
mod stream;
mod tool;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use class::{Class, Counts};
pub use own::OwnSecrets;
pub use redaction::{Finder, Redaction};
pub use second::{Leak, scan_output};
pub use stream::Redactor;

/// Version of the rules. A grant names the oldest one that is good enough; any change that makes a
/// rule weaker must not raise it, any new class must.
pub const POLICY_VERSION: u32 = 9;

/// Longest line, in bytes without its line end, that is read; a longer one is replaced whole.
pub const MAX_LINE: usize = 256 * 1024;

/// Upper bound, in bytes, of what one [`Redactor`] keeps between and during calls: an unfinished
/// line (up to 2 × [`MAX_LINE`], as buffers grow), its cleaned shadow with the map back (up to 13 ×, when
/// every other byte is an escape), its decoded one with up to three layers (20 ×), both once more for the
/// value being hashed (33 ×), and the spans found in it (under 8 ×). Output is the caller's. Ordinary
/// streams keep a few hundred KiB.
pub const MEMORY_BOUND: usize = 80 * MAX_LINE;

/// Key of the placeholders of one snapshot: made for it, thrown away with it.
///
/// Equal values get equal placeholders inside the snapshot, and unrelated ones in the next.
pub struct SnapshotKey([u8; 32]);

impl SnapshotKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Drop for SnapshotKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotKey(..)")
    }
}

/// Why a stream can't be redacted. The stream must be dropped and its absence declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedactError {
    /// NUL bytes in a log mean that it is no text, or UTF-16, in which no rule would find a thing.
    #[error("input is not text: {count} NUL bytes up to byte {offset}; leave this stream out")]
    Nul {
        /// NUL bytes so far.
        count: u64,
        /// Bytes read so far.
        offset: u64,
    },
    /// More than a quarter of the bytes are not UTF-8.
    #[error(
        "input is not text: {invalid} of {offset} bytes are not valid UTF-8; leave this stream out"
    )]
    NotUtf8 {
        /// Bytes that belong to no valid sequence, so far.
        invalid: u64,
        /// Bytes read so far.
        offset: u64,
    },
    /// The stream was already refused, or finished.
    #[error("the redactor of this stream has ended; make a new one for a new stream")]
    Ended,
}

/// Redacts a piece of text that is no stream: a name, a label, an error text, an event message.
///
/// # Errors
/// As [`Redactor::push`]: text that looks binary is refused.
pub fn redact_text(
    redaction: &Redaction,
    text: &str,
    counts: &mut Counts,
) -> Result<String, RedactError> {
    let mut redactor = Redactor::new(redaction);
    let mut out = Vec::with_capacity(text.len() + 16);
    redactor.push(text.as_bytes(), &mut out)?;
    redactor.finish(&mut out)?;
    counts.add(redactor.counts());
    // Spans end at character boundaries of valid input, so nothing is lost here.
    Ok(String::from_utf8_lossy(&out).into_owned())
}
