//! The customer's Mendix apps. Read, never written; of each only its state and its runtime's version
//! are kept, and only for as long as it takes to count them: an app's specification can hold secrets
//! of the customer.

use std::time::{Duration, Instant};

use kube::api::{ListParams, Request};
use mendix_agent_core::health::AppSeen;
use serde::Deserialize;

use crate::{
    cluster::{Cluster, call},
    errors::describe,
};

/// Path of all apps of the cluster.
const PATH: &str = "/apis/privatecloud.mendix.com/v1alpha1/mendixapps";
/// Apps are looked at this often: a list is much work for the API server where there are many.
const INTERVAL: Duration = Duration::from_secs(300);
/// Apps on one page of a list.
const PAGE: u32 = 100;
/// Most apps that are counted.
const MAX_APPS: usize = 5000;

/// The apps as they were seen last.
pub(super) struct Apps {
    cluster: Cluster,
    seen: Option<(Instant, Vec<AppSeen>)>,
}

impl Apps {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, seen: None }
    }

    /// The apps; none where the kind does not exist.
    pub(super) async fn look(&mut self) -> Result<Option<Vec<AppSeen>>, String> {
        if let Some((at, apps)) = &self.seen
            && at.elapsed() < INTERVAL
        {
            return Ok(Some(apps.clone()));
        }
        self.seen = None;
        let apps = match call("list Mendix apps", list(&self.cluster)).await {
            Ok(apps) => apps,
            Err(error) if error.is(404) => return Ok(None),
            Err(error) => return Err(describe(&error)),
        };
        self.seen = Some((Instant::now(), apps.clone()));
        Ok(Some(apps))
    }
}

async fn list(cluster: &Cluster) -> Result<Vec<AppSeen>, kube::Error> {
    let mut apps = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    while apps.len() < MAX_APPS {
        let request = Request::new(PATH).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: Page = cluster.client.request(request).await?;
        apps.extend(page.items.into_iter().map(App::seen));
        match page.metadata.next {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => break,
        }
    }
    Ok(apps)
}

/// A page of a list, as far as it is read: what is not named here is never kept.
#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Vec<App>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct App {
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    mendix_runtime_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    app_state: Option<String>,
    runtime_status: Option<serde_json::Value>,
    mendix_runtime_version: Option<String>,
}

impl App {
    fn seen(self) -> AppSeen {
        let status = self.status;
        // Older Operators write an object where newer ones write a word.
        let runtime = || status.runtime_status.as_ref()?.as_str().map(str::to_owned);
        AppSeen {
            state: status.app_state.clone().or_else(runtime).unwrap_or_default(),
            runtime: status
                .mendix_runtime_version
                .or(self.spec.mendix_runtime_version)
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(app: serde_json::Value) -> AppSeen {
        serde_json::from_value::<App>(app).unwrap().seen()
    }

    #[test]
    fn state_and_version_are_read_wherever_the_operator_writes_them() {
        let app = seen(json!({
            "metadata": { "name": "crm" },
            "spec": { "mendixRuntimeVersion": "10.24.1.5", "runtime": { "license": "secret" } },
            "status": { "appState": "Running", "runtimeStatus": "ready" },
        }));
        assert_eq!(app, AppSeen { state: "Running".into(), runtime: "10.24.1.5".into() });
        let app = seen(json!({ "status": {
            "runtimeStatus": "starting", "mendixRuntimeVersion": "10.9.0" } }));
        assert_eq!(app, AppSeen { state: "starting".into(), runtime: "10.9.0".into() });
    }

    #[test]
    fn an_app_that_says_nothing_is_counted_all_the_same() {
        let nothing = AppSeen { state: String::new(), runtime: String::new() };
        assert_eq!(seen(json!({ "metadata": { "name": "crm" } })), nothing);
        assert_eq!(seen(json!({ "status": { "runtimeStatus": { "ready": 1 } } })), nothing);
    }
}
