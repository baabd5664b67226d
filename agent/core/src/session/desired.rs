//! Desired state as it arrives: which sections are taken, which are refused, and what is reported
//! about the rest. Refusing a section keeps its last good content.

use std::collections::{BTreeMap, BTreeSet};

use mendix_agent_proto::{limits, v1};
use prost::Message as _;

/// Section numbers, refused sections and request ids that are named in a report; more are counted
/// as one too many by leaving them out, since a server that sends more is not served by a list.
const NAMED: usize = 64;
/// Longest text about a server's mistake that is sent back.
const REASON: usize = 256;

/// A section that passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The release to run.
    Release {
        /// Revision of the section.
        revision: u64,
        /// Its content.
        value: v1::ReleaseSection,
    },
    /// Active tickets and their grants.
    Tickets {
        /// Revision of the section.
        revision: u64,
        /// Its content.
        value: v1::TicketsSection,
    },
    /// One-off requests.
    Requests {
        /// Revision of the section.
        revision: u64,
        /// Its content.
        value: v1::RequestsSection,
    },
}

impl Update {
    /// The section and the revision it now has.
    pub fn held(&self) -> (v1::Section, u64) {
        match self {
            Self::Release { revision, .. } => (v1::Section::Release, *revision),
            Self::Tickets { revision, .. } => (v1::Section::Tickets, *revision),
            Self::Requests { revision, .. } => (v1::Section::Requests, *revision),
        }
    }
}

/// What is held of the desired state, and what could not be taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Intake {
    held: BTreeMap<v1::Section, u64>,
    unknown_sections: BTreeSet<i32>,
    unknown_requests: Vec<String>,
    rejected: BTreeMap<i32, (u64, String)>,
    unknown_messages: u64,
}

impl Intake {
    /// Revisions for `Hello`.
    pub(super) fn held(&self) -> Vec<v1::SectionRevision> {
        self.held
            .iter()
            .map(|(section, revision)| v1::SectionRevision {
                section: (*section).into(),
                revision: *revision,
            })
            .collect()
    }

    /// Takes what can be taken. Sections that are held at the same revision are passed over.
    pub(super) fn take(&mut self, state: v1::DesiredState) -> Vec<Update> {
        let size = state.encoded_len();
        if size > limits::MAX_DESIRED_STATE {
            let reason = format!(
                "the desired state has {size} bytes, more than {}",
                limits::MAX_DESIRED_STATE
            );
            for section in state.sections {
                self.reject(section.section, section.revision, &reason);
            }
            return Vec::new();
        }
        state.sections.into_iter().filter_map(|section| self.take_section(section)).collect()
    }

    fn take_section(&mut self, section: v1::DesiredSection) -> Option<Update> {
        use v1::desired_section::Body;
        let v1::DesiredSection { section: number, revision, body } = section;
        let known = match v1::Section::try_from(number) {
            Ok(known @ (v1::Section::Release | v1::Section::Tickets | v1::Section::Requests)) => {
                known
            }
            _ => {
                if self.unknown_sections.len() < NAMED {
                    self.unknown_sections.insert(number);
                }
                return None;
            }
        };
        if revision == 0 {
            self.reject(number, revision, "revision 0 means none; sections start at 1");
            return None;
        }
        if self.held.get(&known) == Some(&revision) {
            return None;
        }
        let update = match (known, body) {
            (v1::Section::Release, Some(Body::Release(value))) => {
                Update::Release { revision, value }
            }
            (v1::Section::Tickets, Some(Body::Tickets(value))) => {
                Update::Tickets { revision, value }
            }
            (v1::Section::Requests, Some(Body::Requests(value))) => {
                self.unknown_requests = value
                    .requests
                    .iter()
                    .filter(|request| request.kind.is_none())
                    .take(NAMED)
                    .map(|request| request.request_id.chars().take(REASON).collect())
                    .collect();
                Update::Requests { revision, value }
            }
            (_, None) => {
                self.reject(number, revision, "its body is of a kind this agent does not know");
                return None;
            }
            (_, Some(_)) => {
                self.reject(number, revision, "its body belongs to another section");
                return None;
            }
        };
        self.held.insert(known, revision);
        self.rejected.remove(&number);
        Some(update)
    }

    fn reject(&mut self, section: i32, revision: u64, reason: &str) {
        if self.rejected.len() < NAMED || self.rejected.contains_key(&section) {
            let reason = reason.chars().take(REASON).collect();
            self.rejected.insert(section, (revision, reason));
        }
    }

    /// Counts a message whose body this agent does not know.
    pub(super) fn unknown_message(&mut self) {
        self.unknown_messages = self.unknown_messages.saturating_add(1);
    }

    /// Forgets tickets and requests: the cluster was deregistered. What is wanted of the release
    /// stays, since drift is still corrected.
    pub(super) fn void(&mut self) {
        self.held.remove(&v1::Section::Tickets);
        self.held.remove(&v1::Section::Requests);
        self.unknown_requests.clear();
    }

    /// The report about what could not be taken; `None` while all could.
    pub(super) fn unsupported(&self) -> Option<v1::UnsupportedReport> {
        let report = v1::UnsupportedReport {
            sections: self.unknown_sections.iter().copied().collect(),
            request_ids: self.unknown_requests.clone(),
            rejected: self
                .rejected
                .iter()
                .map(|(section, (revision, reason))| v1::RejectedSection {
                    section: *section,
                    revision: *revision,
                    reason: reason.clone(),
                })
                .collect(),
            unknown_messages: self.unknown_messages,
        };
        (report != v1::UnsupportedReport::default()).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use v1::desired_section::Body;

    use super::*;

    fn release(revision: u64, target: &str) -> v1::DesiredSection {
        v1::DesiredSection {
            section: v1::Section::Release.into(),
            revision,
            body: Some(Body::Release(v1::ReleaseSection {
                index_target: target.into(),
                sequence: 1,
            })),
        }
    }

    fn state(sections: Vec<v1::DesiredSection>) -> v1::DesiredState {
        v1::DesiredState { sections }
    }

    #[test]
    fn a_held_revision_is_passed_over_and_a_lower_one_is_taken() {
        let mut intake = Intake::default();
        assert_eq!(intake.take(state(vec![release(5, "a")])).len(), 1);
        assert_eq!(intake.take(state(vec![release(5, "b")])), []);
        let restored_from_backup = intake.take(state(vec![release(3, "c")]));
        assert_eq!(restored_from_backup.len(), 1);
        assert_eq!(
            intake.held(),
            [v1::SectionRevision { section: v1::Section::Release.into(), revision: 3 }]
        );
        assert_eq!(intake.unsupported(), None);
    }

    #[test]
    fn an_oversized_state_keeps_the_last_good_one_and_is_reported() {
        let mut intake = Intake::default();
        intake.take(state(vec![release(1, "good")]));
        let huge = "x".repeat(limits::MAX_DESIRED_STATE);
        assert_eq!(intake.take(state(vec![release(2, &huge)])), []);
        assert_eq!(intake.held()[0].revision, 1);
        let report = intake.unsupported().unwrap();
        assert_eq!((report.rejected[0].section, report.rejected[0].revision), (1, 2));
        assert!(report.rejected[0].reason.contains("262144"), "{}", report.rejected[0].reason);

        assert_eq!(intake.take(state(vec![release(3, "good again")])).len(), 1);
        assert_eq!(intake.unsupported(), None, "a section that passes clears its refusal");
    }

    #[test]
    fn an_unknown_section_is_named_and_its_neighbour_taken() {
        let mut intake = Intake::default();
        let unknown = v1::DesiredSection { section: 42, revision: 1, body: None };
        assert_eq!(intake.take(state(vec![unknown, release(1, "a")])).len(), 1);
        assert_eq!(intake.unsupported().unwrap().sections, [42]);
        assert_eq!(intake.held().len(), 1);
    }

    #[test]
    fn an_upward_section_is_not_desired_state() {
        let mut intake = Intake::default();
        let upward = v1::DesiredSection { section: v1::Section::Health.into(), ..release(1, "a") };
        assert_eq!(intake.take(state(vec![upward])), []);
        assert_eq!(intake.unsupported().unwrap().sections, [100]);
    }

    #[test]
    fn a_body_unknown_or_of_another_section_is_refused() {
        for body in [None, Some(Body::Tickets(v1::TicketsSection::default()))] {
            let mut intake = Intake::default();
            let section = v1::DesiredSection { body, ..release(1, "a") };
            assert_eq!(intake.take(state(vec![section])), []);
            assert_eq!(intake.unsupported().unwrap().rejected.len(), 1);
            assert_eq!(intake.held(), []);
        }
    }

    #[test]
    fn revision_zero_is_refused() {
        let mut intake = Intake::default();
        assert_eq!(intake.take(state(vec![release(0, "a")])), []);
        assert_eq!(intake.unsupported().unwrap().rejected.len(), 1);
    }

    #[test]
    fn requests_of_an_unknown_kind_are_named() {
        let mut intake = Intake::default();
        let requests = v1::DesiredSection {
            section: v1::Section::Requests.into(),
            revision: 1,
            body: Some(Body::Requests(v1::RequestsSection {
                requests: vec![v1::Request { request_id: "r-1".into(), kind: None }],
            })),
        };
        assert_eq!(intake.take(state(vec![requests])).len(), 1);
        assert_eq!(intake.unsupported().unwrap().request_ids, ["r-1"]);
    }

    #[test]
    fn what_is_reported_is_bounded() {
        let mut intake = Intake::default();
        let sections = (200..2000)
            .map(|section| v1::DesiredSection { section, revision: 1, body: None })
            .collect();
        intake.take(state(sections));
        assert_eq!(intake.unsupported().unwrap().sections.len(), NAMED);
    }
}
