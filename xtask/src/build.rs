//! `cargo xtask build`: the eBPF object, then the programs that carry it.
//!
//! The object is always optimized: the kernel's verifier does not accept what an unoptimized build makes of bounded loops.
//! Beside it lies `affiant.bpf.json` with the compiler, the linker and the object's SHA-256. Another compiler makes another
//! object, so the digest in the log means something only together with these two lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::process::{self, answer, required_step};
use crate::setup::{self, DEBIAN_CARGO, DEBIAN_RUSTC, EbpfToolchain};
use crate::workspace::Workspace;

/// The BPF target on the architectures supported so far, all of them little-endian.
const BPF_TARGET: &str = "bpfel-unknown-none";
/// Cargo's configuration that is about our own lines, not about the machine, and must not leak into the other Cargo.
const NOT_FOR_BPF: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// How much the host programs are optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests and the demonstration: compiled once for both.
    Dev,
    /// For benchmarks and packages.
    Release,
}

impl Profile {
    /// Where Cargo puts the programs of this profile.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// `cargo xtask build`.
pub(crate) fn run(workspace: &Workspace, profile: Profile) -> Result<bool> {
    ebpf(workspace, profile)?;
    host(workspace, profile)?;
    for program in ["affiant", "affiant-verify"] {
        println!("  {}", workspace.program(profile.directory(), program).display());
    }
    Ok(true)
}

/// Builds the eBPF object of a profile and leaves it where the host build of that profile finds it.
pub(crate) fn ebpf(workspace: &Workspace, profile: Profile) -> Result<()> {
    let toolchain = setup::ebpf(workspace)?;
    let mut command = ebpf_cargo(workspace, &toolchain, "build");
    command.arg("--release");
    if profile == Profile::Dev {
        // Notes from inside the programs, which the daemon passes on as traces.
        command.args(["--features", "trace"]);
    }
    required_step(&workspace.logs(), "build eBPF object", &mut command)?;

    let built = bpf_target_directory(workspace).join(BPF_TARGET).join("release/agent-ebpf");
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let digest = setup::hex(&Sha256::digest(&object));
    let compiler = compiler_version(&toolchain);
    let linker = linker_version(&toolchain);
    println!("    {} bytes, sha256 {digest}", object.len());
    println!("    by {compiler}; {linker}");
    let record = serde_json::json!({ "compiler": compiler, "linker": linker, "sha256": digest });
    let place = workspace.ebpf_object(profile.directory());
    let directory = place.parent().context("the object has no directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    write_if_changed(&place, &object)?;
    write_if_changed(&place.with_extension("json"), format!("{record:#}\n").as_bytes())
}

/// Builds every host program, those of the tests included: one set of features, so that nothing is compiled twice.
pub(crate) fn host(workspace: &Workspace, profile: Profile) -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(&workspace.root).args([
        "build",
        "--locked",
        "--workspace",
        "--exclude",
        "agent-ebpf",
        "--bins",
    ]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    required_step(&workspace.logs(), &format!("build programs ({})", profile.directory()), &mut command)?;
    Ok(())
}

/// Cargo for the BPF target with a subcommand (`build`, `clippy`), ready for more arguments.
pub(crate) fn ebpf_cargo(workspace: &Workspace, toolchain: &EbpfToolchain, subcommand: &str) -> Command {
    let linker = match toolchain {
        EbpfToolchain::Debian { linker } | EbpfToolchain::Nightly { linker } => linker,
    };
    let mut command = match toolchain {
        EbpfToolchain::Debian { .. } => Command::new(DEBIAN_CARGO),
        EbpfToolchain::Nightly { .. } => Command::new("cargo"),
    };
    for name in NOT_FOR_BPF {
        command.env_remove(name);
    }
    match toolchain {
        EbpfToolchain::Debian { .. } => {
            command
                .env("RUSTC", DEBIAN_RUSTC)
                // The BPF target is not a stable one: its intrinsics need unstable features of a stable compiler.
                .env("RUSTC_BOOTSTRAP", "1")
                // Debian's cargo-clippy must find Debian's clippy-driver, not rustup's.
                .env("PATH", path_with_first(Path::new("/usr/bin")))
                .arg(subcommand);
        }
        EbpfToolchain::Nightly { .. } => {
            command.env("CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS", "fallback").args([
                "+nightly",
                subcommand,
                "-Z",
                "build-std=core",
            ]);
        }
    }
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    // Debug information is where the linker takes BTF from. Paths are mapped so that two clones make the same object.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        // Version 3 of the instruction set (kernel 5.12) has the atomic fetch-and-add that numbers events.
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--remap-path-prefix={}=/affiant", workspace.root.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
    ];
    command
        .current_dir(&workspace.root)
        // Separated by 0x1f, so that a path with a space stays one flag.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", bpf_target_directory(workspace))
        .args(["--locked", "--package", "agent-ebpf", "--target", BPF_TARGET]);
    command
}

/// Its own directory: the two compilers would else throw away each other's work.
fn bpf_target_directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf")
}

fn path_with_first(first: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).unwrap_or(path)
}

fn compiler_version(toolchain: &EbpfToolchain) -> String {
    let version = match toolchain {
        EbpfToolchain::Debian { .. } => answer(Command::new(DEBIAN_RUSTC).arg("--version")),
        EbpfToolchain::Nightly { .. } => answer(Command::new("rustc").args(["+nightly", "--version"])),
    };
    version.unwrap_or_else(|| "a compiler that does not say its version".to_owned())
}

fn linker_version(toolchain: &EbpfToolchain) -> String {
    let linker = match toolchain {
        EbpfToolchain::Debian { linker } | EbpfToolchain::Nightly { linker } => linker,
    };
    answer(Command::new(linker).arg("--version")).unwrap_or_else(|| "a linker that does not say its version".to_owned())
}

/// Leaves the modification time alone when nothing changed: the host build watches it.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
