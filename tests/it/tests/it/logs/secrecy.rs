//! What was planted in a log is looked for in all that the agent writes about its work: its own log,
//! its objects with their statuses, its Events, its audit log, its metrics, what it reported.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
    discovery::{Discovery, Scope, verbs},
};
use serde_json::Value;

use mendix_agent::audit::show::Stored;
use mendix_agent_core::audit::Record;
use mendix_test_kit::wait::eventually;

use super::{consent, kubelet::Log, lines, minutes_ago, noisy_world, world::PATIENCE};

/// Everything that this process has logged, the agents of all tests included.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Collects the log, and prints it when RUST_LOG asks for it.
struct Collected;

impl io::Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        if std::env::var_os("RUST_LOG").is_some() {
            print!("{}", String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what the agent logs, down to its finest level. Without RUST_LOG nothing of it is printed.
pub(crate) fn collect_log() {
    let filter = std::env::var("RUST_LOG")
        .unwrap_or_else(|_| "warn,mendix_agent=trace,mendix_agent_core=trace".into());
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(false)
        .with_writer(|| Collected)
        .try_init();
}

fn logged() -> String {
    let bytes = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every object in a namespace, of every kind that can be listed.
async fn objects(client: &Client, namespace: &str) -> Vec<(String, DynamicObject)> {
    let mut found = vec![];
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.scope != Scope::Namespaced
                || !capabilities.supports_operation(verbs::LIST)
            {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), namespace, &resource);
            for object in api.list(&ListParams::default()).await.unwrap().items {
                found.push((format!("{} {}", resource.kind, object.name_any()), object));
            }
        }
    }
    found
}

/// Values of a Secret, decoded.
fn secret_values(object: &DynamicObject) -> Vec<Vec<u8>> {
    let data = object.data.get("data").and_then(Value::as_object);
    let values = data.into_iter().flat_map(|data| data.values()).filter_map(Value::as_str);
    values.map(|value| STANDARD.decode(value).unwrap()).collect()
}

/// A text as it stands, and as it reads in base64 (at each of three places of a group) and hexadecimal
/// digits.
fn forms(text: &str) -> Vec<String> {
    let hex = text.bytes().map(|b| format!("{b:02x}")).collect();
    let encoded = (0..3).map(|skip| {
        let whole = text.get(skip..).unwrap();
        // The last letters depend on what follows.
        let letters = STANDARD.encode(whole);
        letters[..whole.len() / 3 * 4].to_owned()
    });
    [text.to_owned(), hex].into_iter().chain(encoded).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_are_in_no_log_and_no_object_of_the_agent() {
    let mut world = noisy_world().await;
    let canary = format!("Canary{}7Zq", world.uid.replace('-', ""));
    let text = lines(
        minutes_ago(10),
        &[
            "INFO starting",
            &format!("DEBUG connecting with password={canary}"),
            &format!("WARN mail to {canary}@customer.example failed"),
            &format!("ERROR https://bob:{canary}@git.example refused"),
            &format!("INFO \u{1b}[31mtoken: {canary}\u{1b}[0m"),
            "INFO ready",
        ],
    );
    world.kubelet.set(&world.namespace, "noisy-1-abc", "main", Log::Whole(text));
    let token = std::fs::read_to_string(world.dir.path().join("token")).unwrap();
    world.start_agent().await;
    let (ticket, request) = world.open_ticket_with_request(Some(consent()));
    let done = world.outcome(&request.unwrap()).await;
    assert_eq!(done.outcome, "Succeeded", "{}: {}", done.reason, done.message);
    world.ticket_object(&ticket, "Active").await;
    let page = eventually(PATIENCE, "the metrics tell of the snapshot", async || {
        let page = world.metrics_page();
        let told =
            page.lines().any(|line| line.contains(&ticket.ticket_id) && line.ends_with(" 1"));
        told.then_some(page)
    })
    .await
    .unwrap();
    let reported = format!("{:?}", world.plane.store().cluster(&world.uid).unwrap());
    world.stop_agent().await;
    let audit = Stored::in_cluster(&world.admin, &world.agent_namespace).await.unwrap();
    let audit: String = audit.newest(usize::MAX).iter().map(Record::line).collect();
    assert!(audit.contains(&done.snapshot_id), "the audit log tells of the snapshot: {audit}");
    let forms = forms(&canary);
    let holds = |text: &str| forms.iter().any(|form| text.contains(form.as_str()));
    assert!(!holds(&page), "the metrics hold what was in a log: {page}");
    assert!(!holds(&audit), "the audit log holds what was in a log: {audit}");
    assert!(!page.contains(token.trim()) && !audit.contains(token.trim()));

    let objects = objects(&world.admin, &world.agent_namespace).await;
    let kinds: Vec<&str> = objects.iter().map(|(name, _)| name.as_str()).collect();
    for kind in ["LogSnapshot ", "SupportTicket ", "Event ", "Secret ", "ConfigMap "] {
        assert!(kinds.iter().any(|name| name.starts_with(kind)), "no {kind}in {kinds:?}");
    }
    let mut own = vec![token.trim().as_bytes().to_vec()];
    for (name, object) in &objects {
        let text = serde_json::to_string(object).unwrap();
        assert!(!holds(&text), "{name} holds what was in a log: {text}");
        assert!(!text.contains(token.trim()), "{name} holds the bootstrap token: {text}");
        if name.starts_with("Secret ") {
            let values = secret_values(object);
            for value in &values {
                let holds = memchr::memmem::find(value, canary.as_bytes()).is_some();
                assert!(!holds, "{name} holds what was in a log");
            }
            if name.contains("identity") {
                own.extend(values);
            }
        }
    }
    assert!(!holds(&reported), "{reported}");

    let log = logged();
    for secret in own.iter().filter(|secret| secret.len() >= 24) {
        let plain = String::from_utf8_lossy(secret);
        assert!(!page.contains(plain.trim()), "the metrics hold a credential of the agent");
    }
    assert!(log.contains("mendix_agent::"), "the agent logs something: {} bytes", log.len());
    assert!(!holds(&log), "the agent's log holds what was in a log");
    // Neither as it stands nor in base64. Short values are words and numbers.
    for secret in own.iter().filter(|secret| secret.len() >= 24) {
        let encoded = STANDARD.encode(secret);
        let plain = String::from_utf8_lossy(secret);
        assert!(!log.contains(&encoded[..24]), "the agent's log holds a credential of its own");
        assert!(!log.contains(plain.trim()), "the agent's log holds a credential of its own");
    }
}
