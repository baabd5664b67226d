//! The audit log: what the agent decided, in a chain in which no record can be changed, removed or
//! moved without it showing.
//!
//! ```text
//! Event ─▶ Record { sequence, cluster, at, previous, event } ─▶ one line of canonical JSON
//!                                         │                         │ SHA-256
//!            hash of the line before ◀────┘                         ▼
//!                                                    named by the record after it
//! ```
//!
//! A record names the hash of the one before it, so the hash of the newest stands for all of them.
//! That hash goes to the control plane as a [`Checkpoint`]; whoever holds one can tell when the end
//! of the log was cut off, or all of it written anew ([`verify`]). Because the hash is inside the
//! record, and not beside it, a line can be checked with `sha256sum` alone, and verification can tell
//! an altered record from one whose neighbour was altered. The first record names a hash made from
//! the cluster's UID: a log can't be passed off as another cluster's.
//!
//! Lines are kept in segments of at most [`log::MAX_SEGMENT`] bytes ([`log`]); the edge keeps each in
//! a ConfigMap and writes a decision down before it acts on it.

pub mod event;
pub mod log;
pub mod record;
pub mod verify;

pub use event::Event;
pub use record::{Checkpoint, Hash, Record};
