"""System calls on files, by number: `file_calls.py ACTS N DIRECTORY` (x86-64).

The C library chooses which call serves a function; here each act is exactly the call that is named, so counts are exact. Names
begin with the act's, so that a reader of the log knows which is which. ACTS is one of the functions below whose names begin `do_`.
"""

import ctypes
import mmap
import os
import socket
import stat
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
CWD = -100
REMOVEDIR, EXCHANGE, KEEP_SIZE = 0x200, 2, 1
ENOENT, EBADF, EACCES, EPERM, EFAULT, ENODATA = 2, 9, 13, 1, 14, 61
NUMBERS = {
    "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90,
    "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "mknod": 133, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "mkdirat": 258, "mknodat": 259, "fchownat": 260, "unlinkat": 263,
    "renameat": 264, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "fallocate": 285, "renameat2": 316, "fchmodat2": 452,
    "setxattrat": 463, "removexattrat": 466,
}


class XattrArgs(ctypes.Structure):
    _fields_ = [("value", ctypes.c_uint64), ("size", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


def call(name, *arguments, fails=0):
    """One system call, which must end as expected."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(os.fsencode(a)) if isinstance(a, str) else a
                 for a in arguments]
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name]), *converted)
    seen = ctypes.get_errno() if result < 0 else 0
    if seen != fails:
        raise SystemExit(f"{name}{arguments}: errno {seen}, expected {fails}")


def do_calls(count, directory):
    """Each call that the kernel side has a hook for, and ends well."""
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    other = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(f"{directory}/file", os.O_RDWR | os.O_CREAT)
    value = ctypes.create_string_buffer(b"one")
    xattr = ctypes.byref(XattrArgs(ctypes.addressof(value), 3, 0))
    fifo = stat.S_IFIFO | 0o600
    for i in range(count):
        def path(name, i=i):
            return f"{directory}/{name}-{i}"
        call("mkdir", path("mkdir"), 0o700)
        call("rmdir", path("mkdir"))
        call("mkdirat", at, f"mkdirat-{i}", 0o700)
        call("unlinkat", at, f"mkdirat-{i}", REMOVEDIR)
        call("mknod", path("mknod"), fifo, 0)
        call("mknodat", at, f"mknodat-{i}", fifo, 0)
        call("unlinkat", at, f"mknodat-{i}", 0)
        call("link", path("mknod"), path("link"))
        call("linkat", at, f"mknod-{i}", other, f"linkat-{i}", 0)
        call("rename", path("link"), path("rename"))
        call("renameat", at, f"linkat-{i}", other, f"renameat-{i}")
        call("renameat2", CWD, path("rename"), other, f"renameat-{i}", EXCHANGE)
        call("renameat2", at, f"rename-{i}", CWD, path("renameat2"), 1)
        call("unlink", path("renameat2"))
        call("symlink", f"target-{i}", path("symlink"))
        call("symlinkat", f"target-{i}", at, f"symlinkat-{i}")
        call("chmod", path("mknod"), 0o640)
        call("fchmodat", at, f"mknod-{i}", 0o600)
        call("fchmodat2", at, f"mknod-{i}", 0o644, 0)
        call("fchmod", file, 0o600 + i % 8)
        call("chown", path("mknod"), 0, 0)
        call("lchown", path("symlink"), 1, 2)
        call("fchownat", at, f"mknod-{i}", 0, 0, 0)
        call("fchown", file, 3, 4)
        call("truncate", f"{directory}/file", i + 1)
        call("ftruncate", file, i + 2)
        call("fallocate", file, 0, ctypes.c_long(0), ctypes.c_long(8192 + i))
        call("fallocate", file, KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(1 << 20))
        call("setxattr", f"{directory}/file", f"user.set-{i}", value, 3, 0)
        call("removexattr", f"{directory}/file", f"user.set-{i}")
        call("lsetxattr", f"{directory}/file", f"user.lset-{i}", value, 3, 0)
        call("lremovexattr", f"{directory}/file", f"user.lset-{i}")
        call("fsetxattr", file, f"user.fset-{i}", value, 3, 0)
        call("fremovexattr", file, f"user.fset-{i}")
        if tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 13):
            call("setxattrat", at, "file", 0, f"user.setat-{i}", xattr, 16)
            call("removexattrat", at, "file", 0, f"user.setat-{i}")


def do_failures(count, directory):
    """Calls that end in an error."""
    for i in range(count):
        def path(name, i=i):
            return f"{directory}/{name}-{i}"
        call("unlink", path("no-unlink"), fails=ENOENT)
        call("rename", path("no-rename"), path("no-where"), fails=ENOENT)
        call("mkdir", f"{directory}/nowhere/no-mkdir-{i}", 0o700, fails=ENOENT)
        call("rmdir", f"{directory}/file-{i}/no-rmdir", fails=ENOENT)
        call("truncate", path("no-truncate"), 1, fails=ENOENT)
        call("linkat", CWD, path("no-linkat"), CWD, path("no-where"), 0, fails=ENOENT)
        call("removexattr", directory, f"user.none-{i}", fails=ENODATA)
        call("fchmod", 987, 0o600, fails=EBADF)
        call("unlink", ctypes.c_void_p(8), fails=EFAULT)


def do_denied(count, directory):
    """Calls that a user without rights makes."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    for i in range(count):
        call("unlink", f"{directory}/denied", fails=EACCES)
        call("rename", f"{directory}/denied", f"{directory}/denied-{i}", fails=EACCES)
        call("mkdir", f"{directory}/denied-{i}", 0o700, fails=EACCES)
        call("chmod", f"{directory}/denied", 0o777, fails=EPERM)
        call("chown", f"{directory}/denied", 65534, 65534, fails=EPERM)


def do_places(count, directory):
    """Renames through a symbolic link to a directory, and a removal below another root."""
    for i in range(count):
        call("rename", f"{directory}/by-link/file-{i}", f"{directory}/by-link/moved-{i}")
    os.chroot(f"{directory}/root")
    os.chdir("/")
    for i in range(count):
        call("unlink", f"/inside-{i}")


def do_threads(count, directory):
    """The same calls with a second thread alive, which shares the descriptor table."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    file = os.open(f"{directory}/file", os.O_RDWR | os.O_CREAT)

    def act():
        for i in range(count):
            call("fchmod", file, 0o600)
            call("mkdir", f"{directory}/by-thread-{i}", 0o700)
    acting = threading.Thread(target=act)
    acting.start()
    acting.join()
    end.set()
    other.join()


def do_closes(count, directory):
    """Files closed: opened for writing, for reading, held twice, and left to the end of the process."""
    for i in range(count):
        os.close(os.open(f"{directory}/written-{i}", os.O_WRONLY | os.O_CREAT))
        os.close(os.open(f"{directory}/written-{i}", os.O_RDONLY))
        twice = os.open(f"{directory}/twice-{i}", os.O_RDWR | os.O_CREAT)
        second = os.dup(twice)
        os.close(twice)
        os.close(second)
    os.open(f"{directory}/left", os.O_WRONLY | os.O_CREAT)
    one, another = socket.socketpair()
    one.close()
    another.close()


def do_maps(count, directory):
    """Mappings: shared and writable, executable, and some that are neither."""
    file = os.open(f"{directory}/mapped", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, 4096)
    for _ in range(count):
        mmap.mmap(file, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
        mmap.mmap(file, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        mmap.mmap(file, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
        mmap.mmap(file, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ).close()
        mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()


def do_reads(count, directory):
    """Reads of installed software, and what stands beside it and must not be taken for that."""
    for i in range(count):
        os.close(os.open(f"{directory}/lib/{i}", os.O_RDONLY))
    os.close(os.open(f"{directory}/lib/secret", os.O_RDONLY))
    os.close(os.open(f"{directory}/lib/anybodys", os.O_RDONLY))
    os.close(os.open(f"{directory}/lib/0", os.O_RDWR))
    os.close(os.open(f"{directory}/lib", os.O_RDONLY | os.O_DIRECTORY))
    os.close(os.open(f"{directory}/beside", os.O_RDONLY))
    try:
        os.open(f"{directory}/lib/missing", os.O_RDONLY)
    except FileNotFoundError:
        pass


def main():
    acts, count, directory = sys.argv[1:]
    globals()[f"do_{acts}"](int(count), directory)


if __name__ == "__main__":
    main()
