//! The members beside the name of a sensitive field, in the same object or list of pairs (R03, R08).

use super::super::judge::{is_field, is_value};
use super::super::key::Key;
use super::super::made_up::{is_made_up, is_random_word};
use super::super::phrase::is_chosen;
use super::super::scan::Scan;
use super::super::value::{self, Reach};
use super::is_name_of_pair;

/// From the name to the ends of its object, bytes.
const REACH: usize = 512;
/// Most members to each side.
const MOST: usize = 12;

/// Ends of the names of members that hold a value of what another member names.
const VALUES: &[&str] = &[
    "value", "val", "old", "new", "from", "to", "before", "after", "current", "previous",
    "default", "input", "received", "actual", "given", "expected", "content", "text", "data",
    "plain", "raw", "got", "want", "wanted", "desired", "found", "had", "has", "second", "right",
    "result", "was", "is", "now",
];

/// `{"field":"password","old":"x","new":"y"}`, `{value: x, sensitive: true, name: PASSWORD}`: what the
/// members are called says that they are values, or what they hold is telling enough.
pub(crate) fn siblings(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    if !is_name_of_pair(scan, key.start) {
        return false;
    }
    let after = members_after(scan, key, at);
    let before = members_before(scan, key);
    after || before
}

fn members_after(scan: &mut Scan<'_>, key: &Key, at: usize) -> bool {
    let limit = (at + REACH).min(scan.text.len());
    // `name=PASSWORD want=x got=y`: blanks alone divide the pairs.
    let quotes = scan.run_before(key.start, scan.body.min(key.start), |b| b"\"'\\".contains(b));
    let blanks = scan.before(key.start - quotes) == Some(b'=') && scan.at(at) != Some(b',');
    let mut from = at;
    let mut found = false;
    for _ in 0..MOST {
        from = scan.skip_space(from);
        if blanks {
            from -= 1;
        } else if scan.at(from) != Some(b',') {
            break;
        }
        let Some((name, sign)) = name_at(scan, scan.skip_space(from + 1)) else { break };
        if blanks && scan.at(sign) != Some(b'=') {
            break;
        }
        let start = scan.skip_space(sign + 1);
        if start >= limit || matches!(scan.at(start), Some(b'{' | b'[')) {
            break;
        }
        let value = value::read(scan, start, Reach::Word);
        found |= take(scan, key, name, value);
        from = value.next.max(start);
        // `want=""`
        if blanks
            && from == start
            && let Some((slashes, quote)) = value::quote_at(scan, start)
        {
            from = value::quoted(scan, start, slashes, quote).next;
        }
        // `rootBeanClass=class A`: up to the next member.
        if !value.quoted && !blanks {
            from += scan.run(from, 48, |b| !b",)]}\"".contains(b));
        }
    }
    found
}

/// From the brace before the name on.
fn members_before(scan: &mut Scan<'_>, key: &Key) -> bool {
    let floor = key.start.saturating_sub(REACH).max(scan.body.min(key.start));
    let before = scan.slice(floor, key.start);
    scan.spend(before.len() / 8);
    let Some(open) = memchr::memrchr2(b'{', b'(', before).map(|open| floor + open) else {
        return false;
    };
    let mut from = open;
    let mut found = false;
    let mut members = [None; MOST];
    for room in &mut members {
        let Some((name, sign)) = name_at(scan, scan.skip_space(from + 1)) else { break };
        let start = scan.skip_space(sign + 1);
        if start >= key.start || matches!(scan.at(start), Some(b'{' | b'[')) {
            break;
        }
        let value = value::read(scan, start, Reach::Word);
        if value.next > key.start {
            // A text that speaks of the key is no name of a field.
            let lead = scan.slice(value.start, key.start.max(value.start));
            if lead.iter().any(|b| b" \n\\".contains(b)) {
                return false;
            }
            break;
        }
        *room = Some((name, value));
        from = scan.skip_space(value.next.max(start));
        // Another object, which was closed before the key.
        if matches!(scan.at(from), Some(b'}')) {
            return false;
        }
        if scan.at(from) != Some(b',') {
            break;
        }
    }
    for (name, value) in members.into_iter().flatten() {
        found |= take(scan, key, name, value);
    }
    found
}

/// The name of the member at `at`, quoted or not, and where its sign is.
fn name_at<'a>(scan: &Scan<'a>, at: usize) -> Option<(&'a [u8], usize)> {
    let start = value::quote_at(scan, at).map_or(at, |(slashes, _)| at + slashes + 1);
    let len = scan.run(start, 48, |b| b.is_ascii_alphanumeric() || b"_-.".contains(b));
    let end = start + len;
    let close = value::quote_at(scan, end).map_or(end, |(slashes, _)| end + slashes + 1);
    let sign = scan.skip_space(close);
    (len > 0 && matches!(scan.at(sign), Some(b':' | b'='))).then(|| (scan.slice(start, end), sign))
}

fn take(scan: &mut Scan<'_>, key: &Key, name: &[u8], value: value::Value) -> bool {
    let text = scan.slice(value.start, value.end);
    let folded = name.to_ascii_lowercase();
    let called = VALUES.iter().any(|end| {
        folded.strip_suffix(end.as_bytes()).is_some_and(|rest| {
            let first = name.get(rest.len()).is_some_and(u8::is_ascii_uppercase);
            rest.is_empty()
                || first
                || rest.ends_with(b"_")
                || rest.ends_with(b"-")
                || end.len() > 4
        })
    });
    // A sentence is said of the field.
    let spoken = text.iter().filter(|&&b| b == b' ').count() >= 3;
    let telling = is_made_up(text) || is_chosen(text) || is_random_word(text);
    let fits = called && !spoken && !is_field(text) && (value.quoted || telling);
    if fits && is_value(scan, key, text) {
        scan.accept(key, value);
        return true;
    }
    false
}
