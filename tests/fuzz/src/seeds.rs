//! Inputs that are in order, for coverage to start from: digests, signatures and lengths are not
//! found by chance.

use flate2::{Compression, write::GzEncoder};
use mendix_agent_core::{
    bundle::{canonical, index::BlobRef},
    session::MAX_PROXY_HEAD,
};
use mendix_agent_proto::v1;
use prost::Message;
use serde_json::{Value, json};

use crate::{consent, envelope};

/// Target, name of the file, and its content.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = vec![
        ("admission", "release", admission().to_string().into_bytes()),
        (
            "archive",
            "tar",
            [&[1][..], &tar(&["manifest.json", "logs/a/b/current.log"], false)].concat(),
        ),
        ("archive", "leads-out", [&[1][..], &tar(&["ok", "../x"], false)].concat()),
        ("archive", "link", [&[1][..], &tar(&["a"], true)].concat()),
        ("archive", "twice", [&[1][..], &tar(&["a", "a"], false)].concat()),
        ("archive", "gzip", [&[0][..], &gzip(&tar(&["errors.jsonl"], false))].concat()),
        ("blob", "gzip", [&[0][..], &gzip(&lines())].concat()),
        ("blob", "lines", [&[2][..], &lines()].concat()),
        (
            "canonical",
            "values",
            br#"{"a":[1,-2,18446744073709551615,null,true],"b":{"":"\u00e9\n"}}"#.to_vec(),
        ),
        ("canonical", "twice", br#"{"a":1,"\u0061":2}"#.to_vec()),
        ("canonical", "fractions", b"[0.1,1e300,-0.0,123456789012345678901]".to_vec()),
        ("envelope", "signed", envelope::seed()),
        ("envelope", "payload", [&[40, 0, 1][..], br#"{"b":[]}"#].concat()),
        ("floor", "raised", floors()),
        ("grant", "grant", consent::good_grant().to_string().into_bytes()),
        ("grant", "ledger", ledger().to_string().into_bytes()),
        ("index", "index", canonical::bytes(&index())),
        ("lease", "renewed", lease(&[0, 0])),
        ("lease", "solved", lease(&[0, 3])),
        ("lease", "unsigned", [&[0, 4, 2, 0][..], b"{}"].concat()),
    ];
    seeds.extend(answers().map(|(name, text)| ("proxy", name, text.as_bytes().to_vec())));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_PROXY_HEAD));
    seeds.push(("proxy", "endless", endless.into_bytes()));
    seeds.extend(frames().into_iter().map(|(name, bytes)| ("frames", name, bytes)));
    seeds.extend(sessions().into_iter().map(|(name, bytes)| ("session", name, bytes)));
    seeds.extend(logs().into_iter().map(|(name, bytes)| ("redactor", name, bytes)));
    seeds
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(paths: &[&str], link: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for path in paths {
        let mut header = tar::Header::new_gnu();
        // Written into the field itself: the library refuses paths that lead out.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(3);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        builder.append(&header, &b"{}\n"[..]).unwrap();
    }
    if link {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "b", "/etc").unwrap();
    }
    builder.into_inner().unwrap()
}

fn objects() -> [Value; 3] {
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
               "metadata": {"name": "settings", "namespace": "mendix-operator"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": "operator", "namespace": "mendix-operator"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
               "metadata": {"name": "operator", "namespace": "mendix-operator"},
               "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "operator"}},
                        "template": {"metadata": {"labels": {"app": "operator"}},
                                     "spec": {"containers": [{"name": "manager", "image": image()}]}}}}),
    ]
}

fn image() -> String {
    format!("registry.example.com/operator@sha256:{}", "ab".repeat(32))
}

fn lines() -> Vec<u8> {
    let mut sorted = objects();
    sorted.sort_by_key(|object| object["apiVersion"] != "v1");
    sorted.iter().flat_map(|object| [canonical::bytes(object), b"\n".to_vec()].concat()).collect()
}

/// One that is raised, one that comes again, one that would sink and one that is older.
fn floors() -> Vec<u8> {
    let floors = [(1, 5), (2, 9), (2, 9), (3, 8), (1, 9)].map(|(serial, sequence)| {
        let floor = json!({
            "schema": 1,
            "serial": serial,
            "signed_at": "2026-11-22T12:00:00Z",
            "sequence": sequence,
        });
        [canonical::bytes(&floor), b"\n".to_vec()].concat()
    });
    floors.concat()
}

fn index() -> Value {
    let sha256 = "cd".repeat(32);
    json!({
        "schema": 1,
        "release_id": "2026.11.3",
        "sequence": 7,
        "class": "quarterly",
        "not_before": "2026-11-20T00:00:00Z",
        "apply_by": "2026-11-30T00:00:00Z",
        "agent_versions": {"min": "0.1"},
        "kubernetes_versions": {"max": "1.34"},
        "components": [{
            "name": "mendix-operator",
            "version": "2.21.0",
            "phase": 1,
            "blob": {"target": BlobRef::target_name(&sha256), "sha256": sha256, "size": 100},
            "images": [image()],
            "scope": {
                "namespaces": ["mendix-operator"],
                "kinds": ["ConfigMap", "ServiceAccount", "apps/Deployment"],
            },
            "gates": {"timeout_seconds": 600, "soak_seconds": 30},
            "adopt": false,
        }],
    })
}

fn admission() -> Value {
    let gone = json!([
        {"group": "", "version": "v1", "kind": "ConfigMap", "namespace": "mendix-operator", "name": "old"},
        {"group": "", "version": "v1", "kind": "PersistentVolumeClaim", "namespace": "mendix-operator",
         "name": "data"},
    ]);
    json!({
        "index": index(),
        "blobs": [objects()],
        "facts": {
            "agent_version": "0.1.0",
            "kubernetes_version": "v1.34.2",
            "ring": "",
            "high_water": 6,
            "committed": 6,
            "inventory": {"mendix-operator": gone},
        },
    })
}

fn ledger() -> Value {
    json!({"version": 1, "clock_floor": "2026-11-20T11:00:00Z", "grants": {}})
}

/// Ask, hear, wait, ask, hear with another status.
fn lease(statuses: &[u8; 2]) -> Vec<u8> {
    let [first, second] = *statuses;
    vec![0, 2, 0, 0, first, 1, 1, 0x88, 0x13, 0, 2, 0, 1, second, 2, 1, 0xff, 0xff]
}

fn answers() -> [(&'static str, &'static str); 7] {
    [
        ("open", "HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"),
        ("early", "HTTP/1.1 200 OK\r\n\r\nhello"),
        ("interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\n\n"),
        (
            "who",
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: Basic \
             realm=\"a\"\r\nContent-Length: 2\r\n\r\nno",
        ),
        ("refused", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        ("created", "HTTP/1.1 201 Created\r\n\r\n"),
        ("ssh", "SSH-2.0-OpenSSH_9.2\r\n"),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    use v1::control_message::Body;
    let stream = |bodies: Vec<Body>| {
        let mut bytes = vec![1, 3];
        for (n, body) in bodies.into_iter().enumerate() {
            let frame = v1::ControlMessage { body: Some(body) }.encode_to_vec();
            bytes.push((n as u8) << 2);
            bytes.extend((frame.len() as u16).to_le_bytes());
            bytes.extend(frame);
        }
        bytes
    };
    let section = |section: v1::Section, body| v1::DesiredSection {
        section: section.into(),
        revision: 1,
        body: Some(body),
    };
    let ticket = v1::Ticket { ticket_id: "MX-1".into(), status: 1, ..Default::default() };
    let request = v1::Request { request_id: "r-1".into(), kind: None };
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    use v1::desired_section::Body as Section;
    vec![
        (
            "desired",
            stream(vec![Body::DesiredState(v1::DesiredState {
                sections: vec![
                    section(
                        v1::Section::Release,
                        Section::Release(v1::ReleaseSection {
                            index_target: "release-1.json".into(),
                            sequence: 1,
                        }),
                    ),
                    section(
                        v1::Section::Tickets,
                        Section::Tickets(v1::TicketsSection {
                            tickets: vec![ticket],
                            ..Default::default()
                        }),
                    ),
                    section(
                        v1::Section::Requests,
                        Section::Requests(v1::RequestsSection { requests: vec![request] }),
                    ),
                ],
            })]),
        ),
        (
            "ends",
            stream(vec![
                Body::HeartbeatAck(v1::HeartbeatAck { sequence: 1, server_time: None }),
                Body::ReportAck(v1::ReportAck { section: 100, revision: 1 }),
                Body::Lease(v1::Lease { envelope: vec![1; 9] }),
                Body::Drain(v1::Drain { deadline: seconds(60), spread: seconds(10) }),
                Body::Throttle(v1::Throttle { retry_after: seconds(9) }),
            ]),
        ),
        (
            "deregistered",
            stream(vec![
                Body::Deregistered(v1::Deregistered { reason: "gone".into() }),
                Body::Welcome(v1::Welcome { protocol: 1, ..Default::default() }),
            ]),
        ),
    ]
}

fn sessions() -> Vec<(&'static str, Vec<u8>)> {
    let run =
        |ending: u8, happenings: &[u8]| [&[ending, 1, 2, 3, 4, 5, 6, 7, 8], happenings].concat();
    vec![
        ("served", run(1, &[1, 15, 15, 9, 0, 1, 7, 1, 1, 15, 1, 15])),
        ("replaced", run(1, &[1, 15, 15, 12, 1, 15, 15, 0, 0xff, 0x0f, 15])),
        ("unheard", run(1, &[1, 15, 15, 1, 1, 1, 1, 1, 1, 15])),
        ("refused", run(0, &[1, 4, 1, 1, 3, 5, 1, 255, 0, 0, 1, 15, 15, 5, 5, 11])),
        (
            "told",
            run(1, &[1, 15, 15, 5, 2, 2, 1, 3, 1, 2, 4, 1, 5, 3, 1, 9, 0, 0, 5, 4, 1, 30, 0, 1]),
        ),
    ]
}

fn logs() -> Vec<(&'static str, Vec<u8>)> {
    let log = |cut: u8, style: u8, before: &str, after: &str| {
        let length = (before.len() as u16).to_le_bytes();
        [&[cut, style][..], &length, before.as_bytes(), after.as_bytes()].concat()
    };
    vec![
        ("plain", log(7, 0, "2026-11-22T10:00:00Z INFO started\n", "done in 3 ms\n")),
        ("json", log(0, 2, "{\"level\":\"info\",\"msg\":\"a \\\"b\\\"\"}\n", "{\"token\":\"x\"")),
        (
            "yaml",
            log(63, 3, "apiVersion: v1\nkind: Secret\ndata:\n  a: Yg==\n", "next: |\n  text\n"),
        ),
        ("pem", log(16, 1, "-----BEGIN PRIVATE KEY-----\nMIIabc\n", "-----END PRIVATE KEY-----\n")),
        ("open", log(1, 0, "secret: \"never closed", "https://u:p@h/?sig=a%2Fb\n")),
        ("odd", log(4, 2, "\u{1b}[31mред\u{200b}\u{feff}\r\n\\u0022\\\\", "\u{1b}[0m é\n")),
    ]
}
