//! Why no log leaves: one stable code per reason, with what to do about it.

use thiserror::Error;

use crate::{envelope::EnvelopeError, redact::custom::PatternError};

/// Why the gate refused, or why consent ended. [`Refusal::code`] is what objects, events, reports
/// and metrics carry.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The control plane does not list the ticket.
    #[error("ticket {ticket} is not known to this cluster")]
    NoTicket {
        /// As requested.
        ticket: String,
    },
    /// The cluster was deleted in the portal.
    #[error("this cluster is deregistered; all consent is void")]
    Deregistered,
    /// A ticket raised by the agent itself, with no act of the customer.
    #[error("ticket {ticket} was raised automatically and carries no consent")]
    AutomaticTicket {
        /// The ticket.
        ticket: String,
    },
    /// Opened without consent to share logs.
    #[error("ticket {ticket} carries no consent to share logs")]
    NoGrant {
        /// The ticket.
        ticket: String,
    },
    /// Not signed by a consent key, or not what was signed.
    #[error("the grant is not a statement of the support portal")]
    GrantInvalid(#[source] EnvelopeError),
    /// Signed, but a field holds what it may not.
    #[error("the grant's field {field} {rule}")]
    GrantField {
        /// The field.
        field: &'static str,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// For another cluster.
    #[error("the grant is for another cluster")]
    WrongCluster,
    /// For another ticket.
    #[error("the grant is for another ticket")]
    WrongTicket,
    /// Consent, but not to sharing logs.
    #[error("the customer did not consent to sharing logs (scope LOG_SHARING is missing)")]
    ScopeMissing,
    /// Too early.
    #[error("the grant is not valid yet")]
    NotYetValid,
    /// Too late.
    #[error("the grant has expired")]
    Expired,
    /// A component that this cluster does not manage.
    #[error("component {component:?} of the grant is not managed in this cluster")]
    ComponentNotManaged {
        /// Its name.
        component: String,
    },
    /// Asked for more than was granted.
    #[error("component {component:?} is outside the grant")]
    ComponentNotGranted {
        /// Its name.
        component: String,
    },
    /// The customer wants more redaction than this build has.
    #[error("the grant asks for redaction policy {wanted}; this agent has {ours}")]
    RedactionTooOld {
        /// In the grant.
        wanted: u32,
        /// In this build.
        ours: u32,
    },
    /// The ticket's key is none.
    #[error("the grant's recipient key is not usable")]
    RecipientKey,
    /// Leases for this grant would be signed by a key that is not pinned.
    #[error("the grant names a status key that is not pinned here")]
    StatusKeyNotPinned,
    /// Solved, deleted, or a status this agent does not know.
    #[error("the ticket is not active (status {status})")]
    TicketInactive {
        /// As it was said.
        status: String,
    },
    /// No proof within 60 s that the ticket is active.
    #[error("no fresh proof that the ticket is active")]
    LeaseMissing,
    /// An answer that does not belong to what was asked.
    #[error("the lease is not an answer to this agent: {what}")]
    LeaseInvalid {
        /// What does not fit.
        what: &'static str,
    },
    /// A lease that is not signed by the grant's status key.
    #[error("the lease is not a statement of the status key")]
    LeaseUnsigned(#[source] EnvelopeError),
    /// There is no LogSharingPolicy.
    #[error("LogSharingPolicy `default` does not exist; without it nothing is shared")]
    PolicyAbsent,
    /// It can't be read, or not recently enough.
    #[error("LogSharingPolicy `default` could not be read for 15 s")]
    PolicyUnreadable,
    /// Mode Deny.
    #[error("LogSharingPolicy `default` says Deny")]
    PolicyDenies,
    /// Suspended.
    #[error("LogSharingPolicy `default` is suspended")]
    PolicySuspended,
    /// A pattern of the customer's can't be used.
    #[error("LogSharingPolicy `default` asks for a pattern that can't be used")]
    PolicyPatterns(#[source] PatternError),
    /// The patterns were changed while a snapshot was being taken.
    #[error("LogSharingPolicy `default` asks for other patterns than when the snapshot began")]
    PatternsChanged,
    /// Everything that was asked for is excluded.
    #[error("LogSharingPolicy `default` excludes every component that was asked for")]
    ComponentsExcluded,
    /// Nothing of the window is left under the policy's maximum.
    #[error("nothing of the grant's window lies within what LogSharingPolicy `default` allows")]
    WindowExcluded,
    /// Voided for good: the ticket was solved, or it or the cluster deleted.
    #[error("the grant was voided ({reason}) and does not come back")]
    GrantVoided {
        /// Why it was voided.
        reason: String,
    },
    /// All snapshots used.
    #[error("all {allowed} snapshots of the grant are used")]
    SnapshotsSpent {
        /// In the grant.
        allowed: u32,
    },
    /// All bytes used.
    #[error("all {allowed} bytes of the grant are used")]
    BytesSpent {
        /// In the grant.
        allowed: u64,
    },
    /// The key that signed the grant is not pinned any more.
    #[error("key {keyid}, which signed the grant, is not pinned any more")]
    KeyRotated {
        /// Its name.
        keyid: String,
    },
    /// The decision can't be written down: nothing is sent.
    #[error("the audit log can't be written: {what}")]
    AuditUnavailable {
        /// What happened.
        what: String,
    },
    /// There is no room to write the decision down: nothing is sent.
    #[error("{what}")]
    AuditFull {
        /// What keeps it full.
        what: String,
    },
    /// What was spent can't be read or written: nothing is spent, nothing is sent.
    #[error("the record of what was spent can't be kept: {what}")]
    LedgerUnavailable {
        /// What happened.
        what: String,
    },
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoTicket { .. } => "NoTicket",
            Self::Deregistered => "Deregistered",
            Self::AutomaticTicket { .. } => "AutomaticTicket",
            Self::NoGrant { .. } => "NoGrant",
            Self::GrantInvalid(_) => "GrantInvalid",
            Self::GrantField { .. } => "GrantField",
            Self::WrongCluster => "WrongCluster",
            Self::WrongTicket => "WrongTicket",
            Self::ScopeMissing => "ScopeMissing",
            Self::NotYetValid => "NotYetValid",
            Self::Expired => "Expired",
            Self::ComponentNotManaged { .. } => "ComponentNotManaged",
            Self::ComponentNotGranted { .. } => "ComponentNotGranted",
            Self::RedactionTooOld { .. } => "RedactionTooOld",
            Self::RecipientKey => "RecipientKey",
            Self::StatusKeyNotPinned => "StatusKeyNotPinned",
            Self::TicketInactive { .. } => "TicketInactive",
            Self::LeaseMissing => "LeaseMissing",
            Self::LeaseInvalid { .. } => "LeaseInvalid",
            Self::LeaseUnsigned(_) => "LeaseUnsigned",
            Self::PolicyAbsent => "PolicyAbsent",
            Self::PolicyUnreadable => "PolicyUnreadable",
            Self::PolicyDenies => "PolicyDenies",
            Self::PolicySuspended => "PolicySuspended",
            Self::ComponentsExcluded => "ComponentsExcluded",
            Self::WindowExcluded => "WindowExcluded",
            Self::GrantVoided { .. } => "GrantVoided",
            Self::SnapshotsSpent { .. } => "SnapshotsSpent",
            Self::BytesSpent { .. } => "BytesSpent",
            Self::PolicyPatterns(_) => "PolicyPatterns",
            Self::PatternsChanged => "PatternsChanged",
            Self::KeyRotated { .. } => "KeyRotated",
            Self::AuditUnavailable { .. } => "AuditUnavailable",
            Self::AuditFull { .. } => "AuditFull",
            Self::LedgerUnavailable { .. } => "LedgerUnavailable",
        }
    }

    /// What whoever reads this can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NoTicket { .. } => {
                "open the ticket for this cluster in the portal, then ask again"
            }
            Self::Deregistered => "nothing: a deleted cluster shares no logs",
            Self::AutomaticTicket { .. } | Self::NoGrant { .. } | Self::ScopeMissing => {
                "ask the customer to consent to sharing logs in the ticket"
            }
            Self::GrantInvalid(_)
            | Self::GrantField { .. }
            | Self::WrongCluster
            | Self::WrongTicket
            | Self::KeyRotated { .. }
            | Self::RecipientKey => "have the portal issue a new grant for this ticket",
            Self::NotYetValid => "ask again once the grant is valid; check the clocks",
            Self::Expired | Self::GrantVoided { .. } => {
                "ask the customer to consent again in an open ticket"
            }
            Self::ComponentNotManaged { .. } => {
                "have a grant issued that names only components of `kubectl get managedcomponents`"
            }
            Self::ComponentNotGranted { .. } => "ask only for components that the grant names",
            Self::RedactionTooOld { .. } => "upgrade the agent, then ask again",
            Self::StatusKeyNotPinned => {
                "have the portal sign with a pinned status key, or rotate the consent keys"
            }
            Self::TicketInactive { .. } => "reopen the ticket with a new consent, then ask again",
            Self::LeaseMissing => "check that the control plane can reach the portal, ask again",
            Self::LeaseInvalid { .. } | Self::LeaseUnsigned(_) => {
                "check the portal's status key and clock; report it if it repeats"
            }
            Self::PolicyAbsent => {
                "the customer may create LogSharingPolicy `default` with mode WithConsent"
            }
            Self::PolicyUnreadable => "check the Kubernetes API and the agent's RBAC",
            Self::PolicyPatterns(_) => "the customer has to mend spec.extraPatterns of it",
            Self::PatternsChanged => "ask again: the next snapshot is taken with the new patterns",
            Self::AuditUnavailable { .. } => {
                "check the ConfigMaps audit-… of the agent's namespace and the Kubernetes API"
            }
            Self::AuditFull { .. } => {
                "restore the session with the control plane, which then acknowledges the log"
            }
            Self::PolicyDenies
            | Self::PolicySuspended
            | Self::ComponentsExcluded
            | Self::WindowExcluded => "the customer decides: edit LogSharingPolicy `default`",
            Self::SnapshotsSpent { .. } | Self::BytesSpent { .. } => {
                "ask the customer for a new consent with a new budget"
            }
            Self::LedgerUnavailable { .. } => {
                "check Secret mendix-agent-consent-ledger and the Kubernetes API"
            }
        }
    }

    /// Cause chain in one line, then what to do.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        format!("{text}; {}", self.next_step())
    }
}
