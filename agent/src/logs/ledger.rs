//! Where the ledger is kept: one Secret of the agent's namespace, written by compare-and-swap, and only
//! while no later leader has written it.

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use mendix_agent_core::{
    consent::{Refusal, grant::Grant, ledger::Ledger},
    ordered,
};

use crate::{
    cluster::{Cluster, FIELD_MANAGER, call},
    errors::describe,
    term::Term,
};

/// Name of the Secret.
pub(super) const NAME: &str = "mendix-agent-consent-ledger";
const KEY: &str = "ledger.json";
/// Writers that may get in between before a spend is given up.
const ATTEMPTS: usize = 5;

/// The stored ledger; cheap to clone.
#[derive(Clone)]
pub(super) struct LedgerStore {
    api: Api<Secret>,
    term: Term,
}

fn unavailable(what: impl Into<String>) -> Refusal {
    Refusal::LedgerUnavailable { what: what.into() }
}

impl LedgerStore {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { api: cluster.own(), term: cluster.term().clone() }
    }

    /// What is stored; an absent Secret is an empty ledger, a damaged one refuses.
    pub(super) async fn read(&self) -> Result<Ledger, Refusal> {
        self.load().await.map(|(ledger, _)| ledger)
    }

    async fn load(&self) -> Result<(Ledger, Option<Secret>), Refusal> {
        let secret = call("get the ledger", self.api.get_opt(NAME)).await;
        let secret = secret.map_err(|error| unavailable(describe(&error)))?;
        let Some(secret) = secret else { return Ok((Ledger::default(), None)) };
        let bytes = secret
            .data
            .as_ref()
            .and_then(|data| data.get(KEY))
            .ok_or_else(|| unavailable(format!("Secret {NAME} has no key {KEY}")))?;
        let ledger = Ledger::parse(&bytes.0).map_err(|error| unavailable(describe(&error)))?;
        Ok((ledger, Some(secret)))
    }

    /// Changes it: read, change, write back against the version that was read. What `change` refuses
    /// is not written.
    pub(super) async fn update<T>(
        &self,
        change: impl Fn(&mut Ledger) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        for _ in 0..ATTEMPTS {
            let (before, secret) = self.load().await?;
            let mut ledger = before.clone();
            let result = change(&mut ledger)?;
            if ledger == before && secret.is_some() {
                return Ok(result);
            }
            if let Some(secret) = &secret {
                let check = self.term.check(&secret.metadata);
                check.map_err(|error| unavailable(describe(&error)))?;
            }
            if self.write(&ledger, secret).await? {
                return Ok(result);
            }
        }
        Err(unavailable("other writers kept changing it"))
    }

    /// False when somebody else was faster.
    async fn write(&self, ledger: &Ledger, secret: Option<Secret>) -> Result<bool, Refusal> {
        let data = ordered::map([(KEY.to_owned(), ByteString(ledger.to_bytes()))]);
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = async {
            match secret {
                // The Secret as it was read, resourceVersion included.
                Some(mut secret) => {
                    secret.data = Some(data);
                    self.term.stamp(&mut secret.metadata);
                    self.api.replace(NAME, &params, &secret).await
                }
                None => {
                    let mut metadata = ObjectMeta { name: Some(NAME.into()), ..Default::default() };
                    self.term.stamp(&mut metadata);
                    let secret = Secret { metadata, data: Some(data), ..Default::default() };
                    self.api.create(&params, &secret).await
                }
            }
        };
        match call("write the ledger", written).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(409) => Ok(false),
            Err(error) => Err(unavailable(describe(&error))),
        }
    }
}

/// The bytes of one snapshot's grant: reserved in the ledger before they are sent.
pub(super) struct Budget {
    store: LedgerStore,
    grant: Grant,
    left: u64,
    allowance: u64,
}

impl Budget {
    /// Spends one snapshot of the grant.
    pub(super) async fn begin(store: &LedgerStore, grant: &Grant) -> Result<Self, Refusal> {
        let begin = |ledger: &mut Ledger| {
            let left = ledger.begin(grant, Timestamp::now())?;
            let spent = ledger.entry(&grant.grant_id).map_or(0, |entry| entry.bytes);
            Ok((left, left + grant.budget.bytes.saturating_sub(spent)))
        };
        let (left, allowance) = store.update(begin).await?;
        Ok(Self { store: store.clone(), grant: grant.clone(), left, allowance })
    }

    /// Bytes that the grant allowed when this snapshot began. Other replicas may spend of them: what
    /// counts is [`Budget::spend`].
    pub(super) fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Spends bytes that are about to be sent.
    pub(super) async fn spend(&mut self, bytes: u64) -> Result<(), Refusal> {
        while self.left < bytes {
            let grant = &self.grant;
            self.left +=
                self.store.update(|ledger| ledger.reserve(grant, Timestamp::now())).await?;
        }
        self.left -= bytes;
        Ok(())
    }

    /// Gives back what was reserved and not sent. When that fails the budget is lost, not gained.
    pub(super) async fn close(self) {
        let (id, left) = (&self.grant.grant_id, self.left);
        let result = self.store.update(|ledger| {
            ledger.give_back(id, left);
            Ok(())
        });
        if let Err(refusal) = result.await {
            tracing::warn!(left, reason = %refusal, "could not give back unspent budget");
        }
    }
}
