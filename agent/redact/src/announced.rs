//! What a line announces: base64 after `keystore` or `SAML response`, on the same line or on the next
//! ones; the text of XML elements that hold nothing else; what a command prints (R22, R26, R28).

use super::Class;
use super::bytes;
use super::made_up::{is_made_up, is_random_word};
use super::phrase::is_unlike_names;
use super::scan::{Cue, Scan};
use super::value;

/// Least length of base64 that is taken because of what stands before it.
const LEAST: usize = 64;
/// How far after the word it may begin.
const NEAR: usize = 160;
/// Most text between the word and the end of its line, if what it announces is below.
const REST: usize = 48;

fn is_base64(b: &u8) -> bool {
    bytes::ANY_BASE64.has(*b)
}

/// After a word such as `keystore`, which ends at `end`.
pub(super) fn at_word(scan: &mut Scan<'_>, start: usize, end: usize, class: Class) {
    // In base64 such letters come by chance.
    let inside = start > scan.body && scan.before(start).is_some_and(|b| b.is_ascii_alphanumeric());
    let short = end - start == 3 && scan.at(end).is_some_and(|b| b.is_ascii_alphanumeric());
    let capital = scan.at(start).is_some_and(|b| b.is_ascii_uppercase());
    if start < scan.done || scan.in_placeholder(start) || inside && !capital || short {
        return;
    }
    // Its own rule takes the block, and knows where it ends: `privateKey: "-----BEGIN …`.
    if memchr::memmem::find(scan.slice(end, end + NEAR), b"-----BEGIN").is_some() {
        return;
    }
    let mut at = end;
    while at < end + NEAR && at < scan.text.len() {
        at += scan.run(at, NEAR, |b| !is_base64(b) || *b == b'=');
        let len = scan.long_run(at, is_base64);
        if len == 0 {
            break;
        }
        let text = scan.slice(at, at + len);
        // `keystore=MII…`: the name before it is of the same letters.
        let lead = match memchr::memchr(b'=', text) {
            Some(sign) if sign + 2 < len => sign + 1,
            _ => 0,
        };
        let text = text.get(lead..).unwrap_or_default();
        if text.len() >= LEAST && is_blob(text) {
            scan.add(at + lead, at + len, class);
            scan.done = scan.done.max(at + len);
            return;
        }
        at += len;
    }
    if scan.text_end.saturating_sub(end) <= REST && scan.cues.next.is_none() {
        scan.cues.next = Some(Cue::Blob(class));
    }
}

/// Letters of both cases and digits without order, and no path.
pub(super) fn is_blob(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(24)).unwrap_or_default();
    let path =
        |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'-' | b'_');
    value::looks_random(text) && !head.iter().all(path)
}

/// The text of an XML element whose name ends at `end`: `<ds:SignatureValue>…</ds:SignatureValue>`.
pub(super) fn at_element(scan: &mut Scan<'_>, start: usize, end: usize) {
    let lead = scan.slice(start.saturating_sub(16), start);
    let prefix = lead.iter().rev().take_while(|b| b.is_ascii_alphanumeric() || **b == b':').count();
    let opens = lead.len() > prefix && lead.get(lead.len() - prefix - 1) == Some(&b'<');
    if start < scan.done || !opens {
        return;
    }
    // Attributes may stand between the name and its bracket.
    let tag = scan.slice(end, end + 256);
    let Some(close) = memchr::memchr(b'>', tag) else { return };
    // In a string that was escaped, backslashes stand before the bracket.
    let attributes = tag.get(..close).unwrap_or_default();
    let open = attributes.iter().all(|&b| b == b'\\');
    if !open && (attributes.first() != Some(&b' ') || attributes.ends_with(b"/")) {
        return;
    }
    let from = end + close + 1;
    let mark = scan.find(b'<', from, scan.text.len());
    let to = mark.unwrap_or(value::trimmed_end(scan, from, scan.text.len()));
    scan.spend(to.saturating_sub(from));
    let to = to - scan.run_before(to, from.min(to), |&b| b == b'\\');
    scan.add(from, to, Class::Saml);
    scan.done = scan.done.max(to);
    if mark.is_none() {
        scan.cues.next = Some(Cue::Element);
    }
}

/// R22: the private members of a JSON web key (RFC 7518 §6), around the `kty` at `start`.
pub(super) fn at_jwk(scan: &mut Scan<'_>, start: usize) {
    /// A key of 4096 bits in base64 with all its members, to each side.
    const REACH: usize = 4096;
    const MEMBERS: &[&[u8]] = &[b"d", b"p", b"q", b"dp", b"dq", b"qi", b"k"];
    let floor = start.saturating_sub(REACH).max(scan.body.min(start));
    let before = scan.text.get(floor..start).unwrap_or_default();
    let open = memchr::memrchr(b'{', before).map_or(floor, |at| floor + at);
    let most = scan.text.len().min(start + REACH);
    let close = scan.find(b'}', start, most).unwrap_or(most);
    scan.spend(2 * (close - open));
    if scan.spent() {
        return;
    }
    // `kty=OKP crv=Ed25519 d=x`: no object; what follows the word.
    let mut at = if scan.before(start) == Some(b' ') { start } else { open };
    while let Some(colon) = scan.find2(b':', b'=', at, close) {
        let name_end = colon - scan.run_before(colon, at, |b| !b.is_ascii_alphanumeric());
        let len = scan.run_before(name_end, at, u8::is_ascii_alphanumeric);
        let name = scan.slice(name_end - len, name_end);
        let value = value::read(scan, scan.skip_space(colon + 1), value::Reach::Word);
        // `D:"x"`, as Go prints it.
        let name = &*name.to_ascii_lowercase();
        if MEMBERS.contains(&name) && value.end - value.start >= 16 {
            scan.add(value.start, value.end.min(close), Class::KeyBlob);
        }
        at = value.next.max(colon + 1).min(close);
    }
}

/// `334 UGFzc3dvcmQ6`: what a mail server asks for; the answer is in base64.
pub(super) fn at_prompt(scan: &mut Scan<'_>) {
    if scan.cues.next.is_none() {
        scan.cues.next = Some(Cue::Output(Class::Authorization));
    }
}

/// `Private-Lines: 14`, as PuTTY keeps a key.
pub(super) fn at_private_lines(scan: &mut Scan<'_>) {
    scan.cues.next = Some(Cue::Blob(Class::Pem));
}

/// `kubectl get secret x -o jsonpath='…'`, `echo $TOKEN`: the next line is what it printed.
pub(super) fn at_print(scan: &mut Scan<'_>, start: usize, end: usize) {
    /// What the command or the variable must be about.
    const ABOUT: &[&[u8]] = &[
        b"secret",
        b"token",
        b"passw",
        b"pwd",
        b"key",
        b"credential",
        b"rand",
        b"pwgen",
        b"gossip",
    ];
    let near = scan.slice(start.saturating_sub(128).max(scan.body.min(start)), end + 64);
    // `X=$(cat /run/secrets/x)`: prints nothing.
    let before = scan.slice(start.saturating_sub(64).max(scan.body.min(start)), start);
    let open = memchr::memmem::rfind(before, b"$(").or_else(|| memchr::memrchr(b'`', before));
    if open.is_some_and(|open| !before.get(open..).unwrap_or_default().contains(&b')')) {
        return;
    }
    // `SSH_AUTH_SOCK=/run/user/1001/keyring/ssh`
    if scan.before(start) == Some(b'/') && scan.at(end) == Some(b'/') {
        return;
    }
    let near = near.to_ascii_lowercase();
    let about = ABOUT.iter().any(|word| memchr::memmem::find(&near, word).is_some());
    if about && scan.cues.next.is_none() {
        scan.cues.next = Some(Cue::Output(Class::K8sSecret));
    }
}

/// `New value: x`, after the reset of a password: alone in its line, and like no setting.
pub(super) fn at_new_value(scan: &mut Scan<'_>, start: usize, end: usize) {
    let lead = scan.slice(scan.body, start);
    let value = value::read(scan, end, value::Reach::Word);
    let text = scan.slice(value.start, value.end);
    let first = lead.iter().all(u8::is_ascii_whitespace);
    // `standard_d4s_v5`
    let name = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b);
    let setting = text.iter().all(name) && text.iter().any(|b| b"-_.".contains(b));
    let chosen = is_made_up(text) && text.len() >= 8 && !setting;
    let fits = chosen || is_random_word(text) || is_unlike_names(text);
    if first && value.next >= scan.text_end && fits {
        scan.add(value.start, value.end, Class::Password);
        scan.done = scan.done.max(value.end);
    }
}
