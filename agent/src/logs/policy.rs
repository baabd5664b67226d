//! Follows LogSharingPolicy `default`.
//!
//! The watch only says when to look: what counts is what a read that was begun afterwards returns.
//! A watch that delivers late, or hangs, can therefore not keep an old permission alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource,
    runtime::watcher::{self, watcher},
};
use mendix_agent_core::consent::{
    Refusal,
    policy::{LocalPolicy, PolicyView, REREAD, Reading},
};
use tokio::{sync::watch, time::timeout};

use super::{Logs, clock::Clock};
use crate::{
    crd::log_sharing_policy::{LogSharingPolicy, NAME},
    occasion,
};

/// The policy as it is known; cheap to clone.
#[derive(Clone)]
pub(super) struct Policy {
    api: Api<LogSharingPolicy>,
    view: Arc<Mutex<PolicyView>>,
    changes: watch::Sender<u64>,
    clock: Clock,
}

impl Policy {
    pub(super) fn new(api: Api<LogSharingPolicy>, clock: Clock) -> Self {
        Self { api, view: Arc::default(), changes: watch::channel(0).0, clock }
    }

    /// Reads it now; what is known afterwards is in [`Policy::view`]. Bounded by the time between
    /// two reads, so that a hanging one does not keep the next from being tried.
    pub(super) async fn read(&self) {
        let begun = self.clock.boot();
        let reading = match timeout(REREAD, self.api.get_opt(NAME)).await {
            Ok(Ok(Some(policy))) => Reading::Present(LocalPolicy::from(&policy.spec)),
            Ok(Ok(None)) => Reading::Absent,
            Ok(Err(error)) => {
                tracing::warn!(%error, "LogSharingPolicy could not be read");
                if is_undecodable(&error) { Reading::Invalid } else { Reading::Failed }
            }
            Err(_) => {
                tracing::warn!("reading LogSharingPolicy took too long");
                Reading::Failed
            }
        };
        self.view().observe(begun, reading);
        self.changes.send_modify(|n| *n += 1);
    }

    /// What is known of it.
    pub(super) fn view(&self) -> MutexGuard<'_, PolicyView> {
        // A view is replaced whole: a panic elsewhere can't leave it half-changed.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it allows sharing at this moment.
    pub(super) fn allows(&self) -> Result<(), Refusal> {
        let boot = self.clock.boot();
        self.view().allows(boot).map(drop)
    }

    /// Wakes after every read.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads it at each change and every [`REREAD`]; never ends.
    pub(super) async fn follow(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = Box::pin(watcher(self.api.clone(), config));
        loop {
            self.read().await;
            tokio::select! {
                () = tokio::time::sleep(REREAD) => {}
                event = events.try_next() => match event {
                    Ok(Some(_)) => {}
                    // The watch is a hurry-up; without it the slow read still looks.
                    Ok(None) | Err(_) => tokio::time::sleep(REREAD).await,
                },
            }
        }
    }
}

/// Says in an Event about the policy which of its patterns can't be used; never ends.
pub(super) async fn announce(logs: &Logs) {
    let mut changes = logs.policy.changes();
    let mut told = None;
    loop {
        let refusal = match logs.policy.allows() {
            Err(refusal @ Refusal::PolicyPatterns(_)) => Some(refusal.sentence()),
            _ => None,
        };
        if let Some(sentence) = refusal.as_ref().filter(|_| refusal != told) {
            tracing::warn!(sentence, "nothing is shared");
            let about = ObjectReference {
                api_version: Some(LogSharingPolicy::api_version(&()).into_owned()),
                kind: Some(LogSharingPolicy::kind(&()).into_owned()),
                name: Some(NAME.into()),
                namespace: Some(logs.cluster.namespace.clone()),
                ..Default::default()
            };
            logs.cluster.event(&about, occasion::POLICY_PATTERNS, sentence.clone()).await;
        }
        told = refusal;
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the object is there but holds what this build does not understand.
fn is_undecodable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::SerdeError(_))
}
