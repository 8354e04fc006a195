"""Does one kind of privileged act a stated number of times: `privileged.py ACT N [ARGUMENT]`.

Needs the standard library of Python 3 only. System calls go through libc's `syscall` where libc would do more than one
(setresuid in every thread, for instance). The numbers are those of x86-64.
"""

import ctypes
import os
import signal
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534
KEEP = ctypes.c_long(-1)

BPF = 321
SETRESUID = 117
UNSHARE = 272
SETNS = 308
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWUSER = 0x10000000


def call(number, *arguments):
    """A system call that must succeed."""
    given = [a if not isinstance(a, int) else ctypes.c_long(a) for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


def refused(number, *arguments):
    """A system call that must fail."""
    try:
        call(number, *arguments)
    except OSError:
        return
    raise SystemExit(f"system call {number} succeeded")


def in_child(act):
    """Runs `act` in a process of its own."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a child ended with {status}")


def creds(count, _):
    """2N changes: the effective user id to nobody and back."""
    for _ in range(count):
        call(SETRESUID, KEEP, NOBODY, KEEP)
        call(SETRESUID, KEEP, 0, KEEP)
        # Changes nothing, so it is no act.
        call(SETRESUID, KEEP, 0, KEEP)


def thread_creds(count, _):
    """N changes in N threads, of those threads alone, under another name."""

    def act():
        call(157, 15, b"sshd")  # prctl(PR_SET_NAME)
        call(SETRESUID, NOBODY, NOBODY, NOBODY)

    for _ in range(count):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    if os.geteuid() != 0:
        raise SystemExit("the process changed, not its thread")


def namespaces(count, _):
    """N of each: a user namespace, which changes credentials too; a mount namespace, entered again by a descriptor."""
    for _ in range(count):
        in_child(lambda: call(UNSHARE, CLONE_NEWUSER))

        def enter():
            was = os.open("/proc/self/ns/uts", os.O_RDONLY)
            call(UNSHARE, CLONE_NEWUTS)
            call(SETNS, was, 0)

        in_child(enter)


def clones(count, _):
    """N processes begun in a mount namespace of their own (clone3 is what posix_spawn would use; here plain clone)."""
    for _ in range(count):
        child = call(56, CLONE_NEWNS | signal.SIGCHLD, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def mounts(count, directory):
    """In a mount namespace of its own: N mounts of a tmpfs, N of them taken away; N roots changed."""

    def act():
        call(UNSHARE, CLONE_NEWNS)
        call(165, b"none", b"/", 0, 1 << 18 | 1 << 14, 0)  # MS_PRIVATE | MS_REC
        for _ in range(count):
            call(165, b"affiant-test", directory.encode(), b"tmpfs", 0, 0)
            call(166, directory.encode(), 0)

    in_child(act)
    for _ in range(count):
        in_child(lambda: call(161, directory.encode()))


def detached_mount(count, directory):
    """N file systems made by fsopen and fsmount and put in place by move_mount."""

    def act():
        call(UNSHARE, CLONE_NEWNS)
        call(165, b"none", b"/", 0, 1 << 18 | 1 << 14, 0)
        for _ in range(count):
            context = call(430, b"tmpfs", 0)  # fsopen
            call(431, context, 6, 0, 0, 0)  # fsconfig(FSCONFIG_CMD_CREATE)
            mount = call(432, context, 0, 0)  # fsmount
            call(429, mount, b"", -100, directory.encode(), 4)  # move_mount
            os.close(mount)
            os.close(context)

    in_child(act)


def bpf(count, _):
    """N maps made, 3N elements written; N commands that there are not."""
    for _ in range(count):
        attribute = (ctypes.c_uint32 * 18)(1, 4, 4, 8)  # BPF_MAP_TYPE_HASH
        name = b"affiant_test\0\0\0\0"
        ctypes.memmove(ctypes.addressof(attribute) + 28, name, 16)
        made = call(BPF, 0, ctypes.byref(attribute), 72)
        key, value = ctypes.c_uint32(1), ctypes.c_uint32(2)
        element = (ctypes.c_uint64 * 4)(made, ctypes.addressof(key), ctypes.addressof(value), 0)
        for _ in range(3):
            call(BPF, 2, ctypes.byref(element), 32)
        os.close(made)
        refused(BPF, 999, ctypes.byref(element), 32)


def meddle(count, path):
    """N elements read of the map pinned at `path`."""
    name = ctypes.create_string_buffer(path.encode())
    pinned = call(BPF, 7, ctypes.byref((ctypes.c_uint64 * 2)(ctypes.addressof(name), 0)), 16)
    key, value = ctypes.c_uint32(0), ctypes.create_string_buffer(256)
    element = (ctypes.c_uint64 * 4)(pinned, ctypes.addressof(key), ctypes.addressof(value), 0)
    for _ in range(count):
        call(BPF, 1, ctypes.byref(element), 32)


def keys(count, _):
    """N keys added to the process's keyring, N of them read."""
    for number in range(count):
        serial = call(248, b"user", f"affiant-test-{number}".encode(), b"x", 1, -2)
        call(250, 11, serial, 0, 0)


def reach(count, target):
    """N attachments, N reads of memory, N descriptors taken, of the process with this number."""
    pid = int(target)
    pidfd = os.pidfd_open(pid)
    page = ctypes.create_string_buffer(8)
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        address = int(maps.readline().split("-")[0], 16)
    ours = (ctypes.c_uint64 * 2)(ctypes.addressof(page), 8)
    theirs = (ctypes.c_uint64 * 2)(address, 8)
    for _ in range(count):
        call(101, 16, pid, 0, 0)  # PTRACE_ATTACH
        os.waitpid(pid, 0)
        call(101, 1, pid, ctypes.c_void_p(address), ctypes.byref(page))  # PTRACE_PEEKTEXT
        call(101, 17, pid, 0, 0)  # PTRACE_DETACH
        call(310, pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
        os.close(call(438, pidfd, 0, 0))
        # Itself, which is not another process; and nobody.
        call(310, os.getpid(), ctypes.byref(ours), 1, ctypes.byref(ours), 1, 0)


def refused_reach(count, target):
    """As nobody: N attachments refused, N signals refused."""
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    for _ in range(count):
        refused(101, 16, int(target), 0, 0)
        refused(62, int(target), signal.SIGKILL)


def signals(count, target):
    """N signals that do nothing to that process; as many of no number, and to itself, which are none."""
    signal.signal(signal.SIGCONT, signal.SIG_IGN)
    for _ in range(count):
        os.kill(int(target), signal.SIGCONT)
        os.kill(int(target), 0)
        os.kill(os.getpid(), signal.SIGCONT)


def failed_execs(count, _):
    """N programs that are not there, N that may not be run."""
    for _ in range(count):
        for path in ("/affiant-test/nothing", "/etc/passwd"):
            try:
                os.execv(path, ["x"])
            except OSError:
                continue
            raise SystemExit(f"{path} runs")


def io_uring(count, _):
    """N instances of 8 entries, N that are refused."""
    for _ in range(count):
        params = ctypes.create_string_buffer(120)
        os.close(call(425, 8, params))
        bad = ctypes.create_string_buffer(120)
        ctypes.cast(bad, ctypes.POINTER(ctypes.c_uint32))[2] = 1 << 31  # no such flag
        refused(425, 8, bad)


def compat_setuid(count, _):
    """N changes of the effective user id by the 32-bit entry (int 0x80), which this machine's kernel may not have."""
    import mmap

    # mov eax, 208 (setresuid32); mov ebx, -1; mov ecx, NOBODY; mov edx, -1; push rbx around it.
    code = bytes.fromhex("53b8d0000000bbffffffffb9feff0000baffffffffcd805bc3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def act():
        function()
        if os.geteuid() != NOBODY:
            os._exit(3)

    for _ in range(count):
        in_child(act)


if __name__ == "__main__":
    name, number, *rest = sys.argv[1:]
    globals()[name](int(number), rest[0] if rest else None)
