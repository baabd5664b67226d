//! A release next to the one before it: what it changes, and what agents would refuse of it.

use std::collections::BTreeMap;

use mendix_agent_core::bundle::{foundation::FOUNDATION_COMPONENT, object::Object};

use super::{Draft, RepositoryError, objects};
use crate::{
    manifests::{
        self,
        diff::{self, ComponentDiff},
    },
    store::{ReleaseRecord, Store},
};

/// What a draft changes, component by component, each against the newest release that names it.
///
/// # Errors
/// When an earlier release can't be read.
pub async fn changes(store: &Store, draft: &Draft) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let now = draft.index.components.iter().zip(&draft.components);
    let now = now.map(|(entry, component)| {
        (entry.name.as_str(), entry.version.as_str(), component.objects.as_slice())
    });
    compare(store, now.collect(), u64::MAX).await
}

/// What agents would refuse of the draft's definitions and rights, beside those that the newest release left
/// at them; nothing where the draft has none, or there was none before.
///
/// # Errors
/// When an earlier release can't be read.
pub async fn narrowed(store: &Store, draft: &Draft) -> Result<Vec<String>, RepositoryError> {
    let has = |release: &&ReleaseRecord| {
        release.components.iter().any(|component| component.name == FOUNDATION_COMPONENT)
    };
    let brings = draft.index.components.iter().any(|entry| entry.name == FOUNDATION_COMPONENT);
    let releases = store.releases()?;
    let Some(earlier) = releases.iter().rev().find(has).filter(|_| brings) else {
        return Ok(Vec::new());
    };
    let mut components = objects(store, &earlier.release_id).await?;
    let (_, standing) = components.remove(FOUNDATION_COMPONENT).unwrap_or_default();
    Ok(manifests::rehearse(draft, &standing))
}

/// What a published release changed, as [`changes`] tells it of a draft.
///
/// # Errors
/// When the release is unknown, or one can't be read.
pub async fn changes_of(
    store: &Store,
    release_id: &str,
) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let release = store.release(release_id)?;
    let components = objects(store, release_id).await?;
    let now = components
        .iter()
        .map(|(name, (version, objects))| (name.as_str(), version.as_str(), objects.as_slice()));
    compare(store, now.collect(), release.sequence).await
}

async fn compare(
    store: &Store,
    now: Vec<(&str, &str, &[Object])>,
    below: u64,
) -> Result<Vec<ComponentDiff>, RepositoryError> {
    let earlier: Vec<_> =
        store.releases()?.into_iter().filter(|release| release.sequence < below).collect();
    let mut read: BTreeMap<String, BTreeMap<String, (String, Vec<Object>)>> = BTreeMap::new();
    let mut all = Vec::new();
    for (name, version, objects_now) in now {
        let names = |release: &&ReleaseRecord| release.components.iter().any(|c| c.name == name);
        let against = earlier.iter().rev().find(names).map(|release| release.release_id.clone());
        if let Some(id) = &against
            && !read.contains_key(id)
        {
            read.insert(id.clone(), objects(store, id).await?);
        }
        let before = against.as_ref().and_then(|id| {
            let (version, objects) = read.get(id)?.get(name)?;
            Some((id.as_str(), version.as_str(), objects.as_slice()))
        });
        all.push(diff::compare((name, version), before, objects_now));
    }
    Ok(all)
}
