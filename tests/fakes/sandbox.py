"""Runs a command under what the systemd unit forbids, as far as a kernel without systemd can show it: its filter of system
calls, by libseccomp, with the one that MemoryDenyWriteExecute= sets, and no new privileges.

    python sandbox.py UNIT COMMAND...
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno.EPERM  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
PR_SET_NO_NEW_PRIVS = 38
PROT_WRITE, PROT_EXEC = 2, 4
MASKED_EQ = 7  # SCMP_CMP_MASKED_EQ


class Compared(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def library() -> ctypes.CDLL | None:
    """None: this system has no libseccomp."""
    try:
        found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    return found


def expanded(name: str) -> set[str]:
    """The system calls of a set like @system-service, as systemd has it."""
    if not name.startswith("@"):
        return {name}
    line = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    words = [one.strip() for one in text.splitlines()[1:] if one.strip() and not one.strip().startswith("#")]
    return set().union(*(expanded(one) for one in words))


def allowed(unit: str) -> set[str]:
    """By the unit's lines SystemCallFilter=, one after the other."""
    found: set[str] = set()
    for line in unit.splitlines():
        if not line.startswith("SystemCallFilter="):
            continue
        text = line.partition("=")[2]
        calls = set().union(*(expanded(one) for one in text.removeprefix("~").split()))
        found = found - calls if text.startswith("~") else found | calls
    assert found, "the unit filters nothing"
    return found


def confine(unit: str) -> None:
    """This process and its children, from now on."""
    seccomp = library()
    assert seccomp is not None
    libc = ctypes.CDLL(None, use_errno=True)
    context = ctypes.c_void_p(seccomp.seccomp_init(DENY))
    for name in sorted(allowed(unit)):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # of another architecture
            continue
        if "MemoryDenyWriteExecute=yes" in unit and name in ("mmap", "mprotect", "pkey_mprotect", "shmat"):
            continue
        assert seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    if "MemoryDenyWriteExecute=yes" in unit:
        for name, mask, fine in (
            # As systemd: no mapping that is writable and executable, and none that becomes executable.
            ("mmap", PROT_EXEC | PROT_WRITE, (0, PROT_EXEC, PROT_WRITE)), ("mprotect", PROT_EXEC, (0,)),
            ("pkey_mprotect", PROT_EXEC, (0,)),
        ):  # fmt: skip
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            for bits in fine:
                rule = (Compared * 1)(Compared(2, MASKED_EQ, mask, bits))
                assert seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, 1, rule) == 0, name
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
