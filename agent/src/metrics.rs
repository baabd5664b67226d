//! Prometheus metrics, read from the agent's observed state when they are scraped: what the control
//! plane is told and what a scraper sees can't differ.
//!
//! Names carry their unit; labels are bounded by the number of managed components, active tickets
//! and tasks.

mod guard;

use std::fmt;

use mendix_agent_proto::v1::{self, report::Body};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use tokio::sync::watch;

use crate::{
    audit::Audit,
    channel::{Link, Reports},
    supervise::Tasks,
};

/// What the pages show of a replica that leads.
#[derive(Clone, Debug)]
pub struct Work {
    /// Epoch of its term.
    pub epoch: u64,
    /// State of the session.
    pub link: watch::Receiver<Link>,
    /// What the control plane is told.
    pub reports: Reports,
    /// The audit log.
    pub audit: Audit,
    /// The term's tasks.
    pub tasks: Tasks,
}

/// The registry behind `/metrics`.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics over the given state.
    ///
    /// `work` is there while this replica leads.
    pub fn new(work: watch::Receiver<Option<Work>>, tasks: Tasks, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("mendix_agent");
        registry.register_collector(Box::new(Observed { work, tasks, version }));
        Self { registry }
    }

    /// The page in OpenMetrics text format.
    ///
    /// # Errors
    /// When a metric can't be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

struct Observed {
    work: watch::Receiver<Option<Work>>,
    tasks: Tasks,
    version: &'static str,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let page = &mut Page { encoder: &mut encoder };
        page.gauges("build", "The running build", [(vec![("version", self.version.into())], 1)])?;
        let work = self.work.borrow().clone();
        let leads = i64::from(work.is_some());
        page.gauges(
            "leader",
            "Whether this replica leads; the other stands by",
            [(vec![], leads)],
        )?;
        let up = work.as_ref().map(|work| work.link.borrow().clone());
        let up = i64::from(matches!(up, Some(Link::Connected { .. })));
        page.gauges(
            "session_up",
            "Whether the session with the control plane is up",
            [(vec![], up)],
        )?;
        let mut tasks = self.tasks.states();
        tasks.extend(work.iter().flat_map(|work| work.tasks.states()));
        page.counters(
            "task_restarts",
            "How often a task of the agent was started again",
            tasks.iter().map(|(name, state)| (vec![("task", (*name).into())], state.restarts)),
        )?;
        let Some(work) = work else { return Ok(()) };
        let epoch = i64::try_from(work.epoch).unwrap_or(i64::MAX);
        page.gauges("lease_epoch", "Fencing epoch of this leader", [(vec![], epoch)])?;
        if let Link::Connected { clock_skew_millis, identity_conflict, .. } = &*work.link.borrow() {
            page.gauges(
                "clock_skew_milliseconds",
                "The control plane's clock minus this node's",
                [(vec![], *clock_skew_millis)],
            )?;
            page.gauges(
                "identity_conflict",
                "Whether another process used this cluster's identity within the last day",
                [(vec![], i64::from(identity_conflict.is_some()))],
            )?;
        }
        audit(page, &work.audit)?;
        let reports = work.reports.subscribe();
        for body in reports.borrow().values() {
            match body {
                Body::Components(report) => components(page, report)?,
                Body::TicketStates(report) => tickets(page, report)?,
                Body::Health(report) => health(page, report)?,
                Body::ReleaseRun(report) => release_run(page, report)?,
                Body::RequestOutcomes(_)
                | Body::Preflight(_)
                | Body::Initialization(_)
                | Body::Unsupported(_) => {}
            }
        }
        Ok(())
    }
}

fn audit(page: &mut Page<'_, '_>, audit: &Audit) -> fmt::Result {
    let figures = audit.figures();
    page.counters(
        "log_refusals",
        "Log snapshots that were refused, or ended because consent did, by reason code",
        figures.refusals.iter().map(|(code, count)| (vec![("reason", code.clone())], *count)),
    )?;
    page.gauges(
        "audit_sequence",
        "Number of the newest record of the audit log",
        [(vec![], integer(figures.records))],
    )?;
    page.gauges(
        "audit_acknowledged_sequence",
        "Newest record of the audit log that the control plane holds a checkpoint of",
        [(vec![], integer(figures.acknowledged))],
    )?;
    page.gauges(
        "audit_waiting",
        "Decisions that wait to be written to the audit log",
        [(vec![], integer(figures.waiting as u64))],
    )?;
    page.counters(
        "audit_lost",
        "Decisions that could not be written to the audit log and were given up",
        [(vec![], figures.lost)],
    )
}

fn release_run(page: &mut Page<'_, '_>, report: &v1::ReleaseRunReport) -> fmt::Result {
    page.gauges(
        "release_run",
        "The release run in flight or the last one, by state",
        [(vec![("release", report.release_id.clone()), ("state", report.state.clone())], 1)],
    )?;
    page.gauges(
        "release_overdue",
        "Whether the wanted release was to be committed by now and is not",
        [(vec![], i64::from(report.overdue))],
    )
}

fn components(page: &mut Page<'_, '_>, report: &v1::ComponentsReport) -> fmt::Result {
    let label = |c: &v1::ComponentState| ("component", c.name.clone());
    page.gauges(
        "component_ready",
        "Whether a managed component is ready",
        report.components.iter().map(|c| {
            (vec![label(c), ("version", c.version.clone())], i64::from(c.health == "Ready"))
        }),
    )?;
    page.counters(
        "drift_corrected",
        "Changes by others to managed objects that were put back",
        report.components.iter().map(|c| (vec![label(c)], c.drift_corrected)),
    )
}

fn tickets(page: &mut Page<'_, '_>, report: &v1::TicketStatesReport) -> fmt::Result {
    let active = report.tickets.iter().filter(|t| t.consent == "Active").count();
    page.gauges(
        "tickets_with_consent",
        "Tickets with a live consent",
        [(vec![], integer(active as u64))],
    )?;
    let label = |t: &v1::TicketState| vec![("ticket", t.ticket_id.clone())];
    page.counters(
        "ticket_snapshots",
        "Snapshots taken under a ticket's grant",
        report.tickets.iter().map(|t| (label(t), u64::from(t.snapshots_used))),
    )?;
    page.counters(
        "ticket_bytes",
        "Sealed bytes spent of a ticket's grant",
        report.tickets.iter().map(|t| (label(t), t.bytes_used)),
    )
}

fn health(page: &mut Page<'_, '_>, report: &v1::HealthReport) -> fmt::Result {
    page.gauges(
        "resident_memory_bytes",
        "Resident memory of the agent",
        [(vec![], integer(report.agent_rss_bytes))],
    )?;
    page.gauges(
        "node_ready",
        "Whether a node of the cluster is ready",
        report.nodes.iter().map(|n| {
            let labels = vec![("node", n.name.clone()), ("image", n.node_image.clone())];
            (labels, i64::from(n.ready))
        }),
    )?;
    if let Some(available) = report.guard_available {
        page.gauges(
            "guard_available",
            "Whether the guard is available without which no upgrade of the agent begins",
            [(vec![], i64::from(available))],
        )?;
    }
    let Some(apps) = &report.apps else { return Ok(()) };
    let counts = |label: &'static str, counts: &[v1::AppCount]| {
        counts
            .iter()
            .map(|it| (vec![(label, it.name.clone())], i64::from(it.count)))
            .collect::<Vec<_>>()
    };
    page.gauges("apps", "Mendix apps by state", counts("state", &apps.by_state))?;
    page.gauges(
        "apps_by_runtime",
        "Mendix apps by version of their runtime",
        counts("runtime", &apps.by_runtime),
    )?;
    page.gauges(
        "apps_unsupported",
        "Mendix apps whose runtime is too old to be supported",
        [(vec![], i64::from(apps.below_minimum))],
    )
}

/// Gauges are signed in the text format; nothing the agent counts comes near the bound.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Labels of one sample; a metric without labels has exactly one sample.
type Labels = Vec<(&'static str, String)>;

struct Page<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Page<'_, '_> {
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, i64)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, samples)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, samples)
    }

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (Labels, M)>,
    ) -> fmt::Result {
        let mut samples = samples.peekable();
        let Some((_, first)) = samples.peek() else { return Ok(()) };
        let mut family = self.encoder.encode_descriptor(name, help, None, first.metric_type())?;
        for (labels, metric) in samples {
            if labels.is_empty() {
                return metric.encode(family);
            }
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_reported() {
        let (link, receiver) =
            tokio::sync::watch::channel(Link::WaitingForConnection { last_failure: None });
        let reports = Reports::default();
        let (work, seen) = watch::channel(None);
        let metrics = Metrics::new(seen, Tasks::default(), "1.2.3");
        let page = metrics.encode().unwrap();
        assert!(page.contains("mendix_agent_leader 0"), "{page}");
        let (audit, _) = crate::audit::tests::audit(&Default::default());
        audit.count_refusal("NoGrant");
        work.send_replace(Some(Work {
            epoch: 7,
            link: receiver,
            reports: reports.clone(),
            audit,
            tasks: Tasks::default(),
        }));
        let page = metrics.encode().unwrap();
        assert!(page.contains("mendix_agent_session_up 0"), "{page}");

        link.send_replace(Link::Connected {
            session_id: "s".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            clock_skew_millis: 0,
            identity_conflict: None,
            lacks: Vec::new(),
        });
        reports.publish(Body::Components(v1::ComponentsReport {
            components: vec![v1::ComponentState {
                name: "mendix-operator".into(),
                version: "2.1".into(),
                health: "Ready".into(),
                drift_corrected: 3,
                ..Default::default()
            }],
        }));
        reports.publish(Body::ReleaseRun(v1::ReleaseRunReport {
            release_id: "r2".into(),
            state: "Scheduled".into(),
            overdue: true,
            ..Default::default()
        }));
        let page = metrics.encode().unwrap();
        for line in [
            "mendix_agent_release_run{release=\"r2\",state=\"Scheduled\"} 1",
            "mendix_agent_release_overdue 1",
            "mendix_agent_build{version=\"1.2.3\"} 1",
            "mendix_agent_leader 1",
            "mendix_agent_lease_epoch 7",
            "mendix_agent_session_up 1",
            "mendix_agent_clock_skew_milliseconds 0",
            "mendix_agent_identity_conflict 0",
            "mendix_agent_component_ready{component=\"mendix-operator\",version=\"2.1\"} 1",
            "mendix_agent_drift_corrected_total{component=\"mendix-operator\"} 3",
            "mendix_agent_log_refusals_total{reason=\"NoGrant\"} 1",
            "mendix_agent_audit_lost_total 0",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
    }
}
