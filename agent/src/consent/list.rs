//! What the customer and the tickets allow, as the cluster's objects say it.

use comfy_table::{Table, presets};
use kube::{Api, Client, api::ListParams};
use mendix_agent_core::consent::policy::ExtraPatterns;
use serde::Serialize;

use super::second;
use crate::{
    cluster::CALL_DEADLINE,
    crd::{
        log_sharing_policy::{self, LogSharingPolicy},
        support_ticket::SupportTicket,
    },
};

/// Tickets that are read at most.
const MAX_READ: u32 = 500;

/// Why there is nothing to list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The API server refused or failed.
    #[error("read {what} in namespace {namespace}; is the agent installed there (--namespace)?")]
    Api {
        /// What was read.
        what: &'static str,
        /// Where.
        namespace: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("read {what}: no answer within {} s", CALL_DEADLINE.as_secs())]
    Deadline {
        /// What was read.
        what: &'static str,
    },
}

/// What the customer and the tickets allow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    policy: Option<LogSharingPolicy>,
    tickets: Vec<SupportTicket>,
}

impl Standing {
    /// Reads policy and tickets.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, ListError> {
        let policies: Api<LogSharingPolicy> = Api::namespaced(client.clone(), namespace);
        let tickets: Api<SupportTicket> = Api::namespaced(client.clone(), namespace);
        let params = ListParams::default().limit(MAX_READ);
        let policy = policies.get_opt(log_sharing_policy::NAME);
        let policy = within("the LogSharingPolicy", namespace, policy).await?;
        let tickets = within("the SupportTickets", namespace, tickets.list(&params)).await?;
        Ok(Self { policy, tickets: tickets.items })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("Policy   {}\n\n", self.policy());
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "TICKET",
            "STATUS",
            "CONSENT",
            "WHY NOT",
            "COMPONENTS",
            "CONSENTED BY",
            "EXPIRES",
            "SNAPSHOTS",
            "BYTES",
            "LAST REFUSAL",
        ]);
        for ticket in &self.tickets {
            let status = ticket.status.clone().unwrap_or_default();
            let granted = status.grant_id.is_some();
            let of = |used: u64, allowed: u64| match granted {
                true => format!("{used} of {allowed}"),
                false => String::new(),
            };
            let refusal = status.last_refusal.as_ref();
            table.add_row([
                ticket.spec.ticket_id.clone(),
                status.ticket_status.clone(),
                status.consent.clone(),
                status.reason.clone().unwrap_or_default(),
                status.components.join(","),
                status.consented_by.clone().unwrap_or_default(),
                status.expires_at.map(second).unwrap_or_default(),
                of(status.snapshots_used.into(), status.snapshots_allowed.into()),
                of(status.bytes_used, status.bytes_allowed),
                refusal.map(|r| format!("{} at {}", r.reason, second(r.at))).unwrap_or_default(),
            ]);
        }
        if table.is_empty() {
            text.push_str("There are no tickets.\n");
        } else {
            text.push_str(&format!("{}\n", table.trim_fmt()));
        }
        for ticket in &self.tickets {
            let message = ticket.status.as_ref().and_then(|status| status.message.as_ref());
            if let Some(message) = message {
                text.push_str(&format!("\n{}: {message}\n", ticket.spec.ticket_id));
            }
        }
        text
    }

    fn policy(&self) -> String {
        let Some(policy) = &self.policy else {
            return "none: nothing is shared".into();
        };
        let spec = &policy.spec;
        let mut parts = vec![format!("{:?}", spec.mode)];
        if spec.suspend {
            parts.push("suspended: nothing is shared".into());
        }
        if !spec.excluded_components.is_empty() {
            parts.push(format!("without {}", spec.excluded_components.join(", ")));
        }
        if let Some(hours) = spec.max_window_hours {
            parts.push(format!("at most {hours} h back"));
        }
        if !spec.extra_patterns.is_empty() {
            let patterns = ExtraPatterns::new(spec.extra_patterns.clone());
            parts.push(match patterns.compiled() {
                Ok(_) => format!("{} patterns of your own", patterns.count()),
                Err(error) => format!("nothing is shared: {error}"),
            });
        }
        parts.join("; ")
    }
}

async fn within<T>(
    what: &'static str,
    namespace: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ListError> {
    tokio::time::timeout(CALL_DEADLINE, call)
        .await
        .map_err(|_| ListError::Deadline { what })?
        .map_err(|source| ListError::Api { what, namespace: namespace.into(), source })
}
