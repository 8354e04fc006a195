//! The kernels that guests boot: which there are, how they are fetched, and what a fetched one consists of.
//!
//! A kernel is a Debian package, downloaded by apt from a list of sources of its own and unpacked into the cache: nothing is
//! installed, and the machine's own apt configuration stays as it is. Fetched once per machine; removing its directory in the
//! cache fetches the newest of its series again. Trusted as far as apt's signature check goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{answer, required_step};
use crate::setup;
use crate::workspace::Workspace;

/// The mirror network of the distribution, and the archive of its security updates.
const DEBIAN: &str = "http://deb.debian.org/debian";
const DEBIAN_SECURITY: &str = "http://deb.debian.org/debian-security";
/// The keys of the archive, from Debian's package `debian-archive-keyring`, which every Debian has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages that a kernel consists of begin with one of these; other dependencies (the tools that install one) are left out.
const PARTS: &[&str] = &["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"];
/// Packages followed from the one named in the table; real ones take at most seven.
const PACKAGES_MAX: usize = 12;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// How the command line names it.
    pub(crate) name: &'static str,
    /// Archive and suite, each a line of the sources.
    suites: &'static [(&'static str, &'static str)],
    /// The package that depends on the newest kernel of the series.
    package: &'static str,
    /// Whether `cargo xtask test` boots it.
    pub(crate) short: bool,
    /// What the kernel lacks that the agent needs, as its message says it; none when capture can be armed.
    pub(crate) lacks: Option<&'static str>,
    /// Whether it hashes files for programs.
    pub(crate) hashes: bool,
}

/// Every kernel, oldest first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suites: &[(DEBIAN, "bullseye"), (DEBIAN_SECURITY, "bullseye-security")],
        package: "linux-image-amd64",
        short: false,
        lacks: Some("task storage"),
        hashes: false,
    },
    Kernel {
        name: "6.1",
        suites: &[(DEBIAN, "bookworm"), (DEBIAN_SECURITY, "bookworm-security")],
        package: "linux-image-amd64",
        short: true,
        lacks: None,
        hashes: true,
    },
    Kernel {
        name: "6.12",
        suites: &[(DEBIAN, "bookworm"), (DEBIAN_SECURITY, "bookworm-security")],
        package: "linux-image-6.12-cloud-amd64",
        short: true,
        lacks: None,
        hashes: true,
    },
    Kernel {
        name: "7",
        suites: &[(DEBIAN, "trixie-backports")],
        package: "linux-image-cloud-amd64",
        short: false,
        lacks: None,
        hashes: true,
    },
];

/// A kernel on this machine.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// `uname -r`.
    pub(crate) release: String,
    /// What boots.
    pub(crate) image: PathBuf,
    /// Its modules, unpacked but not indexed.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The kernel from the cache, downloaded first when it is not there.
    pub(crate) fn fetch(&self, workspace: &Workspace) -> Result<Fetched> {
        let place = workspace.cache.join("kernels").join(self.name);
        let root = place.join("root");
        let complete = place.join("complete");
        if !complete.is_file() {
            let _lock = setup::lock_cache(workspace)?;
            if !complete.is_file() {
                self.download(workspace, &place, &root)?;
                fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
            }
        }
        Fetched::find(&root)
    }

    fn download(&self, workspace: &Workspace, place: &Path, root: &Path) -> Result<()> {
        if place.exists() {
            fs::remove_dir_all(place).with_context(|| format!("cannot remove {}", place.display()))?;
        }
        println!("vm: Debian's kernel {} ({}) into {}, not installed", self.name, self.package, place.display());
        let apt = Apt::new(&place.join("apt"), self.suites)?;
        let logs = workspace.logs();
        required_step(&logs, &format!("package lists for kernel {}", self.name), apt.get().arg("update"))?;
        let packages = self.packages(&apt)?;
        let debs = place.join("debs");
        create(&debs)?;
        let mut download = apt.get();
        download.arg("download").args(&packages).current_dir(&debs);
        required_step(&logs, &format!("download kernel {}", self.name), &mut download)?;
        create(root)?;
        for entry in fs::read_dir(&debs).with_context(|| format!("cannot read {}", debs.display()))? {
            let deb = entry.context("cannot read a directory")?.path();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&deb).arg(root);
            required_step(&logs, &format!("unpack kernel {}", self.name), &mut unpack)?;
        }
        // Both are large and done with.
        for done in [debs, place.join("apt")] {
            fs::remove_dir_all(&done).with_context(|| format!("cannot remove {}", done.display()))?;
        }
        Ok(())
    }

    /// The packages of the newest kernel of the series: the named one leads to an image, which may lead to more.
    fn packages(&self, apt: &Apt) -> Result<Vec<String>> {
        let mut packages = vec![self.package.to_owned()];
        let mut next = 0;
        while let Some(package) = packages.get(next).cloned() {
            next += 1;
            if packages.len() > PACKAGES_MAX {
                bail!("{} leads to more than {PACKAGES_MAX} packages: {}", self.package, packages.join(", "));
            }
            let text = answer(apt.cache().args(["depends", "--important"]).arg(&package))
                .with_context(|| format!("apt knows no package {package} in {:?}", self.suites))?;
            for part in dependencies(&text) {
                if !packages.contains(&part) {
                    packages.push(part);
                }
            }
        }
        if packages.len() == 1 {
            bail!("{} leads to no kernel image", self.package);
        }
        Ok(packages)
    }
}

/// The parts of a kernel among the dependencies that `apt-cache depends` printed.
fn dependencies(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.filter(|name| PARTS.iter().any(|part| name.starts_with(part))).map(str::to_owned).collect()
}

impl Fetched {
    fn find(root: &Path) -> Result<Self> {
        // Since 7.x files lie where a system with one merged directory has them.
        let versions = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place));
        let versions = versions.iter().find(|place| place.is_dir());
        let versions = versions.with_context(|| format!("{} holds no modules", root.display()))?;
        let mut found = fs::read_dir(versions).with_context(|| format!("cannot read {}", versions.display()))?;
        let modules = found.next().context("no version of modules")?.context("cannot read a directory")?.path();
        let release = modules.file_name().and_then(|name| name.to_str()).context("a version in UTF-8")?.to_owned();
        let images = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        let image = image.with_context(|| format!("{} holds no kernel image of {release}", root.display()))?;
        Ok(Self { release, image, modules })
    }
}

/// apt with sources and state of its own; signatures are checked as for the machine's own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(directory: &Path, suites: &[(&str, &str)]) -> Result<Self> {
        create(&directory.join("lists/partial"))?;
        create(&directory.join("archives/partial"))?;
        let sources = directory.join("sources.list");
        let lines: String = suites
            .iter()
            .map(|(archive, suite)| format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"))
            .collect();
        fs::write(&sources, lines).with_context(|| format!("cannot write {}", sources.display()))?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.display()),
            "APT::Architecture=amd64".to_owned(),
            // Its own user could not write here; the signatures are checked either way.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: options.into_iter().flat_map(|option| ["--option".to_owned(), option]).collect() })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options);
        command
    }

    fn cache(&self) -> Command {
        let mut command = Command::new("apt-cache");
        command.args(&self.options);
        command
    }
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_the_kernel_are_followed() {
        let text = "\
linux-image-7.3.4-cloud-amd64
  PreDepends: linux-base
 |Depends: <dracut>
  Depends: <linux-initramfs-tool>
  Depends: linux-base-7.3.4-cloud-amd64
  Depends: linux-binary-7.3.4-cloud-amd64
  Depends: linux-modules-7.3.4-cloud-amd64
";
        let parts = ["linux-base-", "linux-binary-", "linux-modules-"].map(|part| format!("{part}7.3.4-cloud-amd64"));
        assert_eq!(dependencies(text), parts);
    }

    #[test]
    fn names_are_unique() {
        for (place, kernel) in KERNELS.iter().enumerate() {
            assert!(KERNELS.iter().skip(place + 1).all(|other| other.name != kernel.name), "{}", kernel.name);
        }
    }
}
