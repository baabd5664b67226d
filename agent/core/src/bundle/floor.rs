//! What release engineering says, signed, about going back: the floor below which no cluster accepts a
//! release, whatever it remembers, and a time that is past.
//!
//! It is a target of the release repository, which only the offline root and targets keys can sign
//! (ADR 0013). The agent reads it whenever it reads the repository. A cluster whose memory was lost or
//! tampered with begins at the floor and never at zero.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Authentic, Verified,
    canonical::{self, JsonError},
};

/// Name of the target.
pub const FILE: &str = "release-floor.json";
/// Only schema this build reads and writes.
pub const SCHEMA: u32 = 1;
/// Largest file, bytes.
pub const MAX_FILE: usize = 4 * 1024;
/// Levels of nesting.
const DEPTH: usize = 8;

/// The floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFloor {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// Grows with each file; an older one is refused.
    pub serial: u64,
    /// When it was signed: no clock that says an earlier time is right.
    pub signed_at: Timestamp,
    /// Lowest sequence that a cluster accepts. It never sinks.
    pub sequence: u64,
}

/// Why a file is not a floor, or not one that may follow what is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FloorError {
    /// Another target.
    #[error("the target {0:?} is not {FILE}")]
    OtherTarget(String),
    /// More bytes than it may have.
    #[error("{FILE} has {0} bytes; at most {MAX_FILE} are read")]
    TooLarge(usize),
    /// Not strict JSON.
    #[error("{FILE} is not strict JSON")]
    Json(#[source] JsonError),
    /// JSON, and not a floor.
    #[error("{FILE}, field {path}: {reason}")]
    Field {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Right in content, and not in the canonical form.
    #[error("{FILE} is not canonical JSON")]
    NotCanonical,
    /// Older than what is known.
    #[error("{FILE} has serial {offered}; {known} is known already")]
    Backwards {
        /// The one offered.
        offered: u64,
        /// The one known.
        known: u64,
    },
    /// A floor that sinks.
    #[error("{FILE} has sequence {offered}; the floor was at {known}, and it never sinks")]
    Sinks {
        /// The one offered.
        offered: u64,
        /// The one known.
        known: u64,
    },
}

/// What a cluster remembers of the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFloor {
    /// Serial of the newest file.
    pub serial: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// Reads a floor from bytes that the release root vouches for.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(authentic: &Authentic) -> Result<Verified<ReleaseFloor>, FloorError> {
    if authentic.target() != FILE {
        return Err(FloorError::OtherTarget(authentic.target().to_owned()));
    }
    Ok(Verified::new(read(authentic.bytes())?, *authentic.sha256()))
}

/// Reads a floor strictly, whoever vouches for it: for the publisher.
///
/// # Errors
/// As [`verify`].
pub fn read(bytes: &[u8]) -> Result<ReleaseFloor, FloorError> {
    if bytes.len() > MAX_FILE {
        return Err(FloorError::TooLarge(bytes.len()));
    }
    let value = canonical::parse(bytes, DEPTH).map_err(FloorError::Json)?;
    let floor: ReleaseFloor = serde_path_to_error::deserialize(value).map_err(|error| {
        FloorError::Field { path: error.path().to_string(), reason: error.inner().to_string() }
    })?;
    check(&floor)?;
    if floor.canonical_bytes() != bytes {
        return Err(FloorError::NotCanonical);
    }
    Ok(floor)
}

fn check(floor: &ReleaseFloor) -> Result<(), FloorError> {
    let wrong = |path: String, reason: String| Err(FloorError::Field { path, reason });
    if floor.schema != SCHEMA {
        return wrong("schema".into(), format!("{} is not known", floor.schema));
    }
    let positive = |path: String, number: u64| match number {
        0 | u64::MAX => wrong(path, format!("{number} is not in 1 to {}", u64::MAX - 1)),
        _ => Ok(()),
    };
    positive("serial".into(), floor.serial)?;
    positive("sequence".into(), floor.sequence)?;
    Ok(())
}

impl ReleaseFloor {
    /// The one form in which it is published and verified.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "plain structs with string keys always serialise")]
        let value = serde_json::to_value(self).expect("the floor serialises");
        canonical::bytes(&value)
    }

    /// What is to be remembered once it is accepted.
    ///
    /// # Errors
    /// When it is older than what is known, or lower.
    pub fn follow(&self, known: Option<KnownFloor>) -> Result<KnownFloor, FloorError> {
        if let Some(known) = known {
            if self.serial < known.serial {
                return Err(FloorError::Backwards { offered: self.serial, known: known.serial });
            }
            if self.sequence < known.sequence {
                return Err(FloorError::Sinks { offered: self.sequence, known: known.sequence });
            }
        }
        Ok(KnownFloor { serial: self.serial, sequence: self.sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor() -> ReleaseFloor {
        let signed_at = "2026-11-22T12:00:00Z".parse().unwrap();
        ReleaseFloor { schema: SCHEMA, serial: 4, signed_at, sequence: 5 }
    }

    #[test]
    fn the_canonical_form_is_read_back_and_no_other() {
        let bytes = floor().canonical_bytes();
        assert_eq!(read(&bytes), Ok(floor()));
        let spaced = [b" ".as_slice(), &bytes].concat();
        assert!(read(&spaced).is_err());
        for (path, change) in [
            ("schema", (|f: &mut ReleaseFloor| f.schema = 2) as fn(&mut ReleaseFloor)),
            ("serial", |f| f.serial = 0),
            ("sequence", |f| f.sequence = u64::MAX),
        ] {
            let mut wrong = floor();
            change(&mut wrong);
            let error = read(&wrong.canonical_bytes()).unwrap_err();
            assert!(matches!(&error, FloorError::Field { path: at, .. } if at == path), "{error}");
        }
    }

    #[test]
    fn a_floor_never_goes_back_and_never_sinks() {
        let known = Some(KnownFloor { serial: 4, sequence: 5 });
        assert_eq!(floor().follow(None).map(Some), Ok(known));
        assert_eq!(floor().follow(known).map(Some), Ok(known));
        let older = ReleaseFloor { serial: 3, ..floor() };
        assert_eq!(older.follow(known), Err(FloorError::Backwards { offered: 3, known: 4 }));
        let lower = ReleaseFloor { serial: 5, sequence: 4, ..floor() };
        assert_eq!(lower.follow(known), Err(FloorError::Sinks { offered: 4, known: 5 }));
    }
}
