//! Which struct members the eBPF programs read, looked up in the running kernel's BTF.
//!
//! Building [`Offsets`] names every member, so one that is never looked up does not compile; one that the kernel
//! lacks, or that has another size or type than the programs read, is an error that names it.
#![forbid(unsafe_code)]

use super::btf::{Btf, BtfError, Expect};
use agent_common::globals::Offsets;
use agent_common::limits::{CHUNK_BYTES, DENTRY_CHUNK_BYTES, INLINE_NAME_BYTES, MOUNT_CHUNK_BYTES};
use sha2::{Digest, Sha256};

/// Why the programs cannot be made to fit this kernel.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The kernel's types are not as the programs need them.
    #[error("kernel types: {0}")]
    Btf(#[from] BtfError),
    /// Members that are read at once lie too far apart.
    #[error("struct {within}: the members read together span {span} bytes, at most {max} are supported")]
    Apart {
        /// The struct.
        within: &'static str,
        /// From the first to the end of the last.
        span: u32,
        /// The limit.
        max: usize,
    },
    /// The system call numbers and registers of this architecture are not known.
    #[error("unsupported architecture {0}: the registers of system calls are not known")]
    Architecture(&'static str),
}

/// Registers and numbers of system calls by architecture.
struct Abi {
    args: [&'static str; 5],
    nr: &'static str,
    result: &'static str,
    open: u32,
    creat: u32,
}

/// Stands for a system call that the architecture does not have.
const NO_CALL: u32 = 0xffff;

fn abi() -> Result<Abi, OffsetsError> {
    // aarch64 keeps its registers in an array, which needs an index in the path; not tried yet, so refused.
    if cfg!(target_arch = "x86_64") {
        Ok(Abi { args: ["di", "si", "dx", "r10", "r8"], nr: "orig_ax", result: "ax", open: 2, creat: 85 })
    } else {
        let _ = NO_CALL;
        Err(OffsetsError::Architecture(std::env::consts::ARCH))
    }
}

/// SHA-256 over the names and values, so that evidence can say what the programs were loaded with.
#[must_use]
pub fn digest(offsets: &Offsets) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"affiant/offsets/v1\n");
    for (name, value) in offsets.named() {
        hash.update(name.as_bytes());
        hash.update(b"=");
        hash.update(value.to_string().as_bytes());
        hash.update(b"\n");
    }
    hash.finalize().into()
}

/// Looks every member up.
///
/// # Errors
/// The first member that is missing or unfit.
pub fn resolve(btf: &Btf) -> Result<Offsets, OffsetsError> {
    use Expect::{Aggregate, Bytes, Number, Pointer};
    let abi = abi()?;
    let at = |within: &str, member: &str, expect: Expect| btf.offset(within, member, expect);
    let task = |member: &str, expect: Expect| btf.offset("task_struct", member, expect);
    let cred = |member: &str| btf.offset("cred", member, Number(4));

    let (task_loginuid, has_loginuid) = match task("loginuid", Number(4)) {
        Ok(offset) => (offset, 1),
        Err(BtfError::NoMember { .. }) => (task("tgid", Number(4))?, 0),
        Err(error) => return Err(error.into()),
    };

    let inline_bytes = u32::try_from(INLINE_NAME_BYTES).unwrap_or(u32::MAX);
    let d_hash = at("dentry", "d_hash.pprev", Pointer)?;
    let d_parent = at("dentry", "d_parent", Pointer)?;
    let d_len = at("dentry", "d_name.len", Number(4))?;
    let d_name = at("dentry", "d_name.name", Pointer)?;
    let d_inline = btf.offset_of_first("dentry", &["d_shortname", "d_iname"], Bytes(inline_bytes))?;
    let dentry_piece = span(
        "dentry",
        &[(d_hash, 8), (d_parent, 8), (d_len, 4), (d_name, 8), (d_inline, inline_bytes)],
        DENTRY_CHUNK_BYTES,
    )?;

    let mount_vfsmount = at("mount", "mnt", Aggregate)?;
    let mnt_parent = at("mount", "mnt_parent", Pointer)?;
    let mnt_mountpoint = at("mount", "mnt_mountpoint", Pointer)?;
    let mnt_root = at("mount", "mnt.mnt_root", Pointer)?;
    let mount_piece = span("mount", &[(mnt_parent, 8), (mnt_mountpoint, 8), (mnt_root, 8)], MOUNT_CHUNK_BYTES)?;

    let file_mode = at("file", "f_mode", Number(4))?;
    let file_flags = at("file", "f_flags", Number(4))?;
    let file_inode = at("file", "f_inode", Pointer)?;
    let file_path_mnt = at("file", "f_path.mnt", Pointer)?;
    let file_path_dentry = at("file", "f_path.dentry", Pointer)?;
    let file_span =
        within("file", &[(file_mode, 4), (file_flags, 4), (file_inode, 8), (file_path_mnt, 8), (file_path_dentry, 8)])?;

    let (file_references, file_one_reference) = match at("file", "f_count.counter", Number(8)) {
        // Since 6.13 (`file_ref_t`) the first reference is counted as none.
        Err(BtfError::NoMember { .. }) => (at("file", "f_ref.refcnt.counter", Number(8))?, 0),
        found => (found?, 1),
    };

    let inode_mode = at("inode", "i_mode", Number(2))?;
    let inode_sb = at("inode", "i_sb", Pointer)?;
    let inode_ino = at("inode", "i_ino", Number(8))?;
    let inode_nlink = at("inode", "i_nlink", Number(4))?;
    // What only some privileged acts need: a kernel built without it has nothing there to be seen.
    let module_name = optional(at("module", "name", Bytes(56)))?;
    let bpf_link =
        optional(at("bpf_link", "id", Number(4)).and_then(|id| Ok((id, at("bpf_link", "type", Number(4))?))))?;
    let io_ring = optional(
        at("io_ring_ctx", "flags", Number(4)).and_then(|f| Ok((f, at("io_ring_ctx", "sq_entries", Number(4))?))),
    )?;
    let pid_tree = optional(pid_tree(btf))?;
    let (pid_namespace_head, xa_node_shift, xa_node_slots) = pid_tree.unwrap_or_default();
    let (ns_common_type, ns_operations_type) = match optional(at("ns_common", "ns_type", Number(4)))? {
        Some(offset) => (offset, NO_MEMBER),
        None => (at("ns_common", "ops", Pointer)?, at("proc_ns_operations", "type", Number(4))?),
    };

    let inode_span = within("inode", &[(inode_mode, 2), (inode_sb, 8), (inode_ino, 8), (inode_nlink, 4)])?;

    let vsock = |member: &str| at("vsock_sock", member, Number(4));
    let (vsock_cid, vsock_port, has_vsock) = match (vsock("remote_addr.svm_cid"), vsock("remote_addr.svm_port")) {
        // In a module of its own, or not built: its acts are not covered.
        (Err(BtfError::NoStruct { .. }), _) => (0, 0, 0),
        (cid, port) => (cid?, port?, 1),
    };

    Ok(Offsets {
        task_pid: task("pid", Number(4))?,
        task_tgid: task("tgid", Number(4))?,
        task_flags: task("flags", Number(4))?,
        task_group_leader: task("group_leader", Pointer)?,
        task_real_parent: task("real_parent", Pointer)?,
        task_start_boottime: btf.offset_of_first("task_struct", &["start_boottime", "real_start_time"], Number(8))?,
        task_cred: task("cred", Pointer)?,
        task_comm: task("comm", Bytes(16))?,
        task_files: task("files", Pointer)?,
        task_fs: task("fs", Pointer)?,
        task_mm: task("mm", Pointer)?,
        task_nsproxy: task("nsproxy", Pointer)?,
        task_signal: task("signal", Pointer)?,
        task_exit_code: task("exit_code", Number(4))?,
        task_cgroups: task("cgroups", Pointer)?,
        task_loginuid,
        has_loginuid,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp", Pointer)?,
        cgroup_kn: at("cgroup", "kn", Pointer)?,
        cgroup_root: at("cgroup", "root", Pointer)?,
        cgroup_level: at("cgroup", "level", Number(4))?,
        cgroup_root_hierarchy_id: at("cgroup_root", "hierarchy_id", Number(4))?,
        kernfs_node_id: at("kernfs_node", "id", Number(8))?,
        kernfs_node_parent: btf.offset_of_first("kernfs_node", &["__parent", "parent"], Pointer)?,
        cred_uid: cred("uid")?,
        cred_gid: cred("gid")?,
        cred_suid: cred("suid")?,
        cred_sgid: cred("sgid")?,
        cred_euid: cred("euid")?,
        cred_egid: cred("egid")?,
        cred_cap_effective: at("cred", "cap_effective", Number(8))?,
        signal_live: at("signal_struct", "live", Number(4))?,
        signal_group_exit_code: at("signal_struct", "group_exit_code", Number(4))?,
        signal_flags: at("signal_struct", "flags", Number(4))?,
        has_group_dead: u32::from(btf.tracepoint_args("sched_process_exit")?.is_some_and(|count| count >= 2)),
        files_struct_count: at("files_struct", "count", Number(4))?,
        files_struct_fdt: at("files_struct", "fdt", Pointer)?,
        fdtable_fd: at("fdtable", "fd", Pointer)?,
        fdtable_max_fds: at("fdtable", "max_fds", Number(4))?,
        file_mode,
        file_flags,
        file_inode,
        file_path_mnt,
        file_path_dentry,
        file_span,
        file_private_data: at("file", "private_data", Pointer)?,
        inode_mode,
        inode_uid: at("inode", "i_uid", Number(4))?,
        inode_gid: at("inode", "i_gid", Number(4))?,
        inode_sb,
        inode_ino,
        inode_nlink,
        inode_span,
        inode_size: at("inode", "i_size", Number(8))?,
        inode_ctime_s: btf.offset_of_first(
            "inode",
            &["i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec"],
            Number(8),
        )?,
        inode_ctime_ns: match at("inode", "i_ctime_nsec", Number(4)) {
            Err(BtfError::NoMember { .. }) => {
                // A long whose low half holds all of a nanosecond count, on this byte order.
                btf.offset_of_first("inode", &["__i_ctime.tv_nsec", "i_ctime.tv_nsec"], Number(8))?
            }
            found => found?,
        },
        super_block_dev: at("super_block", "s_dev", Number(4))?,
        dentry_piece,
        piece_hash: d_hash - dentry_piece,
        piece_parent: d_parent - dentry_piece,
        piece_name_len: d_len - dentry_piece,
        piece_name: d_name - dentry_piece,
        piece_inline: d_inline - dentry_piece,
        mount_vfsmount,
        mount_piece,
        piece_mnt_parent: mnt_parent - mount_piece,
        piece_mnt_mountpoint: mnt_mountpoint - mount_piece,
        piece_mnt_root: mnt_root - mount_piece,
        mount_ns: at("mount", "mnt_ns", Pointer)?,
        fs_struct_pwd: two_words(btf, "fs_struct", "pwd", ["pwd.mnt", "pwd.dentry"])?,
        nsproxy_mnt_ns: at("nsproxy", "mnt_ns", Pointer)?,
        mm_arg_start: at("mm_struct", "arg_start", Number(8))?,
        mm_arg_end: at("mm_struct", "arg_end", Number(8))?,
        mm_exe_file: at("mm_struct", "exe_file", Pointer)?,
        bprm_file: at("linux_binprm", "file", Pointer)?,
        bprm_filename: at("linux_binprm", "filename", Pointer)?,
        bprm_argc: at("linux_binprm", "argc", Number(4))?,
        bprm_envc: at("linux_binprm", "envc", Number(4))?,
        socket_sk: at("socket", "sk", Pointer)?,
        sock_family: at("sock", "__sk_common.skc_family", Number(2))?,
        sock_rcv_saddr: at("sock", "__sk_common.skc_rcv_saddr", Number(4))?,
        sock_v6_rcv_saddr: at("sock", "__sk_common.skc_v6_rcv_saddr", Bytes(16))?,
        sock_cookie: at("sock", "__sk_common.skc_cookie", Number(8))?,
        sock_state: at("sock", "__sk_common.skc_state", Number(1))?,
        sock_err: at("sock", "sk_err", Number(4))?,
        regs_arg0: at("pt_regs", abi.args[0], Number(8))?,
        regs_arg1: at("pt_regs", abi.args[1], Number(8))?,
        regs_arg2: at("pt_regs", abi.args[2], Number(8))?,
        regs_nr: at("pt_regs", abi.nr, Number(8))?,
        // Not a matter of types: the loader asks the kernel.
        sock_addr_storage: 0,
        nr_open: abi.open,
        nr_creat: abi.creat,
        nr_openat: call_number(libc::SYS_openat),
        nr_openat2: call_number(libc::SYS_openat2),
        nr_connect: call_number(libc::SYS_connect),
        regs_arg3: at("pt_regs", abi.args[3], Number(8))?,
        regs_arg4: at("pt_regs", abi.args[4], Number(8))?,
        nr_fallocate: call_number(libc::SYS_fallocate),
        file_references,
        file_one_reference,
        sock_daddr: at("sock", "__sk_common.skc_daddr", Number(4))?,
        sock_v6_daddr: at("sock", "__sk_common.skc_v6_daddr", Bytes(16))?,
        sock_dport: at("sock", "__sk_common.skc_dport", Number(2))?,
        sock_flags: at("sock", "__sk_common.skc_flags", Number(8))?,
        sock_type: at("sock", "sk_type", Number(2))?,
        sock_protocol: at("sock", "sk_protocol", Number(2))?,
        sock_peer_pid: at("sock", "sk_peer_pid", Pointer)?,
        sock_peer_cred: at("sock", "sk_peer_cred", Pointer)?,
        inet_sport: at("inet_sock", "inet_sport", Number(2))?,
        tcp_bytes_sent: at("tcp_sock", "bytes_sent", Number(8))?,
        tcp_bytes_retrans: at("tcp_sock", "bytes_retrans", Number(8))?,
        tcp_bytes_received: at("tcp_sock", "bytes_received", Number(8))?,
        unix_addr: at("unix_sock", "addr", Pointer)?,
        unix_path: two_words(btf, "unix_sock", "path", ["path.mnt", "path.dentry"])?,
        unix_peer: at("unix_sock", "peer", Pointer)?,
        unix_address_len: at("unix_address", "len", Number(4))?,
        unix_address_name: at("unix_address", "name", Bytes(0))?,
        pid_process: at("pid", "tasks", Bytes(8 * 2))? + 8 * PIDTYPE_TGID,
        pid_number: at("pid", "numbers", Bytes(0))? + at("upid", "nr", Number(4))?,
        task_pid_link: task("pid_links", Bytes(16 * 2))? + 16 * PIDTYPE_TGID,
        vsock_cid,
        vsock_port,
        has_vsock,
        nr_sendto: call_number(libc::SYS_sendto),
        nr_sendmsg: call_number(libc::SYS_sendmsg),
        nr_sendmmsg: call_number(libc::SYS_sendmmsg),
        cred_fsuid: cred("fsuid")?,
        cred_fsgid: cred("fsgid")?,
        cred_cap_permitted: at("cred", "cap_permitted", Number(8))?,
        cred_cap_inheritable: at("cred", "cap_inheritable", Number(8))?,
        cred_cap_ambient: at("cred", "cap_ambient", Number(8))?,
        cred_user_ns: at("cred", "user_ns", Pointer)?,
        user_namespace_inum: at("user_namespace", "ns.inum", Number(4))?,
        nsproxy_uts_ns: at("nsproxy", "uts_ns", Pointer)?,
        nsproxy_ipc_ns: at("nsproxy", "ipc_ns", Pointer)?,
        nsproxy_pid_ns: at("nsproxy", "pid_ns_for_children", Pointer)?,
        nsproxy_net_ns: at("nsproxy", "net_ns", Pointer)?,
        nsproxy_time_ns: at("nsproxy", "time_ns_for_children", Pointer)?,
        nsproxy_cgroup_ns: at("nsproxy", "cgroup_ns", Pointer)?,
        mnt_namespace_inum: at("mnt_namespace", "ns.inum", Number(4))?,
        pid_namespace_inum: at("pid_namespace", "ns.inum", Number(4))?,
        net_inum: at("net", "ns.inum", Number(4))?,
        ns_common_type,
        ns_operations_type,
        inode_private: at("inode", "i_private", Pointer)?,
        task_thread_pid: task("thread_pid", Pointer)?,
        task_pid_links: task("pid_links", Bytes(16))?,
        pid_level: at("pid", "level", Number(4))?,
        pid_numbers: at("pid", "numbers", Bytes(0))?,
        upid_size: btf.size_of("upid")?,
        upid_ns: at("upid", "ns", Pointer)?,
        pid_tasks: at("pid", "tasks", Bytes(8))?,
        pid_namespace_head,
        xa_node_shift,
        xa_node_slots,
        has_pid_tree: u32::from(pid_tree.is_some()),
        siginfo_code: at("kernel_siginfo", "si_code", Number(4))?,
        fs_struct_root: {
            let root = at("fs_struct", "root", Aggregate)?;
            let dentry = at("fs_struct", "root.dentry", Pointer)?;
            if at("fs_struct", "root.mnt", Pointer)? != root || dentry != root + 8 {
                return Err(OffsetsError::Apart { within: "path", span: dentry.saturating_sub(root), max: 8 });
            }
            root
        },
        super_block_type: at("super_block", "s_type", Pointer)?,
        file_system_name: at("file_system_type", "name", Pointer)?,
        bpf_prog_type: at("bpf_prog", "type", Number(4))?,
        bpf_prog_aux: at("bpf_prog", "aux", Pointer)?,
        bpf_prog_id: at("bpf_prog_aux", "id", Number(4))?,
        bpf_prog_name: at("bpf_prog_aux", "name", Bytes(16))?,
        bpf_map_type: at("bpf_map", "map_type", Number(4))?,
        bpf_map_id: at("bpf_map", "id", Number(4))?,
        bpf_map_name: at("bpf_map", "name", Bytes(16))?,
        bpf_link_id: bpf_link.unwrap_or_default().0,
        bpf_link_type: bpf_link.unwrap_or_default().1,
        has_bpf_link: u32::from(bpf_link.is_some()),
        module_name: module_name.unwrap_or_default(),
        io_ring_flags: io_ring.unwrap_or_default().0,
        io_ring_entries: io_ring.unwrap_or_default().1,
        has_io_ring: u32::from(io_ring.is_some()),
        nr_execveat: call_number(libc::SYS_execveat),
        nr_prctl: call_number(libc::SYS_prctl),
        nr_ptrace: call_number(libc::SYS_ptrace),
        nr_process_vm_readv: call_number(libc::SYS_process_vm_readv),
        nr_process_vm_writev: call_number(libc::SYS_process_vm_writev),
        nr_tkill: call_number(libc::SYS_tkill),
        nr_tgkill: call_number(libc::SYS_tgkill),
        nr_rt_sigqueueinfo: call_number(libc::SYS_rt_sigqueueinfo),
        nr_rt_tgsigqueueinfo: call_number(libc::SYS_rt_tgsigqueueinfo),
        nr_pidfd_send_signal: call_number(libc::SYS_pidfd_send_signal),
        nr_mount: call_number(libc::SYS_mount),
        nr_umount2: call_number(libc::SYS_umount2),
        nr_move_mount: call_number(libc::SYS_move_mount),
        nr_open_tree: call_number(libc::SYS_open_tree),
        nr_fsmount: call_number(libc::SYS_fsmount),
        nr_mount_setattr: call_number(libc::SYS_mount_setattr),
        nr_pivot_root: call_number(libc::SYS_pivot_root),
        nr_unshare: call_number(libc::SYS_unshare),
        nr_init_module: call_number(libc::SYS_init_module),
        nr_finit_module: call_number(libc::SYS_finit_module),
        nr_delete_module: call_number(libc::SYS_delete_module),
        nr_kexec_load: call_number(libc::SYS_kexec_load),
        nr_kexec_file_load: call_number(libc::SYS_kexec_file_load),
        nr_add_key: call_number(libc::SYS_add_key),
        nr_request_key: call_number(libc::SYS_request_key),
        nr_io_uring_register: call_number(libc::SYS_io_uring_register),
        // Not matters of types either: the loader sets them when it has chosen a tier.
        tier: 0,
        read_kernel: 0,
        ima_file_hash: 0,
        exec_slot_first: 0,
        task_status: task("thread_info.status", Number(4))?,
        regs_result: at("pt_regs", abi.result, Number(8))?,
        file_path: {
            let path = at("file", "f_path", Aggregate)?;
            // Likewise.
            if file_path_mnt != path || file_path_dentry != path + 8 {
                return Err(OffsetsError::Apart {
                    within: "path",
                    span: file_path_dentry.saturating_sub(path),
                    max: 8,
                });
            }
            path
        },
        vfsmount_root: at("vfsmount", "mnt_root", Pointer)?,
        dentry_parent: d_parent,
        dentry_hash: d_hash,
        bprm_cred: at("linux_binprm", "cred", Pointer)?,
        bprm_p: at("linux_binprm", "p", Number(8))?,
        bprm_exec: at("linux_binprm", "exec", Number(8))?,
        inode_writers: at("inode", "i_writecount", Number(4))?,
        super_block_magic: at("super_block", "s_magic", Number(8))?,
        super_block_user_ns: at("super_block", "s_user_ns", Pointer)?,
        user_namespace_level: at("user_namespace", "level", Number(4))?,
    })
}

/// `PIDTYPE_TGID` (`include/linux/pid_types.h`, 4.19): which list of a `struct pid` leads to the process's leader.
const PIDTYPE_TGID: u32 = 1;

/// A `struct path`: the programs read mount and dentry as the two words from here.
fn two_words(btf: &Btf, within: &'static str, member: &str, parts: [&str; 2]) -> Result<u32, OffsetsError> {
    let start = btf.offset(within, member, Expect::Aggregate)?;
    let [mount, dentry] = parts;
    let dentry = btf.offset(within, dentry, Expect::Pointer)?;
    if btf.offset(within, mount, Expect::Pointer)? != start || dentry != start + 8 {
        return Err(OffsetsError::Apart { within: "path", span: dentry.saturating_sub(start), max: 8 });
    }
    Ok(start)
}

/// Stands for a member that this kernel does not need.
const NO_MEMBER: u32 = 0xffff;

/// A member of something that a kernel can be built without.
fn optional<T>(found: Result<T, BtfError>) -> Result<Option<T>, OffsetsError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(BtfError::NoStruct { .. } | BtfError::NoMember { .. } | BtfError::WrongType { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where a pid namespace has its tree of numbers, and where a node of it has its shift and its slots.
fn pid_tree(btf: &Btf) -> Result<(u32, u32, u32), BtfError> {
    Ok((
        btf.offset("pid_namespace", "idr.idr_rt.xa_head", Expect::Pointer)?,
        btf.offset("xa_node", "shift", Expect::Number(1))?,
        // The programs take six bits of the number per level: a kernel with smaller nodes has no tree for them.
        btf.offset("xa_node", "slots", Expect::Bytes(64 * 8))?,
    ))
}

fn call_number(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(NO_CALL)
}

/// First byte of the members, which must lie within `max` bytes from there.
fn span(within: &'static str, members: &[(u32, u32)], max: usize) -> Result<u32, OffsetsError> {
    let first = members.iter().map(|(offset, _)| *offset).min().unwrap_or(0);
    let end = members.iter().map(|(offset, size)| offset.saturating_add(*size)).max().unwrap_or(0);
    let span = end.saturating_sub(first);
    if span as usize > max {
        return Err(OffsetsError::Apart { within, span, max });
    }
    Ok(first)
}

/// End of the last member, which must lie within the first [`CHUNK_BYTES`] of the struct.
fn within(within: &'static str, members: &[(u32, u32)]) -> Result<u32, OffsetsError> {
    let end = members.iter().map(|(offset, size)| offset.saturating_add(*size)).max().unwrap_or(0);
    if end as usize > CHUNK_BYTES {
        return Err(OffsetsError::Apart { within, span: end, max: CHUNK_BYTES });
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_offset_gives_another_digest() {
        let mut offsets = Offsets::UNSET;
        let unset = digest(&offsets);
        offsets.task_tgid = 1;
        assert_ne!(digest(&offsets), unset);
    }

    #[test]
    fn members_too_far_apart_to_be_read_at_once_are_refused() {
        assert_eq!(span("dentry", &[(16, 8), (56, 32)], 80).unwrap(), 16);
        assert!(matches!(span("dentry", &[(16, 8), (90, 8)], 80), Err(OffsetsError::Apart { span: 82, max: 80, .. })));
        assert!(matches!(within("inode", &[(124, 8)]), Err(OffsetsError::Apart { span: 132, .. })));
    }

    #[test]
    fn every_member_is_found_on_the_running_kernel() {
        // The kernel under test is whatever this runs on; one without BTF cannot be armed and fails here too.
        let btf = Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap();
        let offsets = resolve(&btf).unwrap();
        assert!(offsets.named().iter().all(|(_, value)| *value != u32::MAX), "{offsets:?}");
    }
}
