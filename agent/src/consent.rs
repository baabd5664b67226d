//! What the commands `consent list` ([`list`]: what each ticket allows, and why not) and `consent
//! verify` ([`verify()`]: a grant or a lease, offline) tell. They read with the caller's rights and change
//! nothing.

mod list;
mod verify;

use jiff::Timestamp;

pub use self::{
    list::{ListError, Standing},
    verify::{Envelope, Judge, Verdict, refused, verify},
};

/// RFC 3339 without the fraction, which nobody reads.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
