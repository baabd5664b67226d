//! A text under scan: what the rules look at, and where they note what they find.

use std::cell::Cell;

use super::Class;
use super::columns::Column;
use super::key::Key;
use super::placeholder;
use super::value::Value;

/// Most spans of a line; one with more is replaced whole.
pub(super) const MOST_SPANS: usize = 32 * 1024;

/// Bytes that rules may look at in a short line, see [`Scan::spend`].
const BUDGET_FLOOR: usize = 64 * 1024;

/// A stretch of a line that has to go. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) class: Class,
}

/// A hint for the next lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cue {
    /// The value of a name that ended its line.
    ValueOf(Class),
    /// A YAML block scalar under a key at this column of the body.
    Block { indent: usize, class: Class },
    /// A map under a key at this column: all its values.
    Map { indent: usize, class: Class },
    /// Base64 of a PEM block, from this column of the body on.
    Pem { column: usize },
    /// The value of a key that YAML's `?` marked.
    Explicit(Class),
    /// Lines of base64 that the line before announced.
    Blob(Class),
    /// Inside of an XML element whose text goes, up to its end.
    Element,
    /// A command that prints a secret: its output, if that is one word.
    Output(Class),
    /// Lines of JSON that a command printed: the members that hold what was asked for.
    Answer(Class),
    /// Inside of a SAML assertion.
    Saml,
    /// A key at this column that ended its line: a scalar or a list farther to the right, or a
    /// section that a line of dashes begins.
    Below { indent: usize, class: Class },
    /// Lines up to the next empty one.
    Section { class: Class },
    /// Constants of Mendix apps under a key at this column.
    Constants { indent: usize },
    /// The next lines of a statement.
    Statement,
    /// A flag that ended its line: the next argument.
    Argument(Class),
    /// A line of names: a cell of each of the lines below.
    Column(Column),
}

/// Hints that the scanners left while they read a line.
#[derive(Default)]
pub(super) struct Cues {
    pub(super) next: Option<Cue>,
    /// With [`Cue::Below`]: what follows may be a map of secrets.
    pub(super) members: bool,
    /// `apiVersion` or `kind` was seen: a manifest may begin.
    pub(super) manifest: bool,
    /// A command was seen that prints the manifest of a Secret.
    pub(super) secret: bool,
}

/// A text under scan, and what was found in it so far.
pub(super) struct Scan<'a> {
    pub(super) text: &'a [u8],
    /// Where the line's own text begins, after a time stamp.
    pub(super) body: usize,
    /// Where it ends, without the white space at its end.
    pub(super) text_end: usize,
    pub(super) spans: &'a mut Vec<Span>,
    pub(super) cues: Cues,
    /// It may hold placeholders of ours.
    pub(super) own: bool,
    /// An escape was seen that the decoded shadow should resolve.
    pub(super) escapes: bool,
    /// Up to here a rule has dealt with the text as a whole.
    pub(super) done: usize,
    /// End of the quoted string that begins with the key under scan, if it begins one.
    pub(super) string_end: Option<usize>,
    /// Members of a one-line Secret manifest were looked for.
    pub(super) manifest_read: bool,
    /// Up to here a statement was read.
    pub(super) sql_done: usize,
    /// Bytes that rules may still look at beyond their own match; keeps time linear.
    budget: Cell<usize>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8], body: usize, spans: &'a mut Vec<Span>) -> Self {
        Self {
            text,
            body,
            text_end: text.trim_ascii_end().len(),
            spans,
            cues: Cues::default(),
            own: true,
            escapes: false,
            done: 0,
            string_end: None,
            manifest_read: false,
            sql_done: 0,
            budget: Cell::new(16 * text.len().saturating_sub(body) + BUDGET_FLOOR),
        }
    }

    /// Pays for a look at `bytes` bytes beyond a match. A rule that reads on and then takes nothing
    /// may be made to read the same bytes again by the next match; once the line has used up what it
    /// may, no rule reads on, and [`Scan::finish`] takes all of it. Only a line made for this gets
    /// there: ordinary values end after a few dozen bytes.
    #[cfg_attr(test, track_caller)]
    pub(super) fn spend(&self, bytes: usize) {
        looked(bytes);
        self.budget.set(self.budget.get().saturating_sub(bytes));
    }

    /// Whether reading on is over.
    pub(super) fn spent(&self) -> bool {
        self.budget.get() == 0
    }

    /// Ends the scan.
    pub(super) fn finish(self) -> Cues {
        if self.spent() && self.body < self.text.len() {
            self.spans.push(Span { start: self.body, end: self.text.len(), class: Class::Line });
        }
        self.cues
    }

    /// Notes a span; empty ones and placeholders of ours are left alone.
    pub(super) fn add(&mut self, start: usize, end: usize, class: Class) {
        let (mut start, mut end) = (start, end.min(self.text.len()));
        if self.own {
            if let Some((_, inside)) = placeholder::around(self.text, start) {
                start = inside;
            }
            if let Some((_, inside)) = placeholder::around(self.text, end) {
                end = inside;
            }
            if placeholder::end_at(self.text, start) == Some(end) {
                return;
            }
        }
        if start < end && self.spans.len() <= MOST_SPANS {
            self.spans.push(Span { start, end, class });
        }
    }

    #[cfg_attr(test, track_caller)]
    pub(super) fn at(&self, index: usize) -> Option<u8> {
        looked(1);
        self.text.get(index).copied()
    }

    /// The byte before `index`.
    #[cfg_attr(test, track_caller)]
    pub(super) fn before(&self, index: usize) -> Option<u8> {
        looked(1);
        self.text.get(index.checked_sub(1)?).copied()
    }

    #[cfg_attr(test, track_caller)]
    pub(super) fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        let slice = self.text.get(start..end.min(self.text.len())).unwrap_or_default();
        looked(slice.len());
        slice
    }

    /// All that is left of the line. Who reads on in it pays for that with [`Scan::spend`], unless it
    /// is done once a line.
    pub(super) fn rest(&self, start: usize) -> &'a [u8] {
        self.text.get(start..).unwrap_or_default()
    }

    /// How many bytes from `at` on `fit`, at most `most`.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(super) fn run(&self, at: usize, most: usize, fit: impl Fn(&u8) -> bool) -> usize {
        let len = self.rest(at).iter().take(most).take_while(|b| fit(b)).count();
        looked(len + 1);
        len
    }

    /// As [`Scan::run`] without a bound, and paid for.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(super) fn long_run(&self, at: usize, fit: impl Fn(&u8) -> bool) -> usize {
        let len = self.rest(at).iter().take_while(|b| fit(b)).count();
        self.spend(len);
        len
    }

    /// How many bytes right before `end` fit, down to `floor`.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(super) fn run_before(&self, end: usize, floor: usize, fit: impl Fn(&u8) -> bool) -> usize {
        let before = self.text.get(floor..end).unwrap_or_default();
        let len = before.iter().rev().take_while(|b| fit(b)).count();
        looked(len + 1);
        len
    }

    /// Whether `word` stands at `at`.
    #[cfg_attr(test, track_caller)]
    pub(super) fn starts(&self, at: usize, word: &[u8]) -> bool {
        looked(word.len());
        self.rest(at).starts_with(word)
    }

    /// Where one of two bytes stands first in `from..to`.
    #[cfg_attr(test, track_caller)]
    pub(super) fn find2(&self, a: u8, b: u8, from: usize, to: usize) -> Option<usize> {
        let found = memchr::memchr2(a, b, self.text.get(from..to)?);
        looked(found.unwrap_or(to - from));
        Some(from + found?)
    }

    /// Where `byte` stands first in `from..to`.
    #[cfg_attr(test, track_caller)]
    pub(super) fn find(&self, byte: u8, from: usize, to: usize) -> Option<usize> {
        let found = memchr::memchr(byte, self.text.get(from..to)?);
        looked(found.unwrap_or(to - from));
        Some(from + found?)
    }

    /// Whether `at` stands inside of braces that begin in this text.
    #[cfg_attr(test, track_caller)]
    pub(super) fn in_struct(&self, at: usize) -> bool {
        self.is_open(at, b'{', b'}')
    }

    /// Whether, shortly before `at`, a bracket `up` was opened and not closed by `down`.
    #[cfg_attr(test, track_caller)]
    pub(super) fn is_open(&self, at: usize, up: u8, down: u8) -> bool {
        /// What stands farther away is taken to be open.
        const FAR: usize = 1024;
        let floor = at.saturating_sub(FAR);
        let before = self.slice(floor, at);
        self.spend(before.len() / 16);
        let mut closed = 0_u32;
        for found in memchr::memrchr2_iter(up, down, before) {
            if before.get(found) == Some(&down) {
                closed += 1;
            } else if closed == 0 {
                return true;
            } else {
                closed -= 1;
            }
        }
        floor > 0
    }

    /// Whether `at` may stand inside of a string that `quote` began: an odd number of them came before.
    #[cfg_attr(test, track_caller)]
    pub(super) fn is_quoted(&self, at: usize, quote: u8) -> bool {
        /// What stands farther away is taken to be open.
        const FAR: usize = 1024;
        let before = self.slice(at.saturating_sub(FAR), at);
        self.spend(before.len() / 16);
        at > FAR || memchr::memchr_iter(quote, before).count() % 2 == 1
    }

    /// After blanks and tabs at `at`, up to a few dozen of them.
    #[cfg_attr(test, track_caller)]
    pub(super) fn skip_space(&self, at: usize) -> usize {
        /// Most white space between a key, its separator and its value.
        const MOST: usize = 64;
        at + self.run(at, MOST, |b| matches!(b, b' ' | b'\t'))
    }

    /// Whether `at` is the class name of a placeholder.
    pub(super) fn in_placeholder(&self, at: usize) -> bool {
        self.own && at >= 3 && placeholder::end_at(self.text, at - 3).is_some()
    }

    /// Takes the value of `key`; no other key looks for one in it.
    pub(super) fn accept(&mut self, key: &Key, value: Value) {
        self.add(value.start, value.end, key.class);
        self.done = self.done.max(value.end);
    }
}

/// Tests count every byte that is looked at, and where, to see that time is linear.
#[inline(always)]
#[cfg_attr(test, track_caller)]
pub(super) fn looked(bytes: usize) {
    #[cfg(test)]
    work::add(bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

/// Bytes that rules looked at in this thread, by place in the source, counted in tests alone.
#[cfg(test)]
pub(super) mod work {
    use std::{cell::RefCell, collections::HashMap, panic::Location};

    type Places = HashMap<&'static Location<'static>, u64>;

    thread_local!(static PLACES: RefCell<Places> = RefCell::default());

    #[track_caller]
    pub(super) fn add(bytes: usize) {
        let place = Location::caller();
        PLACES.with(|places| *places.borrow_mut().entry(place).or_default() += bytes as u64);
    }

    /// What `reading` looks at, and where it looks most.
    pub(in super::super) fn of(reading: impl FnOnce()) -> (u64, String) {
        PLACES.with(RefCell::take);
        reading();
        let places = PLACES.with(RefCell::take);
        let most = places.iter().max_by_key(|(_, bytes)| **bytes);
        (places.values().sum(), most.map(|(place, _)| place.to_string()).unwrap_or_default())
    }
}
