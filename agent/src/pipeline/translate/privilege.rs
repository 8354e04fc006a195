//! Privileged acts and failed execs: the same rules as in the module above.

use agent_common::privilege::{self as wire, access, act_flag, kernel_code, mount, namespace};
use agent_common::process::exec_failed_flag;
use agent_evidence::record::{
    AccessHow, ActMarks, BootTime, BpfCall, Capabilities, CgroupId, CredentialSet, CredsChanged, ExecClaims,
    ExecFailed, IoUring, KernelCode, KernelLoad, KeyUse, MountChanged, MountOp, NamespaceChanged, NamespaceOp,
    ProcessAccess, ProcessCookie, SignalSent, Text,
};

use super::{Paths, comm, euid, marks, path_marks};
use crate::event::{self, Act, Header};

/// `PTRACE_MODE_ATTACH_REALCREDS` (include/linux/ptrace.h): what the kernel checks for everything but ptrace itself.
const ATTACH_REALCREDS: u32 = 0x12;

/// 0 for success, else the error number; none when it was not observed.
fn errno(result: i32, flags: u32) -> Option<u32> {
    (flags & act_flag::RESULT != 0).then(|| if result < 0 { result.unsigned_abs() } else { 0 })
}

/// The marks that an act's own flags make, with those of its header.
fn act_marks(header: &Header<'_>, flags: u32) -> ActMarks {
    marks(header)
        .with(ActMarks::RACY, flags & act_flag::RACY != 0)
        .with(ActMarks::UNRESOLVED, flags & act_flag::UNRESOLVED != 0)
        .with(ActMarks::AGAINST_AGENT, flags & act_flag::AGAINST_AGENT != 0)
        .with(ActMarks::CLAIM_TRUNCATED, flags & act_flag::STRING_TRUNCATED != 0)
        .with(ActMarks::CLAIM_UNREAD, flags & act_flag::STRING_UNREAD != 0)
        .with(ActMarks::OFLAGS_CLAIMED, flags & act_flag::FLAGS_CLAIMED != 0)
        .with(ActMarks::RESULT_NOT_OBSERVED, flags & act_flag::RESULT == 0)
}

/// A name that the kernel keeps in a field of fixed size; none when it is empty.
fn name(field: &[u8]) -> Option<Text<'_>> {
    let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
    (!name.is_empty()).then(|| Text::new(name))
}

pub(super) fn exec_failed<'a>(event: &'a event::ExecFailed<'_>) -> ExecFailed<'a> {
    let (header, wire) = (&event.header, &event.wire);
    ExecFailed {
        errno: wire.result.unsigned_abs(),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks(header)
            .with(ActMarks::CLAIM_TRUNCATED, wire.exec_flags & exec_failed_flag::NAME_TRUNCATED != 0)
            .with(ActMarks::CLAIM_UNREAD, wire.exec_flags & exec_failed_flag::NAME_UNREAD != 0),
        claims: ExecClaims {
            comm: Text::new(header.comm.0),
            invoked: (!event.invoked.0.is_empty()).then(|| Text::new(event.invoked.0).into()),
        },
    }
}

fn credentials(set: &wire::Credentials) -> CredentialSet {
    CredentialSet {
        uid: set.uid,
        gid: set.gid,
        euid: set.euid,
        egid: set.egid,
        suid: set.suid,
        sgid: set.sgid,
        fsuid: set.fsuid,
        fsgid: set.fsgid,
        caps: Capabilities(set.cap_effective),
        caps_permitted: Capabilities(set.cap_permitted),
        caps_inheritable: Capabilities(set.cap_inheritable),
        caps_ambient: Capabilities(set.cap_ambient),
        user_namespace: set.user_namespace,
    }
}

pub(super) fn creds<'a>(event: &'a Act<'_, wire::Creds>) -> CredsChanged<'a> {
    let header = &event.header;
    CredsChanged {
        before: credentials(&event.wire.before),
        after: credentials(&event.wire.after),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks(header),
        claims: comm(header),
    }
}

pub(super) fn access<'a>(event: &'a Act<'_, wire::Access>) -> ProcessAccess<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::UNRESOLVED == 0;
    ProcessAccess {
        how: match wire.how {
            access::PTRACE => AccessHow::Ptrace,
            access::VM_READ => AccessHow::VmRead,
            access::VM_WRITE => AccessHow::VmWrite,
            access::GETFD => AccessHow::Getfd,
            _ => AccessHow::Other,
        },
        target: if known {
            ProcessCookie::derive(BootTime(wire.target_start_ns), wire.target_tgid)
        } else {
            ProcessCookie(0)
        },
        target_tgid: wire.target_tgid,
        target_scope: (wire.target_scope != 0 && wire.target_scope != header.scope_id)
            .then_some(CgroupId(wire.target_scope)),
        mode: if wire.how == access::PTRACE { wire.mode } else { ATTACH_REALCREDS },
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: act_marks(header, wire.act_flags),
        claims: comm(header),
    }
}

pub(super) fn signal<'a>(event: &'a Act<'_, wire::Signal>) -> SignalSent<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::UNRESOLVED == 0;
    SignalSent {
        target: known.then(|| ProcessCookie::derive(BootTime(wire.target_start_ns), wire.target_tgid)),
        target_tgid: wire.target_tgid,
        signal: wire.signal,
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        // A group is not something that was looked for in vain.
        marks: act_marks(header, wire.act_flags & !act_flag::UNRESOLVED),
        claims: comm(header),
    }
}

pub(super) fn mounted<'a>(event: &'a event::Mount<'_>, paths: &'a Paths) -> MountChanged<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::KNOWN != 0;
    let marks = act_marks(header, wire.act_flags);
    MountChanged {
        op: match wire.op {
            mount::BIND => MountOp::Bind,
            mount::MOVE => MountOp::Move,
            mount::REMOUNT => MountOp::Remount,
            mount::UNMOUNT => MountOp::Unmount,
            mount::PIVOT_ROOT => MountOp::PivotRoot,
            mount::CHROOT => MountOp::Chroot,
            _ => MountOp::Mount,
        },
        source: (!event.source.0.is_empty()).then(|| Text::new(event.source.0).into()),
        target: (known && !paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        fstype: name(&wire.fstype),
        flags: wire.flags,
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: if known { path_marks(marks, &event.path) } else { marks },
        claims: comm(header),
    }
}

pub(super) fn namespaces<'a>(event: &'a Act<'_, wire::Namespace>) -> NamespaceChanged<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = |number: u32| (wire.act_flags & act_flag::KNOWN != 0 && number != 0).then_some(number);
    NamespaceChanged {
        op: match wire.op {
            namespace::CLONE => NamespaceOp::Clone,
            namespace::ENTER => NamespaceOp::Enter,
            _ => NamespaceOp::Unshare,
        },
        flags: wire.flags,
        mount_namespace: known(wire.mount),
        pid_namespace: known(wire.pid),
        network_namespace: known(wire.network),
        user_namespace: known(wire.user),
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: act_marks(header, wire.act_flags),
        claims: comm(header),
    }
}

pub(super) fn bpf<'a>(event: &'a Act<'_, wire::Bpf>) -> BpfCall<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::KNOWN != 0;
    BpfCall {
        cmd: wire.cmd,
        type_: known.then_some(wire.r#type),
        id: (known && wire.id != 0).then_some(wire.id),
        name: if known { name(&wire.name) } else { None },
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: act_marks(header, wire.act_flags),
        claims: comm(header),
    }
}

pub(super) fn kernel_load<'a>(event: &'a event::KernelLoad<'_>, paths: &'a Paths) -> KernelLoad<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::KNOWN != 0;
    let marks = act_marks(header, wire.act_flags);
    KernelLoad {
        what: match wire.what {
            kernel_code::MODULE_REMOVED => KernelCode::ModuleRemoved,
            kernel_code::KEXEC => KernelCode::Kexec,
            _ => KernelCode::Module,
        },
        name: name(&wire.name),
        path: (known && !paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        sha256: None,
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: if known { path_marks(marks, &event.path) } else { marks },
        claims: comm(header),
    }
}

pub(super) fn key<'a>(event: &'a Act<'_, wire::Key>) -> KeyUse<'a> {
    let (header, wire) = (&event.header, &event.wire);
    KeyUse {
        op: wire.op,
        // Negative numbers stand for keyrings by what they are to the caller, and name none.
        serial: u32::try_from(wire.serial).ok().filter(|serial| *serial != 0),
        type_: None,
        description: None,
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: act_marks(header, wire.act_flags),
        claims: comm(header),
    }
}

pub(super) fn io_uring<'a>(event: &'a Act<'_, wire::IoUring>) -> IoUring<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let known = wire.act_flags & act_flag::KNOWN != 0;
    // A setup that failed has the number that was asked for.
    let asked = wire.op == 0 && wire.result < 0;
    IoUring {
        op: wire.op,
        flags: wire.flags,
        entries: (known || asked).then_some(wire.entries),
        errno: errno(wire.result, wire.act_flags),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: act_marks(header, wire.act_flags),
        claims: comm(header),
    }
}

#[cfg(test)]
mod tests {
    use agent_common::file::path_flag;
    use agent_evidence::record::{Class, KernelNumber};
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::event::{Claim, WalkedPath};

    fn header() -> Header<'static> {
        Header {
            number: KernelNumber { cpu: 0, class: Class::Privilege, seq: 1 },
            boot: BootTime(5),
            cgroup_id: 40,
            scope_id: 40,
            start: BootTime(4_194_304),
            parent_start: BootTime(0),
            tgid: 7,
            tid: 8,
            parent_tgid: 1,
            uid: 1000,
            gid: 1000,
            euid: 0,
            egid: 0,
            flags: 0,
            comm: Claim(b"python3"),
        }
    }

    fn act<W: zerocopy::FromZeros>(set: impl FnOnce(&mut W)) -> Act<'static, W> {
        let mut wire = W::new_zeroed();
        set(&mut wire);
        Act { header: header(), wire }
    }

    #[test]
    fn credentials_keep_before_and_after_apart() {
        let event = act(|wire: &mut wire::Creds| {
            (wire.before.uid, wire.before.cap_permitted, wire.after.uid, wire.after.fsgid) = (0, 1, 1000, 9);
        });
        let record = creds(&event);
        assert_eq!((record.before.uid, record.before.caps_permitted), (0, Capabilities(1)));
        assert_eq!((record.after.uid, record.after.fsgid, record.after.caps_permitted), (1000, 9, Capabilities(0)));
        assert_eq!((record.uid, record.euid), (1000, Some(0)));
    }

    #[test]
    fn a_scope_is_named_only_when_it_is_another() {
        for (scope, named) in [(0, None), (40, None), (41, Some(CgroupId(41)))] {
            let event = act(|wire: &mut wire::Access| wire.target_scope = scope);
            assert_eq!(access(&event).target_scope, named);
        }
    }

    #[test]
    fn a_process_that_was_not_found_has_its_number_and_no_name() {
        let event = act(|wire: &mut wire::Access| {
            (wire.target_tgid, wire.act_flags, wire.how) =
                (99, act_flag::UNRESOLVED | act_flag::RESULT, access::VM_READ);
        });
        let record = access(&event);
        assert_eq!((record.target, record.target_tgid, record.mode), (ProcessCookie(0), 99, ATTACH_REALCREDS));
        assert!(record.marks.contains(ActMarks::UNRESOLVED));
        assert_eq!(record.errno, Some(0));
    }

    #[test]
    fn a_result_that_was_not_observed_is_absent_and_marked() {
        let event = act(|wire: &mut wire::Signal| (wire.result, wire.target_tgid) = (-1, 5));
        assert_eq!(signal(&event).errno, None);
        assert!(signal(&event).marks.contains(ActMarks::RESULT_NOT_OBSERVED));
        let refused = act(|wire: &mut wire::Signal| {
            (wire.result, wire.act_flags) = (-1, act_flag::RESULT | act_flag::UNRESOLVED | act_flag::AGAINST_AGENT);
        });
        let refused = signal(&refused);
        assert_eq!((refused.errno, refused.target), (Some(1), None), "a group");
        assert!(refused.marks.contains(ActMarks::AGAINST_AGENT) && !refused.marks.contains(ActMarks::UNRESOLVED));
    }

    #[test]
    fn what_the_agent_does_to_itself_is_recorded_and_not_marked() {
        let event = event::Event::Bpf(act(|wire: &mut wire::Bpf| {
            (wire.cmd, wire.act_flags) = (1, act_flag::RESULT | act_flag::AGAINST_AGENT | act_flag::RACY);
        }));
        let event::Event::Bpf(others) = event else { panic!("{event:?}") };
        let event::Event::Bpf(own) = event.of_the_agent_itself() else { panic!("{event:?}") };
        assert!(bpf(&others).marks.contains(ActMarks::AGAINST_AGENT));
        assert!(!bpf(&own).marks.contains(ActMarks::AGAINST_AGENT));
        assert!(bpf(&own).marks.contains(ActMarks::RACY));
    }

    #[test]
    fn a_mount_has_a_place_only_where_the_kernel_gave_one() {
        let mut wire = wire::Mount::new_zeroed();
        (wire.op, wire.act_flags) = (mount::CHROOT, act_flag::RESULT | act_flag::KNOWN);
        wire.fstype[..5].copy_from_slice(b"tmpfs");
        let path = WalkedPath { names: b"root\0", flags: path_flag::COMPLETE };
        let mut event = event::Mount { header: header(), wire, path, source: Claim(b"/root") };
        let mut paths = Paths::default();
        paths.turn(&event::Event::Mount(event));
        let record = mounted(&event, &paths);
        assert_eq!(record.target.map(|target| target.display()), Some("/root".to_owned()));
        assert_eq!((record.op, record.fstype), (MountOp::Chroot, Some(Text::from("tmpfs"))));
        event.wire.act_flags = act_flag::RESULT;
        let record = mounted(&event, &paths);
        assert!(record.target.is_none() && !record.marks.contains(ActMarks::PATH_PARTIAL));
        assert!(record.source.is_some());
    }

    #[test]
    fn an_object_is_described_only_when_it_is_known() {
        let mut event = act(|wire: &mut wire::Bpf| {
            (wire.cmd, wire.r#type, wire.id, wire.name[0], wire.act_flags) = (5, 2, 77, b'x', act_flag::KNOWN);
        });
        let known = bpf(&event);
        assert_eq!((known.type_, known.id, known.name), (Some(2), Some(77), Some(Text::from("x"))));
        event.wire.act_flags = act_flag::RESULT;
        let unknown = bpf(&event);
        assert_eq!((unknown.type_, unknown.id, unknown.name), (None, None, None));
    }

    #[test]
    fn special_keyrings_have_no_serial_number() {
        for (serial, named) in [(-3, None), (0, None), (12, Some(12))] {
            assert_eq!(key(&act(|wire: &mut wire::Key| wire.serial = serial)).serial, named);
        }
    }

    #[test]
    fn an_io_uring_that_could_not_be_made_has_what_was_asked_for() {
        let failed = act(|wire: &mut wire::IoUring| {
            (wire.result, wire.entries, wire.flags) = (-1, 64, 2);
            wire.act_flags = act_flag::RESULT | act_flag::FLAGS_CLAIMED;
        });
        let record = io_uring(&failed);
        assert_eq!((record.errno, record.entries, record.flags), (Some(1), Some(64), 2));
        assert!(record.marks.contains(ActMarks::OFLAGS_CLAIMED));
    }
}
