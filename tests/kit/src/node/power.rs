//! A power failure of the node, and its end: what is in memory is gone, what is on disk stays.
//!
//! The control plane lives on, as one that is managed does. What a machine has in `/run` goes with
//! it; images, the kubelet's folders and containers' leftovers are found again at the next boot.

use std::{fs, io::ErrorKind, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;

use super::{CONTAINERD_SOCKET, NODE_NAME, Node, NodeError, is_ready, runtime};
use crate::{
    process::{self, Lifetime},
    wait::eventually,
};

/// Longest wait until the last process of the node is gone; the kernel kills them all at once.
const GONE: Duration = Duration::from_secs(180);
/// Longest wait until Kubernetes has noticed: it gives a node 40 s to be heard of.
const NOTICED: Duration = Duration::from_secs(300);
/// Longest wait for the node to be ready again; measured 15 s on two idle cores.
const READY: Duration = Duration::from_secs(300);

impl Node {
    /// Kills the kubelet, the container runtime and every process of every pod at once, with SIGKILL,
    /// and waits until Kubernetes takes the node for gone.
    ///
    /// # Errors
    /// [`NodeError::Elsewhere`] when another process started the node; [`NodeError::NotInTime`].
    pub async fn power_off(&mut self) -> Result<(), NodeError> {
        let init = self.daemons.iter_mut().find(|daemon| daemon.name() == runtime::INIT_NAME);
        let init = init.ok_or(NodeError::Elsewhere)?;
        // The first process of the node's namespace: it is gone when all others are.
        let first = process::children(init.id());
        init.kill();
        eventually(GONE, "the node's processes are gone", async || {
            first.iter().all(|process| !process::runs(process)).then_some(())
        })
        .await?;
        for volatile in [self.access.state.join("containerd/state"), CONTAINERD_SOCKET.into()] {
            remove(&volatile)?;
        }
        self.until_ready(false, "the node is taken for gone", NOTICED).await
    }

    /// Boots the node again and waits until it is ready. Its pods start when the kubelet has seen
    /// that none of their containers runs.
    ///
    /// # Errors
    /// [`NodeError`]; a program that ended is reported with the end of its log.
    pub async fn power_on(&mut self) -> Result<(), NodeError> {
        // Only a node of this process can have been powered off.
        let mut init = runtime::boot(&self.assets, &self.access.state, Lifetime::ThisProcess)?;
        let prepared = self.containerd.wait_until_it_answers(&mut init).await;
        let let_go = prepared.and_then(|()| runtime::let_the_kubelet_go(&mut init));
        self.daemons.retain(|daemon| daemon.name() != runtime::INIT_NAME);
        self.daemons.push(init);
        let_go?;
        self.until_ready(true, "the node is ready again", READY).await
    }

    async fn until_ready(&self, ready: bool, what: &str, wait: Duration) -> Result<(), NodeError> {
        let nodes = Api::<NodeObject>::all(self.access.client().await?);
        eventually(wait, what, async || {
            nodes.get(NODE_NAME).await.is_ok_and(|node| is_ready(&node) == ready).then_some(())
        })
        .await?;
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), NodeError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(NodeError::Machine { what: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
