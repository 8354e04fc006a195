//! Values the loader fixes before the programs are loaded: struct offsets from the running kernel's BTF, and numbers
//! that differ between kernels or architectures.
//!
//! They live in `.rodata`, frozen, so the verifier reads them as constants and typed kernel pointers stay typed.
//! The whole is one struct on purpose: the loader must name every member to build it, so none can be forgotten.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Frozen constants. Offsets are bytes from the start of the struct that the member's name begins with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Offsets { $($(#[$doc])* pub $name: u32,)* }

        impl Offsets {
            /// What the object carries before the loader fills it in: no member has this value on any kernel, and
            /// the verifier refuses a typed load so far outside.
            pub const UNSET: Self = Self { $($name: u32::MAX,)* };

            /// Name and value of every member, in order.
            #[must_use]
            pub fn named(&self) -> [(&'static str, u32); Self::COUNT] {
                [$((stringify!($name), self.$name),)*]
            }

            /// How many members there are.
            pub const COUNT: usize = [$(stringify!($name),)*].len();
        }
    };
}

offsets! {
    /// `task_struct.pid`: the thread id.
    task_pid,
    /// `task_struct.tgid`.
    task_tgid,
    /// `task_struct.flags`: `PF_*`.
    task_flags,
    /// `task_struct.group_leader`.
    task_group_leader,
    /// `task_struct.real_parent`.
    task_real_parent,
    /// `task_struct.start_boottime`, nanoseconds.
    task_start_boottime,
    /// `task_struct.cred`: the subjective credentials.
    task_cred,
    /// `task_struct.comm`.
    task_comm,
    /// `task_struct.files`.
    task_files,
    /// `task_struct.fs`.
    task_fs,
    /// `task_struct.mm`.
    task_mm,
    /// `task_struct.nsproxy`.
    task_nsproxy,
    /// `task_struct.signal`.
    task_signal,
    /// `task_struct.exit_code`.
    task_exit_code,
    /// `task_struct.cgroups`.
    task_cgroups,
    /// `task_struct.loginuid`, or the offset of `tgid` where `has_loginuid` is 0.
    task_loginuid,
    /// 1 where the kernel keeps login ids.
    has_loginuid,
    /// `css_set.dfl_cgrp`.
    css_set_dfl_cgrp,
    /// `cgroup.kn`.
    cgroup_kn,
    /// `cgroup.root`.
    cgroup_root,
    /// `cgroup.level`.
    cgroup_level,
    /// `cgroup_root.hierarchy_id`: 0 for cgroup v2.
    cgroup_root_hierarchy_id,
    /// `kernfs_node.id`: what user space sees as the directory's inode number.
    kernfs_node_id,
    /// `kernfs_node.parent` (`__parent` since 6.15).
    kernfs_node_parent,
    /// `cred.uid`.
    cred_uid,
    /// `cred.gid`.
    cred_gid,
    /// `cred.suid`.
    cred_suid,
    /// `cred.sgid`.
    cred_sgid,
    /// `cred.euid`.
    cred_euid,
    /// `cred.egid`.
    cred_egid,
    /// `cred.cap_effective`, 8 bytes.
    cred_cap_effective,
    /// `signal_struct.live`: threads not yet exiting.
    signal_live,
    /// `signal_struct.group_exit_code`.
    signal_group_exit_code,
    /// `signal_struct.flags`.
    signal_flags,
    /// 1 where `sched_process_exit` says by itself whether the process ended (6.15).
    has_group_dead,
    /// `files_struct.count`: users of the descriptor table.
    files_struct_count,
    /// `files_struct.fdt`.
    files_struct_fdt,
    /// `fdtable.fd`.
    fdtable_fd,
    /// `fdtable.max_fds`.
    fdtable_max_fds,
    /// `file.f_mode`.
    file_mode,
    /// `file.f_flags`.
    file_flags,
    /// `file.f_inode`.
    file_inode,
    /// `file.f_path.mnt`.
    file_path_mnt,
    /// `file.f_path.dentry`.
    file_path_dentry,
    /// End of the last of the members of `file` above: how much is read at once.
    file_span,
    /// `file.private_data`: the `struct socket` of a socket.
    file_private_data,
    /// `inode.i_mode`.
    inode_mode,
    /// `inode.i_uid`.
    inode_uid,
    /// `inode.i_gid`.
    inode_gid,
    /// `inode.i_sb`.
    inode_sb,
    /// `inode.i_ino`.
    inode_ino,
    /// `inode.i_nlink`.
    inode_nlink,
    /// End of the last of `i_mode`, `i_sb`, `i_ino`, `i_nlink`: how much is read at once.
    inode_span,
    /// `inode.i_size`.
    inode_size,
    /// Seconds of `inode.i_ctime`, 8 bytes.
    inode_ctime_s,
    /// Nanoseconds of `inode.i_ctime`, 4 bytes.
    inode_ctime_ns,
    /// `super_block.s_dev`.
    super_block_dev,
    /// Start of the piece of a dentry that is read at once.
    dentry_piece,
    /// `dentry.d_hash.pprev`, from the start of the piece: null when not in its directory.
    piece_hash,
    /// `dentry.d_parent`, from the start of the piece.
    piece_parent,
    /// `dentry.d_name.len`, from the start of the piece.
    piece_name_len,
    /// `dentry.d_name.name`, from the start of the piece.
    piece_name,
    /// The inline name, from the start of the piece.
    piece_inline,
    /// `mount.mnt`: where the `vfsmount` lies in its `mount`.
    mount_vfsmount,
    /// Start of the piece of a mount that is read at once.
    mount_piece,
    /// `mount.mnt_parent`, from the start of the piece.
    piece_mnt_parent,
    /// `mount.mnt_mountpoint`, from the start of the piece.
    piece_mnt_mountpoint,
    /// `mount.mnt.mnt_root`, from the start of the piece.
    piece_mnt_root,
    /// `mount.mnt_ns`.
    mount_ns,
    /// `fs_struct.pwd`: mount, then dentry.
    fs_struct_pwd,
    /// `nsproxy.mnt_ns`.
    nsproxy_mnt_ns,
    /// `mm_struct.arg_start`.
    mm_arg_start,
    /// `mm_struct.arg_end`.
    mm_arg_end,
    /// `mm_struct.exe_file`.
    mm_exe_file,
    /// `linux_binprm.file`.
    bprm_file,
    /// `linux_binprm.filename`.
    bprm_filename,
    /// `linux_binprm.argc`.
    bprm_argc,
    /// `linux_binprm.envc`.
    bprm_envc,
    /// `socket.sk`.
    socket_sk,
    /// `sock.__sk_common.skc_family`.
    sock_family,
    /// `sock.__sk_common.skc_rcv_saddr`.
    sock_rcv_saddr,
    /// `sock.__sk_common.skc_v6_rcv_saddr`.
    sock_v6_rcv_saddr,
    /// `sock.__sk_common.skc_cookie`.
    sock_cookie,
    /// `sock.__sk_common.skc_state`: 1 byte.
    sock_state,
    /// `sock.sk_err`.
    sock_err,
    /// `pt_regs`: first argument of a system call.
    regs_arg0,
    /// `pt_regs`: second argument.
    regs_arg1,
    /// `pt_regs`: third argument.
    regs_arg2,
    /// `pt_regs`: number of the system call.
    regs_nr,
    /// 1 where socket-address programs may use task storage (6.16); else scope is looked up when connect(2) returns.
    sock_addr_storage,
    /// Number of open(2); 0xffff where the architecture has none.
    nr_open,
    /// Number of creat(2); 0xffff where the architecture has none.
    nr_creat,
    /// Number of openat(2).
    nr_openat,
    /// Number of openat2(2).
    nr_openat2,
    /// Number of connect(2).
    nr_connect,
    /// `cred.fsuid`.
    cred_fsuid,
    /// `cred.fsgid`.
    cred_fsgid,
    /// `cred.cap_permitted`, 8 bytes.
    cred_cap_permitted,
    /// `cred.cap_inheritable`, 8 bytes.
    cred_cap_inheritable,
    /// `cred.cap_ambient`, 8 bytes.
    cred_cap_ambient,
    /// `cred.user_ns`.
    cred_user_ns,
    /// `user_namespace.ns.inum`.
    user_namespace_inum,
    /// `nsproxy.uts_ns`.
    nsproxy_uts_ns,
    /// `nsproxy.ipc_ns`.
    nsproxy_ipc_ns,
    /// `nsproxy.pid_ns_for_children`.
    nsproxy_pid_ns,
    /// `nsproxy.net_ns`.
    nsproxy_net_ns,
    /// `nsproxy.time_ns_for_children`.
    nsproxy_time_ns,
    /// `nsproxy.cgroup_ns`.
    nsproxy_cgroup_ns,
    /// `mnt_namespace.ns.inum`.
    mnt_namespace_inum,
    /// `pid_namespace.ns.inum`.
    pid_namespace_inum,
    /// `net.ns.inum`.
    net_inum,
    /// `ns_common.ns_type`, the `CLONE_NEW*` flag of the kind (6.18); before that `ns_common.ops`.
    ns_common_type,
    /// `proc_ns_operations.type`, the same flag; 0xffff where `ns_common` has it.
    ns_operations_type,
    /// `inode.i_private`.
    inode_private,
    /// `task_struct.thread_pid`.
    task_thread_pid,
    /// `task_struct.pid_links`: first the node in the list of its thread id.
    task_pid_links,
    /// `pid.level`.
    pid_level,
    /// `pid.numbers`.
    pid_numbers,
    /// Bytes of one of them.
    upid_size,
    /// `upid.ns`.
    upid_ns,
    /// `pid.tasks`: first the list of the thread with this id.
    pid_tasks,
    /// `pid_namespace.idr.idr_rt.xa_head`.
    pid_namespace_head,
    /// `xa_node.shift`: 1 byte.
    xa_node_shift,
    /// `xa_node.slots`: 64 pointers.
    xa_node_slots,
    /// 1 where processes can be found by number in the tree that the four members above describe.
    has_pid_tree,
    /// `kernel_siginfo.si_code`.
    siginfo_code,
    /// `fs_struct.root`: mount, then dentry.
    fs_struct_root,
    /// `super_block.s_type`.
    super_block_type,
    /// `file_system_type.name`.
    file_system_name,
    /// `bpf_prog.type`.
    bpf_prog_type,
    /// `bpf_prog.aux`.
    bpf_prog_aux,
    /// `bpf_prog_aux.id`.
    bpf_prog_id,
    /// `bpf_prog_aux.name`: 16 bytes.
    bpf_prog_name,
    /// `bpf_map.map_type`.
    bpf_map_type,
    /// `bpf_map.id`.
    bpf_map_id,
    /// `bpf_map.name`: 16 bytes.
    bpf_map_name,
    /// `bpf_link.id`; an offset that is not read where `has_bpf_link` is 0.
    bpf_link_id,
    /// `bpf_link.type`, likewise.
    bpf_link_type,
    /// 1 where the kernel has links (5.7).
    has_bpf_link,
    /// `module.name`: 56 bytes; not read where the kernel loads no modules, whose tracepoints are absent then.
    module_name,
    /// `io_ring_ctx.flags`; an offset that is not read where `has_io_ring` is 0.
    io_ring_flags,
    /// `io_ring_ctx.sq_entries`, likewise.
    io_ring_entries,
    /// 1 where the kernel has io_uring as these programs know it.
    has_io_ring,
    /// `pt_regs`: fourth argument of a system call.
    regs_arg3,
    /// `pt_regs`: fifth argument.
    regs_arg4,
    /// Number of fallocate(2).
    nr_fallocate,
    /// The count of references to a `struct file`, 8 bytes.
    file_references,
    /// Its value when there is one: 1, or 0 where the kernel counts from there (6.13).
    file_one_reference,
    /// `sock.__sk_common.skc_daddr`.
    sock_daddr,
    /// `sock.__sk_common.skc_v6_daddr`.
    sock_v6_daddr,
    /// `sock.__sk_common.skc_dport`: network order.
    sock_dport,
    /// `sock.__sk_common.skc_flags`: bits of `enum sock_flags`.
    sock_flags,
    /// `sock.sk_type`.
    sock_type,
    /// `sock.sk_protocol`.
    sock_protocol,
    /// `sock.sk_peer_pid`.
    sock_peer_pid,
    /// `sock.sk_peer_cred`.
    sock_peer_cred,
    /// `inet_sock.inet_sport`: network order; unlike `skc_num` it stays when the connection ends.
    inet_sport,
    /// `tcp_sock.bytes_sent`: payload, retransmissions included.
    tcp_bytes_sent,
    /// `tcp_sock.bytes_retrans`: payload that was retransmitted.
    tcp_bytes_retrans,
    /// `tcp_sock.bytes_received`: payload, and one for the other side's FIN.
    tcp_bytes_received,
    /// `unix_sock.addr`.
    unix_addr,
    /// `unix_sock.path`: mount, then dentry.
    unix_path,
    /// `unix_sock.peer`.
    unix_peer,
    /// `unix_address.len`.
    unix_address_len,
    /// `unix_address.name`: a `sockaddr_un`.
    unix_address_name,
    /// `pid.tasks[PIDTYPE_TGID]`: the process, if it is there.
    pid_process,
    /// `pid.numbers[0].nr`: the number in the initial namespace.
    pid_number,
    /// `task_struct.pid_links[PIDTYPE_TGID]`, to which the above leads.
    task_pid_link,
    /// `vsock_sock.remote_addr.svm_cid`, or 0 where `has_vsock` is 0.
    vsock_cid,
    /// `vsock_sock.remote_addr.svm_port`, or 0 where `has_vsock` is 0.
    vsock_port,
    /// 1 where the kernel's own types say how AF_VSOCK sockets look (it is not a module).
    has_vsock,
    /// Number of sendto(2).
    nr_sendto,
    /// Number of sendmsg(2).
    nr_sendmsg,
    /// Number of sendmmsg(2).
    nr_sendmmsg,
    /// Number of execveat(2).
    nr_execveat,
    /// Number of prctl(2).
    nr_prctl,
    /// Number of ptrace(2).
    nr_ptrace,
    /// Number of process_vm_readv(2).
    nr_process_vm_readv,
    /// Number of process_vm_writev(2).
    nr_process_vm_writev,
    /// Number of tkill(2).
    nr_tkill,
    /// Number of tgkill(2).
    nr_tgkill,
    /// Number of rt_sigqueueinfo(2).
    nr_rt_sigqueueinfo,
    /// Number of rt_tgsigqueueinfo(2).
    nr_rt_tgsigqueueinfo,
    /// Number of pidfd_send_signal(2).
    nr_pidfd_send_signal,
    /// Number of mount(2).
    nr_mount,
    /// Number of umount2(2).
    nr_umount2,
    /// Number of move_mount(2).
    nr_move_mount,
    /// Number of open_tree(2).
    nr_open_tree,
    /// Number of fsmount(2).
    nr_fsmount,
    /// Number of mount_setattr(2).
    nr_mount_setattr,
    /// Number of pivot_root(2).
    nr_pivot_root,
    /// Number of unshare(2).
    nr_unshare,
    /// Number of init_module(2).
    nr_init_module,
    /// Number of finit_module(2).
    nr_finit_module,
    /// Number of delete_module(2).
    nr_delete_module,
    /// Number of kexec_load(2).
    nr_kexec_load,
    /// Number of kexec_file_load(2).
    nr_kexec_file_load,
    /// Number of add_key(2).
    nr_add_key,
    /// Number of request_key(2).
    nr_request_key,
    /// Number of io_uring_register(2).
    nr_io_uring_register,
    /// Which tier the programs serve: one of [`tier`].
    tier,
    /// 1 where programs may read kernel memory at any address; 0 under lockdown=confidentiality.
    read_kernel,
    /// 1 where a program that may sleep can have the kernel hash a file (5.18, `CONFIG_IMA`).
    ima_file_hash,
    /// `task_struct.thread_info.status`: says among others whether the call in progress is a 32-bit one.
    task_status,
    /// `pt_regs`: where the result of a system call goes; `-ENOSYS` while the call is in progress.
    regs_result,
    /// `file.f_path`, as a whole.
    file_path,
    /// `vfsmount.mnt_root`.
    vfsmount_root,
    /// `dentry.d_parent`.
    dentry_parent,
    /// `dentry.d_hash.pprev`.
    dentry_hash,
    /// `linux_binprm.cred`: the credentials to come.
    bprm_cred,
    /// `linux_binprm.p`: where the strings on the new stack begin.
    bprm_p,
    /// `linux_binprm.exec`: where the name given to exec lies on the new stack.
    bprm_exec,
    /// First of the slots of scratch that are kept for execs.
    exec_slot_first,
    /// `inode.i_writecount`: how many have the file open for writing; negative while it must not be written.
    inode_writers,
    /// `super_block.s_magic`, 8 bytes.
    super_block_magic,
    /// `super_block.s_user_ns`.
    super_block_user_ns,
    /// `user_namespace.level`: 0 for the first.
    user_namespace_level,
}

/// Values of [`Offsets::tier`].
pub mod tier {
    /// Tracepoints and exits of system calls.
    pub const TRACEPOINT: u32 = 0;
    /// Entries of the kernel's `security_*` functions.
    pub const FENTRY: u32 = 1;
    /// BPF LSM.
    pub const LSM: u32 = 2;
}
const _: () = assert!(size_of::<Offsets>() == 4 * Offsets::COUNT);
