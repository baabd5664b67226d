//! Agents of other versions, as bytes that were recorded once (`proto/recorded`), on a session with
//! this control plane: what it makes of what the first one said, and of what one to come may say.
//! The bytes go over the wire as they are; today's types would leave out what they don't know.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use mendix_agent_proto::v1::{self, control_message::Body as Down};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::client::{Plane, UID, soon};

const FIRST: &str = include_str!("../../../../proto/recorded/agent-first.txt");
const TO_COME: &str = include_str!("../../../../proto/recorded/agent-to-come.txt");

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A session of an agent that was recorded.
struct Recorded {
    script: BTreeMap<&'static str, Bytes>,
    up: mpsc::Sender<Bytes>,
    down: Streaming<Bytes>,
}

impl Recorded {
    /// Says Hello.
    async fn open(plane: &Plane, recorded: &'static str) -> Self {
        let lines = recorded.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let script: BTreeMap<_, _> = lines
            .map(|line| {
                let (name, bytes) = line.split_once(' ').expect("a name and bytes");
                (name, Bytes::from(hex::decode(bytes).expect("hex")))
            })
            .collect();
        let mut grpc = Grpc::new(plane.enrolled().await.connect(plane).await);
        let (up, receiver) = mpsc::channel(16);
        up.send(script["hello"].clone()).await.expect("room");
        soon(grpc.ready()).await.expect("a connection");
        let path = PathAndQuery::from_static("/mendix.agent.v1.ControlService/Session");
        let call = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, Raw);
        let down = soon(call).await.expect("a session").into_inner();
        Self { script, up, down }
    }

    async fn say(&mut self, name: &str) {
        self.up.send(self.script[name].clone()).await.expect("room");
    }

    async fn next(&mut self) -> Down {
        let bytes = soon(self.down.message()).await.expect("no error").expect("no end");
        let message = v1::ControlMessage::decode(bytes).expect("a message");
        message.body.expect("of a kind that is known")
    }

    /// Welcome, and the three sections that an agent is told that holds none.
    async fn begun(&mut self) {
        match self.next().await {
            Down::Welcome(welcome) => assert_eq!(welcome.protocol, 1),
            other => panic!("expected Welcome, got {other:?}"),
        }
        match self.next().await {
            Down::DesiredState(state) => assert_eq!(state.sections.len(), 3),
            other => panic!("expected DesiredState, got {other:?}"),
        }
    }

    async fn is_acknowledged(&mut self, name: &str, section: i32, revision: u64) {
        self.say(name).await;
        match self.next().await {
            Down::ReportAck(ack) => assert_eq!((ack.section, ack.revision), (section, revision)),
            other => panic!("expected ReportAck for {name}, got {other:?}"),
        }
    }

    async fn beats(&mut self) {
        self.say("heartbeat").await;
        match self.next().await {
            Down::HeartbeatAck(ack) => assert_eq!(ack.sequence, 1),
            other => panic!("expected HeartbeatAck, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_first_agent_is_welcome_and_understood() {
    let plane = Plane::start().await;
    let mut agent = Recorded::open(&plane, FIRST).await;
    agent.begun().await;
    agent.is_acknowledged("health", v1::Section::Health.into(), 1).await;
    agent.is_acknowledged("release_run", v1::Section::ReleaseRun.into(), 1).await;
    agent.say("audit_checkpoint").await;
    match agent.next().await {
        Down::AuditCheckpointAck(ack) => assert_eq!(ack.sequence, 5),
        other => panic!("expected AuditCheckpointAck, got {other:?}"),
    }
    agent.beats().await;
    let known = plane.running().agent(UID).expect("it is known");
    assert_eq!((known.agent_version.as_str(), known.lease_epoch), ("0.0.1", 1));
    assert!(known.reports.contains_key(&100) && known.reports.contains_key(&102), "{known:?}");
}

#[tokio::test]
async fn an_agent_to_come_is_spoken_to_in_the_version_both_know() {
    let plane = Plane::start().await;
    let mut agent = Recorded::open(&plane, TO_COME).await;
    agent.begun().await;
    agent.is_acknowledged("new_section", 142, 3).await;
    agent.is_acknowledged("health", v1::Section::Health.into(), 1).await;
    // Not answered, and not held against it either.
    agent.say("new_message").await;
    agent.is_acknowledged("outcome", v1::Section::RequestOutcomes.into(), 1).await;
    agent.beats().await;
    let known = plane.running().agent(UID).expect("it is known");
    assert!(known.connected_since.is_some(), "and the session goes on");
    assert!(known.reports.contains_key(&142), "what it told is kept: {known:?}");
}
