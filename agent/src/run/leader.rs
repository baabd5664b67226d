//! The tasks of a leader, and what each of them is given.

use std::{convert::Infallible, sync::Arc};

use tokio::sync::watch;

use crate::{
    agent_status, audit,
    audit::Audit,
    channel::{self, identity::Standing},
    cluster::Cluster,
    config::Config,
    health, initialization, logs, patch, preflight,
    requests::RequestOutcomes,
    supervise::Supervisor,
    upgrade::{Own, TRIAL_VARIABLE},
};

/// Starts them.
pub(super) fn start(
    supervisor: &mut Supervisor,
    config: Config,
    cluster: Cluster,
    handles: channel::Handles,
    worker: channel::Worker,
    audit: Audit,
) {
    supervisor.spawn("channel", move |token| {
        let worker = worker.clone();
        async move { worker.run(token).await }
    });
    let outcomes = RequestOutcomes::new(handles.desired.requests.clone(), handles.reports.clone());
    let kept = outcomes.clone();
    supervisor.spawn("requests", move |token| {
        let kept = kept.clone();
        async move {
            kept.run(token).await;
            Ok::<_, Infallible>(())
        }
    });
    let standing = handles.standing.clone();
    let trial = std::env::var(TRIAL_VARIABLE).ok();
    let is_deployment = trial.is_some();
    let identity = patch::driver::Identity {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ring: Arc::new(move || match &*standing.borrow() {
            Standing::Enrolled(credentials) => credentials.identity().ring().to_owned(),
            Standing::NotEnrolled { .. } => String::new(),
        }),
        own: trial.map(|trial| Own {
            trial,
            link: handles.link.clone(),
            stable_for: config.upgrade_after,
            has_trust: Arc::default(),
            tasks: supervisor.tasks(),
        }),
    };
    let kept = (audit.clone(), handles.clone());
    supervisor.spawn("audit", move |token| {
        let (audit, handles) = kept.clone();
        audit::run(audit, handles, token)
    });
    let (portal_keys, found) = watch::channel(None);
    let roots = patch::Roots { trust_dir: config.trust_dir.clone(), portal_keys };
    let path = (cluster.clone(), handles.clone(), outcomes.clone(), audit.clone());
    supervisor.spawn("patch", move |token| {
        let (cluster, handles, outcomes, audit) = path.clone();
        patch::run(cluster, roots.clone(), identity.clone(), handles, outcomes, audit, token)
    });
    let portal = logs::Portal { trust_dir: config.trust_dir.clone(), found };
    let path = (cluster.clone(), handles.clone(), outcomes.clone(), audit);
    supervisor.spawn("logs", move |token| {
        let (cluster, handles, outcomes, audit) = path.clone();
        logs::run(cluster, handles, portal.clone(), outcomes, audit, token)
    });
    let (health_cluster, reports) = (cluster.clone(), handles.reports.clone());
    supervisor.spawn("health", move |token| {
        health::run(health_cluster.clone(), reports.clone(), is_deployment, token)
    });
    let path = (cluster.clone(), config.clone(), handles.link.clone(), handles.reports.clone());
    supervisor.spawn("preflight", move |token| {
        let (cluster, config, link, reports) = path.clone();
        preflight::watch::run(cluster, config, link, reports, token)
    });
    let path = (cluster.clone(), handles.clone(), outcomes);
    supervisor.spawn("initialization", move |token| {
        let (cluster, handles, outcomes) = path.clone();
        initialization::run(cluster, handles, outcomes, token)
    });
    supervisor.spawn("agent-status", move |token| {
        agent_status::run(
            cluster.clone(),
            config.clone(),
            handles.link.clone(),
            handles.reports.clone(),
            token,
        )
    });
}
