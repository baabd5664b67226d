//! `release`: from manifests to clusters.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use mendix_agent_core::bundle::index::{Gates, ReleaseClass};
use serde_json::json;

use super::{
    Failure, Output,
    output::{ago, bytes, table},
};
use crate::{
    manifests::{self, ComponentSpec, ReleaseSpec, diff::ComponentDiff},
    repository::{self, Draft, Expiry},
    store::{ReleaseRecord, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check, sign and publish a release from folders of manifests.
    Publish(Box<Publish>),
    /// Show what a published release changed, object by object and field by field.
    Diff {
        /// The release.
        id: String,
    },
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
    /// Show the floor: the lowest sequence that any cluster accepts, whatever it remembers.
    Floor {
        /// Raise it to this release; it never sinks again.
        #[arg(long, value_name = "ID")]
        raise: Option<String>,
    },
    /// List releases.
    List,
}

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Release file that says all of it (see docs/operations.md); folders in it are relative to it.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["id", "class", "components", "adopt", "audience", "not_before", "apply_by", "soak_seconds", "timeout_seconds"])]
    file: Option<PathBuf>,
    /// Name of the release, such as 2026.11.3.
    #[arg(long, required_unless_present = "file")]
    id: Option<String>,
    /// How urgent it is.
    #[arg(long, value_enum, required_unless_present = "file")]
    class: Option<Class>,
    /// A component and its folder of manifests, applied in the given order. The version is the
    /// release's unless it is given.
    #[arg(long = "component", required_unless_present = "file", value_name = "NAME[@VERSION]=DIR", value_parser = component)]
    components: Vec<(String, Option<String>, PathBuf)>,
    /// Component that may take over objects which exist and have no owner; may be repeated.
    #[arg(long, value_name = "NAME")]
    adopt: Vec<String>,
    /// Ring the release is for; may be repeated; all when absent.
    #[arg(long, value_name = "RING")]
    audience: Vec<String>,
    /// Not to be started before (RFC 3339).
    #[arg(long)]
    not_before: Option<Timestamp>,
    /// To be applied by (RFC 3339).
    #[arg(long)]
    apply_by: Option<Timestamp>,
    /// How long components must stay ready, seconds (0 to 3600; 30 unless given).
    #[arg(long)]
    soak_seconds: Option<u32>,
    /// Longest wait for a component to become ready, seconds (10 to 3600; 600 unless given).
    #[arg(long)]
    timeout_seconds: Option<u32>,
    /// Sequence; one above the newest release's unless given.
    #[arg(long)]
    sequence: Option<u64>,
    /// Only check and compare; sign and publish nothing.
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
    fn spec(&self) -> Result<ReleaseSpec, manifests::Problems> {
        if let Some(file) = &self.file {
            return ReleaseSpec::from_file(file);
        }
        let (Some(id), Some(class)) = (&self.id, self.class) else {
            let missing = "--file, or --id, --class and --component are needed";
            return Err(manifests::Problems(vec![missing.to_owned()]));
        };
        let class = match class {
            Class::Quarterly => ReleaseClass::Quarterly,
            Class::Weekly => ReleaseClass::Weekly,
            Class::Critical => ReleaseClass::Critical,
        };
        let components = self.components.iter().map(|(name, version, dir)| ComponentSpec {
            adopt: self.adopt.contains(name),
            ..ComponentSpec::new(name, version.as_ref().unwrap_or(id), dir)
        });
        let gates = Gates::default();
        Ok(ReleaseSpec {
            not_before: self.not_before,
            apply_by: self.apply_by,
            audience: self.audience.clone(),
            gates: Gates {
                timeout_seconds: self.timeout_seconds.unwrap_or(gates.timeout_seconds),
                soak_seconds: self.soak_seconds.unwrap_or(gates.soak_seconds),
            },
            components: components.collect(),
            ..ReleaseSpec::new(id, class)
        })
    }

    /// The checked release, or everything that is wrong with it.
    fn draft(&self) -> Result<Draft, manifests::Problems> {
        let mut problems = Vec::new();
        for name in &self.adopt {
            if !self.components.iter().any(|(component, ..)| component == name) {
                problems.push(format!("--adopt {name}: there is no such --component"));
            }
        }
        match manifests::draft(&self.spec()?) {
            Ok(draft) if problems.is_empty() => Ok(draft),
            Ok(_) => Err(manifests::Problems(problems)),
            Err(found) => {
                problems.extend(found.0);
                Err(manifests::Problems(problems))
            }
        }
    }

    async fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        let draft = self.draft()?;
        let problems = repository::narrowed(store, &draft).await?;
        if !problems.is_empty() {
            return Err(manifests::Problems(problems).into());
        }
        let changes = repository::changes(store, &draft).await?;
        let mut text = notes(&draft);
        text.push_str(&changed(&changes));
        if self.dry_run {
            output.print(&json!({ "index": draft.index, "changes": changes }), || {
                format!(
                    "Release {} would be accepted; nothing was signed.\n{text}",
                    draft.index.release_id
                )
            });
            return Ok(());
        }
        let release = repository::publish(store, draft, self.sequence, Expiry::default()).await?;
        output.print(&json!({ "release": release, "changes": changes }), || {
            format!("{text}\n{}", published(&release))
        });
        Ok(())
    }
}

fn notes(draft: &Draft) -> String {
    let mut text = String::new();
    for (component, lines) in draft.notes() {
        for line in lines {
            text.push_str(&format!("{component}: {line}\n"));
        }
    }
    text
}

fn changed(changes: &[ComponentDiff]) -> String {
    changes.iter().flat_map(ComponentDiff::lines).collect::<Vec<_>>().join("\n")
}

impl Command {
    pub(super) async fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        match self {
            Self::Publish(publish) => publish.run(store, output).await,
            Self::Diff { id } => {
                let changes = repository::changes_of(store, &id).await?;
                output.print(&changes, || changed(&changes));
                Ok(())
            }
            Self::Push { id, cluster } => {
                let changed = store.push_release(&id, cluster.as_deref())?;
                output.print(&json!({ "release": id, "clusters": changed }), || {
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
                output.print(&json!({ "release": id, "file": file }), || {
                    format!(
                        "Release {id} is in {file}. `mendix-agent bundle verify {file} --root root.json` checks it."
                    )
                });
                Ok(())
            }
            Self::Floor { raise } => {
                let floor = match raise {
                    Some(id) => repository::floor::raise(store, &id, Expiry::default()).await?,
                    None => repository::floor::published(store).await?,
                };
                output.print(&floor, || {
                    format!(
                        "No cluster accepts a release below sequence {}. Signed {}.",
                        floor.sequence,
                        ago(floor.signed_at)
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
