//! Opens N sessions as fast as the agent lets it, from many threads: `act-sessions N THREADS SOCKET`.
//!
//! Each is what `affiant run` does of a session, but for the command: one connection to the control socket, `open`, which is
//! answered when the session's entry is durable, and `ended`. Besides the time it says how long the longest `open` took.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a load measures how long each of its requests takes")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::timed;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut number = |name: &'static str| -> Result<u64> {
        arguments.next().context(name)?.to_string_lossy().parse().with_context(|| format!("{name} is a number"))
    };
    let (count, threads) = (number("N?")?, number("THREADS?")?);
    let socket = PathBuf::from(arguments.next().context("SOCKET?")?);
    let (next, longest) = (AtomicU64::new(0), AtomicU64::new(0));
    timed(count, || {
        thread::scope(|scope| {
            let open_all = || -> Result<()> {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let took = open(&socket)?.as_nanos();
                    longest.fetch_max(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
                Ok(())
            };
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(open_all)).collect();
            for handle in handles {
                match handle.join() {
                    Ok(outcome) => outcome?,
                    Err(_panic) => bail!("a thread panicked"),
                }
            }
            Ok(())
        })
    })?;
    let longest = longest.into_inner();
    writeln!(std::io::stdout(), "the longest took {longest} ns").context("cannot write the time")
}

/// Opens one session and ends it; how long `open` took.
fn open(socket: &Path) -> Result<Duration> {
    let stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    let mut stream = BufReader::new(stream);
    let start = Instant::now();
    let opened = ask(&mut stream, &json!({"do": "open"}))?;
    let took = start.elapsed();
    let id = opened.pointer("/opened/id").with_context(|| format!("no session: {opened}"))?;
    let status = json!({"code": 0, "signal": null});
    let ended = ask(&mut stream, &json!({"do": "ended", "id": id, "status": status}))?;
    ensure!(ended.get("done").is_some(), "not ended: {ended}");
    Ok(took)
}

fn ask(stream: &mut BufReader<UnixStream>, request: &Value) -> Result<Value> {
    stream.get_mut().write_all(format!("{request}\n").as_bytes()).context("cannot ask")?;
    let mut answer = String::new();
    stream.read_line(&mut answer).context("no answer")?;
    serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer:?}"))
}
