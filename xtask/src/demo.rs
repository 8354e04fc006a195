//! `cargo xtask demo`: a real notebook under the agent, what the log says of it, and what one flipped byte does.
//!
//! Everything is real and nothing is prepared: the programs just built, the running kernel, a notebook executed by nbclient. The
//! agent gets an installation of its own, so one already on the machine is not disturbed. The trust file is written before the
//! notebook runs and outside the state directory, as an auditor would keep it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tests::{Host, Session, TreeDirectory, copy_directory, program};

use crate::build::{self, Profile};
use crate::process::{Color, paint, seconds};
use crate::setup;
use crate::workspace::Workspace;

/// The longest request the demonstration's service reads, in bytes: the notebook's is under 2 KiB.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// The file whose opening is looked for in the log, and tampered with in the copy.
const SECRET: &str = "secrets/scoring-api.token";
/// The identity that the notebook runs under.
const IDENTITY: &str = "spiffe://demo.example/pilot/claims-review";

/// `cargo xtask demo`.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let started = Instant::now();
    let interpreter = setup::python(workspace)?;
    build::ebpf(workspace, Profile::Dev)?;
    build::host(workspace, Profile::Dev)?;

    let host = Host::kept("affiant-demo")?;
    heading(1, "The agent starts, on an installation of its own");
    say(&format!("affiant daemon --config {}", host.config().display()));
    let daemon = host.start()?;
    show(&mut host.affiant(&["status"]))?;

    heading(2, "An auditor writes down whom to trust, before anything happens");
    host.trust()?;
    say(&format!("affiant trust init -o {}", host.trust_file().display()));

    heading(3, "A data scientist runs a notebook in a session");
    let work = host.open_directory("work")?;
    let material = workspace.root.join("tests/demo");
    for name in ["data", "secrets"] {
        copy_directory(&material.join(name), &work.join(name))?;
    }
    fs::copy(material.join("pilot.ipynb"), work.join("pilot.ipynb")).context("cannot copy the notebook")?;
    let service = scoring_service()?;
    let session = run_notebook(&host, &interpreter, &material.join("run_notebook.py"), &work, service)?;
    let entries = host.entries_after_session(&session)?;
    ensure!(work.join("out/review-first.json").is_file(), "the notebook wrote no result");

    heading(4, "What the log says that session did");
    say(&format!("affiant timeline {}", session.id));
    show(&mut host.affiant(&["timeline", &session.id]))?;

    heading(5, "The verdict of the verifier, which needs the log and the trust file, and no agent");
    daemon.stop()?;
    let log = host.state().join("log");
    let verdict = verify(&host, &log, None)?;
    ensure!(verdict == Some(0), "exit {verdict:?}, 0 expected");
    say(&format!("exit 0: {}", paint(Color::Green, "every claim the trust file requires is proved")));

    heading(6, "Somebody edits one byte in a copy of the log");
    let index = flip(&host, &work)?;
    let verdict = verify(&host, &host.path("tampered-log"), Some("Claims "))?;
    ensure!(verdict == Some(1), "exit {verdict:?}, 1 expected");
    say(&format!("exit 1: {}", paint(Color::Red, &format!("the finding names entry {index}"))));

    println!("\n{}", paint(Color::Bold, "Shown, by commands you can run again"));
    println!("  {} entries in the log, session {} under {IDENTITY}", entries.len(), session.id);
    println!("  everything is in {}:", host.path("").display());
    println!("    state/log  trust.toml  work/executed.ipynb  tampered-log  daemon.log");
    println!("  {} {} --trust {}", program("affiant-verify").display(), log.display(), host.trust_file().display());
    println!("  done in {}", seconds(started.elapsed()));
    Ok(true)
}

fn heading(number: u32, text: &str) {
    println!("\n{}", paint(Color::Bold, &format!("{number}/6  {text}")));
}

fn say(text: &str) {
    println!("  {text}");
}

/// Runs a program whose output is part of the demonstration.
fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?}: {status}", command.get_program());
    Ok(())
}

fn run_notebook(host: &Host, interpreter: &Path, runner: &Path, work: &Path, service: SocketAddr) -> Result<Session> {
    let options =
        ["run", "--identity", IDENTITY, "--task", "rank open claims for review", "--label", "team=claims", "--"];
    say(&format!("affiant {} python run_notebook.py pilot.ipynb executed.ipynb", options.join(" ")));
    let scratch = host.path("jupyter");
    let output = host
        .affiant(&options)
        .arg(interpreter)
        .arg(runner)
        .args(["pilot.ipynb", "executed.ipynb"])
        .current_dir(work)
        .env("SCORING_SERVICE", format!("http://{service}"))
        .env("JUPYTER_RUNTIME_DIR", scratch.join("runtime"))
        .env("JUPYTER_CONFIG_DIR", scratch.join("config"))
        .env("IPYTHONDIR", scratch.join("ipython"))
        .stderr(Stdio::piped())
        .output()
        .context("cannot start affiant run")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    print!("{}", String::from_utf8_lossy(&output.stderr));
    Session::of(output)
}

/// Verifies a log directory before the reader's eyes, up to the line that begins with `until`; the exit code.
fn verify(host: &Host, log: &Path, until: Option<&str>) -> Result<Option<i32>> {
    say(&format!("affiant-verify {} --trust {}", log.display(), host.trust_file().display()));
    let output = Command::new(program("affiant-verify"))
        .arg(log)
        .arg("--trust")
        .arg(host.trust_file())
        .output()
        .context("cannot start affiant-verify")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        if until.is_some_and(|until| line.starts_with(until)) {
            say("(the rest as before)");
            break;
        }
        say(line);
    }
    print!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.status.code())
}

/// Copies the log and changes one letter of the secret's path in the entry that tells of its opening; that entry's index.
fn flip(host: &Host, work: &Path) -> Result<u64> {
    let tree: TreeDirectory = host.copy_of_log("tampered-log")?;
    let path = work.join(SECRET);
    let path = path.to_str().context("the temporary directory is UTF-8")?;
    let (bundle, place) = tree.find_text(&format!("\"path\":\"{path}\""))?;
    let mut entries = tree.bundle(bundle)?;
    let entry = entries.get_mut(place).context("the entry just found")?;
    let at = find(entry, SECRET.as_bytes()).context("the path just found")?;
    let byte = entry.get_mut(at).context("the first byte of it")?;
    let before = char::from(*byte);
    *byte ^= 1;
    let after = char::from(*byte);
    tree.write_bundle(bundle, &entries)?;
    let index = TreeDirectory::first_index(bundle) + place as u64;
    say(&format!("entry {index}, the opening of {SECRET}: {before:?} becomes {after:?}"));
    Ok(index)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A local HTTP service outside the session, which answers every request alike for as long as this program runs.
fn scoring_service() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on the loopback address")?;
    let address = listener.local_addr().context("no address")?;
    thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that goes away is its own problem.
            if let Err(error) = connection.map_err(anyhow::Error::from).and_then(answer) {
                println!("  scoring service: {error:#}");
            }
        }
    });
    Ok(address)
}

fn answer(mut connection: TcpStream) -> Result<()> {
    let mut request = BufReader::new(connection.try_clone().context("cannot read")?.take(REQUEST_BYTES_MAX));
    let mut length = 0;
    loop {
        let mut line = String::new();
        if request.read_line(&mut line).context("cannot read the request")? == 0 {
            bail!("the request ends in its header");
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().with_context(|| format!("{name}: {value}"))?;
        }
    }
    let mut body = Vec::new();
    request.take(length).read_to_end(&mut body).context("cannot read the request's body")?;
    let text = r#"{"model":"claims-2"}"#;
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .context("cannot answer")
}
