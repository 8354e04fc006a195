//! Logs on web servers: a real one (`python3 -m http.server`), while the log grows, and servers that lie.

#![forbid(unsafe_code)]
#![cfg(feature = "http")]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use agent_evidence::command::verify_path;
use agent_evidence::fixture::{Builder, Files};
use agent_evidence::http::{Patience, WebServer};
use agent_evidence::note::NoteError;
use agent_evidence::verify::{Options, Report, Source, SourceError, VerifyError, verify, verify_bundle};

/// A log of some bundles.
fn log(entries: usize) -> Result<Builder, NoteError> {
    let mut log = Builder::new()?;
    log.append(Builder::armed());
    while log.entries.len() < entries {
        log.append(Builder::workload());
    }
    Ok(log)
}

fn write(directory: &Path, files: &Files) -> io::Result<()> {
    for (path, bytes) in &files.0 {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// Python's web server over a directory.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn new(directory: &Path) -> io::Result<Self> {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .args([directory.as_os_str(), "0".as_ref()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        // "Serving HTTP on 127.0.0.1 port 12345 (http://127.0.0.1:12345/) ..."
        let address = line.split(['(', ')']).nth(1).map(str::to_owned);
        let address = address.ok_or_else(|| io::Error::other(format!("no address in {line:?}")))?;
        Ok(Self { child, address })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn over_http(served: &Served, trust: Option<&Path>) -> Result<Report, String> {
    verify_path(Path::new(&served.address), trust, Options::default(), None).map_err(|error| error.in_full())
}

#[test]
fn a_log_on_a_plain_web_server_gets_the_report_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let log = log(900).unwrap();
    let (files, trust) = (log.files().unwrap(), directory.path().join("trust.toml"));
    fs::write(&trust, log.trust().unwrap().to_toml().unwrap()).unwrap();
    let place = directory.path().join("log");
    write(&place, &files).unwrap();
    let served = Served::new(&place).unwrap();
    let here = verify_path(&place, Some(&trust), Options::default(), None).unwrap();
    let there = over_http(&served, Some(&trust)).unwrap();
    assert_eq!((there.verdict.exit_code(), there.to_json()), (0, here.to_json()));
    assert_eq!(over_http(&served, None).unwrap().verdict.exit_code(), 2);

    fs::remove_file(place.join("tile/entries/001")).unwrap();
    let damaged = over_http(&served, Some(&trust)).unwrap();
    assert_eq!(damaged.findings.first().map(|finding| finding.name()), Some("bundle_missing"), "{damaged}");
    // What is not a log cannot be checked.
    fs::remove_dir_all(place.join("tile")).unwrap();
    fs::remove_file(place.join("checkpoint")).unwrap();
    assert!(over_http(&served, Some(&trust)).unwrap_err().contains("not an Affiant log"));
    let nobody = Served::new(&place).map(|served| served.address.clone()).unwrap();
    assert!(verify_path(Path::new(&nobody), Some(&trust), Options::default(), None).is_err());
}

#[test]
fn a_log_that_grows_while_it_is_read_from_a_web_server_is_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let early = log(600).unwrap();
    let trust = early.trust().unwrap();
    write(directory.path(), &early.files().unwrap()).unwrap();
    let served = Served::new(directory.path()).unwrap();
    let mut source = Growing {
        server: WebServer::open(&served.address, Patience::default()).unwrap(),
        place: directory.path().to_owned(),
        later: Some(log(1_300).unwrap().files().unwrap()),
    };
    let report = verify(&mut source, Some(&trust), Options::default()).unwrap();
    assert!(source.later.is_none());
    assert_eq!((report.verdict.exit_code(), report.checkpoint.map(|c| c.size.0)), (0, Some(600)));
    let report = verify(&mut source, Some(&trust), Options::default()).unwrap();
    assert_eq!((report.verdict.exit_code(), report.checkpoint.map(|c| c.size.0)), (0, Some(1_300)));
}

#[test]
fn no_more_is_taken_from_a_server_than_was_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let files = log(900).unwrap().files().unwrap();
    write(directory.path(), &files).unwrap();
    let needed: usize = files.0.values().map(Vec::len).sum();
    let served = Served::new(directory.path()).unwrap();
    let report = |bytes_max: usize| {
        let patience = Patience { bytes_max: bytes_max as u64, ..Patience::default() };
        let mut server = WebServer::open(&served.address, patience).unwrap();
        verify(&mut server, None, Options::default()).map(|report| report.verdict.exit_code())
    };
    assert_eq!(report(needed).unwrap(), 2, "self-consistent");
    let error = report(needed - 1).unwrap_err().to_string();
    assert!(error.contains(&format!("more than {} bytes in all", needed - 1)), "{error}");
    assert!(error.contains("--max-download-mib"), "{error}");

    let bundle = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/bundle/bundle.evb")).unwrap();
    fs::write(directory.path().join("s.evb"), &bundle).unwrap();
    let address = format!("{}s.evb", served.address);
    let report = |bytes_max: usize| {
        let patience = Patience { bytes_max: bytes_max as u64, ..Patience::default() };
        let server = WebServer::open(&address, patience).unwrap();
        let file = server.bundle().unwrap();
        verify_bundle(file, None, Options::default()).map(|report| report.verdict.exit_code())
    };
    assert_eq!(report(bundle.len()).unwrap(), 2);
    let error = report(bundle.len() - 1).unwrap_err().to_string();
    assert!(error.contains("bytes in all"), "{error}");
}

/// A server whose log grows as soon as its checkpoint was read, and whose writer removes partial files.
struct Growing {
    server: WebServer,
    place: std::path::PathBuf,
    later: Option<Files>,
}

impl Source for Growing {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let bytes = self.server.read(path, bytes_max)?;
        if path == "checkpoint"
            && let Some(later) = self.later.take()
        {
            let grown = write(&self.place, &later).and_then(|()| {
                fs::remove_file(self.place.join("tile/0/002.p/88"))?;
                fs::remove_file(self.place.join("tile/entries/002.p/88"))
            });
            grown.map_err(|error| SourceError { path: path.to_owned(), reason: error.to_string() })?;
        }
        Ok(bytes)
    }
}

/// A server that gives this answer to everything, and then what `more` says.
fn lying(answer: &'static str, more: fn(&mut TcpStream) -> io::Result<()>) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}/", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _request = stream.read(&mut request);
            // The client goes away when it has had enough.
            let _written = stream.write_all(answer.as_bytes()).and_then(|()| more(&mut stream));
            // A socket that is closed with something unread resets the connection, and the answer may be lost with it.
            let _ended = stream.shutdown(Shutdown::Write).and_then(|()| io::copy(&mut stream, &mut io::sink()));
        }
    });
    Ok(address)
}

fn asked(address: &str) -> Result<u8, VerifyError> {
    let patience =
        Patience { connect: Duration::from_secs(5), file: Duration::from_millis(700), ..Patience::default() };
    let mut server =
        WebServer::open(address, patience).map_err(|error| VerifyError::NotALog { reason: error.to_string() })?;
    verify(&mut server, None, Options::default()).map(|report| report.verdict.exit_code())
}

#[track_caller]
fn refused(address: &str, why: &str) {
    match asked(address) {
        Err(error) => assert!(error.to_string().contains(why), "{error}"),
        Ok(exit) => panic!("exit {exit}"),
    }
}

#[test]
fn a_server_that_lies_is_refused_and_never_waited_for() {
    let done: fn(&mut TcpStream) -> io::Result<()> = |_| Ok(());
    // A body that ends before its announced length.
    refused(&lying("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\naffiant", done).unwrap(), "checkpoint");
    // A body that never ends.
    let endless: fn(&mut TcpStream) -> io::Result<()> = |stream| {
        loop {
            stream.write_all(&[b'a'; 4096])?;
        }
    };
    refused(&lying("HTTP/1.1 200 OK\r\n\r\n", endless).unwrap(), "longer than 65536 bytes");
    // Heads that never end.
    let heads: fn(&mut TcpStream) -> io::Result<()> = |stream| {
        loop {
            stream.write_all(b"X-More: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")?;
        }
    };
    refused(&lying("HTTP/1.1 200 OK\r\n", heads).unwrap(), "checkpoint");
    // Nothing more comes, and the connection stays open.
    let silent: fn(&mut TcpStream) -> io::Result<()> = |stream| stream.read(&mut [0; 1]).map(drop);
    refused(&lying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", silent).unwrap(), "timeout");
    refused(&lying("", silent).unwrap(), "timeout");
    // Round in circles.
    refused(
        &lying("HTTP/1.1 302 Found\r\nLocation: /again\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", done)
            .unwrap(),
        "redirect",
    );
    refused(&lying("HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", done).unwrap(), "500");
    refused(
        &lying("HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", done).unwrap(),
        "206",
    );
    refused(&lying("SSH-2.0-OpenSSH_9.2\r\n", done).unwrap(), "checkpoint");
    refused(
        &lying("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", done).unwrap(),
        "not an Affiant log",
    );
}
