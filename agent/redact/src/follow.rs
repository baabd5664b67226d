//! What one line says about the lines after it.
//!
//! A PEM block, a YAML block scalar, a Secret manifest and a name/value pair reach over line ends.
//! All that is remembered is a few numbers, never text. Everything here ends by itself: a block by
//! its end mark, by indentation, or after a bounded number of lines that do not look like it.

mod manifest;
mod member;
mod pem;

use self::manifest::Manifest;
use self::member::{indentation, member, value_of};
use super::Class;
use super::announced;
use super::block::is_block_mark;
use super::made_up::{is_made_up, is_password_like, is_random_word};
use super::members;
use super::mendix;
use super::near;
use super::phrase::is_phrase;
use super::placeholder;
use super::scan::{Cue, Cues, Scan};
use super::sql;
use super::value::{self, Reach};
use super::words::COMMON;

/// Longest SAML assertion, in lines.
const SAML_LINES: u32 = 4096;
/// Longest section of a description, in lines.
const SECTION_LINES: u32 = 64;

/// Longest table, in lines.
const TABLE_LINES: u32 = 1024;
/// Longest statement, in lines.
const STATEMENT_LINES: u32 = 256;

/// State between lines.
#[derive(Default)]
pub(super) struct Follow {
    cue: Option<Cue>,
    /// Lines since the cue last fitted.
    strangers: u32,
    manifest: Option<Manifest>,
    /// What is below a key may be a map of secrets.
    members: bool,
}

impl Follow {
    /// Whether the next line needs [`Follow::apply`].
    pub(super) fn waits(&self) -> bool {
        self.cue.is_some() || self.manifest.is_some()
    }

    /// Reads a line in the light of the lines before it.
    pub(super) fn apply(&mut self, scan: &mut Scan<'_>) {
        if let Some(manifest) = &mut self.manifest
            && !manifest.apply(scan)
        {
            self.manifest = None;
        }
        match self.cue {
            None => {}
            Some(Cue::ValueOf(class)) => {
                self.cue = None;
                value_of(scan, class);
            }
            Some(Cue::Block { indent, class }) => {
                let (here, blank) = indentation(scan);
                if blank {
                    return;
                }
                if here > indent {
                    let start = scan.body + here;
                    let end = value::trimmed_end(scan, start, scan.text.len());
                    scan.add(start, end, class);
                } else {
                    self.cue = None;
                }
            }
            Some(Cue::Map { indent, class }) => {
                let (here, blank) = indentation(scan);
                if blank {
                    return;
                }
                if here <= indent {
                    self.cue = None;
                } else if let Some(member) = member(scan) {
                    member.redact(scan, class);
                }
            }
            Some(Cue::Below { indent, class }) => self.below(scan, indent, class),
            Some(Cue::Section { class }) => {
                let (here, blank) = indentation(scan);
                self.strangers += 1;
                if blank || self.strangers > SECTION_LINES {
                    self.cue = None;
                    return;
                }
                let start = scan.body + here;
                scan.add(start, value::trimmed_end(scan, start, scan.text.len()), class);
            }
            Some(Cue::Argument(class)) => {
                self.cue = None;
                let (here, _) = indentation(scan);
                let mut at = scan.body + here;
                if scan.starts(at, b"- ") {
                    at = scan.skip_space(at + 1);
                }
                // `string(12) "x"`, as PHP prints it.
                if scan.starts(at, b"string(") {
                    at = scan.skip_space(at + scan.run(at, 24, |&b| b != b')') + 1);
                }
                let value = value::read(scan, at, Reach::Word);
                let text = scan.slice(value.start, value.end);
                let alone = value.next >= value::trimmed_end(scan, at, scan.text.len());
                if alone && !text.starts_with(b"-") && !value::is_nothing(text) {
                    scan.add(value.start, value.end, class);
                }
            }
            Some(Cue::Column(column)) => {
                self.strangers += 1;
                if !column.apply(scan) || self.strangers > TABLE_LINES {
                    self.cue = None;
                }
            }
            Some(Cue::Pem { column }) => self.pem(scan, column),
            Some(Cue::Explicit(class)) => {
                self.cue = None;
                let (here, _) = indentation(scan);
                let colon = scan.body + here;
                if scan.starts(colon, b": ") {
                    let value = value::read(scan, scan.skip_space(colon + 1), Reach::Line);
                    if !value::is_nothing(scan.slice(value.start, value.end)) {
                        scan.add(value.start, value.end, class);
                    }
                }
            }
            Some(Cue::Blob(class)) => self.blob(scan, class),
            Some(Cue::Element) => {
                let mark = scan.find(b'<', scan.body, scan.text.len());
                let end = mark.unwrap_or(value::trimmed_end(scan, scan.body, scan.text.len()));
                let (here, _) = indentation(scan);
                scan.add(scan.body + here, end, Class::Saml);
                self.strangers += 1;
                if mark.is_some() || self.strangers > SAML_LINES {
                    self.cue = None;
                }
            }
            Some(Cue::Output(class)) => {
                let (here, blank) = indentation(scan);
                self.strangers += 1;
                // `use the following password:`, an empty line, the password.
                if blank && self.strangers == 1 {
                    return;
                }
                self.cue = None;
                // `{`, and the answer in the lines below.
                if matches!(scan.slice(scan.body, scan.text_end).trim_ascii(), b"{" | b"[" | b"[{")
                {
                    self.cue = Some(Cue::Answer(class));
                    return;
                }
                // `[type=string_too_short, input_value='x', input_type=str]`, below the name of the field.
                let line = scan.slice(scan.body, scan.text.len().min(scan.body + 256));
                if let Some(found) = memchr::memmem::find(line, b"input_value='") {
                    let value = value::read(scan, scan.body + found + 12, Reach::Word);
                    return scan.add(value.start, value.end, class);
                }
                let mut from = scan.body + here;
                // An object: all members of what holds secrets alone, else those that are called values.
                if scan.at(from) == Some(b'{') && scan.at(from + 1) != Some(b'{') {
                    return members::object(scan, class, from, class != Class::K8sSecret);
                }
                // `C: …`, `> …`: who says it.
                let speaker = scan.run(from, 3, |b| !b.is_ascii_whitespace());
                if speaker < 3 && matches!(scan.before(from + speaker), Some(b':' | b'>' | b'<')) {
                    from = scan.skip_space(from + speaker);
                }
                let value = value::read(scan, from, Reach::Word);
                let alone = value.next >= value::trimmed_end(scan, scan.body, scan.text.len());
                let text = scan.slice(value.start, value.end);
                let code = text.ends_with(b")") && text.contains(&b'(') && text.contains(&b'.');
                let telling = !code && is_made_up(text)
                    || is_phrase(text)
                    || COMMON.has(text)
                    || announced::is_blob(text)
                    || members::is_text64(text);
                // What was hidden in it by another rule makes nothing else of the rest.
                let hidden = (0..text.len()).any(|at| placeholder::end_at(text, at).is_some());
                if alone && telling && !hidden && !value::is_nothing(text) {
                    scan.add(value.start, value.end, class);
                }
            }
            Some(Cue::Answer(class)) => {
                /// Names of what a command answers with.
                const NAMES: &[&[u8]] =
                    &[b"value", b"secretstring", b"secretbinary", b"payload", b"data"];
                self.strangers += 1;
                let line = scan.slice(scan.body, scan.text_end).trim_ascii_end();
                if matches!(line, b"}" | b"]" | b"}]") || self.strangers > SECTION_LINES {
                    self.cue = None;
                } else if let Some(member) = member(scan)
                    && NAMES.contains(&&*member.name.to_ascii_lowercase())
                    && value::quote_at(scan, member.value).is_some()
                {
                    let value = value::read(scan, member.value, Reach::Word);
                    if !value::is_nothing(scan.slice(value.start, value.end)) {
                        scan.add(value.start, value.end, class);
                    }
                }
            }
            Some(Cue::Constants { indent }) => {
                let (here, blank) = indentation(scan);
                if blank {
                    return;
                }
                let Some(member) = member(scan).filter(|member| member.column > indent) else {
                    if here <= indent {
                        self.cue = None;
                    }
                    return;
                };
                if mendix::is_constant(member.name) || member.name == b"value" {
                    mendix::take_constant(scan, member.name, member.value, Reach::Line);
                }
            }
            Some(Cue::Statement) => {
                let (here, _) = indentation(scan);
                self.strangers += 1;
                let more = sql::at_next_line(scan, scan.body + here);
                if !more || self.strangers > STATEMENT_LINES {
                    self.cue = None;
                }
            }
            Some(Cue::Saml) => {
                let close = find_close(scan.rest(scan.body));
                let end = close.map_or(scan.text.len(), |at| scan.body + at);
                scan.add(scan.body, end, Class::Saml);
                self.strangers += 1;
                if close.is_some() || self.strangers > SAML_LINES {
                    self.cue = None;
                }
            }
        }
    }

    /// Takes up the hints of the line that was just read.
    pub(super) fn update(&mut self, text: &[u8], body: usize, cues: Cues) {
        // What may be below a word is no reason to leave a block.
        let weak = matches!(cues.next, Some(Cue::Blob(_) | Cue::Output(_)));
        let block =
            matches!(self.cue, Some(Cue::Pem { .. } | Cue::Saml | Cue::Element | Cue::Blob(_)));
        // A block that was cut off before its end is no reason to leave a table unread.
        let waits = self.cue.is_some() && !matches!(self.cue, Some(Cue::Pem { .. } | Cue::Blob(_)));
        let column = matches!(cues.next, Some(Cue::Column(_))) && waits;
        let inside = matches!(
            self.cue,
            Some(
                Cue::Map { .. }
                    | Cue::Block { .. }
                    | Cue::Section { .. }
                    | Cue::Answer(_)
                    | Cue::Constants { .. }
            )
        );
        let block = block || inside && matches!(cues.next, Some(Cue::Output(_)));
        if let Some(cue) = cues.next.filter(|_| !(weak && block || column)) {
            self.cue = Some(cue);
            self.strangers = 0;
            self.members = cues.members;
        } else if self.cue.is_none()
            && sql::is_lone_word(text.get(body..).unwrap_or_default().trim_ascii())
        {
            self.cue = Some(Cue::Statement);
            self.strangers = 0;
        }
        if cues.secret {
            self.manifest = Some(Manifest::OF_A_COMMAND);
        }
        if cues.manifest && self.manifest.is_none_or(|m| !m.secret) {
            let mut none = Vec::new();
            let scan = Scan::new(text, body, &mut none);
            if let Some(manifest) = Manifest::begin(&scan) {
                self.manifest = Some(manifest);
            }
        }
    }

    fn below(&mut self, scan: &mut Scan<'_>, indent: usize, class: Class) {
        let (here, _) = indentation(scan);
        let start = scan.body + here;
        let end = value::trimmed_end(scan, start, scan.text.len());
        let text = scan.slice(start, end);
        self.cue = None;
        let members = std::mem::take(&mut self.members);
        if text.len() >= 3 && text.iter().all(|&b| b == b'-') {
            self.cue = Some(Cue::Section { class });
            self.strangers = 0;
            return;
        }
        let item = text.strip_prefix(b"- ").map(<[u8]>::trim_ascii_start);
        let scalar = item.unwrap_or(text);
        let deep = here > indent || item.is_some() && here >= indent;
        let from = end - scalar.len().min(end - start);
        // `password:` and below it `value: …`, or members whose values tell.
        if deep && let Some(member) = member(scan) {
            if [&b"value"[..], b"default", b"plain", b"secret"].contains(&member.name) {
                return member.redact(scan, class);
            }
            if members {
                let value = value::read(scan, member.value, Reach::Line);
                let text = scan.slice(value.start, value.end);
                // `chpasswd:`, below it `list: |`, and lines of users and passwords.
                if class == Class::Password && is_block_mark(text) {
                    self.cue = Some(Cue::Block { indent: member.indent, class });
                    return;
                }
                let hex = text.len() >= 32 && text.iter().all(u8::is_ascii_hexdigit);
                if is_random_word(text) || is_password_like(text) || COMMON.has(text) || hex {
                    scan.add(value.start, value.end, class);
                }
                self.cue = Some(Cue::Below { indent, class });
                self.members = true;
                return;
            }
        }
        let hex = scalar.len() >= 24 && scalar.iter().all(u8::is_ascii_hexdigit);
        let own = matches!(class, Class::Token | Class::Key | Class::Secret);
        let telling = is_random_word(scalar)
            || own && hex
            || class == Class::Password && (item.is_none() || is_made_up(scalar));
        // `Password:`, and the password below it, no deeper.
        let level = here == indent && item.is_none() && near::stands_below(class, scalar);
        if (deep && telling || level) && member(scan).is_none() && !value::is_nothing(scalar) {
            let value = value::read(scan, from, Reach::Line);
            scan.add(value.start, value.end, class);
            if item.is_some() {
                self.cue = Some(Cue::Below { indent, class });
                self.members = members;
            }
        }
    }
}

/// Position of `</…Assertion>` in `text`.
pub(super) fn find_close(text: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(text, b"Assertion>").find_map(|at| {
        let name = text.get(..at)?.iter().rev().take(16);
        let prefix = name.take_while(|b| b.is_ascii_alphanumeric() || **b == b':').count();
        let open = at.checked_sub(prefix + 2)?;
        (text.get(open..open + 2)? == b"</").then_some(open)
    })
}
