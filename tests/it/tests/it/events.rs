//! Kubernetes Events: each that there is, is waited for by a test, on a real API server. Those that belong to
//! a path are waited for where that path is tested; here is the rest.

use std::{collections::BTreeSet, path::Path};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client};
use mendix_agent::{
    agent_status,
    audit::Audit,
    channel::{Link, Reports},
    crd::patch_bundle::{PatchBundle, PatchBundleSpec, PatchBundleStatus},
    occasion::{self, Occasion},
    patch::report::Reporter,
    preflight::{self, Check, Report, Verdict},
};
use mendix_agent_core::session::Capability;
use mendix_test_kit::wait::eventually;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{PATIENCE, Plane, cluster},
    manifests,
};

/// Waits for the Event in a namespace: its reason, its type and the kind of the object that it is about.
pub(crate) async fn told(client: &Client, namespace: &str, occasion: Occasion) -> Event {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let kind = if occasion.warns { "Warning" } else { "Normal" };
    let (reason, about) = (occasion.reason, occasion.about);
    eventually(PATIENCE, format!("a {kind} {reason} about a {about}"), async || {
        let events = api.list(&Default::default()).await.unwrap().items;
        events.into_iter().find(|event| {
            let regarding = event.regarding.as_ref().and_then(|object| object.kind.as_deref());
            event.reason.as_deref() == Some(reason)
                && event.type_.as_deref() == Some(kind)
                && regarding == Some(about)
        })
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn what_people_are_warned_of_about_a_connection_is_an_event() {
    let plane = Plane::called(vec![]).await;
    let cluster = cluster().await;
    manifests::apply(&cluster.client, &["00-crds.yaml"]).await;
    let config = plane.config(&cluster.namespace);
    let (clock, conflict, lacks) =
        (occasion::CLOCK_SKEW, occasion::IDENTITY_CONFLICT, occasion::CONTROL_PLANE_LACKS);
    let link = |of: Occasion| Link::Connected {
        session_id: "s".into(),
        since: Timestamp::now(),
        clock_skew_millis: if of == clock { 86_400_000 } else { 0 },
        identity_conflict: (of == conflict).then(|| "process c0ffee used it".into()),
        lacks: if of == lacks { vec![Capability::LogSnapshots] } else { vec![] },
    };
    let (links, observed) = watch::channel(link(clock));
    let stop = CancellationToken::new();
    let telling = tokio::spawn(agent_status::run(
        cluster.clone(),
        config,
        observed,
        Reports::default(),
        stop.clone(),
    ));
    for (occasion, words) in
        [(clock, "86400 s behind"), (conflict, "c0ffee"), (lacks, "log-snapshots")]
    {
        links.send_replace(link(occasion));
        let event = told(&cluster.client, &cluster.namespace, occasion).await;
        assert!(event.note.unwrap().contains(words), "{occasion:?}");
    }
    stop.cancel();
    telling.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_preflight_found_is_an_event() {
    let cluster = cluster().await;
    for (result, occasion, words) in [
        (Verdict::Fail, occasion::PREFLIGHT_FAILED, "clock: off"),
        (Verdict::Warn, occasion::PREFLIGHT_WARNED, "clock: off"),
        (Verdict::Pass, occasion::PREFLIGHT_PASSED, "everything the agent needs is there"),
    ] {
        let text = |text: &str| if result == Verdict::Pass { String::new() } else { text.into() };
        let (cause, remedy) = (text("nobody set it"), text("set it"));
        let check = Check { name: "clock", result, detail: "off".into(), cause, remedy };
        preflight::watch::tell(&cluster, &Report { checks: vec![check] }).await;
        let event = told(&cluster.client, &cluster.namespace, occasion).await;
        assert!(event.note.as_deref().unwrap().contains(words), "{:?}", event.note);
    }
}

#[tokio::test]
async fn other_words_are_another_event_and_the_same_words_are_counted() {
    let cluster = cluster().await;
    for detail in ["off", "rights are missing", "off"] {
        let check = Check {
            name: "clock",
            result: Verdict::Fail,
            detail: detail.into(),
            cause: "somebody".into(),
            remedy: "mend it".into(),
        };
        preflight::watch::tell(&cluster, &Report { checks: vec![check] }).await;
    }
    let events: Api<Event> = cluster.own();
    let said: Vec<(String, Option<i32>)> = (events.list(&Default::default()).await.unwrap().items)
        .into_iter()
        .map(|event| (event.note.unwrap(), event.series.map(|series| series.count)))
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.contains(&("clock: off; mend it".into(), Some(2))), "{said:?}");
    assert!(said.contains(&("clock: rights are missing; mend it".into(), None)), "{said:?}");
}

#[tokio::test]
async fn a_release_that_gets_late_while_it_waits_is_an_event() {
    let cluster = cluster().await;
    let audit = Audit::new(&cluster, watch::channel(None).0);
    let reporter = Reporter::new(cluster.clone(), Reports::default(), audit);
    let spec = PatchBundleSpec {
        release_id: "2026.11.1".into(),
        sequence: 1,
        class: None,
        index_sha256: Some("00".into()),
        apply_by: Some(Timestamp::now() - SignedDuration::from_hours(1)),
        components: vec![],
    };
    let mut bundle = PatchBundle::new("waiting", spec);
    bundle.metadata.namespace = Some(cluster.namespace.clone());
    bundle.status = Some(PatchBundleStatus { state: "Scheduled".into(), ..Default::default() });
    reporter.run(&bundle, None);
    let stop = CancellationToken::new();
    let event = tokio::select! {
        () = reporter.watch_deadline(&stop) => unreachable!("nobody stops it"),
        event = told(&cluster.client, &cluster.namespace, occasion::OVERDUE) => event,
    };
    assert!(event.note.unwrap().contains("it is Scheduled"));
}

/// Text of every test of this binary.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(entry).unwrap());
        }
    }
}

/// Names that follow `before` in a text.
fn names(text: &str, before: &str) -> BTreeSet<String> {
    let word = |at: usize| {
        let rest = &text[at + before.len()..];
        let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    };
    text.match_indices(before).map(|(at, _)| word(at)).filter(|name| name.len() > 1).collect()
}

#[test]
fn a_test_waits_for_every_event_there_is() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(here.join("../../agent/src/occasion.rs")).unwrap();
    let (_, table) = source.split_once("\noccasions! {\n").unwrap();
    let (table, _) = table.split_once("\n}\n").unwrap();
    let all: BTreeSet<String> = table
        .lines()
        .filter_map(|line| Some(line.trim().split_once(" = ")?.0.to_owned()))
        .collect();
    assert_eq!(all.len(), occasion::ALL.len(), "{all:?}");
    let mut tests = String::new();
    sources(&here.join("tests/it"), &mut tests);
    let mut waited = names(&tests, "occasion::");
    waited.remove("ALL");
    // Its reason differs from case to case.
    let refusals = std::fs::read_to_string(here.join("tests/it/logs/consent.rs")).unwrap();
    assert!(refusals.contains("Occasion::refused(\"NoGrant\")"));
    waited.insert("SNAPSHOT_REFUSED".into());
    assert_eq!(all, waited, "made (left), waited for by a test in tests/it (right)");
}
