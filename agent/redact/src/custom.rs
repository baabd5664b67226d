//! R40: patterns of the customer, from `LogSharingPolicy.spec.extraPatterns`.
//!
//! Regular expressions of a linear-time engine (no look-around, no back-references), compiled once
//! when the policy is read and run over every line of a snapshot. What the pattern matches goes; if it
//! has capturing groups, only what they match. A pattern that can't be used refuses the whole policy:
//! a customer who asks for something to be hidden must not find out afterwards that it was not.
//!
//! Letters and classes are ASCII unless the pattern says `(?u)`; case counts unless it says `(?i)`.
//! Lines are matched one by one, without their time stamp and line end: `^` and `$` are their edges.

use std::{fmt, ops::Range};

use regex_automata::{
    MatchKind, PatternSet,
    meta::{BuildError, Regex},
    util::syntax,
};

use super::{Class, Finder};

/// Most patterns of a policy.
pub const MAX_PATTERNS: usize = 32;
/// Longest pattern, bytes.
pub const MAX_PATTERN_LEN: usize = 512;
/// Largest compiled form of one pattern, bytes. `(?u)\w{100}` is over it.
const PATTERN_LIMIT: usize = 256 * 1024;
/// Largest compiled form of all patterns together, bytes.
const TOTAL_LIMIT: usize = 1024 * 1024;
/// Memory for states that are made while matching, bytes, for each pattern and once for all together.
const STATES: usize = 256 * 1024;
/// Bytes that one pattern may search in one line. A search is linear, but every match begins another
/// one, which may read up to the end of the line: `x|.*y` on a line of `x` alone. After that the rest of
/// the line goes. Lines up to 8 KiB never get there.
const SEARCHED: usize = 64 * 1024 * 1024;

/// Why a list of patterns can't be used. Nothing is to be sent while the policy holds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// More than [`MAX_PATTERNS`].
    #[error("extraPatterns: {count} patterns, at most {MAX_PATTERNS} are taken; join some with |")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Longer than [`MAX_PATTERN_LEN`].
    #[error("extraPatterns[{index}]: {len} bytes, at most {MAX_PATTERN_LEN} are taken; split it")]
    TooLong {
        /// Which, from 0.
        index: usize,
        /// Its length, bytes.
        len: usize,
    },
    /// Not a regular expression of the engine.
    #[error("extraPatterns[{index}]: {problem}; see docs/redaction.md for the syntax")]
    Syntax {
        /// Which, from 0.
        index: usize,
        /// What the parser says, one line.
        problem: String,
    },
    /// It matches where there is nothing, so everywhere.
    #[error(
        "extraPatterns[{index}]: matches the empty text, so every place of every line; ask for at \
         least one character"
    )]
    MatchesNothing {
        /// Which, from 0.
        index: usize,
    },
    /// Its automaton is too large.
    #[error(
        "extraPatterns[{index}]: larger than {limit} bytes when compiled; repeat less often, or \
         use ASCII classes"
    )]
    TooLarge {
        /// Which, from 0.
        index: usize,
        /// The limit it is over, bytes.
        limit: usize,
    },
    /// Each is small enough, all together are not.
    #[error(
        "extraPatterns: larger than {TOTAL_LIMIT} bytes when compiled together; use fewer or \
         simpler ones"
    )]
    TooLargeTogether,
}

/// Compiled patterns; cloning shares them. Without any, nothing is matched.
#[derive(Clone, Default)]
pub struct CustomPatterns {
    /// Says which patterns match somewhere in a line, in one pass. None: there is no pattern.
    any: Option<Regex>,
    each: Vec<Regex>,
}

impl fmt::Debug for CustomPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomPatterns").field("patterns", &self.each.len()).finish_non_exhaustive()
    }
}

impl CustomPatterns {
    /// Compiles a policy's patterns.
    ///
    /// # Errors
    /// [`PatternError`] for the first that can't be used.
    pub fn compile(patterns: &[String]) -> Result<Self, PatternError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(PatternError::TooMany { count: patterns.len() });
        }
        let each = patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| compile_one(index, pattern))
            .collect::<Result<Vec<_>, _>>()?;
        let any = if each.is_empty() {
            None
        } else {
            let together = build(patterns, TOTAL_LIMIT, MatchKind::All);
            Some(together.map_err(|_| PatternError::TooLargeTogether)?)
        };
        Ok(Self { any, each })
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }
}

fn compile_one(index: usize, pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > MAX_PATTERN_LEN {
        return Err(PatternError::TooLong { index, len: pattern.len() });
    }
    let regex =
        build(&[pattern], PATTERN_LIMIT, MatchKind::LeftmostFirst).map_err(|error| match error
            .syntax_error()
        {
            // The parser draws the pattern first and says what is wrong with it last.
            Some(error) => {
                let text = error.to_string();
                let problem = text.lines().last().unwrap_or_default();
                let problem = problem.strip_prefix("error: ").unwrap_or(problem).to_owned();
                PatternError::Syntax { index, problem }
            }
            None => PatternError::TooLarge { index, limit: PATTERN_LIMIT },
        })?;
    if regex.is_match("") {
        return Err(PatternError::MatchesNothing { index });
    }
    Ok(regex)
}

fn build<P: AsRef<str>>(
    patterns: &[P],
    limit: usize,
    kind: MatchKind,
) -> Result<Regex, Box<BuildError>> {
    Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(
            Regex::config()
                .match_kind(kind)
                .utf8_empty(false)
                .nfa_size_limit(Some(limit))
                .hybrid_cache_capacity(STATES),
        )
        .build_many(patterns)
        .map_err(Box::new)
}

impl Finder for CustomPatterns {
    fn class(&self) -> Class {
        Class::Custom
    }

    fn find(&self, text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
        let Some(any) = self.any.as_ref().filter(|any| any.is_match(text)) else { return };
        // A group may match where there is nothing, even in the middle of a character.
        let mut take = |range: Range<usize>| {
            if !range.is_empty() {
                found(whole_characters(text, range));
            }
        };
        // Matches of two patterns may overlap, so each looks for itself where it has something.
        let mut matching = PatternSet::new(self.each.len());
        any.which_overlapping_matches(&text.into(), &mut matching);
        for index in matching.iter() {
            let Some(regex) = self.each.get(index.as_usize()) else { continue };
            // Each search may read to the end of the line before it takes less.
            let mut left = SEARCHED;
            let mut spent = |from: usize| {
                left = left.saturating_sub(text.len() - from.min(text.len()));
                left == 0
            };
            let groups = regex.group_info().all_group_len() > 1;
            if !groups {
                for hit in regex.find_iter(text) {
                    if spent(hit.start()) {
                        take(hit.start()..text.len());
                        break;
                    }
                    take(hit.range());
                }
                continue;
            }
            for captures in regex.captures_iter(text) {
                if let Some(hit) = captures.get_match()
                    && spent(hit.start())
                {
                    take(hit.start()..text.len());
                    break;
                }
                let mut inside = captures.iter().skip(1).flatten().peekable();
                if inside.peek().is_none() {
                    // An alternative without a group.
                    if let Some(hit) = captures.get_match() {
                        take(hit.range());
                    }
                }
                for group in inside {
                    take(group.start..group.end);
                }
            }
        }
    }
}

/// The same range, widened to whole characters of UTF-8: `.` is a byte.
fn whole_characters(text: &[u8], range: Range<usize>) -> Range<usize> {
    let inside = |at: usize| text.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let (mut start, mut end) = (range.start, range.end);
    while start > 0 && range.start - start < 3 && inside(start) {
        start -= 1;
    }
    while end - range.end < 3 && inside(end) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(patterns: &[&str]) -> Result<CustomPatterns, PatternError> {
        CustomPatterns::compile(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    fn found(patterns: &[&str], text: &str) -> Vec<String> {
        let mut hits = vec![];
        compile(patterns).expect("patterns").find(text.as_bytes(), &mut |range| {
            hits.push(text[range].to_owned());
        });
        hits
    }

    #[test]
    fn the_match_goes_or_only_its_groups() {
        assert_eq!(
            found(&[r"POL-\d{6}"], "a POL-123456, POL-654321"),
            ["POL-123456", "POL-654321"]
        );
        assert_eq!(found(&[r"dossier (\d+)/(\w+)"], "dossier 12/ab and dossier x"), ["12", "ab"]);
        assert_eq!(found(&[r"a(\d)|b\d"], "a1 b2"), ["1", "b2"]);
        assert_eq!(found(&["(?i)klant"], "Klant klant"), ["Klant", "klant"]);
        assert_eq!(found(&["^x$"], "x"), ["x"]);
        assert_eq!(found(&["^x$"], "xx"), [""; 0]);
        assert_eq!(found(&[], "anything"), [""; 0]);
    }

    #[test]
    fn overlapping_patterns_both_count() {
        assert_eq!(found(&["abc", "cde"], "abcde"), ["abc", "cde"]);
    }

    #[test]
    fn a_byte_of_a_character_takes_the_character() {
        assert_eq!(found(&["x."], "xé€"), ["xé"]);
        assert_eq!(found(&["(?u)caf."], "café"), ["café"]);
    }

    #[test]
    fn a_group_without_anything_in_it_takes_nothing() {
        assert_eq!(found(&["]?.()"], "é"), [""; 0]);
        assert_eq!(found(&["x(y?)"], "x xy"), ["y"]);
    }

    #[test]
    fn errors_say_which_pattern_and_what_to_do() {
        let message = |patterns: &[&str]| compile(patterns).expect_err("refused").to_string();
        assert_eq!(
            message(&["ok", "a(b"]),
            "extraPatterns[1]: unclosed group; see docs/redaction.md for the syntax"
        );
        assert!(message(&[r"(a)\1"]).contains("backreferences are not supported"));
        assert!(message(&["(?=a)"]).contains("look-around"));
        assert!(message(&["x*"]).starts_with("extraPatterns[0]: matches the empty text"));
        assert!(message(&[""]).starts_with("extraPatterns[0]: matches the empty text"));
        assert!(message(&[&"a".repeat(513)]).starts_with("extraPatterns[0]: 513 bytes"));
        assert_eq!(compile(&["a"; 33]).expect_err("refused"), PatternError::TooMany { count: 33 });
        let bomb = r"((\w{1,40}){1,40}){1,40}";
        assert_eq!(
            compile(&[bomb]).expect_err("refused"),
            PatternError::TooLarge { index: 0, limit: PATTERN_LIMIT }
        );
        let large = "[a-z]{1500}";
        assert!(compile(&[large]).is_ok());
        assert_eq!(compile(&[large; 32]).expect_err("refused"), PatternError::TooLargeTogether);
    }

    #[test]
    fn a_pattern_made_to_backtrack_reads_a_line_once() {
        // A backtracking engine needs 2^n steps for this.
        let text = "a".repeat(200_000);
        assert_eq!(found(&["(a+)+$b", "(a|aa)+c"], &text), [""; 0]);
    }

    #[test]
    fn a_pattern_made_to_search_the_line_again_for_each_match_takes_the_rest_of_it() {
        let text = "x".repeat(200_000);
        let hits = found(&["x|.*y"], &text);
        let searched: usize = (0..hits.len()).map(|at| text.len() - at).sum();
        assert!(searched <= SEARCHED + text.len(), "{} searches", hits.len());
        assert_eq!(hits.iter().map(String::len).sum::<usize>(), text.len());
        // A line of ordinary length is matched to its end.
        assert_eq!(found(&["x|.*y"], &text[..4096]).len(), 4096);
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic_and_every_span_lies_in_the_text(
            pattern in r"[a-c.()|+?*\\^$\[\]{}1,]{1,12}", text in "[a-cé1 ]{0,40}",
        ) {
            if let Ok(patterns) = CustomPatterns::compile(&[pattern]) {
                patterns.find(text.as_bytes(), &mut |range| {
                    assert!(text.get(range).is_some_and(|taken| !taken.is_empty()));
                });
            }
        }
    }
}
