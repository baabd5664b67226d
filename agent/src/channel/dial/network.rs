//! What the dialler needs of a network: names and TCP connections. The rest of the dial (address
//! policy, proxy, TLS, HTTP/2) is the same code whatever network it runs over, so a simulated one
//! can be passed in and time can be tokio's virtual time.

use std::{fmt, io, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use mendix_agent_proto::limits;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};

/// TCP keepalive: first probe after, and between probes. HTTP/2 PINGs come sooner; this is for the
/// phases in which there is no HTTP/2 yet.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connected stream of bytes, both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// A connection of any network.
pub type Wire = Box<dyn Bytes>;

/// What a connection is for, as far as its socket is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The session, enrolment, fetching: little goes up.
    Messages,
    /// An upload that must be able to stop: the kernel takes little more than it has sent.
    Upload,
}

/// A network: the system's ([`System`]), or a simulated one.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// The addresses of a name, or of an IP address as text. The caller sets the deadline.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// A connection to one address. The caller sets the deadline, and drops the attempt when
    /// another address was faster.
    async fn connect(&self, address: SocketAddr, purpose: Purpose) -> io::Result<Wire>;
}

/// The system's resolver and sockets.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// How long sent data may stay without an acknowledgement, or unsent data without room at the
    /// other side, before the connection is given up.
    pub user_timeout: Duration,
}

impl Default for System {
    fn default() -> Self {
        Self { user_timeout: limits::TCP_USER_TIMEOUT }
    }
}

#[async_trait]
impl Network for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect(&self, address: SocketAddr, purpose: Purpose) -> io::Result<Wire> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        self.prepare(SockRef::from(&socket), purpose)?;
        Ok(Box::new(socket.connect(address).await?))
    }
}

impl System {
    /// Sets what must be set before the connection is made.
    fn prepare(self, socket: SockRef<'_>, purpose: Purpose) -> io::Result<()> {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive)?;
        if purpose == Purpose::Upload {
            socket.set_send_buffer_size(limits::UPLOAD_SEND_BUFFER)?;
            // Closing it drops what is still in the kernel: it is closed when all of it is
            // acknowledged, or when nothing more may leave.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        #[cfg(target_os = "linux")]
        {
            // Without it, data that nobody acknowledges is retransmitted for about 15 minutes.
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
            if purpose == Purpose::Upload {
                socket.set_tcp_notsent_lowat(limits::UPLOAD_UNSENT)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_upload_keeps_little_in_the_kernel() {
        let socket = TcpSocket::new_v4().unwrap();
        System::default().prepare(SockRef::from(&socket), Purpose::Upload).unwrap();
        let socket = SockRef::from(&socket);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), limits::UPLOAD_UNSENT);
        // The kernel doubles what is asked for, to have room for its own book-keeping.
        assert!(socket.send_buffer_size().unwrap() <= 2 * limits::UPLOAD_SEND_BUFFER);
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(limits::TCP_USER_TIMEOUT));
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_session_leaves_the_send_buffer_to_the_system() {
        let (plain, ours) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        System::default().prepare(SockRef::from(&ours), Purpose::Messages).unwrap();
        let size = |socket: &TcpSocket| SockRef::from(socket).send_buffer_size().unwrap();
        assert_eq!(size(&ours), size(&plain));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_half_open_connection_with_unsent_data_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = System { user_timeout: Duration::from_secs(1) };
        let address = listener.local_addr().unwrap();
        let mut stream = network.connect(address, Purpose::Messages).await.unwrap();
        // Its other end is there and takes nothing, as far as TCP can tell.
        let (_other, _) = listener.accept().await.unwrap();
        let stuck = async {
            loop {
                if let Err(error) = stream.write_all(&[7; 64 * 1024]).await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(180), stuck).await.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
