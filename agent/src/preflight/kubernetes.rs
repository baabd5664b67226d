//! Kubernetes: reachable, new enough, with the agent's CRDs and rights, room on its nodes, and with a
//! clock like ours.

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams, client::Body};
use mendix_agent_core::ordered;

use super::{
    Check, Verdict,
    access::{self, Right},
    bounded, capacity,
};
use crate::{
    cluster::{CALL_DEADLINE, Cluster},
    config::Config,
    crd,
    errors::describe,
};

const KUBERNETES: &str = "Kubernetes";
const CLOCK: &str = "clock";
pub(super) const PERMISSIONS: &str = "permissions";
const CRDS: &str = "CRDs";

/// What brings lost rights back.
const APPLY_AGAIN: &str = "apply packaging/manifests/20-rbac.yaml, or upgrade the chart, again";

/// Oldest Kubernetes minor version of 1.x with what the agent uses (server-side apply, and
/// `managedFields` of every manager).
const MINIMUM_MINOR: u32 = 20;
/// Access reviews that are asked for at once. Each is a connection of its own, which is 50 KiB, and what
/// was once used stays with the process.
const REVIEWS: usize = 4;
/// Missing rights that are named; the rest is counted.
const NAMED: usize = 10;
/// Clock difference to another, seconds: worth a warning; more than certificates tolerate.
const CLOCK_WARN: i64 = 30;
const CLOCK_FAIL: i64 = 300;

/// What came out.
pub(super) struct Outcome {
    pub(super) checks: Vec<Check>,
    pub(super) cluster: Option<Cluster>,
    /// The API server's clock minus ours, seconds.
    pub(super) ahead: Option<i64>,
}

/// How far the API server lets the agent.
enum Reached {
    Not,
    /// It answers, and refuses the very first thing that is asked of it.
    Refused,
    Yes(Box<Cluster>),
}

/// All checks of Kubernetes.
pub(super) async fn checks(config: &Config, client: Result<Client, String>) -> Outcome {
    let mut reached = Reached::Not;
    let reaching = match &client {
        Ok(client) => bounded(KUBERNETES, reach(config, client.clone(), &mut reached)).await,
        Err(reason) => {
            let cause = "there is neither a service account nor a usable kubeconfig";
            let remedy = "run in a pod, or point KUBECONFIG at a kubeconfig";
            Check::new(KUBERNETES, Verdict::Fail, reason, cause, remedy)
        }
    };
    let skip = |name| Check::skip(name, "Kubernetes was not reached");
    let found = match (reached, &client) {
        (Reached::Yes(cluster), _) => cluster,
        // Which rights are missing can be asked without any.
        (Reached::Refused, Ok(client)) => {
            let asked = permissions(client, &config.namespace);
            let permissions = bounded(PERMISSIONS, asked).await;
            let checks = vec![reaching, permissions, skip(capacity::NODES), skip(CRDS)];
            return Outcome { checks, cluster: None, ahead: None };
        }
        _ => {
            let skipped = [PERMISSIONS, capacity::NODES, CRDS].map(skip);
            let checks = [reaching].into_iter().chain(skipped).collect();
            return Outcome { checks, cluster: None, ahead: None };
        }
    };
    let (ahead, permissions, nodes, crds) = tokio::join!(
        ahead(&found.client),
        bounded(PERMISSIONS, permissions(&found.client, &found.namespace)),
        bounded(capacity::NODES, capacity::check(&found.client)),
        bounded(CRDS, crds(&found.client)),
    );
    let checks = vec![reaching, permissions, nodes, crds];
    Outcome { checks, cluster: Some(*found), ahead }
}

async fn reach(config: &Config, client: Client, reached: &mut Reached) -> Check {
    match Cluster::connect(client, config.namespace.clone()).await {
        Ok(cluster) => {
            let check = version(&cluster.server_version, &cluster.uid);
            *reached = Reached::Yes(Box::new(cluster));
            check
        }
        Err(error) if error.is_refusal() => {
            *reached = Reached::Refused;
            let cause = "ClusterRole mendix-agent or its binding was deleted or changed, or the \
                         agent runs under another ServiceAccount";
            Check::new(KUBERNETES, Verdict::Fail, describe(&error), cause, APPLY_AGAIN)
        }
        Err(error) => {
            let cause = "a network policy keeps the agent from the API server";
            let remedy = "check that the API server is reachable from the agent";
            Check::new(KUBERNETES, Verdict::Fail, describe(&error), cause, remedy)
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
            "the cluster was not upgraded for years",
            format!("upgrade the cluster to Kubernetes 1.{MINIMUM_MINOR} or later"),
        ),
        _ => Check::new(
            KUBERNETES,
            Verdict::Warn,
            format!("version {server:?} is not of a form the agent knows"),
            "this is a distribution of its own",
            format!("make sure that it is 1.{MINIMUM_MINOR} or later"),
        ),
    }
}

/// The API server's `Date` minus our time: it costs one small request. `None` when it does not say.
async fn ahead(client: &Client) -> Option<i64> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    let answer = tokio::time::timeout(CALL_DEADLINE, client.send(request)).await.ok()?.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let server = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(server.timestamp().as_second() - Timestamp::now().as_second())
}

/// Compares with the two clocks that matter, each given as seconds that it is ahead of ours: a node
/// whose clock is off refuses certificates that are good.
pub(super) fn clock(api_server: Option<i64>, control_plane: Option<i64>) -> Check {
    let known: Vec<(i64, &str)> = [
        api_server.map(|ahead| (ahead, "the API server's")),
        control_plane.map(|ahead| (ahead, "the control plane's")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let Some(worst) = known.iter().map(|(ahead, _)| ahead.abs()).max() else {
        return Check::skip(CLOCK, "neither the API server nor the control plane told its time");
    };
    let said: Vec<String> = known
        .iter()
        .map(|(ahead, whose)| match ahead {
            0 => format!("same as {whose}"),
            ahead if *ahead > 0 => format!("{ahead} s behind {whose}"),
            behind => format!("{} s ahead of {whose}", -behind),
        })
        .collect();
    let detail = said.join(", ");
    let cause = "this node's time is not synchronised, or that of the other side";
    let remedy = "set this node's clock (time synchronisation)";
    match worst {
        off if off > CLOCK_FAIL => Check::new(CLOCK, Verdict::Fail, detail, cause, remedy),
        off if off > CLOCK_WARN => Check::new(CLOCK, Verdict::Warn, detail, cause, remedy),
        _ => Check::pass(CLOCK, detail),
    }
}

/// Asks for every right in [`access::REQUIRED`].
async fn permissions(client: &Client, namespace: &str) -> Check {
    let rights = access::rights(namespace);
    let all = rights.len();
    let reviews: Vec<Result<Option<Right>, String>> = stream::iter(rights)
        .map(|right| async {
            match allowed(client, &right).await {
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
                let cause = "the API server failed, or its default roles were taken away";
                let remedy = "let the ServiceAccount create selfsubjectaccessreviews, as every \
                              authenticated user may by default";
                return Check::new(PERMISSIONS, Verdict::Fail, detail, cause, remedy);
            }
        }
    }
    summary(missing, all)
}

fn summary(mut missing: Vec<Right>, all: usize) -> Check {
    if missing.is_empty() {
        return Check::pass(PERMISSIONS, format!("all {all} rights are granted"));
    }
    ordered::sort_by(&mut missing, Ord::cmp);
    let named: Vec<String> = missing.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!("{} of {all} are missing: {}{more}", missing.len(), named.join("; "));
    let cause = "somebody deleted or changed the agent's roles or bindings, or the manifests are of \
                 another version";
    Check::new(PERMISSIONS, Verdict::Fail, detail, cause, APPLY_AGAIN)
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
    let wanted = crd::served();
    let mut versions: Vec<&str> = wanted.iter().map(|kind| kind.api_version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let mut served = Vec::new();
    for version in versions {
        let list = client.list_api_group_resources(version);
        match tokio::time::timeout(CALL_DEADLINE, list).await {
            Ok(Ok(list)) => served.extend(list.resources.into_iter().map(|it| it.name)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => return undiscovered(describe(&error)),
            Err(_) => return undiscovered("no answer in time".to_owned()),
        }
    }
    let missing: Vec<&str> = wanted
        .iter()
        .map(|kind| kind.plural.as_str())
        .filter(|plural| !served.iter().any(|name| name == plural))
        .collect();
    if missing.is_empty() {
        return Check::pass(CRDS, format!("all {} are served", wanted.len()));
    }
    let detail = format!("missing: {}", missing.join(", "));
    let cause = "the agent's CRDs were not installed, or are older than the agent";
    let remedy = "install them: mendix-agent crds | kubectl apply -f -";
    Check::new(CRDS, Verdict::Fail, detail, cause, remedy)
}

fn undiscovered(detail: String) -> Check {
    let cause = "the API server failed";
    Check::new(CRDS, Verdict::Fail, detail, cause, "run preflight again; if this stays, report it")
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
    fn clocks_are_judged_both_ways_and_the_worse_decides() {
        for (api_server, control_plane, verdict) in [
            (Some(0), Some(0), Verdict::Pass),
            (Some(-30), None, Verdict::Pass),
            (Some(31), Some(0), Verdict::Warn),
            (None, Some(-31), Verdict::Warn),
            (Some(301), Some(2), Verdict::Fail),
            (Some(0), Some(-86_400), Verdict::Fail),
            (None, None, Verdict::Skip),
        ] {
            let check = clock(api_server, control_plane);
            assert_eq!(check.result, verdict, "{api_server:?} {control_plane:?}");
        }
        assert_eq!(
            clock(Some(40), Some(-3)).detail,
            "40 s behind the API server's, 3 s ahead of the control plane's"
        );
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
