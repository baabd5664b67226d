//! Consented log snapshots: while, and only while, a ticket with the customer's consent is active,
//! redacted logs leave, sealed for that ticket's recipient.
//!
//! ```text
//! desired state ─▶ tickets   keeps SupportTicket objects, voids grants that ended, reports
//!               └▶ requests  gate ─▶ audit log ─▶ snapshot ─▶ receipt, outcome
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
mod keys;
mod ledger;
mod live;
mod news;
mod objects;
mod pages;
mod policy;
pub mod preview;
mod records;
mod refusals;
mod requests;
mod snapshot;
mod tickets;
mod upload;

use std::{io, path::PathBuf, sync::Arc};

use kube::Api;
use mendix_agent_core::{bundle::Authentic, consent::keys::ConsentKeysError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    clock::Clock, keys::Pinned, ledger::LedgerStore, live::Sources, policy::Policy,
    refusals::Refusals,
};
use crate::{
    audit::Audit,
    channel::{Dialer, Handles, OwnCredentials, Reports, Revised},
    cluster::{ApiError, Cluster},
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
    /// Those that took their place can't be used.
    #[error(
        "Secret {} holds no sound keys, so no consent counts. Restore it from a backup of the \
         cluster; deleting it brings back the installed keys",
        keys::SECRET
    )]
    StoredKeys(#[source] ConsentKeysError),
    /// The API server did not do what was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Where the keys of the support portal come from.
#[derive(Clone, Debug)]
pub struct Portal {
    /// The trust folder, with those that the agent is installed with.
    pub trust_dir: PathBuf,
    /// Newer ones that the release root vouches for.
    pub found: watch::Receiver<Option<Authentic>>,
}

/// What the parts of the log path share.
struct Logs {
    cluster: Cluster,
    pinned: Pinned,
    sources: Sources,
    wanted: watch::Receiver<Option<Revised<mendix_agent_proto::v1::RequestsSection>>>,
    dialer: Dialer,
    own: OwnCredentials,
    reports: Reports,
    outcomes: RequestOutcomes,
    policy: Policy,
    ledger: LedgerStore,
    audit: Audit,
    /// What was refused last, by ticket.
    refusals: Refusals,
    /// Wakes after something was spent, voided or refused.
    spent: watch::Sender<u64>,
}

impl Logs {
    /// Components with a committed release: the only ones a grant may name.
    async fn managed(&self) -> Result<Vec<ManagedComponent>, ApiError> {
        let api: Api<ManagedComponent> = self.cluster.own();
        let mut components = objects::list(&api, "list ManagedComponents").await?;
        components.retain(ManagedComponent::has_release);
        Ok(components)
    }
}

/// Runs the log path until `shutdown`. A snapshot in flight is ended and recorded before it returns.
///
/// # Errors
/// [`LogsError`] when the portal's keys can't be read; without them no grant and no lease can be
/// verified, and no log leaves. What fails later is shown in the objects and tried again.
pub async fn run(
    cluster: Cluster,
    handles: Handles,
    portal: Portal,
    outcomes: RequestOutcomes,
    audit: Audit,
    shutdown: CancellationToken,
) -> Result<(), LogsError> {
    let clock = Clock::system();
    let logs = Arc::new(Logs {
        pinned: Pinned::load(&cluster, &portal.trust_dir, &audit).await?,
        policy: Policy::new(cluster.own(), clock.clone()),
        ledger: LedgerStore::new(&cluster),
        cluster,
        sources: Sources {
            tickets: handles.desired.tickets,
            link: handles.link,
            leases: handles.leases,
            clock,
        },
        wanted: handles.desired.requests,
        dialer: handles.dialer,
        own: handles.own,
        reports: handles.reports,
        outcomes,
        audit,
        refusals: Refusals::default(),
        spent: watch::channel(0).0,
    });
    tokio::select! {
        // Requests see the shutdown themselves: they have receipts to write.
        () = Box::pin(requests::follow(&logs, &shutdown)) => {}
        () = Box::pin(tickets::follow(&logs)) => {}
        () = logs.policy.follow() => {}
        () = policy::announce(&logs) => {}
        () = logs.pinned.follow(&logs.cluster, &logs.audit, portal.found) => {}
    }
    Ok(())
}
