//! Acts on sockets other than connecting, each exactly as often as asked:
//!
//! - `act-network datagrams N ADDRESS:PORT...` sends N datagrams from one socket, to each address in turn.
//! - `act-network serve N v4|v6` listens, and N times connects to itself and accepts.
//! - `act-network transfer SENT RECEIVED ADDRESS:PORT` connects, sends and receives so many bytes.
//! - `act-network leave ADDRESS:PORT` connects, and has a child that inherited the socket send 5 bytes and close it last.
//! - `act-network pass ADDRESS:PORT` connects, and hands the socket to a child (SCM_RIGHTS) that does the same.
//! - `act-network unix PATH` listens on a path and on an abstract name, and connects to both.
//! - `act-network fast-open ADDRESS:PORT` sends 5 bytes with the first segment, without connect(2).
//!
//! Each ends only when the kernel has closed its connections, so that nothing of them comes after the process.

#![forbid(unsafe_code)]

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketType,
};
use tests::{timed, until};

/// `MSG_FASTOPEN`, for which rustix has no name.
const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
/// What a child sends.
const WORDS: &[u8; 5] = b"hello";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["datagrams", count, addresses @ ..] => datagrams(count.parse().context("N is a number")?, addresses),
        ["serve", count, family] => serve(count.parse().context("N is a number")?, *family == "v6"),
        ["transfer", sent, received, address] => transfer(
            sent.parse().context("SENT is a number")?,
            received.parse().context("RECEIVED is a number")?,
            address.parse().context("ADDRESS:PORT")?,
        ),
        ["leave", address] => leave(address.parse().context("ADDRESS:PORT")?),
        ["pass", address] => pass(address.parse().context("ADDRESS:PORT")?),
        ["unix", path] => unix(path),
        ["fast-open", address] => fast_open(address.parse().context("ADDRESS:PORT")?),
        ["child-inherited"] => speak(std::io::stdin().as_fd().try_clone_to_owned().context("no socket")?),
        ["child-passed"] => child_passed(),
        _ => bail!("datagrams | serve | transfer | leave | pass | unix | fast-open: see the source"),
    }
}

fn any(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn datagrams(count: usize, addresses: &[&str]) -> Result<()> {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| address.parse().context("ADDRESS:PORT")).collect::<Result<_>>()?;
    let socket = UdpSocket::bind(any(*addresses.first().context("no address")?)).context("cannot bind")?;
    timed(u64::try_from(count).context("a count")?, || {
        for address in addresses.iter().cycle().take(count) {
            socket.send_to(b"x", address).context("cannot send")?;
        }
        Ok(())
    })
}

fn serve(count: u64, v6: bool) -> Result<()> {
    let address: SocketAddr = if v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let listener = TcpListener::bind(address).context("cannot listen")?;
    let address = listener.local_addr().context("no address")?;
    for _ in 0..count {
        let near = TcpStream::connect(address).context("cannot connect")?;
        let (far, _) = listener.accept().context("cannot accept")?;
        drop(far);
        drop(near);
    }
    gone(address.port())
}

fn transfer(sent: usize, received: usize, address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    let port = stream.local_addr().context("no address")?.port();
    stream.write_all(&vec![1; sent]).context("cannot send")?;
    stream.shutdown(std::net::Shutdown::Write).context("cannot shut down")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("cannot receive")?;
    ensure!(answer.len() == received, "{} bytes came, {received} expected", answer.len());
    drop(stream);
    gone(port)
}

fn leave(address: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(address).context("cannot connect")?;
    let port = stream.local_addr().context("no address")?.port();
    let mut child = again("child-inherited", OwnedFd::from(stream))?;
    ensure!(child.wait().context("no child")?.success(), "the child failed");
    gone(port)
}

fn pass(address: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(address).context("cannot connect")?;
    let port = stream.local_addr().context("no address")?.port();
    let (ours, theirs) = UnixStream::pair().context("no pair")?;
    let mut child = again("child-passed", OwnedFd::from(theirs))?;
    let passed = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(&passed)), "no room for one descriptor");
    rustix::net::sendmsg(&ours, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).context("cannot pass")?;
    drop(stream);
    ensure!(child.wait().context("no child")?.success(), "the child failed");
    gone(port)
}

fn child_passed() -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    rustix::net::recvmsg(std::io::stdin(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())
        .context("cannot receive")?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    speak(passed.context("nothing was passed")?)
}

/// Says what it has to say, and is the last to close the socket.
fn speak(socket: OwnedFd) -> Result<()> {
    let mut stream = TcpStream::from(socket);
    stream.write_all(WORDS).context("cannot send")?;
    Ok(())
}

fn unix(path: &str) -> Result<()> {
    let _listener = UnixListener::bind(path).context("cannot listen")?;
    UnixStream::connect(path).context("cannot connect")?;
    let name = format!("affiant-test-{}", std::process::id());
    let hidden = std::os::unix::net::SocketAddr::from_abstract_name(name).context("no such name")?;
    let _listener = UnixListener::bind_addr(&hidden).context("cannot listen")?;
    UnixStream::connect_addr(&hidden).context("cannot connect")?;
    Ok(())
}

fn fast_open(address: SocketAddr) -> Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).context("no socket")?;
    rustix::net::sendto(&socket, WORDS, FAST_OPEN, &address).context("cannot send with the first segment")?;
    let stream = TcpStream::from(socket);
    let port = stream.local_addr().context("no address")?.port();
    drop(stream);
    gone(port)
}

/// This program, with a socket for its standard input.
fn again(act: &str, stdin: OwnedFd) -> Result<std::process::Child> {
    let program = std::env::current_exe().context("no program")?;
    Command::new(program).arg(act).stdin(Stdio::from(stdin)).spawn().context("cannot start a child")
}

/// Waits until no connection from or to the port is left, those in TIME_WAIT aside, which have no socket any more.
fn gone(port: u16) -> Result<()> {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let ends = format!(":{port:04X}");
    until("the connections to be closed", || {
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = std::fs::read_to_string(table).with_context(|| format!("cannot read {table}"))?;
            let open = text.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                matches!(words.as_slice(), [_, local, remote, state, ..]
                    if (local.ends_with(&ends) || remote.ends_with(&ends)) && *state != TIME_WAIT && *state != LISTEN)
            });
            if open {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}
