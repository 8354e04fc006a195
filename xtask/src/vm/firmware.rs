//! The guest's firmware, where it matters: EDK II (OVMF), which measures into the TPM what it is configured with and starts.
//!
//! QEMU's default firmware on this machine type does not measure a kernel that QEMU loads. The firmware's code is shared and
//! read only; its variables are a file of each row, kept over the boots of one guest as a machine keeps them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The code, of Debian's package `ovmf`.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Variables as a new machine has them: no keys, Secure Boot off.
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The firmware of one machine.
#[derive(Debug)]
pub(crate) struct Firmware {
    variables: PathBuf,
}

impl Firmware {
    /// That of a new machine, with its variables in this file.
    pub(crate) fn create(variables: PathBuf) -> Result<Self> {
        let bytes = fs::read(VARIABLES).with_context(|| format!("cannot read {VARIABLES} (package ovmf)"))?;
        fs::write(&variables, bytes).with_context(|| format!("cannot write {}", variables.display()))?;
        Ok(Self { variables })
    }

    /// Adds it to a machine that is about to be started.
    pub(crate) fn attach(&self, qemu: &mut Command) {
        let flash = |path: &Path, more: &str| format!("if=pflash,format=raw,file={}{more}", path.display());
        qemu.args(["-drive", &flash(Path::new(CODE), ",readonly=on"), "-drive", &flash(&self.variables, "")]);
    }
}
