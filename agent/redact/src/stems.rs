//! What the rules start from: key stems and token prefixes, whatever their case, and places where digits
//! cluster. `list` says what calls which rule, `table` how they are found.

mod list;
mod table;

pub(super) use list::Rule;
pub(super) use table::STEMS;

/// Is told what a scan finds.
pub(super) trait Reader {
    /// Whether it wants to know of digits and addresses.
    const NUMBERS: bool;

    /// A stem at `start..end`.
    fn stem(&mut self, rule: Rule, start: usize, end: usize);

    /// Four digits at `at`. Returns where to look for the next.
    fn digits(&mut self, at: usize) -> usize;

    /// A colon at `at`, or a dot with another one soon after, with what may be a digit to both sides.
    /// Returns where to look for the next.
    fn address(&mut self, at: usize) -> usize;
}
