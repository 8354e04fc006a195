"""A workload that tries to act unseen: one attempt per name, each said on standard output as what it really did.

The end-to-end tests run it in a session and compare what it says of itself with what the log says of it. It needs a Linux
x86-64 host and Python's standard library; calls that Python does not have are made through the C library's syscall().
"""

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)


def syscall(number, *arguments):
    """The result of a system call; an OSError when it fails."""
    made = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *made)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def rewritten_path(directory, rounds):
    """Opens a path that another thread rewrites all the time; says which inode each descriptor has."""
    first, second = (f"{directory}/{name}".encode() for name in ("one", "two"))
    for path in (first, second):
        with open(path, "wb"):
            pass
    path = ctypes.create_string_buffer(first)
    ended = threading.Event()

    def rewrite():
        while not ended.is_set():
            ctypes.memmove(path, second, len(second))
            ctypes.memmove(path, first, len(first))

    thread = threading.Thread(target=rewrite)
    thread.start()
    opened = 0
    while opened < int(rounds):
        # A half-written name is there too: such an open fails.
        fd = LIBC.open(path, os.O_RDONLY)
        if fd >= 0:
            print("opened", os.fstat(fd).st_ino)
            os.close(fd)
            opened += 1
    ended.set()
    thread.join()


def swapped_link(directory, rounds):
    """Opens a symbolic link that another process points elsewhere all the time."""
    link = f"{directory}/link"
    for name in ("one", "two"):
        with open(f"{directory}/{name}", "w"):
            pass
    os.symlink("one", link)
    child = os.fork()
    if child == 0:
        turn = 0
        while os.getppid() != 1:
            turn += 1
            os.symlink(("one", "two")[turn % 2], f"{directory}/next")
            os.rename(f"{directory}/next", link)
        os._exit(0)
    for _ in range(int(rounds)):
        fd = os.open(link, os.O_RDONLY)
        print("opened", os.fstat(fd).st_ino)
        os.close(fd)
    os.kill(child, 9)
    os.waitpid(child, 0)


def memory_program(program):
    """Runs a program that has no name in any file system."""
    fd = os.memfd_create("innocent", 0)
    with open(program, "rb") as source:
        os.write(fd, source.read())
    if os.fork() == 0:
        arguments = (ctypes.c_char_p * 2)(b"innocent", None)
        environment = (ctypes.c_char_p * 1)(None)
        # execveat(fd, "", argv, envp, AT_EMPTY_PATH)
        syscall(322, fd, ctypes.c_char_p(b""), arguments, environment, 0x1000)
    print("inode", os.fstat(fd).st_ino)
    os.wait()


def deleted_program(program, directory):
    """Runs a program whose file is removed before it begins."""
    copy = f"{directory}/gone"
    with open(program, "rb") as source, open(copy, "wb") as sink:
        sink.write(source.read())
    os.chmod(copy, 0o755)
    fd = os.open(copy, os.O_RDONLY)
    os.unlink(copy)
    if os.fork() == 0:
        os.execve(fd, ["gone"], {})
    print("inode", os.fstat(fd).st_ino)
    os.wait()


def script(directory):
    """Runs a script by its interpreter line."""
    path = f"{directory}/script"
    with open(path, "w", encoding="ascii") as out:
        out.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)
    if os.fork() == 0:
        os.execv(path, ["a-name-of-its-choice", "argument"])
    os.wait()


def renamed(path):
    """Calls itself something else, in every place that it can write to, and then acts."""
    LIBC.prctl(15, b"systemd", 0, 0, 0)
    with open("/proc/self/comm", "wb") as comm:
        comm.write(b"kworker/0:1")
    os.open(path, os.O_WRONLY | os.O_CREAT)
    print("pid", os.getpid())


def own_root(directory, name):
    """Makes a user and a mount namespace, a root of its own, and creates a file below it by a short name."""
    # CLONE_NEWUSER | CLONE_NEWNS
    syscall(272, 0x10000000 | 0x00020000)
    os.chroot(directory)
    os.chdir("/")
    fd = os.open(f"/{name}", os.O_WRONLY | os.O_CREAT)
    print("inode", os.fstat(fd).st_ino)


def other_tables(path):
    """Opens by the system call table of 32-bit programs."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE | 0x40)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    name = address + 1024
    code.seek(1024)
    code.write(path.encode() + b"\0")
    code.seek(0)
    # push rbx; mov eax, 5 (open); mov ebx, name; mov ecx, flags; mov edx, mode; int 0x80; pop rbx; ret
    flags = os.O_WRONLY | os.O_CREAT
    code.write(b"\x53\xb8\x05\0\0\0\xbb" + struct.pack("<I", name) + b"\xb9" + struct.pack("<I", flags))
    code.write(b"\xba\xa4\x01\0\0\xcd\x80\x5b\xc3")
    fd = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    print("inode", os.fstat(fd).st_ino)


class Ring:
    """As much of io_uring as one request at a time needs."""

    def __init__(self):
        parameters = ctypes.create_string_buffer(120)
        self.fd = syscall(425, 4, parameters)
        words = struct.unpack("<30I", parameters.raw)
        self.sq, self.cq = words[10:20], words[20:30]
        rings = max(self.sq[6] + 4 * 4, self.cq[5] + 16 * 8)
        self.ring = mmap.mmap(self.fd, rings, offset=0)
        self.requests = mmap.mmap(self.fd, 4 * 64, offset=0x10000000)

    def submit(self, opcode, fd, address, length, offset, flags):
        """Has one request carried out by a kernel worker and gives its result."""
        request = struct.pack("<BBHiQQII", opcode, 0x10, 0, fd, offset, address, length, flags)
        self.requests[0:64] = request + bytes(64 - len(request))
        tail = struct.unpack_from("<I", self.ring, self.sq[1])[0]
        struct.pack_into("<I", self.ring, self.sq[6] + 4 * (tail & 3), 0)
        struct.pack_into("<I", self.ring, self.sq[1], tail + 1)
        # io_uring_enter: one to submit, one to wait for (IORING_ENTER_GETEVENTS)
        syscall(426, self.fd, 1, 1, 1, None, 0)
        head = struct.unpack_from("<I", self.ring, self.cq[0])[0]
        at = self.cq[5] + 16 * (head & 7)
        result = struct.unpack_from("<i", self.ring, at + 8)[0]
        struct.pack_into("<I", self.ring, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def ring_open(path):
    """Opens through io_uring."""
    name = ctypes.create_string_buffer(path.encode())
    # IORING_OP_OPENAT
    fd = Ring().submit(18, -100, ctypes.addressof(name), 0o644, 0, os.O_WRONLY | os.O_CREAT)
    print("inode", os.fstat(fd).st_ino)


def ring_connect(port):
    """Connects through io_uring."""
    client = socket.socket()
    address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", int(port)) + socket.inet_aton("127.0.0.1") + bytes(8)
    name = ctypes.create_string_buffer(address, 16)
    # IORING_OP_CONNECT: the length of the address stands where others have an offset.
    Ring().submit(16, client.fileno(), ctypes.addressof(name), 0, 16, 0)
    print("connected from", client.getsockname()[1])


def flooded(directory, execs):
    """Opens from several processes as fast as it can, and runs a program now and then in between."""
    with open(f"{directory}/file", "w"):
        pass
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            path = f"{directory}/file".encode()
            while os.getppid() != 1:
                for _ in range(1000):
                    os.close(LIBC.open(path, os.O_RDONLY))
            os._exit(0)
        children.append(child)
    for number in range(int(execs)):
        child = os.fork()
        if child == 0:
            os.execv("/bin/true", ["true", str(number)])
        os.waitpid(child, 0)
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)


def passed(directory):
    """Reads a file through a descriptor that another process opened before it was watched."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        fd = os.open(f"{directory}/file", os.O_RDONLY | os.O_CREAT)
        socket.send_fds(theirs, [b"x"], [fd])
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.wait()
    print("inode", os.fstat(fds[0]).st_ino)
    assert fcntl.fcntl(fds[0], fcntl.F_GETFL) & 3 == os.O_RDONLY


def own_cgroup(root):
    """Moves itself to the root of the cgroup hierarchy, where no session is, and acts there."""
    with open(f"{root}/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write(str(os.getpid()))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/true", ["true", "far-away"])
        os._exit(0)
    os.wait()


ATTEMPTS = {
    attempt.__name__: attempt
    for attempt in (
        rewritten_path, swapped_link, memory_program, deleted_program, script, renamed, own_root, other_tables,
        ring_open, ring_connect, flooded, passed, own_cgroup,
    )
}

if __name__ == "__main__":
    ATTEMPTS[sys.argv[1]](*sys.argv[2:])
