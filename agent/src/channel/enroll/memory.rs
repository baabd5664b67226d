//! What enrolment remembers from look to look.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::session::{Backoff, Schedule, renew_at};
use rustls::pki_types::CertificateDer;

use super::EnrollError;
use crate::{
    channel::{
        dial::{describe, tls},
        identity::Identity,
        random,
    },
    clock::boot,
};

/// A certificate that the control plane did not take is recovered at most this often: it counts
/// recoveries, and may have a reason of its own that no new certificate cures.
const RECOVER_REFUSED: Duration = Duration::from_secs(3600);
/// The node's clock counts as set when it jumped by more than this.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// What is remembered from look to look.
pub(super) struct Memory {
    pub(super) renewal: Renewal,
    pub(super) tokens: Tokens,
    /// The channel CA as it could last be read from disk.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    /// Why it can't be read now; said once.
    trust_problem: Option<String>,
    pub(super) clock: Clock,
    recovered_refused: Option<Instant>,
}

impl Memory {
    pub(super) fn new(anchors: Vec<CertificateDer<'static>>) -> Self {
        Self {
            renewal: Renewal::default(),
            tokens: Tokens::default(),
            anchors,
            trust_problem: None,
            clock: Clock::default(),
            recovered_refused: None,
        }
    }

    /// Takes over a channel CA that changed. One that can't be used changes nothing.
    pub(super) fn look_at_trust(&mut self, folder: &Path) {
        match tls::channel_ca(folder) {
            Ok(anchors) => {
                if anchors != self.anchors {
                    tracing::info!(anchors = anchors.len(), "the channel CA on disk changed");
                    self.anchors = anchors;
                }
                self.trust_problem = None;
            }
            Err(error) => {
                let problem = Some(describe(&error));
                if problem != self.trust_problem {
                    tracing::warn!(problem, "the channel CA that was read before stays in use");
                    self.trust_problem = problem;
                }
            }
        }
    }

    pub(super) fn may_recover_refused(&mut self) -> bool {
        let may = self.recovered_refused.is_none_or(|last| last.elapsed() >= RECOVER_REFUSED);
        if may {
            self.recovered_refused = Some(Instant::now());
        }
        may
    }
}

/// The node's clock, as far as a new certificate showed that it is wrong.
#[derive(Default)]
pub(super) struct Clock {
    /// Wall clock minus time since boot when it was; none while nothing is known to be wrong.
    wrong_at: Option<SignedDuration>,
}

impl Clock {
    pub(super) fn wrong() -> Self {
        Self { wrong_at: Some(Self::offset()) }
    }

    /// Moves only when the wall clock is set: both count suspend.
    fn offset() -> SignedDuration {
        let boot = SignedDuration::try_from(boot()).unwrap_or_default();
        Timestamp::now().duration_since(Timestamp::UNIX_EPOCH) - boot
    }

    pub(super) fn still_wrong(&self) -> Result<(), EnrollError> {
        let set = SignedDuration::try_from(CLOCK_SET).unwrap_or_default();
        match self.wrong_at {
            Some(at) if (Self::offset() - at).abs() <= set => Err(EnrollError::ClockNotSet),
            _ => Ok(()),
        }
    }
}

/// A token that failed while there is an identity: when it is tried again.
#[derive(Default)]
pub(super) struct Tokens {
    failed: Option<(String, Instant)>,
    backoff: Backoff,
}

impl Tokens {
    pub(super) fn may_try(&self, sha256: &str) -> bool {
        match &self.failed {
            Some((failed, until)) if failed == sha256 => Instant::now() >= *until,
            _ => true,
        }
    }

    pub(super) fn failed(&mut self, sha256: String, schedule: Schedule) {
        if self.failed.as_ref().is_none_or(|(failed, _)| *failed != sha256) {
            self.backoff.reset();
        }
        self.failed = Some((sha256, Instant::now() + self.backoff.next(schedule, random())));
    }
}

/// When the stored certificate is renewed: drawn once per certificate, not at every look.
#[derive(Default)]
pub(super) struct Renewal {
    of: Option<(CertificateDer<'static>, Timestamp)>,
}

impl Renewal {
    pub(super) fn due(&mut self, identity: &Identity) -> Timestamp {
        match &self.of {
            Some((leaf, due)) if leaf == identity.leaf() => *due,
            former => {
                // One that took another's place was issued a moment ago, whatever it says: control
                // planes date certificates back, for clocks that are behind. A short one would be
                // renewed again at once, and again.
                let begin = match former {
                    Some(_) => identity.not_before().max(Timestamp::now()),
                    None => identity.not_before(),
                };
                let due = renew_at(begin, identity.not_after(), random());
                self.of = Some((identity.leaf().clone(), due));
                due
            }
        }
    }
}
