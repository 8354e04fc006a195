//! One run of the agent.

use std::fs::OpenOptions;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::Host;
use crate::until;

/// A running daemon. Dropping it kills it: a test that ends early leaves no process behind.
#[derive(Debug)]
pub struct Daemon<'a> {
    host: &'a Host,
    child: Child,
}

impl<'a> Daemon<'a> {
    /// Starts `command`, which is or becomes the daemon, and waits until it answers on its control socket.
    pub fn start(host: &'a Host, command: Command) -> Result<Self> {
        let mut daemon = Self::spawn(host, command)?;
        until("the daemon answers", || {
            if let Some(status) = daemon.child.try_wait().context("cannot wait")? {
                bail!("the daemon ended ({status}) before it was ready:\n{}", host.daemon_messages());
            }
            let answer = host.affiant(&["status"]).output().context("cannot start affiant status")?;
            Ok(answer.status.success().then_some(()))
        })
        .with_context(|| format!("daemon's messages:\n{}", host.daemon_messages()))?;
        Ok(daemon)
    }

    /// Starts `command` without waiting.
    pub fn spawn(host: &'a Host, mut command: Command) -> Result<Self> {
        let messages = OpenOptions::new()
            .create(true)
            .append(true)
            .open(host.path("daemon.log"))
            .context("cannot open the daemon's log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { host, child })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        until("the daemon ends", || self.child.try_wait().context("cannot wait"))
    }

    /// SIGKILL: no chance to write another byte.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the daemon")?;
        self.child.wait().context("cannot wait for the daemon")?;
        Ok(())
    }

    /// SIGTERM, and the end in order that must follow.
    pub fn stop(mut self) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id")?;
        let id = Pid::from_raw(id).context("a process id is not 0")?;
        kill_process(id, Signal::TERM).context("cannot signal the daemon")?;
        let status = self.wait()?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.host.daemon_messages());
        Ok(())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // Already ended, or must end now; either way there is nobody to tell.
        let killed = self.child.kill();
        let waited = self.child.wait();
        drop((killed, waited));
    }
}
