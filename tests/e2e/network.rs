//! What happens on sockets is in the log, exactly.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, program};

use crate::exactness::{assert_numbers_are_complete, of_session};

/// Class number of network events.
const NETWORK: u64 = 2;

fn marked(entry: &Entry, mark: &str) -> bool {
    entry.marks().any(|own| own == mark)
}

/// Accepts connections, one after the other: reads all that comes, then sends `answer` bytes and closes. The thread ends
/// with the process.
fn server(address: &str, answer: usize) -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind(address).context("cannot listen")?;
    let bound = listener.local_addr().context("no address")?;
    let thread = thread::spawn(move || -> Result<()> {
        loop {
            let (mut stream, _) = listener.accept().context("cannot accept")?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).context("cannot receive")?;
            stream.write_all(&vec![2; answer]).context("cannot send")?;
        }
    });
    Ok((bound, thread))
}

#[test]
fn each_address_of_2000_datagrams_is_in_the_log_once_and_once_more() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    for first in ["127.0.0.1:50101", "[::1]:50101"] {
        let first: SocketAddr = first.parse().context("an address")?;
        let addresses: Vec<String> =
            (0..10).map(|n| SocketAddr::new(first.ip(), first.port() + n).to_string()).collect();
        let mut arguments = vec!["datagrams", "2000"];
        arguments.extend(addresses.iter().map(String::as_str));
        let session = host.run_in_session(&program("act-network"), &arguments)?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, NETWORK)?;
        assert_eq!(lost, 0);
        let sends: Vec<&&Entry> = own.iter().filter(|entry| entry.kind() == "send").collect();
        for address in &addresses {
            let of: Vec<bool> = sends
                .iter()
                .filter(|entry| entry.body_text("remote") == Some(address))
                .map(|entry| marked(entry, "first_of_many"))
                .collect();
            assert_eq!(of, [false, true], "{address}");
        }
        assert_eq!(sends.len(), 20);
        for entry in sends {
            assert_eq!(entry.body_text("proto"), Some("udp"));
            ensure!(marked(entry, "result_not_observed") && entry.body("errno").is_none(), "{}", entry.line);
        }
    }
    assert_numbers_are_complete(&host.entries()?)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn each_of_500_accepts_is_in_the_log_and_each_connection_has_its_end() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    for family in ["v4", "v6"] {
        let session = host.run_in_session(&program("act-network"), &["serve", "500", family])?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, NETWORK)?;
        assert_eq!(lost, 0);
        let of = |kind: &str| own.iter().filter(|entry| entry.kind() == kind).copied().collect::<Vec<_>>();
        let (listens, accepts, connects, flows) = (of("listen"), of("accept"), of("connect"), of("flow"));
        assert_eq!((listens.len(), accepts.len(), connects.len(), flows.len()), (1, 500, 500, 1000), "{family}");
        let listening = listens.first().and_then(|entry| entry.body_text("local"));
        let mut sockets: Vec<&str> = flows.iter().filter_map(|entry| entry.body_text("socket")).collect();
        let mut made: Vec<&str> =
            accepts.iter().chain(&connects).filter_map(|entry| entry.body_text("socket")).collect();
        sockets.sort_unstable();
        made.sort_unstable();
        assert_eq!(sockets, made, "each socket has one end");
        for accept in accepts {
            assert_eq!(accept.body_text("local"), listening);
            assert!(!marked(accept, "racy"), "one thread: {}", accept.line);
        }
        for flow in flows {
            assert_eq!((flow.body_number("sent"), flow.body_number("received")), (Some(0), Some(0)));
            assert!(marked(flow, "deferred"));
        }
    }
    assert_numbers_are_complete(&host.entries()?)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn the_bytes_of_a_connection_are_counted_each_way() -> Result<()> {
    const SENT: u64 = 3_000_000;
    const RECEIVED: u64 = 1_234_567;
    let host = Host::new()?;
    let _daemon = host.start()?;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (bound, _server) = server(address, usize::try_from(RECEIVED).context("small")?)?;
        let bound = bound.to_string();
        let arguments = ["transfer", &SENT.to_string(), &RECEIVED.to_string(), &bound];
        let session = host.run_in_session(&program("act-network"), &arguments)?;
        let entries = host.entries_after_session(&session)?;
        let (own, _) = of_session(&entries, &session, NETWORK)?;
        let flows: Vec<&&Entry> = own.iter().filter(|entry| entry.kind() == "flow").collect();
        assert_eq!(flows.len(), 1);
        let flow = flows.first().context("one flow")?;
        assert_eq!(flow.body_text("remote"), Some(bound.as_str()));
        assert_eq!((flow.body_number("sent"), flow.body_number("received")), (Some(SENT), Some(RECEIVED)));
        ensure!(flow.body_number("duration").is_some_and(|duration| duration > 0), "{}", flow.line);
    }
    Ok(())
}

#[test]
fn who_serves_a_socket_of_the_host_is_in_the_log() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let path = host.open_directory("sockets")?.join("served");
    let path = path.to_str().context("a temporary directory is UTF-8")?;
    let session = host.run_in_session(&program("act-network"), &["unix", path])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, NETWORK)?;
    let connects: Vec<&&Entry> = own.iter().filter(|entry| entry.kind() == "connect_unix").collect();
    assert_eq!(connects.len(), 2);
    for connect in &connects {
        assert_eq!(connect.body_number("errno"), Some(0));
        // It serves itself.
        assert_eq!(connect.body_text("peer"), connect.process());
        assert_eq!(connect.body_number("peer_tgid"), connect.body_number("tgid"));
        assert_eq!(connect.body_number("peer_uid"), Some(0));
    }
    let names: Vec<_> = connects.iter().map(|entry| (entry.body_text("path"), entry.body_text("abstract"))).collect();
    ensure!(
        matches!(names.as_slice(), [(Some(own), None), (None, Some(name))]
            if *own == path && name.starts_with("affiant-test-")),
        "{names:?}"
    );
    Ok(())
}

#[test]
fn a_connection_belongs_to_who_made_it_whoever_closes_it() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let (bound, _server) = server("127.0.0.1:0", 0)?;
    let bound = bound.to_string();
    for (act, kind) in [("leave", "connect"), ("pass", "connect"), ("fast-open", "send")] {
        let session = host.run_in_session(&program("act-network"), &[act, &bound])?;
        let entries = host.entries_after_session(&session)?;
        let (own, _) = of_session(&entries, &session, NETWORK)?;
        let of = |kind: &str| own.iter().filter(|entry| entry.kind() == kind).copied().collect::<Vec<_>>();
        let (made, flows) = (of(kind), of("flow"));
        assert_eq!((made.len(), flows.len()), (1, 1), "{act}");
        let (made, flow) = (made.first().context("made")?, flows.first().context("ended")?);
        assert_eq!((made.body_text("remote"), made.body_text("proto")), (Some(bound.as_str()), Some("tcp")), "{act}");
        assert_eq!(flow.body_text("socket"), made.body_text("socket"), "{act}");
        assert_eq!(flow.process(), made.process(), "{act}");
        assert_eq!(flow.body_number("sent"), Some(5), "{act}");
    }
    Ok(())
}
