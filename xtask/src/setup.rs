//! `cargo xtask setup`: what the other commands need and a machine may lack.
//!
//! On Debian 12 as root it installs what is missing and says what and why before it does. Anywhere else it changes nothing: it
//! lists what is missing and how to get it, and ends with exit code 69. When nothing is missing it takes well under a second.
//! Everything pinned here is pinned because the result must not depend on the day of the build.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::process::{self, answer, required_step, step};
use crate::workspace::Workspace;

/// Debian packages and what each is for. The `-web` packages are Debian's Rust for web browsers, the newest it has in a stable
/// release; they bring a precompiled `core` for the BPF target, which no rustup toolchain has without its source component.
const DEBIAN_PACKAGES: &[(&str, &str)] = &[
    ("rustc-web", "the compiler whose LLVM matches the BPF linker's"),
    ("cargo-web", "its Cargo"),
    ("libstd-rust-web-dev-bpf", "core, compiled for BPF"),
    ("rust-web-clippy", "lints on the BPF programs"),
    ("rust-web-llvm", "its LLVM glue"),
    ("llvm-22-dev", "LLVM for the BPF linker"),
    ("libpolly-22-dev", "a library that LLVM's link line names"),
    ("python3-venv", "the second reader, the notebook and schema validation"),
    ("strace", "the test that kills the log's writer at every system call"),
    ("stress-ng", "load at full speed, in tests"),
    ("pkg-config", "finds the TPM library for the agent's build"),
    ("libtss2-dev", "the TPM library that the agent links"),
    ("libtss2-tcti-swtpm0", "its way to a software TPM"),
    ("swtpm", "software TPMs, one for each test"),
    ("swtpm-tools", "software TPMs as a manufacturer delivers them"),
    ("tpm2-tools", "an independent reader of quotes, in tests"),
    ("openssl", "another program's certificates, in tests"),
];

/// Debian packages that emulated machines need, installed only when `cargo xtask vm` or `test` is about to boot one.
const GUEST_PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "the machines in which other kernels are booted"),
    ("busybox-static", "what those kernels start"),
    ("e2fsprogs", "their disks, made and read without mounting them"),
    ("xz-utils", "kernel modules as newer packages have them"),
    ("binutils", "strip: debug information would fill the machines' memory"),
    ("swtpm", "their TPMs"),
    ("swtpm-tools", "the TPMs' certificates, as a vendor makes them"),
    ("tpm2-tools", "asks the TPMs from inside the machines"),
    ("libtss2-tcti-device0", "how it reaches them"),
    ("libtss2-tcti-swtpm0", "how it reaches them before they are in a machine"),
    ("openssl", "follows the TPMs' certificates to their root, and makes some"),
    ("ovmf", "firmware that measures what it starts"),
];

/// The BPF linker, pinned: another version gives another object, and the object's digest is part of the evidence.
const BPF_LINKER_VERSION: &str = "0.13.0";
/// The LLVM both sides must agree on: a linker older than the compiler cannot read its bitcode.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's compiler, by path: `rustc` in PATH is usually rustup's.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Debian's Cargo.
pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// Pinned Python packages, in the repository.
const PYTHON_REQUIREMENTS: &str = "tests/requirements.txt";
/// How long to wait before asking apt again when another program holds its lock.
const APT_LOCK_PAUSE: Duration = Duration::from_secs(30);
/// How long apt itself waits for its lock, in seconds.
const APT_LOCK_TIMEOUT_OPTION: &str = "DPkg::Lock::Timeout=120";

/// This machine lacks something that setup cannot or may not install. Ends the command with exit code 69.
#[derive(Debug)]
pub(crate) struct Missing(Vec<String>);

impl Missing {
    /// One thing, and how to get it.
    pub(crate) fn new(what: &str) -> Self {
        Self(vec![what.to_owned()])
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "this machine lacks:")?;
        for line in &self.0 {
            write!(formatter, "\n  - {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Missing {}

/// How the eBPF programs are compiled here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EbpfToolchain {
    /// Debian's compiler with its precompiled `core`, and the linker from the cache.
    Debian {
        /// The BPF linker.
        linker: PathBuf,
    },
    /// An installed nightly with its source, which builds `core` itself.
    Nightly {
        /// The BPF linker.
        linker: PathBuf,
    },
}

/// `cargo xtask setup`.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let started = Instant::now();
    let toolchain = ebpf(workspace)?;
    let interpreter = python(workspace)?;
    println!("setup: ready in {}", process::seconds(started.elapsed()));
    match toolchain {
        EbpfToolchain::Debian { linker } => {
            println!("  eBPF    Debian's {DEBIAN_RUSTC}, {}", linker.display());
        }
        EbpfToolchain::Nightly { linker } => {
            println!("  eBPF    rustup nightly, {}", linker.display())
        }
    }
    println!("  Python  {}", interpreter.display());
    Ok(true)
}

/// Makes sure that the eBPF programs can be built, and says with what.
pub(crate) fn ebpf(workspace: &Workspace) -> Result<EbpfToolchain> {
    if !is_debian_12() {
        return other_system();
    }
    let absent: Vec<&(&str, &str)> = DEBIAN_PACKAGES.iter().filter(|(package, _)| !is_installed(package)).collect();
    if !absent.is_empty() {
        install_packages(workspace, &absent)?;
    }
    Ok(EbpfToolchain::Debian { linker: bpf_linker(workspace)? })
}

/// Makes sure that other kernels can be booted in emulated machines. The kernels themselves are not installed: see `vm::kernel`.
pub(crate) fn guests(workspace: &Workspace) -> Result<()> {
    let absent: Vec<&(&str, &str)> = GUEST_PACKAGES.iter().filter(|(package, _)| !is_installed(package)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    if !is_debian_12() {
        let names: Vec<&str> = absent.iter().map(|(package, _)| *package).collect();
        return Err(Missing(vec![
            format!("what emulated machines need; on Debian the packages {}", names.join(" ")),
            "apt, which fetches the kernels".to_owned(),
        ])
        .into());
    }
    install_packages(workspace, &absent)
}

/// Makes sure that the pinned Python packages are there; the interpreter of their virtual environment.
pub(crate) fn python(workspace: &Workspace) -> Result<PathBuf> {
    let requirements_path = workspace.root.join(PYTHON_REQUIREMENTS);
    let requirements =
        fs::read(&requirements_path).with_context(|| format!("cannot read {}", requirements_path.display()))?;
    // Named by what is in it: two clones that pin different versions do not take turns in replacing one environment.
    let digest = hex(&Sha256::digest(&requirements));
    let environment = workspace.cache.join(format!("python-{}", digest.get(..12).unwrap_or(&digest)));
    let interpreter = environment.join("bin/python");
    let complete = environment.join("complete");
    if complete.is_file() {
        return Ok(interpreter);
    }

    let _lock = lock_cache(workspace)?;
    if complete.is_file() {
        return Ok(interpreter);
    }
    let base = if is_debian_12() && is_root() {
        if !is_installed("python3-venv") {
            install_packages(workspace, &[&("python3-venv", "the notebook and schema validation")])?;
        }
        "/usr/bin/python3"
    } else {
        "python3"
    };
    if answer(Command::new(base).args(["-c", "import venv, ensurepip"])).is_none() {
        return Err(Missing(vec![
            "python3 (3.10 or newer) with its venv module: Debian and Ubuntu: apt-get install python3-venv".to_owned(),
        ])
        .into());
    }
    println!(
        "setup: a Python environment in {} (notebook runner, JSON Schema; versions from {PYTHON_REQUIREMENTS})",
        environment.display()
    );
    if environment.exists() {
        fs::remove_dir_all(&environment).with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    let logs = workspace.logs();
    required_step(&logs, "Python environment", Command::new(base).args(["-m", "venv"]).arg(&environment))?;
    required_step(
        &logs,
        "Python packages",
        Command::new(&interpreter)
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"])
            .arg(&requirements_path),
    )?;
    File::create(&complete).with_context(|| format!("cannot create {}", complete.display()))?;
    Ok(interpreter)
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user; std has no call for it.
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_debian_12() -> bool {
    let Ok(release) = fs::read_to_string("/etc/os-release") else {
        return false;
    };
    let has = |wanted: &str| release.lines().any(|line| line.replace('"', "") == wanted);
    has("ID=debian") && has("VERSION_ID=12")
}

/// Asks for the file that dpkg keeps per package: milliseconds less than starting dpkg-query for each. A library that several
/// architectures may have at once carries its own in the name.
fn is_installed(package: &str) -> bool {
    [format!("{package}.list"), format!("{package}:amd64.list")]
        .iter()
        .any(|name| Path::new("/var/lib/dpkg/info").join(name).is_file())
}

fn install_packages(workspace: &Workspace, absent: &[&(&str, &str)]) -> Result<()> {
    let names: Vec<&str> = absent.iter().map(|(package, _)| *package).collect();
    if !is_root() {
        return Err(Missing(vec![format!(
            "Debian packages; as root: apt-get install --no-install-recommends {}",
            names.join(" ")
        )])
        .into());
    }
    println!("setup: installing {} Debian packages:", names.len());
    for (package, reason) in absent {
        println!("  {package:<26} {reason}");
    }
    let logs = workspace.logs();
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--no-install-recommends", "-o", APT_LOCK_TIMEOUT_OPTION])
            .args(&names);
        command
    };
    // A fresh machine has no package lists, one that is not may have old ones: look before fetching them again.
    let simulated = answer(install().arg("--simulate"));
    if simulated.is_none() {
        let update = || {
            let mut command = Command::new("apt-get");
            command.args(["update", "-o", APT_LOCK_TIMEOUT_OPTION]);
            command
        };
        if !step(&logs, "apt-get update", &mut update())?.success {
            println!("    apt-get may be locked by another program: once more in {} s", APT_LOCK_PAUSE.as_secs());
            thread::sleep(APT_LOCK_PAUSE);
            required_step(&logs, "apt-get update again", &mut update())?;
        }
    }
    if !step(&logs, "apt-get install", &mut install())?.success {
        println!("    apt-get may be locked by another program: once more in {} s", APT_LOCK_PAUSE.as_secs());
        thread::sleep(APT_LOCK_PAUSE);
        required_step(&logs, "apt-get update before another try", Command::new("apt-get").arg("update"))?;
        required_step(&logs, "apt-get install again", &mut install())?;
    }
    Ok(())
}

/// The pinned BPF linker in the cache; built there when absent.
fn bpf_linker(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.cache.join(format!("bpf-linker-{BPF_LINKER_VERSION}"));
    let linker = place.join("bin/bpf-linker");
    if linker.is_file() {
        return Ok(linker);
    }
    let _lock = lock_cache(workspace)?;
    if linker.is_file() {
        return Ok(linker);
    }
    println!(
        "setup: bpf-linker {BPF_LINKER_VERSION} into {} (links the eBPF programs; about a minute, once per machine)",
        place.display()
    );
    let scratch = workspace.cache.join("bpf-linker-build");
    let finished = step(
        &workspace.logs(),
        "bpf-linker",
        process::cargo()
            .env_remove("RUSTFLAGS")
            .env("LLVM_PREFIX", LLVM_PREFIX)
            .env("CARGO_TARGET_DIR", &scratch)
            // Outside the repository: Cargo would else apply its configuration and look at its lock file.
            .current_dir(&workspace.cache)
            .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(&place),
    )?;
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    if !finished.success {
        bail!("bpf-linker did not build; log in {}", finished.log.display());
    }
    Ok(linker)
}

/// Not Debian 12: use what is installed, or say what to install.
fn other_system() -> Result<EbpfToolchain> {
    let mut missing = Vec::new();
    let sysroot = answer(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    match sysroot {
        None => missing.push("a nightly Rust with its source: rustup toolchain install nightly -c rust-src".to_owned()),
        Some(sysroot) => {
            if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
                missing.push("the source of core: rustup component add rust-src --toolchain nightly".to_owned());
            }
        }
    }
    let linker = in_path("bpf-linker");
    if linker.is_none() {
        missing
            .push(format!("the BPF linker: cargo +nightly install bpf-linker --version {BPF_LINKER_VERSION} --locked"));
    }
    if answer(Command::new("pkg-config").args(["--modversion", "tss2-esys"])).is_none() {
        missing.push(
            "the TPM library with its headers, and pkg-config: tpm2-tss 2.4.6 or newer (libtss2-dev, tpm2-tss-devel)"
                .to_owned(),
        );
    }
    match linker {
        Some(linker) if missing.is_empty() => Ok(EbpfToolchain::Nightly { linker }),
        _ => {
            missing.push("or Debian 12 as root, where `cargo xtask setup` installs everything by itself".to_owned());
            Err(Missing(missing).into())
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}

/// Held while something is added to the cache, so that two clones do not build the same thing into the same place.
pub(crate) fn lock_cache(workspace: &Workspace) -> Result<File> {
    fs::create_dir_all(&workspace.cache).with_context(|| format!("cannot create {}", workspace.cache.display()))?;
    let path = workspace.cache.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("setup: waiting for another setup to end ({})", path.display());
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_listed_line_by_line() {
        let missing = Missing(vec!["a thing".to_owned(), "another".to_owned()]);
        assert_eq!(missing.to_string(), "this machine lacks:\n  - a thing\n  - another");
    }

    #[test]
    fn hexadecimal_is_lower_case_and_padded() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0]), "000fa0");
    }
}
