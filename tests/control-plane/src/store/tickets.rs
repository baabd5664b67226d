//! Support tickets of a cluster and their grants.

use jiff::Timestamp;
use mendix_agent_proto::v1;
use serde::{Deserialize, Serialize};

use super::{
    RequestKind, RequestRecord, Revised, Store, StoreError, check_id, clusters::refuse_deleted,
};

/// Longest title of a ticket, bytes.
pub const MAX_TITLE: usize = 256;
/// Solved tickets that stay in the desired state, so that an agent that was away learns of it.
const SOLVED_KEPT: usize = 16;

/// A support ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRecord {
    /// Its id.
    pub ticket_id: String,
    /// The cluster it is about.
    pub cluster_uid: String,
    /// Where it stands.
    pub status: TicketStatus,
    /// Who opened it.
    pub origin: TicketOrigin,
    /// How bad it is.
    pub severity: TicketSeverity,
    /// One line.
    pub title: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When its status changed last.
    pub changed_at: Timestamp,
    /// The customer's consent; absent when there is none.
    pub grant: Option<TicketGrant>,
}

/// A grant as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketGrant {
    /// DSSE envelope, JSON text, byte for byte as sent.
    pub envelope: String,
    /// SHA-256 of the envelope, hex: the grant's name in leases and uploads.
    pub sha256: String,
    /// X25519 public key of the ticket, base64: who can read its snapshots.
    pub recipient: String,
    /// Sealed bytes it allows in all.
    pub budget_bytes: u64,
    /// Sequence of the last lease.
    pub lease_sequence: u64,
}

/// Status of a ticket, in the portal's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TicketStatus {
    /// Opened and not answered yet.
    Open,
    /// Parked.
    OnHold,
    /// Waits for the customer.
    AwaitingYourReply,
    /// Over. Consent ends with it.
    Solved,
}

/// Who opened a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TicketOrigin {
    /// A person.
    Customer,
    /// The portal, when cluster initialization failed again; carries no consent.
    Automatic,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TicketSeverity {
    /// Production is down.
    Critical,
    /// Production suffers.
    High,
    /// Somebody is hindered.
    Medium,
    /// A question.
    Low,
}

impl TicketStatus {
    /// Whether leases are given and uploads accepted.
    pub fn is_active(self) -> bool {
        match self {
            Self::Open | Self::OnHold | Self::AwaitingYourReply => true,
            Self::Solved => false,
        }
    }

    /// The word on the wire and in leases.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::OnHold => "ON_HOLD",
            Self::AwaitingYourReply => "AWAITING_YOUR_REPLY",
            Self::Solved => "SOLVED",
        }
    }
}

impl TicketRecord {
    /// Whether leases are given and uploads accepted.
    pub fn is_active(&self) -> bool {
        self.status.is_active()
    }

    fn to_proto(&self) -> v1::Ticket {
        let status = match self.status {
            TicketStatus::Open => v1::TicketStatus::Open,
            TicketStatus::OnHold => v1::TicketStatus::OnHold,
            TicketStatus::AwaitingYourReply => v1::TicketStatus::AwaitingYourReply,
            TicketStatus::Solved => v1::TicketStatus::Solved,
        };
        let origin = match self.origin {
            TicketOrigin::Customer => v1::TicketOrigin::Customer,
            TicketOrigin::Automatic => v1::TicketOrigin::Automatic,
        };
        let severity = match self.severity {
            TicketSeverity::Critical => v1::TicketSeverity::Critical,
            TicketSeverity::High => v1::TicketSeverity::High,
            TicketSeverity::Medium => v1::TicketSeverity::Medium,
            TicketSeverity::Low => v1::TicketSeverity::Low,
        };
        let grant = self.grant.as_ref().map(|grant| grant.envelope.clone().into_bytes());
        v1::Ticket {
            ticket_id: self.ticket_id.clone(),
            status: status.into(),
            origin: origin.into(),
            severity: severity.into(),
            title: self.title.clone(),
            grant_envelope: grant.unwrap_or_default(),
        }
    }
}

/// The section with a cluster's tickets: the active ones and the last solved ones.
pub(super) fn section(
    tickets: &Revised<Vec<TicketRecord>>,
    consent_keys_sequence: u64,
) -> v1::DesiredSection {
    let mut solved: Vec<_> = tickets.value.iter().filter(|ticket| !ticket.is_active()).collect();
    solved.sort_by_key(|ticket| std::cmp::Reverse(ticket.changed_at));
    solved.truncate(SOLVED_KEPT);
    let sent = tickets.value.iter().filter(|ticket| ticket.is_active() || solved.contains(ticket));
    let tickets_sent = sent.map(TicketRecord::to_proto).collect();
    let sent = v1::TicketsSection { tickets: tickets_sent, consent_keys_sequence };
    v1::DesiredSection {
        section: v1::Section::Tickets.into(),
        revision: tickets.revision,
        body: Some(v1::desired_section::Body::Tickets(sent)),
    }
}

/// One line of what the agent said.
fn initialization_title(report: &v1::InitializationReport) -> String {
    let check = match report.failing_check.as_str() {
        "" => String::new(),
        check => format!(" ({check})"),
    };
    let title = format!(
        "Initialization failed again: attempt {} at {}{check}",
        report.attempt, report.phase
    );
    let mut title: String = title.chars().filter(|c| !c.is_control()).collect();
    title.truncate(title.floor_char_boundary(MAX_TITLE));
    title
}

impl Store {
    /// All tickets, by cluster, in the order in which they were opened.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn tickets(&self) -> Result<Vec<TicketRecord>, StoreError> {
        Ok(self.clusters()?.into_iter().flat_map(|cluster| cluster.tickets.value).collect())
    }

    /// One ticket.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none of this id.
    pub fn ticket(&self, ticket_id: &str) -> Result<TicketRecord, StoreError> {
        self.tickets()?
            .into_iter()
            .find(|ticket| ticket.ticket_id == ticket_id)
            .ok_or_else(|| no_ticket(ticket_id))
    }

    /// An id for the next ticket.
    pub(crate) fn next_ticket_id(&self) -> Result<String, StoreError> {
        let highest = self
            .tickets()?
            .iter()
            .filter_map(|ticket| ticket.ticket_id.strip_prefix("t-")?.parse::<u64>().ok())
            .max()
            .unwrap_or(1000);
        Ok(format!("t-{}", highest + 1))
    }

    /// Refuses a ticket that could not be added.
    pub(crate) fn check_ticket(&self, ticket_id: &str, title: &str) -> Result<(), StoreError> {
        check_id("ticket", ticket_id)?;
        if title.len() > MAX_TITLE || title.chars().any(char::is_control) {
            return Err(StoreError::Refused(format!(
                "the title of a ticket is one line of at most {MAX_TITLE} bytes"
            )));
        }
        if self.tickets()?.iter().any(|other| other.ticket_id == ticket_id) {
            return Err(StoreError::Exists {
                what: "ticket",
                name: ticket_id.to_owned(),
                hint: "; choose another --id",
            });
        }
        Ok(())
    }

    /// Adds a ticket. One that carries a grant also places a request for one snapshot: a ticket
    /// includes recent logs.
    pub(crate) fn add_ticket(
        &self,
        ticket: &TicketRecord,
    ) -> Result<Option<RequestRecord>, StoreError> {
        let lock = self.lock()?;
        self.check_ticket(&ticket.ticket_id, &ticket.title)?;
        let request = match &ticket.grant {
            Some(_) => Some(RequestRecord::new(RequestKind::Snapshot {
                ticket_id: ticket.ticket_id.clone(),
                components: Vec::new(),
            })?),
            None => None,
        };
        self.change_desired_under(&lock, &ticket.cluster_uid, |cluster| {
            refuse_deleted(cluster)?;
            cluster.tickets.revise().push(ticket.clone());
            if let Some(request) = &request {
                cluster.requests.revise().push(request.clone());
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// Opens an automatic ticket, which carries no consent, because an attempt to initialize failed
    /// that was a rerun: one per attempt, and none beside one that is active. The agent says so again
    /// and again; only a new attempt is worth the lock.
    pub(crate) fn ticket_for_initialization(
        &self,
        uid: &str,
        report: &v1::InitializationReport,
    ) -> Result<Option<TicketRecord>, StoreError> {
        if self.cluster(uid)?.ticketed_attempt >= report.attempt {
            return Ok(None);
        }
        let lock = self.lock()?;
        let now = Timestamp::now();
        let ticket = TicketRecord {
            ticket_id: self.next_ticket_id()?,
            cluster_uid: uid.to_owned(),
            status: TicketStatus::Open,
            origin: TicketOrigin::Automatic,
            severity: TicketSeverity::High,
            title: initialization_title(report),
            opened_at: now,
            changed_at: now,
            grant: None,
        };
        self.check_ticket(&ticket.ticket_id, &ticket.title)?;
        self.change_desired_under(&lock, uid, |cluster| {
            refuse_deleted(cluster)?;
            if cluster.ticketed_attempt >= report.attempt {
                return Ok(None);
            }
            cluster.ticketed_attempt = report.attempt;
            let automatic =
                |other: &TicketRecord| other.is_active() && other.origin == TicketOrigin::Automatic;
            if cluster.tickets.value.iter().any(automatic) {
                return Ok(None);
            }
            cluster.tickets.revise().push(ticket.clone());
            Ok(Some(ticket))
        })
    }

    /// Gives a ticket another grant, or its first, and places a request for one snapshot under it.
    /// A solved ticket is open again with it.
    pub(crate) fn grant_ticket(
        &self,
        ticket_id: &str,
        grant: TicketGrant,
    ) -> Result<(TicketRecord, RequestRecord), StoreError> {
        let uid = self.ticket(ticket_id)?.cluster_uid;
        let request = RequestRecord::new(RequestKind::Snapshot {
            ticket_id: ticket_id.to_owned(),
            components: Vec::new(),
        })?;
        self.change_desired(&uid, |cluster| {
            refuse_deleted(cluster)?;
            let ticket = cluster
                .tickets
                .revise()
                .iter_mut()
                .find(|ticket| ticket.ticket_id == ticket_id)
                .ok_or_else(|| no_ticket(ticket_id))?;
            if ticket.status == TicketStatus::Solved {
                ticket.status = TicketStatus::Open;
            }
            ticket.grant = Some(grant);
            ticket.changed_at = Timestamp::now();
            let ticket = ticket.clone();
            cluster.requests.revise().push(request.clone());
            Ok((ticket, request))
        })
    }

    /// Deletes a ticket, and with it its consent. Its requests are answered by the agent.
    ///
    /// # Errors
    /// When there is no such ticket.
    pub fn delete_ticket(&self, ticket_id: &str) -> Result<(), StoreError> {
        let uid = self.ticket(ticket_id)?.cluster_uid;
        self.change_desired(&uid, |cluster| {
            cluster.tickets.revise().retain(|ticket| ticket.ticket_id != ticket_id);
            Ok(())
        })
    }

    /// Changes a ticket's status.
    ///
    /// # Errors
    /// When there is no such ticket, or it is solved: reopening needs a new grant.
    pub fn set_ticket_status(
        &self,
        ticket_id: &str,
        status: TicketStatus,
    ) -> Result<TicketRecord, StoreError> {
        let uid = self.ticket(ticket_id)?.cluster_uid;
        self.change_desired(&uid, |cluster| {
            let ticket = cluster
                .tickets
                .revise()
                .iter_mut()
                .find(|ticket| ticket.ticket_id == ticket_id)
                .ok_or_else(|| no_ticket(ticket_id))?;
            if ticket.status == TicketStatus::Solved && status != TicketStatus::Solved {
                return Err(StoreError::Refused(format!(
                    "ticket {ticket_id} is solved; `ticket grant` opens it again with a new consent"
                )));
            }
            ticket.status = status;
            ticket.changed_at = Timestamp::now();
            Ok(ticket.clone())
        })
    }

    /// The next lease sequence of a grant whose ticket is active; `None` when it is not. Durable
    /// before it is returned, so that no restart gives a number twice.
    pub(crate) fn next_lease(
        &self,
        uid: &str,
        grant_sha256: &str,
    ) -> Result<Option<(TicketRecord, u64)>, StoreError> {
        let carries = |ticket: &TicketRecord| {
            ticket.is_active()
                && ticket.grant.as_ref().is_some_and(|grant| grant.sha256 == grant_sha256)
        };
        // A refusal writes nothing.
        if !self.cluster(uid)?.tickets.value.iter().any(carries) {
            return Ok(None);
        }
        self.update_cluster(uid, |cluster| {
            let active = cluster.tickets.value.iter_mut().find(|ticket| carries(ticket));
            Ok(active.and_then(|ticket| {
                let grant = ticket.grant.as_mut()?;
                grant.lease_sequence += 1;
                let sequence = grant.lease_sequence;
                Some((ticket.clone(), sequence))
            }))
        })
    }
}

fn no_ticket(ticket_id: &str) -> StoreError {
    StoreError::NotFound { what: "ticket", name: ticket_id.to_owned(), list: "ticket list" }
}
