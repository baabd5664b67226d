//! SnapshotService: takes sealed uploads while their ticket is active.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use mendix_agent_core::{
    seal::{ENCAPSULATED_KEY, Header, WRAPPED_KEY},
    transfer::ReceiveError,
};
use mendix_agent_proto::v1::{
    AbortRequest, AbortResponse, BeginRequest, BeginResponse, Chunk, ChunkAck, FinishRequest,
    FinishResponse, QueryRequest, QueryResponse, query_response::State,
    snapshot_service_server::SnapshotService,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Shared,
    peer::authenticate,
    shared::blocking,
    uploads::{PutGuard, Refusal, Upload, ended, find, locked},
};
use crate::{
    snapshots::{UploadRecord, UploadState},
    store::{Store, StoreError, TicketRecord},
};

/// Acknowledgements that may wait for the connection.
const ACK_BACKLOG: usize = 4;
/// Longest wait for an agent to take an acknowledgement.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Longest silence on an open Put: the source may be slow, the agent itself is not.
const CHUNK_DEADLINE: Duration = Duration::from_secs(120);

pub(super) struct Snapshots {
    shared: Arc<Shared>,
}

impl Snapshots {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Status> {
    blocking(move || match work() {
        Ok(value) => Ok(Ok(value)),
        Err(Refusal::Caller(status)) => Ok(Err(status)),
        Err(Refusal::State(error)) => Err(error),
    })
    .await?
}

/// The active ticket of a cluster that carries the grant.
fn active_ticket(
    store: &Store,
    uid: &str,
    ticket_id: &str,
    grant_sha256: &str,
) -> Result<TicketRecord, Refusal> {
    let cluster = store.cluster(uid)?;
    let ticket = cluster.tickets.value.into_iter().find(|ticket| {
        ticket.ticket_id == ticket_id
            && ticket.grant.as_ref().is_some_and(|grant| grant.sha256 == grant_sha256)
    });
    ticket.filter(TicketRecord::is_active).ok_or_else(|| {
        Status::failed_precondition("there is no active ticket with this grant").into()
    })
}

fn receive_status(error: &ReceiveError) -> Status {
    let text = error.to_string();
    match error {
        ReceiveError::Gap { .. } | ReceiveError::Overlap { .. } => Status::out_of_range(text),
        ReceiveError::ChunkSize { .. } => Status::invalid_argument(text),
        ReceiveError::Checksum { .. } | ReceiveError::Totals { .. } => Status::data_loss(text),
        ReceiveError::OverLimit { .. } => Status::resource_exhausted(text),
    }
}

fn begin(shared: &Shared, uid: &str, request: &BeginRequest) -> Result<u64, Refusal> {
    let store = &shared.store;
    let invalid = |reason: &str| Refusal::Caller(Status::invalid_argument(reason));
    let header = Header::parse(&request.header)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if header.cluster_uid() != uid {
        return Err(invalid("the header names another cluster than the certificate"));
    }
    if header.snapshot_id() != request.snapshot_id
        || header.ticket_id() != request.ticket_id
        || header.grant_sha256().as_slice() != request.grant_sha256
    {
        return Err(invalid("the header names another snapshot, ticket or grant than the request"));
    }
    let id = &request.snapshot_id;
    crate::store::check_id("snapshot", id)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let grant = hex::encode(header.grant_sha256());
    let ticket = active_ticket(store, uid, &request.ticket_id, &grant)?;
    let record = match store.find_upload(id)? {
        None => {
            let (recipient, budget) =
                ticket.grant.map(|grant| (grant.recipient, grant.budget_bytes)).unwrap_or_default();
            let limit = shared.options.max_snapshot.min(budget);
            let record = UploadRecord::new(&header, recipient, limit);
            store.write_upload(&record)?;
            record
        }
        Some(record) => record,
    };
    if record.header_bytes() != request.header {
        return Err(invalid("an upload of this id was begun with another header"));
    }
    match &record.state {
        UploadState::Finished { .. } => {
            Err(Status::already_exists(format!("snapshot {id} is finished")).into())
        }
        UploadState::Aborted { .. } => Err(ended(&record)),
        UploadState::Receiving => {
            let upload = shared.uploads.get(store, uid, id)?;
            upload.touch();
            Ok(locked(&upload.writer).receiver.next_offset())
        }
    }
}

/// Stores one chunk; what is returned is durable.
fn put(shared: &Shared, uid: &str, upload: &Upload, chunk: &Chunk) -> Result<u64, Refusal> {
    let record = &upload.record;
    if let Err(refusal) = active_ticket(&shared.store, uid, &record.ticket_id, &record.grant_sha256)
    {
        if matches!(refusal, Refusal::Caller(_)) {
            shared.uploads.abort(&shared.store, record.clone(), "TicketInactive")?;
        }
        return Err(refusal);
    }
    let mut writer = locked(&upload.writer);
    // Another call may have ended it while this one waited.
    match find(&shared.store, &record.snapshot_id)? {
        Some(current) if current.state == UploadState::Receiving => {}
        _ => return Err(ended(record)),
    }
    let mut next = writer.receiver.clone();
    next.accept(chunk.offset, &chunk.data, &chunk.sha256).map_err(|e| receive_status(&e))?;
    writer.append(next, &chunk.data, &chunk.sha256).map_err(|source| StoreError::File {
        action: "append to",
        path: record.snapshot_id.clone().into(),
        source,
    })?;
    shared.count.snapshot_bytes.fetch_add(chunk.data.len() as u64, Relaxed);
    upload.touch();
    Ok(writer.receiver.next_offset())
}

fn finish(shared: &Shared, uid: &str, request: &FinishRequest) -> Result<(), Refusal> {
    let id = &request.snapshot_id;
    let store = &shared.store;
    if request.encapsulated_key.len() != ENCAPSULATED_KEY
        || request.wrapped_key.len() != WRAPPED_KEY
    {
        return Err(Status::invalid_argument("the wrapped key has 32 and 48 bytes").into());
    }
    let wanted = |record: &UploadRecord| match &record.state {
        UploadState::Finished { size, sha256, encapsulated_key, wrapped_key, .. } => {
            *size == request.total_size
                && *sha256 == hex::encode(&request.sha256)
                && *encapsulated_key == BASE64_STANDARD.encode(&request.encapsulated_key)
                && *wrapped_key == BASE64_STANDARD.encode(&request.wrapped_key)
        }
        _ => false,
    };
    if find(store, id)?.is_some_and(|record| record.cluster_uid == uid && wanted(&record)) {
        return Ok(());
    }
    let upload = shared.uploads.get(store, uid, id)?;
    let mut record = upload.record.clone();
    active_ticket(store, uid, &record.ticket_id, &record.grant_sha256)?;
    {
        let writer = locked(&upload.writer);
        match find(store, id)? {
            Some(current) if current.state == UploadState::Receiving => {}
            _ => return Err(ended(&record)),
        }
        let totals = writer
            .receiver
            .finish(request.total_size, &request.sha256)
            .map_err(|error| receive_status(&error))?;
        record.state = UploadState::Finished {
            at: Timestamp::now(),
            size: totals.size,
            sha256: hex::encode(totals.sha256),
            encapsulated_key: BASE64_STANDARD.encode(&request.encapsulated_key),
            wrapped_key: BASE64_STANDARD.encode(&request.wrapped_key),
        };
        store.write_upload(&record)?;
    }
    shared.uploads.close(id);
    Ok(())
}

fn abort(shared: &Shared, uid: &str, request: &AbortRequest) -> Result<(), Refusal> {
    let record = find(&shared.store, &request.snapshot_id)?;
    match record.filter(|record| record.cluster_uid == uid) {
        Some(record) => match record.state {
            UploadState::Receiving => {
                Ok(shared.uploads.abort(&shared.store, record, &request.reason)?)
            }
            UploadState::Aborted { .. } => Ok(()),
            UploadState::Finished { .. } => Err(ended(&record)),
        },
        // Its Begin may have been lost: there is nothing to discard.
        None => Ok(()),
    }
}

fn query(shared: &Shared, uid: &str, id: &str) -> Result<QueryResponse, Refusal> {
    let record = find(&shared.store, id)?.filter(|record| record.cluster_uid == uid);
    let (state, next_offset) = match record.map(|record| record.state) {
        None => (State::Unknown, 0),
        Some(UploadState::Aborted { .. }) => (State::Aborted, 0),
        Some(UploadState::Finished { size, .. }) => (State::Finished, size),
        Some(UploadState::Receiving) => {
            let upload = shared.uploads.get(&shared.store, uid, id)?;
            let next_offset = locked(&upload.writer).receiver.next_offset();
            (State::Receiving, next_offset)
        }
    };
    Ok(QueryResponse { state: state.into(), next_offset })
}

async fn receive(
    shared: &Arc<Shared>,
    uid: &str,
    chunks: &mut Streaming<Chunk>,
    acks: &mpsc::Sender<Result<ChunkAck, Status>>,
) -> Result<(), Status> {
    let mut open: Option<PutGuard> = None;
    loop {
        let chunk = timeout(CHUNK_DEADLINE, chunks.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no chunk came"))??;
        let Some(chunk) = chunk else { return Ok(()) };
        let upload = match &open {
            Some(guard) if guard.upload().record.snapshot_id == chunk.snapshot_id => {
                guard.upload().clone()
            }
            Some(_) => return Err(Status::invalid_argument("a second snapshot in one Put")),
            None => {
                let (worker, uid, id) = (shared.clone(), uid.to_owned(), chunk.snapshot_id.clone());
                let upload = work(move || worker.uploads.get(&worker.store, &uid, &id)).await?;
                open = Some(PutGuard::new(upload.clone()));
                upload
            }
        };
        let (worker, uid) = (shared.clone(), uid.to_owned());
        let next_offset = work(move || put(&worker, &uid, &upload, &chunk)).await?;
        match timeout(SEND_DEADLINE, acks.send(Ok(ChunkAck { next_offset }))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Status::deadline_exceeded("the agent does not read")),
        }
    }
}

#[tonic::async_trait]
impl SnapshotService for Snapshots {
    type PutStream = ReceiverStream<Result<ChunkAck, Status>>;

    async fn begin(
        &self,
        request: Request<BeginRequest>,
    ) -> Result<Response<BeginResponse>, Status> {
        self.shared.count.snapshot_begins.fetch_add(1, Relaxed);
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let (shared, request) = (self.shared.clone(), request.into_inner());
        let next_offset = work(move || begin(&shared, peer.uid(), &request)).await?;
        Ok(Response::new(BeginResponse { next_offset }))
    }

    async fn put(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let mut chunks = request.into_inner();
        let (acks, receiver) = mpsc::channel(ACK_BACKLOG);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            if let Err(status) = receive(&shared, peer.uid(), &mut chunks, &acks).await {
                let _ = timeout(SEND_DEADLINE, acks.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn finish(
        &self,
        request: Request<FinishRequest>,
    ) -> Result<Response<FinishResponse>, Status> {
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let (shared, request) = (self.shared.clone(), request.into_inner());
        work(move || finish(&shared, peer.uid(), &request)).await?;
        Ok(Response::new(FinishResponse {}))
    }

    async fn abort(
        &self,
        request: Request<AbortRequest>,
    ) -> Result<Response<AbortResponse>, Status> {
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let (shared, request) = (self.shared.clone(), request.into_inner());
        work(move || abort(&shared, peer.uid(), &request)).await?;
        Ok(Response::new(AbortResponse {}))
    }

    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<QueryResponse>, Status> {
        let peer = authenticate(&self.shared, request.extensions()).await?.present()?;
        let (shared, request) = (self.shared.clone(), request.into_inner());
        let response = work(move || query(&shared, peer.uid(), &request.snapshot_id)).await?;
        Ok(Response::new(response))
    }
}
