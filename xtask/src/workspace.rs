//! Where things are: the repository, the target directory and the cache that outlives both.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Places every command needs. All paths are absolute.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the repository.
    pub(crate) target: PathBuf,
    /// Tools that setup builds once per machine: `$XDG_CACHE_HOME/affiant`, else `/var/cache/affiant` for root, else
    /// `~/.cache/affiant`. Outside the repository, so that neither `cargo clean` nor a fresh clone builds them again.
    pub(crate) cache: PathBuf,
}

impl Workspace {
    /// Finds the repository from the directory Cargo started us in, or from the current directory.
    pub(crate) fn locate() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => env::current_dir().context("no current directory")?,
        };
        let Some(root) = start.ancestors().find(|directory| directory.join("agent-ebpf/Cargo.toml").is_file()) else {
            bail!("{} is not inside the repository", start.display());
        };
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        Ok(Self { root: root.to_path_buf(), target, cache: cache_directory()? })
    }

    /// Where the log of each step goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target.join("xtask-logs")
    }

    /// The eBPF object that the host build of a profile embeds; `agent/build.rs` looks here too.
    pub(crate) fn ebpf_object(&self, profile_directory: &str) -> PathBuf {
        self.target.join("ebpf").join(profile_directory).join("affiant.bpf.o")
    }

    /// A program built for the host.
    pub(crate) fn program(&self, profile_directory: &str, name: &str) -> PathBuf {
        self.target.join(profile_directory).join(name)
    }
}

fn cache_directory() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("XDG_CACHE_HOME").filter(|value| Path::new(value).is_absolute()) {
        return Ok(PathBuf::from(cache).join("affiant"));
    }
    if crate::setup::is_root() {
        return Ok(PathBuf::from("/var/cache/affiant"));
    }
    let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set: no place for tools")?;
    Ok(PathBuf::from(home).join(".cache/affiant"))
}
