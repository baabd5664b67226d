//! Drift as the audit log has it: one record per object and minute, however often it was put back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use mendix_agent_core::audit::Event;

/// How long corrections of one object are gathered.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Objects that are gathered at once; beyond it the earliest minute ends early.
const MAX_OBJECTS: usize = 256;

#[derive(Debug)]
struct Minute {
    began: Timestamp,
    fields: BTreeSet<String>,
    claimed_by: BTreeSet<String>,
    times: u32,
}

/// Minutes that have not ended yet, by object.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    objects: BTreeMap<String, Minute>,
    ended: Vec<(Timestamp, Event)>,
}

impl Minutes {
    pub(super) fn add(&mut self, object: &str, fields: &[String], by: &str, now: Timestamp) {
        if !self.objects.contains_key(object) && self.objects.len() >= MAX_OBJECTS {
            let earliest = self.objects.iter().min_by_key(|(_, minute)| minute.began);
            if let Some(earliest) = earliest.map(|(object, _)| object.clone()) {
                self.end(&earliest);
            }
        }
        let minute = self.objects.entry(object.to_owned()).or_insert_with(|| Minute {
            began: now,
            fields: BTreeSet::new(),
            claimed_by: BTreeSet::new(),
            times: 0,
        });
        minute.fields.extend(fields.iter().cloned());
        minute.claimed_by.insert(by.to_owned());
        minute.times = minute.times.saturating_add(1);
    }

    fn end(&mut self, object: &str) {
        let Some(minute) = self.objects.remove(object) else { return };
        let event = Event::Drift {
            object: object.to_owned(),
            fields: minute.fields.into_iter().collect(),
            claimed_by: minute.claimed_by.into_iter().collect::<Vec<_>>().join(", "),
            times: minute.times,
        };
        self.ended.push((minute.began, event));
    }

    /// What has been gathered for a minute; all of it when the agent stops.
    pub(super) fn take(&mut self, now: Option<Timestamp>) -> Vec<(Timestamp, Event)> {
        let over =
            |minute: &Minute| now.is_none_or(|now| now.duration_since(minute.began) >= MINUTE);
        let over: Vec<String> = self
            .objects
            .iter()
            .filter(|(_, minute)| over(minute))
            .map(|(object, _)| object.clone())
            .collect();
        over.iter().for_each(|object| self.end(object));
        std::mem::take(&mut self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_fight_over_an_object_is_one_record_a_minute() {
        let mut minutes = Minutes::default();
        for second in 0..30 {
            minutes.add("Deployment a/b", &["spec.replicas".into()], "kubectl-edit", at(second));
        }
        minutes.add("Deployment a/b", &["metadata.labels.x".into()], "helm", at(31));
        assert!(minutes.take(Some(at(59))).is_empty());
        let ended = minutes.take(Some(at(60)));
        let expected = Event::Drift {
            object: "Deployment a/b".into(),
            fields: vec!["metadata.labels.x".into(), "spec.replicas".into()],
            claimed_by: "helm, kubectl-edit".into(),
            times: 31,
        };
        assert_eq!(ended, [(at(0), expected)]);
        assert!(minutes.take(None).is_empty());
    }

    #[test]
    fn nothing_is_dropped_when_many_objects_drift_or_the_agent_stops() {
        let mut minutes = Minutes::default();
        for n in 0..MAX_OBJECTS + 3 {
            minutes.add(&format!("ConfigMap a/{n}"), &[], "x", at(0));
        }
        assert_eq!(minutes.take(Some(at(1))).len(), 3);
        assert_eq!(minutes.take(None).len(), MAX_OBJECTS);
    }
}
