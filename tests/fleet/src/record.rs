//! What happened to which agent, and when.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Something that happened to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It began to open a TCP connection.
    Dialled,
    /// Its session got its Welcome.
    Connected,
    /// Its session was lost.
    Lost,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Number of the agent.
    pub agent: u32,
    /// What.
    pub what: What,
    /// When.
    pub at: Instant,
}

/// All that happened so far, in order; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Record {
    moments: Arc<Mutex<Vec<Moment>>>,
}

impl Record {
    /// Writes down that something happens now.
    pub fn note(&self, agent: u32, what: What) {
        let at = Instant::now();
        self.moments().push(Moment { agent, what, at });
    }

    /// What happened since `begin`.
    pub fn since(&self, begin: Instant) -> Vec<Moment> {
        let moments = self.moments();
        let first = moments.partition_point(|moment| moment.at < begin);
        moments[first..].to_vec()
    }

    /// Forgets everything: a soak would fill memory with it.
    pub fn clear(&self) {
        self.moments().clear();
    }

    fn moments(&self) -> std::sync::MutexGuard<'_, Vec<Moment>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
