//! Kubernetes: reachable, new enough, with the agent's CRDs and rights, and with a clock like ours.

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams, client::Body};

use super::{
    Check, Verdict,
    access::{self, Right},
    bounded,
};
use crate::{
    cluster::{CALL_DEADLINE, Cluster},
    config::Config,
    crd,
    errors::describe,
};

const KUBERNETES: &str = "Kubernetes";
const CLOCK: &str = "clock";
const PERMISSIONS: &str = "permissions";
const CRDS: &str = "CRDs";

/// Oldest Kubernetes minor version of 1.x with what the agent uses (server-side apply, and
/// `managedFields` of every manager).
const MINIMUM_MINOR: u32 = 20;
/// Access reviews that are asked for at once.
const REVIEWS: usize = 8;
/// Missing rights that are named; the rest is counted.
const NAMED: usize = 10;
/// Clock difference to the API server, seconds: worth a warning; more than certificates tolerate.
const CLOCK_WARN: i64 = 30;
const CLOCK_FAIL: i64 = 300;

/// What came out.
pub(super) struct Outcome {
    pub(super) checks: Vec<Check>,
    pub(super) cluster: Option<Cluster>,
}

/// All checks of Kubernetes.
pub(super) async fn checks(config: &Config, client: Result<Client, String>) -> Outcome {
    let mut cluster = None;
    let reached = match &client {
        Ok(client) => bounded(KUBERNETES, reach(config, client.clone(), &mut cluster)).await,
        Err(reason) => {
            let remedy = "run in a pod, or point KUBECONFIG at a kubeconfig";
            Check::new(KUBERNETES, Verdict::Fail, reason, remedy)
        }
    };
    let Some(found) = &cluster else {
        let skipped =
            [CLOCK, PERMISSIONS, CRDS].map(|name| Check::skip(name, "Kubernetes was not reached"));
        let checks = [reached].into_iter().chain(skipped).collect();
        return Outcome { checks, cluster: None };
    };
    let (clock, permissions, crds) = tokio::join!(
        bounded(CLOCK, clock(&found.client)),
        bounded(PERMISSIONS, permissions(found)),
        bounded(CRDS, crds(&found.client)),
    );
    Outcome { checks: vec![reached, clock, permissions, crds], cluster }
}

async fn reach(config: &Config, client: Client, found: &mut Option<Cluster>) -> Check {
    match Cluster::connect(client, config.namespace.clone()).await {
        Ok(cluster) => {
            let check = version(&cluster.server_version, &cluster.uid);
            *found = Some(cluster);
            check
        }
        Err(error) => {
            let remedy = "check that the API server is reachable from the agent and that its \
                          ServiceAccount is bound to ClusterRole mendix-agent";
            Check::new(KUBERNETES, Verdict::Fail, describe(&error), remedy)
        }
    }
}

fn version(server: &str, uid: &str) -> Check {
    let mut numbers = server.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= MINIMUM_MINOR => {
            Check::pass(KUBERNETES, format!("{server}, cluster {uid}"))
        }
        (Some(Ok(_)), Some(Ok(_))) => Check::new(
            KUBERNETES,
            Verdict::Fail,
            format!("{server} is older than 1.{MINIMUM_MINOR}"),
            format!("upgrade the cluster to Kubernetes 1.{MINIMUM_MINOR} or later"),
        ),
        _ => Check::new(
            KUBERNETES,
            Verdict::Warn,
            format!("version {server:?} is not of a form the agent knows"),
            format!("make sure that it is 1.{MINIMUM_MINOR} or later"),
        ),
    }
}

/// Compares with the API server's `Date`: it costs one small request, and a node whose clock is off
/// refuses certificates that are good.
async fn clock(client: &Client) -> Check {
    let unknown = |detail: String| Check::new(CLOCK, Verdict::Skip, detail, "");
    let request = http::Request::get("/version").body(Body::empty());
    let Ok(request) = request else { return unknown("no request could be made".into()) };
    let answer = match tokio::time::timeout(CALL_DEADLINE, client.send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return unknown(format!("not checked: {error}")),
        Err(_) => return unknown("not checked: no answer".into()),
    };
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let Some(server) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) else {
        return unknown("not checked: the API server does not say its time".into());
    };
    skew(server.timestamp().as_second() - Timestamp::now().as_second())
}

fn skew(seconds: i64) -> Check {
    let detail = match seconds {
        0 => "same as the API server's".to_owned(),
        ahead if ahead > 0 => format!("{ahead} s behind the API server's"),
        behind => format!("{} s ahead of the API server's", -behind),
    };
    let remedy = "set this node's clock (time synchronisation)";
    match seconds.abs() {
        off if off > CLOCK_FAIL => Check::new(CLOCK, Verdict::Fail, detail, remedy),
        off if off > CLOCK_WARN => Check::new(CLOCK, Verdict::Warn, detail, remedy),
        _ => Check::pass(CLOCK, detail),
    }
}

/// Asks for every right in [`access::REQUIRED`].
async fn permissions(cluster: &Cluster) -> Check {
    let rights = access::rights(&cluster.namespace);
    let all = rights.len();
    let reviews: Vec<Result<Option<Right>, String>> = stream::iter(rights)
        .map(|right| async {
            match allowed(&cluster.client, &right).await {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(right)),
                Err(problem) => Err(problem),
            }
        })
        .buffer_unordered(REVIEWS)
        .collect()
        .await;
    let mut missing = Vec::new();
    for review in reviews {
        match review {
            Ok(None) => {}
            Ok(Some(right)) => missing.push(right),
            Err(problem) => {
                let detail = format!("the rights could not be asked for: {problem}");
                let remedy = "let the ServiceAccount create selfsubjectaccessreviews, as every \
                              authenticated user may by default";
                return Check::new(PERMISSIONS, Verdict::Fail, detail, remedy);
            }
        }
    }
    summary(missing, all)
}

fn summary(mut missing: Vec<Right>, all: usize) -> Check {
    if missing.is_empty() {
        return Check::pass(PERMISSIONS, format!("all {all} rights are granted"));
    }
    missing.sort();
    let named: Vec<String> = missing.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!("{} of {all} are missing: {}{more}", missing.len(), named.join("; "));
    Check::new(PERMISSIONS, Verdict::Fail, detail, "apply the RBAC of the agent's manifests again")
}

async fn allowed(client: &Client, right: &Right) -> Result<bool, String> {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.into()),
                resource: Some(resource.into()),
                subresource,
                verb: Some(right.verb.into()),
                namespace: right.namespace.clone(),
                name: right.name.map(Into::into),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let params = PostParams::default();
    match tokio::time::timeout(CALL_DEADLINE, reviews.create(&params, &review)).await {
        Ok(Ok(answer)) => Ok(answer.status.is_some_and(|status| status.allowed)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CALL_DEADLINE.as_secs())),
    }
}

/// Whether the API serves the agent's kinds: asked by discovery, which needs no right of its own.
async fn crds(client: &Client) -> Check {
    let wanted = crd::all();
    let mut versions: Vec<String> = wanted
        .iter()
        .flat_map(|crd| {
            let versions = crd.spec.versions.iter().filter(|version| version.storage);
            versions.map(|version| format!("{}/{}", crd.spec.group, version.name))
        })
        .collect();
    versions.sort();
    versions.dedup();
    let mut served = Vec::new();
    for version in &versions {
        let list = client.list_api_group_resources(version);
        match tokio::time::timeout(CALL_DEADLINE, list).await {
            Ok(Ok(list)) => served.extend(list.resources.into_iter().map(|it| it.name)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => {
                return Check::new(CRDS, Verdict::Fail, error.to_string(), "run preflight again");
            }
            Err(_) => {
                return Check::new(CRDS, Verdict::Fail, "no answer in time", "run preflight again");
            }
        }
    }
    let missing: Vec<&str> = wanted
        .iter()
        .map(|crd| crd.spec.names.plural.as_str())
        .filter(|plural| !served.iter().any(|name| name == plural))
        .collect();
    if missing.is_empty() {
        return Check::pass(CRDS, format!("all {} are served", wanted.len()));
    }
    let remedy = "install them: mendix-agent crds | kubectl apply -f -";
    Check::new(CRDS, Verdict::Fail, format!("missing: {}", missing.join(", ")), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (server, verdict) in [
            ("v1.34.2", Verdict::Pass),
            ("v1.20.2", Verdict::Pass),
            ("v1.9.11", Verdict::Fail),
            ("v1.19.16-gke.1", Verdict::Fail),
            ("v1.31.5+k3s1", Verdict::Pass),
            ("unknown", Verdict::Warn),
        ] {
            assert_eq!(version(server, "uid").result, verdict, "{server}");
        }
    }

    #[test]
    fn a_clock_is_judged_both_ways() {
        for (seconds, verdict) in [
            (0, Verdict::Pass),
            (-30, Verdict::Pass),
            (31, Verdict::Warn),
            (-31, Verdict::Warn),
            (301, Verdict::Fail),
            (-86_400, Verdict::Fail),
        ] {
            assert_eq!(skew(seconds).result, verdict, "{seconds}");
        }
        assert_eq!(skew(40).detail, "40 s behind the API server's");
    }

    #[test]
    fn missing_rights_are_named_up_to_a_bound() {
        let rights = access::rights("mendix-agent");
        let check = summary(rights.clone(), rights.len());
        assert_eq!(check.result, Verdict::Fail);
        assert_eq!(check.detail.matches(';').count(), NAMED - 1, "{}", check.detail);
        assert!(check.detail.ends_with(&format!("and {} more", rights.len() - NAMED)));
        assert_eq!(summary(Vec::new(), 7).detail, "all 7 rights are granted");
    }
}
