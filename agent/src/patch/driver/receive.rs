//! Fetches what the index of a release names, and stores it once it is verified.

use mendix_agent_core::bundle::run::Event;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        contents::sha256_hex,
        failure::{CallError, StepError, patiently, pauses},
        report::cut,
        stored::{self, StoredError},
        supply::{Supply, SupplyError},
    },
    Done, Driver, LONGEST_NAP,
};
use crate::crd::patch_bundle::PatchBundle;

impl Driver {
    pub(super) async fn receive(
        &self,
        bundle: &PatchBundle,
        supply: &dyn Supply,
        paused: &(dyn Fn(Option<&CallError>) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Done, StepError> {
        let index = self.index(bundle, paused, cancel).await?;
        let mut blobs = vec![];
        for entry in &index.components {
            let stored = patiently(cancel, paused, || async {
                self.contents.contains(&entry.blob.sha256).await
            });
            if !stored.await? {
                let fetched = self
                    .supplied(bundle, cancel, || async { supply.fetch(&entry.blob.target).await })
                    .await?;
                let authentic = match fetched {
                    Ok(authentic) => authentic,
                    Err(error) => {
                        let why = format!("NotAuthentic: {}: {error}", entry.name);
                        return Ok(Done::refused(vec![why]));
                    }
                };
                // The signed index names the blob by digest; TUF names it by target. Both have to
                // say the same.
                if sha256_hex(authentic.bytes()) != entry.blob.sha256 {
                    let why = format!("OtherBlob: {}: its digest is not the index's", entry.name);
                    return Ok(Done::refused(vec![why]));
                }
                patiently(cancel, paused, || async { self.contents.put(authentic.bytes()).await })
                    .await?;
            }
            blobs.push(entry.blob.sha256.clone());
        }
        for entry in &index.components {
            let parsed = patiently(cancel, paused, || async {
                match stored::objects(&self.contents, entry).await {
                    Ok(_) => Ok(Ok(())),
                    Err(StoredError::Call(error)) => Err(error),
                    Err(StoredError::Unusable(why)) => Ok(Err(why)),
                }
            });
            if let Err(why) = parsed.await? {
                return Ok(Done::refused(vec![format!("BadBlob: {}: {why}", entry.name)]));
            }
        }
        let mut done = Done::on(Event::Received);
        done.note.blobs = Some(blobs);
        Ok(done)
    }

    /// Waits out failures of the supply that pass by themselves.
    pub(super) async fn supplied<T, F>(
        &self,
        bundle: &PatchBundle,
        cancel: &CancellationToken,
        mut call: impl FnMut() -> F,
    ) -> Result<Result<T, SupplyError>, StepError>
    where
        F: Future<Output = Result<T, SupplyError>>,
    {
        let mut pauses = pauses();
        loop {
            let result = tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                result = call() => result,
            };
            match result {
                Err(error) if error.is_transient => {
                    tracing::warn!(%error, "the release repository is waited for");
                    self.reporter.run(bundle, Some(cut(&format!("waits: {error}"))));
                }
                result => return Ok(result),
            }
            let pause = pauses.next().unwrap_or(LONGEST_NAP);
            tokio::select! {
                () = cancel.cancelled() => return Err(StepError::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
