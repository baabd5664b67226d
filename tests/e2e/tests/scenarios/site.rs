//! The node with pods that log, the control plane and the support portal, and an agent on this machine
//! that can be killed and whose connections can be slowed down.
//!
//! There is one node with one release on it; a scenario has it for itself while it holds the [`Site`].

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::ListParams};
use mendix_agent::crd::{log_snapshot::LogSnapshot, managed_component::ManagedComponent};
use mendix_agent_core::{
    bundle::index::{Gates, ReleaseClass},
    consent::ledger::Ledger,
};
use mendix_control_plane::{
    Running, Store,
    manifests::{self, ComponentSpec, ReleaseSpec},
    portal::{self, GrantTerms, NewTicket},
    repository,
    store::{
        ClusterRecord, DoneRequest, RequestKind, TicketGrant, TicketOrigin, TicketRecord,
        TicketSeverity,
    },
};
use mendix_e2e::{
    binaries::workspace,
    install::{self, NAMESPACE},
    stage,
};
use mendix_test_kit::{node::Node, proxy::FaultProxy, wait::eventually};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::{
    agent::{Agent, Launcher},
    plane,
};

/// Longest wait for the first release: its pods have to start.
const RELEASE: Duration = Duration::from_secs(600);
/// Longest wait for a session.
const CONNECTED: Duration = Duration::from_secs(240);
/// Longest wait for the outcome of a request.
const OUTCOME: Duration = Duration::from_secs(240);
/// What the grants name.
const COMPONENTS: [&str; 2] = ["mendix-monitoring", "mendix-operator"];
/// Logs a megabyte that does not compress well, so that a snapshot has several chunks.
const BULK: &str = include_str!("bulk.yaml");

/// What is made once per test process. It belongs to no runtime.
struct Ground {
    folder: PathBuf,
    uid: String,
    token: String,
    kubeconfig: PathBuf,
    /// Of what the components run, by digest.
    image: String,
}

pub(crate) struct Site {
    pub(crate) launcher: Launcher,
    pub(crate) client: Client,
    pub(crate) plane: Running,
    /// Between the agent and the control plane.
    pub(crate) proxy: FaultProxy,
    pub(crate) uid: String,
    pub(crate) node: &'static Node,
    image: String,
    _alone: MutexGuard<'static, ()>,
}

/// What can be seen from outside of logs being read and leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sightings {
    /// Requests for any pod's log, from the API server's audit log.
    pub(crate) reads: usize,
    /// Uploads begun or tried at the control plane.
    pub(crate) begins: u64,
    /// Sealed bytes that it received.
    pub(crate) bytes: u64,
}

/// Waits until no other scenario uses the node: what one of them reads and what one of them manages is
/// seen by all.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

impl Site {
    /// Waits until no other scenario uses it.
    pub(crate) async fn take() -> Result<Self> {
        static GROUND: OnceCell<Ground> = OnceCell::const_new();
        let alone = alone().await;
        let node = Node::shared().await?;
        let client = node.client().await?;
        let ground = GROUND.get_or_try_init(|| prepare(node)).await?;
        // Also puts back what an earlier scenario changed.
        install::foundation(&client).await?;
        let store = Store::open(ground.folder.join("plane"))?;
        let plane = plane::start(&store).await?;
        let proxy = FaultProxy::start(plane.address()).await.context("start the proxy")?;
        let launcher = ground.launcher(&store, proxy.address()).await?;
        let (uid, image) = (ground.uid.clone(), ground.image.clone());
        Ok(Self { launcher, client, plane, proxy, uid, node, image, _alone: alone })
    }

    pub(crate) fn store(&self) -> &Store {
        self.plane.store()
    }

    /// Starts an agent and waits for its session.
    pub(crate) async fn agent(&self) -> Result<Agent> {
        let before = self.plane.counters().sessions;
        let agent = self.launcher.start()?;
        eventually(CONNECTED, "the agent has a session", async || {
            (self.plane.counters().sessions > before).then_some(())
        })
        .await?;
        Ok(agent)
    }

    /// Files of a component of the first release, changed, for another release. Gives their folder.
    pub(crate) fn component(
        &self,
        release: &str,
        component: &str,
        files: &[&str],
        change: &dyn Fn(&str, String) -> String,
    ) -> Result<PathBuf> {
        let dir = self.store().dir().with_file_name(release).join(component);
        place(&dir, component, files, &self.image, change)?;
        Ok(dir)
    }

    /// What was seen so far, by anybody.
    pub(crate) fn sightings(&self) -> Result<Sightings> {
        let events = self.node.audit_log().context("the node has no audit log")?.events()?;
        let reads: BTreeSet<String> = events
            .into_iter()
            .filter(|event| event["objectRef"]["subresource"] == "log")
            .map(|event| event["auditID"].to_string())
            .collect();
        let counters = self.plane.counters();
        Ok(Sightings {
            reads: reads.len(),
            begins: counters.snapshot_begins,
            bytes: counters.snapshot_bytes,
        })
    }

    /// Opens a ticket in the portal. With terms it carries the customer's consent, and a snapshot is
    /// requested at once; the id of that request comes with it.
    pub(crate) fn open_ticket(
        &self,
        ticket_id: &str,
        terms: Option<GrantTerms>,
    ) -> Result<(TicketRecord, Option<String>)> {
        let new = NewTicket {
            ticket_id: Some(ticket_id.into()),
            cluster_uid: self.uid.clone(),
            title: "a scenario".into(),
            severity: TicketSeverity::Low,
            origin: TicketOrigin::Customer,
            grant: terms,
        };
        let (ticket, request) = portal::open_ticket(self.store(), new)?;
        Ok((ticket, request.map(|request| request.request_id)))
    }

    /// Requests a snapshot.
    pub(crate) fn request(&self, ticket_id: &str) -> Result<String> {
        let kind = RequestKind::Snapshot { ticket_id: ticket_id.into(), components: vec![] };
        Ok(self.store().place_request(&self.uid, kind)?.request_id)
    }

    /// Puts a grant into a ticket behind the portal's back, as a control plane could that is in other
    /// hands. The agent hears of it with the next change.
    pub(crate) fn smuggle(&self, ticket_id: &str, grant: TicketGrant) -> Result<()> {
        let dir = self.store().dir();
        let lock = File::open(dir.join("lock")).context("open the store's lock")?;
        lock.lock().context("take the store's lock")?;
        let path = dir.join("clusters").join(format!("{}.json", self.uid));
        let mut cluster: ClusterRecord =
            serde_json::from_slice(&fs::read(&path).context("read the cluster's record")?)?;
        let mut tickets = cluster.tickets.value.iter_mut();
        let ticket = tickets.find(|ticket| ticket.ticket_id == ticket_id);
        ticket.context("no such ticket")?.grant = Some(grant);
        cluster.tickets.revision += 1;
        // As a whole: the server may read it at any time.
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&cluster)?).context("write the cluster's record")?;
        fs::rename(new, path).context("replace the cluster's record")
    }

    /// How a request was answered; fails unless it was exactly once, also some time later.
    pub(crate) async fn outcome(&self, request_id: &str) -> Result<DoneRequest> {
        eventually(OUTCOME, format!("request {request_id} is answered"), async || {
            self.answers(request_id).ok()?.pop()
        })
        .await?;
        let mut answers = self.answers(request_id)?;
        ensure!(answers.len() == 1, "answered more than once: {answers:?}");
        answers.pop().context("the answer has gone")
    }

    fn answers(&self, request_id: &str) -> Result<Vec<DoneRequest>> {
        let done = self.store().cluster(&self.uid)?.done;
        Ok(done.into_iter().filter(|done| done.request.request_id == request_id).collect())
    }

    /// The receipts of a ticket's snapshots, oldest first.
    pub(crate) async fn receipts(&self, ticket_id: &str) -> Result<Vec<LogSnapshot>> {
        let mut receipts = self.api::<LogSnapshot>().list(&ListParams::default()).await?.items;
        receipts.retain(|receipt| receipt.spec.ticket_id == ticket_id);
        receipts.sort_by_key(|receipt| receipt.status.as_ref().and_then(|s| s.started_at));
        Ok(receipts)
    }

    /// What the agent has written down as spent.
    pub(crate) async fn ledger(&self) -> Result<Ledger> {
        ledger_in(&self.api::<Secret>().get("mendix-agent-consent-ledger").await?)
    }

    /// Objects in the agent's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

/// The ledger in its Secret; other Secrets hold none.
pub(crate) fn ledger_in(secret: &Secret) -> Result<Ledger> {
    let data = secret.data.as_ref().and_then(|data| data.get("ledger.json"));
    Ok(Ledger::parse(&data.context("the Secret holds no ledger")?.0)?)
}

/// Consent to everything that the agent collects.
pub(crate) fn terms() -> GrantTerms {
    GrantTerms::for_components(COMPONENTS.map(str::to_owned).to_vec())
}

impl Ground {
    async fn launcher(&self, store: &Store, endpoint: std::net::SocketAddr) -> Result<Launcher> {
        let trust = store.trust_dir();
        Launcher::new(self.kubeconfig.clone(), endpoint, trust, &self.token, &self.folder).await
    }
}

/// Installs the agent's surroundings and has it carry out the first release.
async fn prepare(node: &Node) -> Result<Ground> {
    // Beside the node's own state, which is removed with it.
    let folder =
        node.state_folder().join(format!("scenarios-{}", Timestamp::now().as_millisecond()));
    fs::create_dir(&folder).context("make the scenarios' folder")?;
    let image = stage::workload_image(node, &folder)?;
    node.import_image(&image.path).await?;
    let client = node.client().await?;
    install::foundation(&client).await?;
    let store = plane::init(&folder).await?;
    let uid = install::cluster_uid(&client).await?;
    let token = store.register_cluster(&uid, "default")?.0;
    let kubeconfig = node.kubeconfig_for(NAMESPACE, "mendix-agent").await?;
    let ground = Ground { folder, uid, token, kubeconfig, image: image.by_digest };

    let plane = plane::start(&store).await?;
    let launcher = ground.launcher(&store, plane.address()).await?;
    let agent = launcher.start()?;
    let released = async {
        let draft = manifests::draft(&release(&ground.folder, &ground.image)?)?;
        let release =
            repository::publish(&store, draft, None, repository::Expiry::default()).await?;
        store.push_release(&release.release_id, None)?;
        let components: Api<ManagedComponent> = Api::namespaced(client, NAMESPACE);
        eventually(RELEASE, "the first release is committed", async || {
            let components = components.list(&ListParams::default()).await.ok()?.items;
            let has_come = |component: &ManagedComponent| {
                component.status.as_ref().is_some_and(|status| status.version.is_some())
            };
            let come = components.iter().filter(|component| has_come(component)).count();
            (come == COMPONENTS.len()).then_some(())
        })
        .await?;
        Ok(())
    };
    launcher.explained(released.await)?;
    agent.kill().await?;
    plane.shutdown().await?;
    Ok(ground)
}

/// The demo's good release, without the custom resource whose controller says nothing: its gate waits
/// for the whole timeout.
fn release(folder: &Path, image: &str) -> Result<ReleaseSpec> {
    let mut components = vec![];
    for (component, files) in [
        ("mendix-operator", &["access.yaml", "operator.yaml"][..]),
        ("mendix-monitoring", &["monitoring.yaml"]),
    ] {
        let dir = folder.join("release").join(component);
        place(&dir, component, files, image, &|_, text| text)?;
        if component == "mendix-monitoring" {
            fs::write(dir.join("bulk.yaml"), BULK.replace("@BUSYBOX@", image))
                .context("write a manifest")?;
        }
        components.push(ComponentSpec::new(component, "1.0.0", dir));
    }
    Ok(ReleaseSpec {
        gates: Gates { timeout_seconds: 300, soak_seconds: 0 },
        components,
        ..ReleaseSpec::new("2026.11.1", ReleaseClass::Critical)
    })
}

/// Writes files of a component of the demo's good release, each changed in some way.
fn place(
    dir: &Path,
    component: &str,
    files: &[&str],
    image: &str,
    change: &dyn Fn(&str, String) -> String,
) -> Result<()> {
    let source = workspace().join("tests/e2e/releases/good").join(component);
    fs::create_dir_all(dir).context("make a component's folder")?;
    for file in files {
        let path = source.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let text = change(file, text.replace("@BUSYBOX@", image));
        fs::write(dir.join(file), text).context("write a manifest")?;
    }
    Ok(())
}
