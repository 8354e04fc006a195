//! The guest's first and only root file system: busybox, the programs under test with their libraries, modules, scripts.
//!
//! Written as a `newc` archive (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel), not compressed:
//! an emulated processor takes longer to unpack it than the kernel to copy it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::module::Module;
use crate::process::quiet;

/// The scripts of the guest, by their places in it.
const SCRIPTS: &[(&str, &str)] = &[
    ("init", include_str!("guest/init.sh")),
    ("lib/guest.sh", include_str!("guest/lib.sh")),
    ("scenario/doctor", include_str!("guest/doctor.sh")),
    ("scenario/session", include_str!("guest/session.sh")),
    ("scenario/restarts", include_str!("guest/restarts.sh")),
    ("scenario/rooted", include_str!("guest/rooted.sh")),
    ("scenario/measured", include_str!("guest/measured.sh")),
    ("scenario/tpm", include_str!("guest/tpm.sh")),
];
/// Directories that things are mounted on, or that programs expect.
const DIRECTORIES: &[&str] = &["proc", "sys", "dev", "tmp", "run", "disk", "etc", "var/lib/affiant"];
/// The name service of a system with one user.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
/// Programs of this tree that a guest runs.
const PROGRAMS: &[&str] = &["affiant", "act-execs", "act-opens", "act-connects", "act-network", "act-unusual"];
/// A program in assembly, by its name in the guest.
const ASSEMBLED: (&str, &str) = ("act-unseen", include_str!("guest/unseen.s"));
/// Programs of the host that a guest with a TPM runs, with the library that they open by name.
const TPM_PROGRAMS: &[&str] = &["/usr/bin/tpm2"];
const TPM_LIBRARIES: &[&str] = &["/usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0"];

/// Everything but the modules, read once for all kernels.
#[derive(Debug)]
pub(crate) struct UserSpace {
    archive: Archive,
}

impl UserSpace {
    /// Collects the programs of `directory` (a directory of Cargo's) and their libraries. `scratch` is for copies without
    /// debug information, which would be nine tenths of what the guest has to keep in memory.
    pub(crate) fn collect(directory: &Path, scratch: &Path) -> Result<Self> {
        let mut archive = Archive::default();
        for name in DIRECTORIES {
            archive.directory(name);
        }
        archive.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
        for (name, text) in SCRIPTS {
            archive.file(name, 0o755, text.as_bytes())?;
        }
        archive.file("bin/busybox", 0o755, &read(Path::new("/bin/busybox"))?)?;
        let mut libraries: BTreeSet<PathBuf> = BTreeSet::new();
        for name in PROGRAMS {
            let program = directory.join(name);
            libraries.extend(libraries_of(&program)?);
            archive.file(&format!("bin/{name}"), 0o755, &stripped(&program, &scratch.join(name))?)?;
        }
        let (name, source) = ASSEMBLED;
        archive.file(&format!("bin/{name}"), 0o755, &assembled(source, &scratch.join(name))?)?;
        for program in TPM_PROGRAMS.iter().map(Path::new) {
            libraries.extend(libraries_of(program)?);
            let name = program.file_name().and_then(|name| name.to_str()).context("a name in UTF-8")?;
            archive.file(&format!("bin/{name}"), 0o755, &read(program)?)?;
        }
        for library in TPM_LIBRARIES.iter().map(PathBuf::from) {
            libraries.extend(libraries_of(&library)?);
            libraries.insert(library);
        }
        for library in libraries {
            let name = library.to_str().context("a path in UTF-8")?.trim_start_matches('/');
            archive.file(name, 0o755, &read(&library)?)?;
        }
        Ok(Self { archive })
    }

    /// Writes the file system for a kernel with these modules.
    pub(crate) fn write(&self, modules: &[Module], path: &Path) -> Result<()> {
        let mut archive = self.archive.clone();
        let mut order = String::new();
        for module in modules {
            archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.bytes)?;
            order.push_str(&module.name);
            order.push('\n');
        }
        archive.file("modules/order", 0o644, order.as_bytes())?;
        fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn stripped(program: &Path, copy: &Path) -> Result<Vec<u8>> {
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(copy).arg(program).status();
    let status = status.context("cannot start strip (package binutils)")?;
    if !status.success() {
        bail!("strip {}: {status}", program.display());
    }
    read(copy)
}

/// A static program from a source for `as`, both of binutils.
fn assembled(source: &str, program: &Path) -> Result<Vec<u8>> {
    let (text, object) = (program.with_extension("s"), program.with_extension("o"));
    fs::write(&text, source).with_context(|| format!("cannot write {}", text.display()))?;
    quiet(Command::new("as").arg("-o").arg(&object).arg(&text), &[0])?;
    quiet(Command::new("ld").arg("-static").arg("-o").arg(program).arg(&object), &[0])?;
    read(program)
}

/// The shared libraries of a program and its loader, where the loader finds them here.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    libraries_in(&text).with_context(|| format!("the libraries of {}", program.display()))
}

fn libraries_in(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        if place.starts_with("not found") {
            bail!("{line}");
        }
        let place = place.split(" (").next().unwrap_or_default();
        // The kernel's own (linux-vdso) is no file.
        if place.starts_with('/') {
            found.push(PathBuf::from(place));
        }
    }
    Ok(found)
}

/// A `newc` archive in memory.
#[derive(Debug, Clone, Default)]
struct Archive {
    bytes: Vec<u8>,
    members: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and those above it, each once.
    fn directory(&mut self, name: &str) {
        let mut whole = String::new();
        for part in name.split('/') {
            if !whole.is_empty() {
                whole.push('/');
            }
            whole.push_str(part);
            if self.directories.insert(whole.clone()) {
                self.member(&whole, 0o040_755, 0);
            }
        }
    }

    /// Adds a file, and the directories above it.
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        if let Some((above, _)) = name.rsplit_once('/') {
            self.directory(above);
        }
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large for an archive"))?;
        self.member(name, 0o100_000 | mode, size);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn member(&mut self, name: &str, mode: u32, size: u32) {
        self.members += 1;
        let name_size = name.len() + 1;
        // magic, inode, mode, uid, gid, links, time, size, device of the file and of what it is, length of the name, check
        let numbers = [self.members, mode, 0, 0, 1, 0, size, 0, 0, 0, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(format!("{name_size:08x}{:08x}", 0).as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.member("TRAILER!!!", 0, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_with_the_loader_and_without_the_kernels_own() {
        let text =
            "\tlinux-vdso.so.1 (0x00007ff0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007ff1)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(libraries_in(text).unwrap(), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        assert!(libraries_in("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn the_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("a/b", 0o755, b"hello").unwrap();
        archive.file("a/c", 0o644, b"").unwrap();
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4, "one directory, two files, the trailer");
        // The directory: a header of 110 bytes, its name with a terminator, filled up to 4.
        assert_eq!(bytes.get(110..112).unwrap(), b"a\0");
        assert_eq!(bytes.get(112..118).unwrap(), b"070701");
        // The first file: mode and size in its header, its bytes behind its name.
        assert_eq!(bytes.get(112 + 14..112 + 22).unwrap(), b"000081ed");
        assert_eq!(bytes.get(112 + 54..112 + 62).unwrap(), b"00000005");
        assert_eq!(bytes.get(112 + 110..112 + 114).unwrap(), b"a/b\0");
        assert_eq!(bytes.get(112 + 116..112 + 121).unwrap(), b"hello");
        assert!(bytes.len().is_multiple_of(4));
    }
}
