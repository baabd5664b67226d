//! What a network does to a session that lives for hours, in virtual time: the real driver, TLS and
//! HTTP/2 over cables in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mendix_agent_core::session::{
    About, Action, AddressPolicy, Event, Now, Schedule, Session, StreamId,
};
use mendix_agent_proto::{
    limits,
    v1::{self, agent_message::Body as Up, control_message::Body as Down},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    cable::{Cables, Fault, Welcome},
    plane::{Ca, Manner, Peer, Plane, server_config},
    session::{Agent, enrolled},
};
use crate::channel::{
    Dialer, Link, Target,
    dial::{
        network::{Purpose, Wire},
        snapshot_client,
    },
    identity::Standing,
    session,
};

const NAME: &str = "plane.example";
/// Of virtual time; only a failing test waits it out.
const LONG: Duration = Duration::from_secs(3600);

fn manner() -> Manner {
    Manner { name: NAME, ..Manner::default() }
}

fn target(cables: &Arc<Cables>) -> Target {
    let url = format!("https://{NAME}:8443").parse().unwrap();
    Target::new(&url, AddressPolicy::default()).unwrap().over(Arc::clone(cables) as _)
}

struct Scene {
    plane: Plane,
    cables: Arc<Cables>,
    agent: Agent,
}

impl Scene {
    fn start() -> Self {
        let (cables, wires) = Cables::new();
        let plane = Plane::behind(wires, ([10, 0, 0, 4], 8443).into(), manner());
        let agent = Agent::dialling(target(&cables), enrolled(&plane));
        Self { plane, cables, agent }
    }

    /// The next session, welcomed; heartbeats are answered and counted from then on.
    async fn session(&self) -> Arc<AtomicU64> {
        let mut peer = timeout(LONG, self.plane.next_peer()).await.expect("a session");
        peer.hello().await;
        peer.welcome("s").await;
        let beats = Arc::new(AtomicU64::new(0));
        tokio::spawn(attend(peer, Arc::clone(&beats)));
        beats
    }

    async fn lost(&mut self) -> String {
        let lost = self.agent.link.wait_for(|link| matches!(link, Link::Disconnected { .. }));
        let link = timeout(LONG, lost).await.expect("the loss is noticed").unwrap().clone();
        let Link::Disconnected { last_failure, .. } = link else { unreachable!() };
        last_failure
    }

    async fn connected(&mut self) {
        let wanted = self.agent.link.wait_for(|link| matches!(link, Link::Connected { .. }));
        timeout(LONG, wanted).await.expect("a connection").unwrap();
    }
}

/// Answers heartbeats until the session ends.
async fn attend(mut peer: Peer, beats: Arc<AtomicU64>) {
    while let Ok(Some(message)) = peer.up.message().await {
        if let Some(Up::Heartbeat(beat)) = message.body {
            beats.fetch_add(1, Ordering::Relaxed);
            let ack = v1::HeartbeatAck { sequence: beat.sequence, ..Default::default() };
            peer.say(Down::HeartbeatAck(ack)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_dropped_without_a_word_is_noticed_and_dialled_again() {
    // Azure's load balancer forgets a flow after 4 min, AWS's after 350 s.
    for idle in [240, 350] {
        let mut scene = Scene::start();
        scene.session().await;
        scene.connected().await;
        sleep(Duration::from_secs(idle)).await;
        assert!(matches!(&*scene.agent.link.borrow(), Link::Connected { .. }), "after {idle} s");
        let dropped = Instant::now();
        scene.cables.last().set(Fault::Vanish);
        let why = scene.lost().await;
        assert!(why.starts_with("stream: "), "{why}");
        let (ping, answer) = limits::HTTP2_PING;
        assert!(
            dropped.elapsed() <= ping + answer + Duration::from_secs(1),
            "{:?}",
            dropped.elapsed()
        );
        scene.session().await;
        scene.connected().await;
        assert_eq!(scene.cables.laid().len(), 2, "one new connection");
        scene.agent.cancel.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_answers_ping_for_a_dead_backend_is_noticed_by_heartbeats() {
    let mut scene = Scene::start();
    let mut peer = timeout(LONG, scene.plane.next_peer()).await.unwrap();
    peer.hello().await;
    peer.welcome("s").await;
    scene.connected().await;
    let began = Instant::now();
    // HTTP/2 lives: its end answers PING all the while. Nobody answers heartbeats.
    let why = scene.lost().await;
    assert!(why.contains("heartbeat"), "{why}");
    let most = limits::HEARTBEAT_DEFAULT.mul_f64(1.1) * (limits::HEARTBEAT_MISSES + 1);
    assert!(began.elapsed() <= most, "{:?}", began.elapsed());
    assert!(began.elapsed() > limits::HTTP2_PING.0 * 3, "a PING was missed, not heartbeats");
    scene.session().await;
    scene.connected().await;
    scene.agent.cancel.cancel();
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_is_dialled_again() {
    let mut scene = Scene::start();
    for _ in 0..3 {
        scene.session().await;
        scene.connected().await;
        scene.cables.last().set(Fault::Cut);
        scene.lost().await;
    }
    scene.session().await;
    scene.connected().await;
    scene.agent.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_closes_all_day_is_dialled_ever_more_slowly() {
    let scene = Scene::start();
    scene.cables.welcome(Welcome::Close);
    let began = Instant::now();
    sleep(24 * LONG).await;
    let dials = scene.cables.laid();
    // 120 s is the highest ceiling, a half of it the average: about 1,440 a day.
    assert!((1200..1700).contains(&dials.len()), "{} dials", dials.len());
    let in_first_minute =
        dials.iter().filter(|dial| dial.at - began < Duration::from_secs(60)).count();
    assert!(in_first_minute <= 24, "{in_first_minute} dials in the first minute");
    let link = scene.agent.link.borrow().clone();
    let Link::WaitingForConnection { last_failure: Some(why) } = link else { panic!("{link:?}") };
    assert!(why.starts_with("TLS: "), "{why}");
    scene.agent.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_their_pace_while_an_upload_is_stalled() {
    let mut scene = Scene::start();
    let beats = scene.session().await;
    scene.connected().await;
    let session = scene.cables.last();
    let (_standing, standing) = watch::channel(enrolled(&scene.plane));
    let dialer = Dialer::new(target(&scene.cables), standing);
    let channel = dialer.connect_for_upload().await.unwrap();
    let upload = scene.cables.last();
    assert_eq!((session.purpose, upload.purpose), (Purpose::Messages, Purpose::Upload));
    // The server stops reading in the middle; the agent has more to send than any window holds.
    upload.set(Fault::Stall);
    let (chunks, stream) = mpsc::channel(1);
    let feeding = tokio::spawn(async move {
        let data = vec![7; limits::MAX_SNAPSHOT_CHUNK];
        while chunks
            .send(v1::Chunk { data: data.clone().into(), ..Default::default() })
            .await
            .is_ok()
        {}
    });
    let putting = tokio::spawn(async move {
        let mut client = snapshot_client(channel);
        let _ = client.put(ReceiverStream::new(stream)).await;
    });
    let before = beats.load(Ordering::Relaxed);
    sleep(Duration::from_secs(25)).await;
    assert!(!putting.is_finished(), "the upload hangs");
    sleep(LONG).await;
    let counted = beats.load(Ordering::Relaxed) - before;
    // 60 s ±10 %.
    assert!((54..=68).contains(&counted), "{counted} heartbeats in an hour");
    assert!(matches!(&*scene.agent.link.borrow(), Link::Connected { .. }));
    feeding.abort();
    putting.abort();
    scene.agent.cancel.cancel();
}

/// What a gateway sends to a client that it takes for a nuisance: SETTINGS, then GOAWAY with
/// ENHANCE_YOUR_CALM and the words that gRPC gives with it.
const GOAWAY: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x16\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_pings";

/// Serves HTTP/2 that ends in GOAWAY once the second PING of a connection came; tells when the PINGs
/// came.
async fn nuisance(
    mut wires: mpsc::Receiver<Wire>,
    acceptor: TlsAcceptor,
    pings: mpsc::Sender<Instant>,
) {
    while let Some(wire) = wires.recv().await {
        let Ok(mut stream) = acceptor.accept(wire).await else { continue };
        // The client's preface, then frames: 9 bytes of head, of which 3 are the length.
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&GOAWAY[..9]).await.unwrap();
        let mut seen = 0;
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                break;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            match (head[3], head[4] & 1) {
                // SETTINGS: acknowledge.
                (4, 0) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap(),
                // PING: answer once.
                (6, 0) => {
                    pings.send(Instant::now()).await.unwrap();
                    seen += 1;
                    if seen == 2 {
                        stream.write_all(&GOAWAY[9..]).await.unwrap();
                        let _ = stream.shutdown().await;
                        break;
                    }
                    stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.unwrap();
                    stream.write_all(&payload).await.unwrap();
                }
                _ => {}
            }
        }
    }
}

/// The first stream that a machine asks for.
fn a_stream() -> StreamId {
    let monotonic = Instant::now().into_std();
    let now = Now { monotonic, wall: jiff::Timestamp::UNIX_EPOCH };
    let actions = Session::new(About::default(), monotonic).handle(now, Event::Tick, &mut || 0);
    let id = actions.into_iter().find_map(|action| match action {
        Action::Dial(id) => Some(id),
        _ => None,
    });
    id.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_goaway_for_too_many_pings_makes_them_fewer_and_the_agent_come_back_later() {
    let (cables, wires) = Cables::new();
    let ca = Ca::new("channel CA");
    let (config, _) = server_config(&ca, manner());
    let (pings, mut seen) = mpsc::channel(64);
    let serving = tokio::spawn(nuisance(wires, TlsAcceptor::from(config), pings));
    let standing = Standing::Enrolled(Arc::new(ca.credentials()));
    // One stream without its driver, whose deadline for Welcome would end it before the second PING.
    let (_keep, standing) = watch::channel(standing);
    let dialer = Dialer::new(target(&cables), standing);
    let mut between = Vec::new();
    for _ in 0..5 {
        let (_up, messages) = mpsc::channel(1);
        let (events, _heard) = mpsc::channel(1);
        let end = CancellationToken::new();
        let talk = session::talk(a_stream(), &dialer, messages, &events, &end);
        let failure = timeout(LONG, talk).await.expect("the connection is ended");
        assert!(failure.text.contains("too_many_pings"), "{}", failure.text);
        assert_eq!(failure.schedule, Schedule::Refusal);
        let (first, second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
        between.push((second - first).as_secs());
    }
    assert_eq!(between, [30, 60, 120, 240, 240]);
    serving.abort();
}
