//! A software TPM of a test's own: never shared, on ports and in a directory that nobody else has.
//!
//! It is a real TPM 2.0 (libtpms) without a resource manager below it. [`Swtpm::kill`] is a power cut, [`Swtpm::stop`] an
//! orderly shutdown, [`Swtpm::pause`] a TPM that hangs, [`Swtpm::tool`] somebody else who uses it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::until;

/// How often other ports are tried when somebody took ours between finding and using them.
const PORT_TRIES: u32 = 20;

/// A running, or stopped, software TPM.
#[derive(Debug)]
pub struct Swtpm {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// Starts one without any state.
    pub fn start() -> Result<Self> {
        Self::start_in(tempfile::tempdir().context("cannot make a directory for a TPM")?)
    }

    fn start_in(dir: TempDir) -> Result<Self> {
        let mut tpm = Self { dir, port: 0, child: None };
        for _ in 0..PORT_TRIES {
            tpm.port = two_free_ports()?;
            if tpm.restart().is_ok() {
                return Ok(tpm);
            }
        }
        bail!("no two free ports in a row in {PORT_TRIES} tries")
    }

    /// Starts it again on its state and ports: a host that boots. It must not be running.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it is running");
        let (data, control) = (self.port, self.port + 1);
        let mut child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--server", &format!("type=tcp,port={data}")])
            .args(["--ctrl", &format!("type=tcp,port={control}")])
            .args(["--tpmstate", &format!("dir={}", self.dir.path().display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start swtpm: install the Debian package")?;
        until("swtpm listens", || {
            if let Some(status) = child.try_wait().context("cannot wait")? {
                bail!("swtpm ended with {status}");
            }
            Ok(TcpStream::connect(("127.0.0.1", control)).ok())
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Its TCTI.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Where its state is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A power cut.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it is not running")?;
        child.kill().context("cannot kill swtpm")?;
        child.wait().context("cannot wait for swtpm")?;
        Ok(())
    }

    /// TPM2_Shutdown, as a kernel does it, and the end.
    pub fn stop(&mut self) -> Result<()> {
        self.tool("tpm2_shutdown", &["-c"])?;
        self.kill()
    }

    /// It no longer answers, and does not say so.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// It answers again, what it was asked meanwhile first.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it is not running")?;
        let id = Pid::from_raw(i32::try_from(child.id()).context("a process id")?).context("a process id is not 0")?;
        kill_process(id, signal).context("cannot signal swtpm")
    }

    /// Runs one of the tpm2-tools on it; what it printed.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(name)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", self.tcti())
            .current_dir(self.dir.path())
            .output()
            .with_context(|| format!("cannot start {name}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} {arguments:?} ended with {}: {text}{said}", output.status);
        Ok(text)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if self.child.is_some() {
            // A paused one dies of SIGKILL too.
            drop(self.kill());
        }
    }
}

/// The first of two neighbors that were both free a moment ago.
fn two_free_ports() -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let first = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
        let port = first.local_addr().context("a port")?.port();
        if let Some(next) = port.checked_add(1)
            && TcpListener::bind(("127.0.0.1", next)).is_ok()
        {
            return Ok(port);
        }
    }
    bail!("no two free ports in a row")
}
