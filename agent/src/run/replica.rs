//! What every replica runs, and when it leads: a term's tasks begin with it and have ended before the
//! next one begins.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Signals, leader};
use crate::{
    audit::Audit,
    channel,
    cluster::Site,
    config::Config,
    errors::describe,
    http::{self, Of, Pages},
    leadership::{self, Post},
    metrics::{Metrics, Work},
    service,
    supervise::Supervisor,
    term::Term,
};

/// Pause before the channel is set up again.
const OPEN_RETRY: Duration = Duration::from_secs(5);

/// How the agent ended.
pub(super) enum Stopped {
    /// With so many tasks that had to be dropped.
    InTime(usize),
    /// By a second signal.
    AtOnce(&'static str),
}

/// What every replica runs.
pub(super) struct Replica {
    config: Config,
    site: Site,
    supervisor: Supervisor,
    shutdown: CancellationToken,
    posts: watch::Receiver<Post>,
    work: watch::Sender<Option<Work>>,
}

impl Replica {
    /// Starts its tasks.
    pub(super) fn start(config: Config, site: Site) -> Self {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let blind = Post::Blind { why: "it was not read yet".into() };
        let (post_tx, posts) = watch::channel(blind);
        let (work, seen) = watch::channel(None);
        let metrics = Metrics::new(seen.clone(), supervisor.tasks(), env!("CARGO_PKG_VERSION"));
        let of = Of::Replica { tasks: supervisor.tasks(), post: posts.clone(), work: seen.clone() };
        let pages = Pages { of, metrics: Arc::new(metrics) };
        if service::is_listened_to() {
            let told = (supervisor.tasks(), posts.clone(), seen);
            supervisor.spawn("service", move |token| {
                let (tasks, posts, work) = told.clone();
                service::follow(tasks, posts, work, token)
            });
        }
        let listen = config.listen;
        supervisor.spawn("http", move |token| http::serve(listen, pages.clone(), token));
        let (lease_site, post_tx) = (site.clone(), Arc::new(post_tx));
        let me = identity();
        supervisor.spawn("leadership", move |token| {
            leadership::run(lease_site.clone(), me.clone(), post_tx.clone(), token)
        });
        Self { config, site, supervisor, shutdown, posts, work }
    }

    /// Leads whenever it may, until a signal.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> Stopped {
        let left = loop {
            let term = tokio::select! {
                signal = signals.next() => {
                    tracing::info!(signal, "stopping");
                    break 0;
                }
                term = next_term(&mut self.posts) => term,
            };
            let (tasks, signal) = self.lead(&term, signals).await;
            if let Some(signal) = signal {
                tracing::info!(signal, "stopping");
            }
            self.work.send_replace(None);
            // The term still holds while its tasks end, unless it is what ended.
            tasks.shutdown.cancel();
            let left = tokio::select! {
                left = tasks.supervisor.join() => left,
                second = signals.next(), if signal.is_some() => return Stopped::AtOnce(second),
            };
            if left > 0 {
                term.abandon();
            }
            if signal.is_some() {
                break left;
            }
            tracing::info!(left, "the tasks of the term have ended");
        };
        // Releases the Lease, so that the other replica takes over at once.
        self.shutdown.cancel();
        tokio::select! {
            more = self.supervisor.join() => Stopped::InTime(left + more),
            signal = signals.next() => Stopped::AtOnce(signal),
        }
    }

    /// Does a leader's work until the term is over or a signal comes; its tasks then still run.
    async fn lead(&self, term: &Term, signals: &mut Signals) -> (Tasks, Option<&'static str>) {
        let shutdown = term.over().child_token();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let cluster = self.site.lead(term);
        let opened = loop {
            match channel::open(&self.config, &cluster) {
                Ok(opened) => break Some(opened),
                // It could be when the agent started: the trust folder is being changed.
                Err(error) => {
                    let error = describe(&error);
                    tracing::error!(error, "the channel can't be set up; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OPEN_RETRY) => {}
                () = term.over().cancelled() => break None,
                signal = signals.next() => return (Tasks { supervisor, shutdown }, Some(signal)),
            }
        };
        if let Some((handles, worker)) = opened {
            let audit = Audit::new(&cluster, handles.checkpoints.clone());
            self.work.send_replace(Some(Work {
                epoch: term.epoch(),
                link: handles.link.clone(),
                reports: handles.reports.clone(),
                audit: audit.clone(),
                tasks: supervisor.tasks(),
            }));
            leader::start(&mut supervisor, self.config.clone(), cluster, handles, worker, audit);
        }
        let signal = tokio::select! {
            () = term.over().cancelled() => None,
            signal = signals.next() => Some(signal),
        };
        (Tasks { supervisor, shutdown }, signal)
    }
}

/// The tasks of one term.
struct Tasks {
    supervisor: Supervisor,
    shutdown: CancellationToken,
}

/// The next term of this replica. Without one it waits.
async fn next_term(posts: &mut watch::Receiver<Post>) -> Term {
    loop {
        if let Post::Leader(term) = &*posts.borrow_and_update()
            && !term.over().is_cancelled()
        {
            return term.clone();
        }
        if posts.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// This process as the Lease names it: the pod's or machine's name, and what no other process has.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
    format!("{}_{:016x}", host.unwrap_or_else(|| "mendix-agent".into()), channel::random())
}
