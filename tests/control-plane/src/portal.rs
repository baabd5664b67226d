//! The support portal's part: consent key, status key, tickets with the customer's grants, leases.
//!
//! In production it lives in another tenant. Here it is a folder of its own; nothing of the channel
//! CA or the release root is read by this module.

mod keys;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::{
    consent::{
        grant::{Budget, DataClass, GRANT_PAYLOAD_TYPE, Grant, Scope, Window},
        lease::{LEASE_PAYLOAD_TYPE, Lease},
    },
    envelope::KeyError,
    seal::{self, RecipientPrivateKey, SealError},
};
use mendix_agent_proto::limits;
use thiserror::Error;

pub(crate) use self::keys::create;
use self::keys::{CONSENT, STATUS, signing_key};
pub use self::keys::{Rotation, rotate_keys};
use crate::{
    crypto,
    repository::RepositoryError,
    store::{
        RequestRecord, Store, StoreError, TicketGrant, TicketOrigin, TicketRecord, TicketSeverity,
        TicketStatus, files,
    },
};

/// Longest life of a grant.
pub const MAX_GRANT_HOURS: u32 = 72;
/// Longest look back of a grant's window.
pub const MAX_LOOKBACK_HOURS: u32 = 7 * 24;

/// Why the portal could not do its part.
#[derive(Debug, Error)]
pub enum PortalError {
    /// State can't be read or written, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key file is not usable.
    #[error("the portal's key {name}")]
    Key {
        /// Its file.
        name: &'static str,
        /// The cause.
        #[source]
        source: KeyError,
    },
    /// No key could be made.
    #[error("the system gave no randomness for the portal's key {name}")]
    NoRandomness {
        /// Its file.
        name: &'static str,
    },
    /// The key of a ticket can't be made or read.
    #[error("the key of ticket {ticket_id}")]
    TicketKey {
        /// The ticket.
        ticket_id: String,
        /// The cause.
        #[source]
        source: SealError,
    },
    /// The keys can't be published.
    #[error("publish the portal's keys")]
    Publish(#[from] RepositoryError),
    /// The pins can't be read.
    #[error("read the pins that agents are installed with")]
    Pins(#[source] serde_json::Error),
    /// The grant asks for what no agent accepts.
    #[error("the grant: {0}")]
    Grant(String),
}

/// What a customer consents to when a ticket is opened.
#[derive(Clone, Debug)]
pub struct GrantTerms {
    /// Components by exact name; at least one.
    pub components: Vec<String>,
    /// What may leave.
    pub data_classes: Vec<DataClass>,
    /// Also, or only, a look at the environment. Never implies logs.
    pub scopes: Vec<Scope>,
    /// How long the grant is good, hours (1 to [`MAX_GRANT_HOURS`]).
    pub hours: u32,
    /// How far back logs may be read, hours (1 to [`MAX_LOOKBACK_HOURS`]).
    pub lookback_hours: u32,
    /// Snapshots and bytes in all.
    pub budget: Budget,
    /// Oldest redaction policy that is good enough.
    pub min_redaction_policy: u32,
    /// Who consented.
    pub consented_by: String,
}

impl GrantTerms {
    /// The portal's defaults for some components: 24 h, five snapshots, everything but the
    /// customer's own application logs.
    pub fn for_components(components: Vec<String>) -> Self {
        Self {
            components,
            data_classes: vec![DataClass::ComponentLogs, DataClass::Events, DataClass::Status],
            scopes: vec![Scope::LogSharing],
            hours: 24,
            lookback_hours: 24,
            budget: Budget { snapshots: 5, bytes: 256 * 1024 * 1024 },
            min_redaction_policy: 1,
            consented_by: "portal user".to_owned(),
        }
    }

    fn check(&self) -> Result<(), PortalError> {
        let refuse = |reason: String| Err(PortalError::Grant(reason));
        if self.components.is_empty() {
            return refuse("it names no component; say which with --components".to_owned());
        }
        if let Some(pattern) =
            self.components.iter().find(|name| crate::store::check_id("component", name).is_err())
        {
            return refuse(format!(
                "{pattern:?} is not the name of a component; patterns don't count"
            ));
        }
        for (what, value, max) in [
            ("hours", self.hours, MAX_GRANT_HOURS),
            ("lookback hours", self.lookback_hours, MAX_LOOKBACK_HOURS),
        ] {
            if value == 0 || value > max {
                return refuse(format!("{value} {what}; 1 to {max} are possible"));
            }
        }
        Ok(())
    }
}

/// A ticket about to be opened.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// Its id; made when absent.
    pub ticket_id: Option<String>,
    /// The cluster it is about.
    pub cluster_uid: String,
    /// One line.
    pub title: String,
    /// How bad it is.
    pub severity: TicketSeverity,
    /// Who opens it.
    pub origin: TicketOrigin,
    /// The customer's consent, if it was given.
    pub grant: Option<GrantTerms>,
}

/// Opens a ticket. With consent it gets a key pair of its own, a signed grant and a request for one
/// snapshot.
///
/// # Errors
/// When the cluster is not registered or deleted, the id is taken, the terms are not acceptable, or
/// an automatic ticket is to carry a grant.
pub fn open_ticket(
    store: &Store,
    new: NewTicket,
) -> Result<(TicketRecord, Option<RequestRecord>), PortalError> {
    let ticket_id = match new.ticket_id {
        Some(id) => id,
        None => store.next_ticket_id()?,
    };
    store.check_ticket(&ticket_id, &new.title)?;
    let cluster = store.cluster(&new.cluster_uid)?;
    let now = Timestamp::now();
    let grant = match &new.grant {
        Some(_) if new.origin == TicketOrigin::Automatic => {
            return Err(PortalError::Grant(
                "an automatic ticket carries no consent; open it without --grant".to_owned(),
            ));
        }
        Some(terms) => Some(sign_grant(store, &ticket_id, &cluster.uid, terms, now)?),
        None => None,
    };
    let ticket = TicketRecord {
        ticket_id,
        cluster_uid: cluster.uid,
        status: TicketStatus::Open,
        origin: new.origin,
        severity: new.severity,
        title: new.title,
        opened_at: now,
        changed_at: now,
        grant,
    };
    let request = store.add_ticket(&ticket)?;
    Ok((ticket, request))
}

/// Adds a customer's consent to a ticket that has none, or opens a solved one again with a new
/// consent. It gets a key pair of its own, and a snapshot is requested.
///
/// # Errors
/// When there is no such ticket, its cluster was deleted, or the terms are not acceptable.
pub fn grant_ticket(
    store: &Store,
    ticket_id: &str,
    terms: &GrantTerms,
) -> Result<(TicketRecord, RequestRecord), PortalError> {
    let ticket = store.ticket(ticket_id)?;
    let grant = sign_grant(store, ticket_id, &ticket.cluster_uid, terms, Timestamp::now())?;
    Ok(store.grant_ticket(ticket_id, grant)?)
}

fn sign_grant(
    store: &Store,
    ticket_id: &str,
    cluster_uid: &str,
    terms: &GrantTerms,
    now: Timestamp,
) -> Result<TicketGrant, PortalError> {
    terms.check()?;
    let key_error = |source| PortalError::TicketKey { ticket_id: ticket_id.to_owned(), source };
    let (public, private) = seal::generate_recipient_keypair().map_err(key_error)?;
    let recipient = public.to_base64();
    files::write(
        &ticket_key_path(store, ticket_id, &recipient),
        BASE64_STANDARD.encode(private.secret_bytes()).as_bytes(),
        files::Access::Owner,
    )?;
    let expires_at = now + SignedDuration::from_hours(terms.hours.into());
    let grant = Grant {
        version: 1,
        grant_id: uuid()?,
        cluster_uid: cluster_uid.to_owned(),
        ticket_id: ticket_id.to_owned(),
        scopes: terms.scopes.clone(),
        consented_by: terms.consented_by.clone(),
        consented_at: now,
        consented_how: "portal-ticket-form".to_owned(),
        components: terms.components.clone(),
        data_classes: terms.data_classes.clone(),
        window: Window {
            from: now - SignedDuration::from_hours(terms.lookback_hours.into()),
            to: expires_at,
        },
        not_before: now,
        expires_at,
        budget: terms.budget,
        min_redaction_policy: terms.min_redaction_policy,
        recipient_public_key: recipient.clone(),
        status_key_id: signing_key(store, STATUS)?.keyid(),
    };
    let payload = serde_json::to_vec(&grant)
        .map_err(|error| PortalError::Grant(format!("it can't be written: {error}")))?;
    let envelope = signing_key(store, CONSENT)?.sign(GRANT_PAYLOAD_TYPE, &payload);
    if envelope.len() > limits::MAX_GRANT_ENVELOPE {
        return Err(PortalError::Grant(format!(
            "{} bytes; an agent takes at most {}: name fewer components",
            envelope.len(),
            limits::MAX_GRANT_ENVELOPE
        )));
    }
    Ok(TicketGrant {
        sha256: crypto::sha256_hex(&envelope),
        envelope: String::from_utf8_lossy(&envelope).into_owned(),
        recipient,
        budget_bytes: terms.budget.bytes,
        lease_sequence: 0,
    })
}

/// A lease for the grant with this digest, if its ticket is active; `None` when it is not: silence
/// revokes.
pub(crate) fn sign_lease(
    store: &Store,
    cluster_uid: &str,
    grant_sha256: &str,
    nonce: &[u8],
) -> Result<Option<Vec<u8>>, PortalError> {
    let Some((ticket, sequence)) = store.next_lease(cluster_uid, grant_sha256)? else {
        return Ok(None);
    };
    let lease = Lease {
        version: 1,
        grant_sha256: grant_sha256.to_owned(),
        cluster_uid: cluster_uid.to_owned(),
        ticket_id: ticket.ticket_id.clone(),
        ticket_status: ticket.status.word().to_owned(),
        sequence,
        nonce: hex::encode(nonce),
        issued_at: Timestamp::now(),
    };
    let payload = serde_json::to_vec(&lease)
        .map_err(|error| PortalError::Grant(format!("its lease can't be written: {error}")))?;
    Ok(Some(signing_key(store, STATUS)?.sign(LEASE_PAYLOAD_TYPE, &payload)))
}

/// The private key of a ticket, by the public half that its grant names: what opens its snapshots.
pub(crate) fn ticket_key(
    store: &Store,
    ticket_id: &str,
    recipient: &str,
) -> Result<RecipientPrivateKey, PortalError> {
    let text = files::read(&ticket_key_path(store, ticket_id, recipient))?;
    let raw = BASE64_STANDARD.decode(text.trim_ascii()).ok();
    let raw: Option<[u8; 32]> = raw.and_then(|raw| raw.try_into().ok());
    let raw = zeroize::Zeroizing::new(raw.ok_or_else(|| PortalError::TicketKey {
        ticket_id: ticket_id.to_owned(),
        source: SealError::Recipient,
    })?);
    Ok(RecipientPrivateKey::from_bytes(&raw))
}

/// Named after the public half too, so that no key ever takes another one's place.
fn ticket_key_path(store: &Store, ticket_id: &str, recipient: &str) -> std::path::PathBuf {
    let digest = crypto::sha256_hex(recipient.as_bytes());
    store.portal_dir().join("tickets").join(format!("{ticket_id}-{}.x25519", &digest[..16]))
}

fn uuid() -> Result<String, StoreError> {
    let mut bytes = crypto::random::<16>()?;
    // RFC 9562, version 4.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
