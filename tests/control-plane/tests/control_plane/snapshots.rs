//! Uploads: stored before they are acknowledged, resumed, refused; and opened by support alone.

use std::fs;

use mendix_agent_core::{
    archive::{EntryPath, Packed, end},
    seal::{self, FileKey, Header, RecipientPublicKey, Sealer, WrappedKey},
    transfer::{OutChunk, Sender, Totals},
};
use mendix_agent_proto::v1::{
    AbortRequest, BeginRequest, Chunk, ChunkAck, FinishRequest, QueryRequest,
    query_response::State, snapshot_service_client::SnapshotServiceClient,
};
use mendix_control_plane::{
    portal::open_ticket,
    snapshots::{OpenError, UploadState, open},
    store::{TicketRecord, TicketStatus},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    client::{Identity, Plane, UID, snapshot, soon},
    sessions::ticket,
};

pub(crate) const ID: &str = "5e3f2c1a-0000-4000-8000-000000000001";

/// A sealed snapshot, as the agent makes it.
pub(crate) struct Sealed {
    header: Header,
    chunks: Vec<OutChunk>,
    totals: Totals,
    key: WrappedKey,
}

impl Sealed {
    fn new(opened: &TicketRecord, id: &str) -> Self {
        // Incompressible, so that there are several segments.
        let mut noise = vec![0; 300_000];
        aws_lc_rs::rand::fill(&mut noise).expect("random");
        Self::of(
            opened,
            id,
            &[
                (EntryPath::events(), noise),
                (EntryPath::errors(), b"{\"what\":\"pod x\"}\n".to_vec()),
                (EntryPath::redaction(), b"{\"counts\":{\"jwt\":3}}".to_vec()),
                (EntryPath::manifest(), b"{\"version\":1}".to_vec()),
            ],
        )
    }

    pub(crate) fn of(opened: &TicketRecord, id: &str, entries: &[(EntryPath, Vec<u8>)]) -> Self {
        let grant = opened.grant.as_ref().expect("a grant");
        let digest: [u8; 32] =
            hex::decode(&grant.sha256).expect("hex").try_into().expect("32 bytes");
        let header = Header::new(UID, &opened.ticket_id, digest, id).expect("a header");
        let mut plain = Vec::new();
        for (path, data) in entries {
            plain.extend(Packed::new(path.clone(), data, 0).expect("packed").bytes);
        }
        plain.extend(end().expect("packed"));

        let key = FileKey::generate().expect("a key");
        let mut segments = Vec::new();
        let mut sealer = Sealer::new(&key, &header).expect("a sealer");
        sealer.push(&plain, &mut segments).expect("sealed");
        segments.push(sealer.finish().expect("sealed"));
        let mut sender = Sender::new();
        let mut chunks = Vec::new();
        for segment in segments {
            let chunk = sender.accept(segment.into()).expect("room");
            sender.acknowledged(sender.sent()).expect("an acknowledgement");
            chunks.push(chunk);
        }
        let recipient = RecipientPublicKey::from_base64(&grant.recipient).expect("a key");
        let wrapped = seal::wrap_key(&key, &header, &recipient).expect("wrapped");
        Self { header, chunks, totals: sender.totals().expect("complete"), key: wrapped }
    }

    fn begin(&self) -> BeginRequest {
        BeginRequest {
            snapshot_id: self.header.snapshot_id().into(),
            ticket_id: self.header.ticket_id().into(),
            header: self.header.to_bytes(),
            grant_sha256: self.header.grant_sha256().to_vec(),
        }
    }

    fn chunk(&self, number: usize) -> Chunk {
        let chunk = &self.chunks[number];
        Chunk {
            snapshot_id: self.header.snapshot_id().into(),
            offset: chunk.offset,
            data: chunk.data.clone(),
            sha256: chunk.sha256.to_vec(),
        }
    }

    fn finish(&self) -> FinishRequest {
        FinishRequest {
            snapshot_id: self.header.snapshot_id().into(),
            total_size: self.totals.size,
            sha256: self.totals.sha256.to_vec(),
            encapsulated_key: self.key.encapsulated_key.clone(),
            wrapped_key: self.key.wrapped_key.clone(),
        }
    }
}

/// Uploads a whole snapshot.
pub(crate) async fn upload(plane: &Plane, agent: &Identity, sealed: &Sealed) {
    let mut client = snapshot(agent.connect(plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut put = Put::open(&mut client).await;
    for number in 0..sealed.chunks.len() {
        put.send(sealed.chunk(number)).await.expect("stored");
    }
    soon(client.finish(sealed.finish())).await.expect("finish");
}

/// An open Put.
struct Put {
    up: mpsc::Sender<Chunk>,
    acks: Streaming<ChunkAck>,
}

impl Put {
    async fn open(client: &mut SnapshotServiceClient<Channel>) -> Self {
        let (up, receiver) = mpsc::channel(4);
        let acks = soon(client.put(ReceiverStream::new(receiver))).await.expect("a stream");
        Self { up, acks: acks.into_inner() }
    }

    async fn send(&mut self, chunk: Chunk) -> Result<u64, Status> {
        // A Put that was refused takes no more; its status says why.
        let _ = self.up.send(chunk).await;
        let ack = soon(self.acks.message()).await?;
        Ok(ack.expect("an acknowledgement").next_offset)
    }
}

async fn put_one(client: &mut SnapshotServiceClient<Channel>, chunk: Chunk) -> Result<u64, Status> {
    Put::open(client).await.send(chunk).await
}

async fn scene() -> (Plane, Identity, TicketRecord, Sealed) {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let (opened, _) = open_ticket(plane.store(), ticket(true)).expect("open");
    let sealed = Sealed::new(&opened, ID);
    assert!(sealed.chunks.len() > 3);
    (plane, agent, opened, sealed)
}

async fn query(client: &mut SnapshotServiceClient<Channel>) -> (State, u64) {
    let request = QueryRequest { snapshot_id: ID.into() };
    let response = soon(client.query(request)).await.expect("query").into_inner();
    (response.state(), response.next_offset)
}

fn no_bytes_left(plane: &Plane) -> bool {
    !plane.state().join("snapshots").join(ID).join("sealed").exists()
}

#[tokio::test]
async fn a_snapshot_survives_a_crash_and_is_opened_with_the_tickets_key() {
    let (mut plane, agent, opened, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    assert_eq!(query(&mut client).await.0, State::Unknown);
    let begun = soon(client.begin(sealed.begin())).await.expect("begin").into_inner();
    assert_eq!(begun.next_offset, 0);
    let mut put = Put::open(&mut client).await;
    for number in 0..2 {
        let next = put.send(sealed.chunk(number)).await.expect("stored");
        assert_eq!(next, sealed.chunks[number + 1].offset);
    }

    plane.crash_and_restart().await;
    // The crash cut a third chunk off in the middle.
    let file = plane.state().join("snapshots").join(ID).join("sealed");
    let mut bytes = fs::read(&file).expect("the stream");
    let whole = bytes.len();
    bytes.extend_from_slice(&bytes.clone()[..1000]);
    fs::write(&file, bytes).expect("written");
    let mut client = snapshot(agent.connect(&plane).await);
    let begun = soon(client.begin(sealed.begin())).await.expect("begin again").into_inner();
    assert_eq!(begun.next_offset, sealed.chunks[2].offset);
    assert_eq!(fs::metadata(&file).expect("the stream").len(), whole as u64);
    assert_eq!(query(&mut client).await, (State::Receiving, sealed.chunks[2].offset));
    let mut put = Put::open(&mut client).await;
    for number in 2..sealed.chunks.len() {
        put.send(sealed.chunk(number)).await.expect("stored");
    }
    soon(client.finish(sealed.finish())).await.expect("finish");
    soon(client.finish(sealed.finish())).await.expect("finish again");
    assert_eq!(query(&mut client).await, (State::Finished, sealed.totals.size));
    let refused = soon(client.begin(sealed.begin())).await.expect_err("finished");
    assert_eq!(refused.code(), Code::AlreadyExists);

    // Opening needs no server, and an active ticket no longer.
    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    let out = plane.dir.path().join("opened");
    let summary = open(plane.store(), ID, &out).expect("opened");
    let files: Vec<_> = summary.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(files[0], ("events.jsonl", 300_000));
    assert_eq!(files.len(), 4);
    assert_eq!(summary.sealed_sha256, hex::encode(sealed.totals.sha256));
    assert_eq!(summary.redaction.as_ref().expect("counts")["counts"]["jwt"], 3);
    assert_eq!(summary.errors.len(), 1);
    assert_eq!(fs::metadata(out.join("events.jsonl")).expect("a file").len(), 300_000);
    open(plane.store(), ID, &out).expect_err("the folder exists");
}

#[tokio::test]
async fn chunks_that_do_not_fit_are_refused_and_nothing_of_them_is_stored() {
    let (plane, agent, _, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    let refused = put_one(&mut client, sealed.chunk(0)).await.expect_err("not begun");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    soon(client.begin(sealed.begin())).await.expect("begin");
    put_one(&mut client, sealed.chunk(0)).await.expect("stored");
    let second = sealed.chunks[1].offset;

    let gap = sealed.chunk(2);
    let overlap = sealed.chunk(0);
    let altered = Chunk { sha256: vec![0; 32], ..sealed.chunk(1) };
    let empty = Chunk { data: bytes::Bytes::new(), ..sealed.chunk(1) };
    for (what, chunk, code) in [
        ("gap", gap, Code::OutOfRange),
        ("overlap", overlap, Code::OutOfRange),
        ("checksum", altered, Code::DataLoss),
        ("empty", empty, Code::InvalidArgument),
    ] {
        let refused = put_one(&mut client, chunk).await.expect_err(what);
        assert_eq!(refused.code(), code, "{what}");
        assert_eq!(query(&mut client).await, (State::Receiving, second), "{what}");
    }
    assert_eq!(plane.running().counters().snapshot_bytes, second);
}

#[tokio::test]
async fn an_end_that_does_not_match_is_no_end() {
    let (plane, agent, _, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut put = Put::open(&mut client).await;
    for number in 0..sealed.chunks.len() - 1 {
        put.send(sealed.chunk(number)).await.expect("stored");
    }
    let refused = soon(client.finish(sealed.finish())).await.expect_err("cut short");
    assert_eq!(refused.code(), Code::DataLoss);
    put.send(sealed.chunk(sealed.chunks.len() - 1)).await.expect("stored");
    let other = FinishRequest { sha256: vec![7; 32], ..sealed.finish() };
    let refused = soon(client.finish(other)).await.expect_err("another digest");
    assert_eq!(refused.code(), Code::DataLoss);
    let keyless = FinishRequest { wrapped_key: vec![], ..sealed.finish() };
    let refused = soon(client.finish(keyless)).await.expect_err("no key");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let out = plane.dir.path().join("opened");
    let refused = open(plane.store(), ID, &out).expect_err("not finished");
    assert!(matches!(refused, OpenError::NotFinished { .. }), "{refused}");
    soon(client.finish(sealed.finish())).await.expect("finish");
}

#[tokio::test]
async fn without_an_active_ticket_with_that_grant_nothing_is_taken() {
    let (plane, agent, opened, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    let (silent, _) = open_ticket(plane.store(), ticket(false)).expect("open");
    let header = |ticket: &str, uid: &str| {
        Header::new(uid, ticket, *sealed.header.grant_sha256(), ID).expect("a header")
    };
    let request = |header: Header| BeginRequest {
        ticket_id: header.ticket_id().into(),
        header: header.to_bytes(),
        ..sealed.begin()
    };
    for (what, request, code) in [
        ("no grant", request(header(&silent.ticket_id, UID)), Code::FailedPrecondition),
        ("no ticket", request(header("t-9999", UID)), Code::FailedPrecondition),
        ("other cluster", request(header(&opened.ticket_id, "other")), Code::InvalidArgument),
        (
            "another ticket than the header's",
            BeginRequest { ticket_id: silent.ticket_id.clone(), ..sealed.begin() },
            Code::InvalidArgument,
        ),
        (
            "no header",
            BeginRequest { header: b"{}".to_vec(), ..sealed.begin() },
            Code::InvalidArgument,
        ),
    ] {
        let refused = soon(client.begin(request)).await.expect_err(what);
        assert_eq!(refused.code(), code, "{what}");
    }
    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    let refused = soon(client.begin(sealed.begin())).await.expect_err("solved");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(plane.store().uploads().expect("uploads").is_empty());
    assert_eq!(plane.running().counters().snapshot_bytes, 0);
}

#[tokio::test]
async fn a_ticket_solved_midway_ends_the_upload_and_its_bytes() {
    let (plane, agent, opened, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut put = Put::open(&mut client).await;
    put.send(sealed.chunk(0)).await.expect("stored");
    plane.store().set_ticket_status(&opened.ticket_id, TicketStatus::Solved).expect("solve");
    let refused = put.send(sealed.chunk(1)).await.expect_err("solved");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(query(&mut client).await.0, State::Aborted);
    assert!(no_bytes_left(&plane));
    let refused = soon(client.finish(sealed.finish())).await.expect_err("ended");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_abort_discards_and_may_be_repeated() {
    let (plane, agent, _, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    let abort = AbortRequest { snapshot_id: ID.into(), reason: "ConsentRevoked".into() };
    soon(client.abort(abort.clone())).await.expect("nothing to abort");
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut put = Put::open(&mut client).await;
    put.send(sealed.chunk(0)).await.expect("stored");
    soon(client.abort(abort.clone())).await.expect("abort");
    soon(client.abort(abort)).await.expect("abort again");
    assert!(no_bytes_left(&plane));
    assert_eq!(
        put.send(sealed.chunk(1)).await.expect_err("ended").code(),
        Code::FailedPrecondition
    );
    let uploads = plane.store().uploads().expect("uploads");
    assert!(
        matches!(&uploads[0].state, UploadState::Aborted { reason, .. } if reason == "ConsentRevoked")
    );
    let refused = soon(client.begin(sealed.begin())).await.expect_err("ended");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn no_cluster_sees_or_touches_the_upload_of_another() {
    let (plane, agent, _, sealed) = scene().await;
    let other = plane.enrolled_as("other").await;
    let mut client = snapshot(agent.connect(&plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut stranger = snapshot(other.connect(&plane).await);
    assert_eq!(query(&mut stranger).await.0, State::Unknown);
    let refused = put_one(&mut stranger, sealed.chunk(0)).await.expect_err("not theirs");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let abort = AbortRequest { snapshot_id: ID.into(), reason: "Mischief".into() };
    soon(stranger.abort(abort)).await.expect("nothing of theirs to abort");
    assert_eq!(query(&mut client).await, (State::Receiving, 0));
}

#[tokio::test]
async fn an_upload_stays_inside_the_budget_of_its_grant() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut new = ticket(true);
    new.grant.as_mut().expect("terms").budget.bytes = 100_000;
    let (opened, _) = open_ticket(plane.store(), new).expect("open");
    let sealed = Sealed::new(&opened, ID);
    let mut client = snapshot(agent.connect(&plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    put_one(&mut client, sealed.chunk(0)).await.expect("stored");
    let refused = put_one(&mut client, sealed.chunk(1)).await.expect_err("over budget");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn altered_bytes_and_foreign_keys_open_nothing() {
    let (plane, agent, opened, sealed) = scene().await;
    let mut client = snapshot(agent.connect(&plane).await);
    soon(client.begin(sealed.begin())).await.expect("begin");
    let mut put = Put::open(&mut client).await;
    for number in 0..sealed.chunks.len() {
        put.send(sealed.chunk(number)).await.expect("stored");
    }
    // Sealed to somebody else.
    let (stranger, _) = seal::generate_recipient_keypair().expect("a key");
    let key = FileKey::generate().expect("a key");
    let wrapped = seal::wrap_key(&key, &sealed.header, &stranger).expect("wrapped");
    let foreign = FinishRequest {
        encapsulated_key: wrapped.encapsulated_key,
        wrapped_key: wrapped.wrapped_key,
        ..sealed.finish()
    };
    soon(client.finish(foreign)).await.expect("the server can't tell");
    let out = plane.dir.path().join("opened");
    let refused = open(plane.store(), ID, &out).expect_err("another key");
    assert!(matches!(refused, OpenError::Seal(_)), "{refused}");

    let file = plane.state().join("snapshots").join(ID).join("sealed");
    let mut bytes = fs::read(&file).expect("the stream");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&file, bytes).expect("written");
    let refused = open(plane.store(), ID, &out).expect_err("altered");
    assert!(matches!(refused, OpenError::Digest(_)), "{refused}");
    assert!(!out.exists());
    assert_eq!(opened.ticket_id, sealed.header.ticket_id());
}

#[tokio::test]
async fn uploads_need_a_certificate() {
    let (plane, _, _, sealed) = scene().await;
    let channel = crate::client::connect(&plane, None).await.expect("connect");
    let refused = soon(snapshot(channel).begin(sealed.begin())).await.expect_err("anonymous");
    assert_eq!(refused.code(), Code::Unauthenticated);
}
