//! Redaction, through its public face alone: total, independent of how the stream was cut, bounded,
//! and a value after `password=` never comes out.

use mendix_agent_core::redact::{Redaction, Redactor, SnapshotKey, scan_output};

use crate::input::Input;

/// Nothing that a rule about its shape would find: only its key gives it away.
const CANARY: &str = "kestrelmauve7vantage";
/// A placeholder, `[R:class:8hex]`, is at most this long; a value may have one character.
const PLACEHOLDER: usize = 32;

/// A log with a password in a line of its own, after anything.
pub fn redactor(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let cut = usize::from(input.byte()) + 1;
    let style = input.byte();
    let before = input.framed();
    let after = input.rest();
    // A fuzzer learns the word by comparing with it, and may say it where no key gives it away.
    if [before, after].iter().any(|text| contains(text, CANARY.as_bytes())) {
        return false;
    }
    let (open, close) = match style % 4 {
        0 => ("password=", ""),
        1 => ("password=\"", "\""),
        2 => ("\"password\":\"", "\""),
        _ => ("password: ", ""),
    };
    let planted = format!("\n{open}{CANARY}{close}\n");
    let log = [before, planted.as_bytes(), after].concat();

    let redaction = Redaction::from(SnapshotKey::new([5; 32]));
    let whole = redacted(&redaction, &log, log.len());
    let pieces = redacted(&redaction, &log, cut);
    assert_eq!(whole.is_some(), pieces.is_some(), "refusal depends on the cuts");
    let (Some(whole), Some(pieces)) = (whole, pieces) else { return false };
    assert!(whole == pieces, "the result depends on the cuts");
    assert!(!contains(&whole, CANARY.as_bytes()), "{}", String::from_utf8_lossy(&whole));
    // Bytes that are no UTF-8 become a replacement character of three.
    assert!(whole.len() <= log.len().saturating_mul(PLACEHOLDER), "{} bytes", whole.len());
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines(&whole) <= lines(&log) + 1, "lines were added");
    // The second engine takes any text; whether it objects is for the stream's reader.
    let _ = scan_output(&whole);
    let _ = scan_output(&log);
    true
}

fn redacted(redaction: &Redaction, log: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut redactor = Redactor::new(redaction);
    let mut out = Vec::new();
    for chunk in log.chunks(cut.max(1)) {
        redactor.push(chunk, &mut out).ok()?;
    }
    redactor.finish(&mut out).ok()?;
    Some(out)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
