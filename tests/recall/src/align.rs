//! Which bytes of a text its redaction hid.

/// Pieces of a redacted text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'o> {
    Kept(&'o str),
    Placeholder,
}

/// For each byte of `text`, whether `out`, its redaction, has a placeholder for it. Where a
/// placeholder could stand for more or for less, it is taken to stand for less.
pub(crate) fn hidden(text: &str, out: &str) -> Vec<bool> {
    let pieces = pieces(out);
    // From the end: at which offsets of the text the rest of the pieces can begin.
    let mut begins = vec![vec![false; text.len() + 1]; pieces.len() + 1];
    begins[pieces.len()][text.len()] = true;
    for (index, piece) in pieces.iter().enumerate().rev() {
        let (here, after) = begins.split_at_mut(index + 1);
        let (here, after) = (&mut here[index], &after[0]);
        match piece {
            Piece::Kept(kept) => {
                for (at, here) in here.iter_mut().enumerate() {
                    *here = after.get(at + kept.len()) == Some(&true)
                        && text.as_bytes()[at..].starts_with(kept.as_bytes());
                }
            }
            Piece::Placeholder => {
                let mut possible = false;
                for at in (0..text.len()).rev() {
                    possible |= after[at + 1];
                    here[at] = possible;
                }
            }
        }
    }
    let mut hidden = vec![false; text.len()];
    let mut at = 0;
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Kept(kept) => at += kept.len(),
            Piece::Placeholder => {
                let end = (at + 1..=text.len()).find(|&end| begins[index + 1][end]);
                let end = end.unwrap_or(text.len());
                hidden[at..end].fill(true);
                at = end;
            }
        }
    }
    hidden
}

fn pieces(out: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = out;
    let mut from = 0;
    while let Some(found) = rest[from..].find("[R:") {
        let at = from + found;
        let Some(len) = placeholder(&rest[at..]) else {
            from = at + 1;
            continue;
        };
        if at > 0 {
            pieces.push(Piece::Kept(&rest[..at]));
        }
        pieces.push(Piece::Placeholder);
        rest = &rest[at + len..];
        from = 0;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Kept(rest));
    }
    pieces
}

/// Classes of the placeholders in a redacted text.
pub(crate) fn classes(out: &str) -> impl Iterator<Item = &str> {
    out.match_indices("[R:").filter_map(|(at, _)| {
        let text = out.get(at..)?;
        placeholder(text)?;
        text.get("[R:".len()..)?.split(':').next()
    })
}

/// Length of the placeholder that `text` begins with.
fn placeholder(text: &str) -> Option<usize> {
    let (name, rest) = text.strip_prefix("[R:")?.split_once(':')?;
    let named = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let hex = rest.get(..8)?;
    let hashed = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (named && hashed && rest[8..].starts_with(']')).then_some("[R:".len() + name.len() + 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, out: &str) -> String {
        let hidden = hidden(text, out);
        text.bytes().zip(hidden).map(|(b, h)| if h { '#' } else { char::from(b) }).collect()
    }

    #[test]
    fn placeholders_stand_for_what_is_missing() {
        assert_eq!(shown("a b", "a b"), "a b");
        assert_eq!(shown("pw=abc;x", "pw=[R:password:01234567];x"), "pw=###;x");
        assert_eq!(shown("abc", "[R:line:01234567]"), "###");
        let two = "a=[R:key:01234567] b=[R:key:01234567]";
        assert_eq!(shown("a=1 b=22 b=3", two), "a=# b=######", "the end has to fit");
        assert_eq!(shown("x [R:] y", "x [R:] y"), "x [R:] y");
    }
}
