//! The page of a leader for which everything happened, against the documentation and a file.
//!
//! The file is what the tests of alerts and dashboard scrape; it is written anew by a run of this test
//! with `UPDATE_METRICS=1`.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::supervise::Supervisor;

const DOCUMENTED: &str = include_str!("../../../docs/metrics.md");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/page.txt");

/// A page on which every metric has a sample.
fn page() -> String {
    let since = jiff::Timestamp::UNIX_EPOCH;
    let link = Link::Connected {
        session_id: "s".into(),
        since,
        clock_skew_millis: 0,
        identity_conflict: None,
        lacks: Vec::new(),
    };
    let (_keep, link) = watch::channel(link);
    let reports = Reports::default();
    for body in [
        Body::Components(v1::ComponentsReport {
            components: vec![v1::ComponentState {
                name: "mendix-operator".into(),
                version: "2.21.0".into(),
                health: "Ready".into(),
                drift_corrected: 3,
                ..Default::default()
            }],
        }),
        Body::ReleaseRun(v1::ReleaseRunReport {
            release_id: "2026.11.1".into(),
            state: "Committed".into(),
            ..Default::default()
        }),
        Body::TicketStates(v1::TicketStatesReport {
            tickets: vec![v1::TicketState {
                ticket_id: "T-1".into(),
                consent: "Active".into(),
                snapshots_used: 1,
                bytes_used: 65_536,
                ..Default::default()
            }],
        }),
        Body::Health(v1::HealthReport {
            agent_rss_bytes: 30_000_000,
            nodes: vec![v1::NodeHealth {
                name: "node-1".into(),
                node_image: "AKSUbuntu-2204".into(),
                ready: true,
                ..Default::default()
            }],
            apps: Some(v1::AppsHealth {
                total: 2,
                by_state: vec![v1::AppCount { name: "Running".into(), count: 2 }],
                by_runtime: vec![v1::AppCount { name: "10.9.1".into(), count: 2 }],
                below_minimum: 2,
                unknown_runtime: 0,
            }),
            guard_available: Some(true),
            ..Default::default()
        }),
    ] {
        reports.publish(body);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _in_runtime = runtime.enter();
    let mut supervisor = Supervisor::new(CancellationToken::new());
    supervisor.spawn("patch", |_| std::future::pending::<Result<(), std::io::Error>>());
    let tasks = supervisor.tasks();
    let (audit, _) = crate::audit::tests::audit(&Default::default());
    audit.count_refusal("NoGrant");
    let work = Work { epoch: 7, link, reports, audit, tasks: tasks.clone() };
    let (_keep, work) = watch::channel(Some(work));
    Metrics::new(work, tasks, "1.2.3").encode().unwrap()
}

/// name → type and labels, of the page.
fn exported(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut metrics = BTreeMap::new();
    let mut kind = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.split_once(' ').unwrap().1;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels);
        let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        metrics.insert(name.to_owned(), (kind.to_owned(), names.collect()));
    }
    metrics
}

/// The same of the documentation.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let quoted = |cell: &str| {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<String>>()
    };
    DOCUMENTED
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 6, "{line}");
            assert!(cells.iter().enumerate().all(|(i, cell)| i == 3 || !cell.is_empty()), "{line}");
            let name = quoted(cells[0]).pop_first().unwrap();
            (name, (cells[1].to_owned(), quoted(cells[3])))
        })
        .collect()
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    assert_eq!(documented(), exported(&page()), "docs/metrics.md (left) and the agent (right)");
}

#[test]
fn every_metric_that_is_written_is_on_the_page_of_this_test() {
    let source = include_str!("../metrics.rs");
    let mut written = BTreeSet::new();
    for call in ["page.gauges(", "page.counters("] {
        for (at, _) in source.match_indices(call) {
            let rest = source[at + call.len()..].trim_start();
            let name = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).unwrap().0;
            let suffix = if call.contains("counters") { "_total" } else { "" };
            written.insert(format!("mendix_agent_{name}{suffix}"));
        }
    }
    let shown: BTreeSet<String> = exported(&page()).into_keys().collect();
    assert_eq!(written, shown, "written somewhere (left), on this page (right)");
}

#[test]
fn the_file_that_prometheus_reads_in_tests_is_the_agents_page() {
    let page = page();
    if std::env::var_os("UPDATE_METRICS").is_some() {
        std::fs::write(FILE, &page).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    assert_eq!(file, page, "run the test with UPDATE_METRICS=1 and review the difference");
}
