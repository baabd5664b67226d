//! Transfer: sealed bytes over a connection that may break, with little of it in flight.
//!
//! After [`crate::seal`], last step before the wire. [`Sender`] is the agent's side: it keeps what
//! the server has not acknowledged (at most [`MAX_SNAPSHOT_UNACKED`] bytes: the bound on what leaves
//! after consent ends), and resumes from there within [`RESUME_WINDOW`]. [`Receiver`] is the check
//! of the side that stores: chunks in order, whole, and inside a limit.

use std::{
    collections::VecDeque,
    io::{self, Read},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use mendix_agent_proto::limits::{MAX_SNAPSHOT_CHUNK, MAX_SNAPSHOT_UNACKED, RESUME_WINDOW};
use thiserror::Error;

/// A piece of the sealed stream, ready for the wire. Cloning it copies no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutChunk {
    /// Position of its first byte.
    pub offset: u64,
    /// 1 to [`MAX_SNAPSHOT_CHUNK`] sealed bytes.
    pub data: Bytes,
    /// SHA-256 of `data`.
    pub sha256: [u8; 32],
}

impl OutChunk {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// What a complete stream was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Its length, bytes.
    pub size: u64,
    /// SHA-256 of all of it.
    pub sha256: [u8; 32],
}

/// Why the sending side can't go on. Each ends the upload, unless it says otherwise.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TransferError {
    /// The caller did not wait for [`Sender::room`]; nothing was taken.
    #[error("{unacked} bytes are unacknowledged; at most {MAX_SNAPSHOT_UNACKED} may be")]
    NoRoom {
        /// How many are.
        unacked: usize,
    },
    /// Empty or over [`MAX_SNAPSHOT_CHUNK`]; nothing was taken.
    #[error("a chunk of {size} bytes; 1 to {MAX_SNAPSHOT_CHUNK} are allowed")]
    ChunkSize {
        /// Its size.
        size: usize,
    },
    /// The server claims bytes that were never sent.
    #[error("the server acknowledged {next_offset}, but only {sent} bytes were sent")]
    AckAhead {
        /// Its claim.
        next_offset: u64,
        /// What was sent.
        sent: u64,
    },
    /// The server takes back what it had acknowledged; those bytes are gone here.
    #[error("the server acknowledged {next_offset} after it had acknowledged {acked}")]
    AckBehind {
        /// Its claim.
        next_offset: u64,
        /// What it had acknowledged.
        acked: u64,
    },
    /// An acknowledgement inside a chunk: no server stores part of one.
    #[error("the server acknowledged {next_offset}, which is inside a chunk")]
    AckInsideChunk {
        /// Its claim.
        next_offset: u64,
    },
    /// The connection is down: [`Sender::resume`] first.
    #[error("the connection is down; resume first")]
    Disconnected,
    /// Not within [`RESUME_WINDOW`] of the break: a new snapshot has to begin.
    #[error("the connection was down for {} s; an upload resumes within {} s", .down.as_secs(), RESUME_WINDOW.as_secs())]
    TooLate {
        /// How long.
        down: Duration,
    },
    /// Not all bytes are acknowledged.
    #[error("{unacked} bytes are not acknowledged yet")]
    Incomplete {
        /// How many.
        unacked: usize,
    },
}

/// The sending side of one snapshot.
///
/// Times are readings of one monotonic clock (the edge passes CLOCK_BOOTTIME).
pub struct Sender {
    sent: u64,
    acked: u64,
    unacked: VecDeque<OutChunk>,
    unacked_bytes: usize,
    down_since: Option<Duration>,
    digest: Context,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("sent", &self.sent)
            .field("acked", &self.acked)
            .field("down_since", &self.down_since)
            .finish_non_exhaustive()
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// At the beginning of a stream, connected.
    pub fn new() -> Self {
        Self {
            sent: 0,
            acked: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            down_since: None,
            digest: Context::new(&SHA256),
        }
    }

    /// Whether a largest chunk may be sent now.
    pub fn room(&self) -> bool {
        self.down_since.is_none() && self.unacked_bytes + MAX_SNAPSHOT_CHUNK <= MAX_SNAPSHOT_UNACKED
    }

    /// Bytes handed to the wire, whether acknowledged or not.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that the server has.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Takes sealed bytes; what comes back is to be sent at once.
    ///
    /// # Errors
    /// [`TransferError::NoRoom`], [`TransferError::ChunkSize`] or [`TransferError::Disconnected`];
    /// nothing is taken then.
    pub fn accept(&mut self, data: Bytes) -> Result<OutChunk, TransferError> {
        if self.down_since.is_some() {
            return Err(TransferError::Disconnected);
        }
        if data.is_empty() || data.len() > MAX_SNAPSHOT_CHUNK {
            return Err(TransferError::ChunkSize { size: data.len() });
        }
        if self.unacked_bytes + data.len() > MAX_SNAPSHOT_UNACKED {
            return Err(TransferError::NoRoom { unacked: self.unacked_bytes });
        }
        self.digest.update(&data);
        let chunk = OutChunk { offset: self.sent, sha256: hash(&data), data };
        self.sent = chunk.end();
        self.unacked_bytes += chunk.data.len();
        self.unacked.push_back(chunk.clone());
        Ok(chunk)
    }

    /// Takes an acknowledgement: the server has all bytes below `next_offset`. Repeating the last
    /// one is harmless.
    ///
    /// # Errors
    /// [`TransferError::AckAhead`], [`TransferError::AckBehind`], [`TransferError::AckInsideChunk`];
    /// nothing is forgotten then.
    pub fn acknowledged(&mut self, next_offset: u64) -> Result<(), TransferError> {
        if next_offset > self.sent {
            return Err(TransferError::AckAhead { next_offset, sent: self.sent });
        }
        if next_offset < self.acked {
            return Err(TransferError::AckBehind { next_offset, acked: self.acked });
        }
        let boundary =
            next_offset == self.acked || self.unacked.iter().any(|c| c.end() == next_offset);
        if !boundary {
            return Err(TransferError::AckInsideChunk { next_offset });
        }
        while let Some(chunk) = self.unacked.front()
            && chunk.end() <= next_offset
        {
            self.unacked_bytes -= chunk.data.len();
            self.unacked.pop_front();
        }
        self.acked = next_offset;
        Ok(())
    }

    /// The connection broke. The first call counts; what happens until a resume is one break.
    pub fn disconnected(&mut self, now: Duration) {
        self.down_since.get_or_insert(now);
    }

    /// A new connection is up and the server says what it has. Gives what has to be sent again, in
    /// order.
    ///
    /// # Errors
    /// [`TransferError::TooLate`] outside the window, or what [`Sender::acknowledged`] refuses.
    pub fn resume(
        &mut self,
        now: Duration,
        next_offset: u64,
    ) -> Result<Vec<OutChunk>, TransferError> {
        if let Some(since) = self.down_since {
            let down = now.saturating_sub(since);
            if down > RESUME_WINDOW {
                return Err(TransferError::TooLate { down });
            }
        }
        self.acknowledged(next_offset)?;
        self.down_since = None;
        Ok(self.unacked.iter().cloned().collect())
    }

    /// Totals of the complete stream, once all of it is acknowledged.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`] when something is not.
    pub fn totals(&self) -> Result<Totals, TransferError> {
        if !self.unacked.is_empty() {
            return Err(TransferError::Incomplete { unacked: self.unacked_bytes });
        }
        Ok(Totals { size: self.sent, sha256: finish(&self.digest) })
    }
}

/// Why the receiving side refuses a chunk or the end. Nothing of that chunk is to be stored.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReceiveError {
    /// Bytes in between are missing.
    #[error("chunk at {offset}; {expected} was expected: a gap")]
    Gap {
        /// Where it begins.
        offset: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// Bytes that are here already.
    #[error("chunk at {offset}; {expected} was expected: an overlap")]
    Overlap {
        /// Where it begins.
        offset: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// Empty or over [`MAX_SNAPSHOT_CHUNK`].
    #[error("a chunk of {size} bytes; 1 to {MAX_SNAPSHOT_CHUNK} are allowed")]
    ChunkSize {
        /// Its size.
        size: usize,
    },
    /// Its bytes are not the ones that were sent.
    #[error("the chunk at {offset} does not match its checksum")]
    Checksum {
        /// Where it begins.
        offset: u64,
    },
    /// More than the stream may hold.
    #[error("the chunk at {offset} ends beyond the limit of {limit} bytes")]
    OverLimit {
        /// Where it begins.
        offset: u64,
        /// The limit.
        limit: u64,
    },
    /// Size or digest at the end differ from what is here.
    #[error("the stream is not what its end says: {size} bytes are here")]
    Totals {
        /// What is here.
        size: u64,
    },
}

/// The receiving side's check: call [`Receiver::accept`], store the data, then acknowledge.
#[derive(Clone)]
pub struct Receiver {
    next: u64,
    limit: u64,
    digest: Context,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("next", &self.next)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// At the beginning of a stream of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { next: 0, limit, digest: Context::new(&SHA256) }
    }

    /// After a restart: reads again what was stored.
    ///
    /// # Errors
    /// What reading gives, and [`io::ErrorKind::InvalidData`] when more is stored than `limit`.
    pub fn restored(limit: u64, mut stored: impl Read) -> io::Result<Self> {
        let mut receiver = Self::new(limit);
        let mut buffer = vec![0; MAX_SNAPSHOT_CHUNK];
        loop {
            let read = match stored.read(&mut buffer) {
                Ok(0) => return Ok(receiver),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            receiver.next += read as u64;
            if receiver.next > limit {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than {limit} bytes are stored"),
                ));
            }
            receiver.digest.update(&buffer[..read]);
        }
    }

    /// Next byte that is expected: what to acknowledge once all below it is stored.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// Checks a chunk.
    ///
    /// # Errors
    /// [`ReceiveError`]; the receiver is unchanged then.
    pub fn accept(&mut self, offset: u64, data: &[u8], sha256: &[u8]) -> Result<(), ReceiveError> {
        let expected = self.next;
        match offset.cmp(&expected) {
            std::cmp::Ordering::Greater => return Err(ReceiveError::Gap { offset, expected }),
            std::cmp::Ordering::Less => return Err(ReceiveError::Overlap { offset, expected }),
            std::cmp::Ordering::Equal => {}
        }
        if data.is_empty() || data.len() > MAX_SNAPSHOT_CHUNK {
            return Err(ReceiveError::ChunkSize { size: data.len() });
        }
        let limit = self.limit;
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= limit)
            .ok_or(ReceiveError::OverLimit { offset, limit })?;
        if hash(data).as_slice() != sha256 {
            return Err(ReceiveError::Checksum { offset });
        }
        self.digest.update(data);
        self.next = end;
        Ok(())
    }

    /// Compares what is here with what the sender says it sent.
    ///
    /// # Errors
    /// [`ReceiveError::Totals`] when size or digest differ.
    pub fn finish(&self, total_size: u64, sha256: &[u8]) -> Result<Totals, ReceiveError> {
        let totals = Totals { size: self.next, sha256: finish(&self.digest) };
        if total_size != totals.size || sha256 != totals.sha256 {
            return Err(ReceiveError::Totals { size: totals.size });
        }
        Ok(totals)
    }
}

fn hash(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}

fn finish(context: &Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.clone().finish().as_ref());
    out
}

#[cfg(test)]
mod tests;
