//! What `bundle inspect` and `bundle verify` show of a release.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use mendix_agent_core::{
    bundle::index::{ReleaseClass, ReleaseIndex},
    ordered,
};
use serde::Serialize;

/// Problems that the table lists; the rest is counted.
const SHOWN_PROBLEMS: usize = 100;

/// A release as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseView {
    /// Whether the release root vouches for all of it.
    pub verified: bool,
    /// Its name.
    pub release_id: String,
    /// Its place in the order of all releases.
    pub sequence: u64,
    /// quarterly, weekly or critical.
    pub class: ReleaseClass,
    /// SHA-256 of the index, hex.
    pub index_sha256: String,
    /// Not to be started before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// To be committed by, as the index says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_by: Option<Timestamp>,
    /// Rings it is for; empty: all.
    pub audience: Vec<String>,
    /// Agent versions that may apply it.
    pub agent_versions: String,
    /// Kubernetes versions it may be applied to.
    pub kubernetes_versions: String,
    /// Its components in the order in which they are applied.
    pub components: Vec<ComponentView>,
    /// Data-holding objects that it may delete.
    pub deletes: Vec<String>,
    /// Definitions, roles and bindings of the agent that it may narrow.
    pub narrows: Vec<String>,
    /// What an agent would refuse it for. Only judged when it is verified.
    pub problems: Vec<String>,
}

/// One component of a release as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Lower phases come first.
    pub phase: u32,
    /// Size of its blob, bytes.
    pub blob_bytes: u64,
    /// Images of its pods, pinned by digest.
    pub images: Vec<String>,
    /// Namespaces it may own objects in.
    pub namespaces: Vec<String>,
    /// Kinds it may own.
    pub kinds: Vec<String>,
    /// Its objects; only known when they are verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<String>>,
}

impl ReleaseView {
    pub(super) fn claimed(index: &ReleaseIndex, index_sha256: String) -> Self {
        let mut components: Vec<_> = index
            .components
            .iter()
            .map(|entry| ComponentView {
                name: entry.name.clone(),
                version: entry.version.clone(),
                phase: entry.phase,
                blob_bytes: entry.blob.size,
                images: entry.images.clone(),
                namespaces: entry.scope.namespaces.clone(),
                kinds: entry.scope.kinds.clone(),
                objects: None,
            })
            .collect();
        ordered::sort_by(&mut components, |a, b| (a.phase, &a.name).cmp(&(b.phase, &b.name)));
        Self {
            verified: false,
            release_id: index.release_id.clone(),
            sequence: index.sequence,
            class: index.class,
            index_sha256,
            not_before: index.not_before,
            apply_by: index.apply_by,
            audience: index.audience.clone(),
            agent_versions: index.agent_versions.to_string(),
            kubernetes_versions: index.kubernetes_versions.to_string(),
            components,
            deletes: index.deletes.iter().map(ToString::to_string).collect(),
            narrows: index.narrows.iter().map(ToString::to_string).collect(),
            problems: Vec::new(),
        }
    }

    pub(super) fn verified(
        index: &ReleaseIndex,
        index_sha256: String,
        mut objects: BTreeMap<String, Vec<String>>,
        problems: Vec<String>,
    ) -> Self {
        let mut view = Self::claimed(index, index_sha256);
        for component in &mut view.components {
            component.objects = objects.remove(&component.name);
        }
        Self { verified: true, problems, ..view }
    }
}

/// For people.
pub fn table(view: &ReleaseView, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12} {value}\n"));
    let at = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    line("Release", view.release_id.clone());
    line("Sequence", view.sequence.to_string());
    line("Class", view.class.name().to_owned());
    line("Index", format!("sha256:{}", view.index_sha256));
    line("Not before", view.not_before.map_or_else(|| "at once".to_owned(), at));
    let late = |by: Timestamp| if by <= now { " (has passed)" } else { "" };
    line(
        "Apply by",
        view.apply_by.map_or_else(
            || "the end of the quarter in which it may begin".to_owned(),
            |by| format!("{}{}", at(by), late(by)),
        ),
    );
    let rings = if view.audience.is_empty() { "all".to_owned() } else { view.audience.join(", ") };
    line("Rings", rings);
    line("Agents", view.agent_versions.clone());
    line("Kubernetes", view.kubernetes_versions.clone());
    for delete in &view.deletes {
        line("May delete", delete.clone());
    }
    for narrow in &view.narrows {
        line("May narrow", narrow.clone());
    }
    let mut components = Table::new();
    components.load_style(presets::NOTHING);
    components.set_header(["COMPONENT", "VERSION", "PHASE", "OBJECTS", "BLOB", "NAMESPACES"]);
    for component in &view.components {
        let objects = component.objects.as_ref().map(|objects| objects.len().to_string());
        components.add_row([
            component.name.clone(),
            component.version.clone(),
            component.phase.to_string(),
            objects.unwrap_or_else(|| "-".to_owned()),
            format!("{} bytes", component.blob_bytes),
            component.namespaces.join(", "),
        ]);
    }
    text.push_str(&format!("\n{components}\n"));
    for component in &view.components {
        text.push_str(&format!("\n{} {}\n", component.name, component.version));
        for image in &component.images {
            text.push_str(&format!("  image {image}\n"));
        }
        for object in component.objects.iter().flatten() {
            text.push_str(&format!("  {object}\n"));
        }
    }
    text.push('\n');
    text.push_str(&verdict(view));
    text
}

fn verdict(view: &ReleaseView) -> String {
    if !view.verified {
        return "NOT VERIFIED: this is what the file says of itself. `bundle verify --root root.json` checks it.\n"
            .to_owned();
    }
    if view.problems.is_empty() {
        return "VERIFIED: the release root vouches for every byte, and nothing in it would be refused.\n"
            .to_owned();
    }
    let mut text = format!(
        "VERIFIED, AND REFUSED: the release root vouches for every byte; an agent would refuse it for {} reason(s):\n",
        view.problems.len()
    );
    for problem in view.problems.iter().take(SHOWN_PROBLEMS) {
        text.push_str(&format!("  - {problem}\n"));
    }
    if let Some(more @ 1..) = view.problems.len().checked_sub(SHOWN_PROBLEMS) {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}
