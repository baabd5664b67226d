//! Looks for newer keys of the support portal in the release repository, where only the offline
//! release root can put them, and hands what it finds to the log path.
//!
//! Beside the releases and never behind them: a run may soak for an hour, and a stolen consent key
//! must not wait for that.

use std::time::Duration;

use mendix_agent_core::{bundle::Authentic, consent::keys::FILE};
use tokio::{sync::watch, time::sleep};

use super::{
    failure::pauses,
    trust::{Keeper, TrustError},
};
use crate::{
    channel::{Handles, Link},
    cluster::Cluster,
    errors::describe,
};

/// How often it is looked without a hint of the control plane, which may withhold one.
const LOOK: Duration = Duration::from_secs(3600);

/// Where found keys go; none before the repository had any.
pub type Found = watch::Sender<Option<Authentic>>;

/// Looks on each new session, at each hint and every hour; never ends.
pub async fn follow(cluster: &Cluster, handles: &Handles, trust: &Keeper, found: &Found) {
    let mut link = handles.link.clone();
    let mut tickets = handles.desired.tickets.clone();
    let mut hint = 0;
    loop {
        if matches!(*link.borrow_and_update(), Link::Connected { .. }) {
            look(cluster, handles, trust, found).await;
        }
        let hinted = async {
            loop {
                if tickets.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let section = tickets.borrow_and_update();
                let now = section.as_ref().map_or(0, |s| s.value.consent_keys_sequence);
                if now != hint {
                    return now;
                }
            }
        };
        tokio::select! {
            () = sleep(LOOK) => {}
            now = hinted => hint = now,
            changed = link.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
    }
}

/// Looks once; what fails for a reason that passes is tried again while the session lasts.
async fn look(cluster: &Cluster, handles: &Handles, trust: &Keeper, found: &Found) {
    let mut link = handles.link.clone();
    let mut pauses = pauses();
    loop {
        let result = async {
            let channel =
                handles.dialer.connect().await.map_err(|error| (true, describe(&error)))?;
            let of = |error: TrustError| (error.is_transient(), describe(&error));
            let mut trust = trust.lock().await.map_err(of)?;
            let releases = trust.refresh(cluster, channel).await.map_err(of)?;
            drop(trust);
            match releases.fetch_target(FILE).await {
                Ok(file) => Ok(Some(file)),
                // The portal still signs with the keys that agents are installed with.
                Err(TrustError::NoSuchTarget(_)) => Ok(None),
                Err(error) => Err(of(error)),
            }
        };
        match result.await {
            Ok(file) => {
                found.send_if_modified(|known| {
                    let news = file.as_ref().map(Authentic::sha256)
                        != known.as_ref().map(Authentic::sha256);
                    if news && file.is_some() {
                        *known = file;
                    }
                    news
                });
                return;
            }
            Err((false, error)) => {
                tracing::error!(error, "newer keys of the portal are not accepted");
                return;
            }
            Err((true, error)) => {
                tracing::warn!(error, "newer keys of the portal are waited for");
            }
        }
        tokio::select! {
            () = sleep(pauses.next().unwrap_or(LOOK)) => {}
            lost = link.wait_for(|link| !matches!(link, Link::Connected { .. })) => {
                drop(lost);
                return;
            }
        }
    }
}
