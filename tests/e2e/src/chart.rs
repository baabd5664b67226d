//! The agent's chart, rendered by a real Helm for a cluster that kubectl then gives it to. Hooks are left
//! out: the log sharing policy is the customer's, created once, and `helm test` needs a release.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mendix_test_kit::helm::Helm;
use serde_json::{Value, json};

use crate::{
    binaries::workspace,
    install::{NAMESPACE, Site},
};

/// The chart with what differs per cluster.
pub struct Chart {
    helm: Helm,
    values: PathBuf,
    kube_version: String,
}

impl Chart {
    /// `folder` takes the values; `kube_version` is the server's, such as `v1.33.2`.
    ///
    /// # Errors
    /// When the trust files can't be read or the values not be written.
    pub fn new(helm: Helm, site: &Site<'_>, kube_version: String, folder: &Path) -> Result<Self> {
        let text = |file: &str| {
            let path = site.trust.join(file);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (repository, digest) =
            site.image.split_once('@').context("the agent's image is not named by digest")?;
        let values = json!({
            "endpoint": site.endpoint,
            "image": { "repository": repository, "digest": digest },
            "trust": {
                "rootJson": text("root.json")?,
                "consentKeysJson": text("consent-keys.json")?,
                "channelCaPem": text("channel-ca.pem")?,
            },
            "bootstrap": { "token": site.token },
            "namespace": { "create": true },
            "logging": { "filter": "info,kube_client=off,mendix_agent=debug" },
        });
        let file = folder.join("values.json");
        std::fs::write(&file, values.to_string()).context("write values.json")?;
        Ok(Self { helm, values: file, kube_version })
    }

    /// `helm template` with these arguments besides the ones that are always the same.
    ///
    /// # Errors
    /// When Helm refuses.
    pub fn render(&self, more: &[&str]) -> Result<String> {
        let words = [&self.words()[..], &[self.values.display().to_string()]].concat();
        let words = words.iter().map(String::as_str).chain(more.iter().copied());
        Ok(self.helm.run(None, words)?)
    }

    /// The command as a person would type it.
    #[must_use]
    pub fn command(&self, more: &[&str]) -> String {
        let more: String = more.iter().map(|word| format!(" {word}")).collect();
        format!("helm {} values.json{more}", self.words().join(" "))
            .replace(&workspace().join("packaging").display().to_string(), "packaging")
    }

    fn words(&self) -> Vec<String> {
        let chart = workspace().join("packaging/helm/mendix-agent").display().to_string();
        let version = self.kube_version.as_str();
        ["template", "mendix-agent", &chart, "--namespace", NAMESPACE, "--no-hooks"]
            .iter()
            .chain(&["--kube-version", version, "--values"])
            .map(ToString::to_string)
            .collect()
    }
}

/// Every object in what was rendered, as an inventory names it.
///
/// # Errors
/// When it is no YAML.
pub fn entries(rendered: &str) -> Result<Vec<String>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(rendered).context("read the chart")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |object: &Value| {
        let meta = &object["metadata"];
        format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
    };
    Ok(objects.iter().filter(|object| object.is_object()).map(entry).collect())
}
