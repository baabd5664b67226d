//! A network that misbehaves on demand: a TCP proxy on loopback whose two directions can be stalled,
//! delayed, limited and cut while connections are open, all together or one connection alone.
//!
//! [`connect`] is an HTTP CONNECT proxy of the same kind, [`gateway`] one that speaks HTTP/2 itself.
//!
//! It knows nothing of what it carries, so TLS and HTTP/2 pass as they are. Its own socket buffers
//! are small (see [`BUFFER`]): what a sender believes to have sent but nobody received stays little.

pub mod connect;
mod flow;
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
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub use self::flow::Rule;
use self::flow::{Flow, Gate, Stop};

/// Send and receive buffer asked for each socket of the proxy, in bytes (the kernel doubles it).
pub const BUFFER: u32 = 64 * 1024;
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
            up: control.up.passed(),
            down: control.down.passed(),
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
    let gate = Gate::new(number, control.held.subscribe());
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
