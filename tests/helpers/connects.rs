//! Connects N times, one after the other: `act-connects N tcp|udp ADDRESS:PORT [refused]`, or `act-connects N loopback`.
//!
//! With `refused`, every TCP connect must be refused; without, every one must succeed. So N is exact. With `loopback` the
//! program listens itself and accepts in batches, so that no other process is woken and only connecting is measured.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt::set_socket_linger;
use tests::timed;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [count, "loopback"] = arguments.as_slice() {
        return loopback(count.parse().context("N is a number")?);
    }
    let [count, protocol, address, rest @ ..] = arguments.as_slice() else {
        bail!("N tcp|udp ADDRESS:PORT [refused], or N loopback");
    };
    let count: u64 = count.parse().context("N is a number")?;
    let address: SocketAddr = address.parse().context("ADDRESS:PORT")?;
    let refused = rest.contains(&"refused");
    timed(count, || {
        for _ in 0..count {
            match *protocol {
                "tcp" => match TcpStream::connect(address) {
                    Ok(_) if !refused => {}
                    Err(error) if refused && error.kind() == ErrorKind::ConnectionRefused => {}
                    Ok(_) => bail!("connected, refusal expected"),
                    Err(error) => return Err(error).context("cannot connect"),
                },
                "udp" => {
                    let any: SocketAddr = match address {
                        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                    };
                    UdpSocket::bind(any).context("cannot bind")?.connect(address).context("cannot connect")?;
                }
                other => bail!("unknown protocol {other}"),
            }
        }
        Ok(())
    })
}

/// Connections that wait to be accepted at once: below the 128 that the standard library asks for.
const BATCH: u64 = 100;

fn loopback(count: u64) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    let address = listener.local_addr().context("no address")?;
    timed(count, || {
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            // Reset only once they are accepted: on another processor's queue a reset may overtake the acknowledgment that
            // ends the handshake, and the connection is then never there to be accepted.
            let mut connected = Vec::new();
            for _ in 0..batch {
                let stream = TcpStream::connect(address).context("cannot connect")?;
                // Closed by a reset: ports left in TIME_WAIT would make each later connect search longer for a free one.
                set_socket_linger(&stream, Some(Duration::ZERO)).context("cannot set SO_LINGER")?;
                connected.push(stream);
            }
            let mut accepted = Vec::new();
            for _ in 0..batch {
                accepted.push(listener.accept().context("cannot accept")?);
            }
            drop(connected);
            drop(accepted);
            left -= batch;
        }
        Ok(())
    })
}
