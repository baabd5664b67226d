//! Support tickets as the agent sees them: listed by the control plane, which can only withhold,
//! and said to be active by the status key alone.

use mendix_agent_proto::{limits::MAX_GRANT_ENVELOPE, v1};
use thiserror::Error;

use crate::audit::event::one_line;

/// Longest ticket id.
pub const MAX_TICKET_ID: usize = 63;
/// Longest title, bytes.
pub const MAX_TITLE: usize = 256;
/// Most tickets that are followed at once.
pub const MAX_TICKETS: usize = 64;

/// Status of a ticket, in the portal's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// New.
    Open,
    /// Mendix works on it.
    OnHold,
    /// The customer is asked.
    AwaitingYourReply,
    /// Closed. Voids its grant; reopening needs a new one.
    Solved,
    /// A word this build does not know: inactive.
    Unknown,
}

impl Status {
    /// From the word a lease carries. Exact: another spelling is unknown.
    pub fn from_word(word: &str) -> Self {
        match word {
            "OPEN" => Self::Open,
            "ON_HOLD" => Self::OnHold,
            "AWAITING_YOUR_REPLY" => Self::AwaitingYourReply,
            "SOLVED" => Self::Solved,
            _ => Self::Unknown,
        }
    }

    /// From the control plane's list.
    pub fn from_wire(status: v1::TicketStatus) -> Self {
        match status {
            v1::TicketStatus::Open => Self::Open,
            v1::TicketStatus::OnHold => Self::OnHold,
            v1::TicketStatus::AwaitingYourReply => Self::AwaitingYourReply,
            v1::TicketStatus::Solved => Self::Solved,
            v1::TicketStatus::Unspecified => Self::Unknown,
        }
    }

    /// Whether logs may be shared in this status.
    pub fn is_active(self) -> bool {
        match self {
            Self::Open | Self::OnHold | Self::AwaitingYourReply => true,
            Self::Solved | Self::Unknown => false,
        }
    }

    /// The portal's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::OnHold => "ON_HOLD",
            Self::AwaitingYourReply => "AWAITING_YOUR_REPLY",
            Self::Solved => "SOLVED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Who raised a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A person.
    Customer,
    /// The platform, after initialization failed again. Carries no consent.
    Automatic,
    /// Not said.
    Unknown,
}

impl Origin {
    /// The portal's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER",
            Self::Automatic => "AUTOMATIC",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A ticket in the desired state, checked for form. Its grant is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// `[A-Za-z0-9]` and inner `-`, at most [`MAX_TICKET_ID`].
    pub id: String,
    /// As the control plane says; it can end consent, never give it.
    pub status: Status,
    /// Who raised it.
    pub origin: Origin,
    /// CRITICAL, HIGH, MEDIUM, LOW or UNKNOWN.
    pub severity: &'static str,
    /// One line for people, cut and cleaned.
    pub title: String,
    /// DSSE envelope; empty when there is no grant.
    pub grant_envelope: Vec<u8>,
}

/// Why a listed ticket is ignored.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TicketError {
    /// Its id can't be used.
    #[error(
        "a ticket id must be 1 to {MAX_TICKET_ID} of [A-Za-z0-9-], beginning and ending with a letter or digit"
    )]
    Id,
    /// Its grant is too large to be looked at.
    #[error("ticket {ticket}: its grant has {size} bytes; at most {MAX_GRANT_ENVELOPE} are read")]
    GrantSize {
        /// The ticket.
        ticket: String,
        /// Bytes.
        size: usize,
    },
}

impl Ticket {
    /// Reads an entry of the desired state.
    ///
    /// # Errors
    /// [`TicketError`] when its id or size is out of bounds.
    pub fn from_wire(wire: &v1::Ticket) -> Result<Self, TicketError> {
        let id = &wire.ticket_id;
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let bytes = id.as_bytes();
        if id.len() > MAX_TICKET_ID || !plain || !edge(bytes.first()) || !edge(bytes.last()) {
            return Err(TicketError::Id);
        }
        if wire.grant_envelope.len() > MAX_GRANT_ENVELOPE {
            return Err(TicketError::GrantSize {
                ticket: id.clone(),
                size: wire.grant_envelope.len(),
            });
        }
        Ok(Self {
            id: id.clone(),
            status: Status::from_wire(wire.status()),
            origin: match wire.origin() {
                v1::TicketOrigin::Customer => Origin::Customer,
                v1::TicketOrigin::Automatic => Origin::Automatic,
                v1::TicketOrigin::Unspecified => Origin::Unknown,
            },
            severity: match wire.severity() {
                v1::TicketSeverity::Critical => "CRITICAL",
                v1::TicketSeverity::High => "HIGH",
                v1::TicketSeverity::Medium => "MEDIUM",
                v1::TicketSeverity::Low => "LOW",
                v1::TicketSeverity::Unspecified => "UNKNOWN",
            },
            title: one_line(&wire.title, MAX_TITLE),
            grant_envelope: wire.grant_envelope.clone(),
        })
    }

    /// Name of its SupportTicket object: ids that differ only in case share one.
    pub fn object_name(&self) -> String {
        self.id.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(id: &str) -> v1::Ticket {
        v1::Ticket {
            ticket_id: id.into(),
            status: v1::TicketStatus::Open.into(),
            origin: v1::TicketOrigin::Customer.into(),
            ..Default::default()
        }
    }

    #[test]
    fn only_three_statuses_are_active() {
        for (word, active) in [
            ("OPEN", true),
            ("ON_HOLD", true),
            ("AWAITING_YOUR_REPLY", true),
            ("SOLVED", false),
            ("PENDING", false),
            ("open", false),
            ("OPEN ", false),
            ("", false),
        ] {
            assert_eq!(Status::from_word(word).is_active(), active, "{word:?}");
        }
        assert!(!Status::from_wire(v1::TicketStatus::Unspecified).is_active());
    }

    #[test]
    fn a_status_number_this_build_does_not_know_is_inactive() {
        let ticket = v1::Ticket { status: 99, ..wire("MX-1") };
        assert_eq!(Ticket::from_wire(&ticket).unwrap().status, Status::Unknown);
    }

    #[test]
    fn ids_that_could_not_name_an_object_are_ignored() {
        for id in ["", "-a", "a-", "../a", "a/b", "a b", "ä", "a.b", &"a".repeat(64)] {
            assert_eq!(Ticket::from_wire(&wire(id)), Err(TicketError::Id), "{id:?}");
        }
        assert_eq!(Ticket::from_wire(&wire("MX-1001")).unwrap().object_name(), "mx-1001");
    }

    #[test]
    fn titles_become_one_harmless_line() {
        let mut ticket = wire("a");
        ticket.title = format!("\u{1b}[31mred\nnext\u{202e}{}", "é".repeat(200));
        let title = Ticket::from_wire(&ticket).unwrap().title;
        assert!(title.starts_with("[31mred next "), "{title}");
        assert!(title.len() <= MAX_TITLE && !title.chars().any(char::is_control));
    }
}
