//! Ports for programs that can't be given a socket: they are told a number and bind it themselves, a
//! moment later.
//!
//! A port that the kernel gave and that is closed again may be given to anybody in that moment, to a
//! listener or to the near end of a connection. So these are taken from below the range from which the
//! kernel gives.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// Below Linux's default range for ports that the kernel chooses (from 32768), above the ports of most
/// services.
const FIRST: u16 = 20_000;
/// How many there are.
const COUNT: u16 = 10_000;
/// So many follow one another in a process before another process's could begin.
const EACH: u16 = 50;

/// A port of 127.0.0.1 that nothing is bound to. No two calls of a process give the same one, until
/// they have all been given.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when none is free.
pub fn free() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes of the same moment, such as tests of different crates, begin at different places.
    let begin = std::process::id() % u32::from(COUNT / EACH);
    let begin = u16::try_from(begin).unwrap_or_default() * EACH;
    for _ in 0..COUNT {
        let number = NEXT.fetch_add(1, Relaxed) % COUNT;
        let port = FIRST + (begin + number) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_that_the_kernel_may_give() {
        let (first, second) = (free().unwrap(), free().unwrap());
        assert_ne!(first, second);
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(first < lowest && second < lowest, "{first} and {second} of {range}");
    }

    #[test]
    fn a_port_that_is_in_use_is_passed_over() {
        let taken: Vec<_> = (0..3)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free().unwrap())).unwrap())
            .collect();
        let port = free().unwrap();
        assert!(taken.iter().all(|listener| listener.local_addr().unwrap().port() != port));
    }
}
