//! Dotted versions, compared as numbers.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A version as numbers: `v1.34.2-aks` is 1, 34, 2. Missing parts count as zero; what follows a `-`
/// or `+` is left out, since platforms put their own marks there (`v1.34.2-gke.100`) and a range
/// over Kubernetes versions doesn't mean those.
#[derive(Clone, Debug)]
pub struct Version(Vec<u64>);

/// Not a dotted version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a version of 1 to 4 numbers joined by dots")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let refused = || VersionError(text.chars().take(64).collect());
        let core = text.strip_prefix('v').unwrap_or(text);
        let core = core.split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<u64> = core
            .split('.')
            .map(|part| {
                // `parse` alone would take "+1".
                if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
            })
            .collect::<Option<_>>()
            .ok_or_else(refused)?;
        if parts.len() > 4 { Err(refused()) } else { Ok(Self(parts)) }
    }
}

impl Version {
    fn part(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// This version cut or padded to `parts` numbers.
    fn at(&self, parts: usize) -> impl Iterator<Item = u64> {
        (0..parts).map(|index| self.part(index))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = self.0.len().max(other.0.len());
        self.at(parts).cmp(other.at(parts))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// Inclusive bounds on a dotted version, compared as numbers (1.9 < 1.10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRange {
    /// Lowest version; absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// Highest version; absent: no bound. `1.34` includes every `1.34.x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

impl VersionRange {
    /// Whether `version` lies inside. A maximum of fewer numbers includes everything below it:
    /// `1.34` includes `1.34.9`.
    ///
    /// # Errors
    /// When `version` or a bound is not a version. (Bounds of a verified index always are.)
    pub fn contains(&self, version: &str) -> Result<bool, VersionError> {
        let version: Version = version.parse()?;
        if let Some(min) = &self.min
            && version < min.parse()?
        {
            return Ok(false);
        }
        if let Some(max) = &self.max {
            let max: Version = max.parse()?;
            let parts = max.0.len();
            return Ok(version.at(parts).cmp(max.at(parts)) != Ordering::Greater);
        }
        Ok(true)
    }
}

/// `1.30 to 1.34`, `from 1.30`, `up to 1.34`, `any`.
impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "from {min}"),
            (None, Some(max)) => write!(f, "up to {max}"),
            (None, None) => f.write_str("any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(min: &str, max: &str) -> VersionRange {
        let bound = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        VersionRange { min: bound(min), max: bound(max) }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("1.9") < version("1.10"));
        assert!(version("10.9") < version("10.10.0"));
        assert_eq!(version("v1.34"), version("1.34.0"));
        assert_eq!(version("v1.34.2-aks+x"), version("1.34.2"));
    }

    #[test]
    fn what_is_no_version_is_an_error_and_not_zero() {
        for text in ["", "v", "1.", ".1", "1.x", "+1", "1.2.3.4.5", "99999999999999999999", "1,2"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_short_maximum_includes_its_patches() {
        assert!(range("1.30", "1.34").contains("v1.34.9-aks").unwrap());
        assert!(!range("1.30", "1.34").contains("1.35.0").unwrap());
        assert!(!range("1.30", "1.34.2").contains("1.34.3").unwrap());
        assert!(range("1.30", "").contains("1.30.0").unwrap());
        assert!(!range("1.30", "").contains("1.9").unwrap());
        assert!(range("", "").contains("0.1.0").unwrap());
        assert!(range("1.x", "").contains("1.0").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<Version>();
        }
    }
}
