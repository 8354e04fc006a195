//! One installation of the agent, separate from everything else on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::bundles::{TreeDirectory, copy_directory};
use crate::daemon::Daemon;
use crate::entry::{Entry, entries_from_lines};

/// User and group id of `nobody`, who owns nothing.
pub const NOBODY: u32 = 65534;

/// Counts the installations of this process, so that their names differ.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Directories, configuration and names of one installation. Dropping it removes them, unless it was made to be kept.
#[derive(Debug)]
pub struct Host {
    directory: TempDir,
    name: String,
}

/// What `affiant-verify` said.
#[derive(Debug)]
pub struct Verdict {
    /// Exit code; none when it was killed by a signal (a panic is 101).
    pub code: Option<i32>,
    /// The text a person reads.
    pub text: String,
}

impl Host {
    /// An installation with default settings besides its own places.
    pub fn new() -> Result<Self> {
        Self::with("")
    }

    /// An installation with more configuration: whole tables in TOML, `[paths]` excepted.
    pub fn with(tables: &str) -> Result<Self> {
        let host = Self::create("affiant-test")?;
        host.configure(tables)?;
        Ok(host)
    }

    /// An installation whose files stay when it is dropped; its kernel objects and cgroups do not.
    pub fn kept(prefix: &str) -> Result<Self> {
        let mut host = Self::create(prefix)?;
        host.directory.disable_cleanup(true);
        host.configure("")?;
        Ok(host)
    }

    fn create(prefix: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "this needs root: the agent loads programs into the kernel");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let directory =
            tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir().context("no temporary directory")?;
        // Others reach the control socket and the programs' files through this directory, as they do through /run.
        set_mode(directory.path(), 0o755)?;
        Ok(Self { directory, name })
    }

    /// Replaces the configuration; `tables` as in [`Host::with`].
    pub fn configure(&self, tables: &str) -> Result<()> {
        let text = format!(
            "[paths]\nstate = {:?}\nrun = {:?}\nbpf_pins = {:?}\ncgroup_name = {:?}\n\n{tables}\n",
            self.state(),
            self.path("run"),
            self.pins(),
            self.name,
        );
        fs::write(self.config(), text).context("cannot write the configuration")
    }

    /// A path in the installation's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("affiant.toml")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The trust file, outside the state directory.
    #[must_use]
    pub fn trust_file(&self) -> PathBuf {
        self.path("trust.toml")
    }

    /// Where the kernel keeps this installation's objects.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    /// Name of the directory of session cgroups.
    #[must_use]
    pub fn cgroup_name(&self) -> &str {
        &self.name
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&self) -> Result<Daemon<'_>> {
        Daemon::start(self, self.daemon_command())
    }

    /// The command line of the daemon.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        self.affiant(&["daemon"])
    }

    /// `affiant` with this installation's configuration; the subcommand comes first.
    #[must_use]
    pub fn affiant(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("affiant"));
        let (subcommand, rest) = arguments.split_first().unwrap_or((&"--help", &[]));
        command.arg(subcommand).arg("--config").arg(self.config()).args(rest).stdin(Stdio::null());
        command
    }

    /// Runs a program in a session and waits for it; the session's id and what the program left.
    pub fn run_in_session(&self, program: &Path, arguments: &[&str]) -> Result<Session> {
        let output =
            self.affiant(&["run", "--"]).arg(program).args(arguments).output().context("cannot start affiant run")?;
        Session::of(output)
    }

    /// Every sealed entry, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let output = self.affiant(&["tail", "-o", "json"]).output().context("cannot start affiant tail")?;
        ensure!(output.status.success(), "affiant tail: {}", output_text(&output));
        entries_from_lines(&String::from_utf8_lossy(&output.stdout))
    }

    /// Waits until the session's `revoked` entry is sealed; then every entry of the log.
    pub fn entries_after_session(&self, session: &Session) -> Result<Vec<Entry>> {
        crate::until(&format!("the end of session {}", session.id), || {
            let entries = self.entries()?;
            let Some(issued) = entries.iter().find(|entry| entry.body_text("id") == Some(session.id.as_str())) else {
                return Ok(None);
            };
            let issued = issued.index()?;
            let ended = entries.iter().any(|entry| entry.kind() == "revoked" && entry.session() == Some(issued));
            Ok(ended.then_some(entries))
        })
    }

    /// Writes the trust file from the log as it is now.
    pub fn trust(&self) -> Result<()> {
        let output = self
            .affiant(&["trust", "init", "-o"])
            .arg(self.trust_file())
            .output()
            .context("cannot start affiant trust init")?;
        ensure!(output.status.success(), "affiant trust init: {}", output_text(&output));
        Ok(())
    }

    /// A copy of the log directory, to do damage to.
    pub fn copy_of_log(&self, name: &str) -> Result<TreeDirectory> {
        let copy = self.path(name);
        copy_directory(&self.state().join("log"), &copy)?;
        Ok(TreeDirectory::new(copy))
    }

    /// Verifies a directory with the trust file that [`Host::trust`] wrote.
    pub fn verify(&self, directory: &Path) -> Result<Verdict> {
        let mut command = Command::new(program("affiant-verify"));
        command.arg(directory).arg("--trust").arg(self.trust_file());
        verdict(&mut command)
    }

    /// Verifies a directory without a trust file.
    pub fn verify_without_trust(&self, directory: &Path) -> Result<Verdict> {
        verdict(Command::new(program("affiant-verify")).arg(directory))
    }

    /// Verifies the log in place and fails when it is not verified.
    pub fn assert_verifies(&self) -> Result<()> {
        let verdict = self.verify(&self.state().join("log"))?;
        ensure!(verdict.code == Some(0), "exit {:?}, 0 expected:\n{}", verdict.code, verdict.text);
        Ok(())
    }

    /// What the daemon wrote to standard error so far.
    #[must_use]
    pub fn daemon_messages(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// A fresh directory anyone may write to.
    pub fn open_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).context("cannot create a directory")?;
        set_mode(&path, 0o777)?;
        Ok(path)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What is left of a failed test must not disturb the next one; that it cannot be removed is not this test's verdict.
        let pins = fs::remove_dir_all(self.pins());
        let cgroups = cgroup2_mount().map(|mount| remove_cgroups(&mount.join(&self.name)));
        drop((pins, cgroups));
    }
}

/// A session that has ended.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// What the command left.
    pub output: Output,
}

impl Session {
    /// Reads the id from standard error, where `affiant run` writes it, and fails when the command did.
    pub fn of(output: Output) -> Result<Self> {
        let text = output_text(&output);
        ensure!(output.status.success(), "affiant run: {text}");
        let errors = String::from_utf8_lossy(&output.stderr);
        let id = errors
            .lines()
            .filter_map(|line| line.strip_prefix("affiant:"))
            .find_map(|line| line.split_once("session ").and_then(|(_, rest)| rest.split_whitespace().next()))
            .with_context(|| format!("no session id on standard error: {text}"))?;
        Ok(Self { id: id.to_owned(), output })
    }
}

/// Standard output, standard error and exit status, for messages.
#[must_use]
pub fn output_text(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Where [`program`] looks first, when [`use_programs_in`] was called.
static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();

/// Chooses the programs of one build; only the first call counts.
pub fn use_programs_in(directory: PathBuf) {
    PROGRAMS.get_or_init(|| directory);
}

/// A program of this workspace: in the directory chosen with [`use_programs_in`], else in the one that the environment
/// variable `AFFIANT_PROGRAMS` names, else above this program in the target directory.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    if let Some(directory) = PROGRAMS.get() {
        return directory.join(name);
    }
    if let Some(directory) = std::env::var_os("AFFIANT_PROGRAMS") {
        return PathBuf::from(directory).join(name);
    }
    // <target>/<profile>/deps/e2e-<hash>, or <target>/<profile>/xtask
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .skip(1)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// The Python interpreter with the pinned packages, from `AFFIANT_TEST_PYTHON`.
pub fn python() -> Result<PathBuf> {
    std::env::var_os("AFFIANT_TEST_PYTHON")
        .map(PathBuf::from)
        .context("AFFIANT_TEST_PYTHON is not set: `cargo xtask test` prepares it")
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn verdict(command: &mut Command) -> Result<Verdict> {
    let output = command.stdin(Stdio::null()).output().context("cannot start affiant-verify")?;
    Ok(Verdict { code: output.status.code(), text: output_text(&output) })
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("no /proc/mounts")?;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, mount, "cgroup2", ..] = fields.as_slice() {
            return Ok(PathBuf::from(mount));
        }
    }
    bail!("no cgroup2 hierarchy is mounted")
}

/// Removes a cgroup and those below it; processes in them make that fail.
fn remove_cgroups(directory: &Path) -> Result<()> {
    let mut order = vec![directory.to_path_buf()];
    let mut next = 0;
    while let Some(current) = order.get(next).cloned() {
        next += 1;
        for item in fs::read_dir(&current).context("no such cgroup")? {
            let item = item.context("cannot read a cgroup")?;
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                order.push(item.path());
            }
        }
    }
    for cgroup in order.iter().rev() {
        fs::remove_dir(cgroup).with_context(|| format!("cannot remove {}", cgroup.display()))?;
    }
    Ok(())
}
