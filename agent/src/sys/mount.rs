//! File systems that the kernel has but that nobody may have mounted yet: bpffs and tracefs.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A kernel file system that the agent needs mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFs {
    /// Where maps and links are pinned.
    Bpf,
    /// Where classic tracepoints have their numbers.
    Trace,
}

impl KernelFs {
    /// Its usual place.
    #[must_use]
    pub fn usual_path(self) -> &'static Path {
        match self {
            Self::Bpf => Path::new("/sys/fs/bpf"),
            Self::Trace => Path::new("/sys/kernel/tracing"),
        }
    }

    /// Type name for mount(2).
    fn type_name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Bpf => c"bpf",
            Self::Trace => c"tracefs",
        }
    }

    /// What statfs(2) calls it (`include/uapi/linux/magic.h`).
    fn magic(self) -> i64 {
        match self {
            Self::Bpf => 0xcafe_4a11,
            Self::Trace => 0x7472_6163,
        }
    }

    /// Whether `path` lies on it.
    ///
    /// # Errors
    /// When statfs(2) fails, the path being absent included.
    pub fn is_at(self, path: &Path) -> io::Result<bool> {
        let path = c_path(path)?;
        let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: a NUL-terminated path and room for the answer.
        if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: statfs succeeded, so it filled the struct.
        let stat = unsafe { stat.assume_init() };
        Ok(stat.f_type == self.magic())
    }

    /// Mounts it at `path` unless it is there; says whether it had to.
    ///
    /// # Errors
    /// When statfs(2) or mount(2) fails, for lack of `CAP_SYS_ADMIN` above all.
    pub fn ensure_at(self, path: &Path) -> io::Result<bool> {
        if self.is_at(path)? {
            return Ok(false);
        }
        let target = c_path(path)?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        // SAFETY: NUL-terminated strings, no data.
        let done = unsafe {
            libc::mount(self.type_name().as_ptr(), target.as_ptr(), self.type_name().as_ptr(), flags, std::ptr::null())
        };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        // Another process may have mounted it since it was looked for: then the kernel says that the place is taken.
        if error.raw_os_error() == Some(libc::EBUSY) && self.is_at(path)? {
            return Ok(false);
        }
        Err(error)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}
