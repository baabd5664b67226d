//! What was refused last for each ticket, until the ticket's object shows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mendix_agent_core::consent::ticket::MAX_TICKETS;

use crate::crd::support_ticket::LastRefusal;

/// Tickets that are remembered; ids that no ticket has can't crowd the others out for long.
const MAX_KEPT: usize = 2 * MAX_TICKETS;

/// By name of the ticket's object; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<Mutex<BTreeMap<String, LastRefusal>>>);

impl Refusals {
    pub(super) fn set(&self, ticket_id: &str, refusal: LastRefusal) {
        let mut kept = self.kept();
        kept.insert(ticket_id.to_ascii_lowercase(), refusal);
        while kept.len() > MAX_KEPT {
            let oldest = kept.iter().min_by_key(|(_, refusal)| refusal.at);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            kept.remove(&oldest);
        }
    }

    pub(super) fn of(&self, object: &str) -> Option<LastRefusal> {
        self.kept().get(object).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, LastRefusal>> {
        // Each change is one insert or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_newest_refusals_are_kept_and_one_for_each_ticket() {
        let refusals = Refusals::default();
        let refused = |n: usize| LastRefusal {
            request_id: format!("req-{n}"),
            reason: "NoGrant".into(),
            message: String::new(),
            at: Timestamp::from_second(1_800_000_000 + n as i64).unwrap(),
        };
        for n in 0..2 * MAX_KEPT {
            refusals.set(&format!("T-{n}"), refused(n));
        }
        assert_eq!(refusals.of("t-0"), None);
        let last = 2 * MAX_KEPT - 1;
        assert_eq!(refusals.of(&format!("t-{last}")), Some(refused(last)));
        refusals.set("T-5", refused(1009));
        refusals.set("t-5", refused(1008));
        assert_eq!(refusals.of("t-5").unwrap().request_id, "req-1008");
    }
}
