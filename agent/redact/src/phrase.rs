//! What people and generators put together: phrases of words, and words that no name is made like (R10).

use super::near;
use super::words::{COMMON, PARTS, PLAIN};

/// `correct-horse-battery`: three words or more with one sign between them, none of which is a part of
/// the names that software gives its objects. Still to be announced: towns have names like that, too.
pub(super) fn is_phrase(text: &[u8]) -> bool {
    /// Shortest and longest word, and fewest and most of them.
    const WORD: std::ops::RangeInclusive<usize> = 3..=14;
    const WORDS: std::ops::RangeInclusive<usize> = 3..=8;
    let Some(sign) = text.iter().copied().find(|b| matches!(b, b'-' | b'_' | b'.' | b'+')) else {
        return false;
    };
    let words = || text.split(|&b| b == sign);
    let word = |word: &[u8]| {
        let digits = word.iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let letters = word.get(..word.len() - digits).unwrap_or_default();
        let rest = letters.get(1..).unwrap_or_default();
        WORD.contains(&letters.len())
            && digits <= 4
            && letters.first().is_some_and(u8::is_ascii_alphabetic)
            && rest.iter().all(u8::is_ascii_lowercase)
            && letters.iter().any(|b| b"aeiouyAEIOUY".contains(b))
    };
    let common = |word: &&[u8]| {
        let letters = word.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let letters = word.get(..letters).unwrap_or_default();
        PARTS.has(letters) || PLAIN.has(letters)
    };
    // One word of four may be one that software uses, too.
    let (count, taken) = (words().count(), words().filter(common).count());
    WORDS.contains(&count) && words().all(word) && (taken == 0 || taken == 1 && count >= 4)
        || is_grouped(text)
}

/// `qdeu-etxa-ecch-meov`, `7K2M-PX4Q-9TRV`, `xqwert-hbnmop-Zkl3fg`: groups of one length, as generators make
/// passwords and codes to type in, with one at least that no language has.
pub(super) fn is_grouped(text: &[u8]) -> bool {
    const GROUP: std::ops::RangeInclusive<usize> = 4..=6;
    const GROUPS: std::ops::RangeInclusive<usize> = 3..=8;
    let groups = || text.split(|&b| b == b'-');
    let len = groups().next().map_or(0, <[u8]>::len);
    let odd = |group: &[u8]| {
        let digits = group.iter().filter(|b| b.is_ascii_digit()).count();
        let vowels = group.iter().filter(|b| b"aeiouyAEIOUY".contains(b)).count();
        (digits > 0 && digits < group.len() || digits == 0 && vowels == 0) && !PARTS.has(group)
    };
    GROUP.contains(&len)
        && GROUPS.contains(&groups().count())
        && groups().all(|group| group.len() == len && group.iter().all(u8::is_ascii_alphanumeric))
        && groups().any(odd)
}

/// A word as no host, pod, file or version is called: three kinds of letters with a sign that names do
/// not have, or letters and digits in turn again and again.
pub(super) fn is_unlike_names(text: &[u8]) -> bool {
    // `bash-5.1$`, `app@pod:~#`: where a command is typed.
    if matches!(text.last(), Some(b'$' | b'#' | b'%')) {
        return false;
    }
    let has = |test: fn(&u8) -> bool| text.iter().any(test);
    let sign = has(|b| b"!#$%^&*?@".contains(b));
    let kinds = usize::from(has(u8::is_ascii_lowercase))
        + usize::from(has(u8::is_ascii_uppercase))
        + usize::from(has(u8::is_ascii_digit));
    let foreign = has(|b| b"=/\\()[]{}<>\"'`|:,;".contains(b));
    let variable = matches!(text.first(), Some(b'$' | b'%' | b'&' | b'#' | b'@' | b'*'));
    (6..=64).contains(&text.len()) && !foreign && sign && !variable && kinds >= 2
        || is_scrambled(text)
        || is_mixed(text)
        || is_grouped(text)
}

/// `vT-3mBq_9z`: letters and digits in turn, and a capital right after a small letter.
fn is_mixed(text: &[u8]) -> bool {
    let pairs = |test: fn(u8, u8) -> bool| {
        text.windows(2).filter(|w| matches!(w, [a, b] if test(*a, *b))).count()
    };
    let turns = pairs(|a, b| {
        a.is_ascii_digit() && b.is_ascii_alphabetic()
            || a.is_ascii_alphabetic() && b.is_ascii_digit()
    });
    (8..=64).contains(&text.len())
        && turns >= 2
        && pairs(|a, b| a.is_ascii_lowercase() && b.is_ascii_uppercase()) >= 1
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && text.split(|b| !b.is_ascii_lowercase()).all(|run| run.len() < 4)
}

/// Letters and digits in turn, three times or more, and no digits of a number in hexadecimal.
pub(super) fn is_scrambled(text: &[u8]) -> bool {
    let turns = text
        .windows(2)
        .filter(|w| matches!(w, [a, b] if a.is_ascii_digit() != b.is_ascii_digit()))
        .count();
    (8..=64).contains(&text.len())
        && turns >= 3
        && text.iter().all(u8::is_ascii_alphanumeric)
        && text.iter().any(|b| b.is_ascii_alphabetic() && !b.is_ascii_hexdigit())
}

/// A word that people chose: a phrase, one of those chosen again and again, or six digits and more.
pub(super) fn is_chosen(text: &[u8]) -> bool {
    let digits = (6..=12).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits || COMMON.has(text) || is_phrase(text)
}

/// Letters alone, with so many capitals in such places as no name has them: right after a word that
/// announces a password.
pub(super) fn is_jagged(text: &[u8]) -> bool {
    let count = |test: fn(&u8) -> bool| text.iter().filter(|b| test(b)).count();
    let (upper, lower) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    upper >= 3
        && lower >= 3
        && upper + lower >= 8
        && upper * 4 >= upper + lower
        && text.iter().all(|b| b.is_ascii_alphabetic() || b"-_".contains(b))
        && (!text.windows(3).any(|w| w.iter().all(u8::is_ascii_uppercase)) || near::is_scrawl(text))
}
