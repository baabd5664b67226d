//! The pages for users, held against what they speak of.

use std::{collections::BTreeSet, fmt::Write as _, process::Command, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use mendix_test_kit::{apiserver::ApiServer, assets::Assets, progress::Progress, wait::eventually};
use serde_json::{Value, json};

use crate::files::{objects, read, root};

const DEADLINE: Duration = Duration::from_secs(180);

/// All pages that users read.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    names.extend(
        ["README.md", "SECURITY.md", "packaging/observability/alerts.yaml"].map(str::to_owned),
    );
    names.extend(["packaging/helm/mendix-agent/templates/NOTES.txt".to_owned()]);
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// What a page holds between two marks, and the test writes with `UPDATE_DOCS=1`.
fn block(page: &str, mark: &str, expected: &str) {
    let text = read(page);
    let begin = text.find(&format!("<!-- {mark}:begin")).unwrap();
    let start = begin + text[begin..].find("-->\n").unwrap() + 4;
    let end = start + text[start..].find(&format!("<!-- {mark}:end -->")).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let new = format!("{}{expected}{}", &text[..start], &text[end..]);
        std::fs::write(root().join(page), new).unwrap();
        return;
    }
    assert_eq!(&text[start..end], expected, "{page}: run the tests with UPDATE_DOCS=1 and review");
}

#[test]
fn the_table_of_rights_is_what_the_manifests_grant() {
    let manifests = objects(&read("packaging/manifests/20-rbac.yaml"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> String {
        let words = value.as_array().into_iter().flatten().map(text);
        words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    };
    let mut table =
        String::from("| where | API group | what | names | verbs |\n|---|---|---|---|---|\n");
    for role in manifests.iter().filter(|object| object["rules"].is_array()) {
        let (kind, name) = (text(&role["kind"]), text(&role["metadata"]["name"]));
        let mut places: Vec<String> = manifests
            .iter()
            .filter(|binding| {
                let of = &binding["roleRef"];
                let own = role["metadata"].get("namespace");
                let same = own.is_none() || own == binding["metadata"].get("namespace");
                of["kind"] == *kind && of["name"] == *name && same
            })
            .map(|binding| match binding["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("`{namespace}`"),
                None => "cluster".to_owned(),
            })
            .collect();
        places.sort();
        assert!(!places.is_empty(), "{kind} {name} is bound nowhere");
        for rule in role["rules"].as_array().unwrap() {
            let groups = list(&rule["apiGroups"]).replace("``", "core");
            writeln!(
                table,
                "| {} | {groups} | {} | {} | {} |",
                places.join(", "),
                list(&rule["resources"]),
                list(&rule["resourceNames"]),
                list(&rule["verbs"]),
            )
            .unwrap();
        }
    }
    assert!(!table.contains('*'), "a wildcard: {table}");
    block("docs/security-review.md", "rights", &table);
}

#[test]
fn the_table_of_events_is_what_the_agent_makes() {
    let mut table = String::from("| event | type | on | means |\n|---|---|---|---|\n");
    for occasion in mendix_agent::occasion::ALL {
        let kind = if occasion.warns { "Warning" } else { "Normal" };
        // One reason is no word but says which words it can be.
        let reason = match occasion.reason.contains(' ') {
            true => occasion.reason.to_owned(),
            false => format!("`{}`", occasion.reason),
        };
        writeln!(table, "| {reason} | {kind} | {} | {} |", occasion.about, occasion.means).unwrap();
    }
    block("docs/customer-guide.md", "events", &table);
}

/// Arguments of the commands in a page that begin with `program`, as a shell would split them.
fn commands(page: &str, program: &str) -> Vec<Vec<String>> {
    let (mut all, mut output) = (vec![], false);
    for line in page.replace("\\\n", " ").lines() {
        // What a command prints is no command.
        output = if line.starts_with("```") { line == "```text" } else { output };
        if output {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find(&format!("{program} ")) {
            // Inside a word, a path, or a sentence it is no command.
            let before = rest[..at].chars().next_back();
            let code = before.is_none_or(|c| matches!(c, '`' | '(' | ' '))
                && (before == Some('`') || rest[..at].trim().is_empty() || before == Some('('));
            let command =
                rest[at..].split(['`', ')', ';', '|', '#', '"']).next().unwrap_or_default();
            rest = &rest[at + program.len()..];
            if code {
                let command = command.split(" && ").next().unwrap_or_default();
                // What stands for a value that has a form.
                let command = command.replace("SEQUENCE:HASH", &format!("1:{}", "ab".repeat(32)));
                all.push(command.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    all
}

#[test]
fn every_command_of_the_agent_in_the_pages_is_one() {
    let known = mendix_agent::cli::commands();
    let names: BTreeSet<String> =
        known.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let mut seen = BTreeSet::new();
    for (page, text) in pages() {
        for words in commands(&text, "mendix-agent") {
            let Some(name) = words.get(1).filter(|word| names.contains(*word)) else {
                assert!(
                    words.len() < 2 || words[1].starts_with('-'),
                    "{page}: `{}` is no command of the agent",
                    words.join(" ")
                );
                continue;
            };
            seen.insert(name.clone());
            match known.clone().try_get_matches_from(&words) {
                Ok(_) => {}
                // `mendix-agent bundle` and `run --help` are spoken of, too.
                Err(error) if !error.use_stderr() || words.len() == 2 => {}
                Err(error) => panic!("{page}: `{}`: {error}", words.join(" ")),
            }
        }
    }
    for expected in ["run", "preflight", "status", "completions"] {
        assert!(seen.contains(expected), "no page shows {expected}: {seen:?}");
    }
}

#[test]
fn every_value_of_the_chart_in_the_pages_exists() {
    let schema: Value =
        serde_json::from_str(&read("packaging/helm/mendix-agent/values.schema.json")).unwrap();
    let mut seen = 0;
    for (page, text) in pages() {
        for flag in ["--set ", "--set-file "] {
            for (at, _) in text.match_indices(flag) {
                let path = text[at + flag.len()..].split(['=', ' ', '`']).next().unwrap();
                let mut place = &schema;
                for key in path.split('.') {
                    place = &place["properties"][key];
                    if let Some(reference) = place["$ref"].as_str() {
                        place = schema.pointer(reference.trim_start_matches('#')).unwrap();
                    }
                }
                assert!(place.is_object(), "{page}: {flag}{path} is no value of the chart");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "only {seen} values are shown");
}

/// A cluster as the guide shows it.
fn shown() -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value, status: Value| {
        let mut object = json!({
            "apiVersion": "agent.mendix.com/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": "mendix-agent" },
            "spec": spec,
        });
        if status.is_object() {
            object["status"] = status;
        }
        object
    };
    let at = "2026-11-22T08:00:00Z";
    vec![
        object(
            "AgentStatus",
            "agent",
            json!({}),
            json!({
                "link": "Connected", "linkSince": at, "endpoint": "https://10.20.0.4:8443",
                "clusterUid": "0b5d", "version": "0.1.0", "kubernetesVersion": "v1.34.2",
                "release": "2026.11.1", "health": "Healthy",
            }),
        ),
        object(
            "ManagedComponent",
            "mendix-operator",
            json!({ "component": "mendix-operator" }),
            json!({
                "version": "2.21.0", "sequence": 12, "health": "Ready", "objects": 14, "driftCorrected": 1,
            }),
        ),
        object(
            "PatchBundle",
            // The release, and the beginning of the digest of its index.
            "2026.11.1-daa10987",
            json!({
                "releaseId": "2026.11.1", "sequence": 12, "class": "quarterly", "components": [],
            }),
            json!({ "state": "Committed" }),
        ),
        object(
            "SupportTicket",
            "t-4711",
            json!({ "ticketId": "T-4711" }),
            json!({
                "ticketStatus": "OPEN", "origin": "CUSTOMER", "severity": "HIGH", "consent": "Active",
                "expiresAt": "2026-11-23T08:00:00Z", "snapshotsUsed": 1, "snapshotsAllowed": 5,
                "bytesUsed": 65536, "bytesAllowed": 268435456,
            }),
        ),
        object(
            "LogSnapshot",
            "t-4711-1",
            json!({
                "ticketId": "T-4711", "requestId": "r-1", "grantId": "g-1", "grantSha256": "00",
                "consentedBy": "a person", "components": ["mendix-operator"], "dataClasses": [],
                "windowFrom": at, "windowTo": at, "redactionPolicy": 1, "recipientPublicKey": "AA==",
            }),
            json!({
                "phase": "Succeeded", "rawBytes": 524288, "sealedBytes": 65536, "files": 6,
                "replaced": 23, "gapCount": 0,
            }),
        ),
        object(
            "LogSharingPolicy",
            "default",
            json!({ "mode": "WithConsent", "suspend": false }),
            Value::Null,
        ),
    ]
}

#[tokio::test]
async fn the_guide_shows_what_kubectl_prints() {
    let assets = tokio::task::spawn_blocking(|| Assets::built(&Progress::default())).await.unwrap();
    let Ok(assets) = assets else {
        mendix_test_kit::skip("kubectl is among the programs that can't be built here");
        return;
    };
    let server = ApiServer::start(Default::default()).await.unwrap();
    let client = server.client().await.unwrap();
    let mut all = objects(&read("packaging/manifests/10-namespaces.yaml"));
    all.extend(objects(&read("packaging/manifests/00-crds.yaml")));
    all.extend(shown());
    for value in all {
        let object: DynamicObject = serde_json::from_value(value.clone()).unwrap();
        let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let (resource, capabilities) =
            eventually(DEADLINE, format!("{} is served", gvk.kind), async || {
                discovery::pinned_kind(&client, &gvk).await.ok()
            })
            .await
            .unwrap();
        let api: Api<DynamicObject> = match capabilities.scope {
            discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
            discovery::Scope::Namespaced => {
                Api::namespaced_with(client.clone(), "mendix-agent", &resource)
            }
        };
        let (name, params) = (object.name_any(), PatchParams::apply("test").force());
        api.patch(&name, &params, &Patch::Apply(&value)).await.unwrap();
        if value["status"].is_object() {
            api.patch_status(&name, &params, &Patch::Apply(&value)).await.unwrap();
        }
    }
    let output = Command::new(assets.program("kubectl"))
        .args(["get", "mendix", "-A", "--kubeconfig"])
        .arg(server.kubeconfig_path())
        // A discovery cache of its own, as on a machine that never saw this cluster.
        .env("HOME", tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<String> =
        text.lines().map(|line| without_ages(line).trim_end().to_owned()).collect();
    // The server lists kinds in the order in which it learned of them.
    let text = lines.join("\n");
    let mut kinds: Vec<&str> = text.split("\n\n").collect();
    kinds.sort_by_key(|kind| kind.lines().nth(1).map(str::to_owned));
    let shown = kinds.join("\n\n");
    block("docs/customer-guide.md", "objects", &format!("```text\n{}\n```\n", shown));
}

/// A table that was made now has other ages than one that was made then; `2d` stands for all.
fn without_ages(line: &str) -> String {
    let age = |word: &str| {
        word.ends_with(['s', 'm', 'h', 'd'])
            && word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c))
    };
    let mut text = String::new();
    for word in line.split_inclusive(' ') {
        let (core, blanks) = word.split_at(word.trim_end().len());
        text.push_str(if age(core) { "2d" } else { core });
        text.push_str(blanks);
    }
    text
}
