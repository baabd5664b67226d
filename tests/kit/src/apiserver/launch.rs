//! Starting etcd, kube-apiserver and, when wanted, the controllers and the scheduler: the part that
//! an API server alone and a whole node have in common.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use super::{Access, ServerError, access::has_account, kubeconfig};
use crate::{
    assets::Assets,
    pki::{Ca, Leaf},
    port,
    process::{Daemon, Launch, Lifetime, ProcessError},
    progress::Progress,
    wait::POLL,
};

/// Longest wait until the API server answers. Measured: 11 s on two idle cores; other builds and
/// tests may share them.
const READY_DEADLINE: Duration = Duration::from_secs(180);
/// One look at the API server.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Folder of etcd's data, in the state folder.
pub(super) const ETCD_DATA: &str = "etcd";

/// Every request, by metadata, once answered. Watches are written when they start, too.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// What differs between the two uses.
pub(crate) struct Settings<'a> {
    pub(crate) assets: &'a Assets,
    /// Everything is written here.
    pub(crate) state: &'a Path,
    pub(crate) lifetime: Lifetime,
    /// Where the API server listens.
    pub(crate) address: Ipv4Addr,
    /// `None` takes a free one.
    pub(crate) port: Option<u16>,
    pub(crate) service_range: &'static str,
    /// Names in its certificate besides `address` and the usual ones.
    pub(crate) names: &'a [&'a str],
    pub(crate) controllers: bool,
    pub(crate) scheduler: bool,
    pub(crate) audit: bool,
    pub(crate) extra_flags: &'a [String],
    /// Kept open as long as etcd runs, so that a lock on it lasts as long.
    pub(crate) held: Option<File>,
}

/// The running programs and what leads to them.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) ca: Ca,
    pub(crate) access: Access,
}

impl Settings<'_> {
    fn audit_log(&self) -> PathBuf {
        self.state.join("audit.log")
    }

    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(mut self, progress: &Progress) -> Result<Plane, ServerError> {
        let port = self.port.map_or_else(free_port, Ok)?;
        let url = format!("https://{}:{port}", self.address);
        let pki = self.state.join("pki");
        let ca = Ca::new("test-kit-kubernetes")?;
        self.write_pki(&ca, &pki)?;
        let kubeconfig = self.state.join("kubeconfig");
        let admin = ca.issue(Leaf::client("admin").organization("system:masters"))?;
        write(&kubeconfig, &kubeconfig::for_certificate(&url, ca.cert_pem(), &admin))?;

        let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
        let peer_url = format!("http://127.0.0.1:{}", free_port()?);
        let mut daemons = Daemons(Vec::new());
        progress.say("starting etcd and kube-apiserver");
        let etcd = self.etcd(&etcd_url, &peer_url);
        daemons.0.push(self.launch("etcd", etcd)?);
        let server = self.kube_apiserver(&etcd_url, port, &pki)?;
        daemons.0.push(self.launch("kube-apiserver", server)?);

        let client = kubeconfig::client(&kubeconfig).await?;
        until_it_answers(&mut daemons.0, &client).await?;

        if self.controllers {
            let flags = self.controller_manager(&ca, &url, &pki)?;
            daemons.0.push(self.launch("kube-controller-manager", flags)?);
        }
        if self.scheduler {
            let flags = self.kube_scheduler(&ca, &url)?;
            daemons.0.push(self.launch("kube-scheduler", flags)?);
        }
        if self.controllers {
            progress.say("waiting for the controllers");
            until(&mut daemons.0, "the controllers have made a service account", || async {
                has_account(&client, "default").await
            })
            .await?;
        }
        let access = Access {
            state: self.state.to_owned(),
            url,
            ca_pem: ca.cert_pem().to_owned(),
            kubeconfig,
            audit_log: self.audit.then(|| self.audit_log()),
            controllers: self.controllers,
        };
        Ok(Plane { daemons: std::mem::take(&mut daemons.0), ca, access })
    }

    fn launch(&mut self, name: &'static str, args: Vec<OsString>) -> Result<Daemon, ProcessError> {
        let stdin = if name == "etcd" { self.held.take() } else { None };
        Launch {
            name,
            program: &self.assets.program(name),
            args,
            env: Vec::new(),
            state: self.state,
            lifetime: self.lifetime,
            stdin: stdin.map_or_else(Stdio::null, Stdio::from),
        }
        .start()
    }

    fn write_pki(&self, ca: &Ca, pki: &Path) -> Result<(), ServerError> {
        fs::create_dir_all(pki)
            .map_err(|source| ServerError::State { path: pki.to_owned(), source })?;
        write(&pki.join("ca.crt"), ca.cert_pem())?;
        write(&pki.join("ca.key"), &ca.key_pem())?;
        let address = self.address.to_string();
        let mut names = vec![
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
            "127.0.0.1",
            &address,
        ];
        names.extend(self.names);
        let masters = |name| Leaf::client(name).organization("system:masters");
        for (file, leaf) in [
            ("apiserver", Leaf::server(&names).common_name("kube-apiserver")),
            ("front-proxy", Leaf::client("front-proxy")),
            ("apiserver-kubelet", masters("apiserver-kubelet")),
        ] {
            let credential = ca.issue(leaf)?;
            write(&pki.join(format!("{file}.crt")), credential.cert_pem())?;
            write(&pki.join(format!("{file}.key")), &credential.key_pem())?;
        }
        // Only its key matters: it signs service account tokens.
        let tokens = ca.client("service-account-tokens")?;
        write(&pki.join("tokens.key"), &tokens.key_pem())?;
        write(&pki.join("tokens.pub"), &tokens.public_key_pem())
    }

    fn etcd(&self, client: &str, peer: &str) -> Vec<OsString> {
        let mut flags = Flags::default();
        flags
            .set("name", "default")
            .path("data-dir", &self.state.join(ETCD_DATA))
            .set("logger", "zap")
            .set("log-level", "error")
            .set("listen-client-urls", client)
            .set("advertise-client-urls", client)
            .set("listen-peer-urls", peer)
            .set("initial-advertise-peer-urls", peer)
            .set("initial-cluster", &format!("default={peer}"))
            // Its data are thrown away: no need to wait for the disk.
            .set("unsafe-no-fsync", "true");
        flags.0
    }

    fn kube_apiserver(
        &self,
        etcd: &str,
        port: u16,
        pki: &Path,
    ) -> Result<Vec<OsString>, ServerError> {
        let address = self.address.to_string();
        let file = |name: &str| pki.join(name);
        let mut flags = Flags::default();
        flags
            .set("etcd-servers", etcd)
            .set("bind-address", &address)
            .set("advertise-address", &address)
            .set("endpoint-reconciler-type", "none")
            .set("secure-port", &port.to_string())
            .set("allow-privileged", "true")
            .path("tls-cert-file", &file("apiserver.crt"))
            .path("tls-private-key-file", &file("apiserver.key"))
            .path("client-ca-file", &file("ca.crt"))
            .path("requestheader-client-ca-file", &file("ca.crt"))
            .set("requestheader-allowed-names", "front-proxy")
            .set("requestheader-username-headers", "X-Remote-User")
            .set("requestheader-group-headers", "X-Remote-Group")
            .set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
            .path("proxy-client-cert-file", &file("front-proxy.crt"))
            .path("proxy-client-key-file", &file("front-proxy.key"))
            .path("kubelet-certificate-authority", &file("ca.crt"))
            .path("kubelet-client-certificate", &file("apiserver-kubelet.crt"))
            .path("kubelet-client-key", &file("apiserver-kubelet.key"))
            .set("kubelet-preferred-address-types", "InternalIP,Hostname")
            .path("service-account-key-file", &file("tokens.pub"))
            .path("service-account-signing-key-file", &file("tokens.key"))
            .set("service-account-issuer", "https://kubernetes.default.svc")
            .set("api-audiences", "https://kubernetes.default.svc")
            .set("service-cluster-ip-range", self.service_range)
            .set("authorization-mode", "Node,RBAC")
            .set("enable-admission-plugins", "NodeRestriction");
        if !self.controllers {
            // It would refuse every pod for lack of the account that a controller makes.
            flags.set("disable-admission-plugins", "ServiceAccount");
        }
        if self.audit {
            let policy = self.state.join("audit-policy.yaml");
            write(&policy, AUDIT_POLICY)?;
            flags.path("audit-policy-file", &policy).path("audit-log-path", &self.audit_log());
        }
        flags.0.extend(self.extra_flags.iter().map(OsString::from));
        Ok(flags.0)
    }

    fn controller_manager(
        &self,
        ca: &Ca,
        url: &str,
        pki: &Path,
    ) -> Result<Vec<OsString>, ServerError> {
        let user = ca.client("system:kube-controller-manager")?;
        let path = self.state.join("kube-controller-manager.kubeconfig");
        write(&path, &kubeconfig::for_certificate(url, ca.cert_pem(), &user))?;
        let mut flags = Flags::default();
        flags
            .path("kubeconfig", &path)
            .set("port", "0")
            .set("secure-port", "0")
            .set("leader-elect", "false")
            .set("use-service-account-credentials", "true")
            .path("service-account-private-key-file", &pki.join("tokens.key"))
            .path("root-ca-file", &pki.join("ca.crt"))
            .path("cluster-signing-cert-file", &pki.join("ca.crt"))
            .path("cluster-signing-key-file", &pki.join("ca.key"))
            .set("service-cluster-ip-range", self.service_range)
            .set("controllers", "*,-nodeipam,-route,-cloud-node-lifecycle,-service");
        Ok(flags.0)
    }

    fn kube_scheduler(&self, ca: &Ca, url: &str) -> Result<Vec<OsString>, ServerError> {
        let user = ca.client("system:kube-scheduler")?;
        let path = self.state.join("kube-scheduler.kubeconfig");
        write(&path, &kubeconfig::for_certificate(url, ca.cert_pem(), &user))?;
        let mut flags = Flags::default();
        flags
            .path("kubeconfig", &path)
            .set("port", "0")
            .set("secure-port", "0")
            .set("leader-elect", "false");
        Ok(flags.0)
    }
}

/// Kills what was started when a later step fails.
struct Daemons(Vec<Daemon>);

impl Drop for Daemons {
    fn drop(&mut self) {
        self.0.iter_mut().rev().for_each(Daemon::kill);
    }
}

#[derive(Default)]
struct Flags(Vec<OsString>);

impl Flags {
    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.push(format!("--{name}={value}").into());
        self
    }

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(path);
        self.0.push(flag);
        self
    }
}

/// Waits for a condition, but no longer than the daemons run.
pub(crate) async fn until<F>(
    daemons: &mut [Daemon],
    what: &'static str,
    mut look: impl FnMut() -> F,
) -> Result<(), ServerError>
where
    F: Future<Output = bool>,
{
    let start = tokio::time::Instant::now();
    while start.elapsed() < READY_DEADLINE {
        for daemon in &mut *daemons {
            daemon.check()?;
        }
        if tokio::time::timeout(LOOK_DEADLINE, look()).await.unwrap_or(false) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(ServerError::NotReady { what, deadline: READY_DEADLINE })
}

/// Waits until the API server takes requests.
pub(super) async fn until_it_answers(
    daemons: &mut [Daemon],
    client: &Client,
) -> Result<(), ServerError> {
    let ready = || async {
        let request = http_get("/readyz");
        matches!(client.request_text(request).await.as_deref(), Ok("ok"))
            && Api::<Namespace>::all(client.clone()).get("default").await.is_ok()
    };
    until(daemons, "the API server is ready", ready).await
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
    request
}

/// A port that is free now. Should somebody else take it before it is used, the start is tried again.
fn free_port() -> Result<u16, ServerError> {
    port::free().map_err(ServerError::NoPort)
}

/// Files here hold keys: they are for the owner alone.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), ServerError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|source| ServerError::State { path: path.to_owned(), source })
}
