//! Observed state on its way up: the last report per section, one in flight per section, all of
//! them again on a new session.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mendix_agent_proto::{limits, v1};

use super::timestamp;

/// Room for the frame around a report in an [`v1::AgentMessage`].
const FRAME: usize = 64;

#[derive(Clone, Debug)]
struct Observed {
    revision: u64,
    observed_at: Timestamp,
    body: v1::report::Body,
    /// Sent on this session and not acknowledged.
    in_flight: Option<InFlight>,
    /// Newest revision the server of this session has.
    delivered: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    revision: u64,
    /// Newest heartbeat sent before it. The server answers in order: the ack of a later heartbeat
    /// says that it has read the report, even if it never acknowledges this section.
    after_heartbeat: u64,
}

/// The report is larger than a message may be and was not taken; the one before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Whose report it is.
    pub section: v1::Section,
    /// Its size, bytes.
    pub bytes: usize,
}

/// Last report per section.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    sections: BTreeMap<v1::Section, Observed>,
}

impl Outbox {
    /// Sets what is reported for a section. An equal body changes nothing.
    pub(super) fn set(
        &mut self,
        section: v1::Section,
        body: v1::report::Body,
        now: Timestamp,
    ) -> Result<(), TooLarge> {
        let bytes = body.encoded_len();
        if bytes + FRAME > limits::MAX_AGENT_MESSAGE {
            return Err(TooLarge { section, bytes });
        }
        match self.sections.get_mut(&section) {
            Some(held) if held.body == body => {}
            Some(held) => {
                held.revision += 1;
                held.observed_at = now;
                held.body = body;
            }
            None => {
                let first =
                    Observed { revision: 1, observed_at: now, body, in_flight: None, delivered: 0 };
                self.sections.insert(section, first);
            }
        }
        Ok(())
    }

    /// A new session begins: its server has nothing yet.
    pub(super) fn begin_session(&mut self) {
        for held in self.sections.values_mut() {
            held.in_flight = None;
            held.delivered = 0;
        }
    }

    /// Reports that are to be sent now; they count as in flight from here on.
    pub(super) fn due(&mut self, last_heartbeat: u64) -> Vec<v1::Report> {
        let mut due = Vec::new();
        for (section, held) in &mut self.sections {
            if held.in_flight.is_some() || held.delivered == held.revision {
                continue;
            }
            held.in_flight =
                Some(InFlight { revision: held.revision, after_heartbeat: last_heartbeat });
            due.push(v1::Report {
                section: (*section).into(),
                revision: held.revision,
                observed_at: Some(timestamp(held.observed_at)),
                body: Some(held.body.clone()),
            });
        }
        due
    }

    /// The server has a report.
    pub(super) fn acknowledged(&mut self, ack: v1::ReportAck) {
        let Ok(section) = v1::Section::try_from(ack.section) else { return };
        let Some(held) = self.sections.get_mut(&section) else { return };
        if held.in_flight.is_some_and(|sent| sent.revision == ack.revision) {
            held.delivered = ack.revision;
            held.in_flight = None;
        }
    }

    /// The server answered heartbeat `sequence`: it has read all that was sent before it.
    pub(super) fn heartbeat_acknowledged(&mut self, sequence: u64) {
        for held in self.sections.values_mut() {
            if let Some(sent) = held.in_flight
                && sent.after_heartbeat < sequence
            {
                held.delivered = sent.revision;
                held.in_flight = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use v1::{Section, report::Body};

    use super::*;

    fn health(state: &str) -> Body {
        Body::Health(v1::HealthReport { state: state.into(), ..Default::default() })
    }

    fn set(outbox: &mut Outbox, state: &str) {
        outbox.set(Section::Health, health(state), Timestamp::UNIX_EPOCH).unwrap();
    }

    fn ack(revision: u64) -> v1::ReportAck {
        v1::ReportAck { section: Section::Health.into(), revision }
    }

    #[test]
    fn changes_while_one_is_in_flight_are_sent_as_one() {
        let mut outbox = Outbox::default();
        set(&mut outbox, "a");
        assert_eq!(outbox.due(0).len(), 1);
        set(&mut outbox, "b");
        set(&mut outbox, "c");
        assert_eq!(outbox.due(0), []);
        outbox.acknowledged(ack(1));
        let due = outbox.due(0);
        assert_eq!((due[0].revision, due[0].body.clone()), (3, Some(health("c"))));
    }

    #[test]
    fn an_unchanged_body_is_not_sent_again_but_a_new_session_gets_it() {
        let mut outbox = Outbox::default();
        set(&mut outbox, "a");
        outbox.due(0);
        outbox.acknowledged(ack(1));
        set(&mut outbox, "a");
        assert_eq!(outbox.due(0), []);
        outbox.begin_session();
        assert_eq!(outbox.due(0)[0].revision, 1);
    }

    #[test]
    fn an_ack_that_was_lost_is_made_good_by_a_later_heartbeat() {
        let mut outbox = Outbox::default();
        set(&mut outbox, "a");
        outbox.due(4);
        set(&mut outbox, "b");
        outbox.heartbeat_acknowledged(4);
        assert_eq!(outbox.due(4), [], "heartbeat 4 went out before the report");
        outbox.heartbeat_acknowledged(5);
        assert_eq!(outbox.due(5)[0].revision, 2);
    }

    #[test]
    fn an_ack_of_another_revision_or_section_changes_nothing() {
        let mut outbox = Outbox::default();
        set(&mut outbox, "a");
        outbox.due(0);
        set(&mut outbox, "b");
        outbox.acknowledged(ack(2));
        outbox.acknowledged(v1::ReportAck { section: 4711, revision: 1 });
        assert_eq!(outbox.due(0), []);
    }

    #[test]
    fn a_report_over_the_limit_is_refused_and_the_last_one_stays() {
        let mut outbox = Outbox::default();
        set(&mut outbox, "a");
        let huge = health(&"x".repeat(limits::MAX_AGENT_MESSAGE));
        let refused = outbox.set(Section::Health, huge, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refused.section, Section::Health);
        assert_eq!(outbox.due(0)[0].body, Some(health("a")));
    }
}
