//! The program itself, in an environment that a cluster may give it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Answers every request with `answer` and counts the connections. Its thread ends with the test.
fn server(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = Vec::new();
            let mut byte = [0; 1];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, seen)
}

#[test]
fn a_no_proxy_that_forgets_the_api_server_does_not_send_it_to_the_proxy() {
    let (api, asked) = server(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
         {\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{},\"items\":[]}",
    );
    let (proxy, bothered) = server("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}]\n\
         users: [{{name: c, user: {{}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mendix-agent"))
            .args(["status", "--namespace", "mendix-agent"])
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env(variable, format!("http://{proxy}"))
            .env("NO_PROXY", "plane.example")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{variable}: {said}");
    }
    assert!(asked.load(Ordering::SeqCst) >= 2);
    assert_eq!(bothered.load(Ordering::SeqCst), 0, "the proxy was asked for the API server");
}
