//! What runs containers: containerd and the kubelet with their configuration, and the images they
//! start with.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    CONTAINERD_SOCKET, LINK, NODE_IP, NODE_NAME, NodeError, POD_RANGE,
    machine::{make, snapshotter},
};
use crate::{
    apiserver::{Plane, for_certificate, write},
    assets::Assets,
    image::{self, Image},
    pki::Leaf,
    process::{self, Daemon, Launch, Lifetime, ProcessError},
    wait::eventually,
};

/// What the node's first process is launched as.
pub(super) const INIT_NAME: &str = "node";
const INIT: &str = include_str!("init.sh");
/// Longest wait for containerd's first answer; measured 0.5 s.
const CONTAINERD_DEADLINE: Duration = Duration::from_secs(180);
/// Longest wait until the kubelet's side of containerd has noticed an image; measured below 0.1 s.
const IMAGE_DEADLINE: Duration = Duration::from_secs(180);
/// The label by which it says so.
const NOTICED: &str = "io.cri-containerd.image=managed";
const PAUSE: (&str, &str) = ("localhost/pause", "1");
/// An image with a shell and busybox's tools, for pods of tests.
pub const BUSYBOX_IMAGE: &str = "localhost/busybox:1";

/// containerd of the node, as `ctr` reaches it.
#[derive(Clone, Debug)]
pub(super) struct Containerd {
    ctr: PathBuf,
    snapshotter: &'static str,
}

impl Containerd {
    pub(super) fn new(assets: &Assets, state: &Path) -> Result<Self, NodeError> {
        let ctr = assets.node_folder().ok_or(NodeError::NoPrograms)?.join("ctr");
        Ok(Self { ctr, snapshotter: snapshotter(state) })
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.ctr);
        command.args(["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]).args(words);
        command
    }

    /// Waits for containerd, as long as the node's first process runs.
    pub(super) async fn wait_until_it_answers(&self, init: &mut Daemon) -> Result<(), NodeError> {
        let answered = eventually(CONTAINERD_DEADLINE, "containerd answers", || {
            let answer =
                init.check().and_then(|()| match process::run(&mut self.ctr(&["version"])) {
                    Err(ProcessError::Command { .. }) => Ok(false),
                    other => other.map(|_| true),
                });
            async move {
                match answer {
                    Ok(false) => None,
                    Ok(true) => Some(Ok(())),
                    Err(ended) => Some(Err(ended)),
                }
            }
        })
        .await?;
        Ok(answered?)
    }

    /// Imports an archive and waits until pods can use its images. Returns their names.
    pub(super) async fn import(&self, archive: &Path) -> Result<Vec<String>, NodeError> {
        let names = image::names(archive)?;
        let mut command = self.ctr(&["images", "import", "--snapshotter", self.snapshotter]);
        command.arg(archive);
        tokio::task::spawn_blocking(move || process::run(&mut command)).await.map_err(
            |error| NodeError::Machine {
                what: archive.to_owned(),
                source: std::io::Error::other(error),
            },
        )??;
        for name in &names {
            let filter = format!("name=={name}");
            eventually(IMAGE_DEADLINE, format!("the node knows image {name}"), || {
                let listed = process::run(&mut self.ctr(&["images", "list", &filter]));
                async move { listed.is_ok_and(|text| text.contains(NOTICED)).then_some(()) }
            })
            .await?;
        }
        Ok(names)
    }
}

/// Writes the configuration, starts containerd, loads the first images and lets the kubelet go.
pub(super) async fn start(
    assets: &Assets,
    state: &Path,
    lifetime: Lifetime,
    plane: &Plane,
) -> Result<(Daemon, Containerd), NodeError> {
    let programs = assets.node_folder().ok_or(NodeError::NoPrograms)?;
    let containerd = Containerd::new(assets, state)?;
    configure(state, programs, plane, containerd.snapshotter)?;
    let mut init = boot(assets, state, lifetime)?;
    let prepared = async {
        containerd.wait_until_it_answers(&mut init).await?;
        let busybox = programs.join("busybox");
        for image in [pause(&busybox), busybox_with_links(&busybox)?] {
            let archive = state.join("image.tar");
            image.write(&archive)?;
            containerd.import(&archive).await?;
        }
        let_the_kubelet_go(&mut init)
    };
    match prepared.await {
        Ok(()) => Ok((init, containerd)),
        Err(error) => {
            init.kill();
            Err(error)
        }
    }
}

/// Starts the node's first process, and containerd with it. The kubelet waits to be let go.
pub(super) fn boot(assets: &Assets, state: &Path, lifetime: Lifetime) -> Result<Daemon, NodeError> {
    let programs = assets.node_folder().ok_or(NodeError::NoPrograms)?;
    Ok(Launch {
        name: INIT_NAME,
        program: Path::new("unshare"),
        // --kill-child: when unshare is killed, the first process of the namespace is too, and with
        // it everything inside.
        args: [
            "--mount",
            "--propagation",
            "slave",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            INIT,
            "init",
        ]
        .map(Into::into)
        .into(),
        env: vec![
            ("STATE", state.into()),
            ("PROGRAMS", programs.into()),
            ("KUBELET", assets.program("kubelet").into()),
            ("CONTAINERD", CONTAINERD_SOCKET.into()),
            ("NODE_NAME", NODE_NAME.into()),
            ("NODE_IP", NODE_IP.to_string().into()),
        ],
        state,
        lifetime,
        stdin: Stdio::piped(),
    }
    .start()?)
}

/// Lets the kubelet start: its images are there.
pub(super) fn let_the_kubelet_go(init: &mut Daemon) -> Result<(), NodeError> {
    let go = init.take_stdin().map_or(Ok(()), |mut stdin| stdin.write_all(b"go\n"));
    go.map_err(|source| NodeError::Machine { what: "the kubelet's start".into(), source })
}

fn base(repository: &str, tag: &str, busybox: &Path) -> Image {
    ["bin", "etc", "proc", "sys", "dev", "root"]
        .into_iter()
        .fold(Image::new(repository, tag), |image, folder| image.folder(folder, 0o755))
        .folder("tmp", 0o1777)
        .bytes(
            "etc/passwd",
            0o644,
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        )
        .bytes("etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n")
        .file("bin/busybox", 0o755, busybox)
        .env("PATH", "/bin")
}

/// What holds the namespaces of a pod open.
fn pause(busybox: &Path) -> Image {
    base(PAUSE.0, PAUSE.1, busybox).entrypoint(&["/bin/busybox", "sleep", "2147483647"])
}

fn busybox_with_links(busybox: &Path) -> Result<Image, NodeError> {
    let (repository, tag) = BUSYBOX_IMAGE.rsplit_once(':').unwrap_or((BUSYBOX_IMAGE, "1"));
    let tools = process::run(Command::new(busybox).arg("--list"))?;
    Ok(tools
        .lines()
        .filter(|tool| *tool != "busybox" && !tool.is_empty())
        .fold(base(repository, tag, busybox), |image, tool| {
            image.symlink(&format!("bin/{tool}"), "busybox")
        })
        .entrypoint(&["/bin/sh"]))
}

fn configure(
    state: &Path,
    programs: &Path,
    plane: &Plane,
    snapshotter: &str,
) -> Result<(), NodeError> {
    for folder in ["sysctl", "kubelet", "log", "cni"] {
        make(&state.join(folder))?;
    }
    for (name, value) in [("overcommit_memory", "1"), ("panic", "10"), ("panic_on_oops", "1")] {
        write(&state.join("sysctl").join(name), &format!("{value}\n"))?;
    }
    let user = format!("system:node:{NODE_NAME}");
    let client = plane.ca.issue(Leaf::client(&user).organization("system:nodes"))?;
    write(
        &state.join("kubelet.kubeconfig"),
        &for_certificate(&plane.access.url, plane.ca.cert_pem(), &client),
    )?;
    let server = plane.ca.issue(
        Leaf::server(&[NODE_NAME, &NODE_IP.to_string()])
            .common_name(&user)
            .organization("system:nodes"),
    )?;
    write(&state.join("pki/kubelet.crt"), server.cert_pem())?;
    write(&state.join("pki/kubelet.key"), &server.key_pem())?;
    write(&state.join("cni/10-node.conflist"), &network(state))?;
    write(&state.join("containerd.toml"), &containerd_toml(state, programs, snapshotter))?;
    write(&state.join("kubelet.yaml"), &kubelet_yaml(state))?;
    Ok(())
}

/// One bridge, no masquerading: pods reach each other and this machine, nothing beyond.
fn network(state: &Path) -> String {
    let leases = state.join("leases");
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "mendix-agent-node",
        "plugins": [{
            "type": "bridge",
            "bridge": LINK,
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": leases,
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

fn containerd_toml(state: &Path, programs: &Path, snapshotter: &str) -> String {
    let (state, programs) = (state.display(), programs.display());
    let pause = format!("{}:{}", PAUSE.0, PAUSE.1);
    format!(
        r#"version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  enable_unprivileged_ports = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{programs}/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs}/cni"
    conf_dir = "{state}/cni"
"#
    )
}

fn kubelet_yaml(state: &Path) -> String {
    let state = state.display();
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {NODE_IP}
port: 10250
readOnlyPort: 0
healthzPort: 0
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{state}/pki/ca.crt"}}
authorization: {{mode: Webhook}}
tlsCertFile: "{state}/pki/kubelet.crt"
tlsPrivateKeyFile: "{state}/pki/kubelet.key"
cgroupDriver: cgroupfs
cgroupRoot: /
failSwapOn: false
makeIPTablesUtilChains: false
clusterDomain: cluster.local
resolvConf: ""
# The disk of a test machine may be nearly full without the node being sick.
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
# Small, so that a log is rotated at every look, 10 s apart, without much being written.
containerLogMaxSize: 4Mi
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
volumePluginDir: "{state}/volume-plugins"
"#
    )
}
