//! Paths inside the archive. Only the shapes in [`super`]'s table can be made, whatever a pod is called.

use super::ArchiveError;

/// Longest part of a path.
pub(super) const MAX_COMPONENT: usize = 253;

/// Which run of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    /// The one that runs, or the last one.
    Current,
    /// The one before the last restart.
    Previous,
}

impl Run {
    /// `current` or `previous`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// A path inside the archive; only the shapes above can be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

impl EntryPath {
    /// Path of a log. `part` counts from 1 in a log of several entries; none if it is the only one.
    ///
    /// Names may have been redacted: the placeholder's brackets and colons become underscores.
    ///
    /// # Errors
    /// [`ArchiveError::Path`].
    pub fn log(
        namespace: &str,
        pod: &str,
        container: &str,
        run: Run,
        part: Option<u32>,
    ) -> Result<Self, ArchiveError> {
        let (namespace, pod, container) =
            (component(namespace)?, component(pod)?, component(container)?);
        let run = run.name();
        Ok(Self(match part {
            None => format!("logs/{namespace}/{pod}/{container}/{run}.log"),
            Some(part) => format!("logs/{namespace}/{pod}/{container}/{run}.{part:04}.log"),
        }))
    }

    /// `events.jsonl`.
    pub fn events() -> Self {
        Self("events.jsonl".into())
    }

    /// `resources.jsonl`.
    pub fn resources() -> Self {
        Self("resources.jsonl".into())
    }

    /// `status.jsonl`.
    pub fn status() -> Self {
        Self("status.jsonl".into())
    }

    /// `errors.jsonl`.
    pub fn errors() -> Self {
        Self("errors.jsonl".into())
    }

    /// `redaction.json`.
    pub fn redaction() -> Self {
        Self("redaction.json".into())
    }

    /// `manifest.json`.
    pub fn manifest() -> Self {
        Self("manifest.json".into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn component(part: &str) -> Result<String, ArchiveError> {
    let safe: String =
        part.chars().map(|c| if matches!(c, '[' | ']' | ':') { '_' } else { c }).collect();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let only_dots = safe.bytes().all(|b| b == b'.');
    if safe.len() > MAX_COMPONENT || !safe.bytes().all(plain) || only_dots {
        return Err(ArchiveError::Path { part: part.chars().take(MAX_COMPONENT).collect() });
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_archive() {
        for part in ["", ".", "..", "...", "a/b", "a\\b", "/", "a\0b", "a\nb", "é", "\u{202e}a"] {
            assert!(
                EntryPath::log(part, "pod", "c", Run::Current, None).is_err()
                    && EntryPath::log("ns", part, "c", Run::Current, None).is_err()
                    && EntryPath::log("ns", "pod", part, Run::Current, None).is_err(),
                "{part:?}"
            );
        }
        let long = "a".repeat(254);
        assert!(EntryPath::log("ns", &long, "c", Run::Current, None).is_err());
    }

    #[test]
    fn a_redacted_name_becomes_a_plain_one() {
        let path = EntryPath::log("ns", "x-[R:email:0a1b2c3d]", "c", Run::Current, None).unwrap();
        assert_eq!(path.as_str(), "logs/ns/x-_R_email_0a1b2c3d_/c/current.log");
    }
}
