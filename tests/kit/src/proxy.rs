//! A network that misbehaves on demand: a TCP proxy on loopback whose two directions can be stalled,
//! delayed, limited and cut while connections are open, all together or one connection alone.
//!
//! [`connect`] is an HTTP CONNECT proxy of the same kind, [`gateway`] one that speaks HTTP/2 itself.
//!
//! It knows nothing of what it carries, so TLS and HTTP/2 pass as they are. Its own socket buffers
//! are small (see [`BUFFER`]): what a sender believes to have sent but nobody received stays little.

pub mod connect;
pub mod gateway;

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Send and receive buffer asked for each socket of the proxy, in bytes (the kernel doubles it).
pub const BUFFER: u32 = 64 * 1024;
/// Largest piece that is passed on at once.
const PIECE: usize = 16 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Longest wait for the server behind.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the one that connected to the server behind.
    Up,
    /// Back.
    Down,
}

/// What happens to bytes of one direction, on all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// They pass.
    Pass,
    /// Nothing passes, not even the end of a connection; no side learns of it. A piece that is being
    /// passed on at this moment still arrives.
    Stall,
    /// Each piece of up to 16 KiB waits so long before it is passed on.
    Delay(Duration),
    /// So many more bytes pass, exactly; then every connection that has more is reset.
    CutAfter(u64),
    /// So many more bytes pass, exactly; then as [`Rule::Stall`].
    StallAfter(u64),
}

/// What the proxy has seen so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Connections accepted, also those refused afterwards.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// Bytes passed on to the server.
    pub up: u64,
    /// Bytes passed back.
    pub down: u64,
}

/// A running proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    up: Flow,
    down: Flow,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    /// Connections that are held, by number.
    held: watch::Sender<BTreeSet<u64>>,
    refusing: AtomicBool,
    connections: AtomicU64,
    open: AtomicU64,
}

#[derive(Debug)]
struct Flow {
    rule: watch::Sender<Active>,
    passed: AtomicU64,
}

/// A rule in force, with what is left of its limit.
#[derive(Clone, Debug)]
struct Active {
    rule: Rule,
    left: Arc<AtomicU64>,
}

impl FaultProxy {
    /// Listens on a free loopback port and passes everything to `upstream`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), upstream).await
    }

    /// Listens on `address` (port 0 takes a free one).
    ///
    /// # Errors
    /// When the address can't be had.
    #[expect(clippy::unused_async, reason = "it needs a runtime, and says so by being async")]
    pub async fn listen(address: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let socket = socket_for(address)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let control = Arc::new(Control {
            up: Flow::new(),
            down: Flow::new(),
            cuts: watch::Sender::new(0),
            held: watch::Sender::new(BTreeSet::new()),
            refusing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&control)));
        Ok(Self { address, control, accepting })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to one direction, from now on and on open connections too.
    pub fn set(&self, direction: Direction, rule: Rule) {
        self.control.flow(direction).set(rule);
    }

    /// Changes both directions.
    pub fn set_both(&self, rule: Rule) {
        self.set(Direction::Up, rule);
        self.set(Direction::Down, rule);
    }

    /// Resets every open connection, on both sides (RST, as a firewall or a dying host does).
    pub fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Holds one connection, both ways, while the others go on: as [`Rule::Stall`] for it alone.
    /// Connections are numbered from 1 in the order in which they were accepted;
    /// [`Seen::connections`] is the newest.
    pub fn hold(&self, connection: u64) {
        self.control.held.send_modify(|held| {
            held.insert(connection);
        });
    }

    /// Ends [`FaultProxy::hold`].
    pub fn release(&self, connection: u64) {
        self.control.held.send_modify(|held| {
            held.remove(&connection);
        });
    }

    /// Resets new connections at once, or accepts them again.
    pub fn refuse(&self, refuse: bool) {
        self.control.refusing.store(refuse, Ordering::Relaxed);
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let control = &self.control;
        Seen {
            connections: control.connections.load(Ordering::Relaxed),
            open: control.open.load(Ordering::Relaxed),
            up: control.up.passed.load(Ordering::Relaxed),
            down: control.down.passed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Control {
    fn flow(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// Why a direction stops without either side having closed it.
enum Stop {
    Cut,
    Broken,
}

impl Flow {
    fn new() -> Self {
        let active = Active { rule: Rule::Pass, left: Arc::default() };
        Self { rule: watch::Sender::new(active), passed: AtomicU64::new(0) }
    }

    fn set(&self, rule: Rule) {
        let left = match rule {
            Rule::CutAfter(bytes) | Rule::StallAfter(bytes) => bytes,
            Rule::Pass | Rule::Stall | Rule::Delay(_) => 0,
        };
        self.rule.send_replace(Active { rule, left: Arc::new(AtomicU64::new(left)) });
    }

    /// Carries one direction of one connection to its end.
    async fn carry(
        &self,
        mut gate: Gate,
        from: &mut (impl tokio::io::AsyncRead + Unpin),
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> Result<(), Stop> {
        let mut rules = self.rule.subscribe();
        let mut piece = vec![0; PIECE];
        loop {
            gate.passed().await?;
            let active = rules.borrow_and_update().clone();
            let may = match active.allowance() {
                Allowance::Bytes(bytes) => bytes,
                Allowance::Nothing => {
                    rules.changed().await.map_err(|_| Stop::Broken)?;
                    continue;
                }
                Allowance::Reset => {
                    // Only a connection that has more to say is reset.
                    tokio::select! {
                        _ = rules.changed() => continue,
                        read = from.read(&mut piece[..1]) => match read {
                            Ok(0) => return to.shutdown().await.map_err(|_| Stop::Broken),
                            _ => return Err(Stop::Cut),
                        },
                    }
                }
            };
            let read = tokio::select! {
                biased;
                changed = rules.changed() => {
                    active.give_back(may);
                    changed.map_err(|_| Stop::Broken)?;
                    continue;
                }
                closed = gate.closed() => {
                    active.give_back(may);
                    closed?;
                    continue;
                }
                read = from.read(&mut piece[..may]) => read,
            };
            let read = read.map_err(|_| Stop::Broken)?;
            active.give_back(may - read);
            if read == 0 {
                return to.shutdown().await.map_err(|_| Stop::Broken);
            }
            if let Rule::Delay(time) = active.rule {
                tokio::time::sleep(time).await;
            }
            // A stall that was set meanwhile holds what was just read.
            rules
                .wait_for(|active| !matches!(active.rule, Rule::Stall))
                .await
                .map_err(|_| Stop::Broken)?;
            gate.passed().await?;
            to.write_all(&piece[..read]).await.map_err(|_| Stop::Broken)?;
            self.passed.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

/// Whether one connection is held.
#[derive(Clone)]
struct Gate {
    number: u64,
    held: watch::Receiver<BTreeSet<u64>>,
}

impl Gate {
    /// Over when the connection is not held.
    async fn passed(&mut self) -> Result<(), Stop> {
        let open = self.held.wait_for(|held| !held.contains(&self.number)).await;
        open.map(drop).map_err(|_| Stop::Broken)
    }

    /// Over when it is.
    async fn closed(&mut self) -> Result<(), Stop> {
        let closed = self.held.wait_for(|held| held.contains(&self.number)).await;
        closed.map(drop).map_err(|_| Stop::Broken)
    }
}

enum Allowance {
    Bytes(usize),
    Nothing,
    Reset,
}

impl Active {
    /// How much may be read now; of a limit, that much is taken.
    fn allowance(&self) -> Allowance {
        match self.rule {
            Rule::Pass | Rule::Delay(_) => return Allowance::Bytes(PIECE),
            Rule::Stall => return Allowance::Nothing,
            Rule::CutAfter(_) | Rule::StallAfter(_) => {}
        }
        let take = |left: u64| left.min(PIECE as u64);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - take(left)))
            .unwrap_or(0);
        match (usize::try_from(take(left)), self.rule) {
            (Ok(bytes), _) if bytes > 0 => Allowance::Bytes(bytes),
            (_, Rule::CutAfter(_)) => Allowance::Reset,
            _ => Allowance::Nothing,
        }
    }

    fn give_back(&self, bytes: usize) {
        if matches!(self.rule, Rule::CutAfter(_) | Rule::StallAfter(_)) {
            self.left.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before listening or connecting: the window is agreed on then.
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, upstream: SocketAddr, control: Arc<Control>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let number = control.connections.fetch_add(1, Ordering::Relaxed) + 1;
                    connections.spawn(serve(number, client, upstream, Arc::clone(&control)));
                }
                // Out of file descriptors, or the peer has gone: the next may do better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(number: u64, mut client: TcpStream, upstream: SocketAddr, control: Arc<Control>) {
    let gate = Gate { number, held: control.held.subscribe() };
    let mut cuts = control.cuts.subscribe();
    if control.refusing.load(Ordering::Relaxed) {
        reset(&client);
        return;
    }
    let connect = async { socket_for(upstream)?.connect(upstream).await };
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_DEADLINE, connect).await else {
        reset(&client);
        return;
    };
    // Pieces are passed on as they come: no waiting for more.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    control.open.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&control));
    let closed = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            carried = async {
                tokio::try_join!(
                    control.up.carry(gate.clone(), &mut from_client, &mut to_server),
                    control.down.carry(gate, &mut from_server, &mut to_client),
                )
            } => carried.map(|_| ()),
            _ = cuts.changed() => Err(Stop::Cut),
        }
    };
    if let Err(Stop::Cut | Stop::Broken) = closed {
        reset(&client);
        reset(&server);
    }
}

/// Closing it will send RST instead of FIN.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Counts down when the connection ends, in whatever way.
struct Open(Arc<Control>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
