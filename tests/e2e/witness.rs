//! A real daemon and real witnesses: cosigned over HTTP and by files, while one is away, and when the log is rolled back.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, output_text, program, until};

/// A witness's key and memory, outside everything that is the host's.
struct Witness {
    place: PathBuf,
    vkey: String,
    address: String,
}

impl Witness {
    fn make(host: &Host, name: &str) -> Result<Self> {
        let place = host.path(name);
        fs::create_dir(&place).context("cannot make the witness's place")?;
        let made = Command::new(program("affiant"))
            .args(["witness", "init", "--name", &format!("witness.example/{name}"), "--key"])
            .arg(place.join("key"))
            .output()
            .context("cannot start affiant witness init")?;
        ensure!(made.status.success(), "{}", output_text(&made));
        let vkey = String::from_utf8(made.stdout).context("a verifier key")?.trim().to_owned();
        // A port that nobody has now.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("no free port")?;
        Ok(Self { place, vkey, address: address.to_string() })
    }

    /// `--key`, `--state` and `--log`.
    fn arguments(&self, log: &str) -> Vec<String> {
        let path = |name: &str| self.place.join(name).display().to_string();
        ["--key".to_owned(), path("key"), "--state".to_owned(), path("state"), "--log".to_owned(), log.to_owned()]
            .into()
    }

    fn serve(&self, log: &str) -> Result<Serving> {
        let child = Command::new(program("affiant"))
            .args(["witness", "--listen", &self.address])
            .args(self.arguments(log))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start affiant witness")?;
        let serving = Serving(child);
        until("the witness listens", || Ok(TcpStream::connect(&self.address).ok()))?;
        Ok(serving)
    }
}

/// A witness that serves until this is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let ended = (self.0.kill(), self.0.wait());
        drop(ended);
    }
}

/// Size of the newest checkpoint that an entry says a witness cosigned; 0 without one.
fn cosigned(entries: &[Entry], name: &str) -> u64 {
    let of = |entry: &&Entry| {
        entry.kind() == "witness"
            && entry.body_text("name") == Some(name)
            && entry.body_text("outcome") == Some("cosigned")
    };
    entries.iter().filter(of).filter_map(|entry| entry.body_number("size")).max().unwrap_or(0)
}

fn wait_for_cosigned(host: &Host, name: &str, at_least: u64) -> Result<u64> {
    until(&format!("{name} cosigns {at_least} entries"), || {
        let size = cosigned(&host.entries()?, name);
        Ok((size >= at_least).then_some(size))
    })
}

fn done(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = host.affiant(arguments).output().with_context(|| format!("cannot start affiant {arguments:?}"))?;
    ensure!(output.status.success(), "affiant {arguments:?}: {}", output_text(&output));
    Ok(output_text(&output))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status().context("cannot start cp")?;
    ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}

fn log_key(host: &Host) -> Result<String> {
    let trust = fs::read_to_string(host.trust_file()).context("cannot read the trust file")?;
    let line = trust.lines().find_map(|line| line.strip_prefix("log_key = \"")).context("a log key")?;
    Ok(line.trim_end_matches('"').to_owned())
}

#[test]
fn witnesses_cosign_a_running_log_come_back_and_find_a_state_directory_that_was_rolled_back() -> Result<()> {
    const ONE: &str = "witness.example/w1";
    const TWO: &str = "witness.example/w2";
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let key = log_key(&host)?;
    daemon.stop()?;
    let (one, two) = (Witness::make(&host, "w1")?, Witness::make(&host, "w2")?);
    host.configure(&format!(
        "[[witness]]\nvkey = {:?}\nurl = \"http://{}/\"\ninterval_s = 1\n\n[heartbeat]\ninterval_s = 1",
        one.vkey, one.address
    ))?;
    let serving = one.serve(&key)?;
    let daemon = host.start()?;
    wait_for_cosigned(&host, ONE, 1)?;

    // By files, with one that is not configured: the running daemon records what it has found to hold.
    let request = host.path("request");
    done(&host, &["witness", "export-request", "--vkey", &two.vkey, "-o", text(&request)?])?;
    let answer = host.path("cosigned");
    let cosign = Command::new(program("affiant"))
        .args(["witness", "cosign"])
        .arg(&request)
        .arg("-o")
        .arg(&answer)
        .args(two.arguments(&key))
        .output()
        .context("cannot start affiant witness cosign")?;
    ensure!(cosign.status.success(), "{}", output_text(&cosign));
    let refused = host.affiant(&["witness", "import"]).arg(&answer).args(["--vkey", &one.vkey]).output()?;
    assert_eq!(refused.status.code(), Some(65), "not this witness's: {}", output_text(&refused));
    let said = done(&host, &["witness", "import", text(&answer)?, "--vkey", &two.vkey])?;
    ensure!(said.contains("witness.example/w2 cosigned") && !said.contains("no daemon"), "{said}");
    wait_for_cosigned(&host, TWO, 1)?;

    // Both together prove that everybody was shown one history.
    let policy = host.path("policy");
    let lines = format!("witness w1 {}\nwitness w2 {}\ngroup both all w1 w2\nquorum both\n", one.vkey, two.vkey);
    fs::write(&policy, lines).context("cannot write the policy")?;
    fs::remove_file(host.trust_file()).context("cannot remove the trust file")?;
    let trust = host.trust_file();
    done(&host, &["trust", "init", "-o", text(&trust)?, "--witness-policy", text(&policy)?])?;
    let verdict = host.verify(&host.state().join("log"))?;
    ensure!(verdict.code == Some(0), "exit {:?}:\n{}", verdict.code, verdict.text);
    let line = verdict.text.lines().find(|line| line.contains("non_equivocation")).context("the claim")?;
    ensure!(line.contains(": PROVED: a quorum of the trusted witnesses (w1, w2)"), "{line}");

    // Nothing waits for a witness that is away, and it gets everything when it is back.
    drop(serving);
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    let entries = host.entries_after_session(&session)?;
    let ended = entries.iter().find(|entry| entry.kind() == "revoked").context("the session's end")?.index()?;
    until("the daemon misses it", || Ok(host.daemon_messages().contains("no cosignature").then_some(())))?;
    assert!(cosigned(&host.entries()?, ONE) <= ended, "nobody cosigned the session yet");
    let serving = one.serve(&key)?;
    wait_for_cosigned(&host, ONE, ended + 1)?;
    host.assert_verifies()?;
    daemon.stop()?;

    // The state directory, with its keys, as it was before the next session.
    let earlier = host.path("earlier");
    copied(&host.state(), &earlier)?;
    let daemon = host.start()?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    let seen = host.entries_after_session(&session)?.len() as u64;
    wait_for_cosigned(&host, ONE, seen)?;
    daemon.stop()?;
    let newest = host.path("newest");
    copied(&host.state().join("log/witness"), &newest)?;
    fs::remove_dir_all(host.state()).context("cannot remove the state directory")?;
    copied(&earlier, &host.state())?;
    let daemon = host.start()?;
    let conflict = until("the witness refuses a second history", || {
        let entries = host.entries()?;
        Ok(entries.into_iter().find(|entry| entry.body_text("outcome") == Some("conflict")))
    })?;
    assert_eq!((conflict.kind(), conflict.body_text("name")), ("witness", Some(ONE)), "{}", conflict.line);
    daemon.stop()?;
    drop(serving);
    // What the witness cosigned, beside the log, is what a verifier needs to find it out.
    let copy = host.copy_of_log("rolled-back")?;
    fs::remove_dir_all(copy.path().join("witness")).context("cannot remove what the log kept")?;
    copied(&newest, &copy.path().join("witness"))?;
    let verdict = host.verify(copy.path())?;
    assert_eq!(verdict.code, Some(1), "{}", verdict.text);
    let found = ["cosigned another history", "entries at its end were removed"];
    ensure!(found.iter().any(|text| verdict.text.contains(text)), "{}", verdict.text);
    Ok(())
}

#[test]
fn without_a_daemon_a_cosignature_is_kept_and_has_no_entry() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    daemon.stop()?;
    let (witness, key) = (Witness::make(&host, "w1")?, log_key(&host)?);
    let (request, answer) = (host.path("request"), host.path("cosigned"));
    done(&host, &["witness", "export-request", "--vkey", &witness.vkey, "-o", text(&request)?])?;
    let cosign = Command::new(program("affiant"))
        .args(["witness", "cosign", text(&request)?, "-o", text(&answer)?])
        .args(witness.arguments(&key))
        .output()
        .context("cannot start affiant witness cosign")?;
    ensure!(cosign.status.success(), "{}", output_text(&cosign));
    let said = done(&host, &["witness", "import", text(&answer)?, "--vkey", &witness.vkey])?;
    ensure!(said.contains("no daemon runs"), "{said}");
    ensure!(!host.entries()?.iter().any(|entry| entry.kind() == "witness"));
    let policy = host.path("policy");
    fs::write(&policy, format!("witness w1 {}\nquorum w1\n", witness.vkey)).context("cannot write the policy")?;
    fs::remove_file(host.trust_file()).context("cannot remove the trust file")?;
    done(&host, &["trust", "init", "-o", text(&host.trust_file())?, "--witness-policy", text(&policy)?])?;
    host.assert_verifies()
}
