//! `release`: from manifests to clusters.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};

use super::{
    Failure, Output,
    output::{ago, bytes, table},
};
use crate::{
    manifests::{self, ComponentSpec, ReleaseSpec},
    repository::{self, Expiry},
    store::{ReleaseRecord, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check, sign and publish a release from folders of manifests.
    Publish(Publish),
    /// Ask clusters to run a published release.
    Push {
        /// The release.
        id: String,
        /// Only this cluster; otherwise every cluster of the release's audience.
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Write a published release into one file, for `mendix-agent bundle verify`.
    Export {
        /// The release.
        id: String,
        /// The file; release-ID.tar unless it is given.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List releases.
    List,
}

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Name of the release, such as 2026.11.3.
    #[arg(long)]
    id: String,
    /// How urgent it is.
    #[arg(long, value_enum)]
    class: Class,
    /// A component and its folder of manifests, applied in the given order. The version is the
    /// release's unless it is given.
    #[arg(long = "component", required = true, value_name = "NAME[@VERSION]=DIR", value_parser = component)]
    components: Vec<(String, Option<String>, PathBuf)>,
    /// Component that may take over objects which exist and have no owner; may be repeated.
    #[arg(long, value_name = "NAME")]
    adopt: Vec<String>,
    /// Sequence; one above the newest release's unless given.
    #[arg(long)]
    sequence: Option<u64>,
    /// Ring the release is for; may be repeated; all when absent.
    #[arg(long, value_name = "RING")]
    audience: Vec<String>,
    /// Not to be started before (RFC 3339).
    #[arg(long)]
    not_before: Option<Timestamp>,
    /// To be applied by (RFC 3339).
    #[arg(long)]
    apply_by: Option<Timestamp>,
    /// How long components must stay ready, seconds (0 to 3600).
    #[arg(long, default_value_t = Gates::default().soak_seconds)]
    soak_seconds: u32,
    /// Longest wait for a component to become ready, seconds (10 to 3600).
    #[arg(long, default_value_t = Gates::default().timeout_seconds)]
    timeout_seconds: u32,
    /// Only check; sign and publish nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Class of a release on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Class {
    /// The regular upgrade of a quarter.
    Quarterly,
    /// Security fixes of vendor components.
    Weekly,
    /// Starts at once.
    Critical,
}

fn component(text: &str) -> Result<(String, Option<String>, PathBuf), String> {
    let form = "NAME=DIR or NAME@VERSION=DIR is wanted";
    let (name, dir) = text.split_once('=').ok_or(form)?;
    let (name, version) = match name.split_once('@') {
        Some((name, version)) => (name, Some(version.to_owned())),
        None => (name, None),
    };
    if name.is_empty() || dir.is_empty() {
        return Err(form.to_owned());
    }
    Ok((name.to_owned(), version, PathBuf::from(dir)))
}

impl Publish {
    fn spec(&self) -> ReleaseSpec {
        let components = self.components.iter().map(|(name, version, dir)| ComponentSpec {
            name: name.clone(),
            version: version.clone().unwrap_or_else(|| self.id.clone()),
            dir: dir.clone(),
            adopt: self.adopt.contains(name),
        });
        ReleaseSpec {
            release_id: self.id.clone(),
            class: match self.class {
                Class::Quarterly => ReleaseClass::Quarterly,
                Class::Weekly => ReleaseClass::Weekly,
                Class::Critical => ReleaseClass::Critical,
            },
            not_before: self.not_before,
            apply_by: self.apply_by,
            audience: self.audience.clone(),
            gates: Gates { timeout_seconds: self.timeout_seconds, soak_seconds: self.soak_seconds },
            components: components.collect(),
        }
    }
}

impl Command {
    pub(super) async fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        match self {
            Self::Publish(publish) => {
                let mut problems = Vec::new();
                for name in &publish.adopt {
                    if !publish.components.iter().any(|(component, ..)| component == name) {
                        problems.push(format!("--adopt {name}: there is no such --component"));
                    }
                }
                let draft = match manifests::draft(&publish.spec()) {
                    Ok(draft) if problems.is_empty() => draft,
                    Ok(_) => return Err(manifests::Problems(problems).into()),
                    Err(found) => {
                        problems.extend(found.0);
                        return Err(manifests::Problems(problems).into());
                    }
                };
                if publish.dry_run {
                    output.print(&draft.index, || {
                        format!("Release {} would be accepted; nothing was signed.", publish.id)
                    });
                    return Ok(());
                }
                let release =
                    repository::publish(store, draft, publish.sequence, Expiry::default()).await?;
                output.print(&release, || published(&release));
                Ok(())
            }
            Self::Push { id, cluster } => {
                let changed = store.push_release(&id, cluster.as_deref())?;
                output.print(&serde_json::json!({ "release": id, "clusters": changed }), || {
                    match changed.len() {
                        0 => format!("Every cluster that it is for was already asked to run {id}."),
                        count => format!(
                            "{count} cluster(s) are asked to run {id}. `agents` shows how far they are."
                        ),
                    }
                });
                Ok(())
            }
            Self::Export { id, out } => {
                let out = out.unwrap_or_else(|| PathBuf::from(format!("release-{id}.tar")));
                repository::export(store, &id, &out).await?;
                let file = out.display().to_string();
                output.print(&serde_json::json!({ "release": id, "file": file }), || {
                    format!(
                        "Release {id} is in {file}. `mendix-agent bundle verify {file} --root root.json` checks it."
                    )
                });
                Ok(())
            }
            Self::List => {
                let releases = store.releases()?;
                output.print(&releases, || {
                    let rows = releases.iter().map(|release| {
                        [
                            release.release_id.clone(),
                            release.sequence.to_string(),
                            release.class.name().to_owned(),
                            release
                                .components
                                .iter()
                                .map(|component| {
                                    format!("{} {}", component.name, component.version)
                                })
                                .collect::<Vec<_>>()
                                .join(", "),
                            ago(release.published_at),
                        ]
                    });
                    table(
                        ["RELEASE", "SEQUENCE", "CLASS", "COMPONENTS", "PUBLISHED"],
                        rows,
                        "Nothing was published. `release publish` does it.",
                    )
                });
                Ok(())
            }
        }
    }
}

fn published(release: &ReleaseRecord) -> String {
    let rows = release.components.iter().map(|component| {
        [
            component.name.clone(),
            component.version.clone(),
            component.objects.to_string(),
            bytes(component.blob_size),
        ]
    });
    format!(
        "Release {} was published as sequence {} ({}).\n{}\nNext: `release push {}`.",
        release.release_id,
        release.sequence,
        release.class.name(),
        table(["COMPONENT", "VERSION", "OBJECTS", "BLOB"], rows, ""),
        release.release_id,
    )
}
