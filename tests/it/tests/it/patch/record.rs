//! The record of a component on a real API server, as large as admission lets it become: it is written when
//! the run has committed, and what admission says can't be mended then.

use mendix_agent::{
    crd::managed_component::{ManagedComponent, OwnedObject},
    patch::{
        failure::{CallError, StepError, patiently},
        records::Records,
    },
};
use mendix_agent_core::bundle::{
    admission::recorded_bytes,
    limits::Limits,
    object::{IdFields, ObjectId},
};
use tokio_util::sync::CancellationToken;

use super::world::{COMPONENT, World};

/// An object with a name as long as names get.
fn id(n: usize) -> ObjectId {
    ObjectId::from(IdFields {
        group: "rbac.authorization.k8s.io".into(),
        version: "v1".into(),
        kind: "RoleBinding".into(),
        namespace: Some("mendix-monitoring".into()),
        name: format!("{n:0253}"),
    })
}

/// Writes a record that names so many of them.
async fn record(records: &Records, objects: usize) -> Result<ManagedComponent, CallError> {
    let uid = "6e7a9c3e-1f0b-4f2e-9a59-3f6a2f9d7c11".to_owned();
    let hash = "0123456789abcdef".to_owned();
    let inventory: Vec<OwnedObject> = (0..objects)
        .map(|n| OwnedObject::new(&id(n), Some(uid.clone()), Some(hash.clone())))
        .collect();
    let cancel = CancellationToken::new();
    let written = patiently(&cancel, &|_| {}, || {
        records.update_component(COMPONENT, |mut status| {
            status.inventory.clone_from(&inventory);
            Some(status)
        })
    });
    match written.await {
        Ok(component) => Ok(component),
        Err(StepError::Call(error)) => Err(error),
        Err(StepError::Stopped) => panic!("nobody stopped it"),
    }
}

#[tokio::test]
async fn the_largest_record_that_admission_allows_is_taken_and_one_over_the_servers_limit_is_not() {
    let world = World::new().await;
    let records = Records::new(&world.cluster);
    let most = Limits::BUILT_IN.record / recorded_bytes(&id(0));
    let written = record(&records, most).await.unwrap();
    assert_eq!(written.status.unwrap().inventory.len(), most);

    // What the limit is for: a fourth more is more than etcd takes.
    let error = record(&records, most * 5 / 4).await.unwrap_err();
    assert!(error.line().contains("too large"), "{}", error.line());
    let kept = records.component(COMPONENT).await.unwrap().unwrap().status.unwrap();
    assert_eq!(kept.inventory.len(), most, "the record is as it was");
}
