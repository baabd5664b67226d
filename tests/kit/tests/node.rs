//! Pods on the node of the kit: images by digest, the way to servers on this machine, logs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use mendix_test_kit::{
    agent_image::{self, Program},
    image::Image,
    node::{BUSYBOX_IMAGE, Node},
    progress::Progress,
    skip,
    wait::eventually,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(240);

/// Runs a pod to its end and returns its phase and its log.
async fn run(node: &Node, namespace: &str, spec: serde_json::Value) -> (String, String) {
    let pods = Api::<Pod>::namespaced(node.client().await.unwrap(), namespace);
    let mut spec = spec;
    spec["restartPolicy"] = json!("Never");
    let pod =
        serde_json::from_value(json!({"metadata": {"generateName": "p-"}, "spec": spec})).unwrap();
    let name = pods.create(&PostParams::default(), &pod).await.unwrap().metadata.name.unwrap();
    let phase = eventually(DEADLINE, format!("the end of pod {name}"), || async {
        let status = pods.get(&name).await.ok()?.status?;
        status.phase.filter(|phase| phase == "Succeeded" || phase == "Failed")
    })
    .await
    .unwrap();
    (phase, pods.logs(&name, &LogParams::default()).await.unwrap())
}

#[tokio::test]
async fn a_pod_runs_an_image_that_is_named_by_digest() {
    if let Some(obstacle) = Node::obstacle() {
        return skip(&obstacle.to_string());
    }
    let node = Node::shared().await.unwrap();
    let namespace = node.namespace("digest").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let busybox = node.programs_folder().join("busybox");
    let archive = Image::new("localhost/mendix-agent-test", "1")
        .folder("tmp", 0o1777)
        .bytes("etc/passwd", 0o644, "agent:x:65532:65532::/:/none\n")
        .file("busybox", 0o755, &busybox)
        .entrypoint(&["/busybox"])
        .user("65532:65532")
        .env("GREETING", "from the image")
        .write(&folder.path().join("image.tar"))
        .unwrap();
    let names = node.import_image(&archive.path).await.unwrap();
    assert!(names.contains(&archive.by_digest));

    for (image, policy) in [
        (&archive.by_digest, "Never"),
        (&archive.by_digest, "IfNotPresent"),
        (&archive.by_tag, "Never"),
    ] {
        let (phase, log) = run(
            node,
            &namespace,
            json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": policy,
                "args": ["sh", "-c", "/busybox id -u; echo $GREETING"],
                "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true,
                                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}),
        )
        .await;
        assert_eq!((phase.as_str(), log.as_str()), ("Succeeded", "65532\nfrom the image\n"));
    }
    // The requests for logs are in the audit log.
    let asked = node.audit_log().unwrap().requests_for(&namespace, "pods", "log").unwrap();
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn pods_reach_a_server_on_this_machine_and_the_api_server() {
    if let Some(obstacle) = Node::obstacle() {
        return skip(&obstacle.to_string());
    }
    let node = Node::shared().await.unwrap();
    let namespace = node.namespace("network").await.unwrap();
    let server = TcpListener::bind((node.node_ip(), 0)).unwrap();
    let address = server.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut peer, from) = server.accept().unwrap();
        let mut request = [0; 5];
        peer.read_exact(&mut request).unwrap();
        peer.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n").unwrap();
        from.ip().to_string()
    });
    let script = format!(
        "wget -q -O - http://{address}/ && nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo api"
    );
    let (phase, log) = run(
        node,
        &namespace,
        json!({"containers": [{"name": "c", "image": BUSYBOX_IMAGE, "args": ["-c", script]}]}),
    )
    .await;
    assert_eq!((phase.as_str(), log.as_str()), ("Succeeded", "hello\napi\n"));
    assert!(answering.join().unwrap().starts_with("10.213.1."));
}

/// Answers every question for an IPv4 address with `address`, and all others with nothing.
fn answer_dns(socket: &UdpSocket, address: Ipv4Addr) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let message = &question[..length];
        // A question has a header of 12 bytes, the name, which ends with a zero byte, then type and
        // class; what follows (EDNS) is left out of the answer.
        let end = 12 + message[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let is_a = message[end - 4..end - 2] == [0, 1];
        let mut answer = message[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
        socket.send_to(&answer, from).unwrap();
    }
}

#[tokio::test]
async fn a_static_program_resolves_names_and_speaks_tls_in_the_agents_image() {
    if let Some(obstacle) = Node::obstacle() {
        return skip(&obstacle.to_string());
    }
    let node = Node::shared().await.unwrap();
    let namespace = node.namespace("static").await.unwrap();
    let probe = Program { package: "mendix-test-kit", kind: "--example", name: "probe" };
    let program = agent_image::build(probe, &Progress::stderr()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = agent_image::with_files(Image::new("localhost/probe", "1"))
        .file("usr/bin/probe", 0o755, &program)
        .entrypoint(&["/usr/bin/probe"])
        .write(&folder.path().join("probe.tar"))
        .unwrap();
    node.import_image(&archive.path).await.unwrap();
    let socket = UdpSocket::bind((node.node_ip(), 53)).unwrap();
    std::thread::spawn(move || answer_dns(&socket, Ipv4Addr::new(192, 0, 2, 7)));

    let (phase, log) = run(
        node,
        &namespace,
        json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": [node.node_ip().to_string()]},
               "hostAliases": [{"ip": "192.0.2.8", "hostnames": ["alias.example.test"]}],
               "containers": [{"name": "c", "image": archive.by_digest,
                   "args": ["dns.example.test", "alias.example.test"],
                   "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true,
                                       "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                                       "seccompProfile": {"type": "RuntimeDefault"}}}]}),
    )
    .await;
    assert_eq!(phase, "Succeeded", "{log}");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(
        lines,
        ["dns.example.test 192.0.2.7", "alias.example.test 192.0.2.8", "kubernetes 1.20"]
    );
}

#[tokio::test]
async fn an_image_that_is_missing_is_never_asked_of_the_network() {
    if let Some(obstacle) = Node::obstacle() {
        return skip(&obstacle.to_string());
    }
    let node = Node::shared().await.unwrap();
    let namespace = node.namespace("missing").await.unwrap();
    let pods = Api::<Pod>::namespaced(node.client().await.unwrap(), &namespace);
    let pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "registry.invalid/none:1"}]}}))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let message = eventually(DEADLINE, "the failed pull", || async {
        let status = pods.get("p").await.ok()?.status?.container_statuses?.pop()?;
        status.state?.waiting?.message.filter(|message| message.contains("proxy"))
    })
    .await
    .unwrap();
    assert!(message.contains("127.0.0.1:1"), "{message}");
}
