//! Finds the compiled eBPF object and tells the crate where it is, so that the daemon can carry it inside itself.
//!
//! Looked for, in this order: the file named by the environment variable `AFFIANT_EBPF_OBJECT`, then
//! `ebpf/<profile>/affiant.bpf.o` in the target directory this build writes to, which is where `cargo xtask build` leaves it. When it is found, the configuration
//! flag `ebpf_object` is set and `env!("AFFIANT_EBPF_OBJECT")` is its absolute path. When it is not, the flag is unset and the
//! crate still builds, so that `cargo check` works on machines that cannot build eBPF; such a daemon says so and does not start.

#![expect(clippy::disallowed_methods, reason = "a build script is configured by the environment that Cargo gives it")]

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const OBJECT_ENV: &str = "AFFIANT_EBPF_OBJECT";
const OBJECT_NAME: &str = "affiant.bpf.o";

fn main() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    println!("cargo::rerun-if-env-changed={OBJECT_ENV}");
    println!("cargo::rerun-if-changed=build.rs");

    let object = match env::var_os(OBJECT_ENV) {
        Some(named) => {
            // A path that was named and does not exist is a mistake, not a wish to build without the object.
            let path = fs::canonicalize(&named)?;
            println!("cargo::rerun-if-changed={}", path.display());
            Some(path)
        }
        None => in_target_directory()?,
    };
    if let Some(path) = object {
        println!("cargo::rustc-cfg=ebpf_object");
        println!("cargo::rustc-env={OBJECT_ENV}={}", path.display());
    }
    Ok(())
}

/// The object where `cargo xtask build` leaves it, if it is there.
fn in_target_directory() -> io::Result<Option<PathBuf>> {
    let Some(out_dir) = env::var_os("OUT_DIR") else {
        return Ok(None);
    };
    // OUT_DIR is <target>[/<triple>]/<profile>/build/<package>-<hash>/out.
    let Some(above_profile) = Path::new(&out_dir).ancestors().nth(4) else { return Ok(None) };
    let triple = env::var_os("TARGET");
    let is_triple = triple.is_some() && above_profile.file_name() == triple.as_deref();
    let target = if is_triple { above_profile.parent().unwrap_or(above_profile) } else { above_profile };
    // The directory is watched, not the file: Cargo re-runs a build script each time when a watched path does not exist.
    let profile = env::var_os("PROFILE").unwrap_or_else(|| "debug".into());
    let directory = target.join("ebpf").join(profile);
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    let object = directory.join(OBJECT_NAME);
    Ok(object.is_file().then_some(object))
}
