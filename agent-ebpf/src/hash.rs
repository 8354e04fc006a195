//! The SHA-256 of a file that is executed, by the kernel (`bpf_ima_file_hash`, 5.18, `CONFIG_IMA`), and those kept.
//!
//! The kernel reads and hashes the whole file each time it is asked, so what it said is kept, under inode, device, size and
//! change time. A kept hash is only used where a change cannot go unseen: nobody has the file open for writing (a
//! shared mapping changes it without touching its times), its file system is one whose change times the kernel itself
//! keeps, mounted by nobody's user namespace but the first, and the clock of change times had moved on when the hash
//! was made. Everything else is hashed each time.

use crate::maps::{HASHES, off};
use crate::task::{Typed, member};
use agent_common::limits::{HASH_BYTES_MAX, HASH_SETTLED_NS};
use agent_common::stats::{HashKey, KeptHash};
use aya_ebpf::helpers::generated::{bpf_ima_file_hash, bpf_ktime_get_boot_ns};

/// `HASH_ALGO_SHA256` (`include/uapi/linux/hash_info.h`).
const SHA256: i64 = 4;
/// ext2, 3 and 4; XFS; Btrfs; tmpfs; overlayfs (`include/uapi/linux/magic.h`). What lies below an overlay is not to be
/// changed while it is mounted, which only whoever mounted it could do.
const KEPT_ON: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];

/// Writes the SHA-256 of `file` to `to`; false, and zeroes, when it could not be had.
///
/// # Safety
/// `file` is typed and held by the kernel; `to` has room for 32 bytes; the program may sleep.
#[inline(always)]
pub unsafe fn of_file(to: *mut [u8; 32], file: Typed) -> bool {
    // SAFETY: typed loads; the caller's memory.
    unsafe {
        *to = [0; 32];
        let inode: Typed = member(file, off!(file_inode));
        if inode.is_null() {
            return false;
        }
        let block: Typed = member(inode, off!(inode_sb));
        if block.is_null() {
            return false;
        }
        let key = HashKey {
            ino: member(inode, off!(inode_ino)),
            size: member(inode, off!(inode_size)),
            ctime_s: member(inode, off!(inode_ctime_s)),
            ctime_ns: member(inode, off!(inode_ctime_ns)),
            dev: member(block, off!(super_block_dev)),
        };
        if key.size > HASH_BYTES_MAX {
            return false;
        }
        let keeps = member::<i32>(inode, off!(inode_writers)) <= 0 && kept_on(block);
        let now = bpf_ktime_get_boot_ns();
        let mut settled = false;
        if keeps {
            if let Some(kept) = HASHES.get_ptr(&key) {
                if (*kept).known == 1 {
                    *to = (*kept).sha256;
                    return true;
                }
                settled = now.wrapping_sub((*kept).seen_ns) >= HASH_SETTLED_NS;
            } else {
                let _ = HASHES.insert(&key, &KeptHash { seen_ns: now, known: 0, sha256: [0; 32] }, 0);
            }
        }
        if bpf_ima_file_hash(file.cast_mut().cast(), to.cast(), 32) != SHA256 {
            *to = [0; 32];
            return false;
        }
        if settled {
            let _ = HASHES.insert(&key, &KeptHash { seen_ns: now, known: 1, sha256: *to }, 0);
        }
        true
    }
}

/// Whether the file system is one where a change of a file shows.
///
/// # Safety
/// `block` is typed.
#[inline(always)]
unsafe fn kept_on(block: Typed) -> bool {
    // SAFETY: typed loads.
    unsafe {
        let owner: Typed = member(block, off!(super_block_user_ns));
        if owner.is_null() || member::<u32>(owner, off!(user_namespace_level)) != 0 {
            return false;
        }
        let magic: u64 = member(block, off!(super_block_magic));
        magic == KEPT_ON[0] || magic == KEPT_ON[1] || magic == KEPT_ON[2] || magic == KEPT_ON[3] || magic == KEPT_ON[4]
    }
}
