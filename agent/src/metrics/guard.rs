//! Metrics of the guard, on a page of its own: it is another process, and not scraped with the agent.

use std::fmt;

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};
use tokio::sync::watch;

use super::{Metrics, Page, integer};
use crate::{supervise::Tasks, upgrade::guard::Shown};

impl Metrics {
    /// Metrics of the guard over what it shows.
    pub fn of_guard(shown: watch::Receiver<Shown>, tasks: Tasks) -> Self {
        let mut registry = Registry::with_prefix("mendix_agent_guard");
        registry.register_collector(Box::new(Guarded { shown, tasks }));
        Self { registry }
    }
}

struct Guarded {
    shown: watch::Receiver<Shown>,
    tasks: Tasks,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl Collector for Guarded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let page = &mut Page { encoder: &mut encoder };
        let shown = self.shown.borrow().clone();
        page.gauges(
            "watches",
            "Whether the guard sees the trials of new agents",
            [(vec![], i64::from(shown.watches && shown.problem.is_none()))],
        )?;
        page.gauges("open_trials", "Trials that have not ended", [(vec![], integer(shown.open))])?;
        page.counters(
            "reverted_trials",
            "Trials that the guard has reverted since its start",
            [(vec![], shown.reverted)],
        )?;
        page.counters(
            "task_restarts",
            "How often a task of the guard was started again",
            self.tasks
                .states()
                .iter()
                .map(|(name, state)| (vec![("task", (*name).into())], state.restarts)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_whether_trials_are_seen_and_how_they_went() {
        let shown = Shown { watches: true, problem: None, open: 1, reverted: 2 };
        let (sender, receiver) = watch::channel(shown);
        let metrics = Metrics::of_guard(receiver, Tasks::default());
        let page = metrics.encode().unwrap();
        for line in [
            "mendix_agent_guard_watches 1",
            "mendix_agent_guard_open_trials 1",
            "mendix_agent_guard_reverted_trials_total 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        sender.send_modify(|shown| shown.problem = Some("no answer".into()));
        assert!(metrics.encode().unwrap().contains("mendix_agent_guard_watches 0"));
        // What users are told to look at.
        let operations = include_str!("../../../docs/operations.md");
        for name in ["watches", "open_trials", "reverted_trials_total"] {
            assert!(operations.contains(&format!("mendix_agent_guard_{name}")), "{name}");
        }
    }
}
