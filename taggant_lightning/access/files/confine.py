"""What a process that asks a stranger's model gives up before it opens the file: writing, the network, memory, other processes.

Everything here works without root and without packages. What a system does not offer is left out, and the caller is told what
was done: limits (`resource`) on Linux and macOS; the filter of system calls on Linux with x86-64.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

NO_NEW_PRIVILEGES, PARENT_DEATH_SIGNAL, SET_NAME, NAME_MEMORY = 38, 1, 15, 0x53564D41  # of prctl
SECCOMP, SET_FILTER, ALL_THREADS = 317, 1, 1  # the call, its operation, its flag
X86_64 = 0xC000003E
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # run; EPERM; ENOSYS; end the process
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of the filter
NUMBER, ARCHITECTURE = 0, 4  # where the filter finds the call and the architecture; arguments follow from 16, 8 bytes each
# Reading, memory, threads, clocks and the end. All else is refused: sockets, programs, processes, whatever changes a folder.
FREE = (
    *(0, 1, 3, 4, 5, 6, 7, 8),  # read write close stat fstat lstat poll lseek
    *(9, 10, 11, 12, 25, 27, 28),  # mmap mprotect munmap brk mremap mincore madvise
    *(13, 14, 15, 131),  # signals of its own
    *(17, 19, 20, 21, 32, 72, 79, 89),  # pread readv writev access dup fcntl getcwd readlink
    *(217, 221, 262, 267, 269, 332, 439),  # getdents fadvise newfstatat readlinkat faccessat statx faccessat2
    *(24, 35, 39, 60, 63, 96, 97, 98, 99, 100, 102, 104, 107, 108),  # yield sleep getpid exit uname … getegid
    *(143, 145, 146, 147, 186, 202, 203, 204, 218),  # scheduling of its threads, futex
    *(228, 229, 230, 231),  # clocks, exit_group
    *(271, 273, 309, 318, 324, 334),  # ppoll set_robust_list getcpu getrandom membarrier rseq
)
OPEN, CLONE, PRCTL, TGKILL, OPENAT, PRLIMIT, CLONE3 = 2, 56, 157, 234, 257, 302, 435
WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000  # of open: write only, read and write, create, truncate, append
THREAD = 0x10000


def confine(memory: int) -> list[str]:
    """Give up what reading and asking a model does not need. It cannot be taken back.

    Args:
        memory: Bytes that may be taken beside what is taken now.

    Returns:
        What was given up, in words: `memory`, `writing`, `network`.
    """
    done = []
    if sys.platform == "linux":
        _end_with_parent()
        _first_to_go()
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        done.append("writing")
        if sys.platform == "linux":  # macOS does not keep to it
            limit = _data() + memory  # of data: libraries and reserved addresses do not count
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            done.append("memory")
    if sys.platform == "linux" and platform.machine() == "x86_64" and struct.calcsize("P") == 8 and _filter_calls():
        done.append("network")
    return sorted(done)


def _data() -> int:
    """Return the bytes that this process has taken for data and stacks."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _end_with_parent() -> None:
    """A parent that is killed cannot end its child."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, 9, 0, 0, 0)


def _first_to_go() -> None:
    """Where memory ends, the system ends this process and not the owner's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _filter_calls() -> bool:
    """Refuse all system calls but those of computing, on all threads; False where the kernel has no filters."""
    libc = ctypes.CDLL(None, use_errno=True)
    filters = b"".join(struct.pack("<HBBI", *instruction) for instruction in _program(os.getpid()))
    code = ctypes.create_string_buffer(filters, len(filters))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = Program(len(filters) // 8, ctypes.cast(code, ctypes.c_void_p))
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return int(libc.syscall(SECCOMP, SET_FILTER, ALL_THREADS, ctypes.byref(program))) == 0


def _program(own: int) -> list[tuple[int, int, int, int]]:
    """Return the filter's instructions, (code, steps over if true, if false, value); `own` is this process's number."""
    program = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, X86_64), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    for call in FREE:
        program += [(EQUAL, 0, 1, call), (RETURN, 0, 0, ALLOW)]
    # Some calls by an argument: which one, how it is compared, its value, and what an argument that compares so leads to.
    special = [
        (OPEN, 1, ANY_BIT, WRITES, REFUSE),
        (OPENAT, 2, ANY_BIT, WRITES, REFUSE),
        (CLONE, 0, ANY_BIT, THREAD, ALLOW),
        (TGKILL, 0, EQUAL, own, ALLOW),  # abort()
    ]
    for call, argument, compare, value, then in special:
        other = ALLOW if then == REFUSE else REFUSE
        program += [(EQUAL, 0, 4, call), (LOAD, 0, 0, 16 + 8 * argument), (compare, 0, 1, value), (RETURN, 0, 0, then)]
        program += [(RETURN, 0, 0, other)]
    program += [(EQUAL, 0, 5, PRCTL), (LOAD, 0, 0, 16), (EQUAL, 1, 0, SET_NAME), (EQUAL, 0, 1, NAME_MEMORY)]
    program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    program += [(EQUAL, 0, 6, PRLIMIT), (LOAD, 0, 0, 32), (EQUAL, 0, 3, 0), (LOAD, 0, 0, 36), (EQUAL, 0, 1, 0)]
    program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    # The C library asks for clone with clone3, whose arguments a filter cannot see, and falls back where it is absent.
    return [*program, (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT), (RETURN, 0, 0, REFUSE)]
