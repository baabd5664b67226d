//! An HTTP CONNECT proxy that misbehaves on demand. It has names of its own, as the resolver of a
//! real one may know what the client's does not.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Largest head of a request.
const MAX_HEAD: usize = 8 * 1024;

/// What the proxy does with a request that it would let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200, and a tunnel.
    Tunnel,
    /// This status, and the end of the connection.
    Status(u16),
    /// 200, and the end of the connection.
    CloseAfter200,
    /// Nothing, and the connection stays open.
    Silence,
}

/// A running proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    names: HashMap<String, SocketAddr>,
    /// Value of `Proxy-Authorization` that is asked for.
    wanted: Option<String>,
    answer: watch::Sender<Answer>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    asked: Mutex<Vec<String>>,
}

impl ConnectProxy {
    /// Listens on a free loopback port. `names` are the destinations that it knows, as `host:port`;
    /// `user` is `user:password`, if it asks for one.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(names: HashMap<String, SocketAddr>, user: Option<&str>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control {
            names,
            wanted: user.map(|pair| format!("Basic {}", BASE64_STANDARD.encode(pair))),
            answer: watch::Sender::new(Answer::Tunnel),
            cuts: watch::Sender::new(0),
            asked: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&control)));
        Ok(Self { address, control, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to later requests.
    pub fn answer(&self, answer: Answer) {
        self.control.answer.send_replace(answer);
    }

    /// Ends every tunnel.
    pub fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What it was asked to connect to so far, by requests that it would let through.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.control.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let control = Arc::clone(&control);
                    connections.spawn(async move {
                        // A connection that breaks is what a fault looks like from here.
                        let _ = serve(client, &control).await;
                    });
                }
                // Out of file descriptors, or the peer has gone: the next may do better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, control: &Control) -> io::Result<()> {
    let mut cuts = control.cuts.subscribe();
    let head = head(&mut client).await?;
    let authority = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
    });
    if control.wanted.is_some() && authorization != control.wanted.as_deref() {
        let asks = "Proxy-Authenticate: Basic realm=\"kit\"\r\n";
        return say(&mut client, 407, asks).await;
    }
    control.asked.lock().unwrap_or_else(PoisonError::into_inner).push(authority.clone());
    let answer = *control.answer.borrow();
    match answer {
        Answer::Tunnel => {}
        Answer::Status(status) => return say(&mut client, status, "").await,
        Answer::CloseAfter200 => return say(&mut client, 200, "").await,
        Answer::Silence => {
            let _ = cuts.changed().await;
            return Ok(());
        }
    }
    let Some(destination) = control.names.get(&authority) else {
        return say(&mut client, 502, "").await;
    };
    let mut server = TcpStream::connect(destination).await?;
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    say(&mut client, 200, "").await?;
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut client, &mut server) => carried.map(drop),
        _ = cuts.changed() => Ok(()),
    }
}

async fn head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(client.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn say(client: &mut TcpStream, status: u16, headers: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Kit\r\n{headers}\r\n");
    client.write_all(head.as_bytes()).await
}
