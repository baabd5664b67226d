//! A node whose disk is too full, as its kubelet sees it: it takes no pods, and keeps those it has.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use rustix::process::{Pid, Signal, kill_process};

use super::{NODE_NAME, Node, NodeError, runtime};
use crate::{apiserver::write, process, wait::eventually};

/// Longest wait until Kubernetes says of the node what the kubelet was told; measured 15 s on two idle
/// cores.
const SAID: Duration = Duration::from_secs(240);
/// No disk has as much as is asked for here. A soft threshold puts the node under pressure at once, and
/// evicts nobody before its grace period is over.
const PRESSURE: &str = "\
evictionSoft: {nodefs.available: 1Pi}
evictionSoftGracePeriod: {nodefs.available: 24h}
";
/// What Kubernetes gives a node under pressure, and takes from it again.
const TAINT: &str = "node.kubernetes.io/disk-pressure";

impl Node {
    /// Puts the node under pressure for its disk, or ends that, and waits until Kubernetes says so. The
    /// kubelet is started again for it; containers live on.
    ///
    /// # Errors
    /// [`NodeError::Elsewhere`] when another process started the node; [`NodeError::NotInTime`].
    pub async fn press(&self, pressed: bool) -> Result<(), NodeError> {
        let file = self.access.state.join("kubelet.yaml");
        let text = fs::read_to_string(&file)
            .map_err(|source| NodeError::Machine { what: file.clone(), source })?;
        let mut text = text.replace(PRESSURE, "");
        if pressed {
            text.push_str(PRESSURE);
        }
        write(&file, &text)?;
        self.start_kubelet_again()?;
        let nodes = Api::<NodeObject>::all(self.access.client().await?);
        let what = if pressed { "the node is under pressure" } else { "the pressure is over" };
        eventually(SAID, what, async || {
            let spec = nodes.get(NODE_NAME).await.ok()?.spec?;
            let tainted = spec.taints.into_iter().flatten().any(|taint| taint.key == TAINT);
            (tainted == pressed).then_some(())
        })
        .await?;
        Ok(())
    }

    fn start_kubelet_again(&self) -> Result<(), NodeError> {
        let init = self.daemons.iter().find(|daemon| daemon.name() == runtime::INIT_NAME);
        let init = init.ok_or(NodeError::Elsewhere)?;
        // The first process of the node's namespace, which started the kubelet.
        for child in process::children(init.id()) {
            let pid = child.split(' ').next().and_then(|pid| pid.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
            kill_process(pid, Signal::HUP).map_err(|error| NodeError::Machine {
                what: Path::new("the kubelet's restart").into(),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}
