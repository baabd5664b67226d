//! Where the audit log is kept: ConfigMaps of the agent's namespace. Thin: what is to be written is
//! decided by `mendix_agent_core::audit::log`.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use mendix_agent_core::{
    audit::{
        Hash,
        log::{self, Append, Log, Segment},
    },
    ordered,
};

use super::AuditError;
use crate::cluster::{ApiError, FIELD_MANAGER, within};

/// Name of a segment's ConfigMap, without its number.
pub(super) const PREFIX: &str = "audit-";
/// Digits of the number in the name.
const DIGITS: usize = 6;
/// Entry with the records.
const RECORDS: &str = "records";
/// Entry with the hash of the last record.
const CHAIN: &str = "chain";
/// Segments in a page of a list: about 1 MiB.
const PAGE: u32 = 4;
/// Longest wait for one call. A snapshot that may begin waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// The newest ConfigMap as it was last read or written.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    number: u32,
    resource_version: String,
}

/// What became of a write.
pub(super) enum Written {
    /// It is stored.
    Stored(Newest),
    /// Somebody else was faster; nothing is stored.
    Conflict,
}

#[derive(Clone)]
pub(super) struct Store {
    api: Api<ConfigMap>,
}

/// Name of a segment's ConfigMap.
fn name(number: u32) -> String {
    format!("{PREFIX}{number:0DIGITS$}")
}

/// The segment in a ConfigMap; none for ConfigMaps that are something else.
pub(super) fn segment(map: ConfigMap) -> Option<Segment> {
    let number = map.metadata.name?.strip_prefix(PREFIX)?.parse().ok()?;
    let mut data = map.data.unwrap_or_default();
    let mut entry = |key| data.remove(key).unwrap_or_default();
    Some(Segment { number, records: entry(RECORDS), chain: entry(CHAIN) })
}

async fn call<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    within(DEADLINE, what, call).await
}

/// All segments that an API has, oldest first, each handed to `take` as its page arrives.
pub(super) async fn read_all(
    api: &Api<ConfigMap>,
    mut take: impl FnMut(Segment, String) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        // The API server lists by name, and names have digits enough to sort by number.
        let page = call("list ConfigMaps audit-…", api.list(&params)).await?;
        for map in page.items {
            let version = map.metadata.resource_version.clone().unwrap_or_default();
            if let Some(segment) = segment(map) {
                take(segment, version)?;
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

impl Store {
    pub(super) fn new(api: Api<ConfigMap>) -> Self {
        Self { api }
    }

    pub(super) async fn load(&self, cluster: &str) -> Result<(Log, Option<Newest>), AuditError> {
        let mut log = Log::empty(cluster);
        let mut newest = None;
        read_all(&self.api, |segment, resource_version| {
            newest = Some(Newest { number: segment.number, resource_version });
            log.read(segment).map_err(AuditError::Damaged)
        })
        .await?;
        log.check_tail().map_err(AuditError::Damaged)?;
        Ok((log, newest))
    }

    /// Hash of a record of an older segment; none when it is not there.
    pub(super) async fn hash_in(
        &self,
        number: u32,
        sequence: u64,
    ) -> Result<Option<Hash>, AuditError> {
        let map = call("get ConfigMap audit-…", self.api.get_opt(&name(number))).await?;
        let segment = map.and_then(segment);
        Ok(segment.and_then(|segment| log::find(&segment.records, sequence)))
    }

    pub(super) async fn write(
        &self,
        append: &Append,
        newest: Option<&Newest>,
    ) -> Result<Written, AuditError> {
        if let Some(number) = append.drop {
            self.delete(number).await?;
        }
        let segment = &append.segment;
        let name = name(segment.number);
        let version = newest.filter(|newest| !append.is_new && newest.number == segment.number);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(ordered::map([
                    ("app.kubernetes.io/managed-by".into(), "mendix-agent".into()),
                    ("agent.mendix.com/audit".into(), "segment".into()),
                ])),
                resource_version: version.map(|newest| newest.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(ordered::map([
                (RECORDS.to_owned(), segment.records.clone()),
                (CHAIN.to_owned(), segment.chain.clone()),
            ])),
            ..ConfigMap::default()
        };
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = match append.is_new {
            true => call("create ConfigMap audit-…", self.api.create(&params, &map)).await,
            false => {
                call("replace ConfigMap audit-…", self.api.replace(&name, &params, &map)).await
            }
        };
        match written {
            Ok(map) => Ok(Written::Stored(Newest {
                number: segment.number,
                resource_version: map.metadata.resource_version.unwrap_or_default(),
            })),
            // 404: the newest segment was deleted. What is there now decides.
            Err(error) if error.is(404) || error.is(409) => Ok(Written::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, number: u32) -> Result<(), AuditError> {
        let name = name(number);
        let params = DeleteParams::default();
        match call("delete ConfigMap audit-…", self.api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
