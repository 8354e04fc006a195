//! `cargo xtask vm`: other kernels than the host's, in emulated machines, some of them with a TPM.
//!
//! Each row is a kernel, the parameters it was booted with, and a scenario; each row has a disk of its own and counts as one
//! test. Kernels come from [`kernel`], what is in a guest from [`initramfs`], [`module`] and [`disk`], its TPM from [`tpm`],
//! and its firmware, where it measures, from [`firmware`]. [`guest`] boots it, and [`scenario`] says what is done and what
//! must be found, with [`enrolment`] and [`measured`]. `cargo xtask test` runs the rows that its tables mark as short: the
//! parts that differ between kernels.

mod disk;
mod enrolment;
mod firmware;
mod guest;
mod initramfs;
mod kernel;
mod measured;
mod module;
mod scenario;
mod tiers;
mod tpm;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use self::disk::Disk;
use self::firmware::Firmware;
use self::guest::Boot;
use self::initramfs::UserSpace;
use self::kernel::{Fetched, KERNELS, Kernel};
use self::scenario::{Desk, Left, SCENARIOS, Scenario, Variant};
use self::tpm::Vendor;
use crate::build::{self, Profile};
use crate::check::Tally;
use crate::process::{Color, paint, seconds};
use crate::setup;
use crate::workspace::Workspace;

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection {
    kernels: Vec<String>,
    scenarios: Vec<String>,
    /// Every row, not only the short ones. Naming kernels or scenarios selects among all rows too.
    long: bool,
}

/// `cargo xtask vm`.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<bool> {
    let started = Instant::now();
    let selection = Selection::read(arguments)?;
    build::ebpf(workspace, Profile::Dev)?;
    build::host(workspace, Profile::Dev)?;
    let tally = rows(workspace, &selection)?;
    println!("all of it in {}", seconds(started.elapsed()));
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// The part that `cargo xtask test` runs, with programs that are built.
pub(crate) fn short(workspace: &Workspace) -> Result<Tally> {
    let tally = rows(workspace, &Selection::default())?;
    println!("    {} passed, {} failed", tally.passed, tally.failed);
    Ok(tally)
}

impl Selection {
    fn read(arguments: &[&str]) -> Result<Self> {
        let mut selection = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (list, known): (&mut Vec<String>, Vec<&str>) = match *argument {
                "--long" => {
                    selection.long = true;
                    continue;
                }
                "--kernel" => (&mut selection.kernels, KERNELS.iter().map(|kernel| kernel.name).collect()),
                "--scenario" => (&mut selection.scenarios, SCENARIOS.iter().map(|scenario| scenario.name).collect()),
                other => bail!("unknown argument {other}: [--kernel NAME]... [--scenario NAME]... [--long]"),
            };
            let name = rest.next().with_context(|| format!("{argument} needs one of {}", known.join(", ")))?;
            if !known.contains(name) {
                bail!("{argument} {name}: one of {} is known", known.join(", "));
            }
            list.push((*name).to_owned());
        }
        Ok(selection)
    }

    fn takes(&self, kernel: &Kernel, scenario: &Scenario, short: bool) -> bool {
        if scenario.armed && kernel.lacks.is_some() {
            return false;
        }
        let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
        let all = self.long || !self.kernels.is_empty() || !self.scenarios.is_empty();
        named(&self.kernels, kernel.name) && named(&self.scenarios, scenario.name) && (all || (kernel.short && short))
    }
}

/// What all rows of a run share.
struct Run<'a> {
    workspace: &'a Workspace,
    directory: TempDir,
    user_space: UserSpace,
    vendor: OnceCell<Vendor>,
}

/// A kernel with its root file system.
struct Bootable {
    fetched: Fetched,
    initramfs: PathBuf,
}

fn rows(workspace: &Workspace, selection: &Selection) -> Result<Tally> {
    println!("==> guests");
    setup::guests(workspace)?;
    let programs = workspace.target.join(Profile::Dev.directory());
    tests::use_programs_in(programs.clone());
    let directory = tempfile::Builder::new().prefix("affiant-vm-").tempdir().context("no temporary directory")?;
    let user_space = UserSpace::collect(&programs, directory.path())?;
    let run = Run { workspace, directory, user_space, vendor: OnceCell::new() };
    let mut tally = Tally::default();
    for kernel in KERNELS {
        let mut bootable = None;
        for scenario in SCENARIOS {
            for (variant, short) in scenario.variants {
                if !selection.takes(kernel, scenario, *short) {
                    continue;
                }
                let started = Instant::now();
                let outcome = run.row(kernel, &mut bootable, scenario, variant);
                tally.count(said(kernel, variant, scenario, started, outcome));
            }
        }
    }
    Ok(tally)
}

/// Prints the line of a row; whether it passed.
fn said(kernel: &Kernel, variant: &Variant, scenario: &Scenario, started: Instant, outcome: Result<String>) -> bool {
    let row = format!("{:<5} {:<25} {:<9}", kernel.name, variant.name, scenario.name);
    let elapsed = seconds(started.elapsed());
    match outcome {
        Ok(found) => println!("    {row} {} in {elapsed}: {found}", paint(Color::Green, "passed")),
        Err(error) => {
            println!("    {row} {} in {elapsed}", paint(Color::Red, "failed"));
            for line in format!("{error:#}").lines() {
                println!("    | {line}");
            }
            return false;
        }
    }
    true
}

/// Keeps what a guest left whose check failed, and says where.
fn kept(disk: &Path, logs: &Path, kernel: &Kernel, scenario: &Scenario) -> String {
    let place = logs.join(format!("vm-{}-{}-disk", kernel.name, scenario.name));
    // One kept earlier may be in the way, or not be there.
    drop(fs::remove_dir_all(&place));
    match tests::copy_directory(disk, &place) {
        Ok(()) => format!("what the guest left is in {}", place.display()),
        Err(error) => format!("what the guest left could not be kept: {error:#}"),
    }
}

impl Run<'_> {
    fn row(
        &self,
        kernel: &Kernel,
        bootable: &mut Option<Bootable>,
        scenario: &Scenario,
        variant: &Variant,
    ) -> Result<String> {
        let Bootable { fetched, initramfs } = match bootable {
            Some(bootable) => bootable,
            None => bootable.insert(self.bootable(kernel)?),
        };
        let directory = tempfile::Builder::new()
            .prefix(&format!("{}-{}-", kernel.name, scenario.name))
            .tempdir_in(self.directory.path())
            .context("no temporary directory")?;
        let disk = Disk::create(directory.path().join("disk"))?;
        let vendor = if scenario.tpm { Some(self.vendor()?) } else { None };
        let logs = self.workspace.logs();
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let tpm = vendor.map(|vendor| vendor.make(directory.path().join("tpm"))).transpose()?;
        let firmware = scenario.firmware.then(|| Firmware::create(directory.path().join("variables"))).transpose()?;
        let desk = Desk { disk: &disk, directory: directory.path(), vendor, tpm: tpm.as_ref() };
        let mut consoles = Vec::new();
        for (number, turn) in (1..).zip(scenario.boots) {
            (scenario.before)(&desk, number).with_context(|| format!("before boot {number}"))?;
            let console = logs.join(format!(
                "vm-{}-{}-{}-{number}.console",
                kernel.name,
                scenario.name,
                variant.name.replace([' ', '='], "-")
            ));
            let boot = Boot {
                image: &fetched.image,
                initramfs,
                parameters: format!("affiant.scenario={} {} {}", scenario.name, variant.parameters, turn.parameters),
                disk: &disk,
                tpm: tpm.as_ref(),
                firmware: firmware.as_ref(),
                console: &console,
            };
            boot.run(turn.end).with_context(|| format!("boot {number} of {}", scenario.boots.len()))?;
            consoles.push(console);
        }
        let copy = directory.path().join("copy");
        disk.copy_out(&copy)?;
        let host = directory.path();
        let left = Left { kernel, release: &fetched.release, variant, disk: copy, host, consoles, vendor };
        scenario.check(&left).with_context(|| kept(&left.disk, &logs, kernel, scenario))
    }

    fn bootable(&self, kernel: &Kernel) -> Result<Bootable> {
        let fetched = kernel.fetch(self.workspace)?;
        let initramfs = self.directory.path().join(format!("initramfs-{}", kernel.name));
        self.user_space.write(&module::in_order(&fetched.modules)?, &initramfs)?;
        println!("    {:<5} is Linux {}", kernel.name, fetched.release);
        Ok(Bootable { fetched, initramfs })
    }

    /// The vendor of this run's TPMs, made when the first is needed.
    fn vendor(&self) -> Result<&Vendor> {
        if let Some(vendor) = self.vendor.get() {
            return Ok(vendor);
        }
        let vendor = Vendor::create(self.directory.path().join("vendor"))?;
        Ok(self.vendor.get_or_init(|| vendor))
    }
}
