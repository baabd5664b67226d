//! What was planted in a log is looked for in all that the agent writes about its work: its own log,
//! its objects, what it reported.

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

use super::{consent, kubelet::Log, lines, minutes_ago, noisy_world};

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
    let reported = format!("{:?}", world.plane.store().cluster(&world.uid).unwrap());
    world.stop_agent().await;

    let objects = objects(&world.admin, &world.agent_namespace).await;
    let kinds: Vec<&str> = objects.iter().map(|(name, _)| name.as_str()).collect();
    for kind in ["LogSnapshot ", "SupportTicket ", "Event ", "Secret ", "ConfigMap "] {
        assert!(kinds.iter().any(|name| name.starts_with(kind)), "no {kind}in {kinds:?}");
    }
    let mut own = vec![token.trim().as_bytes().to_vec()];
    for (name, object) in &objects {
        let text = serde_json::to_string(object).unwrap();
        assert!(!text.contains(&canary), "{name} holds what was in a log: {text}");
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
    assert!(!reported.contains(&canary), "{reported}");

    let log = logged();
    assert!(log.contains("mendix_agent::"), "the agent logs something: {} bytes", log.len());
    assert!(!log.contains(&canary), "the agent's log holds what was in a log");
    // Neither as it stands nor in base64. Short values are words and numbers.
    for secret in own.iter().filter(|secret| secret.len() >= 24) {
        let encoded = STANDARD.encode(secret);
        let plain = String::from_utf8_lossy(secret);
        assert!(!log.contains(&encoded[..24]), "the agent's log holds a credential of its own");
        assert!(!log.contains(plain.trim()), "the agent's log holds a credential of its own");
    }
}
