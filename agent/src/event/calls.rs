//! Which system call changes what, and where in its arguments that stands.
//!
//! Owns the one table of calls that the kernel side reports as changes of files. Pure; numbers are those of the
//! architecture that this is built for.

use agent_evidence::record::FileOp;

/// `AT_FDCWD`: a relative name starts from the working directory.
pub const AT_FDCWD: i32 = -100;
/// `AT_REMOVEDIR` of unlinkat(2).
const AT_REMOVEDIR: u64 = 0x200;
/// `RENAME_EXCHANGE` of renameat2(2).
const RENAME_EXCHANGE: u64 = 2;

/// fchmodat2(2), setxattrat(2) and removexattrat(2): the same number on every architecture, and younger than the C
/// library's headers may be.
const SYS_FCHMODAT2: libc::c_long = 452;
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// A call that changes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeCall {
    /// What it does.
    pub op: FileOp,
    /// The directory descriptor that the file's name starts from, when it is not the working directory.
    pub dir_fd: Option<u32>,
    /// The one that the second string starts from, likewise.
    pub to_dir_fd: Option<u32>,
    /// The length that it sets.
    pub length: Option<u64>,
    /// Its first string is the target of the symbolic link that the second names.
    pub target_first: bool,
}

impl ChangeCall {
    /// The call of this number with these arguments; `None` for one that is not reported as a change.
    #[must_use]
    pub fn of(nr: u32, args: &[u64; 5]) -> Option<Self> {
        let call = CALLS.iter().find(|call| libc::c_long::from(nr) == call.nr)?;
        let [_, second, third, _, fifth] = *args;
        let op = match call.op {
            FileOp::Unlink if call.nr == libc::SYS_unlinkat && third & AT_REMOVEDIR != 0 => FileOp::Rmdir,
            FileOp::Rename if call.nr == libc::SYS_renameat2 && fifth & RENAME_EXCHANGE != 0 => FileOp::Exchange,
            op => op,
        };
        let by_length = op == FileOp::Truncate && call.nr != libc::SYS_fallocate;
        Some(Self {
            op,
            dir_fd: call.dir.and_then(|place| directory(args, place)),
            to_dir_fd: call.to_dir.and_then(|place| directory(args, place)),
            length: by_length.then_some(second),
            target_first: op == FileOp::Symlink,
        })
    }
}

/// The directory descriptor at this place; none for the working directory and for numbers that are no descriptor.
fn directory(args: &[u64; 5], place: usize) -> Option<u32> {
    // The kernel takes the lower half of the register, as a signed number.
    let low = u32::try_from(args.get(place)? & u64::from(u32::MAX)).ok()?;
    let fd = low.cast_signed();
    if fd == AT_FDCWD { None } else { u32::try_from(fd).ok() }
}

struct Call {
    nr: libc::c_long,
    op: FileOp,
    dir: Option<usize>,
    to_dir: Option<usize>,
}

const fn call(nr: libc::c_long, op: FileOp) -> Call {
    Call { nr, op, dir: None, to_dir: None }
}

const fn at(nr: libc::c_long, op: FileOp, dir: usize) -> Call {
    Call { nr, op, dir: Some(dir), to_dir: None }
}

const fn between(nr: libc::c_long, op: FileOp) -> Call {
    Call { nr, op, dir: Some(0), to_dir: Some(2) }
}

const CALLS: &[Call] = &[
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_unlink, FileOp::Unlink),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_rmdir, FileOp::Rmdir),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_mkdir, FileOp::Mkdir),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_mknod, FileOp::Create),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_chmod, FileOp::Chmod),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_chown, FileOp::Chown),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_lchown, FileOp::Chown),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_rename, FileOp::Rename),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_link, FileOp::Link),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_symlink, FileOp::Symlink),
    at(libc::SYS_unlinkat, FileOp::Unlink, 0),
    at(libc::SYS_mkdirat, FileOp::Mkdir, 0),
    at(libc::SYS_mknodat, FileOp::Create, 0),
    at(libc::SYS_fchmodat, FileOp::Chmod, 0),
    at(SYS_FCHMODAT2, FileOp::Chmod, 0),
    at(libc::SYS_fchownat, FileOp::Chown, 0),
    between(libc::SYS_renameat, FileOp::Rename),
    between(libc::SYS_renameat2, FileOp::Rename),
    between(libc::SYS_linkat, FileOp::Link),
    at(libc::SYS_symlinkat, FileOp::Symlink, 1),
    call(libc::SYS_truncate, FileOp::Truncate),
    call(libc::SYS_ftruncate, FileOp::Truncate),
    call(libc::SYS_fallocate, FileOp::Truncate),
    call(libc::SYS_fchmod, FileOp::Chmod),
    call(libc::SYS_fchown, FileOp::Chown),
    call(libc::SYS_setxattr, FileOp::SetXattr),
    call(libc::SYS_lsetxattr, FileOp::SetXattr),
    call(libc::SYS_fsetxattr, FileOp::SetXattr),
    at(SYS_SETXATTRAT, FileOp::SetXattr, 0),
    call(libc::SYS_removexattr, FileOp::RemoveXattr),
    call(libc::SYS_lremovexattr, FileOp::RemoveXattr),
    call(libc::SYS_fremovexattr, FileOp::RemoveXattr),
    at(SYS_REMOVEXATTRAT, FileOp::RemoveXattr, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nr: libc::c_long, args: [u64; 5]) -> ChangeCall {
        ChangeCall::of(u32::try_from(nr).unwrap(), &args).unwrap()
    }

    /// `AT_FDCWD` as a register holds it: sign-extended or not.
    const CWD: [u64; 2] = [(-100_i64).cast_unsigned(), 0xffff_ff9c];

    #[test]
    fn flags_of_a_call_decide_what_it_does() {
        assert_eq!(of(libc::SYS_unlinkat, [3, 0, 0, 0, 0]).op, FileOp::Unlink);
        assert_eq!(of(libc::SYS_unlinkat, [3, 0, 0x200, 0, 0]).op, FileOp::Rmdir);
        assert_eq!(of(libc::SYS_renameat2, [3, 0, 4, 0, 1]).op, FileOp::Rename);
        assert_eq!(of(libc::SYS_renameat2, [3, 0, 4, 0, 2]).op, FileOp::Exchange);
        // renameat(2) has no flags: whatever the register holds is not one.
        assert_eq!(of(libc::SYS_renameat, [3, 0, 4, 0, 2]).op, FileOp::Rename);
    }

    #[test]
    fn directory_descriptors_stand_where_each_call_has_them() {
        let renamed = of(libc::SYS_renameat, [3, 0, 4, 0, 0]);
        assert_eq!((renamed.dir_fd, renamed.to_dir_fd), (Some(3), Some(4)));
        let linked = of(libc::SYS_symlinkat, [9, 5, 0, 0, 0]);
        assert_eq!((linked.dir_fd, linked.to_dir_fd, linked.target_first), (Some(5), None, true));
        for cwd in CWD {
            let renamed = of(libc::SYS_renameat2, [cwd, 0, cwd, 0, 0]);
            assert_eq!((renamed.dir_fd, renamed.to_dir_fd), (None, None));
        }
        assert_eq!(of(libc::SYS_mkdirat, [u64::from(u32::MAX), 0, 0, 0, 0]).dir_fd, None);
        // Of a call without one, the first argument is an address.
        assert_eq!(of(libc::SYS_truncate, [3, 7, 0, 0, 0]).dir_fd, None);
    }

    #[test]
    fn only_calls_that_set_a_length_have_one() {
        assert_eq!(of(libc::SYS_truncate, [1, 4096, 0, 0, 0]).length, Some(4096));
        assert_eq!(of(libc::SYS_ftruncate, [1, 4096, 0, 0, 0]).length, Some(4096));
        assert_eq!(of(libc::SYS_fallocate, [1, 0, 0, 4096, 0]).length, None);
        assert_eq!(of(libc::SYS_fchmod, [1, 0o644, 0, 0, 0]).length, None);
    }

    #[test]
    fn a_call_that_changes_nothing_is_not_in_the_table_and_none_is_there_twice() {
        assert_eq!(ChangeCall::of(u32::try_from(libc::SYS_openat).unwrap(), &[0; 5]), None);
        assert_eq!(ChangeCall::of(u32::MAX, &[0; 5]), None);
        for (position, call) in CALLS.iter().enumerate() {
            assert!(CALLS.iter().skip(position + 1).all(|other| other.nr != call.nr), "{}", call.nr);
        }
    }
}
