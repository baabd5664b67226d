//! Lines that are `name: value`, and values that stand below their names.

use crate::Class;
use crate::block::is_block_mark;
use crate::scan::{Cue, Scan};
use crate::value::{self, Reach};

/// A line that is `name: value`.
pub(super) struct Member<'a> {
    /// Column of the line's first character.
    pub(super) indent: usize,
    /// Column of the name, after the dash of a list.
    pub(super) column: usize,
    pub(super) name: &'a [u8],
    /// Where the value begins, after white space.
    pub(super) value: usize,
}

/// Column of the first character of the body, and whether there is none.
pub(super) fn indentation(scan: &Scan<'_>) -> (usize, bool) {
    let spaces = scan.run(scan.body, usize::MAX, |b| matches!(b, b' ' | b'\t'));
    (spaces, scan.at(scan.body + spaces).is_none_or(|b| b == b'\r'))
}

pub(super) fn member<'a>(scan: &Scan<'a>) -> Option<Member<'a>> {
    let (indent, _) = indentation(scan);
    let mut at = scan.body + indent;
    // `+   value: x`, `~ value = "x"`: a line of a comparison.
    if matches!(scan.at(at), Some(b'+' | b'~' | b'>' | b'<')) && scan.at(at + 1) == Some(b' ') {
        at = scan.skip_space(at + 1);
    }
    if scan.starts(at, b"- ") {
        at = scan.skip_space(at + 1);
    }
    let column = at - scan.body;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let len = scan.run(at, 256, is_name);
    let mut colon = at + len;
    if let Some((slashes, _)) = value::quote_at(scan, colon) {
        colon += slashes + 1;
    }
    let blank = scan.at(colon) == Some(b' ');
    colon = scan.skip_space(colon);
    let assigned = blank && scan.starts(colon, b"= ");
    (len > 0 && (scan.at(colon) == Some(b':') || assigned)).then(|| Member {
        indent,
        column,
        name: scan.slice(at, at + len),
        value: scan.skip_space(colon + 1),
    })
}

impl Member<'_> {
    pub(super) fn redact(&self, scan: &mut Scan<'_>, class: Class) {
        let value = value::read(scan, self.value, Reach::Line);
        let text = scan.slice(value.start, value.end);
        let rest = scan.slice(self.value, scan.text_end.min(self.value + 16));
        let block = is_block_mark(text) || is_block_mark(rest);
        if block {
            scan.cues.next = Some(Cue::Block { indent: self.indent, class });
        }
        let opens = block || matches!(text, b"{" | b"[");
        if !opens && !value::is_nothing(text) {
            scan.add(value.start, value.end, class);
        }
    }
}

/// R08 over two lines: `name: X` was the line before.
pub(super) fn value_of(scan: &mut Scan<'_>, class: Class) {
    let (here, _) = indentation(scan);
    if scan.at(scan.body + here) == Some(b'#') {
        scan.cues.next = Some(Cue::ValueOf(class));
        return;
    }
    let start = scan.body + here;
    // Another element of a list. In a comparison a dash says that the line went.
    let name = scan.skip_space(start + 1);
    if scan.starts(start, b"- ") && name == start + 2 && here > 0 {
        return;
    }
    // `<string>x</string>`
    if scan.at(start) == Some(b'<') && scan.at(start + 1).is_some_and(|b| b.is_ascii_alphabetic()) {
        let tag = scan.run(start, 32, |&b| b != b'>');
        let from = start + tag + 1;
        if let Some(end) = scan.find(b'<', from.min(scan.text.len()), scan.text.len())
            && !value::is_nothing(scan.slice(from, end))
        {
            scan.add(from, end, class);
        }
        return;
    }
    // `default = "x"`, of a variable of Terraform.
    if scan.starts(start, b"default") {
        let sign = scan.skip_space(start + 7);
        let from = scan.skip_space(sign + 1);
        if scan.at(sign) == Some(b'=') && value::quote_at(scan, from).is_some() {
            let value = value::read(scan, from, Reach::Word);
            if !value::is_nothing(scan.slice(value.start, value.end)) {
                scan.add(value.start, value.end, class);
            }
            return;
        }
    }
    let found = member(scan);
    // `description: …`, `type = …`: what else is said of the name, before its value.
    let between = [&b"description"[..], b"type", b"required", b"sensitive", b"displayname"];
    let name = scan.run(start, 16, u8::is_ascii_alphabetic);
    let name = scan.slice(start, start + name).to_ascii_lowercase();
    // Of JSON another member, up to the brace that closes the object.
    let member_of_object = found.as_ref().is_some_and(|member| {
        scan.at(start) == Some(b'"')
            && scan.before(scan.text_end) == Some(b',')
            && !member.name.eq_ignore_ascii_case(b"value")
            && !matches!(scan.at(member.value), Some(b'{' | b'['))
    });
    if between.contains(&&*name) || member_of_object {
        scan.cues.next = Some(Cue::ValueOf(class));
        return;
    }
    if let Some(member) = found
        && [&b"value"[..], b"default"].iter().any(|name| member.name.eq_ignore_ascii_case(name))
    {
        member.redact(scan, class);
    }
}
