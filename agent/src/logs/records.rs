//! Which records of a container's log belong to a snapshot.
//!
//! Between the API's byte stream and redaction. The kubelet gives no way to say "until", cuts by
//! records and not by lines, and prefixes each line with its time. So here: lines inside the
//! window stay, lines outside it go, and what may be the rest of a line whose beginning is elsewhere
//! goes too: a secret separated from its key is one that redaction can't know.
//!
//! A container runtime writes a line over [`PARTIAL`] bytes as several records. When the other
//! stream of the container writes in between, the kubelet joins the pieces wrongly: the other
//! stream's line ends up inside the long one, and the rest of the long one looks like a line. From
//! the outside the two can't be told apart, so the first word of the lines behind a long one is left
//! out.

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::consent::grant::Window;

/// Longest line that is kept; a longer one is replaced by a note. The same bound as redaction's.
const MAX_LINE: usize = 256 * 1024;
/// Longest time stamp and the space behind it, generously.
const MAX_STAMP: usize = 40;
/// A first record this much later than the container's start follows a rotation of the file, as far as
/// anybody can tell, and may be the rest of a line.
const FIRST_RECORD: SignedDuration = SignedDuration::from_secs(60);
/// Up to here it follows none: a file is rotated when it holds 10 MiB and more, and a container's first
/// words come sooner than that. In between it may be either.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(5);
/// Length of a record from which on a line is written in pieces (containerd's and CRI-O's default).
const PARTIAL: usize = 16 * 1024;
/// Lines behind a long one that may be its rest.
const FOLLOWERS: u8 = 4;
/// What stands for a word that may be the rest of another.
const CUT: &[u8] = b"[cut]";

/// How much of one log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Records that are asked for from the end of a log: the bound that keeps the newest, where
    /// `limitBytes` would keep the oldest.
    records: u64,
    /// Bytes that are read at once. A log with more is read again from nearer to its end.
    pub(super) bytes: u64,
}

impl Reach {
    /// More than most nodes keep of a container.
    pub(super) const USUAL: Self = Self { records: 400_000, bytes: 256 * 1024 * 1024 };

    #[cfg(test)]
    pub(super) fn test(records: u64, bytes: u64) -> Self {
        Self { records, bytes }
    }

    /// How many records to ask for first.
    pub(super) fn first(self) -> Tail {
        Tail(self.records)
    }

    /// After a log that was too long with `seen` records of it read: half as many, then so few that
    /// they fit in any case. None after that.
    pub(super) fn nearer(self, tail: Tail, seen: u64) -> Option<Tail> {
        let fits = self.bytes / (PARTIAL + MAX_STAMP) as u64;
        if tail == self.first() && seen / 2 > fits {
            Some(Tail(seen / 2))
        } else {
            (tail.0 > fits).then_some(Tail(fits))
        }
    }
}

/// How many records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail(u64);

impl Tail {
    pub(super) fn records(self) -> u64 {
        self.0
    }
}

/// What is known of a stream before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// When this run of the container started; none if unknown.
    pub(super) started_at: Option<Timestamp>,
    /// Records that were asked for; as many may mean that older ones were cut off.
    pub(super) tail: Tail,
}

/// Counts of what was left out, to be declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Lines without a readable time stamp (the kubelet's own error texts look like this).
    pub(super) unstamped: u64,
    /// Lines over [`MAX_LINE`], replaced by a note.
    pub(super) too_long: u64,
    /// Lines behind a long one whose first word was left out.
    pub(super) perhaps_rest: u64,
    /// A first line that may follow a rotation, and whose first word was left out.
    pub(super) first_word: bool,
    /// A first line that may have been cut.
    pub(super) first: bool,
    /// A last line without its end.
    pub(super) last: bool,
    /// Lines that were cut off before the first one, perhaps.
    pub(super) tail_reached: bool,
}

impl LeftOut {
    /// For a person; none when nothing was left out.
    pub(super) fn sentence(&self) -> Option<String> {
        let mut notes = vec![];
        if self.first {
            notes.push("the first line may have been cut and was dropped".to_owned());
        }
        if self.first_word {
            notes.push(
                "the first line may be the rest of another: its first word was left out".to_owned(),
            );
        }
        if self.last {
            notes.push("the last line had no end and was dropped".to_owned());
        }
        if self.unstamped > 0 {
            notes.push(format!("{} lines without a time were dropped", self.unstamped));
        }
        if self.too_long > 0 {
            notes.push(format!("{} lines over 256 KiB were replaced", self.too_long));
        }
        if self.perhaps_rest > 0 {
            notes.push(format!(
                "{} lines follow one over 16 KiB and may be its rest: their first word was left out",
                self.perhaps_rest
            ));
        }
        if self.tail_reached {
            notes.push("only the newest records were asked for".to_owned());
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// Takes bytes in any cut, gives whole lines inside the window.
pub(super) struct Records {
    window: Window,
    source: Source,
    line: Vec<u8>,
    /// Length of the line that is being read, also of what was not kept of it.
    length: usize,
    followers: u8,
    lines: u64,
    /// Records the lines were written as, at least.
    records: u64,
    first_at: Option<Timestamp>,
    left_out: LeftOut,
}

impl Records {
    pub(super) fn new(window: Window, source: Source) -> Self {
        Self {
            window,
            source,
            line: Vec::new(),
            length: 0,
            followers: 0,
            lines: 0,
            records: 0,
            first_at: None,
            left_out: LeftOut::default(),
        }
    }

    /// Takes bytes; whole lines that belong to the snapshot are appended to `out`.
    pub(super) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (line, rest) = input.split_at(end + 1);
            self.extend(line);
            self.end_line(out);
            input = rest;
        }
        self.extend(input);
    }

    /// Records that were read, to ask for fewer.
    pub(super) fn seen(&self) -> u64 {
        self.records
    }

    /// The time of the first line, inside the window or not.
    pub(super) fn first_at(&self) -> Option<Timestamp> {
        self.first_at
    }

    /// The stream has ended; what is left is a line without an end, and goes.
    pub(super) fn finish(mut self) -> LeftOut {
        self.left_out.last = !self.line.is_empty();
        self.left_out.tail_reached = self.records >= self.source.tail.records();
        self.left_out
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if self.length > MAX_LINE {
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
        let length = std::mem::take(&mut self.length);
        self.lines += 1;
        self.records += 1 + (length / PARTIAL) as u64;
        let follower = self.followers > 0;
        self.followers = self.followers.saturating_sub(1);
        let stamp = stamp(&self.line);
        if let Some((at, head)) = stamp {
            self.first_at = self.first_at.or(Some(at));
            if length - head > PARTIAL {
                self.followers = FOLLOWERS;
            }
        }
        match stamp {
            None => self.left_out.unstamped += 1,
            Some((at, _)) if at < self.window.from || at > self.window.to => {}
            Some((at, _)) if self.lines == 1 && self.late(at) > FIRST_RECORD => {
                self.left_out.first = true
            }
            Some((_, head)) if length > MAX_LINE => {
                self.left_out.too_long += 1;
                out.extend_from_slice(&self.line[..head]);
                out.extend_from_slice(b"[line over 256 KiB left out]\n");
            }
            Some((at, head)) => {
                unstamp(&mut self.line, head);
                let first = self.lines == 1 && self.late(at) > AT_ONCE;
                let word = if follower || first { first_word(&self.line[head..]) } else { 0 };
                out.extend_from_slice(&self.line[..head]);
                if word > 0 {
                    self.left_out.first_word |= first;
                    self.left_out.perhaps_rest += u64::from(follower);
                    out.extend_from_slice(CUT);
                }
                out.extend_from_slice(&self.line[head + word..]);
            }
        }
        self.line.clear();
    }

    /// How long after the container's start the first line came: the longer, the less is it known to
    /// begin at its beginning.
    fn late(&self, at: Timestamp) -> SignedDuration {
        let started = self.source.started_at.filter(|started| *started >= self.window.from);
        started.map_or(SignedDuration::MAX, |started| at.duration_since(started))
    }
}

/// What a log lost to rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// What was logged before this.
    Before(Timestamp),
    /// What was logged before this, if anything was.
    PerhapsBefore(Timestamp),
}

/// Whether a log whose oldest record in reach is of `begins` lost records of the window to rotation.
/// `first_read` is the first line that was read: where it is older than `begins`, the file was rotated
/// only afterwards, and an older one had been read. That one may have followed a rotation as well. So
/// may it where the node does not say, as when the new file has no line yet.
pub(super) fn lost_to_rotation(
    begins: Option<Timestamp>,
    first_read: Option<Timestamp>,
    started_at: Option<Timestamp>,
    window: Window,
) -> Option<Lost> {
    let expected = started_at.map_or(window.from, |started| started.max(window.from));
    let read_before = first_read.filter(|first| begins.is_none_or(|begins| *first < begins));
    let oldest = read_before.or(begins)?;
    let late = oldest.duration_since(expected);
    if late > FIRST_RECORD && read_before.is_none() {
        Some(Lost::Before(oldest))
    } else {
        (late > AT_ONCE).then_some(Lost::PerhapsBefore(oldest))
    }
}

/// Takes out the stamps inside a line that was written in pieces: kubelets of old (1.20) stamp every
/// piece, and a value that two pieces share would no longer be one.
fn unstamp(line: &mut Vec<u8>, head: usize) {
    let mut at = head + PARTIAL;
    while at < line.len() {
        let Some((_, stamp)) = stamp(&line[at..]) else { return };
        line.drain(at..at + stamp);
        at += PARTIAL;
    }
}

/// Length of what stands before the first delimiter.
fn first_word(text: &[u8]) -> usize {
    text.iter().position(|b| b" \t\r\n\"',;&<>|{}[]()".contains(b)).unwrap_or(text.len())
}

/// The time at a line's head, and where the text behind it begins.
pub(super) fn stamp(line: &[u8]) -> Option<(Timestamp, usize)> {
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
        Source { started_at: Some(time("2026-11-20T10:00:00Z")), tail: Tail(1000) }
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
        // One that floods its log is rotated soon after its start, and one that takes its time is not.
        let soon = b"2026-11-20T10:00:20Z ter2 is the secret\n2026-11-20T10:00:21Z b\n";
        let (out, left) = run(fresh(), soon);
        assert_eq!(out, "2026-11-20T10:00:20Z [cut] is the secret\n2026-11-20T10:00:21Z b\n");
        assert!(
            left.first_word && left.sentence().unwrap().contains("its first word was left out")
        );
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
        records.push(b"\n2026-11-20T10:00:02Z INFO next\n", &mut out);
        let left = records.finish();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-20T10:00:01Z [line over 256 KiB left out]\n2026-11-20T10:00:02Z [cut] next\n"
        );
        assert_eq!(left.too_long, 1);
    }

    #[test]
    fn a_full_tail_says_that_older_lines_may_be_missing() {
        let input = b"2026-11-20T10:00:01Z a\n2026-11-20T10:00:02Z b\n";
        let (_, left) = run(Source { tail: Tail(2), ..fresh() }, input);
        assert!(left.tail_reached);
    }

    #[test]
    fn the_rest_of_a_line_that_another_stream_interrupted_can_not_be_told_from_a_line() {
        // One record of stdout, then a line of stderr, then the rest of the first: as the kubelet
        // gives it.
        let head = "x".repeat(PARTIAL - 9);
        let input = format!(
            "2026-11-20T10:00:01Z {head}password=interrupted by stderr\n\
             2026-11-20T10:00:01Z hunter2 and more\n2026-11-20T10:00:02Z INFO b\n"
        );
        let (out, left) = run(fresh(), input.as_bytes());
        assert!(!out.contains("hunter2"), "{}", &out[PARTIAL..]);
        assert!(out.ends_with("Z [cut] and more\n2026-11-20T10:00:02Z [cut] b\n"), "{out}");
        assert_eq!(left.perhaps_rest, 2);
        // Nothing but a word: nothing of it is known to be whole.
        let input =
            format!("2026-11-20T10:00:01Z {head}password=a\n2026-11-20T10:00:01Z hunter2\n");
        assert!(run(fresh(), input.as_bytes()).0.ends_with("Z [cut]\n"));
    }

    #[test]
    fn a_stamp_between_the_pieces_of_a_line_does_not_cut_a_value_in_two() {
        let stamp = "2026-11-20T10:00:01.5Z ";
        let first = "x".repeat(PARTIAL - 12) + "password=hun";
        let second = "ter2 ".to_owned() + &"y".repeat(PARTIAL - 5);
        let input = format!("{stamp}{first}{stamp}{second}{stamp}end\n");
        let (out, _) = run(fresh(), input.as_bytes());
        assert_eq!(out, format!("{stamp}{first}{second}end\n"));
        // A line that is whole keeps what looks like a stamp.
        let input = format!("{stamp}{first}z{stamp}\n");
        assert_eq!(run(fresh(), input.as_bytes()).0, input);
    }

    #[test]
    fn a_few_lines_behind_a_long_one_are_doubted_and_no_more() {
        let long = format!("2026-11-20T10:00:01Z {}\n", "x".repeat(PARTIAL + 1));
        let input = long + &"2026-11-20T10:00:02Z INFO b\n".repeat(6);
        let (out, left) = run(fresh(), input.as_bytes());
        assert_eq!(left.perhaps_rest, u64::from(FOLLOWERS));
        assert_eq!(out.matches("INFO b").count(), 6 - usize::from(FOLLOWERS));
    }

    #[test]
    fn a_log_that_is_too_long_is_asked_for_nearer_to_its_end() {
        // Short lines: half of what was seen. Long ones: as many as fit whatever they are.
        let reach = Reach::USUAL;
        let fits = reach.bytes / (16 * 1024 + 40);
        let second = reach.nearer(reach.first(), 300_000).unwrap();
        assert_eq!(second, Tail(150_000));
        let third = reach.nearer(second, 140_000).unwrap();
        assert_eq!(third, Tail(fits));
        assert_eq!(reach.nearer(third, fits), None);
        assert_eq!(reach.nearer(reach.first(), 17_000), Some(Tail(fits)));
    }

    #[test]
    fn records_are_counted_as_the_node_writes_them() {
        let mut records = Records::new(window(), fresh());
        let mut out = vec![];
        let long = format!("2026-11-20T10:00:01Z {}\n", "x".repeat(4 * PARTIAL));
        records.push(long.as_bytes(), &mut out);
        records.push(b"2026-11-20T10:00:02Z b\n", &mut out);
        assert_eq!(records.seen(), 6);
    }

    #[test]
    fn rotation_is_told_from_a_late_start_and_from_one_after_reading() {
        let lost = |begins: &str, first: Option<&str>, started: Option<&str>| {
            lost_to_rotation(Some(time(begins)), first.map(time), started.map(time), window())
        };
        let (ten, later) = ("2026-11-20T10:00:00Z", "2026-11-20T10:20:00Z");
        let (before, perhaps) =
            (|at| Some(Lost::Before(time(at))), |at| Some(Lost::PerhapsBefore(time(at))));
        // The container ran all the time; its log begins in the middle of the window.
        assert_eq!(lost(later, Some(later), Some("2026-11-20T08:00:00Z")), before(later));
        assert_eq!(lost(later, Some(later), None), before(later));
        // All of the window is gone.
        assert_eq!(lost("2026-11-20T11:30:00Z", None, Some(ten)), before("2026-11-20T11:30:00Z"));
        // It began then, or the log reaches back before the window.
        assert_eq!(lost(later, Some(later), Some("2026-11-20T10:19:57Z")), None);
        assert_eq!(lost("2026-11-20T09:00:00Z", Some(later), Some("2026-11-20T08:00:00Z")), None);
        // It was slow to say anything, or said so much that it was rotated at once.
        assert_eq!(lost(later, Some(later), Some("2026-11-20T10:19:30Z")), perhaps(later));
        // Rotated while or after it was read: the older file was read.
        assert_eq!(lost(later, Some(ten), Some(ten)), None);
        // That one followed a rotation itself, or nothing was said before.
        let between = "2026-11-20T10:10:00Z";
        assert_eq!(lost(later, Some(between), Some(ten)), perhaps(between));
        // The file that is there now has no line yet.
        let unsaid =
            |first: &str| lost_to_rotation(None, Some(time(first)), Some(time(ten)), window());
        assert_eq!(unsaid(between), perhaps(between));
        assert_eq!(unsaid(ten), None);
        assert_eq!(lost_to_rotation(None, None, Some(time(ten)), window()), None);
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
