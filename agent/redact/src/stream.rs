//! Cuts a stream of bytes into lines, whatever the chunks are, and refuses what is no text.

use super::line::{Lines, timestamp_prefix};
use super::placeholder::Pieces;
use super::signs::{Ahead, Signs};
use super::{Class, Counts, MAX_LINE, RedactError, Redaction};

/// NUL bytes in a stream beyond which it is no text.
const NUL_ALLOWED: u64 = 8;
/// Bytes after which the share of invalid UTF-8 is judged for the first time before the end.
const UTF8_JUDGED_FROM: u64 = 1024;

/// Redacts one log stream. Feed it chunks of any size; the output does not depend on how the stream
/// was cut.
///
/// Call [`Redactor::finish`] at the end: until then the last, unfinished line is kept back. After an
/// error every further call fails, and what was written for this stream must be thrown away.
pub struct Redactor {
    lines: Lines,
    /// The line that is not finished yet.
    carry: Vec<u8>,
    /// Instead of `carry`: a line that is already too long.
    long: Option<Long>,
    seen: Seen,
    ended: bool,
}

/// A line over [`MAX_LINE`]: its bytes are hashed and dropped.
struct Long {
    timestamp: Vec<u8>,
    pieces: Pieces,
    len: u64,
}

/// What is known of a line before it is looked at, from the chunk that it is in.
#[derive(Clone, Copy)]
struct Known {
    no_nul: bool,
    signs: Signs,
}

impl Known {
    const NOTHING: Self = Self { no_nul: false, signs: Signs::ANY };
}

/// What speaks for or against this being text.
#[derive(Default)]
struct Seen {
    total: u64,
    nul: u64,
    invalid: u64,
}

impl Redactor {
    /// Starts a stream.
    #[must_use]
    pub fn new(redaction: &Redaction) -> Self {
        Self {
            lines: Lines::new(redaction),
            carry: Vec::new(),
            long: None,
            seen: Seen::default(),
            ended: false,
        }
    }

    /// Reads `input` and appends to `out` what became ready: whole lines only.
    ///
    /// # Errors
    /// [`RedactError`] when the input is no text, or after an earlier error or `finish`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), RedactError> {
        self.guard(|this| this.push_lines(input, out))
    }

    /// Ends the stream: redacts the last line when it had no line end.
    ///
    /// # Errors
    /// As [`Redactor::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RedactError> {
        self.guard(|this| {
            if let Some(long) = this.long.take() {
                this.write_long(long, out)?;
            } else {
                let carry = std::mem::take(&mut this.carry);
                if !carry.is_empty() {
                    this.whole_line(&carry, Known::NOTHING, out)?;
                }
            }
            this.seen.judge(true)
        })?;
        self.ended = true;
        Ok(())
    }

    /// What was replaced so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.lines.counts()
    }

    fn guard(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), RedactError>,
    ) -> Result<(), RedactError> {
        if self.ended {
            return Err(RedactError::Ended);
        }
        // A panic in `work` leaves this set: the stream stays refused.
        self.ended = true;
        let result = work(self);
        self.ended = result.is_err();
        result
    }

    fn push_lines(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), RedactError> {
        // One look at the chunk spares most lines the check for binary bytes.
        let no_nul = memchr::memchr(0, input).is_none();
        let mut ahead = Ahead::new(input);
        let mut rest = input;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (piece, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            if self.carry.is_empty() && self.long.is_none() && piece.len() <= MAX_LINE {
                let start = input.len() - rest.len() - piece.len() - 1;
                let signs = ahead.of(start..start + piece.len());
                self.whole_line(piece, Known { no_nul, signs }, out)?;
            } else {
                self.keep(piece);
                if let Some(long) = self.long.take() {
                    self.write_long(long, out)?;
                } else {
                    let carry = std::mem::take(&mut self.carry);
                    self.whole_line(&carry, Known::NOTHING, out)?;
                    self.carry = carry;
                    self.carry.clear();
                }
            }
            out.push(b'\n');
            self.seen.total += 1;
        }
        self.keep(rest);
        Ok(())
    }

    /// Adds a piece to the unfinished line.
    fn keep(&mut self, piece: &[u8]) {
        if self.long.is_none() && self.carry.len() + piece.len() > MAX_LINE {
            let mut pieces = self.lines.begin_placeholder();
            pieces.update(&self.carry);
            // The prefix is whole unless the stream began with a tiny chunk, and then it is in the piece.
            let mut head: Vec<u8> = self.carry.iter().take(64).copied().collect();
            head.extend(piece.iter().take(64 - head.len()));
            let timestamp = head.get(..timestamp_prefix(&head)).unwrap_or_default().to_vec();
            self.long = Some(Long { timestamp, pieces, len: self.carry.len() as u64 });
            let nul = memchr::memchr_iter(0, &self.carry).count() as u64;
            self.seen.nul += nul;
            self.seen.total += self.carry.len() as u64;
            self.carry = Vec::new();
        }
        match &mut self.long {
            Some(long) => {
                long.pieces.update(piece);
                long.len += piece.len() as u64;
                self.seen.nul += memchr::memchr_iter(0, piece).count() as u64;
                self.seen.total += piece.len() as u64;
            }
            None => self.carry.extend_from_slice(piece),
        }
    }

    fn whole_line(
        &mut self,
        line: &[u8],
        known: Known,
        out: &mut Vec<u8>,
    ) -> Result<(), RedactError> {
        self.seen.total += line.len() as u64;
        let ascii = !known.signs.wide || line.is_ascii();
        let nul = if known.no_nul { 0 } else { memchr::memchr_iter(0, line).count() as u64 };
        self.seen.nul += nul;
        if !ascii && std::str::from_utf8(line).is_err() {
            let invalid: usize = line.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
            self.seen.invalid += invalid as u64;
        }
        // Judged only where the line itself gives cause: what is known of its chunk must not matter.
        if nul > 0 || !ascii {
            self.seen.judge(false)?;
        }
        self.lines.redact(line, ascii, known.signs, out);
        Ok(())
    }

    fn write_long(&mut self, long: Long, out: &mut Vec<u8>) -> Result<(), RedactError> {
        self.seen.judge(false)?;
        out.extend_from_slice(&long.timestamp);
        self.lines.note(Class::Line);
        long.pieces.write(Class::Line, out);
        out.extend_from_slice(format!(" {} bytes", long.len).as_bytes());
        Ok(())
    }
}

impl Seen {
    fn judge(&self, at_end: bool) -> Result<(), RedactError> {
        let Self { total, nul, invalid } = *self;
        if nul > NUL_ALLOWED || at_end && nul * 16 > total {
            return Err(RedactError::Nul { count: nul, offset: total });
        }
        if (at_end || total >= UTF8_JUDGED_FROM) && invalid * 4 > total {
            return Err(RedactError::NotUtf8 { invalid, offset: total });
        }
        Ok(())
    }
}
