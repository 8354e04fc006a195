//! Every size and count that both sides share, each derived where it stands.

/// Bytes of `RING_CRIT`. A fork, exec and exit of one process take about 700 bytes together, so 8 MiB holds about
/// 12,000 processes' lives between two commits of the log.
pub const RING_CRIT_BYTES: u32 = 8 << 20;

/// Bytes of `RING_BULK`. An open of a path of 40 bytes takes 208 bytes (8 of them the ring's own header), so 16 MiB
/// holds about 80,000 opens: half a second at the 150,000 opens per second that two cores can do.
pub const RING_BULK_BYTES: u32 = 16 << 20;

/// Longest path kept, in bytes of components with their terminators. `PATH_MAX` is 4,096, but the scratch of a task
/// must stay within one 8 KiB allocation; a longer path keeps its end (nearest the file) and is flagged.
pub const PATH_BYTES_MAX: usize = 2048;

/// Longest working directory kept with an exec, in bytes; flagged beyond.
pub const CWD_BYTES_MAX: usize = 1024;

/// Longest path string of the caller kept as a claim, in bytes without terminator.
pub const ASKED_BYTES_MAX: usize = 1024;

/// Longest `argv` kept in the message, in bytes with terminators; `argc` and the whole length are kept beside it.
pub const ARGV_BYTES_MAX: usize = 4096;

/// Longest cgroup path kept, in bytes without terminator.
pub const CGROUP_PATH_BYTES_MAX: usize = 1024;

/// A path component is at most `NAME_MAX` (255) bytes plus its terminator.
pub const NAME_BYTES_MAX: usize = 256;

/// Path components walked before a path is flagged as truncated. 64 covers every path of 2,048 bytes whose
/// components average 31 bytes; the verifier walks the loop once per step, which is what bounds it.
pub const PATH_DEPTH_MAX: u32 = 64;

/// Longest name given to exec that is kept, in bytes without terminator.
pub const EXEC_NAME_BYTES_MAX: usize = 512;

/// Bytes of one slot of scratch, in which a message is put together before it is copied to the ring. The largest is an
/// exec with everything: [`EXEC_HEAD_BYTES`] and [`ARGV_WHOLE_BYTES_MAX`]. Every other needs less than 8,000.
pub const SCRATCH_BYTES: usize = EXEC_HEAD_BYTES + ARGV_WHOLE_BYTES_MAX;

/// Slots of scratch for each CPU: one for the program that runs, the others for programs that preempt it (interrupt
/// context, another task). All four in use at once has not been seen; it counts as a loss.
pub const SCRATCH_SLOTS_PER_CPU: u32 = 4;

/// Entries of `SCOPE`: cgroups that are in scope, descendants included. At 16 bytes of value, about 2 MiB in full.
pub const SCOPE_ENTRIES_MAX: u32 = 16_384;

/// Entries of `LOSS`: five classes for 800 workloads that lose at the same time; beyond that the entry for
/// cgroup 0 takes the rest.
pub const LOSS_ENTRIES_MAX: u32 = 4_096;

/// Entries of `CALLS`: threads inside connect(2) at one moment.
pub const CALLS_ENTRIES_MAX: u32 = 16_384;

/// Entries of `PENDING`: TCP connections between SYN and answer at one moment.
pub const PENDING_ENTRIES_MAX: u32 = 16_384;

/// Bytes read at once from a `struct file`, `struct inode` and `struct mount`: the members wanted lie within this
/// much of each other on 5.10 to 6.18 (the loader checks and refuses otherwise).
pub const CHUNK_BYTES: usize = 128;

/// Bytes read at once from a `struct mount`.
pub const MOUNT_CHUNK_BYTES: usize = 48;

/// Bytes read at once from a `struct dentry`: from `d_parent` to the end of the inline name (72 on 6.18, 72 on 6.1).
pub const DENTRY_CHUNK_BYTES: usize = 80;

/// Bytes of a dentry's inline name on every supported kernel: 32 up to 6.12, 40 after; the smaller is used.
pub const INLINE_NAME_BYTES: usize = 32;

/// Entries of `FLOWS`: TCP connections of workloads in scope that are open at one moment, 4 MiB in full. The end of one
/// more is not reported and counts as a lost event.
pub const FLOWS_ENTRIES_MAX: u32 = 16_384;

/// Entries of `SENDS`: (process, socket, remote address) of datagrams sent without a connection. The least recently used
/// makes room: what was forgotten is reported as new again.
pub const SENDS_ENTRIES_MAX: u32 = 16_384;
/// Entries of `BEFORE`: threads inside a system call that can change credentials, at one moment.
pub const BEFORE_ENTRIES_MAX: u32 = 16_384;

/// Entries of `OURS`: the agent's own programs, maps and links, about 130 of them, and those of a daemon that is being
/// replaced.
pub const OURS_ENTRIES_MAX: u32 = 1_024;

/// Entries of `MODULES`: threads inside a system call that loads or removes a module, at one moment.
pub const MODULES_ENTRIES_MAX: u32 = 256;

/// Longest string of a mount's caller kept, in bytes without terminator.
pub const SOURCE_BYTES_MAX: usize = 512;

/// Bytes of a value of `OPENS`: the fixed part of an open (160), its longest path, and one name, which the walk may
/// write beyond while it works.
pub const OPEN_BYTES: usize = 160 + PATH_BYTES_MAX + NAME_BYTES_MAX;

/// Entries of `OPENS`: threads between the hook on an open and the end of their call. Most are there for
/// microseconds; an open of a FIFO is until its other end is opened. One more than this is looked up at the end of
/// its call, as at the tracepoint tier.
pub const OPENS_ENTRIES_MAX: u32 = 1024;

/// Longest `argv` kept where the hooks may sleep, in bytes with terminators.
pub const ARGV_WHOLE_BYTES_MAX: usize = 16 << 10;

/// Bytes of an exec before its argv: the fixed part (280), path, working directory and name, and one name beyond.
/// A power of two, so that a mask bounds what the verifier must know.
pub const EXEC_HEAD_BYTES: usize = 4096;

/// Slots of scratch kept for execs, behind those of the CPUs: execs between the change of credentials and the new
/// program's first instruction, at one moment; in that time the kernel reads and hashes the file. One more is
/// reported as at the tracepoint tier. Only made at the tier that uses them.
pub const EXEC_SLOTS: u32 = 64;

/// Slots tried for one exec.
pub const EXEC_TRIES: u32 = 8;

/// Longest file that the kernel is asked to hash at an exec, in bytes: at 1.5 GB/s this takes 90 ms. Browsers and model
/// runtimes are near 200 MB, but are started rarely and then not at all hidden: inode, size and change time are told.
pub const HASH_BYTES_MAX: u64 = 128 << 20;

/// Files whose hash is kept: at 80 bytes each, 320 KiB. A build runs a few hundred programs.
pub const HASHES_ENTRIES_MAX: u32 = 4096;

/// How long a file must have been seen unchanged before its hash is kept, in nanoseconds. Change times are taken from a
/// clock that steps with the timer, at most every 10 ms (`CONFIG_HZ=100`): a file that changes within one step does
/// not look changed.
pub const HASH_SETTLED_NS: u64 = 20_000_000;
