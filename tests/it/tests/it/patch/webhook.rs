//! A real admission webhook: HTTPS with a certificate of its own CA, which refuses every object called
//! `forbidden`.

use std::{convert::Infallible, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mendix_test_kit::pki::Ca;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

pub(super) struct Webhook {
    target: String,
    url: String,
    ca: Ca,
    server: AbortHandle,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Webhook {
    pub(super) const PATH: &str =
        "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

    pub(super) fn name(target: &str) -> String {
        format!("policy.{target}.example.com")
    }

    /// A webhook for ConfigMaps of the namespace that is labelled `world: <target>`.
    pub(super) fn configuration(target: &str, url: &str, ca: Option<&Ca>) -> Value {
        let mut config = json!({ "url": url });
        if let Some(ca) = ca {
            config["caBundle"] = json!(BASE64_STANDARD.encode(ca.cert_pem()));
        }
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": target}, "webhooks": [{
                "name": Self::name(target), "clientConfig": config,
                "namespaceSelector": {"matchLabels": {"world": target}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}],
                "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5}]})
    }

    pub(super) async fn start(target: &str) -> Self {
        let ca = Ca::new("webhook").unwrap();
        let credential = ca.server(&["127.0.0.1"]).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![credential.cert_der().clone()], credential.key_der())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            // They end with it: the API server keeps its connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(review);
                    let _ended =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { target: target.to_owned(), url, ca, server: server.abort_handle() }
    }

    pub(super) fn registration(&self) -> Value {
        Self::configuration(&self.target, &self.url, Some(&self.ca))
    }
}

async fn review(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let allowed = review["request"]["name"] != "forbidden";
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": review["request"]["uid"], "allowed": allowed,
        "status": {"message": "the customer's policy says no"}}});
    Ok(Response::new(Full::from(answer.to_string())))
}
