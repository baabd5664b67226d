use std::collections::HashMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    connect::{Answer, ConnectProxy},
    flow::PIECE,
    *,
};
use crate::{port, wait::eventually};

const DEADLINE: Duration = Duration::from_secs(120);

/// A server that sends back what it gets, behind a proxy.
async fn echo() -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = peer.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    FaultProxy::start(address).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, text);
}

/// What a reader meets: bytes, the end, or an error.
async fn next(stream: &mut TcpStream) -> io::Result<usize> {
    let mut buffer = [0; 1024];
    tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap()
}

#[tokio::test]
async fn it_passes_and_counts_until_both_sides_have_closed() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream, &[7; 100_000]).await;
    assert_eq!(proxy.seen(), Seen { connections: 1, open: 1, up: 100_000, down: 100_000 });
    stream.shutdown().await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), 0);
    eventually(DEADLINE, "the connection is closed", || async {
        (proxy.seen().open == 0).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stall_holds_one_direction_and_ends() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream, b"before").await;
    proxy.set(Direction::Down, Rule::Stall);
    stream.write_all(b"held").await.unwrap();
    eventually(DEADLINE, "up passes", || async { (proxy.seen().up == 10).then_some(()) })
        .await
        .unwrap();
    assert_eq!(proxy.seen().down, 6);
    let mut nothing = [0; 1];
    assert_eq!(stream.try_read(&mut nothing).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    proxy.set(Direction::Down, Rule::Pass);
    assert_eq!(next(&mut stream).await.unwrap(), 4);
    round_trip(&mut stream, b"after").await;
}

#[tokio::test]
async fn behind_a_stall_little_is_taken_from_the_sender() {
    let proxy = echo().await;
    let mut stream = socket_for(proxy.address()).unwrap().connect(proxy.address()).await.unwrap();
    round_trip(&mut stream, b"before").await;
    proxy.set_both(Rule::Stall);
    let mut taken = 0;
    let fill = async {
        loop {
            taken += stream.write(&[0; PIECE]).await.unwrap();
        }
    };
    // Too short a time can only take less.
    let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(300), fill).await;
    // Two buffers, each doubled by the kernel, and some of its own accounting.
    assert!(taken <= 8 * BUFFER as usize, "{taken}");
    assert_eq!(proxy.seen().up, 6);
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_else() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream, b"before").await;
    proxy.cut();
    assert_eq!(next(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut stream, b"after").await;

    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(next(&mut refused).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    round_trip(&mut stream, b"still").await;
}

#[tokio::test]
async fn limits_are_exact() {
    for (rule, cut) in [(Rule::CutAfter(40_000), true), (Rule::StallAfter(40_000), false)] {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        round_trip(&mut stream, b"before").await;
        proxy.set(Direction::Up, rule);
        stream.write_all(&[0; 50_000]).await.unwrap();
        eventually(DEADLINE, "the limit", || async {
            let seen = proxy.seen();
            (seen.up == 40_006 && (seen.open == 0) == cut).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(proxy.seen().up, 40_006);
    }
}

#[tokio::test]
async fn a_delay_holds_bytes_back_and_a_dead_server_resets() {
    let proxy = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let delay = Duration::from_millis(30);
    proxy.set_both(Rule::Delay(delay));
    let start = std::time::Instant::now();
    round_trip(&mut stream, b"slow").await;
    assert!(start.elapsed() >= 2 * delay);

    let nobody = (Ipv4Addr::LOCALHOST, port::free().unwrap()).into();
    let proxy = FaultProxy::start(nobody).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_connection_is_held_while_another_goes_on() {
    let proxy = echo().await;
    let mut first = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut first, b"first").await;
    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    round_trip(&mut second, b"second").await;
    let number = proxy.seen().connections;
    proxy.hold(number);
    second.write_all(b"held").await.unwrap();
    round_trip(&mut first, &[7; 100_000]).await;
    assert_eq!(proxy.seen().up, 11 + 100_000, "nothing of the second came through");
    proxy.release(number);
    let mut back = [0; 4];
    tokio::time::timeout(DEADLINE, second.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn a_connect_proxy_knows_its_users_and_its_names() {
    let behind = echo().await;
    let names = HashMap::from([("plane.example:8443".to_owned(), behind.address())]);
    let proxy = ConnectProxy::start(names, Some("agent:secret")).await.unwrap();
    let ask = async |authority: &str, authorization: &str| {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let head = format!("CONNECT {authority} HTTP/1.1\r\n{authorization}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        String::from_utf8(status[9..].to_vec()).unwrap()
    };
    let known = "Proxy-Authorization: Basic YWdlbnQ6c2VjcmV0\r\n";
    assert_eq!(ask("plane.example:8443", "").await, "407");
    assert_eq!(ask("plane.example:8443", known).await, "200");
    assert_eq!(ask("other.example:443", known).await, "502");
    proxy.answer(Answer::Status(403));
    assert_eq!(ask("plane.example:8443", known).await, "403");
    assert_eq!(proxy.asked().len(), 3, "a stranger's request does not count");
}
