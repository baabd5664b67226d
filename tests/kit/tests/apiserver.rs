//! The API server of the kit: rights, audit log, controllers, and that nothing stays behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use mendix_test_kit::{
    apiserver::{ApiServer, ApiServerOptions},
    wait::{eventually, eventually_blocking},
};
use serde::de::DeserializeOwned;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(180);

async fn create<K>(api: Api<K>, object: serde_json::Value)
where
    K: Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_no_more() {
    let server = ApiServer::shared().await.unwrap();
    let admin = server.client().await.unwrap();
    let namespace = server.namespace("rights").await.unwrap();
    let ns = namespace.as_str();
    create(
        Api::<ServiceAccount>::namespaced(admin.clone(), ns),
        json!({"metadata": {"name": "reader"}}),
    )
    .await;
    create(
        Api::<Role>::namespaced(admin.clone(), ns),
        json!({"metadata": {"name": "reader"},
               "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]}),
    )
    .await;
    create(
        Api::<RoleBinding>::namespaced(admin.clone(), ns),
        json!({"metadata": {"name": "reader"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
               "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": ns}]}),
    )
    .await;

    let reader = server.client_for(ns, "reader").await.unwrap();
    let list = ListParams::default();
    let maps = Api::<ConfigMap>::namespaced(reader.clone(), ns);
    // The authoriser learns of a new binding by a watch.
    eventually(DEADLINE, "the binding counts", || async { maps.list(&list).await.ok() })
        .await
        .unwrap();
    let refused = Api::<Pod>::namespaced(reader, ns).list(&list).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

    // Both requests are in the audit log, with the name of the account.
    let asked = server.audit_log().unwrap().requests_for(ns, "pods", "").unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["user"]["username"], format!("system:serviceaccount:{ns}:reader"));
    assert_eq!(asked[0]["responseStatus"]["code"], 403);
}

#[tokio::test]
async fn with_controllers_a_deployment_gets_pods_and_two_servers_run_side_by_side() {
    let options = ApiServerOptions { controllers: true, ..ApiServerOptions::default() };
    if env::var_os("KUBEBUILDER_ASSETS").is_some() {
        mendix_test_kit::skip("KUBEBUILDER_ASSETS brings no kube-controller-manager");
        return;
    }
    let shared = ApiServer::shared().await.unwrap();
    let server = ApiServer::start(options).await.unwrap();
    assert_ne!(server.url(), shared.url());
    assert!(server.audit_log().is_none());
    let namespace = server.namespace("controllers").await.unwrap();
    let client: Client = server.client().await.unwrap();
    create(
        Api::<Deployment>::namespaced(client.clone(), &namespace),
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
               "selector": {"matchLabels": {"app": "web"}},
               "template": {"metadata": {"labels": {"app": "web"}},
                            "spec": {"containers": [{"name": "web", "image": "localhost/web:1"}]}}}}),
    )
    .await;
    let pods = Api::<Pod>::namespaced(client, &namespace);
    eventually(DEADLINE, "two pods", || async {
        let found = pods.list(&ListParams::default()).await.ok()?;
        (found.items.len() == 2).then_some(())
    })
    .await
    .unwrap();
}

const CHILD: &str = "MENDIX_TEST_KIT_CHILD";

/// Not a test of its own: what the next test runs in a process that it kills.
#[tokio::test]
async fn child_that_is_killed() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
    println!("STATE {}", server.kubeconfig_path().parent().unwrap().display());
    std::future::pending::<()>().await;
}

#[test]
fn nothing_stays_when_the_process_is_killed() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let state = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .find_map(|line| Some(line.ok()?.split_once("STATE ")?.1.to_owned()))
        .unwrap();
    let daemons = ["etcd", "kube-apiserver"].map(|name| {
        let file = Path::new(&state).join(format!("{name}.pid"));
        let text = std::fs::read_to_string(file).unwrap();
        let pid = text.split(' ').next().unwrap().to_owned();
        assert!(Path::new("/proc").join(&pid).exists());
        pid
    });
    child.kill().unwrap();
    child.wait().unwrap();
    eventually_blocking(DEADLINE, "processes and folder are gone", || {
        // In a container whose first process reaps nothing they stay as zombies: those don't count.
        let gone = daemons.iter().all(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        });
        (gone && !Path::new(&state).exists()).then_some(())
    })
    .unwrap();
}

#[tokio::test]
async fn a_restore_brings_back_what_was_stored_and_nothing_that_came_later() {
    let mut server = ApiServer::start(ApiServerOptions::default()).await.unwrap();
    // With connections of its own each time: those of before have ended with the server.
    let maps = async |server: &ApiServer| {
        Api::<ConfigMap>::namespaced(server.client().await.unwrap(), "default")
    };
    let map = |name: &str| ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let params = PostParams::default();
    let before = maps(&server).await.create(&params, &map("before")).await.unwrap();
    let backup = server.backup().await.unwrap();
    let later = maps(&server).await.create(&params, &map("later")).await.unwrap();
    maps(&server).await.delete("before", &Default::default()).await.unwrap();
    for _ in 0..2 {
        server.restore(&backup).await.unwrap();
        let restored = maps(&server).await.get("before").await.unwrap();
        assert_eq!(restored.metadata.uid, before.metadata.uid);
        assert!(maps(&server).await.get_opt("later").await.unwrap().is_none());
    }
    let again = maps(&server).await.create(&params, &map("later")).await.unwrap();
    assert_ne!(again.metadata.uid, later.metadata.uid);
}
