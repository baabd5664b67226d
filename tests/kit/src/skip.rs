//! Tests that can't run here say so, loudly, instead of passing in silence.

use std::io::Write as _;

/// Prints `SKIP <test>: <reason>` to standard error, past the capture of the test runner, so that a
/// report can count it. The test is named by its thread, as libtest does.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed test");
    // Written directly: `eprintln!` would be captured and shown only when the test fails.
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {reason}");
}
