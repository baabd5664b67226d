//! Request bodies: R38. What a client sent is the customer's data as a whole, whatever its members are
//! called.

use super::Class;
use super::members;
use super::scan::Scan;
use super::value;

/// After `request body`, `requestBody`, `form data`: the string, object or list that follows, or, after a
/// sign, the rest of the line.
pub(super) fn at_body(scan: &mut Scan<'_>, start: usize, end: usize) {
    if start < scan.done || scan.in_placeholder(start) {
        return;
    }
    let mut at = end;
    if let Some((slashes, _)) = value::quote_at(scan, at) {
        at += slashes + 1;
    }
    at = scan.skip_space(at);
    let signed = matches!(scan.at(at), Some(b':' | b'=' | b'>'));
    at += scan.run(at, 4, |b| matches!(b, b':' | b'=' | b'>' | b'-'));
    let at = scan.skip_space(at);
    if let Some((slashes, quote)) = value::quote_at(scan, at) {
        let value = value::quoted(scan, at, slashes, quote);
        if signed && !value::is_nothing(scan.slice(value.start, value.end)) {
            scan.add(value.start, value.end, Class::Body);
        }
        return;
    }
    let close = match scan.at(at) {
        Some(b'{') => members::matching(scan, at, b'{', b'}'),
        Some(b'[') if super::placeholder::end_at(scan.text, at).is_none() => {
            members::matching(scan, at, b'[', b']')
        }
        _ => return,
    };
    // One that does not end on its line goes up to the line's end.
    let close = close.unwrap_or(scan.text_end);
    if signed && close > at + 1 {
        // Other rules read it as well: a bracket inside of a string may have closed it too early.
        scan.add(at + 1, close, Class::Body);
    }
}
