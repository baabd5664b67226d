//! The store against an API server that knows ConfigMaps, compares resource versions as the real one
//! does, and fails on demand.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::{Client, client::Body};
use mendix_agent_core::audit::{log::MAX_SEGMENTS, verify::verify};
use serde_json::{Value, json};

use super::*;

const CLUSTER: &str = "c-1";

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is refused.
    Refused,
    /// It is stored, and the answer says that it was not.
    AnswerLost,
}

/// The API server's content.
#[derive(Default)]
pub(crate) struct Shelf {
    maps: BTreeMap<String, Value>,
    version: u64,
    trouble: Option<Trouble>,
    writes: usize,
}

impl Shelf {
    fn segments(&self) -> Vec<mendix_agent_core::audit::log::Segment> {
        let maps = self.maps.values().map(|map| serde_json::from_value(map.clone()).unwrap());
        maps.filter_map(store::segment).collect()
    }

    /// All that is stored, verified, as kinds of events.
    fn kinds(&self) -> Vec<String> {
        let verdict = verify(self.segments(), Some(CLUSTER), &[]);
        assert!(verdict.is_sound(), "{verdict:?}");
        let segments = self.segments();
        let lines = segments.iter().flat_map(|segment| segment.records.lines());
        lines
            .map(|line| {
                let record = mendix_agent_core::audit::Record::parse(line).unwrap();
                record.event["kind"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let failure = |code: u16, reason: &str| {
            let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": reason, "reason": reason, "code": code });
            (StatusCode::from_u16(code).unwrap(), body)
        };
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if method == Method::GET {
            return match self.maps.get(&name) {
                Some(map) => (StatusCode::OK, map.clone()),
                None if name == "configmaps" => {
                    let items: Vec<_> = self.maps.values().collect();
                    let list = json!({ "kind": "ConfigMapList", "apiVersion": "v1",
                        "metadata": {}, "items": items });
                    (StatusCode::OK, list)
                }
                None => failure(404, "NotFound"),
            };
        }
        if self.trouble == Some(Trouble::Refused) {
            return failure(403, "Forbidden");
        }
        let done = match *method {
            Method::DELETE => self.maps.remove(&name).ok_or((404, "NotFound")),
            Method::POST | Method::PUT => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let stored = self.maps.get(&name).map(|m| &m["metadata"]["resourceVersion"]);
                let fits = match *method {
                    Method::POST => stored.is_none(),
                    _ => stored == Some(&body["metadata"]["resourceVersion"]),
                };
                if fits {
                    self.version += 1;
                    let mut map = body;
                    map["metadata"]["resourceVersion"] = self.version.to_string().into();
                    self.maps.insert(name, map.clone());
                    Ok(map)
                } else {
                    Err((409, "Conflict"))
                }
            }
            _ => Err((405, "MethodNotAllowed")),
        };
        self.writes += 1;
        match done {
            Ok(_) if self.trouble == Some(Trouble::AnswerLost) => failure(500, "InternalError"),
            Ok(map) => (StatusCode::OK, map),
            Err((code, reason)) => failure(code, reason),
        }
    }
}

pub(crate) type Shared = Arc<Mutex<Shelf>>;

/// A log as a freshly started process has it, and where it tells its end.
pub(crate) fn audit(shelf: &Shared) -> (Audit, watch::Receiver<Option<v1::AuditCheckpoint>>) {
    let shelf = shelf.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let shelf = shelf.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) =
                shelf.lock().unwrap().answer(&parts.method, parts.uri.path(), body);
            let response = Response::builder()
                .status(code)
                .header("content-type", "application/json")
                .body(Full::new(bytes::Bytes::from(answer.to_string())))
                .unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    // A client starts a task: where there is no runtime nothing is asked of it.
    let runtime = match tokio::runtime::Handle::try_current() {
        Ok(_) => None,
        Err(_) => Some(tokio::runtime::Builder::new_current_thread().build().unwrap()),
    };
    let _entered = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    let api = Api::namespaced(Client::new(service, "agent"), "agent");
    let (checkpoints, told) = watch::channel(None);
    (Audit::over(api, CLUSTER, checkpoints), told)
}

fn refused(n: usize) -> Event {
    Event::SnapshotRefused {
        request: format!("req-{n}"),
        ticket: "MX-1".into(),
        reason: "NoGrant".into(),
    }
}

/// About a twentieth of a segment.
fn large() -> Event {
    Event::Drift {
        object: "ConfigMap a/b".into(),
        fields: vec!["x".repeat(200); 60],
        claimed_by: "somebody".into(),
        times: 1,
    }
}

fn set(shelf: &Shared, trouble: Option<Trouble>) {
    shelf.lock().unwrap().trouble = trouble;
}

fn ack(told: &watch::Receiver<Option<v1::AuditCheckpoint>>) -> v1::AuditCheckpointAck {
    let told = told.borrow().clone().unwrap();
    v1::AuditCheckpointAck { sequence: told.sequence, chain_sha256: told.chain_sha256 }
}

#[tokio::test]
async fn a_decision_is_stored_before_it_is_confirmed_and_a_restart_goes_on() {
    let shelf = Shared::default();
    let (first, told) = audit(&shelf);
    assert_eq!(first.record(refused(1)).await.unwrap(), 1);
    assert_eq!(shelf.lock().unwrap().kinds(), ["snapshot-refused"]);
    assert_eq!(told.borrow().as_ref().unwrap().sequence, 1);
    let (second, _) = audit(&shelf);
    assert_eq!(second.record(Event::Deregistered {}).await.unwrap(), 2);
    assert_eq!(shelf.lock().unwrap().kinds(), ["snapshot-refused", "deregistered"]);
}

#[tokio::test]
async fn two_writers_share_one_chain() {
    let shelf = Shared::default();
    let (a, _) = audit(&shelf);
    let (b, _) = audit(&shelf);
    for n in 0..5 {
        a.record(refused(2 * n)).await.unwrap();
        assert_eq!(b.record(refused(2 * n + 1)).await.unwrap(), 2 * n as u64 + 2);
    }
    assert_eq!(shelf.lock().unwrap().kinds().len(), 10);
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_and_what_is_done_anyway_waits() {
    let shelf = Shared::default();
    let (audit, _) = audit(&shelf);
    set(&shelf, Some(Trouble::Refused));
    let error = audit.record(refused(1)).await.unwrap_err();
    assert_eq!(error.refusal().code(), "AuditUnavailable");
    audit.tell(Event::Deregistered {}).await;
    assert_eq!(audit.figures().waiting, 1, "only the one that was carried out anyway");
    for n in 0..MAX_WAITING + 4 {
        audit.note(refused(n));
    }
    assert_eq!(audit.figures().lost, 5);
    set(&shelf, None);
    audit.record(Event::Deregistered {}).await.unwrap();
    let kinds = shelf.lock().unwrap().kinds();
    assert_eq!(kinds.len(), 1 + MAX_WAITING + 1);
    assert_eq!(kinds[0], "lost");
    assert_eq!(audit.figures().waiting, 0);
    audit.record(refused(1)).await.unwrap();
    assert_eq!(shelf.lock().unwrap().kinds().iter().filter(|kind| *kind == "lost").count(), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_leaves_no_fork() {
    let shelf = Shared::default();
    let (audit, _) = audit(&shelf);
    audit.record(refused(1)).await.unwrap();
    set(&shelf, Some(Trouble::AnswerLost));
    audit.record(refused(2)).await.unwrap_err();
    set(&shelf, None);
    // It did arrive: the log goes on behind it.
    assert_eq!(audit.record(refused(3)).await.unwrap(), 3);
    assert_eq!(shelf.lock().unwrap().kinds().len(), 3);
}

#[tokio::test]
async fn a_full_log_refuses_until_the_control_plane_has_its_oldest_part() {
    let shelf = Shared::default();
    let (audit, told) = audit(&shelf);
    let full = loop {
        for _ in 0..20 {
            audit.note(large());
        }
        match audit.record(refused(1)).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full.refusal().code(), "AuditFull");
    let stored = shelf.lock().unwrap().segments();
    assert_eq!(stored.len(), MAX_SEGMENTS);
    let writes = shelf.lock().unwrap().writes;
    assert_eq!(audit.record(refused(2)).await.unwrap_err().refusal().code(), "AuditFull");
    assert_eq!(shelf.lock().unwrap().writes, writes, "nothing is written, nothing dropped");
    audit.held(&ack(&told)).await.unwrap();
    audit.record(refused(3)).await.unwrap();
    let kept = shelf.lock().unwrap().segments();
    assert_eq!(kept.len(), MAX_SEGMENTS);
    assert!(kept[0].number > 1 && verify(kept, Some(CLUSTER), &[]).is_sound());
}

#[tokio::test]
async fn an_acknowledgement_of_another_log_acknowledges_nothing_and_is_written_down() {
    let shelf = Shared::default();
    let (audit, told) = audit(&shelf);
    audit.record(refused(1)).await.unwrap();
    let mut foreign = ack(&told);
    foreign.chain_sha256[0] ^= 1;
    audit.held(&foreign).await.unwrap();
    assert_eq!(audit.figures().acknowledged, 0);
    let named = told.borrow().clone().unwrap();
    assert_eq!((named.after_sequence, named.after_chain_sha256.len()), (1, 32));
    // Cut off: the control plane holds a record that this log does not have.
    let beyond = v1::AuditCheckpointAck { sequence: 9, chain_sha256: vec![1; 32] };
    audit.held(&beyond).await.unwrap();
    let named = told.borrow().clone().unwrap();
    assert_eq!((named.after_sequence, named.after_chain_sha256.len()), (9, 0));
    audit.record(refused(2)).await.unwrap();
    let kinds = shelf.lock().unwrap().kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "checkpoint-mismatch").count(), 2);
    audit.held(&ack(&told)).await.unwrap();
    assert_eq!(audit.figures().acknowledged, 4);
}

#[tokio::test]
async fn a_log_that_was_tampered_with_is_not_continued() {
    let shelf = Shared::default();
    let (first, _) = audit(&shelf);
    first.record(refused(1)).await.unwrap();
    first.record(refused(2)).await.unwrap();
    {
        let mut shelf = shelf.lock().unwrap();
        let map = shelf.maps.get_mut("audit-000001").unwrap();
        let records = map["data"]["records"].as_str().unwrap().replace("req-1", "req-7");
        map["data"]["records"] = records.into();
    }
    let (second, _) = audit(&shelf);
    let error = second.record(refused(3)).await.unwrap_err();
    assert!(matches!(error, AuditError::Damaged(_)), "{error}");
    assert_eq!(error.refusal().code(), "AuditUnavailable");
}
