//! The second engine: looks at what the first one let through.
//!
//! It shares no code with the first: one regular expression in linear time over the whole block,
//! and a few checks of its own. It knows fewer secrets, only those that are certain, since a hit
//! costs the customer's support engineer the whole stream.

use std::sync::LazyLock;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// Something that looks like a secret was left in the output. The stream must be quarantined: not
/// sent, and its absence declared. Says which pattern and where, never what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "redacted output still holds what looks like a {pattern} at byte {offset}; leave this stream out"
)]
pub struct Leak {
    /// Name of the pattern.
    pub pattern: &'static str,
    /// Offset in the scanned bytes.
    pub offset: usize,
}

/// What a hit of a pattern must also be.
#[derive(Clone, Copy)]
enum Proof {
    None,
    /// Last group of the match has this entropy, bits a byte.
    Entropy(f64),
}

struct Pattern {
    name: &'static str,
    regex: &'static str,
    proof: Proof,
}

const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "private key",
        regex: r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:\\+[nr]|\s|(?:Proc-Type|DEK-Info):[^\n]{1,80})*[A-Za-z0-9+/=]{32}",
        proof: Proof::None,
    },
    Pattern {
        name: "JSON web token",
        regex: r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.",
        proof: Proof::None,
    },
    Pattern {
        name: "vendor token",
        regex: r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bglpat-[A-Za-z0-9_-]{20}|\bxox[abprs]-[A-Za-z0-9-]{20}|\bnpm_[A-Za-z0-9]{36}",
        proof: Proof::None,
    },
    Pattern {
        name: "Entra client secret",
        regex: r"\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}\b",
        proof: Proof::None,
    },
    Pattern {
        name: "password in a URL",
        regex: r"[a-z0-9]://[^\s/:@\x22'\[<>]{1,64}:[^\s/@\x22'\[<>]{3,128}@[A-Za-z0-9.-]",
        proof: Proof::None,
    },
    Pattern {
        name: "account key",
        regex: r"(?i-u:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40}",
        proof: Proof::None,
    },
    Pattern {
        name: "password",
        regex: r"(?i-u:password|passwd|passphrase|secret|api_?key|access_?token|client_?secret)\\{0,7}[\x22']?\s?[=:]\s?\\{0,7}[\x22']?[A-Za-z0-9+/_!@#$%^&*~.-]{12,128}",
        proof: Proof::Entropy(3.5),
    },
];

/// Size limits of the compiled expression, bytes: patterns are ours, growth would be a mistake.
const COMPILED_LIMIT: usize = 4 * 1024 * 1024;

static REGEX: LazyLock<Result<Regex, String>> = LazyLock::new(|| {
    let patterns: Vec<&str> = PATTERNS.iter().map(|pattern| pattern.regex).collect();
    Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(
            Regex::config()
                .utf8_empty(false)
                .nfa_size_limit(Some(COMPILED_LIMIT))
                .hybrid_cache_capacity(COMPILED_LIMIT),
        )
        .build_many(&patterns)
        .map_err(|error| error.to_string())
});

/// Scans redacted output. Give it blocks that end at a line end, or the whole stream.
///
/// # Errors
/// [`Leak`] at the first hit.
pub fn scan_output(bytes: &[u8]) -> Result<(), Leak> {
    let Ok(regex) = &*REGEX else {
        // Can't happen with the patterns above (tested); if it does, nothing gets out.
        return Err(Leak { pattern: "anything, since the scanner did not start", offset: 0 });
    };
    let mut from = 0;
    while from < bytes.len() {
        let input = regex_automata::Input::new(bytes).range(from..);
        let Some(hit) = regex.search(&input) else { return Ok(()) };
        let Some(pattern) = PATTERNS.get(hit.pattern().as_usize()) else { return Ok(()) };
        let text = bytes.get(hit.range()).unwrap_or_default();
        let certain = match pattern.proof {
            Proof::None => true,
            Proof::Entropy(least) => is_random(text, least),
        };
        if certain {
            return Err(Leak { pattern: pattern.name, offset: hit.start() });
        }
        from = hit.end().max(from + 1);
    }
    Ok(())
}

/// Whether the word at the end of `text` has at least `least` bits a byte, digits and both cases.
fn is_random(text: &[u8], least: f64) -> bool {
    let word = text.iter().rev().take_while(|b| !b" \"'=:\\".contains(b)).count();
    let word = text.get(text.len() - word..).unwrap_or_default();
    let mut sorted = word.to_vec();
    sorted.sort_unstable();
    let total = sorted.len() as f64;
    let bits: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|same| {
            let share = same.len() as f64 / total;
            share * -share.log2()
        })
        .sum();
    bits >= least
        && word.iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_uppercase)
        && word.iter().any(u8::is_ascii_lowercase)
}
