//! Which records of a container's log belong to a snapshot.
//!
//! Between the API's byte stream and redaction. The kubelet gives no way to say "until", cuts by
//! records and not by lines, and prefixes each line with its time. So here: lines inside the
//! window stay, lines outside it go, and what may be the rest of a line whose beginning is elsewhere
//! goes too: a secret separated from its key is one that redaction can't know.

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::consent::grant::Window;

/// Longest line that is kept; a longer one is replaced by a note. The same bound as redaction's.
const MAX_LINE: usize = 256 * 1024;
/// Longest time stamp and the space behind it, generously.
const MAX_STAMP: usize = 40;
/// A first record this much later than the container's start may follow a rotation of the file, and
/// be the rest of a line.
const FIRST_RECORD: SignedDuration = SignedDuration::from_secs(60);

/// What is known of a stream before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// When this run of the container started; none if unknown.
    pub(super) started_at: Option<Timestamp>,
    /// Lines that were asked for; as many may mean that older ones were cut off.
    pub(super) tail: u64,
}

/// Counts of what was left out, to be declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Lines without a readable time stamp (the kubelet's own error texts look like this).
    pub(super) unstamped: u64,
    /// Lines over [`MAX_LINE`], replaced by a note.
    pub(super) too_long: u64,
    /// A first line that may have been cut.
    pub(super) first: bool,
    /// A last line without its end.
    pub(super) last: bool,
    /// Lines that were cut off before the first one, perhaps.
    pub(super) tail_reached: bool,
}

/// Takes bytes in any cut, gives whole lines inside the window.
pub(super) struct Records {
    window: Window,
    source: Source,
    line: Vec<u8>,
    overflow: bool,
    lines: u64,
    left_out: LeftOut,
}

impl Records {
    pub(super) fn new(window: Window, source: Source) -> Self {
        Self {
            window,
            source,
            line: Vec::new(),
            overflow: false,
            lines: 0,
            left_out: LeftOut::default(),
        }
    }

    /// Takes bytes; whole lines that belong to the snapshot are appended to `out`.
    pub(super) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = memchr_newline(input) {
            let (line, rest) = input.split_at(end + 1);
            self.extend(line);
            self.end_line(out);
            input = rest;
        }
        self.extend(input);
    }

    /// The stream has ended; what is left is a line without an end, and goes.
    pub(super) fn finish(mut self) -> LeftOut {
        self.left_out.last = !self.line.is_empty();
        self.left_out.tail_reached = self.lines >= self.source.tail;
        self.left_out
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > MAX_LINE {
            self.overflow = true;
            // The stamp at its head is all that is needed of it.
            self.line.truncate(MAX_STAMP);
            if self.line.len() < MAX_STAMP {
                let missing = MAX_STAMP - self.line.len();
                self.line.extend_from_slice(&bytes[..missing.min(bytes.len())]);
            }
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        let overflow = std::mem::take(&mut self.overflow);
        self.lines += 1;
        match stamp(&self.line) {
            None => self.left_out.unstamped += 1,
            Some((at, _)) if at < self.window.from || at > self.window.to => {}
            Some((at, _)) if self.lines == 1 && !self.starts_whole(at) => {
                self.left_out.first = true
            }
            Some((_, head)) if overflow => {
                self.left_out.too_long += 1;
                out.extend_from_slice(&self.line[..head]);
                out.extend_from_slice(b"[line over 256 KiB left out]\n");
            }
            Some(_) => out.extend_from_slice(&self.line),
        }
        self.line.clear();
    }

    /// Whether the first line is known to begin at its beginning.
    fn starts_whole(&self, at: Timestamp) -> bool {
        self.source.started_at.is_some_and(|started| {
            started >= self.window.from && at.duration_since(started) <= FIRST_RECORD
        })
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&b| b == b'\n')
}

/// The time at a line's head, and where the text behind it begins.
fn stamp(line: &[u8]) -> Option<(Timestamp, usize)> {
    let space = line.iter().take(MAX_STAMP).position(|&b| b == b' ')?;
    let text = std::str::from_utf8(&line[..space]).ok()?;
    Some((text.parse().ok()?, space + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window() -> Window {
        Window { from: time("2026-11-20T10:00:00Z"), to: time("2026-11-20T11:00:00Z") }
    }

    /// A container that started inside the window.
    fn fresh() -> Source {
        Source { started_at: Some(time("2026-11-20T10:00:00Z")), tail: 1000 }
    }

    fn run(source: Source, input: &[u8]) -> (String, LeftOut) {
        let mut records = Records::new(window(), source);
        let mut out = vec![];
        records.push(input, &mut out);
        let left = records.finish();
        (String::from_utf8(out).unwrap(), left)
    }

    #[test]
    fn records_outside_the_window_are_dropped() {
        let input = "2026-11-20T10:00:01.5Z a\n2026-11-20T11:00:00.000000001Z later\n\
                     2026-11-20T09:59:59Z before\n2026-11-20T10:30:00+00:00 b\n";
        let (out, left) = run(fresh(), input.as_bytes());
        assert_eq!(out, "2026-11-20T10:00:01.5Z a\n2026-11-20T10:30:00+00:00 b\n");
        assert_eq!(left, LeftOut::default());
    }

    #[test]
    fn a_first_line_that_may_be_the_rest_of_another_is_dropped() {
        let input = b"2026-11-20T10:00:01Z ret=hunter2\n2026-11-20T10:00:02Z b\n";
        let before = Source { started_at: Some(time("2026-11-20T08:00:00Z")), ..fresh() };
        let unknown = Source { started_at: None, ..fresh() };
        for source in [before, unknown] {
            let (out, left) = run(source, input);
            assert_eq!(out, "2026-11-20T10:00:02Z b\n");
            assert!(left.first);
        }
        // A rotated file begins long after the container did.
        let rotated = b"2026-11-20T10:09:00Z ret=hunter2\n2026-11-20T10:09:01Z b\n";
        assert_eq!(run(fresh(), rotated).0, "2026-11-20T10:09:01Z b\n");
        assert_eq!(run(fresh(), input).0.lines().count(), 2);
    }

    #[test]
    fn a_last_line_without_its_end_is_dropped() {
        let (out, left) = run(fresh(), b"2026-11-20T10:00:01Z a\n2026-11-20T10:00:02Z passw");
        assert_eq!(out, "2026-11-20T10:00:01Z a\n");
        assert!(left.last);
    }

    #[test]
    fn lines_without_a_time_are_the_kubelets_and_counted() {
        let (out, left) = run(fresh(), b"failed to read log file \"/var/log/x\"\n\n");
        assert_eq!((out.as_str(), left.unstamped), ("", 2));
    }

    #[test]
    fn an_endless_line_is_replaced_and_does_not_fill_memory() {
        let mut records = Records::new(window(), fresh());
        let mut out = vec![];
        records.push(b"2026-11-20T10:00:01Z ", &mut out);
        for _ in 0..64 {
            records.push(&[b'x'; 65536], &mut out);
            assert!(records.line.len() <= MAX_LINE);
        }
        records.push(b"\n2026-11-20T10:00:02Z next\n", &mut out);
        let left = records.finish();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-20T10:00:01Z [line over 256 KiB left out]\n2026-11-20T10:00:02Z next\n"
        );
        assert_eq!(left.too_long, 1);
    }

    #[test]
    fn a_full_tail_says_that_older_lines_may_be_missing() {
        let input = b"2026-11-20T10:00:01Z a\n2026-11-20T10:00:02Z b\n";
        let (_, left) = run(Source { tail: 2, ..fresh() }, input);
        assert!(left.tail_reached);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_input_gives_the_same_records(
            cuts in proptest::collection::vec(1usize..40, 1..30),
        ) {
            let input = "2026-11-20T10:00:01Z a\nrubbish\n2026-11-20T10:00:02Z b\n\
                         2026-11-20T12:00:00Z late\n2026-11-20T10:00:03Z c\n2026-11-20T10:0";
            let mut records = Records::new(window(), fresh());
            let (mut out, mut rest) = (vec![], input.as_bytes());
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                records.push(now, &mut out);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let left = records.finish();
            let (whole, expected) = run(fresh(), input.as_bytes());
            prop_assert_eq!(String::from_utf8(out).unwrap(), whole);
            prop_assert_eq!(left, expected);
        }
    }
}
