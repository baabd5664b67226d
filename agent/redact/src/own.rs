//! R39: the agent's own credentials, by exact match in the forms they may be logged in.
//!
//! The other rules know what such things look like. This one knows what they are, so that it holds
//! where a rule does not: a token without its key, a line of a key on its own, base64 of a file.

use std::{fmt, ops::Range};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use super::{Class, Finder};

/// Shortest form that is looked for, bytes: shorter ones would be found where they mean nothing.
const SHORTEST: usize = 12;
/// Letters of base64 in one line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// Forms of the credentials, ready to be searched for.
#[derive(Default)]
pub struct OwnSecrets {
    forms: Vec<Zeroizing<Vec<u8>>>,
    search: Option<AhoCorasick>,
}

impl fmt::Debug for OwnSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnSecrets({} forms)", self.forms.len())
    }
}

impl OwnSecrets {
    /// Takes credentials: tokens as they are written in their files, keys in DER. Ones shorter than
    /// 12 bytes are left out.
    pub fn new<'s>(
        tokens: impl IntoIterator<Item = &'s [u8]>,
        keys: impl IntoIterator<Item = &'s [u8]>,
    ) -> Self {
        let mut own = Self::default();
        for token in tokens {
            own.add_text(token.trim_ascii());
        }
        for der in keys {
            own.add_key(der);
        }
        // Can't fail for a few dozen forms; if it does, they are searched one by one.
        own.search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(own.forms.iter().map(|form| form.as_slice()))
            .ok();
        own
    }

    fn add(&mut self, form: &[u8]) {
        if form.len() >= SHORTEST && !self.forms.iter().any(|known| known.as_slice() == form) {
            self.forms.push(Zeroizing::new(form.to_vec()));
        }
    }

    /// A text, in base64 at each of its three alignments, and in hexadecimal digits.
    fn add_text(&mut self, text: &[u8]) {
        self.add(text);
        self.add_encoded(text);
    }

    fn add_encoded(&mut self, bytes: &[u8]) {
        for lead in 0..3 {
            let mut shifted = Zeroizing::new(vec![0; lead]);
            shifted.extend_from_slice(bytes);
            // Letters that also hold bits of the neighbours are left out at both ends.
            let from = (lead * 8).div_ceil(6);
            let to = shifted.len() * 8 / 6;
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let encoded = Zeroizing::new(engine.encode(&*shifted).into_bytes());
                self.add(encoded.get(from..to).unwrap_or_default());
            }
        }
        let hex = Zeroizing::new(hex::encode(bytes));
        self.add(hex.as_bytes());
        self.add(Zeroizing::new(hex.to_ascii_uppercase()).as_bytes());
    }

    /// A key: its DER encoded, the lines of its PEM, and those once more encoded, as in a Secret.
    fn add_key(&mut self, der: &[u8]) {
        self.add_encoded(der);
        let base64 = Zeroizing::new(STANDARD_NO_PAD.encode(der).into_bytes());
        for line in base64.chunks(PEM_LINE) {
            self.add_text(line);
        }
    }
}

impl Finder for OwnSecrets {
    fn class(&self) -> Class {
        Class::AgentSecret
    }

    fn find(&self, text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
        match &self.search {
            Some(search) => search.find_iter(text).for_each(|hit| found(hit.range())),
            None => {
                for form in &self.forms {
                    let len = form.len();
                    memchr::memmem::find_iter(text, form.as_slice())
                        .for_each(|at| found(at..at + len));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::{Counts, Redaction, SnapshotKey, redact_text};

    const TOKEN: &str = "mx-boot-9f3kQ7/Zr+tq81_Lw~0aa";

    fn key() -> Vec<u8> {
        (0..138_u32).map(|n| (n * n * 31 + n * 7 + 3) as u8).collect()
    }

    fn redacted(text: &str) -> String {
        let own = OwnSecrets::new([TOKEN.as_bytes()], [key().as_slice()]);
        let redaction = Redaction::new(SnapshotKey::new([1; 32]), vec![Box::new(own)]);
        redact_text(&redaction, text, &mut Counts::default()).expect("text")
    }

    #[test]
    fn a_token_goes_in_every_form_without_any_key_around_it() {
        let encoded = |text: &str| STANDARD.encode(text);
        for (what, text) in [
            ("plain", format!("sent {TOKEN}, again")),
            ("percent-encoded", format!("/x/{}", TOKEN.replace('/', "%2F").replace('+', "%2B"))),
            ("escaped", format!("x {} y", TOKEN.replace('/', "\\u002f"))),
            ("base64", format!("x {} y", encoded(TOKEN))),
            ("base64, one before", format!("x {} y", encoded(&format!("a{TOKEN}")))),
            ("base64, two before", format!("x {} y", encoded(&format!("ab{TOKEN} and more")))),
            ("base64 for URLs", format!("x {} y", URL_SAFE_NO_PAD.encode(TOKEN))),
            ("hexadecimal", format!("x {} y", hex::encode(TOKEN))),
            ("HEXADECIMAL", format!("x {} y", hex::encode_upper(TOKEN))),
        ] {
            let out = redacted(&text);
            assert!(out.contains("[R:agent-secret:"), "{what}: {out}");
        }
        assert_eq!(redacted("mx-boot-9f3kQ7 and more"), "mx-boot-9f3kQ7 and more");
    }

    #[test]
    fn every_line_of_a_key_goes_alone() {
        let pem = STANDARD.encode(key());
        for line in pem.as_bytes().chunks(PEM_LINE) {
            let line = std::str::from_utf8(line).expect("ASCII");
            let out = redacted(&format!("at {line} in file"));
            assert!(out.starts_with("at [R:agent-secret:") && out.ends_with("] in file"), "{out}");
        }
        let file = STANDARD.encode(format!("-- {} --", &pem[..64]));
        assert!(redacted(&file).contains("[R:agent-secret:"), "base64 of a file");
        assert!(redacted(&hex::encode(key())).starts_with("[R:agent-secret:"), "hexadecimal");
    }

    #[test]
    fn what_is_too_short_to_tell_is_left_out() {
        let own = OwnSecrets::new([b"short".as_slice(), b" \n"], []);
        assert_eq!(own.forms.len(), 0);
        own.find(b"short", &mut |_| panic!("found"));
    }
}
