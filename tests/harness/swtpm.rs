//! A software TPM of a test's own: never shared, on ports and in a directory that nobody else has.
//!
//! It is a real TPM 2.0 (libtpms) without a resource manager below it. [`Swtpm::kill`] is a power cut, [`Swtpm::stop`] an
//! orderly shutdown, [`Swtpm::pause`] a TPM that hangs, [`Swtpm::tool`] somebody else who uses it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::until;

/// How often other ports are tried when somebody took ours between finding and using them.
const PORT_TRIES: u32 = 20;

/// What a TPM that notes its commands writes before each (swtpm's log at level 2); the bytes follow in the next line.
const COMMAND_NOTE: &str = "SWTPM_IO_Read:";

/// A running, or stopped, software TPM.
#[derive(Debug)]
pub struct Swtpm {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    /// Whether it notes every command.
    notes: bool,
}

/// How often a TPM was asked each command, by its code (TPM 2.0 part 2, section 6.5.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands(BTreeMap<u32, u64>);

impl Commands {
    /// Commands after which NV has changed: NV_UndefineSpaceSpecial, EvictControl, NV_UndefineSpace, Clear,
    /// NV_DefineSpace, NV_Increment, NV_SetBits, NV_Extend, NV_Write, NV_WriteLock.
    const NV_WRITES: [u32; 10] = [0x11f, 0x120, 0x122, 0x126, 0x12a, 0x134, 0x135, 0x136, 0x137, 0x138];
    /// NV_Increment.
    pub const NV_INCREMENT: u32 = 0x134;
    /// Quote.
    pub const QUOTE: u32 = 0x158;

    /// How often this one.
    #[must_use]
    pub fn of(&self, code: u32) -> u64 {
        self.0.get(&code).copied().unwrap_or_default()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those that wrote to NV.
    #[must_use]
    pub fn nv_writes(&self) -> u64 {
        Self::NV_WRITES.iter().map(|code| self.of(*code)).sum()
    }
}

impl Swtpm {
    /// Starts one without any state.
    pub fn start() -> Result<Self> {
        Self::start_with(false)
    }

    /// Starts one without any state that notes what it is asked ([`Swtpm::commands`]).
    pub fn start_noting() -> Result<Self> {
        Self::start_with(true)
    }

    fn start_with(notes: bool) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a directory for a TPM")?;
        let mut tpm = Self { dir, port: 0, child: None, notes };
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
        let mut command = Command::new("swtpm");
        if self.notes {
            command.args(["socket", "--log"]).arg(format!("file={},level=2", self.notes_file().display()));
        } else {
            command.arg("socket");
        }
        let mut child = command
            .args(["--tpm2", "--flags", "not-need-init,startup-clear"])
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

    fn notes_file(&self) -> PathBuf {
        self.dir.path().join("commands")
    }

    /// What it was asked so far. It must have been started with [`Swtpm::start_noting`].
    pub fn commands(&self) -> Result<Commands> {
        ensure!(self.notes, "it notes no commands");
        let notes = fs::read_to_string(self.notes_file()).context("cannot read what the TPM noted")?;
        let mut commands = BTreeMap::new();
        let mut lines = notes.lines();
        while lines.by_ref().any(|line| line.trim_start().starts_with(COMMAND_NOTE)) {
            // The header: tag, size, code (TPM 2.0 part 1, section 18.2). The last note may be unfinished.
            let bytes: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
            let Some(code) = bytes.get(6..10) else { break };
            let code = u32::from_str_radix(&code.concat(), 16).context("not bytes of a command")?;
            *commands.entry(code).or_default() += 1;
        }
        Ok(Commands(commands))
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
