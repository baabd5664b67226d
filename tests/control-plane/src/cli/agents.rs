//! `agents`: who is connected, and what they say.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use mendix_agent_proto::v1::{self, Section, report::Body};
use serde::Serialize;

use super::{
    Failure, Output,
    output::{ago, printable, table},
};
use crate::store::{AgentRecord, AuditRecord, ClusterRecord, IdentityConflict, Store};

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Agents {
    /// Only this cluster, in detail.
    #[arg(long)]
    cluster: Option<String>,
    /// Print again every 2 s until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// An agent for people and machines.
#[derive(Debug, Serialize)]
struct View {
    uid: String,
    ring: String,
    /// `WaitingForConnection`, `Connected`, `Disconnected` or `Deregistered`.
    state: &'static str,
    agent_version: String,
    kubernetes_version: String,
    connected_since: Option<Timestamp>,
    disconnected_at: Option<Timestamp>,
    last_heartbeat: Option<Timestamp>,
    clock_skew_millis: Option<i64>,
    sessions: u64,
    conflict: Option<IdentityConflict>,
    audit: AuditRecord,
    release_wanted: Option<String>,
    release_run: Option<RunView>,
    health: Option<HealthView>,
    components: Vec<ComponentView>,
    tickets: Vec<TicketView>,
    preflight: Option<PreflightView>,
    initialization: Option<InitializationView>,
}

#[derive(Debug, Serialize)]
struct InitializationView {
    attempt: u32,
    state: String,
    phase: String,
    failing_check: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct RunView {
    release_id: String,
    sequence: u64,
    state: String,
    component: String,
    message: String,
    refusals: Vec<String>,
    /// It was to be committed by now and is not.
    overdue: bool,
}

#[derive(Debug, Serialize)]
struct HealthView {
    state: String,
    reasons: Vec<String>,
    agent_rss_bytes: u64,
    agent_cpu_millis: u64,
    nodes: usize,
    nodes_ready: usize,
}

#[derive(Debug, Serialize)]
struct ComponentView {
    name: String,
    version: String,
    health: String,
    message: String,
    objects: u32,
    drift_corrected: u64,
    last_drift: Option<DriftView>,
}

#[derive(Debug, Serialize)]
struct DriftView {
    object: String,
    fields: Vec<String>,
    claimed_by: String,
}

#[derive(Debug, Serialize)]
struct TicketView {
    ticket_id: String,
    consent: String,
    reason: String,
    snapshots_used: u32,
    bytes_used: u64,
}

#[derive(Debug, Serialize)]
struct PreflightView {
    result: String,
    /// Names of the checks that did not pass, each with what to do.
    not_passed: Vec<String>,
}

impl View {
    fn new(cluster: &ClusterRecord, agent: Option<AgentRecord>) -> Self {
        let state = match (&cluster.deleted_at, &agent) {
            (Some(_), _) => "Deregistered",
            (None, None) => "WaitingForConnection",
            (None, Some(agent)) if agent.connected_since.is_some() => "Connected",
            (None, Some(_)) => "Disconnected",
        };
        let agent = agent.unwrap_or_default();
        Self {
            uid: cluster.uid.clone(),
            ring: cluster.ring.clone(),
            state,
            release_wanted: cluster.release.value.as_ref().map(|wish| wish.release_id.clone()),
            release_run: run(&agent),
            health: health(&agent),
            components: components(&agent),
            tickets: tickets(&agent),
            preflight: preflight(&agent),
            initialization: initialization(&agent),
            agent_version: agent.agent_version,
            kubernetes_version: agent.kubernetes_version,
            connected_since: agent.connected_since,
            disconnected_at: agent.disconnected_at,
            last_heartbeat: agent.last_heartbeat,
            clock_skew_millis: agent.clock_skew_millis,
            sessions: agent.sessions,
            conflict: agent.conflict,
            audit: agent.audit,
        }
    }
}

fn run(agent: &AgentRecord) -> Option<RunView> {
    let Some(Body::ReleaseRun(run)) = agent.report(Section::ReleaseRun) else { return None };
    Some(RunView {
        release_id: run.release_id,
        sequence: run.sequence,
        state: run.state,
        component: run.component,
        message: run.message,
        refusals: run.refusals,
        overdue: run.overdue,
    })
}

fn health(agent: &AgentRecord) -> Option<HealthView> {
    let Some(Body::Health(health)) = agent.report(Section::Health) else { return None };
    Some(HealthView {
        nodes: health.nodes.len(),
        nodes_ready: health.nodes.iter().filter(|node| node.ready).count(),
        state: health.state,
        reasons: health.reasons,
        agent_rss_bytes: health.agent_rss_bytes,
        agent_cpu_millis: health.agent_cpu_millis,
    })
}

fn components(agent: &AgentRecord) -> Vec<ComponentView> {
    let Some(Body::Components(report)) = agent.report(Section::Components) else { return vec![] };
    let view = |component: v1::ComponentState| ComponentView {
        name: component.name,
        version: component.version,
        health: component.health,
        message: component.message,
        objects: component.objects,
        drift_corrected: component.drift_corrected,
        last_drift: component.last_drift.map(|drift| DriftView {
            object: drift.object,
            fields: drift.fields,
            claimed_by: drift.claimed_by,
        }),
    };
    report.components.into_iter().map(view).collect()
}

fn tickets(agent: &AgentRecord) -> Vec<TicketView> {
    let Some(Body::TicketStates(report)) = agent.report(Section::TicketStates) else {
        return vec![];
    };
    let view = |ticket: v1::TicketState| TicketView {
        ticket_id: ticket.ticket_id,
        consent: ticket.consent,
        reason: ticket.reason,
        snapshots_used: ticket.snapshots_used,
        bytes_used: ticket.bytes_used,
    };
    report.tickets.into_iter().map(view).collect()
}

fn initialization(agent: &AgentRecord) -> Option<InitializationView> {
    let Some(Body::Initialization(report)) = agent.report(Section::Initialization) else {
        return None;
    };
    let v1::InitializationReport { attempt, state, phase, failing_check, message, .. } = report;
    Some(InitializationView { attempt, state, phase, failing_check, message })
}

fn preflight(agent: &AgentRecord) -> Option<PreflightView> {
    let Some(Body::Preflight(report)) = agent.report(Section::Preflight) else { return None };
    let not_passed = report
        .checks
        .into_iter()
        .filter(|check| check.result == "Fail" || check.result == "Warn")
        .map(|check| format!("{} {}: {}. {}", check.result, check.name, check.detail, check.remedy))
        .collect();
    Some(PreflightView { result: report.result, not_passed })
}

impl Agents {
    pub(super) async fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        loop {
            self.show(store, output)?;
            if !self.watch {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn show(&self, store: &Store, output: Output) -> Result<(), Failure> {
        let clusters = match &self.cluster {
            Some(uid) => vec![store.cluster(uid)?],
            None => store.clusters()?,
        };
        let mut views = Vec::new();
        for cluster in &clusters {
            views.push(View::new(cluster, store.agent(&cluster.uid)?));
        }
        match (&self.cluster, views.as_slice()) {
            (Some(_), [view]) => output.print(view, || detail(view)),
            _ => output.print(&views, || overview(&views)),
        }
        Ok(())
    }
}

fn overview(views: &[View]) -> String {
    let rows = views.iter().map(|view| {
        let since = match (view.connected_since, view.disconnected_at) {
            (Some(at), _) => format!("{} ({})", view.state, ago(at)),
            (None, Some(at)) => format!("{} ({})", view.state, ago(at)),
            (None, None) => view.state.to_owned(),
        };
        let ready = view.components.iter().filter(|component| component.health == "Ready").count();
        let run = view.release_run.as_ref().map(|run| {
            let late = if run.overdue { " OVERDUE" } else { "" };
            format!("{} {}{late}", run.release_id, run.state)
        });
        [
            view.uid.clone(),
            [
                (view.conflict.is_some(), ", identity conflict"),
                (view.audit.alarm.is_some(), ", audit log rewound"),
            ]
            .into_iter()
            .filter(|(is_so, _)| *is_so)
            .fold(since, |text, (_, what)| text + what),
            dash(&view.agent_version),
            dash(&view.kubernetes_version),
            view.release_wanted.clone().unwrap_or_else(|| "-".to_owned()),
            run.unwrap_or_else(|| "-".to_owned()),
            match view.components.len() {
                0 => "-".to_owned(),
                all => format!("{ready}/{all} ready"),
            },
            view.last_heartbeat.map_or("-".to_owned(), ago),
        ]
    });
    table(
        ["CLUSTER", "STATE", "AGENT", "KUBERNETES", "WANTED", "RUN", "COMPONENTS", "HEARTBEAT"],
        rows,
        "No cluster is registered. `cluster register --uid …` adds one.",
    )
}

fn detail(view: &View) -> String {
    let mut text = overview(std::slice::from_ref(view));
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n\n{title}"));
            for line in lines {
                text.push_str(&format!("\n  {}", printable(&line)));
            }
        }
    };
    if let Some(run) = &view.release_run {
        let mut lines =
            vec![format!("{} (sequence {}): {}", run.release_id, run.sequence, run.state)];
        lines.extend([&run.component, &run.message].into_iter().filter(|l| !l.is_empty()).cloned());
        lines.extend(run.refusals.iter().map(|refusal| format!("refused: {refusal}")));
        section("Release run", lines);
    }
    if let Some(health) = &view.health {
        let mut lines = vec![format!(
            "{}; {}/{} nodes ready; agent {} KiB resident",
            health.state,
            health.nodes_ready,
            health.nodes,
            health.agent_rss_bytes / 1024
        )];
        lines.extend(health.reasons.iter().cloned());
        section("Health", lines);
    }
    let components = view.components.iter().map(|component| {
        let mut line = format!("{} {}: {}", component.name, component.version, component.health);
        if !component.message.is_empty() {
            line.push_str(&format!(" ({})", component.message));
        }
        if let Some(drift) = &component.last_drift {
            line.push_str(&format!(
                "; drift corrected {}×, last: {} {} claimed by {}",
                component.drift_corrected,
                drift.object,
                drift.fields.join(", "),
                drift.claimed_by
            ));
        }
        line
    });
    section("Components", components.collect());
    let tickets = view.tickets.iter().map(|ticket| {
        format!(
            "{}: consent {} {}; {} snapshots, {} bytes",
            ticket.ticket_id,
            ticket.consent,
            ticket.reason,
            ticket.snapshots_used,
            ticket.bytes_used
        )
    });
    section("Tickets", tickets.collect());
    if let Some(initialization) = &view.initialization
        && initialization.state != "Initialized"
    {
        let InitializationView { attempt, state, phase, failing_check, message } = initialization;
        let mut lines = vec![format!("attempt {attempt}, {state} at {phase} {failing_check}")];
        lines.push(message.clone());
        section("Initialization", lines);
    }
    if let Some(preflight) = &view.preflight {
        let mut lines = vec![preflight.result.clone()];
        lines.extend(preflight.not_passed.iter().cloned());
        section("Preflight", lines);
    }
    if let Some(held) = &view.audit.held {
        let mut lines =
            vec![format!("checkpoint {}:{}, {}", held.sequence, held.chain, ago(held.taken_at))];
        if let Some(alarm) = &view.audit.alarm {
            lines.push(format!(
                "REWOUND ({}), first {}, {}×: checkpoint {}:{} was held and is gone; export the log \
                 and run `mendix-agent audit verify --checkpoint` with it",
                alarm.what,
                ago(alarm.seen_at),
                alarm.count,
                alarm.held.sequence,
                alarm.held.chain
            ));
        }
        section("Audit log", lines);
    }
    if let Some(conflict) = &view.conflict {
        section(
            "Identity conflict",
            vec![format!(
                "processes {} and {} used this identity at the same time, {}×, last {}",
                conflict.older_boot_id,
                conflict.newer_boot_id,
                conflict.count,
                ago(conflict.seen_at)
            )],
        );
    }
    text
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
