//! The control plane's end: real HTTP/2 over real TLS over simulated TCP, saying what a test tells it
//! to say.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use mendix_agent_proto::{
    limits,
    v1::{
        self,
        agent_message::Body as Up,
        control_message::Body as Down,
        control_service_server::{ControlService, ControlServiceServer},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

/// Port of every simulated control plane.
pub(crate) const PORT: u16 = 443;

/// How it answers a Hello.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Welcome(v1::Welcome),
    Say(Down),
    Refuse(tonic::Code, &'static str),
}

/// What a test tells the control plane to do, and what it saw.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) answer: Answer,
    /// Said after Welcome.
    pub(crate) then: Vec<v1::ControlMessage>,
    /// Whether reports are acknowledged; a control plane of long ago did not.
    pub(crate) acknowledges: bool,
    /// Whether heartbeats are answered.
    pub(crate) beats: bool,
    /// Each Hello, with the virtual time it came at.
    pub(crate) hellos: Vec<(Duration, v1::Hello)>,
    /// Virtual times at which TCP connections were accepted.
    pub(crate) accepted: Vec<Duration>,
    /// Open sessions by cluster.
    pub(crate) open: BTreeMap<String, usize>,
    /// The most that were open at once for one cluster.
    pub(crate) most_open: usize,
    /// What takes an ability of the control plane, in the order it came.
    pub(crate) asked: Vec<&'static str>,
    /// Last report by cluster and section.
    pub(crate) reports: BTreeMap<(String, i32), v1::Report>,
}

/// Shared by the test and all hosts that play the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    book: Arc<Mutex<Book>>,
    tls: Arc<rustls::ServerConfig>,
    orders: Arc<watch::Sender<Option<Down>>>,
    away: Arc<watch::Sender<bool>>,
}

impl Plane {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Self {
        let book = Book {
            answer: Answer::Welcome(welcome()),
            then: Vec::new(),
            acknowledges: true,
            beats: true,
            hellos: Vec::new(),
            accepted: Vec::new(),
            open: BTreeMap::new(),
            most_open: 0,
            asked: Vec::new(),
            reports: BTreeMap::new(),
        };
        let orders = Arc::new(watch::channel(None).0);
        let away = Arc::new(watch::channel(false).0);
        Self { book: Arc::new(Mutex::new(book)), tls, orders, away }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something on every open session.
    pub(crate) fn say(&self, body: Down) {
        self.orders.send_replace(Some(body));
    }

    /// Ends all sessions and every connection that comes, as the kernel does for a process that was
    /// killed; or serves again.
    pub(crate) fn away(&self, away: bool) {
        self.away.send_replace(away);
    }

    pub(crate) fn sessions(&self) -> usize {
        self.book().open.values().sum()
    }

    /// Serves until the host is crashed.
    pub(crate) async fn serve(self) -> Result<(), Box<dyn std::error::Error>> {
        // What was open before a crash is not any more.
        self.book().open.clear();
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let listener = turmoil::net::TcpListener::bind((unspecified, PORT)).await?;
        let (sender, incoming) = mpsc::channel(64);
        let (book, tls) = (self.book.clone(), TlsAcceptor::from(self.tls.clone()));
        let away = self.away.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if *away.borrow() {
                    continue;
                }
                let at = now();
                book.lock().unwrap_or_else(PoisonError::into_inner).accepted.push(at);
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    let handshake = tls.accept(stream);
                    if let Ok(Ok(stream)) =
                        tokio::time::timeout(Duration::from_secs(10), handshake).await
                    {
                        let _ = sender.send(Ok::<_, io::Error>(Connection(stream))).await;
                    }
                });
            }
        });
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(limits::HTTP2_PING.0))
            .http2_keepalive_timeout(Some(limits::HTTP2_PING.1))
            .serve_with_incoming(
                ControlServiceServer::new(Service(self)),
                ReceiverStream::new(incoming),
            )
            .await?;
        Ok(())
    }
}

pub(crate) fn welcome() -> v1::Welcome {
    v1::Welcome { session_id: "s".into(), protocol: 1, ..v1::Welcome::default() }
}

/// Virtual time since the simulation began.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

struct Connection(TlsStream<turmoil::net::TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Service(Plane);

type Out = mpsc::Sender<Result<v1::ControlMessage, Status>>;

#[tonic::async_trait]
impl ControlService for Service {
    type SessionStream = ReceiverStream<Result<v1::ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, messages) = mpsc::channel(16);
        tokio::spawn(serve(self.0.clone(), request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A session's place in the book.
struct Open {
    plane: Plane,
    uid: String,
}

impl Open {
    fn new(plane: Plane, uid: String) -> Self {
        let mut book = plane.book();
        let open = book.open.entry(uid.clone()).or_default();
        *open += 1;
        let open = *open;
        book.most_open = book.most_open.max(open);
        drop(book);
        Self { plane, uid }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(open) = self.plane.book().open.get_mut(&self.uid) {
            *open = open.saturating_sub(1);
        }
    }
}

async fn serve(plane: Plane, mut inbound: Streaming<v1::AgentMessage>, out: Out) {
    let Ok(Some(v1::AgentMessage { body: Some(Up::Hello(hello)) })) = inbound.message().await
    else {
        return;
    };
    let uid = hello.cluster_uid.clone();
    let (answer, then) = {
        let mut book = plane.book();
        book.hellos.push((now(), hello));
        (book.answer.clone(), book.then.clone())
    };
    match answer {
        Answer::Refuse(code, text) => {
            let _ = out.send(Err(Status::new(code, text))).await;
        }
        Answer::Say(body) => {
            let _ = say(&out, body).await;
            // The agent ends the stream.
            while let Ok(Some(_)) = inbound.message().await {}
        }
        Answer::Welcome(welcome) => {
            let _open = Open::new(plane.clone(), uid.clone());
            let _ = converse(&plane, &uid, welcome, then, inbound, &out).await;
        }
    }
}

async fn converse(
    plane: &Plane,
    uid: &str,
    welcome: v1::Welcome,
    then: Vec<v1::ControlMessage>,
    mut inbound: Streaming<v1::AgentMessage>,
    out: &Out,
) -> Option<()> {
    let (mut orders, mut away) = (plane.orders.subscribe(), plane.away.subscribe());
    say(out, Down::Welcome(welcome)).await?;
    for message in then {
        out.send(Ok(message)).await.ok()?;
    }
    loop {
        let message = tokio::select! {
            message = inbound.message() => message.ok()??,
            () = gone(&mut away) => return None,
            changed = orders.changed() => {
                changed.ok()?;
                let order = orders.borrow_and_update().clone();
                if let Some(body) = order {
                    say(out, body).await?;
                }
                continue;
            }
        };
        match message.body {
            Some(Up::Heartbeat(heartbeat)) if plane.book().beats => {
                let sequence = heartbeat.sequence;
                say(out, Down::HeartbeatAck(v1::HeartbeatAck { sequence, server_time: None }))
                    .await?;
            }
            Some(Up::Report(report)) => {
                let ack = v1::ReportAck { section: report.section, revision: report.revision };
                let acknowledges = {
                    let mut book = plane.book();
                    book.reports.insert((uid.to_owned(), report.section), report);
                    book.acknowledges
                };
                if acknowledges {
                    say(out, Down::ReportAck(ack)).await?;
                }
            }
            Some(Up::AuditCheckpoint(_)) => plane.book().asked.push("AuditCheckpoint"),
            Some(Up::LeaseRequest(_)) => plane.book().asked.push("LeaseRequest"),
            _ => {}
        }
    }
}

async fn gone(away: &mut watch::Receiver<bool>) {
    let _ = away.wait_for(|away| *away).await;
}

async fn say(out: &Out, body: Down) -> Option<()> {
    out.send(Ok(v1::ControlMessage { body: Some(body) })).await.ok()
}
