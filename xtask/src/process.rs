//! Running other programs: each with a name, elapsed time, a log file, and a sign of life while it takes long.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a step that still runs says so. Shorter than the shortest silence limit of the usual CI services (10 minutes).
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(20);
/// How long to wait between two looks at a running child. Long enough to cost nothing, short enough not to be noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// How much of a failed step's log is shown.
const SHOWN_LINES_MAX: usize = 60;
/// How much of a log is read to find its last lines, in bytes.
const TAIL_BYTES_MAX: u64 = 64 * 1024;

/// What a finished step left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whether the program exited with 0.
    pub(crate) success: bool,
    /// Standard output and standard error, in the order they were written.
    pub(crate) log: PathBuf,
}

impl Finished {
    /// Everything the program wrote.
    pub(crate) fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Runs `command` as a named step: output to `<logs>/<slug>.log`, one line when it starts, one when it ends.
///
/// Standard input is closed, so that nothing can wait for an answer. A program that exits with another code than 0 is not an
/// error here: see [`Finished::success`]. Its last lines are printed.
pub(crate) fn step(logs: &Path, name: &str, command: &mut Command) -> Result<Finished> {
    fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let log = logs.join(format!("{}.log", slug(name)));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log file")?;

    println!("==> {name}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let mut said = started;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the child")? {
            break status;
        }
        if said.elapsed() >= SIGN_OF_LIFE_INTERVAL {
            said = Instant::now();
            let last = last_lines(&log, 1).unwrap_or_default();
            println!("    {:>4} s: {}", started.elapsed().as_secs(), last.trim());
        }
        thread::sleep(POLL_INTERVAL);
    };
    let elapsed = seconds(started.elapsed());
    if status.success() {
        println!("    {} in {elapsed}", paint(Color::Green, "done"));
    } else {
        println!("    {} ({status}) in {elapsed}", paint(Color::Red, "failed"));
        for line in last_lines(&log, SHOWN_LINES_MAX).unwrap_or_default().lines() {
            println!("    | {line}");
        }
        println!("    whole log: {}", log.display());
    }
    Ok(Finished { success: status.success(), log })
}

/// As [`step`], for a step without which nothing after it makes sense.
pub(crate) fn required_step(logs: &Path, name: &str, command: &mut Command) -> Result<Finished> {
    let finished = step(logs, name, command)?;
    if !finished.success {
        bail!("{name}: failed; log in {}", finished.log.display());
    }
    Ok(finished)
}

/// Runs a program for its standard output; `None` when it is absent or fails.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs a program that takes no time and is of no interest unless it fails, with another code than those allowed: then its
/// output is in the error.
pub(crate) fn quiet(command: &mut Command, allowed: &[i32]) -> Result<()> {
    let name = command.get_program().to_os_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name:?}"))?;
    if !output.status.code().is_some_and(|code| allowed.contains(&code)) {
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        bail!("{name:?}: {}: {}", output.status, said.join("\n"));
    }
    Ok(())
}

/// Rustup's Cargo as this program was started by it, without the variables that would leak this package into the child.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUSTC", "RUSTC_BOOTSTRAP"] {
        command.env_remove(name);
    }
    command
}

/// A duration as people read it.
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// Colors the demonstration and the step lines use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Color {
    /// It holds.
    Green,
    /// It does not.
    Red,
    /// A heading.
    Bold,
}

/// The text, colored when standard output is a terminal.
pub(crate) fn paint(color: Color, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match color {
        Color::Green => "32",
        Color::Red => "31",
        Color::Bold => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The letters and digits of a name, its words joined by dashes.
fn slug(name: &str) -> String {
    name.split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
        .to_ascii_lowercase()
}

/// The last lines of a file, read from its end only.
fn last_lines(path: &Path, count: usize) -> Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(count);
    Ok(lines.get(first..).unwrap_or_default().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_output_and_verdict() {
        let logs = std::env::temp_dir().join(format!("xtask-step-{}", std::process::id()));
        let finished =
            step(&logs, "Say It!", Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert!(!finished.success);
        assert_eq!(finished.output().unwrap(), "out\nerr\n");
        assert_eq!(finished.log.file_name().unwrap(), "say-it.log");
        fs::remove_dir_all(&logs).unwrap();
    }

    #[test]
    fn a_quiet_program_is_heard_when_it_fails() {
        quiet(Command::new("sh").args(["-c", "exit 1"]), &[0, 1]).unwrap();
        let error = quiet(Command::new("sh").args(["-c", "echo why; exit 2"]), &[0, 1]).unwrap_err();
        assert!(error.to_string().ends_with("why\n"), "{error}");
    }

    #[test]
    fn an_absent_program_gives_no_answer() {
        assert_eq!(answer(&mut Command::new("/nonexistent/program")), None);
        assert_eq!(answer(&mut Command::new("false")), None);
        assert_eq!(answer(Command::new("echo").arg("yes")).as_deref(), Some("yes"));
    }
}
