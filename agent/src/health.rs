//! Health and inventory of the cluster, of the host and of the agent itself: looked at once a
//! minute, reported up when it changed. What it means is decided in `mendix_agent_core::health`.

mod apps;
mod guard;
mod host;
mod nodes;

use std::{convert::Infallible, time::Duration};

use mendix_agent_core::health::{Seen, Steps, report};
use mendix_agent_proto::v1::{self, report::Body};
use tokio_util::sync::CancellationToken;

pub use mendix_agent_core::health::{MINIMUM_RUNTIME, QUARANTINED, overall};

use self::apps::Apps;
use crate::{channel::Reports, cluster::Cluster};

/// How often health is looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// Reports health until shutdown. `has_guard`: whether the agent runs as a Deployment, whose upgrades
/// the guard watches.
///
/// # Errors
/// Never: what can't be read is said in the report.
pub async fn run(
    cluster: Cluster,
    reports: Reports,
    has_guard: bool,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut steps = Steps::default();
    let mut apps = Apps::new(cluster.clone());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        let seen = Seen {
            nodes: nodes::list(&cluster).await,
            apps: apps.look().await,
            host: host::figures(),
            own: host::own(),
            guard: match has_guard {
                true => guard::is_available(&cluster).await.map(Some),
                false => Ok(None),
            },
        };
        reports.publish(Body::Health(report(seen, &components(&reports), &mut steps)));
    }
}

/// The managed components as they were last reported.
fn components(reports: &Reports) -> Vec<v1::ComponentState> {
    match reports.subscribe().borrow().get(&v1::Section::Components) {
        Some(Body::Components(report)) => report.components.clone(),
        _ => Vec::new(),
    }
}
