//! Installs the agent as README says: the manifests of `packaging/manifests`, and the three objects
//! that differ per cluster.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use serde_json::{Value, json};

use crate::binaries::workspace;

/// Namespace of the agent.
pub const NAMESPACE: &str = "mendix-agent";

/// What differs per cluster.
pub struct Site<'a> {
    /// Image of the agent, by digest.
    pub image: &'a str,
    /// `https://host:port` of the control plane.
    pub endpoint: &'a str,
    /// Folder with `root.json`, `consent-keys.json` and `channel-ca.pem`.
    pub trust: &'a Path,
    /// One-time enrolment token.
    pub token: &'a str,
    /// More lines of the agent's configuration file; may be empty.
    pub settings: &'a str,
}

/// Applies everything and returns how many objects that were.
///
/// # Errors
/// When a manifest can't be read or the API server refuses one; the object is named.
pub async fn install(client: &Client, site: &Site<'_>) -> Result<usize> {
    let mut applied = foundation(client).await?;
    for object in site_objects(site)? {
        apply(client, object).await?;
        applied += 1;
    }
    for file in ["40-agent.yaml", "41-guard.yaml"] {
        for mut object in manifest(file)? {
            if object["kind"] == "Deployment" {
                object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(site.image);
            }
            apply(client, object).await.with_context(|| format!("install {file}"))?;
            applied += 1;
        }
    }
    Ok(applied)
}

/// Applies what the agent needs before it starts and what is the same in every cluster: namespaces,
/// custom resource definitions, rights, the log sharing policy. Returns how many objects.
///
/// # Errors
/// As [`install`].
pub async fn foundation(client: &Client) -> Result<usize> {
    let mut applied = 0;
    for file in
        ["10-namespaces.yaml", "00-crds.yaml", "20-rbac.yaml", "30-policy.yaml", "50-network.yaml"]
    {
        for object in manifest(file)? {
            apply(client, object).await.with_context(|| format!("install {file}"))?;
            applied += 1;
        }
    }
    Ok(applied)
}

/// The name under which the control plane knows a cluster.
///
/// # Errors
/// When namespace kube-system can't be read.
pub async fn cluster_uid(client: &Client) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let kube_system = namespaces.get("kube-system").await.context("get namespace kube-system")?;
    kube_system.uid().context("kube-system has no UID")
}

fn manifest(file: &str) -> Result<Vec<Value>> {
    let path = workspace().join("packaging/manifests").join(file);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("parse {}", path.display()))
}

fn site_objects(site: &Site<'_>) -> Result<[Value; 3]> {
    let mut trust = BTreeMap::new();
    for file in ["root.json", "consent-keys.json", "channel-ca.pem"] {
        let path = site.trust.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        trust.insert(file, text);
    }
    let config = format!(
        "endpoint: {}\nlogFilter: info,kube_client=off,mendix_agent=debug\n{}",
        site.endpoint, site.settings
    );
    let object = |kind: &str, name: &str, content: (&str, Value)| {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": { "name": name, "namespace": NAMESPACE },
        });
        object[content.0] = content.1;
        object
    };
    Ok([
        object("ConfigMap", "mendix-agent-config", ("data", json!({ "config.yaml": config }))),
        object("ConfigMap", "mendix-agent-trust", ("data", json!(trust))),
        object("Secret", "mendix-agent-bootstrap", ("stringData", json!({ "token": site.token }))),
    ])
}

/// policy/v1 came with 1.21; what the manifests say of it was the same before.
async fn before_policy_v1(client: &Client) -> Result<bool> {
    let version = client.apiserver_version().await.context("get /version")?;
    let minor: u32 = version.minor.trim_end_matches('+').parse().context("read /version")?;
    Ok(version.major == "1" && minor < 21)
}

/// Server-side apply of one object, as an installer would.
async fn apply(client: &Client, mut object: Value) -> Result<()> {
    if object["apiVersion"] == "policy/v1" && before_policy_v1(client).await? {
        object["apiVersion"] = json!("policy/v1beta1");
    }
    let object: DynamicObject =
        serde_json::from_value(object).context("not a Kubernetes object")?;
    let types = object.types.clone().context("object without kind")?;
    let name = object.name_any();
    let gvk = GroupVersionKind::try_from(&types).context("apiVersion")?;
    let (resource, capabilities) = mendix_test_kit::wait::eventually(
        std::time::Duration::from_secs(120),
        "the API server knows the kind",
        async || discovery::pinned_kind(client, &gvk).await.ok(),
    )
    .await?;
    let api: Api<DynamicObject> = match capabilities.scope {
        discovery::Scope::Namespaced => {
            Api::namespaced_with(client.clone(), &object.namespace().unwrap_or_default(), &resource)
        }
        discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply("install").force(), &Patch::Apply(&object))
        .await
        .with_context(|| format!("apply {} {name}", types.kind))?;
    Ok(())
}
