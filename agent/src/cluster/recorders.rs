//! Kubernetes Events that say what there is to say.
//!
//! What is told again within some minutes is counted in the Event that told it first. The library takes
//! for that whatever has the same reason and is about the same object, and keeps the first note: a
//! second trouble would go unsaid. So each note has a recorder of its own.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

/// Notes that are remembered; what is told after so many others is a new Event.
const NOTES: usize = 32;

#[derive(Clone)]
pub(super) struct Recorders {
    client: Client,
    reporter: Reporter,
    /// Oldest first.
    by_note: Arc<Mutex<VecDeque<(String, Recorder)>>>,
}

impl Recorders {
    pub(super) fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, by_note: Arc::default() }
    }

    /// The recorder for this note.
    pub(super) fn of(&self, note: &str) -> Recorder {
        // Nothing done with it can panic and leave it half changed.
        let mut by_note = self.by_note.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, recorder)) = by_note.iter().find(|(known, _)| known == note) {
            return recorder.clone();
        }
        if by_note.len() == NOTES {
            by_note.pop_front();
        }
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        by_note.push_back((note.to_owned(), recorder.clone()));
        recorder
    }
}
