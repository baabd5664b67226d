//! What one redactor holds, counted by an allocator that sees every byte: this is why it is a test binary
//! of its own, with one test.

use mendix_agent_redact::{MAX_LINE, MEMORY_BOUND, Redaction, Redactor, SnapshotKey};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// How the agent reads a log.
const CHUNK: usize = 16 * 1024;
/// Room for all that comes out. It is the caller's, and does not grow here.
const OUT: usize = 16 * MAX_LINE;

/// What lines are made of whose copies are as large as copies get: what stands before the repeated part,
/// and that.
const HOSTILE: &[(&str, &str)] = &[
    ("", "x"),
    // Every other byte is an escape, or stands for one.
    ("", "a\u{1b}"),
    ("", "a\u{a0}"),
    ("", "\u{1b}[m\u{200b}"),
    ("", "%41"),
    ("", "a%41"),
    ("", "%252541"),
    ("", "\\u0041"),
    ("", "\\x41a"),
    ("", "&amp;"),
    ("", "a%25254\u{1b}1"),
    ("", "%2525\u{a0}\\u0041"),
    // The same as the value of a key, which is read once more to be hashed.
    ("password=", "a\u{1b}"),
    ("password=\"", "a\u{a0}"),
    ("password=", "%252541"),
    ("password=\"", "a%25254\u{1b}1"),
    ("Authorization: Bearer ", "%41\u{1b}"),
    ("postgres://a:", "%25\u{1b}"),
    ("{\"kind\":\"Secret\",\"data\":{\"a\":\"", "%41\u{a0}"),
    ("-----BEGIN PRIVATE KEY-----", "%2f\u{1b}"),
    // As many spans as there can be.
    ("", "a@b.nl "),
    ("", "key=a1b2c3d4 "),
    ("", "10.1.2.3 "),
    ("", "4111111111111111 "),
    ("", "%70assword=a1b2c3d4\u{1b} "),
    ("", "[R:key:12345678]"),
    ("insert into t (password) values ", "('a1b2c3d4'),"),
    ("password", ",password"),
];

fn line((head, unit): (&str, &str), len: usize) -> Vec<u8> {
    let mut line = head.to_owned() + &unit.repeat((len - head.len()) / unit.len());
    line.push('\n');
    line.into_bytes()
}

/// Most bytes that a redactor held at once while it read this.
fn held(redaction: &Redaction, input: &[u8], out: &mut Vec<u8>) -> usize {
    out.clear();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut redactor = Redactor::new(redaction);
    // Input that is no text is refused, and that is an end like another.
    let read = input.chunks(CHUNK).try_for_each(|chunk| redactor.push(chunk, out));
    let _ended = read.and_then(|()| redactor.finish(out));
    let held = HEAP.peak_usage() - before;
    assert_eq!(out.capacity(), OUT, "what came out is not counted");
    held
}

#[test]
fn no_input_makes_a_redactor_hold_more_than_it_may() {
    let redaction = Redaction::from(SnapshotKey::new([7; 32]));
    let mut out = Vec::with_capacity(OUT);
    // What is made once for all redactors is made now.
    for hostile in HOSTILE {
        held(&redaction, &line(*hostile, 1024), &mut out);
    }
    let mut most = (0, String::new());
    let mut check = |what: String, input: &[u8]| {
        let held = held(&redaction, input, &mut out);
        assert!(held <= MEMORY_BOUND, "{what}: {held} bytes, the bound is {MEMORY_BOUND}");
        if held > most.0 {
            most = (held, what);
        }
    };
    for hostile in HOSTILE {
        check(format!("a line of {hostile:?}"), &line(*hostile, MAX_LINE));
    }
    // What lines leave behind: one after another, each as long as may be; one that has no end; and many
    // short ones, each with a secret of its own.
    let several: Vec<u8> = HOSTILE[1..4].iter().flat_map(|it| line(*it, MAX_LINE)).collect();
    check("lines one after another".into(), &several);
    let endless = "password=a1b2c3d4 ".repeat(2 * MEMORY_BOUND / 18);
    check("an endless line".into(), endless.as_bytes());
    let many: String =
        (0..4000).map(|n| format!("user u{n}@example.nl password=a1b2c3d4{n}\n")).collect();
    check("many secrets".into(), many.as_bytes());

    println!("at most {} bytes, {} lines' worth: {}", most.0, most.0 / MAX_LINE, most.1);
    assert!(most.0 > 4 * MAX_LINE, "nothing was hostile, or nothing was counted: {most:?}");
}
