//! Credentials, namespaces, kernel keys and io_uring: classic tracepoints on system calls (`CONFIG_FTRACE_SYSCALLS`,
//! kernel 5.12 for all), and the BTF tracepoint of fork for namespaces made with a process.
//!
//! Emitted for the whole host but for the agent itself. Results and arguments come from the registers, which the caller
//! cannot change during the call; everything else from kernel objects after it. Credentials are also read when a call
//! that can change them begins, because the kernel keeps nothing of the old ones: an event is made only where the two
//! readings differ. One reading covers one thread, as credentials do.
//!
//! Not seen: 32-bit and x32 calls; a clone with new namespaces that failed; which key, by name; what is submitted to an
//! io_uring.

use crate::emit::{lost, number, submit};
use crate::file::descriptor;
use crate::maps::{BEFORE, off};
use crate::path::value;
use crate::scope::{of_process, settings};
use crate::task::{About, Typed, current, fill, is_kernel_thread, member, tgid};
use agent_common::header::{Header, class, kind};
use agent_common::privilege::{
    Credentials, Creds, IoUring, Key, Namespace, OP_ADD_KEY, OP_REQUEST_KEY, act_flag, namespace,
};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_user, bpf_task_pt_regs};
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};

/// `__syscall_nr` in the record of every `syscalls:sys_*` (its `format` file).
const NR_OFFSET: usize = 8;
/// `ret` of `sys_exit_*`, and the first argument of `sys_enter_*`, likewise.
const RET_OFFSET: usize = 16;

/// A system call that returned, in the thread that made it.
pub struct SysExit {
    /// The caller.
    pub task: Typed,
    /// Number of the call.
    pub nr: u32,
    /// What it returned.
    pub ret: i64,
    /// `struct pt_regs` of the call.
    regs: Typed,
}

impl SysExit {
    /// What the tracepoint's record and the registers say.
    #[inline(always)]
    pub fn of(ctx: &TracePointContext) -> Self {
        let task = current();
        // SAFETY: the record is as its format says; the task has registers, as it is inside a system call.
        unsafe {
            let record = ctx.as_ptr().cast::<u8>();
            Self {
                task,
                nr: *record.add(NR_OFFSET).cast::<u32>(),
                ret: *record.add(RET_OFFSET).cast::<i64>(),
                regs: bpf_task_pt_regs(task.cast_mut().cast()) as Typed,
            }
        }
    }

    /// The same, unless the caller is the agent, whose own privileged acts are left out.
    #[inline(always)]
    pub fn of_others(ctx: &TracePointContext) -> Option<Self> {
        let call = Self::of(ctx);
        if settings().agent_tgid == tgid(call.task) { None } else { Some(call) }
    }

    /// An argument, by the offset of its register.
    #[inline(always)]
    pub fn arg(&self, register: u32) -> u64 {
        // SAFETY: typed.
        unsafe { member(self.regs, register) }
    }

    /// The `struct file` behind a descriptor as an address, 0 for none; and `RACY` where another thread or process could
    /// have replaced it since the call used it.
    #[inline(always)]
    pub fn file(&self, fd: u64) -> (u64, u32) {
        // SAFETY: typed or null.
        unsafe {
            let files: Typed = member(self.task, off!(task_files));
            let shared = !files.is_null() && member::<u32>(files, off!(files_struct_count)) > 1;
            (descriptor(files, fd & 0xffff_ffff), if shared { act_flag::RACY } else { 0 })
        }
    }

    /// Takes a number for an event of this call.
    #[inline(always)]
    pub fn begin(&self, kind: u16) -> Option<Begun> {
        begin(self.task, kind)
    }
}

/// An event that has its number.
#[derive(Clone, Copy)]
pub struct Begun {
    /// What it is.
    pub about: About,
    /// Its number.
    pub seq: u64,
}

/// Takes a number for a privileged act of `task`.
#[inline(always)]
pub fn begin(task: Typed, kind: u16) -> Option<Begun> {
    let (scope_id, _) = of_process(task, false);
    let seq = number(class::PRIVILEGE)?;
    Some(Begun { about: About { kind, class: class::PRIVILEGE, scope_id }, seq })
}

impl Begun {
    /// Sends a message without strings, whose members but the header are written.
    ///
    /// # Safety
    /// `event` has a header and `len` bytes in all.
    #[inline(always)]
    pub unsafe fn send(self, event: *mut Header, len: usize, task: Typed) {
        // SAFETY: the caller's message.
        unsafe {
            fill(event, self.about, self.seq, task);
            (*event).len = len as u32;
            submit(event.cast(), len as u64, class::PRIVILEGE, self.about.scope_id, self.seq);
        }
    }
}

/// `PR_CAP_AMBIENT`, the one `prctl` that changes what a `creds` event shows.
const PR_CAP_AMBIENT: u64 = 47;
/// `CLONE_NEWNS`.
const CLONE_NEWNS: u64 = 0x0002_0000;
/// `CLONE_NEWCGROUP`.
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
/// `CLONE_NEWUTS`.
const CLONE_NEWUTS: u64 = 0x0400_0000;
/// `CLONE_NEWIPC`.
const CLONE_NEWIPC: u64 = 0x0800_0000;
/// `CLONE_NEWUSER`.
const CLONE_NEWUSER: u64 = 0x1000_0000;
/// `CLONE_NEWPID`.
const CLONE_NEWPID: u64 = 0x2000_0000;
/// `CLONE_NEWNET`.
const CLONE_NEWNET: u64 = 0x4000_0000;
/// `CLONE_NEWTIME`.
const CLONE_NEWTIME: u64 = 0x80;
/// All of them.
const NAMESPACES: u64 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWTIME;

/// A capability set, which is two words of 32 bits up to 6.2 and one of 64 after.
///
/// # Safety
/// `cred` is typed.
#[inline(always)]
unsafe fn caps(cred: Typed, offset: u32) -> u64 {
    // SAFETY: the caller's.
    unsafe { u64::from(member::<u32>(cred, offset + 4)) << 32 | u64::from(member::<u32>(cred, offset)) }
}

/// Inode number of the user namespace of `cred`.
///
/// # Safety
/// `cred` is typed and not null.
#[inline(always)]
unsafe fn user_namespace(cred: Typed) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let ns: Typed = member(cred, off!(cred_user_ns));
        if ns.is_null() { 0 } else { member(ns, off!(user_namespace_inum)) }
    }
}

/// Writes the credentials that `task` has now; false when it has none.
///
/// # Safety
/// `to` has room for them.
#[inline(always)]
unsafe fn read_credentials(to: *mut Credentials, task: Typed) -> bool {
    // SAFETY: the caller's memory; typed loads.
    unsafe {
        let cred: Typed = member(task, off!(task_cred));
        if cred.is_null() {
            return false;
        }
        (*to).cap_effective = caps(cred, off!(cred_cap_effective));
        (*to).cap_permitted = caps(cred, off!(cred_cap_permitted));
        (*to).cap_inheritable = caps(cred, off!(cred_cap_inheritable));
        (*to).cap_ambient = caps(cred, off!(cred_cap_ambient));
        (*to).uid = member(cred, off!(cred_uid));
        (*to).gid = member(cred, off!(cred_gid));
        (*to).euid = member(cred, off!(cred_euid));
        (*to).egid = member(cred, off!(cred_egid));
        (*to).suid = member(cred, off!(cred_suid));
        (*to).sgid = member(cred, off!(cred_sgid));
        (*to).fsuid = member(cred, off!(cred_fsuid));
        (*to).fsgid = member(cred, off!(cred_fsgid));
        (*to).user_namespace = user_namespace(cred);
        (*to).reserved = 0;
        true
    }
}

/// `syscalls:sys_enter_{setuid,setgid,setreuid,setregid,setresuid,setresgid,setfsuid,setfsgid,capset,prctl,unshare,
/// setns}`: keeps the credentials for [`creds`].
#[tracepoint]
pub fn creds_before(ctx: TracePointContext) -> u32 {
    let task = current();
    if settings().agent_tgid == tgid(task) {
        return 0;
    }
    // SAFETY: the record is as its format says.
    let (nr, first) = unsafe {
        let record = ctx.as_ptr().cast::<u8>();
        (*record.add(NR_OFFSET).cast::<u32>(), *record.add(RET_OFFSET).cast::<u64>())
    };
    if nr == off!(nr_prctl) && first & 0xffff_ffff != PR_CAP_AMBIENT {
        return 0;
    }
    if nr == off!(nr_unshare) && first & CLONE_NEWUSER == 0 {
        return 0;
    }
    let mut before = core::mem::MaybeUninit::<Credentials>::uninit();
    // SAFETY: room of the right size; written whole when true.
    unsafe {
        if !read_credentials(before.as_mut_ptr(), task) {
            return 0;
        }
        let key = bpf_get_current_pid_tgid();
        if BEFORE.insert(&key, &*before.as_ptr(), 0).is_err()
            && let Some(begun) = begin(task, kind::CREDS)
        {
            // Whether they change will not be seen: it counts as a change that was lost.
            lost(u32::from(class::PRIVILEGE), begun.about.scope_id);
        }
    }
    0
}

/// The exit of the same calls.
#[tracepoint]
pub fn creds(_ctx: TracePointContext) -> u32 {
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(kept) = BEFORE.get_ptr(&key) else { return 0 };
    let task = current();
    let mut event = core::mem::MaybeUninit::<Creds>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: only this thread writes and removes its entry; every member is written before the message is sent.
    unsafe {
        (*event).before = *kept;
        let _ = BEFORE.remove(&key);
        if !read_credentials(&raw mut (*event).after, task) {
            return 0;
        }
        let before = (&raw const (*event).before).cast::<u64>();
        let after = (&raw const (*event).after).cast::<u64>();
        let mut differs = 0;
        for word in 0..size_of::<Credentials>() / 8 {
            differs |= before.add(word).read() ^ after.add(word).read();
        }
        if differs == 0 {
            return 0;
        }
        let Some(begun) = begin(task, kind::CREDS) else { return 0 };
        begun.send(event.cast(), size_of::<Creds>(), task);
    }
    0
}

/// Writes the numbers of the namespaces that `task` has now; false when it has none.
///
/// # Safety
/// `task` is typed and `to` has room.
#[inline(always)]
unsafe fn read_namespaces(to: *mut Namespace, task: Typed) -> bool {
    // SAFETY: the caller's; typed loads.
    unsafe {
        (*to).mount = 0;
        (*to).pid = 0;
        (*to).network = 0;
        (*to).user = 0;
        (*to).reserved = 0;
        let proxy: Typed = member(task, off!(task_nsproxy));
        let cred: Typed = member(task, off!(task_cred));
        if proxy.is_null() || cred.is_null() {
            return false;
        }
        let mount: Typed = member(proxy, off!(nsproxy_mnt_ns));
        if !mount.is_null() {
            (*to).mount = member(mount, off!(mnt_namespace_inum));
        }
        let pid: Typed = member(proxy, off!(nsproxy_pid_ns));
        if !pid.is_null() {
            (*to).pid = member(pid, off!(pid_namespace_inum));
        }
        let network: Typed = member(proxy, off!(nsproxy_net_ns));
        if !network.is_null() {
            (*to).network = member(network, off!(net_inum));
        }
        (*to).user = user_namespace(cred);
        true
    }
}

/// `syscalls:sys_exit_{unshare,setns}`.
#[tracepoint]
pub fn namespaces(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let unshare = call.nr == off!(nr_unshare);
    let mut flags = if unshare { call.arg(off!(regs_arg0)) } else { call.arg(off!(regs_arg1)) } & NAMESPACES;
    if unshare && flags == 0 {
        return 0;
    }
    let mut act_flags = act_flag::RESULT;
    if !unshare && flags == 0 && call.ret == 0 {
        // "Whatever the descriptor is of": the kernel took it for a namespace, so the file is one's.
        let (file, racy) = call.file(call.arg(off!(regs_arg0)));
        act_flags |= racy;
        if file == 0 {
            act_flags |= act_flag::UNRESOLVED;
        } else {
            let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
            let ns = value::<u64>(inode.wrapping_add(u64::from(off!(inode_private))));
            let place = ns.wrapping_add(u64::from(off!(ns_common_type)));
            flags = if off!(ns_operations_type) == 0xffff {
                u64::from(value::<u32>(place))
            } else {
                u64::from(value::<u32>(value::<u64>(place).wrapping_add(u64::from(off!(ns_operations_type)))))
            } & NAMESPACES;
        }
    }
    let Some(begun) = call.begin(kind::NAMESPACE) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Namespace>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        if read_namespaces(event, call.task) {
            act_flags |= act_flag::KNOWN;
        }
        (*event).flags = flags;
        (*event).result = call.ret as i32;
        (*event).op = if unshare { namespace::UNSHARE } else { namespace::ENTER };
        (*event).act_flags = act_flags;
        begun.send(event.cast(), size_of::<Namespace>(), call.task);
    }
    0
}

/// `sched_process_fork`, for children that begin in other namespaces than their parent's.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork_into(ctx: BtfTracePointContext) -> i32 {
    let child: Typed = ctx.arg(1);
    let task = current();
    let mut flags = 0;
    // SAFETY: typed loads; pointers are compared, not followed.
    unsafe {
        let own: Typed = member(task, off!(task_nsproxy));
        let new: Typed = member(child, off!(task_nsproxy));
        let own_cred: Typed = member(task, off!(task_cred));
        let new_cred: Typed = member(child, off!(task_cred));
        if own.is_null() || new.is_null() || own_cred.is_null() || new_cred.is_null() {
            return 0;
        }
        if member::<u64>(own_cred, off!(cred_user_ns)) != member::<u64>(new_cred, off!(cred_user_ns)) {
            flags |= CLONE_NEWUSER;
        }
        if own as u64 != new as u64 {
            let differs = |place: u32| member::<u64>(own, place) != member::<u64>(new, place);
            if differs(off!(nsproxy_mnt_ns)) {
                flags |= CLONE_NEWNS;
            }
            if differs(off!(nsproxy_uts_ns)) {
                flags |= CLONE_NEWUTS;
            }
            if differs(off!(nsproxy_ipc_ns)) {
                flags |= CLONE_NEWIPC;
            }
            if differs(off!(nsproxy_pid_ns)) {
                flags |= CLONE_NEWPID;
            }
            if differs(off!(nsproxy_net_ns)) {
                flags |= CLONE_NEWNET;
            }
            if differs(off!(nsproxy_time_ns)) {
                flags |= CLONE_NEWTIME;
            }
            if differs(off!(nsproxy_cgroup_ns)) {
                flags |= CLONE_NEWCGROUP;
            }
        }
    }
    if flags == 0 || is_kernel_thread(child) || settings().agent_tgid == tgid(task) {
        return 0;
    }
    let Some(begun) = begin(task, kind::NAMESPACE) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Namespace>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        let known = if read_namespaces(event, child) { act_flag::KNOWN } else { 0 };
        (*event).flags = flags;
        (*event).result = 0;
        (*event).op = namespace::CLONE;
        (*event).act_flags = act_flag::RESULT | known;
        begun.send(event.cast(), size_of::<Namespace>(), task);
    }
    0
}

/// Whether the second argument of a `keyctl` operation is a key, by its bit (include/uapi/linux/keyctl.h): of the first
/// 32, all but GET_KEYRING_ID, JOIN_SESSION_KEYRING, SEARCH and GET_PERSISTENT, whose result is one, and SET_REQKEY_KEYRING,
/// SESSION_TO_PARENT, DH_COMPUTE, PKEY_* and CAPABILITIES, which take something else.
const TAKES_KEY: u32 = !(1 << 0 | 1 << 1 | 1 << 10 | 1 << 22 | 1 << 14 | 1 << 18 | 0x1f << 24 | 1 << 23 | 1 << 31);
/// Whether a `keyctl` operation returns a key.
const GIVES_KEY: u32 = 1 << 0 | 1 << 1 | 1 << 10 | 1 << 22;

/// `syscalls:sys_exit_{keyctl,add_key,request_key}`.
#[tracepoint]
pub fn keys(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let (op, serial) = if call.nr == off!(nr_add_key) {
        (OP_ADD_KEY, call.ret as i32)
    } else if call.nr == off!(nr_request_key) {
        (OP_REQUEST_KEY, call.ret as i32)
    } else {
        let op = call.arg(off!(regs_arg0)) as u32;
        let bit = if op < 32 { 1u32 << op } else { 0 };
        let serial = if bit & GIVES_KEY != 0 {
            call.ret as i32
        } else if bit & TAKES_KEY != 0 {
            call.arg(off!(regs_arg1)) as i32
        } else {
            0
        };
        (op, serial)
    };
    let Some(begun) = call.begin(kind::KEY) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Key>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        (*event).op = op;
        (*event).serial = serial;
        (*event).result = call.ret as i32;
        (*event).act_flags = act_flag::RESULT | if serial > 0 { act_flag::KNOWN } else { 0 };
        begun.send(event.cast(), size_of::<Key>(), call.task);
    }
    0
}

/// `IORING_REGISTER_USE_REGISTERED_RING`: the instance is named by an index, not a descriptor.
const BY_INDEX: u32 = 1 << 31;
/// `flags` in `struct io_uring_params`.
const PARAMS_FLAGS: u64 = 8;

/// `syscalls:sys_exit_{io_uring_setup,io_uring_register}`.
#[tracepoint]
pub fn io_uring(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let register = call.nr == off!(nr_io_uring_register);
    let (asked, fd) =
        if register { (call.arg(off!(regs_arg1)) as u32, call.arg(off!(regs_arg0))) } else { (0, call.ret as u64) };
    let op = if register { (asked & !BY_INDEX) + 1 } else { 0 };
    let mut act_flags = act_flag::RESULT;
    let (mut flags, mut entries) = (0, 0);
    if call.ret >= 0 {
        // The kernel made it, or took it for an instance. An index names no descriptor.
        let (file, racy) = if asked & BY_INDEX != 0 { (0, 0) } else { call.file(fd) };
        act_flags |= racy;
        if file == 0 {
            act_flags |= act_flag::UNRESOLVED;
        } else if off!(has_io_ring) != 0 {
            let ring = value::<u64>(file.wrapping_add(u64::from(off!(file_private_data))));
            flags = value(ring.wrapping_add(u64::from(off!(io_ring_flags))));
            entries = value(ring.wrapping_add(u64::from(off!(io_ring_entries))));
            act_flags |= act_flag::KNOWN;
        }
    } else if !register {
        entries = call.arg(off!(regs_arg0)) as u32;
        let params = call.arg(off!(regs_arg1)).wrapping_add(PARAMS_FLAGS);
        // SAFETY: room for four bytes; zero when it cannot be read.
        let read = unsafe { bpf_probe_read_user((&raw mut flags).cast(), 4, params as *const _) };
        act_flags |= if read == 0 { act_flag::FLAGS_CLAIMED } else { act_flag::STRING_UNREAD };
    }
    let Some(begun) = call.begin(kind::IO_URING) else { return 0 };
    let mut event = core::mem::MaybeUninit::<IoUring>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        (*event).op = op;
        (*event).flags = flags;
        (*event).entries = entries;
        (*event).result = call.ret as i32;
        (*event).act_flags = act_flags;
        (*event).reserved = 0;
        begun.send(event.cast(), size_of::<IoUring>(), call.task);
    }
    0
}
