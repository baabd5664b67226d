//! Consented log snapshots: while, and only while, a ticket with the customer's consent is active,
//! redacted logs leave, sealed for that ticket's recipient.
//!
//! ```text
//! desired state ─▶ tickets   keeps SupportTicket objects, voids grants that ended, reports
//!               └▶ requests  gate ─▶ record ─▶ snapshot ─▶ receipt, outcome
//!                                               │
//!        collect ─▶ assemble ─▶ seal ─▶ upload ◀─┘  guarded by live: lease, policy, ticket, clock
//!                      └▶ preview: the same bytes, for a terminal
//! ```
//!
//! Every decision is made in `mendix_agent_core::consent`. What reads logs takes an `ActiveConsent`,
//! which only the gate makes; what goes to the wire asks the consent before each chunk.

mod assemble;
mod clock;
mod collect;
mod ledger;
mod live;
mod news;
mod objects;
mod policy;
pub mod preview;
mod records;
mod requests;
mod snapshot;
mod tickets;
mod upload;

use std::{io, path::Path, sync::Arc};

use kube::Api;
use mendix_agent_core::consent::keys::{self, ConsentKeysError, Trust};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::objects::RecordError;
use self::{ledger::LedgerStore, live::Sources, policy::Policy};
use crate::{
    channel::{Dialer, Handles, OwnCredentials, Reports, Revised},
    cluster::Cluster,
    crd::managed_component::ManagedComponent,
    requests::RequestOutcomes,
};

/// Why the log path can't run.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The pinned keys of the support portal can't be read.
    #[error("read {path}; install the trust folder that came with the agent")]
    KeysFile {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// They can't be used.
    #[error(transparent)]
    Keys(#[from] ConsentKeysError),
}

/// Reads the pinned keys of the support portal from the trust folder.
///
/// # Errors
/// [`LogsError`]; without keys no grant and no lease can be verified, and no log leaves.
pub async fn read_trust(trust_dir: &Path) -> Result<Trust, LogsError> {
    let path = trust_dir.join(keys::FILE);
    let bytes = tokio::fs::read(&path)
        .await
        .map_err(|source| LogsError::KeysFile { path: path.display().to_string(), source })?;
    Ok(Trust::parse(&bytes)?)
}

/// What the parts of the log path share.
struct Logs {
    cluster: Cluster,
    trust: Trust,
    sources: Sources,
    wanted: watch::Receiver<Option<Revised<mendix_agent_proto::v1::RequestsSection>>>,
    dialer: Dialer,
    own: OwnCredentials,
    reports: Reports,
    outcomes: RequestOutcomes,
    policy: Policy,
    ledger: LedgerStore,
    /// Wakes after something was spent or voided.
    spent: watch::Sender<u64>,
}

impl Logs {
    /// Components with a committed release: the only ones a grant may name.
    async fn managed(&self) -> Result<Vec<ManagedComponent>, RecordError> {
        let api: Api<ManagedComponent> = self.cluster.own();
        let mut components = objects::list(&api, "list ManagedComponents").await?;
        components.retain(ManagedComponent::has_release);
        Ok(components)
    }
}

/// Runs the log path until `shutdown`. A snapshot in flight is ended and recorded before it returns.
///
/// # Errors
/// None today: what fails is shown in the objects and tried again. The supervisor restarts it anyway.
pub async fn run(
    cluster: Cluster,
    handles: Handles,
    trust: Trust,
    outcomes: RequestOutcomes,
    shutdown: CancellationToken,
) -> Result<(), LogsError> {
    let logs = Arc::new(Logs {
        policy: Policy::new(&cluster),
        ledger: LedgerStore::new(&cluster),
        cluster,
        trust,
        sources: Sources {
            tickets: handles.desired.tickets,
            link: handles.link,
            leases: handles.leases,
        },
        wanted: handles.desired.requests,
        dialer: handles.dialer,
        own: handles.own,
        reports: handles.reports,
        outcomes,
        spent: watch::channel(0).0,
    });
    tokio::select! {
        // Requests see the shutdown themselves: they have receipts to write.
        () = Box::pin(requests::follow(&logs, &shutdown)) => {}
        () = Box::pin(tickets::follow(&logs)) => {}
        () = logs.policy.follow() => {}
    }
    Ok(())
}
