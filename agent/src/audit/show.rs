//! The commands `audit verify` and `audit list`: the log as it is stored, in the cluster or in a
//! file that was exported from it, read with the caller's rights. They change nothing and need no
//! agent.

use std::{
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use comfy_table::{Table, presets};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, Client};
use mendix_agent_core::{
    audit::{
        Checkpoint, Record,
        log::Segment,
        verify::{Verdict, verify},
    },
    ordered,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{AuditError, store};

/// Where the log is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The cluster of the kubeconfig.
    Cluster,
    /// A file with exported ConfigMaps, JSON or YAML; `-` is standard input.
    File(PathBuf),
}

impl FromStr for From {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "cluster" => Self::Cluster,
            path => Self::File(path.into()),
        })
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The stored log can't be read.
    #[error(
        "read the audit log in namespace {namespace}; is the agent installed there (--namespace)?"
    )]
    Cluster {
        /// Where.
        namespace: String,
        /// The cause.
        #[source]
        source: AuditError,
    },
    /// The file can't be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} holds no ConfigMaps; export them with `kubectl -n mendix-agent get configmaps -o json`"
    )]
    NotExported {
        /// The file.
        path: String,
    },
}

/// The stored log.
#[derive(Clone, Debug)]
pub struct Stored {
    segments: Vec<Segment>,
    /// UID of the cluster it was read from; none for files.
    cluster: Option<String>,
}

impl Stored {
    /// Reads it from the cluster.
    ///
    /// # Errors
    /// [`ShowError::Cluster`].
    pub async fn in_cluster(client: &Client, namespace: &str) -> Result<Self, ShowError> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let mut segments = Vec::new();
        store::read_all(&api, |segment, _| {
            segments.push(segment);
            Ok(())
        })
        .await
        .map_err(|source| ShowError::Cluster { namespace: namespace.into(), source })?;
        // Whoever may not read it compares records with each other all the same.
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let system = namespaces.get("kube-system").await.ok();
        Ok(Self { segments, cluster: system.and_then(|system| system.metadata.uid) })
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`ShowError::File`] and [`ShowError::NotExported`].
    pub fn in_file(path: &Path) -> Result<Self, ShowError> {
        let name = path.display().to_string();
        let mut text = String::new();
        let read = match name.as_str() {
            "-" => std::io::stdin().read_to_string(&mut text).map(drop),
            _ => std::fs::read_to_string(path).map(|read| text = read),
        };
        read.map_err(|source| ShowError::File { path: name.clone(), source })?;
        let maps = exported(&text).ok_or(ShowError::NotExported { path: name })?;
        Ok(Self { segments: maps.into_iter().filter_map(store::segment).collect(), cluster: None })
    }

    /// Verifies it. `cluster` is the UID it has to belong to, if it is known.
    pub fn verify(&self, cluster: Option<&str>, checkpoints: &[Checkpoint]) -> Verified {
        let cluster = cluster.or(self.cluster.as_deref());
        let verdict = verify(self.segments.clone(), cluster, checkpoints);
        let named = self.records().into_iter().next().map(|record| record.cluster);
        Verified {
            cluster: cluster.map(str::to_owned).or(named),
            segments: self.segments.len(),
            verdict,
        }
    }

    /// The newest records, oldest of them first. What is no record is left out: verification names
    /// it.
    pub fn newest(&self, count: usize) -> Vec<Record> {
        let mut records = self.records();
        records.drain(..records.len().saturating_sub(count));
        records
    }

    fn records(&self) -> Vec<Record> {
        let mut segments: Vec<&Segment> = self.segments.iter().collect();
        ordered::sort_by(&mut segments, |a, b| a.number.cmp(&b.number));
        let lines = segments.iter().flat_map(|segment| segment.records.lines());
        lines.filter_map(|line| Record::parse(line).ok()).collect()
    }
}

/// One ConfigMap, a list of them, or several documents of either.
fn exported(text: &str) -> Option<Vec<ConfigMap>> {
    let documents: Vec<Value> = match serde_json::from_str(text) {
        Ok(document) => vec![document],
        Err(_) => serde_saphyr::from_multiple(text).ok()?,
    };
    let mut maps = Vec::new();
    for mut document in documents {
        let items = match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => vec![document],
        };
        for item in items.into_iter().filter(|item| item["kind"] == "ConfigMap") {
            maps.push(serde_json::from_value(item).ok()?);
        }
    }
    (!maps.is_empty()).then_some(maps)
}

/// A verdict with what it is about.
#[derive(Clone, Debug)]
pub struct Verified {
    cluster: Option<String>,
    segments: usize,
    verdict: Verdict,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    sound: bool,
    cluster: Option<&'a str>,
    segments: usize,
    records: usize,
    first: u64,
    end: Option<String>,
    findings: Vec<String>,
    unproven: &'a [u64],
    confirmed: Vec<String>,
    not_covered: Vec<String>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.verdict.is_sound()
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let Verdict { records, first, end, findings, unproven, confirmed, not_covered } =
            &self.verdict;
        let texts =
            |checkpoints: &[Checkpoint]| checkpoints.iter().map(|c| c.to_string()).collect();
        json!(Shown {
            sound: self.is_sound(),
            cluster: self.cluster.as_deref(),
            segments: self.segments,
            records: *records,
            first: *first,
            end: end.map(|end| end.to_string()),
            findings: findings.iter().map(ToString::to_string).collect(),
            unproven,
            confirmed: texts(confirmed),
            not_covered: texts(not_covered),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let verdict = &self.verdict;
        let mut text = match (&verdict.end, &self.cluster) {
            (Some(end), Some(cluster)) => format!(
                "Audit log of cluster {cluster}: records {} to {}, {} segments\n",
                verdict.first, end.sequence, self.segments
            ),
            _ => "There is no record.\n".to_owned(),
        };
        for finding in &verdict.findings {
            text.push_str(&format!("WRONG     {finding}\n"));
        }
        for sequence in &verdict.unproven {
            text.push_str(&format!(
                "UNPROVEN  record {sequence}: the record that vouched for it is altered or gone\n"
            ));
        }
        for checkpoint in &verdict.confirmed {
            text.push_str(&format!("CONFIRMED up to checkpoint {checkpoint}\n"));
        }
        for checkpoint in &verdict.not_covered {
            text.push_str(&format!(
                "UNKNOWN   checkpoint {checkpoint}: its record was dropped long ago\n"
            ));
        }
        text.push_str(match (verdict.is_sound(), verdict.confirmed.is_empty()) {
            (true, true) => {
                "Sound in itself. Whether its end was cut off shows only against a checkpoint that \
                 was kept elsewhere (--checkpoint).\n"
            }
            (true, false) => "Sound.\n",
            (false, _) => "NOT SOUND.\n",
        });
        if let Some(end) = verdict.end.filter(|_| verdict.is_sound()) {
            text.push_str(&format!("Its end, as a checkpoint to keep: {end}\n"));
        }
        text
    }
}

/// Records as a table.
pub fn table(records: &[Record]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["RECORD", "AT", "DECISION", "ABOUT"]);
    for record in records {
        let kind = record.event["kind"].as_str().unwrap_or("?");
        table.add_row([
            record.sequence.to_string(),
            record.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            kind.to_owned(),
            about(&record.event),
        ]);
    }
    match table.is_empty() {
        true => "There is no record.\n".to_owned(),
        false => format!("{}\n", table.trim_fmt()),
    }
}

/// The fields of an event on one line, also of one that this build does not know.
fn about(event: &Value) -> String {
    let fields = event.as_object().into_iter().flatten().filter(|(key, _)| *key != "kind");
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().unwrap_or("…").to_owned());
            texts.collect::<Vec<_>>().join(",")
        }
        Value::Object(fields) => match fields.get("id").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            None => value.to_string(),
        },
        other => other.to_string(),
    };
    fields.map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mendix_agent_core::audit::{Event, log::Log};

    use super::*;

    fn stored() -> (Vec<Value>, Checkpoint) {
        let events: Vec<_> = (0..3)
            .map(|n| {
                let event = Event::SnapshotRefused {
                    request: format!("req-{n}"),
                    ticket: "MX-1".into(),
                    reason: "NoGrant".into(),
                };
                (Timestamp::UNIX_EPOCH, event)
            })
            .collect();
        let plan = Log::empty("c-1").plan(&events, 0).unwrap();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "audit-000001" },
            "data": { "records": plan.segment.records, "chain": plan.segment.chain },
        });
        let other = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-root-ca.crt" },
            "data": { "ca.crt": "…" },
        });
        (vec![other, map], plan.end)
    }

    fn read(text: &str) -> Result<Stored, ShowError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Stored::in_file(file.path())
    }

    #[test]
    fn an_export_in_any_form_is_verified_offline() {
        let (maps, end) = stored();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": maps });
        let yaml: String = maps
            .iter()
            .map(|map| format!("---\n{}\n", serde_saphyr::to_string(map).unwrap()))
            .collect();
        for text in [list.to_string(), maps[1].to_string(), yaml] {
            let stored = read(&text).unwrap();
            let verified = stored.verify(Some("c-1"), &[end]);
            assert!(verified.is_sound(), "{}", verified.text());
            assert!(verified.text().contains(&format!("CONFIRMED up to checkpoint {end}")));
            assert_eq!(verified.json()["end"], end.to_string());
            assert_eq!(stored.newest(2).len(), 2);
        }
        assert!(matches!(read("{}"), Err(ShowError::NotExported { .. })));
    }

    #[test]
    fn what_is_wrong_is_told_and_a_list_shows_what_was_decided() {
        let (mut maps, end) = stored();
        let records = maps[1]["data"]["records"].as_str().unwrap().replace("req-1", "req-9");
        maps[1]["data"]["records"] = records.into();
        let stored = read(&maps[1].to_string()).unwrap();
        let verified = stored.verify(None, &[end]);
        assert!(!verified.is_sound());
        assert!(verified.text().contains("WRONG     record 2 was altered"), "{}", verified.text());
        assert!(verified.text().ends_with("NOT SOUND.\n"));
        let table = table(&stored.newest(10));
        assert!(table.contains("snapshot-refused"), "{table}");
        assert!(table.contains("reason=NoGrant request=req-0 ticket=MX-1"), "{table}");
    }
}
