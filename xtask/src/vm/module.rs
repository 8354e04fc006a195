//! Kernel modules out of an unpacked package: which a guest needs, in the order in which they can be loaded.
//!
//! A package has no index (`modules.dep` is made when it is installed), so dependencies are read from the modules themselves:
//! each carries `depends=` and `softdep=` as strings (`include/linux/module.h`, `MODULE_INFO`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What a guest needs beyond what every kernel has built in: its disk and what is on it, its TPM.
const WANTED: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "tpm_tis"];
/// Needed by name only where it is a module: file systems ask for the checksum, not for who computes it.
const WANTED_IF_THERE: &[&str] = &["crc32c_generic"];

/// One module, ready for `insmod`.
#[derive(Debug)]
pub(crate) struct Module {
    /// As `lsmod` shows it.
    pub(crate) name: String,
    /// The object, not compressed.
    pub(crate) bytes: Vec<u8>,
}

/// The modules that a guest loads, those that others need first.
pub(crate) fn in_order(modules: &Path) -> Result<Vec<Module>> {
    let builtin = modules.join("modules.builtin");
    let builtin = fs::read_to_string(&builtin).with_context(|| format!("cannot read {}", builtin.display()))?;
    let builtin: BTreeSet<String> = builtin.lines().filter_map(|line| name_of(Path::new(line))).collect();
    let index = index(&modules.join("kernel"))?;
    let mut order: Vec<Module> = Vec::new();
    let mut open: Vec<(String, bool)> = WANTED_IF_THERE.iter().map(|name| ((*name).to_owned(), false)).collect();
    open.extend(WANTED.iter().map(|name| ((*name).to_owned(), true)));
    open.reverse();
    // A module is taken off the stack for good once nothing that it needs is left to be loaded before it.
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    while let Some((name, required)) = open.pop() {
        if builtin.contains(&name) || order.iter().any(|module| module.name == name) {
            continue;
        }
        let Some(path) = index.get(&name) else {
            if required {
                bail!("the kernel has no module {name} in {}", modules.display());
            }
            continue;
        };
        let bytes = read(path)?;
        if waiting.insert(name.clone()) {
            open.push((name, required));
            open.extend(needs(&bytes).into_iter().rev());
        } else {
            order.push(Module { name, bytes });
        }
    }
    Ok(order)
}

/// Every module below a directory, by name.
fn index(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let entry = entry.context("cannot read a directory")?;
            if entry.file_type().context("no file type")?.is_dir() {
                open.push(entry.path());
            } else if let Some(name) = name_of(&entry.path()) {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

/// The module's name: the file's, with the one kind of dash that the kernel uses.
fn name_of(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
        let output = output.context("cannot start xz (package xz-utils)")?;
        if !output.status.success() {
            bail!("xz cannot read {}: {}", path.display(), output.status);
        }
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What a module says it needs, and whether it cannot do without.
fn needs(module: &[u8]) -> Vec<(String, bool)> {
    let mut needs = Vec::new();
    for text in module.split(|byte| *byte == 0) {
        if let Some(list) = text.strip_prefix(b"softdep=pre: ") {
            let list = String::from_utf8_lossy(list);
            needs.extend(list.split_whitespace().map(|name| (name.replace('-', "_"), false)));
        } else if let Some(list) = text.strip_prefix(b"depends=") {
            let list = String::from_utf8_lossy(list);
            needs.extend(list.split(',').filter(|name| !name.is_empty()).map(|name| (name.replace('-', "_"), true)));
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, path: &str, bytes: &[u8]) {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn needs_are_read_out_of_a_module() {
        let module = b"\x7fELF\0license=GPL\0softdep=pre: crc32c\0depends=jbd2,rng-core\0name=ext4\0";
        let needs = needs(module);
        assert_eq!(needs, [("crc32c".to_owned(), false), ("jbd2".to_owned(), true), ("rng_core".to_owned(), true)]);
    }

    #[test]
    fn what_is_needed_comes_first_and_what_is_built_in_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        written(root, "modules.builtin", b"kernel/drivers/virtio/virtio_pci.ko\nkernel/tpm/tpm_tis.ko\n");
        written(root, "kernel/block/virtio_blk.ko", b"\0depends=virtio,virtio_ring\0");
        written(root, "kernel/virtio.ko", b"\0depends=\0");
        written(root, "kernel/virtio_ring.ko", b"\0depends=virtio\0");
        written(root, "kernel/fs/ext4.ko", b"\0softdep=pre: crc32c\0depends=\0");
        let names: Vec<String> = in_order(root).unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "virtio_blk", "ext4"]);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), "modules.builtin", b"");
        written(directory.path(), "kernel/x.ko", b"");
        let error = in_order(directory.path()).unwrap_err();
        assert!(error.to_string().contains("virtio_pci"), "{error}");
    }
}
