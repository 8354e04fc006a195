//! One boot of one guest: an emulated machine, its console, and how it ended.
//!
//! The processor is emulated (TCG): every host has that, and the kernels under test must not depend on the host's. The guest
//! says on its console how far it is, in lines that begin with [`MARK`]; everything else it leaves on its disk.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::disk::Disk;
use super::firmware::Firmware;
use super::tpm::Tpm;

/// Begins the lines that the guest's scripts write for the host.
const MARK: &str = "affiant-vm: ";
/// The longest one boot may take. A boot takes 10 to 20 seconds on two free processors; only a hang meets this.
const DEADLINE: Duration = Duration::from_secs(240);
/// How often a boot is tried whose kernel dies or hangs before it starts anything: that says something of the emulation on a
/// busy host, and nothing of what is tested.
const TRIES: u32 = 3;
/// The longest a kernel may take to start its first program.
const UP_DEADLINE: Duration = Duration::from_secs(90);
/// As long again with a firmware that measures what it starts: it has to be started itself, and hashes kernel and root file
/// system.
const FIRMWARE_DEADLINE: Duration = Duration::from_secs(90);
/// Time between two looks at the console.
const INTERVAL: Duration = Duration::from_millis(100);
/// How much of the console a failure shows, in lines.
const SHOWN_LINES_MAX: usize = 40;
/// Memory of the guest, in MiB: the rings, the programs in the root file system twice while it is unpacked, and room.
const MEMORY_MIB: &str = "1024";

/// What to boot.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    /// The kernel's image.
    pub(crate) image: &'a Path,
    /// The root file system.
    pub(crate) initramfs: &'a Path,
    /// Kernel parameters, of the variant and of the scenario.
    pub(crate) parameters: String,
    /// The disk.
    pub(crate) disk: &'a Disk,
    /// The TPM, if it has one.
    pub(crate) tpm: Option<&'a Tpm>,
    /// The firmware that measures what it starts; without, QEMU's own, which does not.
    pub(crate) firmware: Option<&'a Firmware>,
    /// Where the console goes.
    pub(crate) console: &'a Path,
}

/// How a boot is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest powers itself off.
    PowerOff,
    /// The power is cut as soon as the guest asks for it.
    Cut,
}

/// The emulated machine. Dropping it cuts its power.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Ended already, or to be ended now; either way nobody is left to tell.
        let killed = self.0.kill();
        let waited = self.0.wait();
        drop((killed, waited));
    }
}

impl Boot<'_> {
    /// Boots and waits for the end. An end other than the one expected, or a script that failed, is an error that shows
    /// the console's last lines.
    pub(crate) fn run(&self, end: End) -> Result<()> {
        for attempt in 1..=TRIES {
            fresh(self.console)?;
            let outcome = self.attempt(end);
            if attempt < TRIES && outcome.is_err() && !self.is_up() {
                println!("    the kernel did not come up; once more. Console: {}", self.console.display());
                continue;
            }
            return outcome.with_context(|| self.last_lines());
        }
        bail!("no try is left")
    }

    fn last_lines(&self) -> String {
        let text = self.console_text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES_MAX)..).unwrap_or_default();
        format!("console {}:\n      | {}\n", self.console.display(), shown.join("\n      | "))
    }

    fn attempt(&self, end: End) -> Result<()> {
        let tpm = self.tpm.map(Tpm::power).transpose()?;
        let mut qemu = Command::new("qemu-system-x86_64");
        // One thread for both processors: with a thread each, QEMU 7.2 now and then runs a breakpoint that the kernel has
        // taken away again while it patched itself, and the guest dies of it.
        qemu.args(["-accel", "tcg,thread=single", "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", MEMORY_MIB]);
        qemu.args(["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]);
        qemu.arg("-serial").arg(format!("file:{}", self.console.display()));
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        // A panic ends the machine instead of letting the deadline do it. The check of the timer waits for ticks in a loop
        // whose length is a guess at the processor's speed, which an emulated one on a busy host does not keep.
        qemu.arg("-append").arg(format!("console=ttyS0 panic=-1 no_timer_check quiet {}", self.parameters));
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,cache=writeback", self.disk.path().display()));
        if let Some(firmware) = self.firmware {
            firmware.attach(&mut qemu);
        }
        if let Some(tpm) = &tpm {
            qemu.arg("-chardev").arg(format!("socket,id=tpm-socket,path={}", tpm.socket().display()));
            qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm-socket", "-device", "tpm-tis,tpmdev=tpm0"]);
        }
        let child = qemu.stdin(Stdio::null()).spawn().context("cannot start qemu-system-x86_64")?;
        let mut machine = Machine(child);
        let started = Instant::now();
        let longer = if self.firmware.is_some() { FIRMWARE_DEADLINE } else { Duration::ZERO };
        loop {
            if end == End::Cut && self.said("cut") {
                drop(machine);
                break;
            }
            if let Some(status) = machine.0.try_wait().context("cannot wait for the machine")? {
                if end == End::Cut {
                    bail!("the guest ended ({status}) before its power was to be cut");
                }
                break;
            }
            let elapsed = started.elapsed();
            if elapsed > UP_DEADLINE + longer && !self.is_up() {
                let within = (UP_DEADLINE + longer).as_secs();
                bail!("the guest's kernel did not start its first program within {within} s");
            }
            if elapsed > DEADLINE + longer {
                bail!("the guest did not end within {} s", (DEADLINE + longer).as_secs());
            }
            thread::sleep(INTERVAL);
        }
        if let Some(tpm) = tpm {
            tpm.off()?;
        }
        let text = self.console_text();
        if let Some(what) = marked(&text).find_map(|line| line.strip_prefix("failed ")) {
            bail!("the guest's script failed: {what}");
        }
        if end == End::PowerOff && !self.said("done") {
            bail!("the guest ended without finishing its script");
        }
        Ok(())
    }

    /// Whether the guest's first program runs.
    fn is_up(&self) -> bool {
        marked(&self.console_text()).any(|line| line.starts_with("up "))
    }

    fn said(&self, word: &str) -> bool {
        marked(&self.console_text()).any(|line| line == word)
    }

    fn console_text(&self) -> String {
        // Not there yet, until the machine runs.
        String::from_utf8_lossy(&fs::read(self.console).unwrap_or_default()).into_owned()
    }
}

/// A console of an earlier boot would be read as this one's.
fn fresh(console: &Path) -> Result<()> {
    match fs::remove_file(console) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", console.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the guest's scripts wrote for the host. The firmware leaves control characters before the first line.
fn marked(console: &str) -> impl Iterator<Item = &str> {
    console.lines().filter_map(|line| line.split_once(MARK)).map(|(_, said)| said.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_the_rest_of_the_console() {
        let console = "\u{1b}[2Jaffiant-vm: up\r\n[ 1.0] kernel: text\r\naffiant-vm: failed step 2\r\n";
        assert_eq!(marked(console).collect::<Vec<_>>(), ["up", "failed step 2"]);
    }
}
