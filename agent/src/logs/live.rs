//! A consent in force while a snapshot is taken: asked again at every change and twice a second, and
//! before every chunk. The first refusal cancels everything that hangs on its token.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use mendix_agent_core::consent::{
    Refusal,
    gate::{ActiveConsent, Candidate, Now, Told},
    lease::{Heard, LeaseClock},
    ledger::Ledger,
    ticket::Ticket,
};
use mendix_agent_proto::{limits::LEASE_RENEWAL, v1};
use std::time::Duration;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{clock::Clock, keys::Pinned, policy::Policy};
use crate::channel::{Leases, Link, Revised};

/// Longest wait for the first lease of a snapshot.
const FIRST_LEASE: Duration = Duration::from_secs(20);
/// How often the first one is asked for: the session may be coming up.
const FIRST_LEASE_RETRY: Duration = Duration::from_secs(4);
/// How often the clocks are looked at. Timers of the runtime stop in suspend, the clocks don't.
const TICK: Duration = Duration::from_millis(500);

/// What the control plane says, as it says it.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) tickets: watch::Receiver<Option<Revised<v1::TicketsSection>>>,
    pub(super) link: watch::Receiver<Link>,
    pub(super) leases: Leases,
    pub(super) clock: Clock,
}

impl Sources {
    /// The ticket as it is listed now.
    pub(super) fn ticket(&self, id: &str) -> Option<Ticket> {
        let section = self.tickets.borrow();
        let wire = section.as_ref()?.value.tickets.iter().find(|t| t.ticket_id == id)?;
        Ticket::from_wire(wire).ok()
    }

    /// Whether the cluster was deleted in the portal.
    pub(super) fn deregistered(&self) -> bool {
        matches!(*self.link.borrow(), Link::Deregistered { .. })
    }

    /// Asks for a lease; says nothing about an answer. A session that is down is not an error: the
    /// clock runs out by itself.
    fn ask(&self, lease: &mut LeaseClock) -> Result<(), Refusal> {
        let mut nonce = [0; 16];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| Refusal::LeaseInvalid { what: "there is no randomness for a nonce" })?;
        // The 60 s begin before anybody else has seen the nonce.
        lease.ask(nonce, self.clock.boot());
        let request =
            v1::LeaseRequest { grant_sha256: lease.grant_sha256().to_vec(), nonce: nonce.to_vec() };
        if self.leases.requests.try_send(request).is_err() {
            tracing::debug!("no session to ask for a lease");
        }
        Ok(())
    }
}

/// Gets the first lease for a candidate.
///
/// Gives the clock also when the gate refuses: a signed end of the ticket is in it.
pub(super) async fn first_lease(
    sources: &Sources,
    candidate: &Candidate,
) -> (LeaseClock, Result<(), Refusal>) {
    let mut lease = candidate.lease_clock();
    let mut envelopes = sources.leases.envelopes.subscribe();
    let end = Instant::now() + FIRST_LEASE;
    let mut refused = Refusal::LeaseMissing;
    let mut ask_at = Instant::now();
    while Instant::now() < end {
        if Instant::now() >= ask_at {
            if let Err(refusal) = sources.ask(&mut lease) {
                return (lease, Err(refusal));
            }
            ask_at += FIRST_LEASE_RETRY;
        }
        match timeout_at(ask_at.min(end), envelopes.recv()).await {
            Ok(Ok(envelope)) => match lease.hear(&envelope) {
                Ok(Heard::Active(_)) => return (lease, Ok(())),
                Ok(Heard::NotOurs) => {}
                Err(refusal @ Refusal::TicketInactive { .. }) => return (lease, Err(refusal)),
                // Anybody on the way can send rubbish; the answer may still come.
                Err(refusal) => refused = refusal,
            },
            Ok(Err(broadcast::error::RecvError::Lagged(_))) | Err(_) => {}
            Ok(Err(broadcast::error::RecvError::Closed)) => break,
        }
    }
    (lease, Err(refused))
}

/// See the module's head. Shared by everything that works under one consent.
pub(super) struct Live {
    consent: Arc<ActiveConsent>,
    sources: Sources,
    pinned: Pinned,
    policy: Policy,
    ledger: Ledger,
    lease: Mutex<LeaseClock>,
    expires_boot: Duration,
    ended: Mutex<Option<Refusal>>,
    token: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder changes one field or replaces the value: nothing can be left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// `token` is cancelled when consent ends; whoever is above it may cancel it as well.
    pub(super) fn new(
        consent: Arc<ActiveConsent>,
        lease: LeaseClock,
        sources: Sources,
        pinned: Pinned,
        policy: Policy,
        ledger: Ledger,
        token: CancellationToken,
    ) -> Self {
        let now = sources.clock.now();
        let left = consent.grant().expires_at.duration_since(ledger.now(now.wall));
        let left = Duration::try_from(left).unwrap_or_default();
        Self {
            consent,
            sources,
            pinned,
            policy,
            ledger,
            lease: Mutex::new(lease),
            // The wall clock may be set back while we work; this one can't be.
            expires_boot: now.boot + left,
            ended: Mutex::new(None),
            token,
        }
    }

    pub(super) fn consent(&self) -> &Arc<ActiveConsent> {
        &self.consent
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Whether the ticket's end was signed as Solved.
    pub(super) fn solved(&self) -> bool {
        lock(&self.lease).solved()
    }

    /// Why consent ended; none while it holds.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        lock(&self.ended).take()
    }

    /// Whether consent holds at this moment; ends everything when it does not.
    pub(super) fn holds(&self) -> bool {
        if self.token.is_cancelled() {
            return false;
        }
        match self.judge() {
            Ok(()) => true,
            Err(refusal) => {
                self.end(refusal);
                false
            }
        }
    }

    fn judge(&self) -> Result<(), Refusal> {
        let now = self.sources.clock.now();
        let now = Now { wall: self.ledger.now(now.wall), ..now };
        if now.boot >= self.expires_boot {
            return Err(Refusal::Expired);
        }
        let ticket = self.sources.ticket(&self.consent.grant().ticket_id);
        let told = Told { ticket: ticket.as_ref(), deregistered: self.sources.deregistered() };
        let trust = self.pinned.current();
        self.consent.still_holds(&trust, told, &lock(&self.lease), &self.policy.view(), now)
    }

    /// Ends everything for this reason; the first reason stays.
    pub(super) fn end(&self, refusal: Refusal) {
        lock(&self.ended).get_or_insert(refusal);
        self.token.cancel();
    }

    /// Keeps watching until the token fires.
    pub(super) async fn guard(&self) {
        let mut tickets = self.sources.tickets.clone();
        let mut link = self.sources.link.clone();
        let mut policy = self.policy.changes();
        let mut pinned = self.pinned.changes();
        let mut envelopes = self.sources.leases.envelopes.subscribe();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.token.cancelled() => return,
                // A closed watch has nothing new to say; the tick below still looks.
                Ok(()) = policy.changed() => {}
                Ok(()) = pinned.changed() => {}
                Ok(()) = tickets.changed() => {}
                Ok(()) = link.changed() => {}
                envelope = envelopes.recv() => {
                    if let Ok(envelope) = envelope {
                        self.hear(&envelope);
                    }
                }
                () = sleep_until(ask_at) => {
                    ask_at = Instant::now() + LEASE_RENEWAL;
                    if let Err(refusal) = self.sources.ask(&mut lock(&self.lease)) {
                        self.end(refusal);
                    }
                }
                _ = tick.tick() => {}
            }
            self.holds();
        }
    }

    fn hear(&self, envelope: &[u8]) {
        let heard = lock(&self.lease).hear(envelope);
        match heard {
            Ok(Heard::Active(_) | Heard::NotOurs) => {}
            Err(refusal @ Refusal::TicketInactive { .. }) => self.end(refusal),
            Err(refusal) => tracing::warn!(reason = refusal.code(), %refusal, "a lease is ignored"),
        }
    }
}

#[cfg(test)]
#[path = "live/tests.rs"]
mod tests;
