//! Abilities that take both ends. Each names its own when a session begins, in `Hello` and in
//! `Welcome`; what one of them lacks is not used while that session lasts.
//!
//! A protocol version says what every message means; a capability says that something optional is
//! there at all. docs/protocol.md lists them.

use std::fmt;

use mendix_agent_proto::v1;

/// An ability that takes both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// The control plane keeps checkpoints of the audit log, and says which it holds.
    AuditCheckpoints,
    /// It gets leases from the portal and takes snapshots.
    LogSnapshots,
    /// It has the release repository.
    PatchBundles,
    /// It may ask to apply the last committed release again.
    RecoverComponents,
}

/// What this build can, for `Hello`. A name is added with an ability that the other end has to know
/// of before it may be used.
pub const CAPABILITIES: &[Capability] = &[
    Capability::AuditCheckpoints,
    Capability::LogSnapshots,
    Capability::PatchBundles,
    Capability::RecoverComponents,
];

/// What version 1 of the protocol began with: all that may be assumed of a control plane from before
/// capabilities were named.
const ASSUMED: &[Capability] = &[
    Capability::AuditCheckpoints,
    Capability::LogSnapshots,
    Capability::PatchBundles,
    Capability::RecoverComponents,
];

impl Capability {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuditCheckpoints => "audit-checkpoints",
            Self::LogSnapshots => "log-snapshots",
            Self::PatchBundles => "patch-bundles",
            Self::RecoverComponents => "recover-components",
        }
    }

    /// What a cluster goes without when the control plane lacks it.
    pub fn loss(self) -> &'static str {
        match self {
            Self::AuditCheckpoints => {
                "the audit log is not acknowledged, and no log leaves any more once it is full"
            }
            Self::LogSnapshots => "no log can be shared",
            Self::PatchBundles => "no release arrives",
            Self::RecoverComponents => "no recovery can be asked for",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What of ours the control plane of a session lacks. Names of its own that we don't know are
/// nothing to us.
pub(super) fn lacking(said: Option<&v1::Capabilities>) -> Vec<Capability> {
    let has = |ours: &Capability| match said {
        None => ASSUMED.contains(ours),
        Some(theirs) => theirs.names.iter().any(|name| name == ours.as_str()),
    };
    CAPABILITIES.iter().copied().filter(|ours| !has(ours)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> v1::Capabilities {
        v1::Capabilities { names: names.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_control_plane_that_names_nothing_is_not_one_that_can_nothing() {
        assert_eq!(lacking(None), []);
        assert_eq!(lacking(Some(&names(&[]))), CAPABILITIES);
    }

    #[test]
    fn what_we_do_not_know_is_neither_missed_nor_used() {
        let all: Vec<&str> = CAPABILITIES.iter().map(|it| it.as_str()).collect();
        let newer = [&all[..], &["time-travel"]].concat();
        assert_eq!(lacking(Some(&names(&newer))), []);
        assert_eq!(lacking(Some(&names(&all[1..]))), [Capability::AuditCheckpoints]);
    }
}
