//! `ticket`: support tickets and the customer's consent.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use mendix_agent_core::consent::grant::{Budget, DataClass, Scope};

use super::{
    Failure, Output, one_cluster,
    output::{ago, table},
};
use crate::{
    portal::{self, GrantTerms, NewTicket},
    store::{Store, StoreError, TicketOrigin, TicketSeverity, TicketStatus, files},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open a ticket; with --grant it carries the customer's consent and asks for one snapshot.
    Open(Open),
    /// Add the customer's consent to a ticket, and ask for one snapshot; opens a solved ticket again.
    Grant {
        /// The ticket.
        id: String,
        /// Components whose logs may leave, by exact name.
        #[arg(long, value_delimiter = ',', required = true, value_name = "NAME,…")]
        components: Vec<String>,
        /// How long the consent is good, hours.
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// Who consented.
        #[arg(long, default_value = "portal user")]
        consented_by: String,
    },
    /// Delete a ticket; its consent is void.
    Delete {
        /// The ticket.
        id: String,
    },
    /// Put a ticket on hold; consent stays.
    Hold {
        /// The ticket.
        id: String,
    },
    /// Mark a ticket as waiting for the customer; consent stays.
    Await {
        /// The ticket.
        id: String,
    },
    /// Solve a ticket; consent ends with it.
    Solve {
        /// The ticket.
        id: String,
    },
    /// Write the customer's consent to a file, as it was signed: for `mendix-agent consent verify`.
    Consent {
        /// The ticket.
        id: String,
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List tickets.
    List,
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// The cluster; may be left out when there is one only.
    #[arg(long)]
    cluster: Option<String>,
    /// One line.
    #[arg(long)]
    title: String,
    /// How bad it is.
    #[arg(long, value_enum, default_value = "medium")]
    severity: TicketSeverity,
    /// Id of the ticket; made when absent.
    #[arg(long)]
    id: Option<String>,
    /// The portal opens it because initialization failed again; such a ticket carries no consent.
    #[arg(long, conflicts_with = "grant")]
    automatic: bool,
    /// The customer consents to sharing logs.
    #[arg(long, requires = "components")]
    grant: bool,
    /// Components whose logs may leave, by exact name.
    #[arg(long, value_delimiter = ',', requires = "grant", value_name = "NAME,…")]
    components: Vec<String>,
    /// Kinds of data that may leave; runtime logs only when named.
    #[arg(
        long = "data",
        value_enum,
        value_delimiter = ',',
        requires = "grant",
        default_values = ["component-logs", "events", "status"]
    )]
    data: Vec<Data>,
    /// The customer consents to a look at the environment instead; never implies logs.
    #[arg(long, requires = "grant")]
    access_only: bool,
    /// How long the consent is good, hours.
    #[arg(long, default_value_t = 24, requires = "grant")]
    hours: u32,
    /// How far back logs may be read, hours.
    #[arg(long, default_value_t = 24, requires = "grant")]
    lookback_hours: u32,
    /// Snapshots that may be taken in all.
    #[arg(long, default_value_t = 5, requires = "grant")]
    snapshots: u32,
    /// Sealed megabytes (MiB) that may leave in all.
    #[arg(long, default_value_t = 256, requires = "grant")]
    mebibytes: u32,
    /// Who consented.
    #[arg(long, default_value = "portal user", requires = "grant")]
    consented_by: String,
}

/// A kind of data on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Data {
    /// Container logs of managed components.
    ComponentLogs,
    /// Logs of the customer's Mendix apps.
    RuntimeLogs,
    /// Kubernetes events of managed components.
    Events,
    /// Status of managed components and nodes.
    Status,
}

impl From<Data> for DataClass {
    fn from(data: Data) -> Self {
        match data {
            Data::ComponentLogs => Self::ComponentLogs,
            Data::RuntimeLogs => Self::RuntimeLogs,
            Data::Events => Self::Events,
            Data::Status => Self::Status,
        }
    }
}

impl Open {
    fn terms(&self) -> Option<GrantTerms> {
        let scope =
            if self.access_only { Scope::DirectEnvironmentAccess } else { Scope::LogSharing };
        let budget =
            Budget { snapshots: self.snapshots, bytes: u64::from(self.mebibytes) * 1024 * 1024 };
        self.grant.then(|| GrantTerms {
            data_classes: self.data.iter().copied().map(DataClass::from).collect(),
            scopes: vec![scope],
            hours: self.hours,
            lookback_hours: self.lookback_hours,
            budget,
            consented_by: self.consented_by.clone(),
            ..GrantTerms::for_components(self.components.clone())
        })
    }
}

impl Command {
    pub(super) fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        let (id, status) = match self {
            Self::Open(open) => return self::open(&open, store, output),
            Self::Grant { id, components, hours, consented_by } => {
                let terms =
                    GrantTerms { hours, consented_by, ..GrantTerms::for_components(components) };
                return self::grant(&id, &terms, store, output);
            }
            Self::Delete { id } => {
                store.delete_ticket(&id)?;
                output.print(&serde_json::json!({ "ticket": id, "deleted": true }), || {
                    format!("Ticket {id} is deleted; its consent is void.")
                });
                return Ok(());
            }
            Self::Consent { id, out } => return consent(&id, &out, store, output),
            Self::List => return list(store, output),
            Self::Hold { id } => (id, TicketStatus::OnHold),
            Self::Await { id } => (id, TicketStatus::AwaitingYourReply),
            Self::Solve { id } => (id, TicketStatus::Solved),
        };
        let ticket = store.set_ticket_status(&id, status)?;
        output.print(&serde_json::json!({ "ticket": id, "status": status.word() }), || {
            match (status.is_active(), &ticket.grant) {
                (false, Some(_)) => format!("Ticket {id} is solved; its consent has ended."),
                _ => format!("Ticket {id} is {}.", status.word()),
            }
        });
        Ok(())
    }
}

fn open(open: &Open, store: &Store, output: Output) -> Result<(), Failure> {
    let (ticket, request) = portal::open_ticket(
        store,
        NewTicket {
            ticket_id: open.id.clone(),
            cluster_uid: one_cluster(store, open.cluster.as_deref())?,
            title: open.title.clone(),
            severity: open.severity,
            origin: if open.automatic { TicketOrigin::Automatic } else { TicketOrigin::Customer },
            grant: open.terms(),
        },
    )?;
    let json = serde_json::json!({
        "ticket": ticket.ticket_id,
        "cluster": ticket.cluster_uid,
        "status": ticket.status.word(),
        "grant_sha256": ticket.grant.as_ref().map(|grant| &grant.sha256),
        "request": request.as_ref().map(|request| &request.request_id),
    });
    output.print(&json, || match request {
        Some(request) => format!(
            "Ticket {} is open with the customer's consent; request {} asks for one snapshot.\n\
             Next: `snapshot list`.",
            ticket.ticket_id, request.request_id
        ),
        None => format!("Ticket {} is open without consent to share logs.", ticket.ticket_id),
    });
    Ok(())
}

fn grant(id: &str, terms: &GrantTerms, store: &Store, output: Output) -> Result<(), Failure> {
    let (ticket, request) = portal::grant_ticket(store, id, terms)?;
    let json = serde_json::json!({
        "ticket": ticket.ticket_id,
        "status": ticket.status.word(),
        "grant_sha256": ticket.grant.as_ref().map(|grant| &grant.sha256),
        "request": request.request_id,
    });
    output.print(&json, || {
        format!(
            "Ticket {id} is {} with the customer's consent; request {} asks for one snapshot.",
            ticket.status.word(),
            request.request_id
        )
    });
    Ok(())
}

fn consent(id: &str, out: &Path, store: &Store, output: Output) -> Result<(), Failure> {
    let grant = store.ticket(id)?.grant.ok_or_else(|| {
        StoreError::Refused(format!("ticket {id} carries no consent; `ticket grant` adds one"))
    })?;
    files::write(out, grant.envelope.as_bytes(), files::Access::Everyone)?;
    let json = serde_json::json!({ "ticket": id, "file": out, "grant_sha256": grant.sha256 });
    output.print(&json, || {
        format!("The consent of ticket {id} is in {}; SHA-256 {}.", out.display(), grant.sha256)
    });
    Ok(())
}

fn list(store: &Store, output: Output) -> Result<(), Failure> {
    let tickets = store.tickets()?;
    let json: Vec<_> = tickets
        .iter()
        .map(|ticket| {
            serde_json::json!({
                "ticket": ticket.ticket_id,
                "cluster": ticket.cluster_uid,
                "status": ticket.status,
                "origin": ticket.origin,
                "severity": ticket.severity,
                "title": ticket.title,
                "opened_at": ticket.opened_at,
                "grant_sha256": ticket.grant.as_ref().map(|grant| &grant.sha256),
                "leases": ticket.grant.as_ref().map(|grant| grant.lease_sequence),
            })
        })
        .collect();
    output.print(&json, || {
        let rows = tickets.iter().map(|ticket| {
            let consent = match &ticket.grant {
                Some(_) if ticket.is_active() => "granted",
                Some(_) => "ended",
                None => "none",
            };
            [
                ticket.ticket_id.clone(),
                ticket.status.word().to_owned(),
                consent.to_owned(),
                format!("{:?}", ticket.severity),
                ticket.title.clone(),
                ticket.cluster_uid.clone(),
                ago(ticket.opened_at),
            ]
        });
        table(
            ["TICKET", "STATUS", "CONSENT", "SEVERITY", "TITLE", "CLUSTER", "OPENED"],
            rows,
            "There are no tickets. `ticket open` opens one.",
        )
    });
    Ok(())
}
