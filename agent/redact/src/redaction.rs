//! What all streams of one snapshot are redacted with: its key, and what to look for beyond the rules.

use std::{fmt, ops::Range, sync::Arc};

use super::{Class, SnapshotKey};

/// Looks for more than the rules know: the customer's patterns, the agent's own credentials.
///
/// It is given the body of one line at a time, as it stands and once more with its escapes resolved,
/// and must take time linear in it.
pub trait Finder: fmt::Debug + Send + Sync {
    /// What its finds are called.
    fn class(&self) -> Class;

    /// Calls `found` for each range of `text` that has to go, in any order. Empty ranges and ones
    /// inside of placeholders are ignored.
    fn find(&self, text: &[u8], found: &mut dyn FnMut(Range<usize>));
}

/// What all streams of one snapshot are redacted with.
#[derive(Debug)]
pub struct Redaction {
    pub(super) key: SnapshotKey,
    pub(super) finders: Arc<[Box<dyn Finder>]>,
}

impl Redaction {
    /// The rules of the policy, and `finders` besides.
    #[must_use]
    pub fn new(key: SnapshotKey, finders: Vec<Box<dyn Finder>>) -> Self {
        Self { key, finders: finders.into() }
    }
}

/// The rules of the policy alone.
impl From<SnapshotKey> for Redaction {
    fn from(key: SnapshotKey) -> Self {
        Self::new(key, Vec::new())
    }
}
