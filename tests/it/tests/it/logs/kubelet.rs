//! The part of a kubelet that the API server asks for logs. The API server in front of it is real,
//! so paths, rights and the audit log are what they are in production.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mendix_test_kit::pki::Ca;
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What a container's log is.
#[derive(Clone, Debug)]
pub(crate) enum Log {
    /// These lines, and the end.
    Whole(String),
}

/// Logs by `/containerLogs/<namespace>/<pod>/<container>`, `?previous` appended for the run before.
type Logs = Arc<Mutex<HashMap<String, Log>>>;

pub(crate) struct Kubelet {
    pub(crate) port: u16,
    logs: Logs,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    pub(crate) async fn start() -> Self {
        let certificate = Ca::new("kubelets").unwrap().server(&["127.0.0.1"]).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert_der().clone()], certificate.key_der())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (logs, asked) = (Logs::default(), Arc::<Mutex<Vec<String>>>::default());
        let (served, noted) = (logs.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, logs, asked) = (acceptor.clone(), served.clone(), noted.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                    let previous = query.contains("previous=true");
                    let key = if previous { format!("{path}?previous") } else { path.to_owned() };
                    asked.lock().unwrap().push(target.clone());
                    let log = logs.lock().unwrap().get(&key).cloned();
                    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
                    let _gone = match log {
                        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await,
                        Some(Log::Whole(text)) => {
                            let response =
                                format!("{ok}Content-Length: {}\r\n\r\n{text}", text.len());
                            stream.write_all(response.as_bytes()).await
                        }
                    };
                    let _gone = stream.shutdown().await;
                });
            }
        });
        Self { port, logs, asked, task }
    }

    pub(crate) fn set(&self, namespace: &str, pod: &str, container: &str, log: Log) {
        let path = format!("/containerLogs/{namespace}/{pod}/{container}");
        self.logs.lock().unwrap().insert(path, log);
    }

    pub(crate) fn set_previous(&self, namespace: &str, pod: &str, container: &str, log: Log) {
        let path = format!("/containerLogs/{namespace}/{pod}/{container}?previous");
        self.logs.lock().unwrap().insert(path, log);
    }

    /// Paths and queries it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
