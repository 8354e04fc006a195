//! Connects N times, one after the other: `act-connects N tcp|udp ADDRESS:PORT [refused]`.
//!
//! With `refused`, every TCP connect must be refused; without, every one must succeed. So N is exact.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, bail};
use tests::timed;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [count, protocol, address, rest @ ..] = arguments.as_slice() else {
        bail!("N tcp|udp ADDRESS:PORT [refused]");
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
