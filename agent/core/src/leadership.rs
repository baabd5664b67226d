//! Who leads: the state machine behind the agent's Lease, without I/O.
//!
//! Several replicas watch one record (a `coordination.k8s.io` Lease) that is written by
//! compare-and-swap. The driver (`mendix-agent`, leadership.rs) does what [`Candidate::next`] says and
//! tells the machine how it went. Times are readings of the replica's own clock, which counts suspend;
//! readings of different replicas are never compared.
//!
//! ```text
//!            somebody else's record, unchanged for its duration, or released
//! Standby ───────────────────────────────────────────────────────────────────▶ Leading(tenure)
//!    ▲                                                                             │
//!    └────── not renewed for 10 s, another holder seen, or released by itself ─────┘
//! ```
//!
//! Kubernetes checks no epoch, so a write of a leader that lost its Lease can still land. What keeps
//! two leaders' writes apart, measured from the moment `t` at which the last renewal was sent:
//!
//! - the old leader begins no write after `t` + [`RENEW_DEADLINE`], and gives each one
//!   [`WRITE_DEADLINE`];
//! - a new one sees that renewal at `t` or later, waits the Lease's duration from then, and begins no
//!   write before that plus [`WRITE_DEADLINE`] ([`Tenure::writes_from`]);
//! - a leader that releases its Lease has ended its writes, and has itself waited for those of its
//!   predecessor.

#[cfg(test)]
mod simulation;

use std::time::Duration;

/// How long a record holds after it was last changed.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long after sending its last successful renewal a leader may begin a write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between looks at the record, and between renewals.
pub const RETRY: Duration = Duration::from_secs(2);
/// Longest time in which a write that was begun may land; the API server is told this bound with each.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(12);
/// Longest duration in a foreign record that is believed: whoever wrote more must not keep the agent
/// from ever leading.
const DURATION_MOST: Duration = Duration::from_secs(60);

/// A reading of this replica's clock: time since its node's start, suspend included.
pub type Reading = Duration;

/// The record as the replicas share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it, unique per process; empty when it was released.
    pub holder: String,
    /// How long it holds after it was changed.
    pub duration: Duration,
    /// How often the holder changed. The epoch of a tenure is this number as its beginning wrote it.
    pub transitions: u64,
    /// Steps with each renewal of one holder; any form will do, it is only compared.
    pub renewed: String,
}

/// A record as it was read, with the version that a compare-and-swap needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Version of the object (its resourceVersion).
    pub version: String,
    /// Its content.
    pub record: Record,
}

/// A time of leading, from one acquisition on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Fencing epoch, at least 1; higher than that of every tenure before.
    pub epoch: u64,
    /// No write before.
    pub writes_from: Reading,
    /// No write is begun at or after.
    pub writes_until: Reading,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the record, and answer with [`Candidate::read`].
    Read,
    /// Write it, and answer with [`Candidate::written`].
    Write(Put),
    /// Nothing before this reading.
    Wait(Reading),
}

/// A write of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The version it replaces; `None` creates the record.
    pub replaces: Option<String>,
    /// Its holder: this replica.
    pub holder: String,
    /// Its duration.
    pub duration: Duration,
    /// Its transitions.
    pub transitions: u64,
    /// Whether it begins a tenure, which is when the time of acquisition is set.
    pub acquires: bool,
}

/// How a write went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The record is as written, in this version.
    Done {
        /// New version of the object.
        version: String,
        /// Its content, as the server has it.
        record: Record,
    },
    /// Somebody else was faster; nothing was written.
    Conflict,
    /// Refused or unanswered; it may have been written.
    Unknown,
}

/// One replica's view.
#[derive(Clone, Debug)]
pub struct Candidate {
    me: String,
    /// No tenure of this replica gets an epoch at or below.
    floor: u64,
    seen: Option<Seen>,
    tenure: Option<Tenure>,
    /// Writes of everybody else have landed by then, as far as this replica can know.
    quiet_from: Reading,
    /// When the record is looked at, or renewed, next.
    due: Reading,
    /// What is written next, after a look.
    pending: Option<Put>,
    /// Whether the record may be another than the one that was seen.
    unsure: bool,
    /// Whether a record may come to be by a write of this replica whose answer was lost: others may
    /// have led, and their record been deleted, before it landed.
    blind: bool,
}

/// The record as it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    stored: Option<Stored>,
    /// When it was first seen like this.
    since: Reading,
}

impl Candidate {
    /// A replica that has seen nothing yet. `me` is unique per process; `floor` is the highest epoch
    /// that is known from elsewhere, for the case that the record was deleted or set back.
    pub fn new(me: String, floor: u64, now: Reading) -> Self {
        Self {
            me,
            floor,
            seen: None,
            tenure: None,
            quiet_from: now,
            due: now,
            pending: None,
            unsure: false,
            blind: false,
        }
    }

    /// What to do now. Asked again after each answer, and when a wait is over.
    pub fn next(&mut self, now: Reading) -> Step {
        self.expire(now);
        if let Some(put) = self.pending.take() {
            return Step::Write(put);
        }
        if now < self.due {
            let end = self.tenure.map_or(self.due, |tenure| tenure.writes_until.min(self.due));
            return Step::Wait(end);
        }
        self.due = now + RETRY;
        match (&self.tenure, &self.seen) {
            (Some(tenure), Some(Seen { stored: Some(stored), .. })) if !self.unsure => {
                Step::Write(self.put(Some(stored.version.clone()), tenure.epoch, false))
            }
            _ => Step::Read,
        }
    }

    /// The tenure, while this replica leads at `now`.
    pub fn tenure(&self, now: Reading) -> Option<Tenure> {
        self.tenure.filter(|tenure| now < tenure.writes_until)
    }

    /// Who holds the record, as far as this replica knows; `None` when nobody does.
    pub fn holder(&self) -> Option<&str> {
        let record = &self.seen.as_ref()?.stored.as_ref()?.record;
        (!record.holder.is_empty()).then_some(record.holder.as_str())
    }

    /// Learns of an epoch that was seen elsewhere: tenures that begin from now on are above it.
    pub fn raise_floor(&mut self, epoch: u64) {
        self.floor = self.floor.max(epoch);
    }

    /// The answer to [`Step::Read`], which was asked for at `asked` and arrived at `now`; `None` when
    /// there is no record. A read that failed is not told: the next one comes by itself.
    pub fn read(&mut self, now: Reading, stored: Option<Stored>) {
        self.expire(now);
        self.observe(now, stored);
        self.unsure = false;
        let Some(seen) = &self.seen else { return };
        let version = seen.stored.as_ref().map(|stored| stored.version.clone());
        if let Some(tenure) = self.tenure {
            // Still its own, or the look would have ended it.
            self.pending = Some(self.put(version, tenure.epoch, false));
            return;
        }
        let free = match &seen.stored {
            None => true,
            Some(stored) if stored.record.holder == self.me => true,
            Some(stored) => now >= seen.since + holds(&stored.record),
        };
        if free {
            self.pending = Some(self.put(version, self.floor + 1, true));
        } else if let Some(stored) = &seen.stored {
            // Looked at again when it would end, if that is sooner.
            self.due = self.due.min(seen.since + holds(&stored.record)).max(now);
        }
    }

    /// The answer to [`Step::Write`] of `put`, which was sent at `sent` and answered at `now`.
    pub fn written(&mut self, sent: Reading, now: Reading, put: &Put, written: Written) {
        self.expire(now);
        match written {
            Written::Done { version, record } => {
                let epoch = record.transitions;
                self.floor = self.floor.max(epoch);
                // Before it is observed: the record that is replaced decides how long to wait.
                let writes_from = self.quiet_from.max(sent);
                let stored = Some(Stored { version, record });
                self.seen = Some(Seen { stored, since: now });
                let writes_until = sent + RENEW_DEADLINE;
                match &mut self.tenure {
                    Some(tenure) if !put.acquires => tenure.writes_until = writes_until,
                    // A renewal whose tenure ended while it was on its way renews nothing.
                    None if !put.acquires => {}
                    _ if now < writes_until => {
                        self.tenure = Some(Tenure { epoch, writes_from, writes_until });
                    }
                    _ => {}
                }
                self.due = sent + RETRY;
            }
            // What is there now has to be seen before anything else is written: it may be this
            // replica's own write whose answer was lost, or somebody's label on the object.
            Written::Conflict => {
                self.unsure = true;
                self.due = now;
            }
            Written::Unknown => {
                self.unsure = true;
                self.due = now + RETRY / 2;
                if put.acquires {
                    self.floor = self.floor.max(put.transitions);
                    self.blind |= put.replaces.is_none();
                }
            }
        }
    }

    /// What to write to give the record up, or `None` when it is better left to run out: nobody may
    /// follow at once while writes of a predecessor could still land. To be called once this replica's
    /// own writes have ended; the tenure is over with it.
    pub fn release(&mut self, now: Reading) -> Option<Put> {
        let tenure = self.tenure(now)?;
        let stored = self.seen.as_ref()?.stored.as_ref()?;
        let mut put = self.put(Some(stored.version.clone()), tenure.epoch, false);
        put.holder = String::new();
        put.duration = Duration::from_secs(1);
        self.end(now);
        (now >= tenure.writes_from).then_some(put)
    }

    /// Ends a tenure by this replica's own choice, as when the control plane said that it is stale.
    pub fn resign(&mut self, now: Reading) {
        if self.tenure.is_some() {
            self.end(now);
        }
    }

    fn put(&self, replaces: Option<String>, transitions: u64, acquires: bool) -> Put {
        let (holder, duration) = (self.me.clone(), LEASE_DURATION);
        Put { replaces, holder, duration, transitions, acquires }
    }

    fn expire(&mut self, now: Reading) {
        if self.tenure.is_some_and(|tenure| now >= tenure.writes_until) {
            self.end(now);
        }
    }

    fn end(&mut self, now: Reading) {
        if let Some(tenure) = self.tenure.take() {
            // This replica's own last write counts like anybody else's.
            if now > tenure.writes_from {
                let last = tenure.writes_until.min(now);
                self.quiet_from = self.quiet_from.max(last + WRITE_DEADLINE);
            }
            self.pending = None;
        }
    }

    fn observe(&mut self, now: Reading, stored: Option<Stored>) {
        let same = self.seen.as_ref().is_some_and(|seen| match (&seen.stored, &stored) {
            (Some(old), Some(new)) => old.record == new.record,
            // Where there was no record and is none, somebody may have led by one in between, and with
            // any epoch that is known; only where none is, nobody has.
            (None, None) => self.floor == 0,
            _ => false,
        });
        if same {
            // The version may have stepped with somebody's label.
            if let Some(seen) = &mut self.seen {
                seen.stored = stored;
            }
            return;
        }
        let epoch = self.tenure.map(|tenure| tenure.epoch);
        match stored.as_ref().map(|stored| &stored.record) {
            Some(record) if record.holder == self.me => {
                if epoch != Some(record.transitions) {
                    self.resign(now);
                }
                if std::mem::take(&mut self.blind) {
                    let quiet = now + LEASE_DURATION + WRITE_DEADLINE;
                    self.quiet_from = self.quiet_from.max(quiet);
                }
            }
            // Released, which nobody does before it is quiet.
            Some(record) if record.holder.is_empty() => {
                self.resign(now);
                self.quiet_from = now;
            }
            Some(record) => {
                self.resign(now);
                let quiet = now + holds(record) + WRITE_DEADLINE;
                self.quiet_from = self.quiet_from.max(quiet);
            }
            // Deleted, perhaps while somebody leads by it; or there never was one.
            None => {
                self.resign(now);
                if self.floor > 0 {
                    let quiet = now + LEASE_DURATION + WRITE_DEADLINE;
                    self.quiet_from = self.quiet_from.max(quiet);
                }
            }
        }
        let transitions = stored.as_ref().map_or(0, |stored| stored.record.transitions);
        self.floor = self.floor.max(transitions);
        self.seen = Some(Seen { stored, since: now });
    }
}

/// How long a record holds after it was seen to change; not at all when it was released.
fn holds(record: &Record) -> Duration {
    match record.holder.is_empty() {
        true => Duration::ZERO,
        false => record.duration.clamp(LEASE_DURATION, DURATION_MOST),
    }
}
