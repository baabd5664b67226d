//! Text that carries its labels along while it is built, encoded and wrapped.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::class::Class;

/// A secret in [`Labelled`], with the text its range must hold, kept apart to check the range by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) range: Range<usize>,
    pub(crate) class: Class,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) text: String,
    pub(crate) secrets: Vec<Planted>,
    pub(crate) decoys: Vec<Range<usize>>,
}

impl Labelled {
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn push_secret(&mut self, value: &str, class: Class) {
        let start = self.text.len();
        self.push(value);
        self.secrets.push(Planted {
            range: start..self.text.len(),
            class,
            value: value.to_owned(),
        });
    }

    pub(crate) fn push_decoy(&mut self, value: &str) {
        let start = self.text.len();
        self.push(value);
        self.decoys.push(start..self.text.len());
    }

    pub(crate) fn append(&mut self, other: Self) {
        let by = self.text.len();
        self.push(&other.text);
        let shifted = |r: Range<usize>| r.start + by..r.end + by;
        self.secrets
            .extend(other.secrets.into_iter().map(|p| Planted { range: shifted(p.range), ..p }));
        self.decoys.extend(other.decoys.into_iter().map(shifted));
    }

    /// A secret over several lines is one secret a line, without the white space around it: what a
    /// collector puts between lines is not part of the secret.
    pub(crate) fn split_at_lines(&mut self) {
        let whole = std::mem::take(&mut self.secrets);
        for planted in whole {
            let mut start = planted.range.start;
            for line in planted.value.split('\n') {
                let value = line.trim();
                let from = start + (line.len() - line.trim_start().len());
                if !value.is_empty() {
                    self.secrets.push(Planted {
                        range: from..from + value.len(),
                        class: planted.class,
                        value: value.to_owned(),
                    });
                }
                start += line.len() + 1;
            }
        }
    }

    /// Encodes each character by itself; labels follow.
    pub(crate) fn encoded(&self, encode: impl Fn(char, &mut String)) -> Self {
        let mut text = String::with_capacity(self.text.len() * 5 / 4);
        let mut moved = vec![0; self.text.len() + 1];
        for (at, c) in self.text.char_indices() {
            moved[at] = text.len();
            encode(c, &mut text);
        }
        moved[self.text.len()] = text.len();
        let range = |r: &Range<usize>| moved[r.start]..moved[r.end];
        let value = |v: &str| {
            let mut out = String::new();
            v.chars().for_each(|c| encode(c, &mut out));
            out
        };
        Self {
            secrets: self
                .secrets
                .iter()
                .map(|p| Planted { range: range(&p.range), class: p.class, value: value(&p.value) })
                .collect(),
            decoys: self.decoys.iter().map(range).collect(),
            text,
        }
    }

    /// Base64 has no place for a single character: if something in it is secret, all of it is.
    pub(crate) fn base64(&self) -> Self {
        let mut out = Self::default();
        let text = STANDARD.encode(&self.text);
        match self.secrets.first() {
            Some(first) => out.push_secret(&text, first.class),
            None => out.push(&text),
        }
        out
    }

    /// Puts `what` in at `at`; a label that begins there moves behind it.
    pub(crate) fn insert(&mut self, at: usize, what: &str) {
        self.text.insert_str(at, what);
        let by = what.len();
        let shift = |r: &mut Range<usize>| {
            if r.start >= at {
                *r = r.start + by..r.end + by;
            } else if r.end > at {
                r.end += by;
            }
        };
        self.secrets.iter_mut().for_each(|p| shift(&mut p.range));
        self.decoys.iter_mut().for_each(shift);
    }

    /// Where lines begin.
    pub(crate) fn line_starts(&self) -> Vec<usize> {
        std::iter::once(0)
            .chain(self.text.match_indices('\n').map(|(at, _)| at + 1))
            .filter(|at| *at < self.text.len())
            .collect()
    }
}

/// As in a JSON string.
pub(crate) fn json(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push(c),
    }
}

/// As Go's `encoding/json` does by default: also `<`, `>` and `&`.
pub(crate) fn json_html(c: char, out: &mut String) {
    match c {
        '<' | '>' | '&' => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => json(c, out),
    }
}

/// As in a query: everything but RFC 3986's unreserved characters.
pub(crate) fn percent(c: char, out: &mut String) {
    if c.is_ascii_alphanumeric() || "-._~".contains(c) {
        out.push(c);
        return;
    }
    let mut buffer = [0; 4];
    for byte in c.encode_utf8(&mut buffer).bytes() {
        out.push_str(&format!("%{byte:02X}"));
    }
}

/// As a browser sends a form: a query with `+` for a space.
pub(crate) fn form(c: char, out: &mut String) {
    match c {
        ' ' => out.push('+'),
        c => percent(c, out),
    }
}

/// As in XML text and attributes.
pub(crate) fn xml(c: char, out: &mut String) {
    match c {
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '&' => out.push_str("&amp;"),
        '"' => out.push_str("&quot;"),
        c => out.push(c),
    }
}

/// As in a literal of SQL.
pub(crate) fn sql(c: char, out: &mut String) {
    if c == '\'' {
        out.push(c);
    }
    out.push(c);
}
