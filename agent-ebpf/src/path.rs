//! Names of files: the walk from a dentry to the root of the mount namespace.
//!
//! The chain of `d_parent` and mounts is followed here, one piece of a dentry per `bpf_probe_read_kernel`. Nothing
//! locks the chain: a rename during the walk can give a path that never existed as a whole. Names shorter than the
//! inline store come out of the piece already read.
//!
//! Where the kernel keeps its memory from programs (lockdown=confidentiality) it is `bpf_d_path` that gives the path,
//! in the few hooks that may call it. That one ends at the process's own root and says nothing of mounts outside its
//! namespace, which the walk does: so the walk is taken wherever it can be.

use crate::emit::Scratch;
use crate::maps::{SCRATCH, off};
use crate::task::{Typed, member};
use agent_common::file::path_flag;
use agent_common::limits::{
    DENTRY_CHUNK_BYTES, INLINE_NAME_BYTES, MOUNT_CHUNK_BYTES, NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX,
    SCRATCH_BYTES,
};
use aya_ebpf::helpers::generated::{bpf_d_path, bpf_probe_read_kernel};

/// Where a path starts: a vfsmount and a dentry in it, as numbers (read, not typed).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Start {
    /// `struct vfsmount *`.
    pub mount: u64,
    /// `struct dentry *`.
    pub dentry: u64,
}

/// Reads `size` bytes at a kernel address; false (and zeroes) when not mapped.
///
/// # Safety
/// `to` has room for `size` bytes.
#[inline(always)]
pub unsafe fn read(to: *mut u8, size: u32, from: u64) -> bool {
    // SAFETY: the caller's memory; the helper checks the source.
    unsafe { bpf_probe_read_kernel(to.cast(), size, from as *const _) == 0 }
}

/// Reads one value at a kernel address; zero when not mapped.
#[inline(always)]
pub fn value<T: Copy + zerocopy::FromBytes>(from: u64) -> T {
    let mut value = T::new_zeroed();
    // SAFETY: any bytes are a valid T.
    unsafe { read((&raw mut value).cast(), size_of::<T>() as u32, from) };
    value
}

/// A piece of a kernel object, copied to the stack.
#[repr(C, align(8))]
pub struct Piece<const N: usize>([u8; N]);

impl<const N: usize> Piece<N> {
    /// Copies `N` bytes from a kernel address.
    #[inline(always)]
    pub fn new(from: u64) -> (Self, bool) {
        let mut piece = core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: the helper writes all N bytes, zeroes on failure.
        unsafe {
            let read = read(piece.as_mut_ptr().cast(), N as u32, from);
            (piece.assume_init(), read)
        }
    }

    /// The member at `offset`, which the loader checked to lie within.
    #[inline(always)]
    pub fn get<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the loader refuses offsets beyond the piece, and the verifier checks the stack access.
        unsafe { self.0.as_ptr().add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// Covers every length that occurs: at most `PATH_BYTES_MAX` and one name.
const LEN_MASK: usize = 0xfff;
const _: () = assert!(PATH_BYTES_MAX + NAME_BYTES_MAX <= LEN_MASK);
const _: () = assert!(LEN_MASK + PATH_BYTES_MAX + NAME_BYTES_MAX <= SCRATCH_BYTES);

/// The same length, masked in a way that the compiler cannot see through. Two things hang on it: the compiler would
/// keep `to + len` in a register across the loop, whose range the verifier sees grow with each step instead of being
/// cut by the check of `len`; and the mask, which changes nothing, washes off the lower bound, which would tell the
/// states of the steps apart.
#[inline(always)]
fn washed(len: usize) -> usize {
    #[cfg(not(target_arch = "bpf"))]
    return len & LEN_MASK;
    #[cfg(target_arch = "bpf")]
    {
        let mut len = len;
        // SAFETY: one instruction on one register. (A bare comment would leave two lines of debug information for
        // one instruction, which the kernel refuses: "Invalid line_info".)
        unsafe {
            core::arch::asm!("{len} &= {mask}", len = inout(reg) len, mask = const LEN_MASK);
        }
        len
    }
}

/// Writes the path of `start` into the scratch at byte `at`, leaf first, at most `max` bytes (and up to 256 beyond
/// while working); gives its length and `path_flag`s. `mnt_ns` is the acting task's mount namespace.
///
/// `zero` is a zero that neither compiler nor verifier knows to be one (read from memory): with a length known exactly
/// on the way in, each number of components would be a state of its own to the verifier; with one that may be anything
/// below `max`, all of them are the same.
#[inline(always)]
pub fn walk(scratch: Scratch, at: usize, max: usize, start: Start, mnt_ns: u64, zero: u32) -> (usize, u16) {
    let place = u64::from(scratch.slot) << 32 | (at as u64) << 16 | max as u64;
    let mnt_ns = plain(scratch, mnt_ns);
    let found = walk_path(place, start.mount, start.dentry, mnt_ns, u64::from(zero));
    let len = (found & 0xffff) as usize;
    // It is never longer, but the verifier knows only what it is told here.
    if len > max { (max, path_flag::UNREADABLE) } else { (len, (found >> 16) as u16) }
}

/// A kernel pointer as a number. To the verifier it is a typed pointer, which is no plain number ("R4 is not a
/// scalar"), until it has been through memory. Nothing else is in the last word of the scratch by then.
#[inline(always)]
pub fn plain(scratch: Scratch, pointer: u64) -> u64 {
    // SAFETY: inside the slot, aligned to 8.
    unsafe {
        let word = scratch.room.add(SCRATCH_BYTES - 8).cast::<u64>();
        word.write_volatile(pointer);
        word.read_volatile()
    }
}

/// Whether programs may read kernel memory at any address on this kernel: a frozen constant, so that the verifier
/// does not look at what comes behind when they may not.
#[inline(always)]
pub fn may_read() -> bool {
    off!(read_kernel) != 0
}

/// The path of a typed `struct path` at `offset` of a typed object, with what `walk` takes besides. `kernels_own`
/// says whether the hook is one of those where `bpf_d_path` may be called.
///
/// # Safety
/// The object is typed and held by the kernel while the hook runs.
#[inline(always)]
pub unsafe fn of_path(place: Place, object: Typed, offset: u32, mnt_ns: u64, kernels_own: bool) -> (usize, u16) {
    let Place { scratch, at, max, zero } = place;
    // SAFETY: typed loads; the two words of a path are mount and dentry (checked by the loader).
    unsafe {
        if may_read() {
            let mount = plain(scratch, member(object, offset));
            let dentry = plain(scratch, member(object, offset + 8));
            return walk(scratch, at, max, Start { mount, dentry }, mnt_ns, zero);
        }
        if !kernels_own {
            return (0, path_flag::UNREADABLE);
        }
        let to = scratch.room.add(at);
        let written = bpf_d_path(object.add(offset as usize).cast_mut().cast(), to.cast(), max as u32);
        if written <= 0 || written > max as i64 {
            return (0, path_flag::UNREADABLE);
        }
        let mount: Typed = member(object, offset);
        let dentry: Typed = member(object, offset + 8);
        let mut flags = path_flag::COMPLETE | path_flag::IN_ORDER;
        if !mount.is_null() && !dentry.is_null() {
            let this = plain(scratch, dentry as u64);
            let parent = plain(scratch, member(dentry, off!(dentry_parent)));
            let root = plain(scratch, member(mount, off!(vfsmount_root)));
            if parent != this && member::<u64>(dentry, off!(dentry_hash)) == 0 {
                flags |= path_flag::UNLINKED;
            }
            if parent == this && root != this {
                // A file without a directory: memfd, pipe.
                flags |= path_flag::DETACHED | path_flag::UNLINKED;
            }
        }
        (written as usize - 1, flags)
    }
}

/// Where a path goes.
#[derive(Clone, Copy)]
pub struct Place {
    /// Into this slot,
    pub scratch: Scratch,
    /// from this byte on,
    pub at: usize,
    /// at most so many bytes.
    pub max: usize,
    /// As [`walk`] says.
    pub zero: u32,
}

/// [`walk`], as a function that the verifier proves once, for any arguments, and not again in every state in which a
/// program calls it: an exec that walks twice is "too large. Processed 1000001 insn" on 6.1 otherwise. That needs a
/// symbol visible outside (BTF calls it global) and plain numbers: at most five, so `place` is the slot of the scratch,
/// the byte where the path goes, and the most bytes it may take. The answer is the length, and above it the flags.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_path(place: u64, mount: u64, dentry: u64, mnt_ns: u64, zero: u64) -> u64 {
    if !may_read() {
        return u64::from(path_flag::UNREADABLE) << 16;
    }
    let Some(room) = SCRATCH.get_ptr_mut((place >> 32) as u32) else { return 0 };
    let at = (place >> 16) as usize & LEN_MASK;
    let max = place as usize & LEN_MASK;
    let max = if max > PATH_BYTES_MAX { PATH_BYTES_MAX } else { max };
    // SAFETY: LEN_MASK and the longest path and one name are within the scratch.
    let to = unsafe { room.cast::<u8>().add(at) };
    let mut len = zero as usize;
    let mut flags = zero as u16;
    let mut dentry = dentry;
    let mut mount = mount.wrapping_sub(u64::from(off!(mount_vfsmount)));
    let (mut piece, _) = Piece::<MOUNT_CHUNK_BYTES>::new(mount.wrapping_add(u64::from(off!(mount_piece))));
    for step in 0..PATH_DEPTH_MAX {
        len = washed(len);
        if len >= max {
            break;
        }
        if dentry == piece.get::<u64>(off!(piece_mnt_root)) {
            let above = piece.get::<u64>(off!(piece_mnt_parent));
            if above == mount || above == 0 {
                flags |= path_flag::COMPLETE;
                let ns = value::<u64>(mount.wrapping_add(u64::from(off!(mount_ns))));
                if ns != mnt_ns {
                    flags |= path_flag::DETACHED;
                }
                break;
            }
            dentry = piece.get::<u64>(off!(piece_mnt_mountpoint));
            mount = above;
            (piece, _) = Piece::new(mount.wrapping_add(u64::from(off!(mount_piece))));
            continue;
        }
        let (name, readable) = Piece::<DENTRY_CHUNK_BYTES>::new(dentry.wrapping_add(u64::from(off!(dentry_piece))));
        if !readable {
            flags |= path_flag::UNREADABLE;
            break;
        }
        let parent = name.get::<u64>(off!(piece_parent));
        if step == 0 && parent != dentry && name.get::<u64>(off!(piece_hash)) == 0 {
            flags |= path_flag::UNLINKED;
        }
        let bytes = name.get::<u32>(off!(piece_name_len)) as usize;
        let text = name.get::<u64>(off!(piece_name));
        let inline = dentry.wrapping_add(u64::from(off!(dentry_piece))).wrapping_add(u64::from(off!(piece_inline)));
        // SAFETY: len < max, so 256 bytes beyond are inside the caller's room.
        unsafe {
            let at = to.add(len);
            if text == inline && bytes < INLINE_NAME_BYTES {
                let words = off!(piece_inline);
                at.cast::<u64>().write_unaligned(name.get::<u64>(words));
                at.add(8).cast::<u64>().write_unaligned(name.get::<u64>(words + 8));
                at.add(16).cast::<u64>().write_unaligned(name.get::<u64>(words + 16));
                at.add(24).cast::<u64>().write_unaligned(name.get::<u64>(words + 24));
                *at.add(bytes) = 0;
                len += bytes + 1;
            } else if bytes < NAME_BYTES_MAX {
                if !read(at, bytes as u32, text) {
                    flags |= path_flag::UNREADABLE;
                }
                *at.add(bytes) = 0;
                len += bytes + 1;
            } else {
                flags |= path_flag::UNREADABLE;
                break;
            }
        }
        if parent == dentry {
            // The root of a tree that no mount shows: memfd, pipe, a lazily unmounted file system.
            flags |= path_flag::COMPLETE | path_flag::DETACHED;
            break;
        }
        dentry = parent;
    }
    if len > max {
        len = max;
        flags &= !path_flag::COMPLETE;
    }
    len as u64 | u64::from(flags) << 16
}
