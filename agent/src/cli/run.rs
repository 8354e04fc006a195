//! `affiant run`: opens a session, runs a command in it, and passes everything else through.
//!
//! The parent stays outside the session: it opens it, starts the hidden child `session-exec`,
//! forwards signals, waits, and says how the command ended. The child joins the session while its
//! connection is open and then becomes the command, so the command's first instruction is already
//! inside. The terminal belongs to both: the child stays in the parent's process group.
//!
//! The join token travels in the child's environment, which only the same user and root can read;
//! it is good once, and is gone before the command runs.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::cli::exit::{self, Exit};
use crate::cli::output;
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{CommandStatus, Reply, Request, SessionOpened};

/// Name of the environment variable that carries the join token to the child.
const TOKEN_VARIABLE: &str = "AFFIANT_JOIN_TOKEN";

/// Signals that are the command's business. `SIGTSTP` is not here: the terminal sends it to both,
/// and the parent must stop too for the shell to see the job stopped.
const FORWARDED: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// `si_code` of a signal that the kernel raised by itself, as the terminal does for its whole
/// foreground process group (include/uapi/asm-generic/siginfo.h). The child has it already.
const SI_KERNEL: i32 = 0x80;

/// What `affiant run` was asked to do.
#[derive(Debug)]
pub struct Wish {
    /// The control socket.
    pub socket: PathBuf,
    /// Identity wanted.
    pub identity: Option<String>,
    /// What it is for.
    pub task: Option<String>,
    /// Time to live in nanoseconds.
    pub ttl_ns: Option<u64>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// The command and its arguments; not empty.
    pub command: Vec<OsString>,
}

/// Opens a session, runs the command in it, and returns the command's own exit code.
///
/// # Errors
/// No daemon, refused, or the child could not be started.
pub fn run(wish: Wish) -> Result<u8, Exit> {
    let Wish { socket, identity, task, ttl_ns, labels, command } = wish;
    let mut lifeline = Client::connect(&socket)?;
    let opened = match lifeline.ask(&Request::Open { identity, task, ttl_ns, labels })? {
        Reply::Opened(opened) => opened,
        _ => return Err(ClientError::Mismatch.into()),
    };
    output::complain(&format!("session {}", opened.id));

    let signals = block_signals()?;
    let mut child = match start(&socket, &opened, &command) {
        Ok(child) => child,
        Err(error) => {
            let code = 1;
            report_end(&socket, lifeline, &opened.id, CommandStatus { code: Some(code), signal: None });
            return Err(Exit::new(exit::SOFTWARE, format!("cannot start a process for the session: {error}")));
        }
    };
    let status = wait(&mut child, &signals)?;
    let ended = CommandStatus { code: status.code(), signal: status.signal() };
    report_end(&socket, lifeline, &opened.id, ended);
    Ok(exit_code(status))
}

/// The command's own code; 128 + n when signal n ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    // Linux keeps eight bits of an exit code, and signals end at 64.
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::SOFTWARE)
}

/// Holds back the forwarded signals and `SIGCHLD` from this thread, the only one, so that none is
/// lost between the child's start and the wait. Dispositions stay as inherited, so what `nohup`
/// ignores stays ignored in the command.
fn block_signals() -> Result<SignalFd, Exit> {
    let set = held_signals();
    set.thread_block().map_err(|errno| signal_failure("block", errno))?;
    SignalFd::new(&set).map_err(|errno| signal_failure("read", errno))
}

fn held_signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in FORWARDED {
        set.add(signal);
    }
    set.add(Signal::SIGCHLD);
    set
}

fn signal_failure(step: &str, errno: Errno) -> Exit {
    Exit::new(exit::SOFTWARE, format!("cannot {step} signals: {errno}"))
}

fn start(socket: &Path, opened: &SessionOpened, command: &[OsString]) -> io::Result<Child> {
    // The running file itself, also when the package was replaced meanwhile.
    Command::new("/proc/self/exe")
        .arg0("affiant")
        .arg("session-exec")
        .arg("--socket")
        .arg(socket)
        .arg("--")
        .args(command)
        .env(TOKEN_VARIABLE, &opened.join_token)
        .spawn()
}

/// Waits for the child and hands on the signals that were sent to the parent meanwhile.
fn wait(child: &mut Child, signals: &SignalFd) -> Result<ExitStatus, Exit> {
    let fail = |error: io::Error| Exit::new(exit::SOFTWARE, format!("cannot wait for the command: {error}"));
    let pid = i32::try_from(child.id()).map_err(|error| fail(io::Error::other(error)))?;
    loop {
        if let Some(status) = child.try_wait().map_err(fail)? {
            return Ok(status);
        }
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(fail(errno.into())),
        };
        let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) else {
            continue;
        };
        if signal == Signal::SIGCHLD || info.ssi_code == SI_KERNEL {
            continue;
        }
        // The child is not reaped yet, so its process id is its own. That it may have ended is
        // no error: the next turn finds out.
        if let Err(errno) = kill(Pid::from_raw(pid), signal)
            && errno != Errno::ESRCH
        {
            output::complain(&format!("cannot forward {signal}: {errno}"));
        }
    }
}

/// Tells the daemon how the command ended. A daemon that was restarted meanwhile is told over a
/// new connection; the command's own exit code counts more than a failure here.
fn report_end(socket: &Path, mut lifeline: Client, id: &str, status: CommandStatus) {
    let request = Request::Ended { id: id.to_owned(), status };
    let first = lifeline.ask(&request);
    let told = match first {
        Err(ClientError::Broken(_) | ClientError::Closed) => {
            Client::connect(socket).and_then(|mut client| client.ask(&request))
        }
        other => other,
    };
    if let Err(error) = told {
        output::complain(&format!("session {id}: the daemon was not told how the command ended: {error}"));
    }
}

/// The hidden child: joins the session and becomes the command. Returns only when it cannot.
pub fn session_exec(socket: &Path, command: &[OsString]) -> Exit {
    #[expect(
        clippy::disallowed_methods,
        reason = "the token must not stand on a command line, which every user can read"
    )]
    let token = std::env::var(TOKEN_VARIABLE).unwrap_or_default();
    let (Some(program), arguments) = (command.first(), command.get(1..).unwrap_or_default()) else {
        return Exit::new(exit::USAGE, "session-exec needs a command");
    };
    // A signal mask is inherited by children and over exec; the command must not notice ours.
    if let Err(errno) = held_signals().thread_unblock() {
        return signal_failure("unblock", errno);
    }
    let joined = Client::connect(socket).and_then(|mut client| client.ask(&Request::Join { token }));
    match joined {
        Ok(Reply::Done {}) => {}
        Ok(_) => return ClientError::Mismatch.into(),
        Err(error) => return error.into(),
    }
    let error = Command::new(program).args(arguments).env_remove(TOKEN_VARIABLE).exec();
    exec_failure(program, &error)
}

fn exec_failure(program: &OsStr, error: &io::Error) -> Exit {
    let shown = output::printable(&program.to_string_lossy());
    match error.kind() {
        io::ErrorKind::NotFound => Exit::new(exit::NOT_FOUND, format!("{shown}: command not found")),
        _ => Exit::new(exit::NOT_EXECUTABLE, format!("{shown}: cannot be executed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_commands_own() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(255 << 8)), 255);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(15 | 0x80)), 143);
    }

    #[test]
    fn a_missing_command_is_127_and_anything_else_126() {
        let missing = Command::new("/nonexistent/x").exec();
        assert_eq!(exec_failure(OsStr::new("x"), &missing).code, 127);
        let directory = Command::new("/").exec();
        assert_eq!(exec_failure(OsStr::new("/"), &directory).code, 126);
    }
}
